"""Records of computed steps, resolved for a run: plans as they are, carried over, and MagCache at any step count."""

from __future__ import annotations

from typing import Any

import pytest

from easyteacache.errors import UnreachableTarget
from easyteacache.policy.carry import carried, shifted_levels
from easyteacache.policy.methods.magcache import magcache_plan, rule_of
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import VERBS, Request, RunContext, request_and_run
from easyteacache.records.calibration import Calibration
from easyteacache.records.sampler import SamplerRecord

STEPS = 20
EVERY_SECOND = tuple(range(0, STEPS, 2))
EVERY_FOURTH = tuple(range(0, STEPS, 4))
PUBLISHED = {"kind": "published", "how": "reported"}


def record_of(*points: dict[str, Any], method: str = "plan", key: str = "toy/model/plan", **bucket: Any) -> Calibration:
    content = {"num_steps": STEPS, "operating_points": list(points), **bucket}
    return Calibration.from_mapping(
        {
            "schema_version": 3,
            "model_key": key,
            "revision": 1,
            "status": "published",
            "title": "Toy",
            "modality": "image",
            "method": method,
            "signal": "none",
            "buckets": [{name: value for name, value in content.items() if value is not None}],
            "provenance": {"sources": [{"repository": "a/b"}]},
        }
    )


def plan(computed: tuple[int, ...] = EVERY_SECOND, *evidence: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"plan": {"computed": list(computed), "predictor": "hold", **changes}, "evidence": list(evidence)}


def resolved(record: Calibration, run: RunContext | None = None, **request: Any) -> Policy:
    return resolve(record, Request(**request), run)


# A plan as it is ----------------------------------------------------------------------------------------------------


def test_a_plan_resolves_to_its_steps_its_predictor_and_its_target() -> None:
    record = record_of(plan(predictor="linear", applied_to="feature"))
    policy = resolved(record, RunContext(num_steps=STEPS), speedup=2.0)
    assert policy.schedule == EVERY_SECOND
    assert (policy.forecaster, policy.applied_to, policy.coordinate) == ("linear", "feature", "step")
    assert (policy.decided_by, policy.signal) == ("schedule", "none")
    assert (policy.first_skip_step, policy.last_skip_step) == (1, STEPS - 1)
    assert policy.evidence is None
    assert policy.expected_speedup == 2.0


def test_a_speed_up_that_no_source_states_is_that_of_the_computed_steps() -> None:
    record = record_of(plan(EVERY_SECOND), plan(EVERY_FOURTH, {**PUBLISHED, "speedup": 3.1}))
    assert resolved(record, speedup=1.9).schedule == EVERY_FOURTH
    assert resolved(record_of(plan(EVERY_SECOND), plan(EVERY_FOURTH)), speedup=1.9).schedule == EVERY_SECOND
    with pytest.raises(UnreachableTarget, match=r"the record offers 2, 3\.1"):
        resolved(record, speedup=4.0)


def test_stronger_evidence_and_then_the_better_figure_decide() -> None:
    def reported(metric: str, value: float) -> dict[str, Any]:
        return {"kind": "reported", "how": "reported", "metric": metric, "value": value, "speedup": 2.0}

    first, second, third = (tuple(sorted({0, 1, *range(start, STEPS, 2)})) for start in (2, 3, 4))
    record = record_of(
        plan(EVERY_SECOND, {**PUBLISHED, "speedup": 2.0}),
        plan(first, reported("lpips", 0.2), reported("psnr", 30.0)),
        plan(second, reported("lpips", 0.1), reported("psnr", 20.0)),
        plan(third, reported("psnr", 40.0)),
    )
    policy = resolved(record, speedup=2.0)
    assert policy.schedule == third
    assert policy.evidence == "reported"
    assert policy.standing.figures == (("psnr", 40.0),)
    without = record_of(*[point.model_dump(exclude_defaults=True) for point in record.buckets[0].operating_points[:3]])
    assert resolved(without, speedup=2.0).schedule == second


