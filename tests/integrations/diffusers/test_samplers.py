"""A record under every sampler: within 1.5 times what it promises under its own, or every step computed; never without a word.

The record is the reference model's, made at shift 3 with Euler's sampler over 25 and 50 steps and with UniPC over 25, 30 and 50.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)

from easyteacache import Registry, TeaCache
from easyteacache.errors import EasyTeaCacheWarning
from easyteacache.reference.pipeline import MovingDigitsPipeline, load_pipeline

KEY = "reference/moving-digits"
#: Times the promised error that a run may be off.
SLACK = 1.5
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@dataclass(frozen=True)
class Row:
    """One setting: a scheduler, its steps, and how the loop uses it."""

    make: Callable[[], Any]
    steps: int = 25
    first: int = 0
    tells: bool = False
    copied: bool = False
    #: What is to come of it: the record's own setting, its plan carried over, or everything computed.
    comes: str = "carried"


def euler(**options: Any) -> Callable[[], Any]:
    return lambda: FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **options})


def solver(kind: Any, shift: float = 3.0, **options: Any) -> Callable[[], Any]:
    return lambda: kind(flow_shift=shift, **FLOW, **options)


class Given(FlowMatchEulerDiscreteScheduler):
    """As a caller's own ``sigmas=`` sets a scheduler up."""

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, **_: Any) -> None:
        count = num_inference_steps or 1
        super().set_timesteps(sigmas=[(1.0 - step / count) ** 1.5 for step in range(count)], device=device)


class Dynamic(FlowMatchEulerDiscreteScheduler):
    """With a shift that follows from the resolution, as FLUX pipelines say it."""

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, **_: Any) -> None:
        super().set_timesteps(num_inference_steps, device=device, mu=1.15)


