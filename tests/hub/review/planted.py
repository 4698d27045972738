"""Submissions that are wrong in one way each: name of the defect → (rule it must be refused for, how to plant it)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyteacache.records.trace_set import TraceSet
from easyteacache.registry import index

from ...older_records import written_by_version
from ..solved import KEY, Solved, build_run

FILE = f"{KEY}.json"


@dataclass
class Case:
    """A changed registry folder and the traces beside it, before the defect is planted: one good new record."""

    registry: Path
    traces: Path
    solved: Solved

    @property
    def path(self) -> Path:
        return self.registry / FILE

    def edit(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the record's content and list it again."""
        content = json.loads(self.path.read_text())
        change(content)
        self.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        self.relist()

    def relist(self) -> None:
        """Write the index that belongs to the folder, as far as its records can be read."""
        try:
            index.write(self.registry, index.build(self.registry))
        except ValueError:
            listed = json.loads((self.registry / index.FILE_NAME).read_text())
            (self.registry / index.FILE_NAME).write_text(json.dumps(listed))

    def replace(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.write(text.replace(old, new, 1))


def bucket(case: Case, change: Callable[[dict[str, Any]], Any]) -> None:
    case.edit(lambda content: change(content["buckets"][0]))


def provenance(case: Case, change: Callable[[dict[str, Any]], Any]) -> None:
    case.edit(lambda content: change(content["provenance"]))


def other_runs(case: Case, runs: list[Any]) -> None:
    """Replace the traces by ``runs``, named and hashed as they should be."""
    (path,) = case.traces.glob("*.safetensors")
    reference = TraceSet(runs).save(path)
    provenance(case, lambda origin: origin.update(traces=[reference.model_dump(mode="json")]))


def steal(case: Case) -> None:
    record = json.loads((case.registry / "known/model.json").read_text())
    case.edit(lambda content: content.update(aliases=record["aliases"]))


def scaled(case: Case, factor: float) -> None:
    def change(one: dict[str, Any]) -> None:
        one["coefficients"] = [value * factor for value in one["coefficients"]]

    bucket(case, change)


def gain(case: Case) -> None:
    def change(one: dict[str, Any]) -> None:
        for point in one["operating_points"]:
            point["evidence"][0]["value"] /= 2

    bucket(case, change)


def drop(case: Case, *names: str) -> None:
    provenance(case, lambda origin: [origin.pop(name) for name in names])


def linked(case: Case) -> None:
    target = case.registry.parent / "outside.json"
    target.write_bytes(case.path.read_bytes())
    case.path.unlink()
    case.path.symlink_to(target)


def misplaced(case: Case) -> None:
    (case.registry / "test" / "Smooth.json").write_bytes(case.path.read_bytes())


def truncated_trace(case: Case) -> None:
    import hashlib

    (path,) = case.traces.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance(case, lambda origin: origin["traces"][0].update(sha256=digest))


def edited_run(case: Case) -> None:
    """One number of one run changed after the recording, the file's hash made to fit."""
    import hashlib

    (path,) = case.traces.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(bytes(data))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance(case, lambda origin: origin["traces"][0].update(sha256=digest))


def delete_known(case: Case) -> None:
    (case.registry / "known/model.json").unlink()
    case.relist()


def known_again(case: Case, **changes: Any) -> None:
    path = case.registry / "known/model.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    case.relist()


RETIREMENT = {"date": "2026-02-01", "reason": "Wrong."}
few = [build_run(seed) for seed in range(4)]

PLANTED: dict[str, tuple[str, Callable[[Case], Any]]] = {
    "not-json": ("record.json", lambda c: c.write("{")),
    "not-a-number": ("record.json", lambda c: c.replace('"revision": 1', '"revision": NaN')),
    "key-twice": ("record.json", lambda c: c.replace('"revision": 1', '"revision": 1, "revision": 1')),
    "nested-too-deep": ("record.json", lambda c: c.write("[" * 40 + "]" * 40)),
    "future-format": ("record.schema-version", lambda c: c.edit(lambda r: r.update(schema_version=9))),
    "older-format": ("submission.schema-version", lambda c: c.write(written_by_version(c.solved.record, 2))),
    "unknown-field": ("record.schema", lambda c: c.edit(lambda r: r.update(comment="hello"))),
    "unknown-status": ("record.schema", lambda c: c.edit(lambda r: r.update(status="excellent"))),
    "window-contradicts-steps": ("record.invariant", lambda c: bucket(c, lambda b: b.update(max_skip_step=99))),
    "other-spelling": ("record.canonical", lambda c: c.write(json.dumps(json.loads(c.path.read_text())))),
    "filed-under-another-key": ("record.path", lambda c: c.edit(lambda r: r.update(model_key="test/rough"))),
    "symbolic-link": ("registry.name", linked),
    "upper-case-file": ("registry.name", misplaced),
    "alias-of-another-record": ("registry.alias", steal),
    "alias-is-another-key": (
        "registry.alias",
        lambda c: c.edit(lambda r: r.update(aliases=[{"kind": "former_key", "value": "known/model"}])),
    ),
    "index-not-written": ("index.unlisted", lambda c: (c.registry / "index.json").write_bytes(BASE_INDEX[c.registry])),
    "index-of-other-content": ("index.sha256", lambda c: c.path.write_text(c.path.read_text() + "\n")),
    "index-damaged": ("index.json", lambda c: (c.registry / "index.json").write_text("{")),
    "index-missing": ("index.missing", lambda c: (c.registry / "index.json").unlink()),
    "draft": ("submission.status", lambda c: c.edit(lambda r: r.update(status="draft"))),
    "revision-not-from-one": ("submission.revision", lambda c: c.edit(lambda r: r.update(revision=3))),
    "revision-not-raised": ("submission.revision", lambda c: known_again(c, title="Renamed")),
    "no-licence": ("submission.license", lambda c: drop(c, "license")),
    "no-author": ("submission.provenance", lambda c: drop(c, "author")),
    "no-tool": ("submission.provenance", lambda c: drop(c, "tool", "tool_version")),
    "trace-not-attached": ("submission.trace-missing", lambda c: [p.unlink() for p in c.traces.iterdir()]),
    "trace-of-other-content": (
        "submission.trace-hash",
        lambda c: TraceSet(few).save(next(c.traces.glob("*.safetensors"))),
    ),
    "trace-count-misstated": (
        "submission.trace-runs",
        lambda c: provenance(c, lambda p: p["traces"][0].update(runs=99)),
    ),
    "trace-truncated": ("trace.truncated", truncated_trace),
    "trace-edited-after-recording": ("trace.hash", edited_run),
    "record-deleted": ("submission.deleted", delete_known),
    "yanked-record-revived": (
        "submission.yanked-base",
        lambda c: c.edit(lambda r: r.update(revision=2)),
    ),
    "numbers-changed-while-retiring": (
        "submission.retirement",
        lambda c: known_again(c, revision=2, status="deprecated", retirement=RETIREMENT, title="Renamed"),
    ),
    "replacement-unknown": (
        "submission.replacement",
        lambda c: known_again(
            c, revision=2, status="yanked", retirement={**RETIREMENT, "replacement": "known/nothing"}
        ),
    ),
    "coefficients-not-of-these-traces": ("fit.not-reproduced", lambda c: scaled(c, 1.5)),
    "error-understated": ("point.misstated", gain),
    "traces-of-another-model": (
        "traces.model-key",
        lambda c: other_runs(c, [build_run(seed, key="test/other") for seed in range(8)]),
    ),
    "too-few-runs": ("traces.calibration-runs", lambda c: other_runs(c, few)),
    "step-count-without-runs": (
        "traces.bucket",
        lambda c: other_runs(c, [build_run(seed, steps=10) for seed in range(8)]),
    ),
    "signal-not-recorded": ("signal.absent", lambda c: c.edit(lambda r: r.update(signal="hidden_states"))),
    "options-unknown": ("record.tool-options", lambda c: provenance(c, lambda p: p.update(tool_options="--magic"))),
}

# Filled by the test: the index of each case's base, for the case that forgets to write a new one.
BASE_INDEX: dict[Path, bytes] = {}
