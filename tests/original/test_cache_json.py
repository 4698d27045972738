"""The original project's JSON file: read as it writes it, written so that it can read it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache import TeaCache
from easyteacache.errors import InvalidCalibration
from easyteacache.original import cache_json
from easyteacache.original.cache_json import TeaCacheConfig

pytestmark = pytest.mark.floors

Make = Callable[..., Any]
KEYS = ["mymodel", "function"]
LINE = [(0.01 * k, 0.02 * k + 0.1) for k in range(1, 8)]


def meta(path: Path, length: int = 64, keys: list[str] = KEYS) -> dict[str, Any]:
    node = json.loads(path.read_text("utf-8"))
    for key in keys:
        node = node[key]
    return node[str(length)]["meta_data"]  # type: ignore[no-any-return]


def original_reads(path: Path, keys: list[str]) -> dict[int, Any]:
    """What the original's loader makes of a file: every child's four fields, anything else ignored."""
    node = json.loads(path.read_text("utf-8"))
    for key in keys:
        node = node.get(key, {})
    found = {}
    for name, child in node.items():
        fields = child if name == "meta_data" else child.get("meta_data")
        if fields:
            assert {"complexity", "coefficients", "fit_length", "calibration_size"} <= set(fields)
            found[fields["fit_length"]] = np.poly1d(np.array(fields["coefficients"], dtype=np.float32))
    return found


# Reading -------------------------------------------------------------------------------------------------------------


def test_the_original_s_own_file_is_read(seed_json: Make) -> None:
    path = seed_json({32760: (1.5, -2.0, 0.25), 75600: (1e-05, 3.0)}, size=195)
    first, second = cache_json.read(path, KEYS)
    assert first == TeaCacheConfig(2, (1.5, -2.0, 0.25), 32760, 195)
    assert (second.fit_length, second.complexity, second.coefficients) == (75600, 1, (1e-05, 3.0))


def test_a_fit_filed_at_the_keys_themselves_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    fields = {"complexity": 1, "coefficients": [1.0, 0.0], "fit_length": 0, "calibration_size": -1}
    path.write_text(json.dumps({"m": {"meta_data": fields, "other": {"deeper": {}}}}))
    assert [config.coefficients for config in cache_json.read(path, ["m"])] == [(1.0, 0.0)]


BAD_FILES = {
    "empty": b"",
    "half-written": b'{"mymodel": {"function": {"8": {"meta_',
    "not-json": b"coefficients = [1, 2]",
    "not-utf8": b'{"mymodel": "\xff"}',
    "array": b"[]",
    "number": b"3",
    "nan": b'{"mymodel": {"function": {"8": {"meta_data": {"coefficients": [NaN]}}}}}',
    "infinity": b'{"mymodel": {"function": {"8": {"meta_data": {"coefficients": [1e999]}}}}}',
    "key-twice": b'{"mymodel": {}, "mymodel": {}}',
    "deep": b'{"a":' * 100 + b"1" + b"}" * 100,
}
BAD_FIELDS = {
    "meta-is-list": [],
    "no-coefficients": {},
    "coefficients-null": {"coefficients": None},
    "coefficients-empty": {"coefficients": []},
    "coefficients-text": {"coefficients": ["1.0"]},
    "coefficients-bool": {"coefficients": [True]},
    "length-negative": {"coefficients": [1.0], "fit_length": -1},
    "length-text": {"coefficients": [1.0], "fit_length": "8"},
    "points-no-pairs": {"coefficients": [1.0], "points": [[1.0]]},
    "points-text": {"coefficients": [1.0], "points": [["a", "b"]]},
    "domain-reversed": {"coefficients": [1.0], "domain": [1.0, 0.0]},
    "domain-one": {"coefficients": [1.0], "domain": [1.0]},
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_damaged_file_is_an_error_and_never_taken_as_empty(tmp_path: Path, name: str) -> None:
    path = tmp_path / "cache.json"
    path.write_bytes(BAD_FILES[name])
    for call in (
        lambda: cache_json.read(path, KEYS),
        lambda: cache_json.check_writable(path),
        lambda: cache_json.merge(path, KEYS, {64: LINE}),
    ):
        with pytest.raises(InvalidCalibration, match=r"cache\.json"):
            call()
    assert path.read_bytes() == BAD_FILES[name]


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_fit_with_one_wrong_field_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "cache.json"
    text = json.dumps({"mymodel": {"function": {"64": {"meta_data": BAD_FIELDS[name]}}}})
    path.write_text(text)
    for call in (lambda: cache_json.read(path, KEYS), lambda: cache_json.merge(path, KEYS, {64: LINE})):
        with pytest.raises(InvalidCalibration, match=r"cache\.json"):
            call()
    assert path.read_text() == text


def test_a_folder_a_pipe_and_a_link_to_nowhere_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InvalidCalibration, match="not a regular file"):
            cache_json.read(path, KEYS)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidCalibration, match="does not exist"):
        cache_json.read(tmp_path / "link", KEYS)


# Writing -------------------------------------------------------------------------------------------------------------


def test_the_original_could_read_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "cache.json"
    cache_json.merge(path, KEYS, {64: LINE, 256: LINE})
    found = original_reads(path, KEYS)
    assert set(found) == {64, 256}
    for x, y in LINE:
        assert found[64](x) == pytest.approx(y, rel=1e-3)
    assert meta(path)["calibration_size"] == 7
    assert meta(path)["domain"] == [0.01, 0.07]


def test_what_others_wrote_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    path.write_text(json.dumps({"other": {"512": {"meta_data": {"coefficients": [1], "x": "é"}}, "note": [1, None]}}))
    before = json.loads(path.read_text())
    cache_json.merge(path, KEYS, {64: LINE})
    cache_json.merge(path, ["mymodel"], {64: LINE})
    after = json.loads(path.read_text("utf-8"))
    assert after["other"] == before["other"]
    assert set(after["mymodel"]) == {"function", "64"}


def test_points_of_several_writers_make_one_fit(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    generator = np.random.default_rng(0)
    points = [(x, 2 * x + 0.1) for x in generator.uniform(0.01, 0.2, 30).tolist()]
    for start in range(0, 30, 6):
        cache_json.merge(path, KEYS, {64: points[start : start + 6]})
    (together,) = cache_json.read(path, KEYS)
    alone = cache_json.fit(points, length=64)
    assert together == alone
    assert together.points == tuple(points)


def test_only_the_newest_points_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    many = [(0.1 + 1e-5 * k, float(k)) for k in range(cache_json.MAX_POINTS + 50)]
    cache_json.merge(path, KEYS, {64: many})
    cache_json.merge(path, KEYS, {64: LINE})
    (config,) = cache_json.read(path, KEYS)
    assert len(config.points) == config.calibration_size == cache_json.MAX_POINTS
    assert config.points[-7:] == tuple(LINE)
    assert path.stat().st_size < 300_000


def test_a_fit_without_points_stays_until_there_are_enough_new_ones(seed_json: Make) -> None:
    path = seed_json({64: (1.0, 0.0)}, size=200)
    cache_json.merge(path, KEYS, {64: LINE})
    assert (meta(path)["coefficients"], meta(path)["calibration_size"]) == ([1.0, 0.0], 200)
    assert len(meta(path)["points"]) == 7
    cache_json.merge(path, KEYS, {64: LINE})
    cache_json.merge(path, KEYS, {64: LINE})
    assert meta(path)["calibration_size"] == 21
    assert len(meta(path)["coefficients"]) == 5


def test_a_poor_fit_without_points_is_replaced_at_once(seed_json: Make) -> None:
    path = seed_json({64: (1.0, 0.0)}, size=5)
    cache_json.merge(path, KEYS, {64: LINE})
    assert meta(path)["calibration_size"] == 7


@pytest.mark.parametrize(
    "content", [{"mymodel": 3}, {"mymodel": {"function": []}}, {"mymodel": {"function": {"64": 1}}}]
)
def test_a_place_that_is_taken_by_something_else_is_an_error(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "cache.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidCalibration, match="expected an object"):
        cache_json.merge(path, KEYS, {64: LINE})
    assert json.loads(path.read_text()) == content


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "shared" / "real.json", tmp_path / "link.json"
    cache_json.merge(real, KEYS, {64: LINE})
    link.symlink_to(real)
    cache_json.merge(link, KEYS, {256: LINE})
    assert link.is_symlink()
    assert set(original_reads(real, KEYS)) == {64, 256}


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache.json"
    cache_json.merge(path, KEYS, {64: LINE})
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache_json.merge(path, KEYS, {64: LINE})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_a_file_that_would_grow_too_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache.json"
    cache_json.merge(path, KEYS, {64: LINE})
    before = path.read_bytes()
    monkeypatch.setattr(cache_json, "MAX_BYTES", len(before))
    with pytest.raises(InvalidCalibration, match="another cache_path"):
        cache_json.merge(path, KEYS, {256: LINE})
    assert path.read_bytes() == before


def test_a_folder_without_permission_is_found_before_a_long_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidCalibration, match="no permission"):
        cache_json.check_writable(tmp_path / "not" / "there" / "cache.json")


def test_a_file_in_the_folder_s_place_is_found_before_a_long_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidCalibration, match="cannot be written"):
        cache_json.check_writable(tmp_path / "file" / "cache.json")


WRITER = """
import sys
from easyteacache.original import cache_json
path, name = sys.argv[1:]
for k in range(10):
    cache_json.merge(path, ["shared"], {64: [(0.1 * (i + 1) + 0.001 * k, float(ord(name))) for i in range(5)]})
    cache_json.merge(path, [name, str(k)], {8: [(0.1 * i, 1.0 + i) for i in range(5)]})
