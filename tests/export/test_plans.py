"""Plans in the files of engines that take lists of steps: what is written is what they compute, and comes back as it was."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import engine_rules as rules
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.errors import ExportRefused, InvalidCalibration
from easyteacache.export import ENGINES, Exported, read, read_server, step_masks, write
from easyteacache.policy.request import Request, RunContext, request_and_run
from easyteacache.records.calibration import Calibration
from easyteacache.records.plan import Plan
from easyteacache.registry.registry import Found, Registry
from easyteacache.runtime.predictors import predictor

MASKED = ("cache-dit", "cache-dit-python", "sglang-cache-dit", "sglang-request")
LISTED = (*MASKED, "stable-diffusion.cpp", "comfyui-lemica", "sglang-dpcache")
KEY = "wan2.1/t2v-14b/mine"


def record_of(plan: Mapping[str, Any], num_steps: int, key: str = KEY, **changes: Any) -> Calibration:
    """A draft of one plan, with everything that a DPCache request takes from a record."""
    levels = [1 - step / num_steps for step in range(num_steps + 1)]
    bucket = {
        "num_steps": num_steps,
        "height": 512,
        "width": 768,
        "sampler": {"name": "FlowMatchEulerDiscreteScheduler", "calls": num_steps, "levels": levels},
        "operating_points": [{"plan": dict(plan)}],
    }
    content = {
        "schema_version": 3,
        "model_key": key,
        "revision": 1,
        "status": "draft",
        "title": "Made for tests",
        "modality": "image",
        "method": "plan",
        "signal": "none",
        "model": {"checkpoint_commit": "c0ffee", "dtype": "bfloat16"},
        "conditions": {"guidance_scale": 1.0},
        "buckets": [bucket],
        "provenance": {},
    }
    return Calibration.from_mapping(content | changes)


SERVER = {
    "pipeline": "AnyPipelineConfig",
    "do_classifier_free_guidance": False,
    "quality": "lossless",
    "attention_backend": "torch_sdpa",
    "scheduler_config_sha256": "0" * 64,
}


def written(record: Calibration, engine: str, allow: Sequence[str] = (), **options: Any) -> Exported:
    found = Found(record, "given", record.model_key)
    server = SERVER if engine == "sglang-dpcache" else None
    return write(found, ENGINES[engine], Request(), RunContext(), allow=allow, **({"server": server} | options))


def plan_of(text: str, engine: str) -> tuple[Plan, int]:
    """The plan of the first draft, and its step count."""
    draft = read(text, engine, file="some/file", model_key=None, title=None, modality="image")[0]
    (bucket,) = draft.record.buckets
    (point,) = bucket.operating_points
    assert point.plan is not None
    assert bucket.num_steps is not None
    return point.plan, bucket.num_steps


def refused(record: Calibration, engine: str, *allow: str, **options: Any) -> ExportRefused:
    with pytest.raises(ExportRefused) as caught:
        written(record, engine, allow, **options)
    return caught.value


@st.composite
def schedules(draw: st.DrawFn, *, first: int = 1, least: int = 2, most: int = 60) -> tuple[list[int], int]:
    """Computed steps that begin with ``first`` of them in a row and reuse at least one step, and the step count."""
    steps = draw(st.integers(max(first + 1, least + 1, 3), 60))
    top = min(most, steps - 1)
    count = draw(st.integers(min(max(first, least), top), top))
    others = draw(st.permutations(range(first, steps)))[: count - first]
    return sorted([*range(first), *others]), steps


# cache-dit's masks and bins ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps_mask() -> Any:
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
    return pytest.importorskip("cache_dit").steps_mask


@given(mask=st.lists(st.integers(0, 1), min_size=1, max_size=80).map(lambda rest: [1, *rest]))
def test_bins_stand_for_the_mask_in_cache_dits_own_reading(steps_mask: Any, mask: list[int]) -> None:
    compute, cache = step_masks.bins_of(mask)
    assert steps_mask(compute_bins=list(compute), cache_bins=list(cache)) == mask
    assert steps_mask(compute_bins=list(compute), cache_bins=list(cache), total_steps=len(mask)) == mask
    assert step_masks.mask_of_bins(compute, cache, "file") == tuple(mask)


@given(
    compute=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    cache=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    share=st.floats(0.1, 1),
)
def test_any_bins_are_read_as_cache_dit_reads_them(
    steps_mask: Any, compute: list[int], cache: list[int], share: float
) -> None:
    total = round(share * (sum(compute) + sum(cache)))
    if total:
        theirs = steps_mask(compute_bins=compute, cache_bins=cache, total_steps=total)
        assert step_masks.mask_of_bins(compute, cache, "file", total) == tuple(theirs)


def test_the_published_example_of_bins_is_its_mask() -> None:
    mask = tuple(map(int, "11111100011000110001"))
    assert step_masks.bins_of(mask) == ((6, 2, 2, 1), (3, 3, 3))
    assert step_masks.mask_of_bins((6, 2, 2, 1), (3, 3, 3), "file", 20) == mask


@settings(max_examples=30, deadline=None)
@given(plan=schedules())
def test_every_spelling_gives_cache_dit_the_same_mask(steps_mask: Any, plan: tuple[list[int], int]) -> None:
    computed, steps = plan
    record = record_of({"computed": computed, "predictor": "hold"}, steps)
    mask = list(step_masks.mask_of(computed, steps))
    assert yaml.safe_load(written(record, "cache-dit").text)["cache_config"]["steps_computation_mask"] == mask
    scope: dict[str, Any] = {}
    exec(written(record, "cache-dit-python").text, scope)
    assert scope["cache_config"].steps_computation_mask == mask
    assert scope["cache_config"].steps_computation_policy == "static"
    lines = [line for line in written(record, "sglang-cache-dit").text.splitlines() if not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines)
    assert rules.sglang_mask(variables, steps) == mask
    assert variables["SGLANG_CACHE_DIT_SCM_POLICY"] == "static"
    parameters = json.loads(written(record, "sglang-request").text)["cache_dit_params"]
    bins = {"compute_bins": parameters["scm_compute_bins"], "cache_bins": parameters["scm_cache_bins"]}
    assert steps_mask(**bins, total_steps=steps) == mask
    assert parameters["scm_policy"] == "static"
    known = {"Fn_compute_blocks", "Bn_compute_blocks", "max_warmup_steps", "residual_diff_threshold"}
    known |= {"max_continuous_cached_steps", "enable_taylorseer", "taylorseer_order", "scm_preset"}
    # SGLang fails a request with a key that is none of these (release 0.5.23, cache_dit_integration.py:227).
    assert set(parameters) <= known | {"scm_compute_bins", "scm_cache_bins", "scm_policy"}


# Round trips ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", LISTED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_plan_comes_back_as_it_was(engine: str, data: st.DataObject) -> None:
    feature = engine == "sglang-dpcache"
    bounds = {"least": 6, "most": 25} if engine == "comfyui-lemica" else {}
    computed, steps = data.draw(schedules(first=2 if feature else 1, **bounds))
    fills = ["linear"] if feature else ["hold", "linear", "taylor-2"] if engine in MASKED else ["hold"]
    plan = {"computed": computed, "predictor": data.draw(st.sampled_from(fills))}
    plan |= {"applied_to": "feature" if feature else "residual"}
    text = written(record_of(plan, steps), engine, ["mask"]).text
    found, count = plan_of(text, engine)
    assert (list(found.computed), found.predictor, found.applied_to, count) == (
        computed,
        plan["predictor"],
        plan["applied_to"],
        steps,
    )
    assert found.rows is None
    # What came back is written to the same bytes but for what the draft does not know of the record.
    draft = read(text, engine, file="f", model_key=None, title=None, modality="image")[0].record
    assert plan_of(written(draft, engine, ["mask"]).text, engine)[0] == found


@settings(max_examples=25, deadline=None)
@given(plan=schedules(), data=st.data())
@pytest.mark.parametrize("engine", ["json", "python"])
def test_the_plain_formats_hold_rows_levels_and_what_they_are_of(
    engine: str, plan: tuple[list[int], int], data: st.DataObject
) -> None:
    computed, steps = plan
    weights = st.floats(-9, 9, allow_nan=False).map(lambda x: round(x, 6))
    rows: list[list[float]] = [[1.0]]
    for step in range(1, steps):
        known = sum(k <= step for k in computed)
        own = step in computed
        rows.append([1.0] if own else data.draw(st.lists(weights, min_size=1, max_size=min(known, 3))))
    content: dict[str, Any] = {
        "computed": computed,
        "rows": rows,
        "applied_to": "output",
        "combined": data.draw(st.booleans()),
    }
    if data.draw(st.booleans()):
        content["levels"] = [1 - step / steps for step in range(steps + 1)]
    original = record_of(content, steps)
    text = written(original, engine, server=None).text
    assert plan_of(text, engine)[0] == original.buckets[0].operating_points[0].plan


def test_a_plan_that_corrects_comes_back_from_plain_json() -> None:
    content = {"computed": [0, 2], "predictor": "linear", "rows": [[1.0], [1.0], [0.1, 0.9], [1.0]], "corrected": True}
    original = record_of(content, 4)
    text = written(original, "json", server=None).text
    assert plan_of(text, "json")[0] == original.buckets[0].operating_points[0].plan


# What another engine would compute otherwise --------------------------------------------------------------------------


@pytest.mark.parametrize("engine", LISTED)
@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"predictor": "foca"}, "foca"),
        ({"predictor": "linear", "coordinate": "sigma"}, "along the sigma"),
        ({"predictor": "hold", "applied_to": "output"}, "judged on the output"),
        ({"rows": [[1.0], [1.0], [1.0], [0.5, 0.5], [1.0], [1.0], [1.0], [1.0]]}, "fitted|weights of its own"),
        (
            {
                "predictor": "hold",
                "rows": [[1.0], [1.0], [0.3, 0.7], [1.0], [1.0], [1.0], [1.0], [1.0]],
                "corrected": True,
            },
            "correct the sampler's state",
        ),
    ],
)
def test_another_filling_is_refused_with_the_reason(engine: str, plan: dict[str, Any], said: str) -> None:
    place = {"applied_to": "feature" if engine == "sglang-dpcache" else "residual"}
    record = record_of({"computed": [0, 1, 2, 4, 5, 6], **place, **plan}, 8)
    error = refused(record, engine, "mask")
    assert "forecast" in error.rules
    assert any(word in str(error) for word in said.split("|")), str(error)


def test_a_hold_of_the_residual_is_no_plan_for_dpcache_and_a_feature_none_for_a_mask() -> None:
    hold = record_of({"computed": [0, 1, 3], "predictor": "hold"}, 6)
    error = refused(hold, "sglang-dpcache")
    assert error.rules == ("forecast", "forecast")
    assert "output of the last block" in str(error)
    assert "fills them with linear" in str(error)
    feature = record_of({"computed": [0, 1, 3], "predictor": "linear", "applied_to": "feature"}, 6)
    for engine in (*MASKED, "comfyui-lemica"):
        assert "judged on the feature" in str(refused(feature, engine, "mask"))


def test_rows_that_come_to_the_engines_own_are_taken() -> None:
    linear = [list(row) for row in predictor("linear").rows((0, 1, 4), 7)]
    record = record_of({"computed": [0, 1, 4], "rows": linear, "applied_to": "feature"}, 7)
    assert rules.dpcache(json.loads(written(record, "sglang-dpcache").text)) == (0, 1, 4)
    linear[5][0] += 0.01
    record = record_of({"computed": [0, 1, 4], "rows": linear, "applied_to": "feature"}, 7)
    assert refused(record, "sglang-dpcache").rules == ("forecast",)
    order = record_of({"computed": [0, 1, 4], "predictor": "taylor-1", "applied_to": "feature"}, 7)
    assert written(order, "sglang-dpcache").numbers.schedule == (0, 1, 4)


def test_dpcache_needs_both_of_its_first_steps() -> None:
    record = record_of({"computed": [0, 2, 4], "predictor": "linear", "applied_to": "feature"}, 7)
    assert refused(record, "sglang-dpcache").rules == ("plan",)


def test_bins_that_reuse_nothing_would_leave_the_threshold_to_decide() -> None:
    record = record_of({"computed": [*range(6)], "predictor": "hold"}, 6)
    assert rules.sglang_mask({"SGLANG_CACHE_DIT_ENABLED": "1", "SGLANG_CACHE_DIT_SCM_COMPUTE_BINS": "6"}, 6) is None
    for engine in ("sglang-cache-dit", "sglang-request"):
        assert refused(record, engine).rules == ("plan",)
    assert plan_of(written(record, "cache-dit-python").text, "cache-dit-python")[0].computed == (0, 1, 2, 3, 4, 5)


def test_one_list_for_two_experts_and_an_order_that_sglang_lacks_are_refused() -> None:
    plan = {"computed": [0, 1, 3], "predictor": "hold"}
    for engine in ("sglang-cache-dit", "sglang-request"):
        assert refused(record_of(plan, 6, "wan2.2/t2v-a14b/mine"), engine).rules == ("mask",)
        assert refused(record_of(plan | {"predictor": "taylor-3"}, 6), engine).rules == ("forecast",)
    assert "taylorseer_order: 3" in written(record_of(plan | {"predictor": "taylor-3"}, 6), "cache-dit").text


def test_stable_diffusion_cpp_is_refused_because_it_does_not_follow_its_mask() -> None:
    record = record_of({"computed": [0, 1, 3, 5], "predictor": "hold"}, 6)
    error = refused(record, "stable-diffusion.cpp")
    assert error.rules == ("mask",)
    assert "decides without them" in str(error)
    text = written(record, "stable-diffusion.cpp", ["mask"]).text
    assert '--scm-mask "1,1,0,1,0,1" --scm-policy static' in text.splitlines()[-1]


def test_a_list_outside_the_nodes_budgets_or_of_another_model_is_refused() -> None:
    few = {"computed": [0, 1, 3], "predictor": "hold"}
    assert refused(record_of(few, 6), "comfyui-lemica").rules == ("plan",)
    assert "6 to 25" in str(refused(record_of(few, 6), "comfyui-lemica"))
    enough = {"computed": [0, 1, 2, 4, 5, 6], "predictor": "hold"}
    assert refused(record_of(enough, 8, "mochi-1/preview/mine"), "comfyui-lemica").rules == ("model",)
    told = " ".join(written(record_of(enough, 8), "comfyui-lemica").remarks)
    assert "num_steps = 8" in told
    assert "9 into the assertion" in told


def test_branches_that_compute_different_steps_are_refused_where_there_is_one_list(bundled: Registry) -> None:
    """Of two branches' ratios other steps follow; with permission every step that any of them computes is written."""
    for key in (key for key in bundled if bundled[key].method == "magcache"):
        found = bundled.find(key)
        try:
            exported = write(found, ENGINES["cache-dit"], *request_and_run(threshold=0.1), allow={"branches"})
        except ExportRefused:
            continue
        branches = dict(exported.numbers.of_branches)
        union = sorted({step for steps in branches.values() for step in steps})
        assert not branches or union == list(exported.numbers.schedule or ())
        if branches:
            with pytest.raises(ExportRefused) as caught:
                write(found, ENGINES["cache-dit"], *request_and_run(threshold=0.1))
            assert caught.value.rules == ("branches",)
            return
    pytest.fail("no record of two branches that differ")


