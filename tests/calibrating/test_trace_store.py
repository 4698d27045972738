"""Recorded runs on disk: bounded, whole, and the oldest go first."""

from __future__ import annotations

import os

import pytest

from easyteacache.calibrating import trace_store
from easyteacache.calibrating.filing import file_record, local_layer, path_in_local, withdraw
from easyteacache.calibrating.trace_store import MOST_RUNS, State, TraceStore
from easyteacache.errors import InvalidCalibration
from easyteacache.files import atomic_write
from easyteacache.records import calibration as records
from easyteacache.registry import index
from easyteacache.registry.registry import Registry

KEY = "test/model/teacache-8-steps"


@pytest.fixture
def store():
    return TraceStore(KEY)


def test_at_most_sixteen_runs_of_a_setting_are_kept_and_the_oldest_go(store, make_trace):
    names = [store.add(make_trace(seed)).name for seed in range(MOST_RUNS)]
    for age, name in enumerate(names):
        os.utime(store.folder / name, (1000.0 + age, 1000.0 + age))
    kept = names[0]
    newest = store.add(make_trace(99), keep=[kept]).name
    left = {path.name for path in store.folder.glob("run-*")}
    assert len(left) == store.count() == MOST_RUNS
    assert {kept, newest} <= left
    assert names[1] not in left


def test_all_settings_together_stay_within_the_bound(store, make_trace, monkeypatch):
    old, older = TraceStore("test/old"), TraceStore("test/older")
    for age, other in ((2000.0, old), (1000.0, older)):
        path = other.add(make_trace(1))
        os.utime(path, (age, age))
    one = sum(path.stat().st_size for path in store.folder.parent.rglob("run-*")) // 2
    monkeypatch.setattr(trace_store, "MOST_BYTES", int(2.5 * one))
    store.add(make_trace(2))
    assert (older.count(), old.count(), store.count()) == (0, 1, 1)


def test_runs_of_other_branches_than_the_newest_are_not_solved_with_it(store, make_trace):
    for seed in range(2):
        os.utime(store.add(make_trace(seed)), (1000.0, 1000.0))
    store.add(make_trace(2, branches=("cond",)))
    found = store.traces()
    assert [run.header.branches for run in found] == [("cond",)]
    assert len(found.files) == 1


def test_what_a_kill_left_half_written_is_swept_away_later(store, make_trace):
    store.add(make_trace(0))
    left = store.folder / f"{atomic_write.TEMPORARY_PREFIX}0{atomic_write.TEMPORARY_SUFFIX}"
    left.write_bytes(b"half")
    store.add(make_trace(1))
    assert left.exists()
    os.utime(left, (1000.0, 1000.0))
    store.add(make_trace(2))
    assert not left.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"runs": "many", "needed": 0}', '{"runs": 3}'])
def test_a_damaged_state_is_no_state(store, text):
    store.folder.mkdir(parents=True)
    (store.folder / trace_store.STATE).write_text(text)
    assert store.state() == State()
    store.remember(State(runs=7, needed=8, refused="why"))
    assert store.state() == State(7, 8, "why")


# Filing --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(make_record, bucket):
    return make_record(bucket(), key="test/model")


def test_a_filed_record_is_found_and_never_overwritten_in_silence(record):
    assert file_record(record) == path_in_local("test/model")
    assert Registry.default().find("test/model").layer == "local"
    file_record(record)
    other = record.model_copy(update={"title": "Another"})
    with pytest.raises(InvalidCalibration, match="--force"):
        file_record(other)
    assert records.load(path_in_local("test/model")).title == record.title
    file_record(other, replace=True)
    assert records.load(path_in_local("test/model")).title == "Another"


def test_an_index_of_the_layer_follows(record):
    file_record(record)
    index.write(local_layer(), index.build(local_layer()))
    file_record(record.model_copy(update={"title": "Another"}), replace=True)
    assert index.read(local_layer()) == index.build(local_layer())
    withdraw("test/model")
    assert not index.read(local_layer()).records
    assert "test/model" not in Registry.default()


def test_a_record_that_breaks_a_rule_is_not_filed_and_the_index_is_as_before(record):
    file_record(record)
    index.write(local_layer(), index.build(local_layer()))
    before = path_in_local("test/model").read_bytes()
    with pytest.raises(InvalidCalibration):
        file_record(record.model_copy(update={"revision": 0}), replace=True)
    assert path_in_local("test/model").read_bytes() == before
    assert index.read(local_layer()) == index.build(local_layer())
