"""Which of this machine's records can be proposed to a hub, with what, and what is missing of the others."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from easyteacache.calibrating.filing import local_layer
from easyteacache.calibrating.judged_solution import FEWEST_RUNS
from easyteacache.calibrating.trace_store import TraceStore, traces_home
from easyteacache.errors import InvalidCalibration
from easyteacache.hub.review.check_submission import TraceFiles
from easyteacache.records import trace_file
from easyteacache.records.calibration import Calibration
from easyteacache.records.provenance import TraceReference
from easyteacache.records.trace_set import TraceSet
from easyteacache.registry import index
from easyteacache.registry.registry import Layer

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Shareable:
    """One record of the local layer, or runs that are to become one.

    Attributes:
        key: of the record.
        data: the file as it would be sent; None where it cannot be sent yet.
        traces: the trace files that go with it.
        prompts: per run what would be told of its prompt: the beginning of its hash, its text where that was asked for, or that nothing
            is known of it.
        missing: why it cannot be sent yet, a clause each; empty where it can.
    """

    key: str
    data: bytes | None = None
    traces: tuple[Path, ...] = ()
    prompts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def shareable(
    scratch: Path,
    *,
    license: str | None = None,
    author: str | None = None,
    publish_prompts: bool = False,
    traces: Iterable[str | os.PathLike[str]] = (),
    keys: Sequence[str] = (),
) -> list[Shareable]:
    """Everything on this machine that might be proposed, sorted by key.

    Args:
        scratch: an empty folder, for copies of traces without their prompts' texts.
        license, author: of records that name none.
        publish_prompts: leave the prompts' texts in the traces where they are.
        traces: trace files or folders beside those in this machine's home.
        keys: these alone; none: all of them.

    Raises:
        OSError: ``scratch`` cannot be written.
    """
    files = TraceFiles([place for place in (traces_home(), *traces) if Path(place).exists()])
    layer = Layer("local", local_layer(), around=True)
    found = [
        _record(layer, key, files, scratch, license=license, author=author, publish_prompts=publish_prompts)
        for key in (layer.index.records if layer.folder.is_dir() else ())
    ]
    known = {one.key for one in found}
    found += [one for one in _in_the_making() if one.key not in known]
    found += [
        Shareable(str(key), missing=(f"its file is damaged: {error}",))
        for key, error in (layer.damaged.items() if layer.folder.is_dir() else ())
        if key != index.FILE_NAME
    ]
    return sorted((one for one in found if not keys or one.key in keys), key=lambda one: one.key)


def _record(
    layer: Layer,
    key: str,
    files: TraceFiles,
    scratch: Path,
    *,
    license: str | None,
    author: str | None,
    publish_prompts: bool,
) -> Shareable:
    try:
        record = layer.load(key)
    except InvalidCalibration as error:
        return Shareable(key, missing=(f"its file is damaged: {error}",))
    origin = record.provenance
    origin = origin.model_copy(update={"license": origin.license or license, "author": origin.author or author})
    missing = []
    if record.status != "validated":
        missing.append(f"its status is {record.status!r}, and only validated records are proposed")
    if not origin.traces:
        missing.append("it names no traces")
    missing += [f"it has no {word}: pass --{word}" for word in ("license", "author") if getattr(origin, word) is None]
    places = [files.find(reference)[0] for reference in origin.traces]
    lost = sum(place is None for place in places)
    if lost:
        missing.append(f"{lost} of its {len(places)} trace files are not on this machine: pass --traces")
    if missing:
        return Shareable(key, missing=tuple(missing))
    sent, prompts, references = [], [], []
    for place in places:
        assert place is not None
        path, told, reference = _without_texts(place, scratch, publish_prompts)
        sent.append(path)
        prompts.extend(told)
        references.append(reference)
    content = record.model_copy(
        update={"provenance": origin.model_copy(update={"traces": tuple(references)})}
    ).to_json()
    # Through the constructor, so that the record's own rules apply to what was filled in.
    data = Calibration.from_json(content, where=key).to_json().encode()
    return Shareable(key, data, tuple(sent), tuple(prompts))


def _without_texts(path: Path, scratch: Path, publish: bool) -> tuple[Path, list[str], TraceReference]:
    """A trace file as it would be sent, what it tells of prompts, and its name and hash."""
    runs, reference = trace_file.read(path)
    texts = [run.header.prompt for run in runs]
    if publish or not any(texts):
        return path, [_told(run.header.prompt, run.header.prompt_sha256) for run in runs], reference
    bare = [
        dataclasses.replace(run, header=run.header.model_copy(update={"prompt": None}), version_1=None) for run in runs
    ]
    copy = scratch / path.name
    return copy, [_told(None, run.header.prompt_sha256) for run in bare], TraceSet(bare).save(copy)


def _told(prompt: str | None, digest: str | None) -> str:
    if prompt is not None:
        return f"text {prompt!r}"
    return "nothing is known of it" if digest is None else f"hash {digest[:12]}…"


def _in_the_making() -> list[Shareable]:
    """Settings that were recorded and have no record yet."""
    home = traces_home() / "while-working"
    if not home.is_dir():
        return []
    found = []
    for folder in sorted(home.iterdir()):
        store = TraceStore(folder.name.replace("--", "/"))
        count, state = store.count(), store.state()
        if not count:
            continue
        more = max(state.needed, FEWEST_RUNS) - count
        number = _NUMBERS[more] if 0 < more < len(_NUMBERS) else str(max(more, 1))
        why = f"{number} more run{'s' if more > 1 else ''} to record ({count} so far)"
        found.append(Shareable(store.key, missing=(why if state.refused is None else f"{why}; {state.refused}",)))
    return found
