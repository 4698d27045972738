"""An engine that would compute something else gets nothing, or is told in the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from easyteacache.errors import EasyTeaCacheError, ExportRefused
from easyteacache.export import ENGINES, export
from easyteacache.policy.request import RunContext, request_and_run
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Registry

Make = Callable[..., Registry]
Record = Callable[..., Calibration]


def refused(registry: Registry, key: str, engine: str, *asked: Any, **options: Any) -> ExportRefused:
    with pytest.raises(ExportRefused) as caught:
        export(registry, key, engine, *asked, **options)
    return caught.value


def test_an_engine_that_measures_another_signal_is_refused(bundled: Registry) -> None:
    error = refused(bundled, "flux.1/dev", "tensorrt-llm", *request_and_run(num_steps=28))
    assert error.rules == ("signal",)
    assert "modulated_input" in str(error)
    assert "timestep_embedding" in str(error)
    assert isinstance(error, EasyTeaCacheError)


def test_a_model_the_engine_does_not_cache_is_refused(bundled: Registry) -> None:
    assert (
        "model" in refused(bundled, "mochi-1/preview", "nunchaku", *request_and_run(num_steps=64, threshold=0.1)).rules
    )


def test_abs_on_a_polynomial_that_goes_negative_is_refused_with_both_values(bundled: Registry) -> None:
    error = refused(bundled, "wan2.1/t2v-14b/no-retention", "tensorrt-llm")
    assert error.rules == ("abs",)
    assert "-13.02" in str(error)
    assert "13.02" in str(error)
    assert "--refit" in str(error)


def test_abs_on_a_polynomial_that_stays_positive_changes_nothing(bundled: Registry) -> None:
    assert export(bundled, "flux.1/dev", "vllm-omni", *request_and_run(num_steps=28)).numbers.threshold == 0.25


def test_a_record_that_means_abs_is_refused_where_the_engine_takes_p_as_it_is(
    make_registry: Make, record: Record
) -> None:
    registry = make_registry(
        record("flux.1/dev", rescale_post="abs", bucket={"domain": None, "coefficients": [1.0, -0.1]})
    )
    assert refused(registry, "flux.1/dev", "xdit").rules == ("abs",)


def test_a_domain_floors_p_at_0_so_that_a_negative_p_within_it_is_refused(make_registry: Make, record: Record) -> None:
    registry = make_registry(record("flux.1/dev", bucket={"coefficients": [1.0, -0.2]}))
    assert "max(p(x), 0)" in str(refused(registry, "flux.1/dev", "xdit"))


def test_a_permission_turns_a_refusal_into_a_remark_in_the_file(bundled: Registry) -> None:
    exported = export(bundled, "wan2.1/t2v-14b/no-retention", "tensorrt-llm", allow={"abs"})
    assert any("|p(x)|" in remark for remark in exported.remarks)
    assert "# remark: " in exported.text


def test_more_coefficients_than_the_engine_takes_are_refused_for_good(make_registry: Make, record: Record) -> None:
    registry = make_registry(record("flux.1/dev", bucket={"coefficients": [1.0, 0.0, 0.0, 0.0, 0.1, 0.01]}))
    error = refused(registry, "flux.1/dev", "vllm-omni", allow={"abs", "window"})
    assert error.rules == ("order",)
    assert "--refit --traces" in str(error)
    assert "--allow" not in str(error)


def test_a_window_that_the_engine_cannot_keep_is_refused(make_registry: Make, record: Record) -> None:
    registry = make_registry(record("flux.1/dev", bucket={"min_skip_step": 5}))
    error = refused(registry, "flux.1/dev", "vllm-omni")
    assert error.rules == ("window",)
    assert "5 steps outside" in str(error)


def test_one_step_more_at_the_end_is_told_and_not_refused(bundled: Registry) -> None:
    (remark,) = export(bundled, "flux.1/dev", "vllm-omni", *request_and_run(num_steps=28)).remarks
    assert remark == "The record allows reuse in steps 1 to 26; vLLM-Omni may also reuse 1 step outside."


def test_a_record_without_a_threshold_names_the_option(bundled: Registry) -> None:
    assert refused(bundled, "kandinsky-5/lite-t2i-sft-hd/magcache", "vllm-omni").rules == ("model",)
    error = refused(bundled, "kandinsky-5/lite-t2i-sft-hd/magcache", "diffusers")
    assert error.rules == ("threshold",)
    assert "threshold=" in str(error)


def test_a_speedup_that_is_not_calibrated_is_refused(bundled: Registry) -> None:
    assert refused(bundled, "wan2.1/t2v-14b", "sglang", *request_and_run(speedup=9.0)).rules == ("threshold",)


def test_a_schedule_is_refused_where_a_threshold_is_expected_and_the_other_way_round(
    make_registry: Make, record: Record
) -> None:
    schedule = [{"schedule": [0, 1, 3, 19], "evidence": "replayed"}]
    registry = make_registry(
        record("flux.1/dev", bucket={"operating_points": schedule}),
        record("wan2.1/t2v-14b", signal="timestep_projection"),
    )
    assert "plan" in refused(registry, "flux.1/dev", "xdit").rules
    assert refused(registry, "wan2.1/t2v-14b", "cache-dit").rules == ("plan",)


def test_a_schedule_judged_with_a_forecaster_that_cache_dit_lacks_is_refused(
    make_registry: Make, record: Record
) -> None:
    points = [{"schedule": [0, 1, 3, 19], "evidence": "replayed", "forecaster": "foca"}]
    registry = make_registry(record("any/model", bucket={"operating_points": points}))
    assert refused(registry, "any/model", "cache-dit").rules == ("forecast",)
    assert "enable_" not in export(registry, "any/model", "cache-dit", allow={"forecast"}).text


def test_numbers_of_another_step_count_are_refused_without_a_sigma_profile(make_registry: Make, record: Record) -> None:
    registry = make_registry(record("flux.1/dev"))
    assert refused(registry, "flux.1/dev", "xdit", *request_and_run(num_steps=50)).rules == ("steps",)


def test_an_unknown_signal_is_refused(make_registry: Make, record: Record) -> None:
    assert refused(make_registry(record("flux.1/dev", signal="unknown")), "flux.1/dev", "xdit").rules == ("signal",)


def test_a_forecaster_that_the_engine_does_not_have_is_told(make_registry: Make, record: Record) -> None:
    points = [{"threshold": 0.3, "evidence": "replayed", "forecaster": "linear"}]
    exported = export(make_registry(record("flux.1/dev", bucket={"operating_points": points})), "flux.1/dev", "xdit")
    assert any("forecaster linear" in remark for remark in exported.remarks)


def test_what_lies_outside_the_domain_is_told_with_values(make_registry: Make, record: Record) -> None:
    exported = export(make_registry(record("flux.1/dev")), "flux.1/dev", "xdit")
    assert any("p(0) = 0.01 instead of 0.05" in remark for remark in exported.remarks)


def test_nunchaku_is_refused_for_coefficients_that_are_not_its_own(make_registry: Make, record: Record) -> None:
    assert "method" in refused(make_registry(record("flux.1/dev")), "flux.1/dev", "nunchaku").rules


def test_branches_that_differ_too_much_for_one_list_are_refused(make_registry: Make, record: Record) -> None:
    ratios = [{"branch": "cond", "ratios": [1.0, 0.9]}, {"branch": "uncond", "ratios": [1.0, 0.7]}]
    bucket = {"num_steps": 2, "coefficients": None, "domain": None, "max_skip_step": -1, "magnitude_ratios": ratios}
    registry = make_registry(record("flux.1/own", method="magcache", signal="unknown", bucket=bucket))
    assert refused(registry, "flux.1/own", "diffusers").rules == ("signal",)
    assert any("28" in remark for remark in export(registry, "flux.1/own", "diffusers", allow={"signal"}).remarks)


@pytest.mark.parametrize(("second", "fits"), [(0.97, True), (0.96, False)])
def test_one_list_for_all_branches_is_enough_where_it_computes_the_same_steps(
    second: float, fits: bool, make_registry: Make, record: Record
) -> None:
    """1 − 0.98 is below the threshold of 0.035, and so is 1 − 0.97; 1 − 0.96 is not."""
    ratios = [{"branch": "cond", "ratios": [1.0, 0.98, 0.9]}, {"branch": "uncond", "ratios": [1.0, second, 0.9]}]
    bucket = {"num_steps": 3, "coefficients": None, "domain": None, "max_skip_step": -1, "magnitude_ratios": ratios}
    bucket |= {"max_consecutive_skips": 3, "skip_window_fraction": [0.34, 1.0]}
    bucket["operating_points"] = [{"threshold": 0.035, "evidence": "reported"}]
    registry = make_registry(record("flux.1/own", method="magcache", signal="unknown", bucket=bucket))
    if fits:
        assert any("the same steps" in remark for remark in export(registry, "flux.1/own", "diffusers").remarks)
    else:
        assert refused(registry, "flux.1/own", "diffusers").rules == ("signal",)


def test_magcache_is_refused_for_models_that_the_engine_runs_only_with_teacache(bundled: Registry) -> None:
    assert refused(bundled, "qwen-image/magcache", "vllm-omni").rules == ("model",)
    assert export(bundled, "flux.2/dev/magcache-vllm-omni", "vllm-omni", *request_and_run(threshold=0.2)).numbers.ratios


def test_defaults_that_an_engine_fills_in_are_told(bundled: Registry) -> None:
    (remark,) = export(bundled, "flux.2/dev/magcache-vllm-omni", "diffusers", *request_and_run(threshold=0.2)).remarks
    assert remark == "The record states no retention and no run length: diffusers's own default applies."


def test_an_engine_without_magcache_refuses_ratios(bundled: Registry) -> None:
    assert refused(bundled, "flux.1/dev/magcache", "sglang").rules == ("method",)


def test_two_buckets_are_blended_exactly_where_both_hold(make_registry: Make, record: Record) -> None:
    lower, upper = (
        record("flux.1/dev"),
        record("flux.1/dev", bucket={"sequence_length": 1600, "coefficients": [0.8, 0.03]}),
    )
    buckets = [bucket.model_dump(mode="json") for each in (lower, upper) for bucket in each.buckets]
    registry = make_registry(Calibration.from_mapping(lower.model_dump(mode="json") | {"buckets": buckets}))
    exported = export(registry, "flux.1/dev", "json", *request_and_run(sequence_length=800))
    assert exported.numbers.coefficients == pytest.approx((0.6, 0.02))
    assert exported.numbers.domain == (0.1, 0.5)


def test_a_blend_of_a_curve_that_is_floored_is_refused(make_registry: Make, record: Record) -> None:
    """Flooring each curve at 0 and flooring their blend is not the same."""
    lower = record("flux.1/dev", bucket={"coefficients": [1.0, -0.3]})
    upper = record("flux.1/dev", bucket={"sequence_length": 1600})
    buckets = [bucket.model_dump(mode="json") for each in (lower, upper) for bucket in each.buckets]
    registry = make_registry(Calibration.from_mapping(lower.model_dump(mode="json") | {"buckets": buckets}))
    assert refused(registry, "flux.1/dev", "json", *request_and_run(sequence_length=800)).rules == ("length",)


@pytest.mark.parametrize("engine", ["cache-dit", "cache-dit-python", "sglang-request", "stable-diffusion.cpp"])
def test_fitted_weights_are_refused_by_every_format_of_schedules_without_a_place_for_them(
    engine: str, record: Record, make_registry: Make
) -> None:
    weights = [[1.0], [1.0], [-0.5, 1.5], *[[1.0]] * 17]
    point = {"schedule": [0, 1, 3, 19], "forecaster": "fitted", "applied_to": "output", "weights": weights}
    registry = make_registry(record("any/key", bucket={"operating_points": [point | {"evidence": "replayed"}]}))
    error = refused(registry, "any/key", engine, *request_and_run(num_steps=20))
    assert "forecast" in error.rules
    assert "weights of its own" in str(error) or "with fitted as it was judged" in str(error)


def test_an_engine_whose_threshold_is_set_elsewhere_takes_a_record_of_schedules(
    make_registry: Make, record: Record
) -> None:
    points = [{"schedule": [0, 1, 19], "evidence": "replayed"}]
    changes = {"signal": "timestep_projection", "bucket": {"operating_points": points}}
    exported = export(make_registry(record("any/model", **changes)), "any/model", "seed")
    assert exported.numbers.coefficients == (0.4, 0.01)
    told = export(make_registry(record("any/model", signal="timestep_projection")), "any/model", "seed").remarks
    assert any("threshold outside this file: 0.3" in remark for remark in told)


def test_a_yanked_list_of_ratios_is_refused_too(make_registry: Make, bundled: Registry) -> None:
    content = bundled["chroma/magcache"].model_dump(mode="json")
    content |= {"status": "yanked", "retirement": {"date": "2026-01-01", "reason": "Wrong."}}
    with pytest.raises(EasyTeaCacheError, match="yanked"):
        export(make_registry(Calibration.from_mapping(content)), "chroma/magcache", "diffusers")


@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_is_handed_a_yanked_record(engine: str, make_registry: Make, record: Record) -> None:
    retirement = {"date": "2026-01-01", "reason": "Wrong."}
    registry = make_registry(record("flux.1/dev", status="yanked", retirement=retirement))
    with pytest.raises(EasyTeaCacheError, match="yanked"):
        export(registry, "flux.1/dev", engine, allow={"model"})


@pytest.mark.parametrize("engine", ["json", "diffusers", "lightx2v"])
def test_a_step_count_that_would_fill_the_memory_is_refused(engine: str, bundled: Registry) -> None:
    error = refused(bundled, "wan2.1/t2v-14b/magcache", engine, run=RunContext(num_steps=10**9))
    assert error.rules == ("steps",)
    assert "at most" in str(error)


def test_a_preset_that_no_engine_here_runs_says_what_it_is(bundled: Registry) -> None:
    error = refused(bundled, "cogvideox/2b/fastercache", "diffusers")
    assert error.rules == ("method",)
    assert "FasterCache's FasterCache, which diffusers does not run" in str(error)
    assert "No exporter writes files of the program that does" in str(error)
    assert "easyteacache-hub show cogvideox/2b/fastercache" in str(error)


def test_a_preset_of_another_engine_names_those_that_run_it(bundled: Registry) -> None:
    error = refused(bundled, "flux.1/dev/dbcache", "diffusers")
    assert error.rules == ("method",)
    assert "Export it to cache-dit, sglang-cache-dit, sglang-request, vllm-omni." in str(error)


def test_an_engine_is_handed_the_operating_points_that_it_takes(make_registry: Make, record: Record) -> None:
    """Where a record has thresholds and plans, each engine gets its own kind; the most cautious of it when nothing is asked."""
    points = [
        {"schedule": [*range(20)], "evidence": "replayed"},
        {"threshold": 0.2, "evidence": "replayed"},
        {"schedule": [0, 1, 4, 9, 19], "evidence": "replayed"},
    ]
    registry = make_registry(record("flux.1/dev", bucket={"operating_points": points}))
    assert export(registry, "flux.1/dev", "xdit").numbers.threshold == 0.2
    assert export(registry, "flux.1/dev", "cache-dit").numbers.schedule == tuple(range(20))


def test_a_record_of_plans_goes_to_what_runs_masks_and_to_nothing_else(bundled: Registry) -> None:
    exported = export(bundled, "wan2.1/t2v-14b/lemica", "cache-dit")
    assert exported.numbers.schedule is not None
    assert export(bundled, "wan2.1/t2v-14b/lemica", "json").numbers.schedule == exported.numbers.schedule
    assert refused(bundled, "wan2.1/t2v-14b/lemica", "sglang").rules == ("method",)
    error = refused(bundled, "qwen-image/2.1/dpcache", "cache-dit")
    assert error.rules == ("forecast",)
    assert "judged on the feature" in str(error)
    assert refused(bundled, "wan2.1/t2v-14b/lemica", "cache-dit", run=RunContext(num_steps=7)).rules == ("steps",)


@pytest.mark.parametrize(
    ("key", "engine"),
    [
        ("wan2.1/t2v-14b/lemica", "cache-dit"),
        ("wan2.1/t2v-14b/lemica", "json"),
        ("wan2.1/t2v-14b", "lightx2v"),
        ("flux.1/dev/magcache", "diffusers"),
        ("flux.1/dev/magcache", "cache-dit"),
        ("flux.1/dev/magcache", "json"),
        ("flux.1/dev/dbcache", "cache-dit"),
        ("reference/moving-digits", "seed"),
    ],
)
def test_who_asks_for_an_exact_result_is_given_nothing_that_reuses(key: str, engine: str, bundled: Registry) -> None:
    error = refused(bundled, key, engine, *request_and_run(quality="exact"))
    assert error.rules == ("threshold",)
    assert "quality='exact' reuses nothing" in str(error)


@pytest.mark.parametrize("asked", [{"quality": "high"}, {"max_error": 0.02}, {"threshold": 0.1}])
def test_a_preset_is_refused_to_who_asks_for_what_it_does_not_say(asked: dict[str, Any], bundled: Registry) -> None:
    error = refused(bundled, "flux.1/dev/dbcache", "cache-dit", *request_and_run(**asked))
    assert error.rules == ("threshold",)
    assert "settings of its own" in str(error)