ROWS = {
    "own": Row(euler(), comes="own"),
    "own-50": Row(euler(), steps=50, comes="own"),
    "own-stepped-by-a-copy": Row(euler(), copied=True, comes="own"),
    "shift-3.2": Row(euler(shift=3.2)),
    "shift-1": Row(euler(shift=1.0)),
    "shift-12": Row(euler(shift=12.0)),
    "30-steps": Row(euler(), steps=30),
    "12-steps": Row(euler(), steps=12),
    "karras": Row(euler(use_karras_sigmas=True)),
    "beta": Row(euler(use_beta_sigmas=True)),
    "exponential": Row(euler(use_exponential_sigmas=True)),
    "given-sigmas": Row(lambda: Given(shift=1.0)),
    "unipc-flow-shift-3": Row(solver(UniPCMultistepScheduler), comes="own"),
    "unipc-flow-shift-12": Row(solver(UniPCMultistepScheduler, 12.0)),
    "unipc-flow-shift-1": Row(solver(UniPCMultistepScheduler, 1.0)),
    "unipc-order-3": Row(solver(UniPCMultistepScheduler, solver_order=3)),
    "unipc-50-steps": Row(solver(UniPCMultistepScheduler), steps=50, comes="own"),
    "dpm-flow-shift-12": Row(solver(DPMSolverMultistepScheduler, 12.0)),
    "dpm-flow-shift-1": Row(solver(DPMSolverMultistepScheduler, 1.0)),
    "dpm-single-step": Row(solver(DPMSolverSinglestepScheduler, lower_order_final=True)),
    "sde-dpm": Row(solver(DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++"), comes="computed"),
    "sa": Row(solver(SASolverScheduler), comes="computed"),
    "deis": Row(solver(DEISMultistepScheduler)),
    "heun": Row(lambda: FlowMatchHeunDiscreteScheduler(shift=3.0), steps=13, comes="computed"),
    "noise-added": Row(euler(stochastic_sampling=True), comes="computed"),
    "lcm": Row(lambda: FlowMatchLCMScheduler(shift=3.0), comes="computed"),
    "dynamic-shifting": Row(lambda: Dynamic(use_dynamic_shifting=True)),
    "terminal": Row(euler(shift_terminal=0.1)),
    "inverted": Row(euler(invert_sigmas=True), comes="computed"),
    "500-training-steps": Row(euler(num_train_timesteps=500)),
    "unipc-order-1": Row(solver(UniPCMultistepScheduler, solver_order=1)),
    "unipc-no-corrector": Row(solver(UniPCMultistepScheduler, disable_corrector=[0, 1, 2, 3])),
    "unipc-karras": Row(solver(UniPCMultistepScheduler, use_karras_sigmas=True), comes="computed"),
    "unipc-exponential": Row(solver(UniPCMultistepScheduler, use_exponential_sigmas=True), comes="computed"),
    "unipc-beta": Row(solver(UniPCMultistepScheduler, use_beta_sigmas=True), comes="computed"),
    "unipc-sigma-min": Row(solver(UniPCMultistepScheduler, final_sigmas_type="sigma_min")),
    "unipc-thresholding": Row(solver(UniPCMultistepScheduler, thresholding=True), comes="computed"),
    "dpm-order-3": Row(solver(DPMSolverMultistepScheduler, solver_order=3)),
    "dpm-heun": Row(solver(DPMSolverMultistepScheduler, solver_type="heun")),
    "dpm-euler-at-final": Row(solver(DPMSolverMultistepScheduler, euler_at_final=True)),
    "dpm-leading": Row(solver(DPMSolverMultistepScheduler, timestep_spacing="leading")),
    "strength-half": Row(euler(), steps=50, first=25, tells=True),
    "strength-half-untold": Row(euler(), steps=50, first=25),
}
QUICK = (
    "own",
    "shift-12",
    "unipc-flow-shift-3",
    "unipc-flow-shift-12",
    "heun",
    "noise-added",
    "strength-half-untold",
    "12-steps",
)


@pytest.fixture(scope="module")
def pipe() -> Any:
    found = load_pipeline()
    found.set_progress_bar_config(disable=True)
    # Most pipelines say which branch it is, and nothing of steps and noise levels.
    found._cache_context = lambda branch, step: found.transformer.cache_context(branch)
    return found


@pytest.fixture
def given(pipe: MovingDigitsPipeline) -> Iterator[MovingDigitsPipeline]:
    """The pipeline, with its own scheduler again afterwards."""
    own = pipe.scheduler
    yield pipe
    pipe.scheduler = own


@torch.no_grad()
def sampled(pipe: Any, row: Row) -> torch.Tensor:
    """One sample (1, 1, F, H, W) of 256 tokens, in a loop as pipelines with ``strength`` have it."""
    torch.manual_seed(7)  # of samplers that draw noise
    pipe._guidance_scale = 3.0
    cond, uncond = pipe.encode_prompt("7 up")
    noise = torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    state = {"latents": noise, "prompt_embeds": cond, "negative_prompt_embeds": uncond}
    pipe.scheduler.set_timesteps(row.steps, device="cpu")
    if row.tells:
        pipe.scheduler.set_begin_index(row.first)
    stepping = copy.deepcopy(pipe.scheduler) if row.copied else pipe.scheduler
    for step, timestep in enumerate(pipe.scheduler.timesteps[row.first :]):
        velocity = pipe._guided_velocity(state, step=step, timestep=timestep)
        state["latents"] = stepping.step(velocity, timestep, state["latents"], return_dict=False)[0]
    pipe.maybe_free_model_hooks()
    return state["latents"]


def run_of(pipe: Any, row: Row, **wishes: Any) -> tuple[TeaCache, torch.Tensor, torch.Tensor, list[str]]:
    """The cache, the sample with and without it, and what it warned of."""
    pipe.scheduler = row.make()
    plain = sampled(pipe, row)
    pipe.scheduler = row.make()
    cache = TeaCache.from_registry(KEY, **(wishes or {"speedup": 2.0}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with cache.attached(pipe):
            found = sampled(pipe, row)
    told = [str(one.message) for one in caught if issubclass(one.category, EasyTeaCacheWarning)]
    return cache, found, plain, told


def error_of(found: torch.Tensor, plain: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(found - plain) / torch.linalg.vector_norm(plain))


def promised(calls: int) -> float:
    """What the plan that is carried over promises in its own run: 2 times the speed, nothing corrected, the step count nearest to a run's."""
    steps = min((25, 50), key=lambda n: abs(n - calls))
    [bucket] = [
        bucket
        for bucket in Registry.default().find(KEY).calibration.buckets
        if bucket.setting == (256, steps, 3.0) and bucket.sampler is not None and "Euler" in bucket.sampler.name
    ]
    plain = [
        point.error.mean
        for point in bucket.operating_points
        if point.plan is not None and point.plan.rows is None and point.computed_steps == steps // 2 and point.error
    ]
    return min(plain)


def expect_truth(cache: TeaCache, found: torch.Tensor, plain: torch.Tensor, told: list[str]) -> str:
    """What came of a run; raises where it is neither what was promised nor computed in full, or nothing was said."""
    policy = cache.policy
    calls = len(next(iter(cache.statistics().values())).steps)
    if policy.refusal is not None:
        assert torch.equal(found.nan_to_num(), plain.nan_to_num())
        assert cache.current_speedup_rate() == 1.0
        assert any(policy.refusal in text for text in told)
        assert policy.expected_error is None
        return "computed"
    if policy.evidence == "carried":
        assert policy.expected_error is None
        assert any(policy.carried in text for text in told if policy.carried)
        assert error_of(found, plain) <= SLACK * promised(calls)
        return "carried"
    assert told == []
    assert policy.expected_error is not None
    assert error_of(found, plain) <= SLACK * policy.expected_error
    return "own"


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_every_sampler_keeps_the_promise_or_is_told_of(name: str, given: Any) -> None:
    row = ROWS[name]
    assert expect_truth(*run_of(given, row)) == row.comes


def scheduler_classes() -> list[str]:
    found = (name for name in dir(diffusers) if name.endswith("Scheduler"))
    return sorted(name for name in found if inspect.isclass(getattr(diffusers, name)))


#: What a class is made with, the first of these that it takes.
KINDS: tuple[dict[str, Any], ...] = (
    {**FLOW, "flow_shift": 3.0, "shift": 3.0},
    {"prediction_type": "v_prediction"},
    {},
)


def made(name: str, wanted: dict[str, Any]) -> Any:
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    return kind(**{option: value for option, value in wanted.items() if option in known})


@pytest.mark.slow
@pytest.mark.parametrize("name", scheduler_classes())
def test_every_scheduler_class_of_diffusers_keeps_the_promise_or_is_told_of(name: str, given: Any) -> None:
    refused = []
    for wanted in KINDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                given.scheduler = made(name, wanted)
                sampled(given, Row(lambda: None))
            except (
                Exception
            ) as error:  # whatever a class raises that wants other arguments, or packages that are not here
                refused.append(f"{type(error).__name__}: {error}")
                continue
            expect_truth(*run_of(given, Row(lambda: made(name, wanted))))  # noqa: B023
            return
    pytest.skip(f"the reference pipeline cannot be given it: {refused[-1]}")


def test_an_error_budget_holds_under_its_own_sampler_and_computes_under_another(given: Any) -> None:
    """A7: 0.0485 was measured where 0.04 had been asked for."""
    cache, found, plain, told = run_of(given, ROWS["own"], max_error=0.04)
    assert (told, cache.current_speedup_rate() > 2.0) == ([], True)
    assert error_of(found, plain) <= SLACK * 0.04
    cache, found, plain, told = run_of(given, ROWS["unipc-flow-shift-12"], max_error=0.04)
    assert torch.equal(found, plain)
    assert any("promised under its own sampler alone" in text for text in told)


def test_a_sampler_s_warning_comes_once_a_cache(given: Any) -> None:
    given.scheduler = ROWS["heun"].make()
    cache = TeaCache.from_registry(KEY, speedup=2.0)
    with cache.attached(given):
        with pytest.warns(EasyTeaCacheWarning, match="more than once at one noise level"):
            sampled(given, ROWS["heun"])
        sampled(given, ROWS["heun"])


def test_another_sampler_between_two_runs_is_told_of_and_the_first_holds_again(given: Any) -> None:
    own = given.scheduler
    cache = TeaCache.from_registry(KEY, speedup=2.0)
    with cache.attached(given):
        first = sampled(given, ROWS["own"])
        given.scheduler = ROWS["noise-added"].make()
        with pytest.warns(EasyTeaCacheWarning, match="draws noise"):
            sampled(given, ROWS["noise-added"])
        given.scheduler = own
        assert torch.equal(sampled(given, ROWS["own"]), first)
        assert cache.policy.expected_error is not None


def test_a_bare_transformer_s_sampler_is_not_known(given: Any) -> None:
    cache = TeaCache.from_registry(KEY, speedup=2.0)
    plain = sampled(given, ROWS["own"])
    with (
        cache.attached(given.transformer),
        pytest.warns(EasyTeaCacheWarning, match="not known: every step is computed"),
    ):
        assert torch.equal(sampled(given, ROWS["own"]), plain)
    stated = TeaCache.from_registry(KEY, speedup=2.0, num_steps=25, shift=3.0)
    with stated.attached(given.transformer), pytest.warns(EasyTeaCacheWarning, match="step count and shift were given"):
        found = sampled(given, ROWS["own"])
    assert stated.policy.expected_error is None
    assert 0 < error_of(found, plain) <= SLACK * promised(25)


@pytest.mark.parametrize(
    ("make", "options"),
    [(solver(UniPCMultistepScheduler), {"solver_order": 1}), (euler(), {"stochastic_sampling": True})],
    ids=["order", "noise"],
)
def test_options_changed_in_the_middle_of_a_run_compute_its_rest(make: Any, options: Any, given: Any) -> None:
    def change(pipe: Any, step: int, timestep: Any, state: Any) -> Any:
        if step == 6:
            pipe.scheduler.register_to_config(**options)
        return state

    given.scheduler = make()
    with (
        TeaCache.from_registry(KEY, speedup=2.0).attached(given) as cache,
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always")
        given("7 up", num_inference_steps=12, seeds=[1], output_type="latent", callback_on_step_end=change)
    assert any("options were changed in the middle" in str(one.message) for one in told)
    assert all("·" in one.pattern[:7] for one in cache.statistics().values())
    assert {one.pattern[7:] for one in cache.statistics().values()} == {"█" * 5}


def test_another_guidance_than_the_record_s_is_told_of_and_promised_nothing(given: Any) -> None:
    def run(**options: Any) -> tuple[list[str], float | None]:
        given.scheduler = euler()()
        with (
            TeaCache.from_registry(KEY, speedup=2.0).attached(given) as cache,
            warnings.catch_warnings(record=True) as told,
        ):
            warnings.simplefilter("always")
            given("7 up", num_inference_steps=25, seeds=[1], output_type="latent", **options)
            return [str(one.message) for one in told], cache.policy.expected_error

    def change(pipe: Any, step: int, timestep: Any, state: Any) -> Any:
        pipe._guidance_scale = 3.0 if step < 6 else 6.0
        return state

    assert run(guidance_scale=3.0)[0] == []
    told, promised = run(guidance_scale=7.0)
    assert (len(told), promised) == (1, None)
    assert "guidance scale of 3, this run has 7" in told[0]
    told, _ = run(callback_on_step_end=change)
    assert len(told) == 1
    assert "changed from 3 to 6 in the middle of a run" in told[0]