"""


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    (shared,) = cache_json.read(path, ["shared"])
    assert shared.calibration_size == 100
    assert sorted({y for _, y in shared.points}) == [97.0, 98.0]
    content = json.loads(path.read_text())
    assert set(content["a"]) == set(content["b"]) == {str(k) for k in range(10)}


# The fit -------------------------------------------------------------------------------------------------------------


def test_a_quartic_is_recovered() -> None:
    coefficients = (3.0, -1.0, 0.5, 2.0, 0.1)
    points = [(x, float(np.polyval(coefficients, x))) for x in np.linspace(0.01, 0.9, 30).tolist()]
    config = cache_json.fit(points, length=8)
    assert config.coefficients == pytest.approx(coefficients, rel=1e-6)
    assert (config.complexity, config.domain) == (4, (0.01, 0.9))


def test_too_few_points_make_no_fit() -> None:
    assert cache_json.fit(LINE[:4], length=8) is None
    assert cache_json.fit(LINE[:5], length=8) is not None


def test_one_distance_alone_gives_the_mean() -> None:
    config = cache_json.fit([(0.1, float(k)) for k in range(5)], length=8)
    assert (config.coefficients, config.domain) == ((2.0,), None)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1e-6, 2.0),
    st.floats(1e-9, 1.0),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 5)), min_size=5, max_size=30),
)
def test_what_is_written_predicts_what_was_fitted_over_any_range(
    start: float, width: float, shape: list[tuple[float, float]]
) -> None:
    points = [(start + width * x, y) for x, y in shape]
    config = cache_json.fit(points, length=8)
    assert all(map(math.isfinite, config.coefficients))
    residual = [config.curve(x) - max(0.0, float(np.polyval(config.coefficients, x))) for x, _ in points]
    assert max(map(abs, residual)) < 1e-6
    # Least squares with an intercept is never worse than the mean.
    ys = np.array([y for _, y in points])
    fitted = np.array([np.polyval(config.coefficients, x) for x, _ in points])
    assert ((fitted - ys) ** 2).sum() <= ((ys - ys.mean()) ** 2).sum() * (1 + 1e-4) + 1e-9


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), NotImplementedError("flock")])
def test_a_file_system_without_locks_is_found_out_at_construction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(lock: object, *args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(InvalidCalibration, match="file locks") as found:
        TeaCache(10, model_keys=["a"], cache_path=tmp_path / "new" / "cache.json", speedup_mode=False)
    assert found.value.rule == "seed.locks"
    assert list(tmp_path.iterdir()) == []


def test_looking_for_locks_leaves_nothing_behind(tmp_path: Path) -> None:
    cache_json.check_writable(tmp_path / "cache.json")
    assert list(tmp_path.iterdir()) == []