def test_rows_that_fill_and_do_not_correct_need_no_euler_sampler() -> None:
    rows = [[1.0] if step % 2 == 0 else ([0.9] if step == 1 else [-0.5, 1.4]) for step in range(STEPS)]
    record = record_of(plan(predictor=None, rows=rows, applied_to="feature"))
    policy = resolved(record, RunContext(num_steps=STEPS))
    assert policy.weights is not None
    assert not policy.corrected
    assert policy.forecaster == "fitted"


def test_rows_over_certain_noise_levels_are_left_out_in_any_other_run() -> None:
    levels = shifted_levels(STEPS, 3.0)
    rows = [[1.0]] * STEPS
    record = record_of(plan(predictor=None, rows=rows, levels=list(levels), applied_to="output"))
    here = RunContext(num_steps=STEPS, sampler=SamplerRecord.euler(levels))
    assert resolved(record, here).schedule == EVERY_SECOND
    for other in (RunContext(num_steps=STEPS), RunContext(sampler=SamplerRecord.euler(shifted_levels(STEPS, 6.0)))):
        with pytest.raises(UnreachableTarget, match="hold over certain noise levels alone are left out"):
            resolved(record, other)


def test_a_driver_that_sees_the_block_stack_alone_is_told_when_there_is_no_plan_for_it() -> None:
    record = record_of(plan(applied_to="feature"), plan(EVERY_FOURTH))
    assert resolved(record, RunContext(can=VERBS)).schedule == EVERY_FOURTH


# Carried over --------------------------------------------------------------------------------------------------------


def test_at_another_step_count_and_shift_a_plan_is_carried_over_by_the_noise_level() -> None:
    record = record_of(plan(EVERY_SECOND, {**PUBLISHED, "speedup": 1.9}), shift=3.0)
    policy = resolved(record, RunContext(num_steps=30, shift=5.0), speedup=1.5)
    assert policy.schedule == carried(EVERY_SECOND, shifted_levels(STEPS, 3.0), shifted_levels(30, 5.0))
    assert policy.evidence == "carried"
    assert policy.doubtful
    assert policy.expected_speedup == 2.0
    assert policy.last_skip_step == 29
    assert policy.carried == (
        "It was made for 20 steps, not 30 steps and shift 3, not shift 5: 15 of 30 steps are computed, carried over by their noise "
        "levels."
    )
    assert policy.carried in policy.notes


def test_a_run_s_own_noise_levels_go_before_its_shift() -> None:
    record = record_of(plan(EVERY_FOURTH), sampler=SamplerRecord.euler(shifted_levels(STEPS, 3.0)).model_dump())
    levels = tuple(level**1.5 for level in shifted_levels(10, 2.0))
    policy = resolved(record, RunContext(num_steps=10, shift=2.0, sampler=SamplerRecord.euler(levels)))
    assert policy.schedule == carried(EVERY_FOURTH, shifted_levels(STEPS, 3.0), levels)


def test_where_nobody_knows_noise_levels_the_share_of_the_run_says_where_steps_lie() -> None:
    policy = resolved(record_of(plan(EVERY_FOURTH)), RunContext(num_steps=40))
    assert policy.schedule == carried(EVERY_FOURTH, shifted_levels(STEPS), shifted_levels(40))
    assert policy.carried is not None
    assert "by their share of the run, because its noise levels are not known" in policy.carried


def test_another_size_keeps_the_steps_and_says_so() -> None:
    record = record_of(plan(), sequence_length=4096)
    policy = resolved(record, RunContext(num_steps=STEPS, sequence_length=1024))
    assert policy.schedule == EVERY_SECOND
    assert policy.evidence == "carried"
    assert policy.carried is not None
    assert "4096 tokens, not 1024" in policy.carried
    for near in (4096, 4000):
        assert resolved(record, RunContext(num_steps=STEPS, sequence_length=near)).carried is None


def test_rows_are_never_carried_over() -> None:
    rows = [[1.0]] * STEPS
    policy = resolved(record_of(plan(predictor=None, rows=rows)), RunContext(num_steps=30))
    assert policy.refusal is not None
    assert policy.schedule is None
    assert policy.decided_by == "nothing"


# MagCache ------------------------------------------------------------------------------------------------------------

RATIOS = [1.0, *[0.99 - 0.002 * step for step in range(STEPS - 1)]]


