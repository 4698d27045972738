"""Hostile files and answers, ten thousand records.

``EASYTEACACHE_LONG=1`` runs the long form: more than 20,000 hostile inputs, and a pull of every record of ten thousand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from easyteacache.errors import EasyTeaCacheError
from easyteacache.hub import pull as pulling
from easyteacache.hub.remote import Remote
from easyteacache.hub.review import check_record
from easyteacache.hub.server.git import MAIN, GitRepository
from easyteacache.hub.store import Store
from easyteacache.records import trace_file
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index, lock_file
from easyteacache.registry.index import Index
from easyteacache.registry.lock_file import LockedRecord, LockFile
from easyteacache.registry.registry import Registry

from .conftest import Program, build_folder, build_record
from .fault_proxy import Fault, FaultProxy
from .hub_process import HubProcess
from .solved import build_run

LONG = bool(os.environ.get("EASYTEACACHE_LONG"))
MUTATIONS = 6000 if LONG else 300
ANSWERS = 500 if LONG else 25


# Hostile input -------------------------------------------------------------------------------------------------------

TOKENS = [
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"null", b"true", b"-1", b"1e999", b"NaN", b"0", b"\x00", b"\xff",
    b"\\ud800", "‮".encode(), "wan２.1".encode(), b"../../x", b"/etc/passwd", b"[" * 40, b"9" * 30, b"2.0",
]  # fmt: skip


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few random edits: bytes flipped, cut, doubled, replaced by what parsers stumble over."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at = draw.randrange(len(found) + 1)
        end = min(len(found), at + draw.choice((0, 1, 1, 4, 40)))
        kind = draw.randrange(4)
        if kind == 0:
            found[at:end] = draw.choice(TOKENS)
        elif kind == 1:
            found[at:end] = b""
        elif kind == 2:
            found[at:at] = found[at:end]
        elif at < len(found):
            found[at] ^= 1 << draw.randrange(8)
    return bytes(found)


VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 1e308, 10**18, "", "x" * 5000, "tiny/video", "../../x", "\x00", "wan２.1", [], [[]], [1, 2], {}, {"a": {}},
    {"kind": "former_key", "value": "a/b"}, "2026-01-02", "0" * 64, "1" * 40, ["timestep"], -0.0, 5e-324,
]  # fmt: skip


def reshaped(data: bytes, draw: random.Random) -> bytes:
    """The same JSON with a few values replaced, dropped, doubled or filed under another name: what no flipped byte reaches."""
    content = json.loads(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        places = list(containers(content))
        node = draw.choice(places)
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            continue
        key, kind = draw.choice(keys), draw.randrange(4)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, list):
            node.insert(key, node[key])
        elif kind == 2 and isinstance(node, dict):
            node[draw.choice(["", "a/b", "__proto__", "tiny/Video", "x" * 300, "records"])] = node[key]
        else:
            node[key] = draw.choice(VALUES) if draw.random() < 0.7 else draw.choice(places)
            if recursive(content):
                return data
    return json.dumps(content).encode()


def containers(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)


def recursive(value: Any, above: tuple[int, ...] = ()) -> bool:
    """Whether a value holds itself, which no JSON can say."""
    if not isinstance(value, (dict, list)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return id(value) in above or any(recursive(item, (*above, id(value))) for item in items)


def hostile(data: bytes, draw: random.Random) -> bytes:
    """Bytes edited, or where the text is JSON every second time its values."""
    return reshaped(data, draw) if data[:1] == b"{" and draw.random() < 0.5 else mutated(data, draw)


def lock_text() -> bytes:
    one = LockedRecord(sha256="0" * 64, revision=1, repository="team/x", commit="1" * 40)
    return LockFile(lock_version=1, records={"tiny/video": one}).to_json().encode()


def index_text() -> bytes:
    record = build_record()
    entry = index.entry_of(record, record.to_json().encode())
    return Index(index_version=index.INDEX_VERSION, records={"tiny/video": entry}).to_json().encode()


READERS: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]] = {
    "record": (lambda: build_record().to_json().encode(), lambda data: Calibration.from_json(data)),
    "checked record": (lambda: build_record().to_json().encode(), lambda data: check_record.check_record(data)),
    "index": (index_text, lambda data: index.from_json(data)),
    "lock": (lock_text, lambda data: lock_file.from_json(data)),
    "trace": (lambda: trace_file.encode([build_run(0)]), lambda data: trace_file.decode(data, where="trace")),
}


@pytest.mark.parametrize("kind", READERS)
def test_hostile_text_gives_this_projects_errors_or_a_valid_object(kind: str) -> None:
    make, read = READERS[kind]
    data, draw = make(), random.Random(f"{kind} {MUTATIONS}")
    accepted = refused = 0
    for _ in range(MUTATIONS):
        try:
            read(hostile(data, draw))
            accepted += 1
        except EasyTeaCacheError:
            refused += 1
    assert refused + accepted == MUTATIONS
    assert kind == "checked record" or refused > MUTATIONS // 4


def test_hostile_answers_of_a_hub_never_leave_a_partial_state(
    hub_process: HubProcess, repository: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    folder = build_folder(tmp_path / "upstream", build_record(), build_record("tiny/other"))
    hub_process.publish(repository, folder)
    files = {"index.json": index_of(folder), "tiny/video.json": (folder / "tiny/video.json").read_bytes()}
    draw = random.Random(ANSWERS)
    for number in range(ANSWERS):
        name = draw.choice(list(files))
        action: int | str | bytes = draw.choice([hostile(files[name], draw)] * 4 + ["drop", "lose", 500, 404, 302, 200])
        proxy.faults = [
            Fault(rf"{draw.choice(['GET', 'GET', 'HEAD', 'POST'])} .*", action, times=draw.choice((1, 2, 99)))
        ]
        store = Store(tmp_path / f"home-{number}")
        remote = Remote(repository, endpoint=proxy.endpoint, token="x", wait=lambda _: None)
        with contextlib.suppress(EasyTeaCacheError):
            pulling.pull(remote, store=store)
        for key in store.current().index.records:
            assert Registry.from_folder(store.link)[key].model_key == key


def index_of(folder: Path) -> bytes:
    return (folder / index.FILE_NAME).read_bytes()


def refusal_of(call: Callable[[], object]) -> str:
    """What the project says about it; empty where the answer happened to make sense."""
    try:
        call()
    except EasyTeaCacheError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("action", [b"", b"{}", b"[]", b"null", b'{"name": 3}', b"\xff\xfe", 418, 302])
def test_senseless_answers_end_in_one_sentence(
    action: bytes | int, hub_process: HubProcess, repository: str, proxy: FaultProxy
) -> None:
    remote = Remote(repository, endpoint=proxy.endpoint, token="x", wait=lambda _: None)
    for call in (remote.whoami, lambda: remote.commit_of("main"), lambda: list(remote.open_requests("a")), remote.log):
        proxy.faults = [Fault(".*", action, times=9)]
        assert "\n" not in refusal_of(call)


# Scale ---------------------------------------------------------------------------------------------------------------

COUNT = 10_000
ALL = COUNT if LONG else 250


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose index lists 10,000 records and which holds the file of one: a scan would fail."""
    folder = tmp_path_factory.mktemp("large")
    data = build_record("family-42/variant-7").to_json().encode()
    record = Calibration.from_json(data)
    entry = index.entry_of(record, data).model_dump(mode="json")
    records = {}
    for number in range(COUNT):
        key = f"family-{number // 100}/variant-{number % 100}"
        sha = hashlib.sha256(data if key == record.model_key else key.encode()).hexdigest()
        records[key] = {**entry, "path": f"{key}.json", "sha256": sha}
    (folder / "family-42").mkdir()
    (folder / "family-42" / "variant-7.json").write_bytes(data)
    (folder / index.FILE_NAME).write_text(json.dumps({"index_version": index.INDEX_VERSION, "records": records}))
    return folder