def test_the_steps_of_magcaches_ratios_are_a_mask(bundled: Registry) -> None:
    exported = write(bundled.find("flux.1/dev/magcache"), ENGINES["cache-dit"], *request_and_run(threshold=0.24))
    own = write(bundled.find("flux.1/dev/magcache"), ENGINES["json"], *request_and_run(threshold=0.24)).numbers
    assert exported.numbers.num_steps == own.num_steps == 28
    assert exported.numbers.schedule is not None
    assert 1 < len(exported.numbers.schedule) < 28


# SGLang's schedules -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(plan=schedules(first=2))
def test_sglangs_validator_accepts_every_schedule_that_is_written(plan: tuple[list[int], int]) -> None:
    computed, steps = plan
    record = record_of({"computed": computed, "predictor": "linear", "applied_to": "feature"}, steps)
    schedule = json.loads(written(record, "sglang-dpcache").text)
    assert rules.dpcache(schedule) == tuple(computed)
    levels = [1 - step / steps for step in range(steps + 1)]
    request = {
        **SERVER,
        "checkpoint": "c0ffee",
        "num_inference_steps": steps,
        "height": 512,
        "width": 768,
        "guidance_scale": 1.0,
        "dtype": "bfloat16",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "timesteps": [schedule["request"]["timesteps"][0], *schedule["request"]["timesteps"][1:]],
        "sigmas": levels,
    }
    assert schedule["request"]["timesteps"] == pytest.approx([1000 * level for level in levels[:-1]], rel=1e-6)
    assert rules.dpcache_matches(schedule, request)
    assert not rules.dpcache_matches(schedule, request | {"width": 512})
    assert not rules.dpcache_matches(schedule, request | {"sigmas": [*levels[:-1], 1e-6]})


