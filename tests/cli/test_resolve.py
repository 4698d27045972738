from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from easyteacache.cli.resolve import resolve
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry import index

Run = Callable[..., Result]
ReadJson = Callable[[Result], Any]


@pytest.fixture
def answer(run_hub: Run, read_json: ReadJson, registry_folder: Path) -> Callable[..., Any]:
    """The JSON of ``resolve tiny/video`` with further arguments."""
    return lambda *arguments: read_json(
        run_hub("resolve", "tiny/video", "--registry", registry_folder, "--json", *arguments)
    )


def test_a_length_between_two_buckets_names_both_with_their_weights(run_hub: Run, registry_folder: Path) -> None:
    page = run_hub("resolve", "tiny/video", "--sequence-length", 200, "--registry", registry_folder).stdout
    # 200 is the geometric mean of 100 and 400.
    rows = [line.split() for line in page.splitlines()]
    assert ["100", "20", "3", "0.500"] in rows
    assert ["400", "20", "3", "0.500"] in rows


def test_the_curve_is_the_blend_over_the_whole_domain(answer: Callable[..., Any]) -> None:
    curve = answer("--sequence-length", 200)["curve"]
    assert (curve[0]["x"], curve[-1]["x"]) == (0.1, 0.5)
    # Half of 2x and half of 4x.
    assert [point["y"] for point in curve] == pytest.approx([3 * point["x"] for point in curve])


def test_json_has_the_documented_keys_and_no_others(
    answer: Callable[..., Any], documented_keys: Callable[..., set[str]]
) -> None:
    content = answer("--sequence-length", 200, "--steps", 10, "--shift", 5)
    keys = set(content) | set(content["buckets"][0]) | set(content["curve"][0])
    assert keys <= documented_keys(resolve)
    assert (content["sequence_length"], content["num_steps"], content["shift"]) == (200, 10, 5.0)
    assert any("not shift 5" in note for note in content["notes"])


def test_another_step_count_scales_the_window_and_says_so(answer: Callable[..., Any]) -> None:
    window = "{first_skip_step}-{last_skip_step}".format_map(answer("--steps", 40))
    assert window != "2-18"
    assert any(f"scaled to {window}" in note for note in answer("--steps", 40)["notes"])


def test_where_nothing_can_be_reused_it_says_why(
    answer: Callable[..., Any], run_hub: Run, registry_folder: Path
) -> None:
    assert answer("--steps", 20)["refusal"] is None
    # A draft without a sigma profile says nothing about other step counts.
    assert "every step is computed" in answer("--steps", 40)["refusal"]
    page = run_hub("resolve", "tiny/video", "--steps", 40, "--registry", registry_folder).stdout
    assert "nothing, see the last note" in page


@pytest.mark.parametrize(
    ("arguments", "threshold", "speedup"),
    [
        (["--threshold", 0.25], 0.25, None),
        (["--speedup", 1.4], 0.1, 1.5),
        (["--speedup", 2], 0.3, 2.5),
        (["--max-error", 0.05], 0.1, 1.5),
        ([], 0.1, 1.5),
    ],
)
def test_the_operating_point_follows_the_wish(
    arguments: list[Any], threshold: float, speedup: float | None, answer: Callable[..., Any]
) -> None:
    content = answer(*arguments)
    assert (content["threshold"], content["expected_speedup"]) == (threshold, speedup)


def test_an_unreachable_speedup_says_what_there_is(run_hub: Run, registry_folder: Path) -> None:
    result = run_hub("resolve", "tiny/video", "--speedup", 9, "--registry", registry_folder)
    assert result.exit_code == 1
    assert "1.5, 2.5" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threshold", "1", "--speedup", "2"],
        ["--speedup", "0.5"],
        ["--threshold", "-1"],
        ["--threshold", "nan"],
        ["--threshold", "inf"],
        ["--shift", "0"],
        ["--steps", "0"],
        ["--sequence-length", "many"],
    ],
)
def test_impossible_arguments_are_wrong_usage(arguments: list[str], run_hub: Run, registry_folder: Path) -> None:
    result = run_hub("resolve", "tiny/video", "--registry", registry_folder, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Usage:")


def test_a_yanked_record_needs_a_second_word(
    run_hub: Run, registry_folder: Path, make_record: Callable[..., Calibration]
) -> None:
    retired = make_record(status="yanked", retirement={"date": "2025-03-01", "reason": "Wrong."})
    save(retired, registry_folder / "tiny" / "video.json")
    arguments = ["resolve", "tiny/video", "--registry", registry_folder]
    assert run_hub(*arguments).exit_code == 1
    assert run_hub(*arguments, "--allow-yanked").exit_code == 0


def test_a_changed_record_does_not_pass_for_the_indexed_one(run_hub: Run, registry_folder: Path) -> None:
    index.write(registry_folder, index.build(registry_folder))
    path = registry_folder / "tiny" / "video.json"
    path.write_text(path.read_text().replace("0.3", "0.4"))
    result = run_hub("resolve", "tiny/video", "--registry", registry_folder)
    assert result.exit_code == 1
    assert "sha256" in result.stderr


def test_a_published_record_is_sampled_where_signals_usually_lie(run_hub: Run, read_json: ReadJson) -> None:
    content = read_json(run_hub("resolve", "wan2.1/t2v-14b", "--json"))
    # p(0) is −0.316, which is no distance: such a step is computed.
    assert content["curve"][0] == {"x": 0.0, "y": None}
    assert content["curve"][1]["y"] > 0
    assert content["profile"] is None
