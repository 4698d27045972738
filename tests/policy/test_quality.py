"""A quality by name: an error that further runs stay within, or a refusal."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from easyteacache import TeaCache
from easyteacache.errors import UnreachableTarget
from easyteacache.policy.carry import shifted_levels
from easyteacache.policy.policy import EXACT, resolve
from easyteacache.policy.quality import ALSO_CALLED, LEVELS, NAMES
from easyteacache.policy.record_free import EVEN
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.evidence import RELATIVE_L2, Evidence
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.operating_point import OperatingPoint
from easyteacache.records.sampler import SamplerRecord
from easyteacache.registry.registry import Registry

RUN = RunContext(sequence_length=1024, num_steps=50)


def point(threshold, speedup, p90=None):
    """A point whose mean error says nothing of its 90 % quantile."""
    upper = {} if p90 is None else {"p90": p90, "worst": 2 * p90}
    found = Evidence(
        kind="submitted", how="replayed", metric=RELATIVE_L2, value=0.001, runs=40, speedup=speedup, **upper
    )
    return OperatingPoint(threshold=threshold, evidence=(found,))


def record_with(make_record, bucket, *errors):
    """A record with one point a pair (speed-up, 90 % quantile)."""
    record = make_record(bucket())
    found = tuple(point(0.01 * number, *pair) for number, pair in enumerate(errors, 1))
    (only,) = record.buckets
    return record.model_copy(update={"buckets": (only.model_copy(update={"operating_points": found}),)})


def test_levels_go_from_the_best_to_the_fastest():
    assert NAMES == ("exact", "high", "balanced", "fast")
    allowed = [one.most for one in LEVELS]
    assert allowed == sorted(allowed)
    assert allowed[0] == 0


def test_the_page_shows_every_level_with_its_limit_and_reason():
    page = (Path(__file__).parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")
    for one in LEVELS:
        assert f"| `{one.name}` | {one.most:g} | {one.why} |" in page


@pytest.mark.parametrize(("said", "meant"), [*ALSO_CALLED.items(), *zip(NAMES, NAMES, strict=True)])
def test_what_engines_call_a_level_means_it(said, meant):
    assert Request(quality=said).quality == meant


@pytest.mark.parametrize("wrong", ["best", "", 1, "HIGH"])
def test_a_level_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="expected one of exact, high, balanced, fast"):
        Request(quality=wrong)


@pytest.mark.parametrize("other", [{"speedup": 2.0}, {"max_error": 0.1}, {"threshold": 0.1}])
def test_quality_excludes_other_ways_of_choosing(other):
    with pytest.raises(ValueError, match="quality exclude each other"):
        Request(quality="high", **other)


@pytest.mark.parametrize(("name", "speedup"), [("high", 1.5), ("balanced", 2.0), ("fast", 3.0)])
def test_the_fastest_point_whose_upper_quantile_is_within_the_level_is_taken(make_record, bucket, name, speedup):
    record = record_with(make_record, bucket, (1.5, 0.019), (2.0, 0.049), (3.0, 0.11), (4.0, 0.3))
    policy = resolve(record, Request(quality=name), RUN)
    assert policy.expected_speedup == speedup
    assert policy.expected_error == 0.001
    assert any("stays within an error" in note for note in policy.notes)


def test_a_level_that_nothing_reaches_is_refused_with_the_least_error(make_record, bucket):
    record = record_with(make_record, bucket, (2.0, 0.3))
    with pytest.raises(UnreachableTarget, match=r"quality='high' means: the least is 0.3"):
        resolve(record, Request(quality="high"), RUN)


def test_a_mean_alone_is_no_evidence_for_a_level(make_record, bucket):
    record = record_with(make_record, bucket, (2.0,))
    assert resolve(record, Request(max_error=0.02), RUN).threshold == 0.01
    with pytest.raises(UnreachableTarget, match="states no errors of runs held out; pass threshold="):
        resolve(record, Request(quality="fast"), RUN)


def test_published_numbers_promise_no_quality():
    with pytest.raises(UnreachableTarget, match="no errors of runs held out"):
        TeaCache.from_registry("wan2.1/t2v-14b/retention", quality="high")


def test_exact_reuses_nothing_and_warns_of_nothing(make_record, bucket):
    policy = resolve(record_with(make_record, bucket, (2.0, 0.3)), Request(quality="lossless"), RUN)
    assert policy.decided_by == "nothing"
    assert policy.warnings == ()
    assert EXACT in policy.notes


NOISY = SamplerRecord(name="LCM (stochastic)", calls=50, prediction="velocity", levels=shifted_levels(50, 3.0))


@pytest.mark.parametrize("wish", [{"quality": "exact"}, {"threshold": 0.0}])
@pytest.mark.parametrize(
    ("key", "run"),
    [
        # Another sampler than the record's, one that draws noise, and another number type.
        ("reference/moving-digits", RunContext(sequence_length=64, num_steps=12, shift=3.0, begun=True)),
        ("reference/moving-digits", RunContext(sequence_length=64, num_steps=50, sampler=NOISY, begun=True)),
        ("wan2.1/t2v-14b/lemica", RunContext(num_steps=50, model=ModelIdentity(dtype="float32"), begun=True)),
    ],
)
def test_where_nothing_is_to_be_reused_no_difference_of_the_run_is_warned_of(wish, key, run):
    found = Registry.opened(None).find(key)
    assert resolve(found, Request(speedup=2.0), run).warnings
    policy = resolve(found, Request(**wish), run)
    assert policy.decided_by == "nothing"
    assert (policy.warnings, policy.refusal, policy.carried) == ((), None, None)


def test_plans_without_a_record_know_exact_and_no_other_level():
    run = dataclasses.replace(RUN, num_steps=10)
    assert EVEN.policy(Request(quality="exact"), run).schedule is None
    with pytest.raises(UnreachableTarget):
        EVEN.policy(Request(quality="fast"), run)


def test_no_level_is_carried_to_another_step_count(make_record, bucket):
    record = record_with(make_record, bucket, (1.5, 0.019))
    policy = resolve(record, Request(quality="high"), dataclasses.replace(RUN, num_steps=30))
    assert policy.decided_by == "nothing"
    assert "0.02" in policy.refusal


def test_quality_can_change_from_run_to_run():
    cache = TeaCache.from_registry(
        "reference/moving-digits", quality="high", num_steps=25, sequence_length=256, shift=3.0
    )
    slow = cache.policy.expected_speedup
    cache.wish(quality="fast")
    assert cache.policy.expected_speedup > slow
    cache.wish(quality="exact")
    assert cache.policy.decided_by == "nothing"
    cache.wish(speedup=2.0)
    assert cache.policy.expected_speedup == pytest.approx(2.0, rel=0.1)
    with pytest.raises(UnreachableTarget):
        cache.wish(speedup=40.0)
    assert cache.policy.expected_speedup == pytest.approx(2.0, rel=0.1)
    for wrong in ({}, {"quality": "high", "speedup": 2.0}):
        with pytest.raises(ValueError, match="one of"):
            cache.wish(**wrong)
