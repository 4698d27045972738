"""What a driver that stands around the whole model is given: plans, on the output; nothing that a signal inside decides."""

from __future__ import annotations

from typing import Any

import pytest

from easyteacache.errors import UnreachableTarget
from easyteacache.policy.policy import resolve
from easyteacache.policy.record_free import EVEN, UNIVERSAL
from easyteacache.policy.request import OUTPUTS, Capabilities, Request, RunContext
from easyteacache.records.calibration import Calibration
from easyteacache.records.sampler import SamplerRecord
from easyteacache.registry.registry import Registry

STEPS = 50
RUN = RunContext(
    num_steps=STEPS, can=OUTPUTS, begun=True, sampler=SamplerRecord.euler([1 - k / STEPS for k in range(51)])
)
PROFILE = {"sigmas": [1.0, 0.5, 0.0], "distances": [0.0, 0.4, 1.0]}
PLAN = {"schedule": list(range(0, STEPS, 2)), "speedup": 2.0, "forecaster": "linear", "evidence": "replayed"}


def with_plan(make_record: Any, bucket: Any, **changes: Any) -> Calibration:
    record: Calibration = make_record(bucket(operating_points=[{**PLAN, **changes}]))
    return record


def test_a_plan_of_the_block_stack_is_done_to_the_output_and_a_user_is_told(make_record: Any, bucket: Any) -> None:
    policy = resolve(with_plan(make_record, bucket), Request(speedup=2.0), RUN)
    assert policy.schedule == tuple(range(0, STEPS, 2))
    assert (policy.forecaster, policy.applied_to) == ("linear", "output")
    assert policy.evidence == "carried"
    assert policy.expected_error is None
    assert any("residual inside the model" in text for text in policy.warnings)


def test_a_plan_of_the_output_keeps_its_evidence(make_record: Any, bucket: Any) -> None:
    record = with_plan(make_record, bucket, applied_to="output")
    policy = resolve(record, Request(speedup=2.0), RUN)
    assert policy.applied_to == "output"
    assert policy.carried is None
    assert policy.evidence == resolve(record, Request(speedup=2.0), RunContext(num_steps=STEPS)).evidence
    assert policy.warnings == ()


def test_a_driver_that_sees_the_blocks_is_given_the_plan_as_it_is(make_record: Any, bucket: Any) -> None:
    run = RunContext(num_steps=STEPS, can=Capabilities(sees=("residual", "feature", "output"), corrects=False))
    policy = resolve(with_plan(make_record, bucket), Request(speedup=2.0), run)
    assert policy.applied_to == "residual"
    assert policy.carried is None


def test_thresholds_of_a_signal_are_left_out_for_a_plan(make_record: Any, bucket: Any) -> None:
    points = [{"threshold": 0.1, "speedup": 2.0, "evidence": "replayed"}, PLAN]
    policy = resolve(make_record(bucket(operating_points=points)), Request(speedup=2.0), RUN)
    assert policy.schedule is not None
    assert any("decided by the signal timestep_projection" in note for note in policy.notes)


def test_a_record_of_thresholds_alone_says_which_signal_is_not_seen(make_record: Any) -> None:
    with pytest.raises(UnreachableTarget, match="signal timestep_projection, which lies inside the model"):
        resolve(make_record(), Request(speedup=1.5), RUN)


def test_a_threshold_of_the_callers_own_computes_every_step_and_says_why(make_record: Any) -> None:
    policy = resolve(make_record(), Request(threshold=0.2), RUN)
    assert policy.decided_by == "nothing"
    assert policy.refusal is not None
    assert "signal timestep_projection" in policy.refusal
    assert policy.warnings == (policy.refusal,)


def test_a_sigma_profile_decides_without_a_signal(make_record: Any, bucket: Any) -> None:
    policy = resolve(make_record(bucket(sigma_profile=PROFILE)), Request(threshold=0.2), RUN)
    assert policy.refusal is None
    assert policy.decided_by == "sigma"
    assert policy.applied_to == "output"


def test_magcache_of_the_registry_runs_on_the_output() -> None:
    policy = resolve(
        Registry.default().find("wan2.1/t2v-14b/magcache"),
        Request(),
        RunContext(num_steps=50, shift=5.0, can=OUTPUTS),
    )
    assert policy.decided_by == "schedule"
    assert policy.applied_to == "output"


@pytest.mark.parametrize("source", [EVEN, UNIVERSAL], ids=["even", "universal"])
def test_plans_without_a_record_extend_the_output(source: Any) -> None:
    run = RunContext(num_steps=STEPS, sequence_length=1024, can=OUTPUTS, sampler=RUN.sampler)
    policy = source.policy(Request(speedup=2.0), run)
    assert policy.schedule is not None
    assert policy.applied_to == "output"
    assert (
        source.policy(Request(speedup=2.0), RunContext(num_steps=STEPS, sequence_length=1024, shift=1.0)).applied_to
        == "residual"
    )