def test_one_key_of_ten_thousand_costs_two_files(large: Path, run_hub: Program) -> None:
    shown = run_hub("show", "family-42/variant-7", "--registry", large)
    assert shown.exit_code == 0, shown.output
    resolved = run_hub("resolve", "family-42/variant-7", "--sequence-length", "100", "--registry", large)
    assert resolved.exit_code == 0, resolved.output
    listed = run_hub("list", "family-42/*", "--registry", large)
    assert "100 records" in listed.output


def test_one_key_of_ten_thousand_is_pulled_alone(
    large: Path, hub_process: HubProcess, repository: str, proxy: FaultProxy
) -> None:
    hub_process.publish(repository, large)
    done = pulling.pull(Remote(repository, endpoint=proxy.endpoint, token="x"), ["family-42/variant-7"])
    assert [outcome.state for outcome in done.outcomes] == ["new"]
    assert len(proxy.seen) < 10, proxy.seen
    assert list(Store().current().index.records) == ["family-42/variant-7"]


def test_all_records_are_pulled_with_one_request_each(
    hub_process: HubProcess, repository: str, proxy: FaultProxy
) -> None:
    files, entries = {}, {}
    for number in range(ALL):
        record = build_record(f"family-{number // 100}/variant-{number % 100}")
        data = record.to_json().encode()
        entries[record.model_key] = index.entry_of(record, data)
        files[f"{record.model_key}.json"] = data
    listed = Index(index_version=index.INDEX_VERSION, records=dict(sorted(entries.items()))).to_json().encode()
    git = GitRepository(hub_process.folder / "datasets" / f"{repository}.git")
    head = git.resolve("main")
    git.move(MAIN, git.commit(head, {**files, index.FILE_NAME: listed}, "Publish", "somebody"), head)
    told: list[int] = []
    remote = Remote(repository, endpoint=proxy.endpoint)
    done = pulling.pull(remote, progress=lambda number, total: told.append(number))
    assert {outcome.state for outcome in done.outcomes} == {"new"}
    assert told == list(range(1, ALL + 1))
    assert len(proxy.seen) <= ALL + 5
    layer = Registry.from_folder(Store().link)
    assert len(layer) == ALL
    assert all(layer[key].model_key == key for key in layer)
    before = len(proxy.seen)
    assert {outcome.state for outcome in pulling.pull(remote).outcomes} == {"unchanged"}
    assert len(proxy.seen) - before <= 3