def magcache(key: str = "toy/model/magcache", branches: int = 1, **bucket: Any) -> Calibration:
    names = ("cond", "uncond")[:branches]
    lists = [{"branch": name, "ratios": [ratio - 0.02 * place for ratio in RATIOS]} for place, name in enumerate(names)]
    settings = {"skip_window_fraction": [0.25, 1.0], "max_consecutive_skips": 3, **bucket}
    point = {"threshold": 0.1, "computed_steps": 9, "evidence": [{**PUBLISHED, "speedup": 2.1}]}
    return record_of(point, method="magcache", key=key, magnitude_ratios=lists, **settings)


@pytest.mark.parametrize("num_steps", [STEPS, 8, 33])
def test_ratios_decide_at_any_step_count(num_steps: int) -> None:
    record = magcache()
    policy = resolved(record, RunContext(num_steps=num_steps), speedup=2.0)
    (bucket,) = record.buckets
    assert policy.schedule == magcache_plan(bucket, num_steps, "cond", threshold=0.1)
    assert policy.decided_by == "schedule"
    assert policy.first_skip_step == 1
    assert policy.last_skip_step == num_steps - 1
    assert not policy.doubtful
    assert policy.evidence == ("published" if num_steps == STEPS else "carried")
    expected = 2.1 if num_steps == STEPS else num_steps / len(policy.schedule)
    assert policy.expected_speedup == pytest.approx(expected)


def test_each_branch_follows_its_own_ratios() -> None:
    record = magcache(branches=2)
    policy = resolved(record, RunContext(num_steps=STEPS))
    (bucket,) = record.buckets
    cond, uncond = (magcache_plan(bucket, STEPS, branch, threshold=0.1) for branch in ("cond", "uncond"))
    assert cond != uncond
    assert (policy.schedule_of("cond"), policy.schedule_of("uncond")) == (cond, uncond)
    assert policy.schedule == policy.schedule_of("default") == tuple(sorted({*cond, *uncond}))


def test_a_threshold_of_the_caller_s_own_and_a_limit_replace_the_record_s() -> None:
    record = magcache()
    (bucket,) = record.buckets
    policy = resolved(record, threshold=0.3, max_consecutive_skips=1)
    assert policy.schedule == magcache_plan(bucket, STEPS, "cond", threshold=0.3, limit=1)
    assert resolved(record, threshold=0.0).decided_by == "nothing"


def test_the_authors_rule_for_a_model_is_applied() -> None:
    record = magcache(key="flux.1/dev/magcache")
    (bucket,) = record.buckets
    for num_steps in (28, 50):
        policy = resolved(record, RunContext(num_steps=num_steps))
        rule = rule_of("flux.1/dev/magcache")
        assert policy.schedule == magcache_plan(bucket, num_steps, "cond", threshold=0.1, rule=rule)


def test_two_experts_need_the_noise_level_where_they_change() -> None:
    record = magcache(key="wan2.2/t2v-a14b/magcache", branches=2)
    unknown = resolved(record, RunContext(num_steps=STEPS))
    assert unknown.decided_by == "nothing"
    assert unknown.refusal is not None
    assert "pass shift=" in unknown.refusal
    known = resolved(record, RunContext(num_steps=STEPS, shift=12.0))
    boundary = next(step for step, level in enumerate(shifted_levels(STEPS, 12.0)) if level < 0.875)
    assert known.schedule is not None
    assert {boundary, boundary + 1} <= set(known.schedule)


def test_a_method_of_ones_own_is_one_rule_that_registers_itself(
    make_record: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from easyteacache.policy import planned

    monkeypatch.setattr(planned, "_rules", dict(planned._rules))
    content = bucket(num_steps=10, operating_points=[{"threshold": 0.3, "evidence": "replayed"}])
    record = make_record(content)
    assert not planned.of_steps("teacache")

    @planned.register_rule("teacache")
    def every_third(key: str, bucket: Any, threshold: float, request: Any, run: Any) -> planned.PlannedSteps:
        return planned.PlannedSteps(tuple(range(0, run.num_steps, 3)))

    policy = resolve(record, *request_and_run(num_steps=10))
    assert (policy.schedule, policy.decided_by) == ((0, 3, 6, 9), "schedule")
    assert resolve(record, *request_and_run(num_steps=10, threshold=0.0)).schedule is None
