"""Every contender does what it is said to do on both classes, and leaves the pipeline as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import TaylorSeerCacheConfig

from easyteacache.bench import roster
from easyteacache.bench.cache_dit_caches import DBCache
from easyteacache.bench.contender import Bed, Contender
from easyteacache.bench.curves import OURS
from easyteacache.bench.dicache import DiCache
from easyteacache.bench.diffusers_caches import FirstBlockCache, MagCache, TaylorSeer, quiet
from easyteacache.bench.easycache import EasyCache
from easyteacache.bench.planned import L2P, DPCache, Planned, Spectrum, counts
from easyteacache.bench.samplers import FewerSteps
from easyteacache.bench.scheduled import EasyTeaCache, OfficialTeaCache, PublishedPlan, RecordFree, Uniform
from easyteacache.bench.subject import Case, load_reference
from easyteacache.bench.trial import Uncached, calibrated_on, sample
from easyteacache.errors import EasyTeaCacheError
from easyteacache.records.trace import FEATURE_PREFIX
from easyteacache.records.trace_set import TraceSet
from easyteacache.teacache import TeaCache

Beds = dict[str, tuple[Bed, Uncached]]
BOTH = ("wan", "flux")
# What was published for 50 steps alone cannot take part in a run of 8.
PEERS = [
    contender.name
    for contender in roster.everybody()
    if contender.kind not in OURS and not isinstance(contender, PublishedPlan)
]
BLOCKS = 6  # of the packaged model
REFERENCE_TRACES = Path(__file__).resolve().parents[1] / "fixtures" / "traces" / "reference"


def attempts(contender: Contender, bed: Bed) -> Iterator[dict[str, Any]]:
    for variant in contender.variants(bed):
        yield {**variant, **({} if contender.knob is None else {contender.knob.name: contender.knob.high})}


@pytest.mark.parametrize("architecture", BOTH)
@pytest.mark.parametrize("name", PEERS)
def test_it_skips_work_and_gives_the_pipeline_back_bit_for_bit(name: str, architecture: str, beds: Beds) -> None:
    bed, uncached = beds[architecture]
    (contender,) = roster.chosen([name])
    assert contender.inapplicable(bed) is None
    pair = bed.calibration_pairs[1]
    full = uncached.sampled(pair)
    calibrated = calibrated_on(bed, uncached.meter, contender)
    share = 1.0
    for settings in attempts(contender, bed):
        found = sample(bed, uncached.meter, contender, settings, calibrated, pair)
        assert np.isfinite(found.frames).all()
        share = min(share, found.work.of(contender.unit) / full.work.of(contender.unit))
        if share < 0.95:
            break
    assert share < 0.95
    assert np.array_equal(uncached.again(pair).frames, full.frames)
    registries = [one._diffusers_hook for one in bed.transformer.modules() if hasattr(one, "_diffusers_hook")]
    assert not any(registry.hooks for registry in registries)
    assert not any("forward" in vars(one) for one in bed.transformer.modules())


@pytest.mark.parametrize("architecture", BOTH)
@pytest.mark.parametrize("contender", [FirstBlockCache(), DBCache(), EasyCache(), DiCache()], ids=repr)
def test_at_the_most_cautious_threshold_the_sample_is_the_uncached_one(
    contender: Contender, architecture: str, beds: Beds
) -> None:
    bed, uncached = beds[architecture]
    pair = bed.calibration_pairs[0]
    assert contender.knob is not None
    settings = {**contender.variants(bed)[-1], contender.knob.name: 1e-12}
    found = sample(bed, uncached.meter, contender, settings, {}, pair)
    assert found.work.blocks == uncached.sampled(pair).work.blocks
    np.testing.assert_allclose(found.frames, uncached.sampled(pair).frames, atol=2e-5)


def test_the_first_block_is_counted_at_reused_steps(beds: Beds) -> None:
    bed, uncached = beds["wan"]
    found = sample(bed, uncached.meter, FirstBlockCache(), {"threshold": 1e9}, {}, bed.calibration_pairs[0])
    reused = bed.case.steps - 1
    assert found.work.blocks == 2 * (BLOCKS + reused)
    assert uncached.sampled(bed.calibration_pairs[0]).work.blocks == 2 * BLOCKS * bed.case.steps


def test_work_is_counted_in_samples_so_that_a_joined_batch_costs_as_much(beds: Beds) -> None:
    bed, uncached = beds["wan"]

    class Joined(FewerSteps):
        def applied(self, bed: Bed, settings: Any, calibrated: Any) -> contextlib.AbstractContextManager[Any]:
            return bed.subject.joined()

    found = sample(bed, uncached.meter, Joined(), {"steps": bed.case.steps}, {}, bed.calibration_pairs[0])
    full = uncached.sampled(bed.calibration_pairs[0])
    assert (found.work.blocks, found.work.parts) == (full.work.blocks, full.work.parts)
    np.testing.assert_allclose(found.frames, full.frames, atol=1e-4)


def test_parts_weigh_blocks_by_what_runs_inside_them(beds: Beds) -> None:
    bed, uncached = beds["wan"]
    work = uncached.sampled(bed.calibration_pairs[0]).work
    weights = sum(
        layer.weight.numel()
        for block in bed.transformer.blocks
        for layer in block.modules()
        if type(layer).__name__ == "Linear"
    )
    assert work.parts == 2 * bed.case.steps * weights


def test_uniform_hold_is_fewer_computed_steps_of_the_asked_number(beds: Beds) -> None:
    bed, uncached = beds["wan"]
    found = sample(bed, uncached.meter, Uniform("hold"), {"computed": 3}, {}, bed.calibration_pairs[0])
    assert found.work.blocks == 2 * BLOCKS * 3


def test_fewer_steps_is_the_same_pipeline_with_fewer_steps(beds: Beds) -> None:
    bed, uncached = beds["wan"]
    pair = bed.calibration_pairs[0]
    found = sample(bed, uncached.meter, FewerSteps(), {"steps": 4}, {}, pair)
    assert np.array_equal(found.frames, bed.subject.sample(bed.case, pair, steps=4))


@pytest.mark.parametrize(("frames", "runs"), [(1, 20), (4, 60)])
def test_the_official_fit_takes_given_runs_of_its_own_kind(beds: Beds, frames: int, runs: int) -> None:
    bed, _ = beds["wan"]
    asked = dataclasses.replace(bed, case=Case(frames, 16, 16, 25), traces=REFERENCE_TRACES)
    assert OfficialTeaCache().calibrate(asked)["runs"] == runs


def test_magcache_is_calibrated_by_its_own_tool_for_each_branch(beds: Beds) -> None:
    bed, uncached = beds["wan"]
    calibrated = calibrated_on(bed, uncached.meter, MagCache())
    cond, uncond = calibrated["printed"]
    assert len(cond) == len(uncond) == bed.case.steps
    assert calibrated["mag_ratios"] == pytest.approx([(a + b) / 2 for a, b in zip(cond, uncond, strict=True)])


def test_taylorseers_count_of_full_steps_is_diffusers_own(beds: Beds) -> None:
    from easyteacache.bench.diffusers_caches import _computed

    bed, uncached = beds["wan"]
    for settings in TaylorSeer().variants(bed):
        found = sample(bed, uncached.meter, TaylorSeer(), settings, {}, bed.calibration_pairs[0])
        interval, before, after = (settings[name] for name in ("cache_interval", *_BOUNDS))
        assert found.work.blocks == 2 * BLOCKS * _computed(bed.case.steps, interval, before, after)


_BOUNDS = ("disable_cache_before_step", "disable_cache_after_step")


def test_taylorseers_default_patterns_would_skip_nothing_here(beds: Beds) -> None:
    # If this fails, diffusers repaired its patterns and the note in the tables is out of date.
    bed, uncached = beds["wan"]

    class Default(TaylorSeer):
        def config(self, bed: Bed, settings: Any, calibrated: Any) -> Any:
            return TaylorSeerCacheConfig(cache_interval=4)

    found = sample(bed, uncached.meter, Default(), {}, {}, bed.calibration_pairs[0])
    full = uncached.sampled(bed.calibration_pairs[0])
    assert (found.work.blocks, found.work.parts) == (full.work.blocks, full.work.parts)


def test_easyteacache_is_what_its_users_get(beds: Beds) -> None:
    import dataclasses

    bed = dataclasses.replace(beds["wan"][0], case=dataclasses.replace(beds["wan"][0].case, steps=25))
    pair = bed.calibration_pairs[0]
    uncached = Uncached(bed.subject, bed.case)
    found = sample(bed, uncached.meter, EasyTeaCache(), {"speedup": 2.0}, EasyTeaCache().calibrate(bed), pair)
    cache = TeaCache.from_registry(
        "reference/moving-digits", speedup=2, num_steps=25, sequence_length=bed.subject.tokens(bed.case)
    )
    with uncached.meter.counting(), cache.attached(bed.subject.pipe):
        expected = bed.subject.sample(bed.case, pair, steps=25)
    assert np.array_equal(found.frames, expected)
    assert found.work.blocks < 0.51 * uncached.sampled(pair).work.blocks


@pytest.mark.parametrize("name", [c.name for c in roster.everybody() if isinstance(c, Planned)])
def test_a_plan_computes_as_many_steps_as_its_target_allows(name: str, beds: Beds) -> None:
    bed, uncached = beds["wan"]
    (contender,) = roster.chosen([name])
    assert isinstance(contender, Planned)
    calibrated = calibrated_on(bed, uncached.meter, contender)
    found = set()
    for settings in contender.variants(bed):
        computed, _ = contender.plan(bed, settings, calibrated)
        found.add(len(computed))
        score = sample(bed, uncached.meter, contender, settings, calibrated, bed.calibration_pairs[0])
        assert score.work.blocks == 2 * BLOCKS * len(computed)
    assert max(counts(bed)) - 2 <= max(found) <= max(counts(bed))


def test_each_forecast_is_applied_to_what_its_method_forecasts(beds: Beds) -> None:
    bed, _ = beds["wan"]
    for contender, place in ((DPCache(), "feature"), (Spectrum(), "feature"), (L2P(), "output")):
        assert contender.applied_to == place
        settings = contender.variants(bed)[0]
        calibrated = contender.calibrate(bed)
        with contender.applied(bed, settings, calibrated) as cache:
            bed.subject.sample(bed.case, bed.calibration_pairs[0], steps=bed.case.steps)
            assert cache.policy.applied_to == place


def test_plans_without_a_record_are_what_their_users_get(beds: Beds) -> None:
    bed, _ = beds["wan"]
    for name, made in (("uncalibrated", TeaCache.uncalibrated), ("even", TeaCache.even)):
        pair = bed.calibration_pairs[0]
        with RecordFree(name).applied(bed, {"speedup": 2.0}, {}) as cache:
            found = bed.subject.sample(bed.case, pair, steps=bed.case.steps)
            schedule = cache.policy.schedule
        with made(2.0).attached(bed.subject.pipe):
            assert np.array_equal(found, bed.subject.sample(bed.case, pair, steps=bed.case.steps))
        assert len(schedule) == bed.case.steps // 2


def test_a_published_plan_is_applied_step_by_step_at_its_own_step_count_alone(beds: Beds) -> None:
    bed, _ = beds["flux"]
    plan = next(one for one in roster.everybody() if isinstance(one, PublishedPlan))
    assert plan.inapplicable(bed) == "nothing is published for 8 steps"
    longer = dataclasses.replace(bed, case=Case(1, 16, 16, 50))
    assert plan.inapplicable(longer) is None
    with warnings.catch_warnings():
        # That it was made for another model is what the contender is for.
        warnings.simplefilter("error")
        with plan.applied(longer, {"computed": 25}, {}) as cache:
            bed.subject.sample(longer.case, bed.calibration_pairs[0], steps=50)
    # UnicomAI/LeMiCa, LeMiCa4Wan2.1/inference_wan.py: its list of 25 steps.
    expected = (*range(12), 13, 15, 18, 21, 25, 29, 34, 38, 42, 45, 47, 48, 49)
    assert cache.statistics()["cond"].computed == len(expected)
    assert cache.policy.schedule == expected


def test_a_contender_that_breaks_in_the_middle_leaves_nothing_behind(beds: Beds) -> None:
    bed, uncached = beds["wan"]
    pair = bed.calibration_pairs[0]

    class Breaks(DBCache):
        @contextlib.contextmanager
        def applied(self, bed: Bed, settings: Any, calibrated: Any) -> Iterator[None]:
            with quiet():
                import cache_dit

                cache_dit.enable_cache(bed.transformer, cache_config=cache_dit.DBCacheConfig())
            raise RuntimeError("half-way")
            yield

    with pytest.raises(RuntimeError, match="half-way"):
        sample(bed, uncached.meter, Breaks(), {}, {}, pair)
    assert np.array_equal(uncached.again(pair).frames, uncached.sampled(pair).frames)


def test_the_official_fit_leaves_out_runs_of_another_shift(beds: Beds) -> None:
    shifted = load_reference(None)
    shifted.sampled_by(None, 0.35)
    bed = dataclasses.replace(
        beds["wan"][0], subject=shifted, case=Case(1, 16, 16, 25), traces=REFERENCE_TRACES, calibration_pairs=()
    )
    # The given runs are all of shift 3, and there is no pair to record others from.
    with pytest.raises(EasyTeaCacheError):
        OfficialTeaCache().calibrate(bed)
    recorded = dataclasses.replace(bed, calibration_pairs=shifted.pairs(2, first_seed=9))
    assert OfficialTeaCache().calibrate(recorded)["runs"] == 2


def test_a_planner_records_runs_where_the_given_ones_lack_what_it_reads(beds: Beds) -> None:
    bed = dataclasses.replace(
        beds["wan"][0],
        subject=load_reference(None),
        case=Case(1, 16, 16, 25),
        traces=REFERENCE_TRACES,
        calibration_pairs=(),
    )
    given = TraceSet.load(REFERENCE_TRACES).group(num_steps=25)
    assert len(given)
    assert not any(name.startswith(FEATURE_PREFIX) for run in given for name in run.grams)
    # There is no pair to record others from.
    with pytest.raises(EasyTeaCacheError):
        DPCache().calibrate(bed)
    recorded = dataclasses.replace(bed, calibration_pairs=bed.subject.pairs(2, first_seed=9))
    plans = DPCache().calibrate(recorded)["plans"]
    assert {len(plan) for plan in plans.values()} == set(counts(bed))
    # What the given ones hold is read from them.
    assert len(L2P().calibrate(bed)["matrix"]) == 25
