"""The wrappers on the protocol that ComfyUI has for them, without ComfyUI."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from easyteacache.errors import EasyTeaCacheWarning
from easyteacache.integrations.comfyui.report import RunReport
from easyteacache.integrations.comfyui.sampled_run import SampledRun
from easyteacache.integrations.comfyui.wrappers import KEY, ModelWrappers
from easyteacache.integrations.wish import Wish
from easyteacache.policy.curves import Polynomial
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import FixedPolicy
from easyteacache.runtime.session import Session

from .stand_in import (
    LEVELS,
    STEPS,
    CFGGuider,
    Patcher,
    sample_adaptive,
    sample_euler,
    sample_multistep,
    sample_twice,
    sample_unfit,
    sampler,
)

PLAN = (0, 1, 3, 5)


def plan(**changes: Any) -> Callable[[RunContext], Session]:
    base: dict[str, Any] = {
        "model_key": "toy", "revision": 1, "status": "draft", "layer": "given", "signal": "none", "curve": Polynomial((0.0,)),
        "threshold": 0.0, "first_skip_step": 0, "last_skip_step": None, "max_consecutive_skips": None, "buckets": (),
        "schedule": PLAN, "applied_to": "output",
    }  # fmt: skip
    policy = Policy(**{**base, **changes})
    return lambda run: Session(FixedPolicy(policy), Request(), run)


class Node:
    """The wrappers on a model, and what they report."""

    def __init__(self, make: Callable[[RunContext], Session] | None, patcher: Patcher | None = None) -> None:
        self.reports: list[RunReport] = []
        self.wrappers = ModelWrappers(make, report=self.reports.append)
        self.model = self.wrappers.put_on(patcher or Patcher())

    def sample(self, using: Any = None, **changes: Any) -> torch.Tensor:
        guider = CFGGuider(self.model, **{name: changes.pop(name) for name in ("batched", "kinds") if name in changes})
        self.guider = guider
        for name in ("more", "extra_calls", "conds"):
            if name in changes:
                setattr(guider, name, changes.pop(name))
        return guider.sample(using or sampler(), **changes)

    @property
    def calls(self) -> list[tuple[float, tuple[str, ...]]]:
        found: list[tuple[float, tuple[str, ...]]] = self.model.model.diffusion_model.calls
        return found

    def computed(self, branch: str = "cond") -> list[int]:
        levels = [torch.tensor(level).item() for level in LEVELS]
        return [levels.index(level) for level, branches in self.calls if branch in branches]

    @property
    def last(self) -> RunReport:
        return self.reports[-1]


def plain(using: Any = None, **changes: Any) -> torch.Tensor:
    return CFGGuider(Patcher(), **{name: changes.pop(name) for name in ("batched", "kinds") if name in changes}).sample(
        using or sampler(), **changes
    )


@pytest.mark.parametrize("function", [sample_euler, sample_multistep, sample_twice, sample_adaptive])
@pytest.mark.parametrize("make", [None, plan(schedule=tuple(range(20)))], ids=["exact", "all computed"])
def test_outputs_are_the_same_bit_for_bit_where_every_call_is_computed(function: Any, make: Any) -> None:
    assert torch.equal(Node(make).sample(sampler(function)), plain(sampler(function)))


@pytest.mark.parametrize("function", [sample_euler, sample_multistep])
@pytest.mark.parametrize("batched", [True, False])
def test_the_computed_steps_of_a_plan_are_exactly_its_list(function: Any, batched: bool) -> None:
    node = Node(plan())
    node.sample(sampler(function), batched=batched)
    assert node.computed("cond") == node.computed("uncond") == list(PLAN)
    assert dict(node.last.pattern) == {"cond": "██·█·█·", "uncond": "██·█·█·"}
    assert node.last.speedup == STEPS / len(PLAN)


def test_both_ways_of_calling_the_branches_give_the_same() -> None:
    torch.testing.assert_close(
        Node(plan(forecaster="linear")).sample(batched=True), Node(plan(forecaster="linear")).sample(batched=False)
    )


def test_a_branch_is_never_given_another_ones_output() -> None:
    seen: list[tuple[tuple[int, ...], torch.Tensor]] = []

    def spy(executor: Any, *args: Any, **kwargs: Any) -> Any:
        output = executor(*args, **kwargs)
        seen.append((tuple(kwargs["transformer_options"]["cond_or_uncond"]), output))
        return output

    patcher = Patcher()
    patcher.add_wrapper_with_key("diffusion_model", "a-spy", spy)
    node = Node(plan(schedule=(0,)), patcher)
    node.sample()
    first = dict(zip(seen[0][0], seen[0][1].chunk(2), strict=True))
    assert not torch.equal(first[0], first[1])
    for kinds, output in seen[1:]:
        for kind, part in zip(kinds, output.chunk(2), strict=True):
            assert torch.equal(part, first[kind])


def test_branches_that_change_places_in_the_batch_keep_their_own() -> None:
    node = Node(plan(schedule=(0,)))
    guider = CFGGuider(node.model)
    called, turn = guider._called, [0]

    def swapped(*args: Any) -> Any:
        guider._kinds = (1, 0) if turn[0] % 2 == 0 else (0, 1)
        turn[0] += 1
        return called(*args)

    guider._called = swapped  # type: ignore[method-assign]
    assert torch.equal(guider.sample(sampler()), Node(plan(schedule=(0,))).sample())


def test_branches_with_plans_of_their_own_are_computed_alone() -> None:
    node = Node(plan(branch_schedules=(("cond", (0, 1, 3, 5)), ("uncond", (0, 3)))))
    node.sample()
    assert node.computed("cond") == [0, 1, 3, 5]
    assert node.computed("uncond") == [0, 3]
    assert [branches for _, branches in node.calls] == [("uncond", "cond"), ("cond",), ("uncond", "cond"), ("cond",)]


def test_a_run_without_guidance_has_one_branch() -> None:
    node = Node(plan())
    node.sample(kinds=(0,))
    assert dict(node.last.pattern) == {"cond": "██·█·█·"}


@pytest.mark.parametrize(
    ("using", "reason"),
    [
        (sampler(noise=0.1), "draws noise at its steps"),
        (sampler(sample_adaptive), "where adaptive calls the model is not known: that depends on what the model gives"),
        (sampler(sample_unfit), "it wants what only its own node has"),
        (SimpleNamespace(), "no function that could be tried"),
    ],
    ids=["noise", "adaptive", "unfit", "no function"],
)
def test_a_sampler_that_cannot_be_followed_is_refused_with_the_reason(using: Any, reason: str) -> None:
    node = Node(plan())
    if using.__dict__ and using.sampler_function is not sample_unfit:
        torch.manual_seed(0)
        found = node.sample(using)
        torch.manual_seed(0)
        assert torch.equal(found, plain(using))
        assert all(branches == ("uncond", "cond") for _, branches in node.calls)
    else:
        with pytest.raises((RuntimeError, AttributeError)):
            node.sample(using)
    assert reason in (node.last.refusal or "")
    assert f"Computed in full: {node.last.refusal}" in node.last.text
    assert node.last.pattern == ()


def test_a_second_run_starts_afresh() -> None:
    node = Node(plan(forecaster="linear"))
    first, second = node.sample(), node.sample()
    assert torch.equal(first, second)
    assert node.computed() == [*PLAN, *PLAN]
    assert torch.equal(node.sample(seed=1), Node(plan(forecaster="linear")).sample(seed=1))


def test_an_interrupt_in_the_middle_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    begin = SampledRun.__init__

    def noted(self: SampledRun, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        kept.append((weakref.ref(self), self.session))

    monkeypatch.setattr(SampledRun, "__init__", noted)
    node, expected = Node(plan(forecaster="linear")), Node(plan(forecaster="linear")).sample()
    kept.clear()

    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        node.sample(callback=stop)
    assert KEY not in node.guider.model_options["transformer_options"]
    [(run, session)] = kept
    node.guider = None  # type: ignore[assignment]
    gc.collect()
    assert run() is None
    assert session.nbytes == 0
    assert node.last.over
    assert not node.last.whole
    assert "broken off" in node.last.text
    assert torch.equal(node.sample(), expected)


def test_two_samplers_of_one_graph_have_runs_of_their_own() -> None:
    node = Node(plan(schedule=(0, 2)))
    node.sample(sigmas=LEVELS[:4])
    node.sample(sigmas=LEVELS[3:])
    over = [dict(report.pattern)["cond"] for report in node.reports if report.over]
    assert over == ["█·█", "█·█·"]


def test_a_run_inside_a_run_leaves_the_outer_one_alone() -> None:
    node, inner = Node(plan(forecaster="linear")), Node(plan(schedule=(0,)))
    expected, alone = node.sample(), inner.sample()
    found: list[torch.Tensor] = []

    def nested(step: int) -> None:
        if step == 2:
            found.append(inner.sample())

    assert torch.equal(node.sample(callback=nested), expected)
    assert torch.equal(found[0], alone)


def test_put_on_twice_the_last_one_acts() -> None:
    node = Node(plan(schedule=(0,)))
    again = Node(plan(), node.model)
    again.sample()
    assert again.computed() == list(PLAN)
    assert len(node.reports) == 0


def test_the_model_it_was_put_on_is_left_as_it_was() -> None:
    patcher = Patcher()
    node = Node(plan(), patcher)
    assert patcher.wrappers == {}
    assert node.model is not patcher


def test_a_plan_for_the_guided_output_skips_guidance_and_model() -> None:
    node = Node(plan(combined=True, forecaster="linear"))
    found = node.sample()
    assert [branches for _, branches in node.calls] == [("uncond", "cond")] * len(PLAN)
    assert dict(node.last.pattern) == {"guided": "██·█·█·"}
    torch.testing.assert_close(found, Node(plan(forecaster="linear")).sample())


@pytest.mark.parametrize("key", ["control", "hooks", "start_percent"])
def test_a_guided_plan_predicts_each_branch_where_conditioning_comes_and_goes(key: str) -> None:
    node = Node(plan(combined=True))
    node.sample(conds={"positive": [{key: object()}], "negative": [{}]})
    assert set(dict(node.last.pattern)) == {"cond", "uncond"}


def test_calls_that_cannot_be_told_apart_end_all_reuse() -> None:
    node = Node(plan())
    node.sample(extra_calls=1)
    assert "more than once a step" in (node.last.refusal or "")
    assert node.computed() == sorted([*range(STEPS), *range(STEPS)])


def test_a_control_that_goes_away_is_followed_by_a_computed_step() -> None:
    node = Node(plan(schedule=(0,)))
    node.sample(more=lambda step: {"control": {"output": [None]}} if step < 4 else {})
    assert node.computed() == [0, 4]


def test_hooks_that_change_their_strength_are_followed_by_a_computed_step() -> None:
    node = Node(plan(schedule=(0,)))
    hook = SimpleNamespace(strength=1.0)
    node.model.current_hooks = SimpleNamespace(hooks=[hook])

    def weaker(step: int) -> None:
        hook.strength = 1.0 if step < 2 else 0.5

    node.sample(callback=weaker)
    assert node.computed() == [0, 3]


def test_a_model_that_returns_something_else_is_computed() -> None:
    node = Node(plan())
    node.model.model.diffusion_model.returns = lambda output: (output, None)
    assert torch.equal(node.sample(), plain())
    assert "returns tuple" in (node.last.refusal or "")


def test_patches_of_the_weights_are_told_of() -> None:
    patcher = Patcher()
    patcher.patches["weight"] = object()
    node = Node(Wish("registry", "flux.1/dev", 2.0).session, patcher)
    with pytest.warns(EasyTeaCacheWarning):
        node.sample(sigmas=tuple(1 - step / 28 for step in range(29)))
    assert any("patches of this workflow" in warning for warning in node.last.warnings)
    assert "patches of this workflow" in node.last.text


def test_a_record_that_does_not_exist_computes_and_says_so() -> None:
    node = Node(Wish("registry", "no/such-model", 2.0).session)
    assert torch.equal(node.sample(), plain())
    assert "no/such-model" in (node.last.refusal or "")


def test_a_speedup_out_of_reach_computes_and_says_what_there_is() -> None:
    node = Node(Wish("registry", "wan2.1/t2v-14b/lemica", 50.0).session)
    with pytest.warns(EasyTeaCacheWarning, match="50 is not calibrated"):
        found = node.sample()
    assert torch.equal(found, plain())
    assert "50 is not calibrated" in (node.last.refusal or "")
    assert f"Computed in full: {node.last.refusal}" in node.last.text


def test_the_universal_plan_steps_in_where_it_was_asked_to() -> None:
    node = Node(Wish("registry or uncalibrated", "no/such-model", 2.0).session)
    node.sample()
    assert node.last.refusal is None
    assert "uncalibrated" in (node.last.record or "")
    assert any("No record holds" in note for note in node.last.notes)


def test_masked_runs_correct_nothing() -> None:
    seen: list[RunContext] = []

    def make(run: RunContext) -> Session:
        seen.append(run)
        return plan()(run)

    Node(make).sample()
    Node(make).sample(mask=torch.ones(SHAPE_OF_MASK))
    assert [run.can.corrects for run in seen] == [True, False]


def test_other_guidance_than_a_weighted_sum_corrects_nothing() -> None:
    seen: list[RunContext] = []

    def make(run: RunContext) -> Session:
        seen.append(run)
        return plan()(run)

    node = Node(make)
    node.model.model_options["sampler_post_cfg_function"] = [lambda args: args["denoised"]]
    node.sample()
    node.sample(sampler(sample_multistep))
    assert [run.can.corrects for run in seen] == [False, False]


def test_what_is_known_of_the_run_is_told_to_the_session() -> None:
    seen: list[RunContext] = []

    def make(run: RunContext) -> Session:
        seen.append(run)
        return plan()(run)

    Node(make).sample()
    [run] = seen
    assert (run.num_steps, run.sequence_length, run.values_per_token, run.shift) == (STEPS, 9, 16, 2.0)
    assert run.sampler is not None
    assert run.sampler.levels == pytest.approx(LEVELS)
    assert run.can.sees == ("output",)
    assert run.begun


SHAPE_OF_MASK = (1, 1, 6, 6)
