"""One policy among the records of a model."""

from __future__ import annotations

from typing import Any

import pytest

from easyteacache import TeaCache
from easyteacache.errors import InvalidCalibration, SignalMismatch, UnreachableTarget
from easyteacache.policy.model_choice import ModelResolver, applicable
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Found

STEPS = 20
REPORTED = {"kind": "reported", "how": "reported", "metric": "lpips"}
PUBLISHED = {"kind": "published", "how": "reported"}


def found(key: str, method: str, points: list[dict[str, Any]], *, signal: str = "none", **bucket: Any) -> Found:
    record = Calibration.from_mapping(
        {
            "schema_version": 3,
            "model_key": key,
            "revision": 1,
            "status": "published",
            "title": "Toy",
            "modality": "image",
            "method": method,
            "signal": signal,
            "buckets": [{"num_steps": STEPS, "operating_points": points, **bucket}],
            "provenance": {"sources": [{"repository": "a/b"}]},
        }
    )
    return Found(record, "bundled", key)


def own(**evidence: Any) -> Found:
    points = [{"threshold": 0.2, "evidence": [{**PUBLISHED, "speedup": 2.0, **evidence}]}]
    return found("toy", "teacache", points, signal="modulated_input", coefficients=[1.0, 0.0])


def planned(name: str, step: int, *evidence: dict[str, Any], **bucket: Any) -> Found:
    plan = {"computed": list(range(0, STEPS, step)), "predictor": "hold"}
    return found(f"toy/{name}", "plan", [{"plan": plan, "evidence": list(evidence)}], **bucket)


def choose(*records: Found, run: RunContext | None = None, **request: Any) -> Policy:
    return ModelResolver(records).policy(Request(**request), run or RunContext(num_steps=STEPS))


def test_stronger_evidence_goes_first_whatever_the_method() -> None:
    lemica = planned("lemica", 2, {**PUBLISHED, "speedup": 2.0})
    dpcache = planned("dpcache", 4, {**REPORTED, "value": 0.1, "speedup": 3.0})
    assert choose(own(), lemica, dpcache, speedup=2.0).model_key == "toy/dpcache"
    assert choose(own(), dpcache, lemica, speedup=2.0).model_key == "toy/dpcache"


def test_then_the_better_figure_of_the_same_metric() -> None:
    worse = planned("lemica", 4, {**REPORTED, "value": 0.3, "speedup": 3.0})
    better = planned("meancache", 4, {**REPORTED, "value": 0.1, "speedup": 3.5})
    for records in ((worse, better), (better, worse)):
        assert choose(own(), *records, speedup=2.0).model_key == "toy/meancache"


def test_then_fixed_steps_before_a_polynomial_and_the_slower_before_the_faster() -> None:
    slow, fast = (
        planned(name, step, {**PUBLISHED, "speedup": float(step)}) for name, step in (("lemica", 2), ("fora", 5))
    )
    assert choose(own(), fast, slow, speedup=2.0).model_key == "toy/lemica"


def test_what_holds_for_the_run_goes_before_what_is_carried_over() -> None:
    strong = planned("dpcache", 4, {**REPORTED, "value": 0.1, "speedup": 3.0})
    here = planned("lemica", 2, {**PUBLISHED, "speedup": 2.0}, shift=5.0)
    other = RunContext(num_steps=30)
    assert choose(own(), strong, here, speedup=2.0).model_key == "toy/dpcache"
    thirty = planned("lemica", 2, {**PUBLISHED, "speedup": 2.0})
    record = thirty.calibration.model_copy(
        update={"buckets": (thirty.calibration.buckets[0].model_copy(update={"num_steps": 30}),)}
    )
    chosen = choose(own(), strong, Found(record, "bundled", "toy"), run=other, speedup=2.0)
    assert chosen.model_key == "toy/lemica"
    assert chosen.carried is None


def test_a_note_says_what_was_chosen_over_what() -> None:
    slow = planned("lemica", 2, {**PUBLISHED, "speedup": 2.0})
    none = planned("taylorseer", 4)
    gentle = planned("fora", 2, {**PUBLISHED, "speedup": 1.2})
    note = choose(own(), slow, none, gentle, speedup=2.0).notes[-1]
    assert note == (
        "Of the records of this model toy/lemica (published, 2×) is chosen over toy (published, 2×), "
        "toy/taylorseer (no evidence, 4×); toy/fora offers nothing for this run."
    )


