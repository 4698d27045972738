from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easyteacache.bench.results import Results, load, merge, resume
from easyteacache.errors import BenchError

SETUP: dict[str, Any] = {"model": "m", "pairs": [["3 up", 1]], "targets": [2.0]}


def stored(path: Path, *cells: Any, setup: dict[str, Any] = SETUP) -> Path:
    Results(dict(setup), uncached={cell.case: {} for cell in cells}, cells=list(cells)).save(path)
    return path


def test_what_was_saved_is_read_back(tmp_path: Path, make_cell) -> None:
    cell = make_cell("a", share=0.5, psnr=[40.0], memory=12)
    found = load(stored(tmp_path / "bench.json", cell))
    assert found.cells == [cell]
    assert found.setup == SETUP
    assert found.cell("a@8", "a", {"threshold": 0.5}) == cell
    assert found.cell("a@8", "a", {"threshold": 0.6}) is None


def test_a_file_that_is_not_there_begins_empty(tmp_path: Path) -> None:
    assert resume(tmp_path / "new.json", SETUP).cells == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace("easyteacache-bench/1", "something else"), "expected the format"),
        (lambda text: text.replace('"psnr"', '"psn"'), "not complete"),
        (lambda text: text.replace('"measured"', '"meant"'), "not complete"),
        (lambda text: text.replace('"contender"', '"somebody"'), "unknown"),
        (lambda text: text.replace("40.0", '"forty"'), "not complete"),
        (lambda text: text.replace("40.0", "[40.0]"), "not complete"),
        (lambda text: text.replace("0.5", "null"), "not complete"),
        (lambda text: "[]", "expected the format"),
        (lambda text: json.dumps({**json.loads(text), "cells": 3}), "damaged"),
    ],
)
def test_a_damaged_file_is_refused(damage: Any, words: str, tmp_path: Path, make_cell) -> None:
    path = stored(tmp_path / "bench.json", make_cell("a", share=0.5, psnr=[40.0]))
    path.write_text(damage(path.read_text()))
    with pytest.raises(BenchError, match=words):
        resume(path, SETUP)


def test_a_file_of_another_benchmark_is_not_continued(tmp_path: Path, make_cell) -> None:
    path = stored(tmp_path / "bench.json", make_cell("a", share=0.5, psnr=[40.0]))
    before = path.read_bytes()
    with pytest.raises(BenchError, match=r"another targets: \[2.0\] there, \[3.0\] now"):
        resume(path, {**SETUP, "targets": [3.0]})
    assert path.read_bytes() == before


def test_files_of_one_benchmark_are_joined(tmp_path: Path, make_cell) -> None:
    one = stored(tmp_path / "1.json", make_cell("a", share=0.5, psnr=[40.0]))
    two = stored(tmp_path / "2.json", make_cell("a", share=0.5, psnr=[41.0], case="b@8"))
    assert [cell.case for cell in merge([one, two]).cells] == ["a@8", "b@8"]
    with pytest.raises(BenchError, match="as another file does"):
        merge([one, two, one])
    other = stored(tmp_path / "3.json", setup={**SETUP, "model": "n"})
    with pytest.raises(BenchError, match="its model is not that of the other files"):
        merge([one, other])


def test_how_the_record_was_made_survives_joining(tmp_path: Path, make_cell) -> None:
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    for path, case, made in ((one, "a@8", {}), (two, "b@8", {"commit": "0123"})):
        cells = [make_cell("a", share=0.5, psnr=[40.0], case=case)]
        Results(dict(SETUP), uncached={case: {}}, cells=cells, solved=made).save(path)
    assert merge([one, two]).solved == merge([two, one]).solved == {"commit": "0123"}


def test_forgetting_a_contender_leaves_the_others_and_other_cases(tmp_path: Path, make_cell) -> None:
    a, b = make_cell("a", share=0.5, psnr=[40.0]), make_cell("b", share=0.5, psnr=[40.0])
    results = Results(dict(SETUP), plans={"a@8": {"a": {}, "b": {}}}, cells=[a, b])
    results.forget("a", "b@8")
    assert results.cells == [a, b]
    results.forget("a", "a@8")
    assert results.cells == [b]
    assert results.plans == {"a@8": {"b": {}}}