def good_schedule() -> dict[str, Any]:
    record = record_of({"computed": [0, 1, 2, 5, 7], "predictor": "linear", "applied_to": "feature"}, 8)
    schedule: dict[str, Any] = json.loads(written(record, "sglang-dpcache").text)
    return schedule


ODD = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3,
    7.0,
    "",
    "bfloat16",
    "abc",
    [],
    [0],
    [0, 1],
    [1, 0],
    [0, 1, 7],
    {},
    [0, 2],
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_importer_refuses_what_sglangs_validator_refuses(data: st.DataObject) -> None:
    schedule = good_schedule()
    parts = [(schedule, name) for name in schedule if name not in ("_easyteacache", "schedule_method")]
    parts += [
        (schedule["request"], name)
        for name in ("num_inference_steps", "height", "width", "dtype", "timesteps", "sigmas")
    ]
    parts += [(schedule["calibration"], name) for name in ("manifest_sha256", "num_samples")]
    for _ in range(data.draw(st.integers(1, 2))):
        where, name = data.draw(st.sampled_from(parts))
        if data.draw(st.booleans()):
            where.pop(name, None)
        else:
            where[name] = data.draw(st.sampled_from(ODD))
    text = json.dumps(schedule)
    try:
        expected: tuple[int, ...] | None = rules.dpcache(schedule)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        expected = None
    try:
        found: tuple[int, ...] | None = plan_of(text, "sglang-dpcache")[0].computed
    except InvalidCalibration as error:
        found = None
        named = "some/file" in str(error)
    assert found is not None or named
    assert found == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "sglang-dpcache-schedule-v1"}, "schema is 'sglang-dpcache-schedule-v1'"),
        ({"predictor": {"name": "x"}}, "predictor is another object"),
        ({"full_steps": [0, 1, 2, 5, 5]}, "ascending"),
        ({"full_steps": [0, 1, 2, 5, 8]}, "ascending steps of 8"),
        ({"full_steps": [0, 1, 5], "num_full_steps": 3, "mandatory_full_steps": [0, 1, 2]}, "begin with mandatory"),
        ({"num_full_steps": 4}, "num_full_steps is 4"),
        ({"max_gap": 2}, "exceeds max_gap = 2"),
        ({"full_steps": [0, 1], "num_full_steps": 2}, "force_last_full"),
        ({"request": {"dtype": "float16"}}, "missing"),
        ({"calibration": {"manifest_sha256": "zz", "num_samples": 0}}, "64 hexadecimal"),
        ({"calibrated_cost": "low"}, "calibrated_cost is 'low'"),
        # Python's own reader takes it, and SGLang with it, wherever it does not ask for a finite number; JSON has no such value.
        ({"force_last_full": math.inf}, "Infinity"),
    ],
)
def test_a_schedule_that_breaks_a_rule_says_which(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidCalibration, match="some/file") as caught:
        plan_of(json.dumps(good_schedule() | change), "sglang-dpcache")
    assert said in str(caught.value)


