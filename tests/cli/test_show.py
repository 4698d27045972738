from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from easyteacache import Registry
from easyteacache.cli.show import show, strip
from easyteacache.errors import InvalidCalibration
from easyteacache.files import plain_marks
from easyteacache.records.calibration import Calibration, save

Run = Callable[..., Result]
ReadJson = Callable[[Result], Any]


def test_every_bundled_record_can_be_shown_within_80_columns(run_hub: Run) -> None:
    for key in Registry.default():
        result = run_hub("show", key)
        assert result.exit_code == 0, f"{key}: {result.output}"
        # Only what cannot be broken, such as a long path, may stand out.
        wide = [line for line in result.stdout.splitlines() if len(line) > 80 and max(map(len, line.split())) < 50]
        assert wide == [], key


def test_a_record_in_a_file_is_shown_resolved_and_compared(
    run_hub: Run, read_json: ReadJson, registry_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes((registry_folder / "tiny" / "video.json").read_bytes())
    shown = read_json(run_hub("show", file, "--json"))
    assert (shown["record"]["model_key"], shown["layer"]) == ("tiny/video", str(file))
    resolved = read_json(run_hub("resolve", file, "--steps", 20, "--speedup", 2, "--json"))
    assert (resolved["model_key"], resolved["threshold"]) == ("tiny/video", 0.3)
    assert run_hub("diff", file, "tiny/video", "--registry", registry_folder).stdout == "No difference.\n"
    for command in ("show", "resolve"):
        missing = run_hub(command, tmp_path / "nowhere.json")
        assert (missing.exit_code, missing.stdout) == (1, "")
        assert "nowhere.json: cannot be read" in missing.stderr


def test_the_page_says_what_a_person_wants_to_know(run_hub: Run) -> None:
    page = run_hub("show", "wan2.1/t2v-14b").stdout
    for expected in (
        "published, revision",
        "timestep_projection",
        "-303318.725",
        "75600",
        "5 to the end",
        "2.1x",
        "EVIDENCE",
        "ali-vilab/TeaCache",
        "Apache-2.0",
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    ):
        assert expected in page


def test_an_alias_leads_to_its_record_and_says_so(run_hub: Run, registry_folder: Path) -> None:
    result = run_hub("show", "Tiny/Video-Model", "--registry", registry_folder)
    assert "'Tiny/Video-Model' is the hub repository of 'tiny/video'." in " ".join(result.stdout.split())


def test_json_holds_the_record_as_it_is_stored(
    run_hub: Run, read_json: ReadJson, registry_folder: Path, documented_keys: Callable[..., set[str]]
) -> None:
    content = read_json(run_hub("show", "tiny/video", "--registry", registry_folder, "--json"))
    stored = Calibration.from_json((registry_folder / "tiny" / "video.json").read_bytes())
    assert Calibration.from_mapping(content["record"]) == stored
    assert set(content) <= documented_keys(show)


def test_an_unknown_key_is_answered_with_the_nearest_ones(run_hub: Run) -> None:
    result = run_hub("show", "wan2.1/t2v-14")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'wan2.1/t2v-14b'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("key", ["../etc/passwd", "/etc/passwd", "Wän/x", "", "a//b"])
def test_what_is_no_key_is_refused(key: str, run_hub: Run) -> None:
    result = run_hub("show", key)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(("Error: no calibration named", f"Error: {key!r} is not a model key"))


def test_a_record_filed_under_another_key_is_refused(run_hub: Run, registry_folder: Path) -> None:
    (registry_folder / "tiny" / "video.json").rename(registry_folder / "tiny" / "other.json")
    result = run_hub("show", "tiny/other", "--registry", registry_folder)
    assert result.exit_code == 1
    assert "its path says 'tiny/other'" in result.stderr


def test_a_retired_record_names_date_reason_and_replacement(
    run_hub: Run, registry_folder: Path, make_record: Callable[..., Calibration]
) -> None:
    retirement = {"date": "2025-03-01", "reason": "Fitted to a wrong signal.", "replacement": "other/image"}
    retired = make_record(status="yanked", retirement=retirement)
    save(retired, registry_folder / "tiny" / "video.json")
    page = run_hub("show", "tiny/video", "--registry", registry_folder).stdout
    assert "2025-03-01: Fitted to a wrong signal. Use other/image instead." in page


def test_ratios_of_magcache_are_shown(
    run_hub: Run, registry_folder: Path, make_record: Callable[..., Calibration]
) -> None:
    ratios = [{"branch": "cond", "ratios": [1.0, 0.987, *[0.99] * 18]}]
    bucket = {"sequence_length": 100, "num_steps": 20, "magnitude_ratios": ratios}
    record = make_record(method="magcache", buckets=[bucket])
    save(record, registry_folder / "tiny" / "video.json")
    page = " ".join(run_hub("show", "tiny/video", "--registry", registry_folder).stdout.split())
    assert "[1, 0.987, 0.99" in page
    assert "(20 steps)" in page


def test_fitted_weights_are_mentioned_and_json_holds_them_all(
    run_hub: Run, read_json: ReadJson, registry_folder: Path, make_record: Callable[..., Calibration]
) -> None:
    weights = [[1.0], [1.0], [-0.4321, 1.5], [0.25]]
    point = {"schedule": [0, 2], "forecaster": "fitted", "applied_to": "output", "evidence": "replayed"}
    bucket = {"num_steps": 4, "coefficients": [2.0, 0.0], "operating_points": [point | {"weights": weights}]}
    save(make_record(buckets=[bucket]), registry_folder / "tiny" / "video.json")
    page = run_hub("show", "tiny/video", "--registry", registry_folder, env={"COLUMNS": "160"}).stdout
    assert "weights of 4 steps, up to 2 a step" in page
    assert "0.4321" not in page
    content = read_json(run_hub("show", "tiny/video", "--registry", registry_folder, "--json"))
    assert content["record"]["buckets"][0]["operating_points"][0]["plan"]["rows"] == weights


def test_a_record_past_its_checks_cannot_reach_this_page(make_record: Callable[..., Calibration]) -> None:
    with pytest.raises(InvalidCalibration):
        make_record(notes=["escape \x1b[31m"])


def strips(page: str) -> list[str]:
    """The lines of the drawn plans."""
    lines = page.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("Steps:"))
    return lines[start + 1 : lines.index("", start)]