def test_without_a_wish_and_with_a_threshold_the_model_s_own_record_decides() -> None:
    better = planned("dpcache", 4, {**REPORTED, "value": 0.1, "speedup": 3.0})
    assert choose(own(), better).model_key == "toy"
    assert choose(own(), better, threshold=0.4).threshold == 0.4


def test_presets_and_unknown_signals_are_no_candidates() -> None:
    preset = found("toy/dbcache", "preset", [{"preset": {"engine": "x", "method": "DBCache"}}])
    points = [{"threshold": 0.2, "evidence": [{**PUBLISHED, "speedup": 2.0}]}]
    unknown = found("toy", "teacache", points, signal="unknown", coefficients=[1.0, 0.0])
    plan = planned("lemica", 2, {**PUBLISHED, "speedup": 2.0})
    assert [applicable(one) for one in (preset, unknown, plan)] == [False, False, True]
    assert choose(unknown, preset, plan).model_key == "toy/lemica"
    with pytest.raises(InvalidCalibration, match="presets of x"):
        choose(preset, found("toy/pab", "preset", [{"preset": {"engine": "y", "method": "PAB"}}]))


def test_what_nothing_reaches_names_every_offer() -> None:
    with pytest.raises(UnreachableTarget) as error:
        choose(own(), planned("lemica", 2, {**PUBLISHED, "speedup": 1.9}), speedup=9.0)
    assert "toy: a speed-up of 9 is not calibrated: the record offers 2" in str(error.value)
    assert "toy/lemica: a speed-up of 9 is not calibrated: the record offers 1.9" in str(error.value)


def test_the_signals_of_all_candidates_may_be_needed() -> None:
    assert ModelResolver((own(), planned("lemica", 2))).signals == ("modulated_input", "none")


# The bundled registry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "speedup", "run", "chosen", "evidence"),
    [
        ("wan2.1/t2v-14b", 2.0, {"num_steps": 50, "shift": 5.0}, "wan2.1/t2v-14b/lemica", "published"),
        ("Wan-AI/Wan2.1-T2V-14B-Diffusers", 2.0, {"num_steps": 50}, "wan2.1/t2v-14b/lemica", "published"),
        ("qwen-image/2.1", 1.9, {"num_steps": 40}, "qwen-image/2.1/dpcache", "reported"),
        ("qwen-image/2512", 2.0, {"num_steps": 50}, "qwen-image/2512/meancache", "reported"),
        ("flux.1/dev", 2.0, {"num_steps": 28}, "flux.1/dev/magcache", "published"),
        ("wan2.2/t2v-a14b", 1.5, {"num_steps": 20}, "wan2.2/t2v-a14b/cachedit", "published"),
    ],
)
def test_a_model_s_key_gets_the_best_that_anyone_has_published(
    key: str, speedup: float, run: dict[str, Any], chosen: str, evidence: str
) -> None:
    policy = TeaCache.from_registry(key, speedup=speedup, **run).policy
    assert (policy.model_key, policy.evidence) == (chosen, evidence)
    assert "Of the records of this model" in policy.notes[-1]


def test_a_method_s_own_key_means_that_record_alone() -> None:
    policy = TeaCache.from_registry("flux.1/dev/magcache", speedup=2.0, num_steps=28).policy
    assert policy.schedule == (0, 1, 2, 5, 9, 11, 17, 23, 26)
    assert policy.signal == "none"
    with pytest.raises(UnreachableTarget):
        TeaCache.from_registry("wan2.1/t2v-14b/lemica", speedup=5.0)


def test_a_preset_s_own_key_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidCalibration, match=r"presets of .*SeaCache"):
        TeaCache.from_registry("flux.1/dev/seacache", speedup=2.0)


def test_a_record_of_an_unknown_signal_alone_is_refused_as_before() -> None:
    with pytest.raises(SignalMismatch):
        TeaCache.from_registry("boogu-image", threshold=0.1)