def test_a_schedule_without_a_server_says_what_is_missing_and_a_file_gives_it(bundled: Registry) -> None:
    found = bundled.find("qwen-image/2.1/dpcache")
    with pytest.raises(ExportRefused) as caught:
        write(found, ENGINES["sglang-dpcache"])
    assert caught.value.rules == ("server",)
    assert "pipeline" in str(caught.value)
    assert "--server FILE" in str(caught.value)
    assert "timesteps" not in str(caught.value)  # The record has the noise levels.
    known = read_server(json.dumps(SERVER | {"guidance_scale": 1.0}), "sglang-dpcache", file="server.json")
    text = write(found, ENGINES["sglang-dpcache"], server=known).text
    schedule = json.loads(text)
    assert rules.dpcache(schedule) == found.calibration.buckets[0].operating_points[0].schedule
    assert schedule["request"]["checkpoint"] == "790c92633540aa0cb11d9abf19eb46d861714758"
    # A whole schedule serves as well, and its own noise levels go before the record's.
    again = read_server(text, "sglang-dpcache", file="server.json")
    assert json.loads(write(found, ENGINES["sglang-dpcache"], server=again).text)["request"] == schedule["request"]
    other = again | {"sigmas": [*again["sigmas"][:-1], 0.001]}
    assert any("noise levels" in remark for remark in write(found, ENGINES["sglang-dpcache"], server=other).remarks)


