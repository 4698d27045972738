"""One session, several drivers: what is asked and told decides, not who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyteacache.errors import EasyTeaCacheWarning, StepOrderError
from easyteacache.policy.curves import Polynomial, SigmaProfile
from easyteacache.policy.policy import BucketShare, Policy
from easyteacache.policy.request import Capabilities, Request, RunContext
from easyteacache.policy.source import FixedPolicy
from easyteacache.records.sampler import SamplerRecord
from easyteacache.runtime.driver import CallDriver
from easyteacache.runtime.sampler_steps import SamplerSteps
from easyteacache.runtime.session import Session
from easyteacache.teacache import TeaCache

STEPS = 8
LEVELS = tuple(1.0 - step / STEPS for step in range(STEPS + 1))
SHAPE = (2, 3)


def driver_of(policy: Policy, *, corrects: bool = True) -> CallDriver:
    driver = CallDriver(Session(FixedPolicy(policy), Request(), RunContext(num_steps=STEPS)))
    driver.begin(context(corrects=corrects), sampler=SamplerSteps.euler(LEVELS) if corrects else None)
    return driver


def context(*, corrects: bool = True, steps: int = STEPS) -> RunContext:
    return RunContext(
        num_steps=steps, sampler=SamplerRecord.euler(LEVELS), can=Capabilities(corrects=corrects), begun=True
    )


def truth(step: int, branch: str = "cond") -> torch.Tensor:
    generator = torch.Generator().manual_seed(step + (0 if branch == "cond" else 1000))
    return torch.randn(SHAPE, generator=generator)


def drive(driver: CallDriver, *, branch: str = "cond", signals: list[float] | None = None) -> list[Any]:
    """(reused, what the sampler got) of every step."""
    seen = []
    for step in range(STEPS):
        signal = None if signals is None else torch.full((1, 4), signals[step])
        if driver.before(branch, step, signal=signal).reuse:
            seen.append((True, driver.give(branch)))
        else:
            seen.append((False, driver.observe(branch, truth(step, branch))))
    return seen


def by_verbs(policy: Policy, signals: list[float]) -> list[Any]:
    cache, zero, seen = TeaCache.from_policy(policy), torch.zeros(SHAPE), []
    cache.begin_run(num_steps=STEPS)
    for step, value in enumerate(signals):
        signal = torch.full((1, 4), value)
        if cache.check(step, signal, sigma=LEVELS[step]):
            seen.append((True, cache.update(signal, zero)))
        else:
            cache.store_truth(step, signal, zero, truth(step))
            seen.append((False, truth(step)))
    return seen


@given(
    signals=st.lists(st.floats(0.5, 2.0), min_size=STEPS, max_size=STEPS),
    threshold=st.floats(0.0, 1.0),
    schedule=st.none() | st.sets(st.integers(1, STEPS - 1)).map(lambda found: (0, *sorted(found))),
    predictor=st.sampled_from(["hold", "linear", "taylor-2", "mean", "foca"]),
    limit=st.none() | st.integers(0, 3),
    by_sigma=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_verbs_and_a_caller_of_whole_outputs_decide_and_fill_alike(
    signals: list[float],
    threshold: float,
    schedule: tuple[int, ...] | None,
    predictor: str,
    limit: int | None,
    by_sigma: bool,
) -> None:
    policy = Policy(
        model_key="toy",
        revision=1,
        status="draft",
        layer="given",
        signal="timestep_projection",
        curve=Polynomial((1.0, 0.0)),
        threshold=threshold,
        first_skip_step=1,
        last_skip_step=None,
        max_consecutive_skips=limit,
        buckets=(BucketShare(None, None, None, 1.0),),
        schedule=schedule,
        forecaster=predictor,
        profile=SigmaProfile((1.0, 0.5, 0.0), (0.0, 0.4, 1.0)) if by_sigma else None,
    )
    verbs = by_verbs(policy, signals)
    whole = drive(driver_of(policy), signals=signals)
    assert [reused for reused, _ in whole] == [reused for reused, _ in verbs]
    for (_, one), (_, other) in zip(whole, verbs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_computed_output_is_handed_on_as_it_is(make_policy: Callable[..., Policy]) -> None:
    driver, output = driver_of(make_policy(schedule=(0, 1, 4))), truth(0)
    assert not driver.before("cond", 0).reuse
    assert driver.observe("cond", output) is output


def test_what_is_given_is_the_callers_to_change(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0,)))
    output = truth(0)
    driver.before("cond", 0)
    driver.observe("cond", output).zero_()
    for step in (1, 2):
        assert driver.before("cond", step).reuse
        given_here = driver.give("cond")
        assert torch.equal(given_here, truth(0))
        given_here.zero_()


def test_branches_never_see_each_others_outputs(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0, 4)))
    for step in range(STEPS):
        for branch in ("cond", "uncond"):
            if driver.before(branch, step).reuse:
                assert torch.equal(driver.give(branch), truth(0 if step < 4 else 4, branch))
            else:
                driver.observe(branch, truth(step, branch))


def test_a_caller_may_compute_what_he_is_allowed_to_reuse(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0,)))
    for step in range(3):
        driver.before("cond", step)
        driver.observe("cond", truth(step))
    assert [record.reason for record in driver.session.statistics()["cond"].steps] == ["start", "declined", "declined"]
    assert driver.before("cond", 3).reuse
    assert torch.equal(driver.give("cond"), truth(2))


def test_nothing_is_given_that_was_not_allowed(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0, 1)))
    with pytest.raises(StepOrderError, match="no before"):
        driver.give("cond")
    driver.before("cond", 0)
    with pytest.raises(StepOrderError, match="no before"):
        driver.give("cond")


def test_an_interrupted_run_leaves_nothing(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0, 1), forecaster="linear"))
    for step in range(2):
        driver.before("cond", step)
        driver.observe("cond", truth(step))
    driver.before("cond", 2)
    assert driver.session.nbytes > 0
    driver.end()
    assert driver.session.nbytes == 0
    assert driver.session.statistics()["cond"].pattern == "██"
    with pytest.raises(StepOrderError):
        driver.give("cond")
    driver.begin(context())
    assert driver.session.statistics() == {}
    assert not driver.before("cond", 2).reuse


def test_a_second_run_starts_afresh(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0, 1, 4), forecaster="linear"))
    first = drive(driver)
    driver.begin(context())
    second = drive(driver)
    assert [reused for reused, _ in first] == [reused for reused, _ in second] == [s not in (0, 1, 4) for s in range(8)]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(first, second, strict=True))


def test_a_run_that_cannot_be_begun_leaves_nothing_of_the_one_before(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0, 1)))
    driver.before("cond", 0)
    driver.observe("cond", truth(0))

    def refuse(run: RunContext) -> None:
        raise ValueError("no")

    driver.session.begin = refuse  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no"):
        driver.begin(context())
    assert driver.session.nbytes == 0


def test_a_call_of_another_shape_is_computed(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0,)))
    driver.before("cond", 0, shape=(2, 3))
    driver.observe("cond", truth(0))
    assert not driver.before("cond", 1, shape=(4, 3)).reuse


def test_a_branch_that_other_weights_act_on_is_computed(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0,)))
    for branch in ("cond", "uncond"):
        driver.before(branch, 0)
        driver.observe(branch, truth(0))
    driver.forget("cond")
    assert not driver.before("cond", 1).reuse
    assert driver.before("uncond", 1).reuse


def test_a_step_left_out_is_followed_by_a_computed_one(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0,)))
    driver.before("cond", 0)
    driver.observe("cond", truth(0))
    assert not driver.before("cond", 2).reuse


def test_a_disabled_session_computes_and_remembers_nothing(make_policy: Callable[..., Policy]) -> None:
    driver = driver_of(make_policy(schedule=(0,)))
    driver.session.enabled = False
    for step in range(3):
        assert not driver.before("cond", step).reuse
        output = truth(step)
        assert driver.observe("cond", output) is output
    assert driver.session.nbytes == 0


def test_the_noise_levels_of_the_run_drive_a_profile(make_policy: Callable[..., Policy]) -> None:
    profile = SigmaProfile((1.0, 0.0), (0.0, 1.0))
    driver = driver_of(make_policy(profile=profile, threshold=0.3, forecaster="hold"))
    # Each step is 1/8 on: two fit below 0.3.
    assert [reused for reused, _ in drive(driver)] == [False, True, True, False, True, True, False, True]


def test_corrections_are_handed_on_where_the_policy_corrects(make_policy: Callable[..., Policy]) -> None:
    rows = ((1.0,), (1.0,), (0.5, 0.5), *((0.0, 1.0),) * 5)
    policy = make_policy(
        schedule=(0, 2, 3, 4, 5, 6, 7),
        weights=rows,
        forecaster="fitted",
        applied_to="output",
        num_steps=STEPS,
        noise_levels=LEVELS,
    )
    corrected = [got for _, got in drive(driver_of(policy))]
    with pytest.warns(EasyTeaCacheWarning, match="not known to be a run of Euler's sampler: every step is computed"):
        plain = [got for _, got in drive(driver_of(policy, corrects=False))]
    assert torch.equal(plain[2], truth(2))
    assert not torch.equal(corrected[2], truth(2))
    # Over the gap the sample moves as the rows say: Δσ (1·v0) at the reused step, then half of each.
    wanted = 0.5 * truth(0) + 0.5 * truth(2)
    moved = corrected[1] + corrected[2]
    torch.testing.assert_close(moved, truth(0) + wanted)
