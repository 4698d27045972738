"""A whole benchmark, small: what is written, what is not measured twice, and what a failure does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from easyteacache.bench import plot, report, roster
from easyteacache.bench.contender import Bed, Contender
from easyteacache.bench.curves import OURS
from easyteacache.bench.diffusers_caches import TaylorSeer
from easyteacache.bench.results import FAILED, IDLE, INAPPLICABLE, MEASURED, Results, load
from easyteacache.bench.run import Plan, run
from easyteacache.bench.subject import Case, ReferenceSubject, load_reference
from easyteacache.errors import BenchError

PLAN = Plan((Case(1, 16, 16, 6),), pairs=2, targets=(1.5, 2.0), retimed=1, pilot_pairs=2)
PUBLISHED = sorted((Path(__file__).resolve().parents[2] / "docs" / "benchmarks").glob("*.json"))
NAMES = ("uniform, hold", "uniform, linear", "FirstBlockCache", "fewer steps")


class Breaks(Contender):
    """Fails half-way through sampling."""

    name, family, kind = "breaks", "test", "hold"

    def variants(self, bed: Bed) -> Sequence[dict[str, Any]]:
        return ({},)

    def piloted(self) -> bool:
        return False

    @contextlib.contextmanager
    def applied(self, bed: Bed, settings: Any, calibrated: Any) -> Iterator[None]:
        handle = bed.transformer.blocks[3].register_forward_hook(lambda *_: 1 / 0)
        yield
        handle.remove()


class Idle(TaylorSeer):
    """Computes every step, as a cache whose patterns match nothing does."""

    name = "idle"

    def variants(self, bed: Bed) -> Sequence[dict[str, Any]]:
        return ({"cache_interval": 1},)


@pytest.fixture(scope="module")
def measured(subjects: dict[str, ReferenceSubject], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    absent = roster.chosen(["EasyTeaCache"])  # without a record
    run(subjects["wan"], PLAN, (*absent, *roster.chosen(NAMES), Breaks(), Idle()), out)
    return out


def test_every_contender_is_measured_or_says_why_not(measured: Path) -> None:
    states = {cell.contender: (cell.state, cell.reason) for cell in load(measured).cells}
    assert {name: states[name][0] for name in NAMES} == dict.fromkeys(NAMES, MEASURED)
    assert states["breaks"][0] == FAILED
    assert states["breaks"][1].startswith("ZeroDivisionError: division by zero (test_run.py:")
    assert states["idle"] == (IDLE, "ran and skipped nothing")
    assert states["EasyTeaCache"][0] == INAPPLICABLE
    assert "--record" in states["EasyTeaCache"][1]


def test_points_lie_at_the_targets(measured: Path) -> None:
    results = load(measured)
    shares = {round(cell.share, 6) for cell in results.cells if cell.contender == "uniform, hold"}
    assert shares == {round(4 / 6, 6), round(3 / 6, 6)}
    for cell in results.cells:
        if cell.state == MEASURED:
            assert all(len(column) == PLAN.pairs for column in cell.pairs.values())
            assert [ratio is None for ratio in cell.pairs["ratio"]] == [False, True]


def test_the_same_command_measures_nothing_again(measured: Path, subjects: dict[str, ReferenceSubject]) -> None:
    told: list[str] = []
    before = load(measured).cells
    run(subjects["wan"], PLAN, roster.chosen(NAMES), measured, tell=told.append)
    assert told == []
    assert load(measured).cells == before


def test_a_run_that_was_killed_goes_on_with_what_is_missing(
    measured: Path, subjects: dict[str, ReferenceSubject], tmp_path: Path
) -> None:
    content = json.loads(measured.read_text())
    kept = [cell for cell in content["cells"] if cell["contender"] != "uniform, hold"]
    lost = [cell for cell in content["cells"] if cell["contender"] == "uniform, hold"]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({**content, "cells": [*kept, lost[0]]}))
    told: list[str] = []
    run(subjects["wan"], PLAN, roster.chosen(NAMES), path, tell=told.append)
    again = [cell for cell in load(path).cells if cell.contender == "uniform, hold"]
    assert [message for message in told if "computed=" in message] == ["1x16x16@6: uniform, hold, computed=3"]
    assert [cell.pairs["psnr"] for cell in again] == [cell["pairs"]["psnr"] for cell in lost]


def test_a_contender_can_be_measured_anew(
    measured: Path, subjects: dict[str, ReferenceSubject], tmp_path: Path
) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(measured.read_bytes())
    told: list[str] = []
    run(subjects["wan"], PLAN, roster.chosen(["fewer steps"]), path, again=["fewer steps"], tell=told.append)
    assert any("fewer steps, steps=3" in message for message in told)


def test_measuring_anew_leaves_the_other_cases_as_they_are(
    measured: Path, subjects: dict[str, ReferenceSubject], tmp_path: Path
) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(measured.read_bytes())
    before = [cell for cell in load(path).cells if cell.contender == "fewer steps"]
    other = dataclasses.replace(PLAN, cases=(dataclasses.replace(PLAN.cases[0], steps=5),))
    run(subjects["wan"], other, roster.chosen(["fewer steps"]), path, again=["fewer steps"])
    after = [cell for cell in load(path).cells if cell.contender == "fewer steps"]
    assert [cell for cell in after if cell.case == PLAN.cases[0].name] == before
    assert {cell.case for cell in after} == {PLAN.cases[0].name, other.cases[0].name}


def test_other_pairs_are_another_benchmark(measured: Path, subjects: dict[str, ReferenceSubject]) -> None:
    with pytest.raises(BenchError, match="another pairs"):
        run(subjects["wan"], dataclasses.replace(PLAN, pairs=3), roster.chosen(NAMES), measured)


def test_another_shift_is_another_benchmark(measured: Path) -> None:
    shifted = load_reference(None)
    shifted.sampled_by(None, 0.35)
    with pytest.raises(BenchError, match="another sampler"):
        run(shifted, PLAN, (), measured)


def test_how_the_record_was_made_is_kept_with_the_results(
    measured: Path, subjects: dict[str, ReferenceSubject], tmp_path: Path
) -> None:
    made = {"commit": "0123", "runs": 16}
    out = tmp_path / "bench.json"
    out.write_bytes(measured.read_bytes())
    run(subjects["wan"], dataclasses.replace(PLAN, solved=made), (), out)
    assert load(out).solved == made
    run(subjects["wan"], PLAN, (), out)
    assert load(out).solved == made


def test_nobody_of_that_name_is_said_with_the_names_there_are() -> None:
    with pytest.raises(BenchError, match="'FirstBlockCache'"):
        roster.chosen(["first block cache"])


def test_the_tables_name_everybody(measured: Path) -> None:
    results = load(measured)
    for text in (report.as_text(results), report.as_markdown(results)):
        for name in (*NAMES, "breaks", "idle", "EasyTeaCache"):
            assert name in text
        assert "2x less computed" in text
    data = report.as_data(results)
    at_two = data["cases"][0]["targets"][1]["contenders"]
    assert at_two["uniform, hold"]["share"] == pytest.approx(0.5)
    assert at_two["uniform, hold"]["right"] in (0.0, 0.5, 1.0)
    json.dumps(data, allow_nan=False)


def test_who_reaches_no_target_is_named_with_what_it_did(make_cell) -> None:
    cells = [make_cell("attention only", share=0.9, psnr=[31.0, 33.0]), make_cell("held", share=0.5, psnr=[40.0, 42.0])]
    results = Results(
        {"model": "m", "pairs": [["a", 1], ["b", 2]], "targets": [2.0]},
        machine={"processor": "p"},
        uncached={"a@8": {"right": [True, True]}},
        cells=cells,
    )
    text = report.as_text(results)
    assert "attention only  computed 90.0 % at least, at 32.0 dB" in text
    assert report.as_data(results)["cases"][0]["short"] == [{"contender": "attention only", "share": 0.9, "psnr": 32.0}]


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_fit_the_screen(make_cell, width: int) -> None:
    long = "a contender whose name takes as many columns as half of the screen has"
    cells = [
        dataclasses.replace(make_cell("EasyTeaCache", share=0.48, psnr=[50.9, 49.9], kind="own"), note="word " * 60),
        make_cell(long, share=0.481, psnr=[44.2, 43.3]),
        make_cell("attention only", share=0.9, psnr=[31.0, 33.0]),
    ]
    results = Results(
        {"model": "a/model", "pairs": [["a", 1], ["b", 2]], "targets": [2.0]},
        machine={"processor": "p" * 50},
        uncached={"a@8": {"right": [True, True]}},
        cells=cells,
    )
    lines = report.as_text(results, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("EasyTeaCache  ") and "50.4" in line for line in lines)
    assert any(line.startswith("a contender whose") for line in lines)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_published_benchmarks_fit_80_columns(path: Path) -> None:
    assert max(map(len, report.as_text(load(path)).splitlines())) <= 80


def test_no_two_lines_share_a_marker() -> None:
    others = [contender for contender in roster.everybody() if contender.kind not in OURS]
    assert len(others) <= len(set(plot.MARKERS)) == len(plot.MARKERS)


def test_a_picture_is_written_for_each_case(measured: Path, tmp_path: Path) -> None:
    from PIL import Image

    (path,) = plot.save(load(measured), tmp_path)
    assert path.name == "bench-1x16x16-6.png"
    with Image.open(path) as image:
        image.load()
        assert min(image.size) > 500