def test_a_server_of_another_step_count_or_a_wrong_field_is_refused(bundled: Registry) -> None:
    found = bundled.find("qwen-image/2.1/dpcache")
    server = SERVER | {"guidance_scale": 1.0}
    for change, rule in (
        ({"num_inference_steps": 8, "timesteps": [1.0] * 8, "sigmas": [1.0] * 9}, "steps"),
        ({"height": "tall"}, "server"),
        ({"dtype": "float16"}, "server"),
    ):
        with pytest.raises(ExportRefused) as caught:
            write(found, ENGINES["sglang-dpcache"], server=server | change)
        assert caught.value.rules == (rule,)
    with pytest.raises(InvalidCalibration, match="names none of"):
        read_server("{}", "sglang-dpcache", file="server.json")
    with pytest.raises(ExportRefused, match="name no server"):
        read_server("{}", "cache-dit", file="server.json")


# Files that are wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "text", "said"),
    [
        ("cache-dit", "a: 1", "no section cache_config"),
        ("cache-dit", "cache_config: {steps_computation_mask: medium}", "names a policy"),
        ("cache-dit", "cache_config: {steps_computation_mask: [1, 2]}", "steps_computation_mask[1] is 2"),
        ("cache-dit", "cache_config: {steps_computation_mask: [0, 1]}", "first step must be computed"),
        ("cache-dit", "cache_config: {steps_computation_mask: []}", "expected a list of 0 and 1"),
        (
            "cache-dit",
            "cache_config: {steps_computation_mask: [1, 0], steps_computation_policy: odd}",
            "expected 'static' or 'dynamic'",
        ),
        (
            "cache-dit",
            "cache_config: {steps_computation_mask: [1, 0], num_inference_steps: 3}",
            "2 entries for 3 steps",
        ),
        ("cache-dit", "cache_config: {fine: 1}", "no settings of DBCache"),
        ("cache-dit-python", "x = 1", "no call of DBCacheConfig"),
        ("cache-dit-python", "mask = steps_mask(compute_bins=[2, -1], cache_bins=[1])", "compute_bins[1] is -1"),
        (
            "cache-dit-python",
            "mask = steps_mask(compute_bins=[2], cache_bins=[1], total_steps=9)",
            "cover 3 of 9 steps",
        ),
        (
            "cache-dit-python",
            "mask = steps_mask(compute_bins=[99999999], cache_bins=[1])",
            "expected a number of steps",
        ),
        ("cache-dit-python", "mask = steps_mask(mask_policy='fast', total_steps=9)", "compute_bins is None"),
        ("sglang-cache-dit", "X=1", "no variable SGLANG_CACHE_DIT_"),
        ("sglang-cache-dit", "SGLANG_CACHE_DIT_SCM_COMPUTE_BINS=6,2", "belong together"),
        (
            "sglang-cache-dit",
            "SGLANG_CACHE_DIT_SCM_COMPUTE_BINS=6,x SGLANG_CACHE_DIT_SCM_CACHE_BINS=1",
            "expected numbers with commas",
        ),
        ("sglang-cache-dit", "SGLANG_CACHE_DIT_SCM_PRESET=fast", "names a policy"),
        ("sglang-cache-dit", "SGLANG_CACHE_DIT_FN=1 SGLANG_CACHE_DIT_FN=2", "given twice"),
        ("sglang-cache-dit", "SGLANG_CACHE_DIT_FN=one", "expected a number"),
        ("sglang-cache-dit", "SGLANG_CACHE_DIT_RDT=nan", "finite"),
        ("sglang-cache-dit", "SGLANG_CACHE_DIT_TAYLORSEER=maybe", "true or false"),
        ("sglang-cache-dit", "SGLANG_CACHE_DIT_FN='1", "not lines of NAME=value"),
        ("sglang-request", "[]", "expected a JSON object"),
        ("sglang-request", '{"cache_dit_params": 1}', "expected an object"),
        ("sglang-request", '{"cache_dit_params": {"scm_compute_bins": [1]}}', "belong together"),
        ("sglang-request", '{"cache_dit_params": {"scm_preset": "fast"}}', "names a policy"),
        (
            "sglang-request",
            '{"num_inference_steps": 9, "cache_dit_params": {"scm_compute_bins": [1], "scm_cache_bins": [1]}}',
            "cover 2 of 9 steps",
        ),
        ("stable-diffusion.cpp", "--steps 20", "no option --scm-mask"),
        ("stable-diffusion.cpp", "--scm-mask 1,0", "--cache-mode is None"),
        ("stable-diffusion.cpp", "--cache-mode ucache --scm-mask 1,0", "no other mode takes a mask"),
        ("stable-diffusion.cpp", "--cache-mode dbcache --scm-mask 1,0", "only 'static' fixes the steps"),
        ("stable-diffusion.cpp", "--cache-mode dbcache --scm-policy static --scm-mask 1,x", "--scm-mask[1] is 'x'"),
        ("stable-diffusion.cpp", "--cache-mode dbcache --scm-policy static --scm-mask", "has no value"),
        (
            "stable-diffusion.cpp",
            "--steps 3 --cache-mode dbcache --scm-policy static --scm-mask 1,0",
            "2 entries for --steps 3",
        ),
        ("comfyui-lemica", "x = {}", "no dictionary CALC_DICT"),
        ("comfyui-lemica", "CALC_DICT = {3: [0, 1]}", "has 2 steps"),
        ("comfyui-lemica", "CALC_DICT = {2: [0, 1.5]}", "[1] is 1.5"),
        ("comfyui-lemica", "CALC_DICT = {2: [1, 0]}", "ascending from 0"),
        ("comfyui-lemica", "NUM_STEPS = 4\nCALC_DICT = {2: [0, 4]}", "expected a step of 4"),
        ("json", '{"schedule": [0, 1.5]}', "whole numbers"),
        ("json", '{"schedule": [0, 1], "rows": 3}', "expected a list of rows"),
        ("json", '{"preset": "DBCache"}', "expected an object"),
        ("vllm-omni", '{"residual_diff_threshold": 0.1, "scm_steps_mask_policy": "fast"}', "names a policy"),
        ("vllm-omni", '{"sea_threshold": 0.1}', "sea_power_exp is missing"),
        (
            "lightx2v",
            '{"feature_caching": "DualBlock", "residual_diff_threshold": 0.1}',
            "downsample_factor is missing",
        ),
        ("diffusers", "config = FirstBlockCacheConfig(threshold='high')", "expected a number"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_place(engine: str, text: str, said: str) -> None:
    with pytest.raises(InvalidCalibration) as caught:
        read(text, engine, file="some/file", model_key="any/model", title=None, modality="image")
    assert "some/file" in str(caught.value)
    assert said in str(caught.value)


def test_a_command_line_and_a_shell_script_are_read_as_people_write_them() -> None:
    script = (
        "# settings of the server\nexport SGLANG_CACHE_DIT_ENABLED=true \\\n  SGLANG_CACHE_DIT_SCM_COMPUTE_BINS='6,2,2,1' \\\n"
        'SGLANG_CACHE_DIT_SCM_CACHE_BINS="3,3,3" SGLANG_CACHE_DIT_SCM_POLICY=static sglang generate --prompt "a cat"\n'
    )
    plan = read(script, "sglang-cache-dit", file="f", model_key="a/b", title=None, modality="image")[0].record
    assert plan.buckets[0].operating_points[0].schedule == (0, 1, 2, 3, 4, 5, 9, 10, 14, 15, 19)
    line = "sd-cli -m m.gguf -p 'a cat' --steps 4 --cache-mode cache-dit --scm-mask=1,1,0,1 --scm-policy static"
    plan = read(line, "stable-diffusion.cpp", file="f", model_key="a/b", title=None, modality="image")[0].record
    assert plan.buckets[0].operating_points[0].schedule == (0, 1, 3)


def test_lists_of_several_budgets_are_several_drafts_the_nodes_first() -> None:
    text = "NUM_STEPS = 50\nCALC_DICT = {3: [0, 1, 5], 2: [0, 4]}\nLEMICA_NODE = {'lemica_budget': 3}\n"
    drafts = read(text, "comfyui-lemica", file="f", model_key="a/b", title=None, modality="image")
    assert [draft.label for draft in drafts] == ["3", "2"]
    assert drafts[0].record.buckets[0].operating_points[0].schedule == (0, 1, 5)


def test_reading_an_environment_expands_and_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    text = f"SGLANG_CACHE_DIT_FN=1 SGLANG_CACHE_DIT_RDT=$(touch {trap})\n"
    with pytest.raises(InvalidCalibration):
        read(text, "sglang-cache-dit", file="f", model_key="a/b", title=None, modality="image")
    assert not trap.exists()


# What engines make of a reused step, written out -----------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(plan=schedules(first=2))
def test_dpcaches_extrapolation_is_the_linear_predictors_rows(plan: tuple[list[int], int]) -> None:
    """``predict_feature`` of dpcache.py (line 52 at b9810f5f7847): last + (last − previous) / (b − a) · (step − b)."""
    computed, steps = plan
    rows = predictor("linear").rows(tuple(computed), steps)
    values = [math.sin(1 + 2.4 * step) for step in range(steps)]
    for step in set(range(steps)) - set(computed):
        a, b = [k for k in computed if k < step][-2:]
        theirs = values[b] + (values[b] - values[a]) / (b - a) * (step - b)
        used = [k for k in computed if k < step][-len(rows[step]) :]
        assert sum(w * values[k] for w, k in zip(rows[step], used, strict=True)) == pytest.approx(theirs, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(plan=schedules())
def test_lightx2vs_continuation_is_the_linear_predictors_rows(plan: tuple[list[int], int]) -> None:
    """``derivative_approximation`` and ``taylor_formula`` of common/transformer_infer/transformer_infer.py:58 at f8aee98b5462."""
    computed, steps = plan
    rows = predictor("linear").rows(tuple(computed), steps)
    values = [math.cos(1 + 2.4 * step) for step in range(steps)]
    terms: list[float] = []
    last = 0
    for step in range(steps):
        if step in computed:
            terms = [values[step], (values[step] - terms[0]) / (step - last)] if terms else [values[step]]
            last = step
            continue
        theirs = sum(term * (step - last) ** order / math.factorial(order) for order, term in enumerate(terms))
        used = [k for k in computed if k < step][-len(rows[step]) :]
        assert sum(w * values[k] for w, k in zip(rows[step], used, strict=True)) == pytest.approx(theirs, abs=1e-10)