def test_every_plan_is_drawn_as_a_strip_of_its_steps(run_hub: Run) -> None:
    found = run_hub("show", "wan2.1/t2v-14b/lemica").stdout
    (bucket,) = Registry.default()["wan2.1/t2v-14b/lemica"].buckets
    drawn = strips(found)
    assert len(drawn) == len(bucket.operating_points)
    for line, point in zip(drawn, bucket.operating_points, strict=True):
        share, marks = line.split()[0], "".join(line.split()[1:])
        assert point.schedule is not None
        assert share == f"{len(point.schedule)}/50"
        assert tuple(step for step, mark in enumerate(marks) if mark == "█") == point.schedule
        assert set(marks) == {"█", "·"}


@pytest.mark.parametrize(("steps", "width"), [(4, 80), (50, 80), (100, 80), (250, 80), (100, 50), (1000, 40)])
def test_a_strip_of_any_step_count_fits_the_screen_and_loses_no_step(
    steps: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    computed = tuple(range(0, steps, 3))
    lines = list(strip(computed, steps))
    assert max(map(len, lines)) <= width
    marks = "".join("".join(line[len("  ") + 9 :].split()) for line in lines)
    assert tuple(step for step, mark in enumerate(marks) if mark == "█") == computed
    assert len(marks) == steps
    for line in lines[1:]:
        assert int(line.split()[1]) % 10 == 0


def test_a_strip_on_a_stream_without_blocks_is_drawn_in_ascii() -> None:
    (line,) = strip((0, 1, 3), 5)
    assert plain_marks.plain(line).split() == ["3/5", "##.#."]


def test_json_holds_the_steps_and_no_strip(run_hub: Run, read_json: ReadJson) -> None:
    result = run_hub("show", "wan2.1/t2v-14b/lemica", "--json")
    assert "█" not in result.stdout
    assert len(read_json(result)["record"]["buckets"][0]["operating_points"][0]["plan"]["computed"]) == 25


def test_records_without_plans_have_no_strip(run_hub: Run) -> None:
    for key in ("wan2.1/t2v-14b", "flux.1/dev/dbcache"):
        assert "Steps:" not in run_hub("show", key).stdout
