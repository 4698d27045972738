"""The frontier before and after a change, as text."""

from __future__ import annotations

import json

from easyteacache.hub.review import pareto
from easyteacache.hub.review.pareto import AFTER, BEFORE, BOTH, Point
from easyteacache.hub.review.review import MOST_CHARACTERS, _shortened
from easyteacache.records.calibration import Calibration

from ..conftest import build_record


def better(factor: float) -> Calibration:
    content = json.loads(build_record().to_json())
    for point in content["buckets"][0]["operating_points"]:
        for evidence in point["evidence"]:
            evidence["value"] *= factor
    return Calibration.from_mapping(content)


def test_points_are_those_with_a_measured_error() -> None:
    assert [(one.run, round(one.speed, 2), one.error) for one in pareto.points_of([build_record()])] == [
        ("100 tokens, 20 steps, shift 3", 1.43, 0.02),
        ("100 tokens, 20 steps, shift 3", 2.5, 0.08),
    ]


def test_the_frontier_leaves_out_what_is_beaten() -> None:
    fast, slow = Point("r", 3.0, 0.1, "fast"), Point("r", 1.5, 0.01, "slow")
    assert pareto.frontier([slow, Point("r", 2.0, 0.2, "beaten"), fast]) == [fast, slow]


def test_a_better_record_displaces_every_point_it_beats() -> None:
    told = "\n".join(pareto.told([build_record()], [better(0.5)]))
    assert (
        "| 2.5×, tiny/video, threshold 0.3, hold of residual | 8 % | 2.5×, tiny/video, threshold 0.3, hold of residual | 4 % |"
        in told
    )
    picture = told.split("```")[1]
    assert picture.count(BEFORE) == 2
    assert picture.count(AFTER) == 2
    assert BOTH not in picture


def test_a_worse_record_says_that_nothing_is_as_good() -> None:
    told = "\n".join(pareto.told([build_record()], [better(2.0)]))
    assert told.count("nothing as fast and as good") == 2


def test_a_new_record_displaces_nothing() -> None:
    told = "\n".join(pareto.told([], [build_record()]))
    assert "| nothing | | 2 new points on the frontier | |" in told


def test_records_that_say_the_same_move_nothing() -> None:
    assert list(pareto.told([build_record()], [build_record()])) == []


def test_a_long_comment_is_cut_at_a_line_with_its_blocks_closed() -> None:
    text = "<details>\n\n```\n" + "a line of the verdict\n" * 10_000 + "```\n</details>\n"
    found = _shortened(text)
    assert len(found) < MOST_CHARACTERS + 200
    assert found.count("```") == 2
    assert found.count("<details>") == found.count("</details>") == 1
    assert _shortened("short") == "short"
