"""MagCache's decisions against its scripts, written out, and against the published settings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyteacache.errors import InvalidPlan
from easyteacache.policy.methods.magcache import (
    RULES,
    MagCacheRule,
    magcache_plan,
    magcache_schedule,
    nearest_ratios,
    rule_of,
)
from easyteacache.records.bucket import BranchRatios, Bucket
from easyteacache.registry.registry import Registry

ratios = st.lists(st.floats(0.5, 1.6), min_size=2, max_size=60)
shares = st.floats(0.0, 1.0)


def script(
    gammas: list[list[float]],
    num_steps: int,
    *,
    threshold: float,
    limit: int,
    retention: float,
    split: int | None = None,
    mode: str = "t2v",
) -> list[list[int]]:
    """Zehong-Ma/MagCache's forward for Wan, one counter over the calls of both branches: computed steps of each."""
    both = len(gammas)
    calls, split_calls = num_steps * both, None if split is None else split * both
    product, error, steps = [1.0] * both, [0.0] * both, [0] * both
    computed: list[list[int]] = [[] for _ in gammas]
    for count in range(calls):
        branch, use = count % both, True
        if split_calls is None:
            use = count >= int(calls * retention)
        elif mode == "i2v":
            use = count >= int(split_calls + (calls - split_calls) * retention)
        elif count < int(split_calls * retention) or (
            count <= ((calls - split_calls) * retention + split_calls) and count >= split_calls
        ):
            use = False
        skip = False
        if use:
            product[branch] *= gammas[branch][count // both]
            steps[branch] += 1
            error[branch] += np.abs(1 - product[branch])
            if error[branch] < threshold and steps[branch] <= limit and count >= both:
                skip = True
            else:
                error[branch], steps[branch], product[branch] = 0.0, 0, 1.0
        if not skip:
            computed[branch].append(count // both)
    return computed


@given(st.data(), st.integers(1, 2), st.integers(1, 60), st.floats(0.01, 2.0), st.integers(1, 8), shares)
def test_each_branch_computes_what_the_script_s_counter_computes(
    data: st.DataObject, branches: int, num_steps: int, threshold: float, limit: int, retention: float
) -> None:
    lists = [data.draw(ratios) for _ in range(branches)]
    gammas = [list(nearest_ratios(values, num_steps)) for values in lists]
    expected = script(gammas, num_steps, threshold=threshold, limit=limit, retention=retention)
    for branch in range(branches):
        found = magcache_schedule(
            lists[branch],
            num_steps,
            threshold=threshold,
            limit=limit,
            retention=retention,
            branch=branch,
            branches=branches,
        )
        assert list(found) == expected[branch]


@given(st.data(), st.integers(2, 50), st.floats(0.01, 2.0), st.integers(1, 8), shares, st.sampled_from(["t2v", "i2v"]))
def test_two_experts_begin_anew_as_in_the_script(
    data: st.DataObject, num_steps: int, threshold: float, limit: int, retention: float, mode: str
) -> None:
    split = data.draw(st.integers(1, num_steps - 1))
    lists = [data.draw(ratios) for _ in range(2)]
    gammas = [list(nearest_ratios(values, num_steps)) for values in lists]
    expected = script(gammas, num_steps, threshold=threshold, limit=limit, retention=retention, split=split, mode=mode)
    for branch in range(2):
        found = magcache_schedule(
            lists[branch],
            num_steps,
            threshold=threshold,
            limit=limit,
            retention=retention,
            branch=branch,
            branches=2,
            rule=rule_of(f"wan2.2/{mode}-a14b/magcache"),
            boundary=split,
        )
        assert list(found) == expected[branch]


@given(ratios, st.integers(2, 60), st.floats(0.01, 2.0), st.integers(1, 8), shares)
def test_flux_computes_what_its_script_computes(
    values: list[float], num_steps: int, threshold: float, limit: int, retention: float
) -> None:
    gammas, expected = np.array(nearest_ratios(values, num_steps)), []
    product, error, steps = 1.0, 0.0, 0
    for count in range(num_steps):
        skip = False
        if count >= int(retention * num_steps + 0.5):
            product *= float(gammas[count])
            steps += 1
            error += abs(1.0 - product)
            mapped = int(np.round(count * ((28 - 1) / (num_steps - 1))))
            skip = error <= threshold and steps <= limit and mapped != 11 and count > 0
            if not skip:
                product, error, steps = 1.0, 0.0, 0
        if not skip:
            expected.append(count)
    found = magcache_schedule(
        values, num_steps, threshold=threshold, limit=limit, retention=retention, rule=rule_of("flux.1/dev/magcache")
    )
    assert list(found) == expected


@given(ratios, st.integers(1, 60), st.floats(0.01, 2.0), st.integers(1, 8), shares)
def test_framepack_computes_every_step_whose_own_ratio_is_far_from_one(
    values: list[float], num_steps: int, threshold: float, limit: int, retention: float
) -> None:
    gammas = nearest_ratios(values, num_steps)
    found = magcache_schedule(
        values, num_steps, threshold=threshold, limit=limit, retention=retention, rule=rule_of("framepack/f1/magcache")
    )
    product, error, steps, expected = 1.0, 0.0, 0, []
    for count in range(num_steps):
        skip = False
        if count >= int(retention * num_steps) and count >= 1:
            product *= gammas[count]
            error += abs(1 - product)
            steps += 1
            skip = error <= threshold and steps <= limit and abs(1 - gammas[count]) <= 0.06
            if not skip:
                product, error, steps = 1.0, 0.0, 0
        if not skip:
            expected.append(count)
    if retention * num_steps >= 1:
        assert list(found) == expected
    assert {k for k in range(num_steps) if abs(1 - gammas[k]) > 0.06} <= set(found)


def test_a_threshold_met_exactly_is_reused_where_the_script_says_up_to() -> None:
    values = [1.0, 1.0, 1.25, 1.0]
    inclusive = MagCacheRule(inclusive=True, start="down")
    below = MagCacheRule(start="down")
    given_numbers = {"threshold": 0.25, "limit": 9, "retention": 0.0}
    assert magcache_schedule(values, 3, rule=inclusive, **given_numbers) == (0, 2)
    assert nearest_ratios(values, 3) == (1.0, 1.25, 1.0)
    assert magcache_schedule(values[:3], 3, rule=inclusive, **given_numbers) == (0,)
    assert magcache_schedule(values[:3], 3, rule=below, **given_numbers) == (0, 2)


def test_the_beginning_is_rounded_over_the_calls_of_both_branches() -> None:
    # 26 steps, two calls each, a quarter: 13 calls. The first branch computes 7 steps, the second 6.
    given_numbers = {"threshold": 9.0, "limit": 99, "retention": 0.25, "branches": 2}
    first, second = (magcache_schedule([1.0] * 26, 26, branch=branch, **given_numbers) for branch in (0, 1))
    assert (first, second) == ((0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 4, 5))


@given(st.integers(1, 80), st.integers(1, 80))
def test_ratios_for_another_step_count_are_the_nearest_ones(length: int, num_steps: int) -> None:
    values = np.arange(length, dtype=float)
    if num_steps == 1:
        expected = [values[-1]]
    elif num_steps == length:
        expected = list(values)
    else:
        scale = (length - 1) / (num_steps - 1)
        expected = list(values[np.round(np.arange(num_steps) * scale).astype(int)])
    assert list(nearest_ratios(list(values), num_steps)) == expected


def test_the_longest_first_parts_of_a_key_decide() -> None:
    assert rule_of("flux.1/dev/magcache").always == (11, 28)
    assert rule_of("flux.1/dev/magcache-vllm-omni").always is None
    assert rule_of("framepack/f1/magcache").tolerance == 0.06
    assert rule_of("wan2.2/i2v-a14b/magcache").spared
    assert rule_of("wan2.2/ti2v-5b/magcache-t2v").boundary is None
    assert rule_of("hunyuanvideo-1.5/magcache") == rule_of("mine/own") == MagCacheRule()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"ratios": []}, "0 ratios"),
        ({"threshold": 0.0}, "threshold 0.0"),
        ({"threshold": math.nan}, "threshold nan"),
        ({"retention": 1.5}, "retention 1.5"),
        ({"branch": 2, "branches": 2}, "branch 2 of 2"),
        ({"rule": MagCacheRule(boundary=0.9)}, "the first step of the second one must be given"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, object], message: str) -> None:
    usual = {"ratios": [1.0, 1.0], "num_steps": 2, "threshold": 0.1, "limit": 2, "retention": 0.2}
    with pytest.raises(InvalidPlan, match=message):
        magcache_schedule(**{**usual, **numbers})  # type: ignore[arg-type]


