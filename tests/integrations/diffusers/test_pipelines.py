"""Whole pipelines end to end, with and without the cache."""

from __future__ import annotations

import pytest
import torch
from tiny_pipelines import PIPELINES, sample

from easyteacache.policy.curves import SigmaProfile

pytestmark = pytest.mark.floors

STEPS = 6


@pytest.fixture(scope="module")
def pipelines():
    built = {}
    return lambda name: built.setdefault(name, PIPELINES[name]())


@pytest.mark.parametrize("name", PIPELINES)
def test_threshold_zero_and_detach_change_no_bit(name, pipelines, make_cache):
    pipe = pipelines(name)
    plain = sample(pipe, name, steps=STEPS)
    assert torch.isfinite(plain).all()
    with make_cache(threshold=0.0).attached(pipe):
        assert torch.equal(sample(pipe, name, steps=STEPS), plain)
    assert torch.equal(sample(pipe, name, steps=STEPS), plain)


@pytest.mark.parametrize("name", PIPELINES)
def test_reused_steps_stay_near_the_plain_sample_and_repeat(name, pipelines, make_cache):
    pipe = pipelines(name)
    plain = sample(pipe, name, steps=STEPS)
    with make_cache(schedule=(0, 1, 3, 5)).attached(pipe) as cache:
        cached = sample(pipe, name, steps=STEPS)
        assert torch.equal(sample(pipe, name, steps=STEPS), cached)
        assert {run.pattern for run in cache.statistics().values()} == {"██·█·█"}
    assert not torch.equal(cached, plain)
    assert (cached - plain).norm() < 0.2 * plain.norm()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_sigma_profile_needs_no_signal(name, pipelines, make_cache):
    pipe = pipelines(name)
    sample(pipe, name, steps=STEPS)
    if max(float(sigma) for sigma in getattr(pipe.scheduler, "sigmas", [2.0])) > 1.0:
        pytest.skip("this pipeline's scheduler counts noise beyond 1")
    profile = SigmaProfile((1.0, 0.0), (0.0, 1.0))
    with make_cache(signal="modulated_input", profile=profile, threshold=0.35).attached(pipe) as cache:
        sample(pipe, name, steps=STEPS)
        [patterns] = {run.pattern for run in cache.statistics().values()}
        distances = {record.distance for run in cache.statistics().values() for record in run.steps}
    assert "·" in patterns
    assert patterns.count("█") > 1
    assert distances == {None}