# A record's bucket ----------------------------------------------------------------------------------------------------


def test_a_branch_without_a_list_computes_what_any_list_computes() -> None:
    lists = ([1.0, 1.0, 1.5, 1.0, 1.0], [1.0, 1.0, 1.0, 1.5, 1.0])
    named = zip(("cond", "uncond"), lists, strict=True)
    bucket = Bucket(
        num_steps=5,
        magnitude_ratios=tuple(BranchRatios(branch=name, ratios=tuple(values)) for name, values in named),
        skip_window_fraction=(0.2, 1.0),
    )
    cond, uncond = (magcache_plan(bucket, 5, branch, threshold=0.4) for branch in ("cond", "uncond"))
    assert (cond, uncond) == ((0, 2), (0, 3))
    assert magcache_plan(bucket, 5, "default", threshold=0.4) == (0, 2, 3)
    with pytest.raises(InvalidPlan, match="no magnitude ratios in the bucket of 5 steps"):
        magcache_plan(Bucket(num_steps=5), 5, "cond", threshold=0.4)


def published() -> list[dict[str, object]]:
    path = Path(__file__).resolve().parents[2] / "tools" / "published" / "published_plans.json"
    return [plan for plan in json.loads(path.read_text("utf-8"))["plans"] if plan["method"] == "MagCache"]


#: Published settings → the record that holds their ratios, where its key is not theirs plus `/magcache`.
KEYS = {
    "hunyuanvideo-544p": "hunyuanvideo/t2v/magcache-544p",
    "hunyuanvideo-720p": "hunyuanvideo/t2v/magcache-720p",
    "wan2.2-ti2v-5b-t2v": "wan2.2/ti2v-5b/magcache-t2v",
}


@pytest.mark.parametrize("plan", published(), ids=lambda plan: plan["id"])
def test_every_published_setting_resolves_to_its_computed_steps(plan: dict[str, object]) -> None:
    named = str(plan["id"]).split("/", 1)[1].rpartition("/")[0]
    key = KEYS.get(named) or f"{plan['model_key_suggestion']}/magcache"
    record = Registry.opened(None).find(key).calibration
    steps = plan["num_steps"]
    bucket = min(record.buckets, key=lambda each: abs((each.num_steps or 0) - steps))
    extra = plan["extra"]
    for entry in bucket.magnitude_ratios:
        found = magcache_plan(
            bucket,
            steps,
            entry.branch,
            threshold=extra["threshold"],
            limit=extra["K"],
            retention=extra["retention_ratio"],
            rule=rule_of(key),
        )
        assert list(found) == plan["computed_steps"]


def test_there_are_twenty_published_settings_and_every_rule_has_a_record() -> None:
    assert len(published()) == 20
    keys = Registry.opened(None).keys()
    assert all(any(key == prefix or key.startswith(f"{prefix}/") for key in keys) for prefix in RULES)
