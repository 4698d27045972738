"""Plans that correct computed steps, on whole pipelines, against their weights times what the model really computed."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from tiny_pipelines import PIPELINES, flow_matching, flux, sample, wan

from easyteacache import TeaCache
from easyteacache.errors import EasyTeaCacheWarning, UnreachableTarget
from easyteacache.integrations.diffusers.scheduler_facts import is_euler
from easyteacache.policy.request import request_and_run
from easyteacache.policy.source import Resolver
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Found
from easyteacache.runtime.session import Session

STEPS = 7
SCHEDULE = (0, 1, 3, 6)
ROWS = ((1.0,), (-0.4, 1.4), (-1.0, 2.0), (0.3, -0.9, 1.6), (0.2, -1.1, 1.9), (0.5, -2.0, 2.5), (-0.25, 0.5, 0.75))
FITTED: dict[str, Any] = {
    "schedule": SCHEDULE,
    "weights": ROWS,
    "forecaster": "fitted",
    "applied_to": "output",
    "num_steps": STEPS,
}
PLAIN = (0, 2, 4, 6)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Seen:
    """What a transformer computed and what it handed on, by branch and step."""

    def __init__(self, branches: int = 2) -> None:
        self.branches, self.count = branches, 0
        self.raw: list[list[torch.Tensor]] = [[] for _ in range(branches)]
        self.handed: list[list[torch.Tensor]] = [[] for _ in range(branches)]
        self.first: torch.Tensor | None = None

    def before(self, module: Any, args: Any, output: Any) -> None:
        self.raw[self.count % self.branches].append(output[0].clone())

    def after(self, module: Any, args: Any, output: Any) -> None:
        self.handed[self.count % self.branches].append(output[0].clone())
        self.count += 1

    def expected(self, branch: int) -> Iterator[torch.Tensor]:
        """The rows times the computed outputs."""
        computed: list[int] = []
        for step, row in enumerate(ROWS):
            computed += [step] if step in SCHEDULE else []
            yield sum(w * self.raw[branch][k] for w, k in zip(row, computed[-len(row) :], strict=True))


@contextlib.contextmanager
def watched(pipe: Any, cache: TeaCache, seen: Seen, **options: Any) -> Iterator[Seen]:
    """Hooks around the cache's own: what it is given, and what it gives."""
    handles = [pipe.transformer.register_forward_hook(seen.before)]
    with cache.attached(pipe, **options):
        handles.append(pipe.transformer.register_forward_hook(seen.after))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


@pytest.fixture(scope="module")
def pipelines() -> Any:
    built: dict[str, Any] = {}
    return lambda name: built.setdefault(name, PIPELINES[name]())


@pytest.mark.parametrize("residual_device", [None, "cpu"])
@pytest.mark.parametrize("name", ["wan", "flux"])
def test_what_is_handed_on_is_the_weights_times_the_computed_outputs(name, residual_device, pipelines, make_cache):
    pipe = pipelines(name)
    plain = sample(pipe, name, steps=STEPS)
    with watched(pipe, make_cache(**FITTED), Seen(), residual_device=residual_device) as seen:
        cached = sample(pipe, name, steps=STEPS)
    for branch in range(2):
        assert len(seen.handed[branch]) == STEPS
        for found, expected in zip(seen.handed[branch], seen.expected(branch), strict=True):
            torch.testing.assert_close(found, expected, **CLOSE)
        # Corrections are no small thing here: handing on what was computed would be another result.
        for step in SCHEDULE[1:]:
            assert not torch.allclose(seen.handed[branch][step], seen.raw[branch][step], rtol=1e-2)
    assert not torch.equal(seen.handed[0][3], seen.handed[1][3])
    assert not torch.equal(cached, plain)
    assert torch.equal(sample(pipe, name, steps=STEPS), plain)


def test_the_sample_is_an_euler_run_over_what_was_handed_on(pipelines, make_cache):
    pipe = pipelines("wan")
    first: list[torch.Tensor] = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: first.append(kwargs["hidden_states"].clone()), with_kwargs=True
    )
    with watched(pipe, make_cache(**FITTED), Seen()) as seen:
        cached = sample(pipe, "wan", steps=STEPS, guidance_scale=5.0)
    handle.remove()
    state, levels = first[0].float(), pipe.scheduler.sigmas
    for step, (cond, uncond) in enumerate(zip(*seen.handed, strict=True)):
        state = state + (levels[step + 1] - levels[step]) * (uncond + 5.0 * (cond - uncond))
    torch.testing.assert_close(cached, state, rtol=1e-4, atol=1e-4)


def test_both_guidance_branches_follow_the_plan_and_repeat(pipelines, make_cache):
    pipe = pipelines("flux")
    with make_cache(**FITTED).attached(pipe) as cache:
        once = sample(pipe, "flux", steps=STEPS)
        assert {run.pattern for run in cache.statistics().values()} == {"██·█··█"}
        assert len(cache.statistics()) == 2
        assert torch.equal(sample(pipe, "flux", steps=STEPS), once)
        assert cache.nbytes == 0


def test_weights_that_only_hold_are_the_plain_plan(pipelines, make_cache):
    pipe = pipelines("wan")
    with make_cache(**{**FITTED, "weights": ((1.0,),) * STEPS}).attached(pipe):
        found = sample(pipe, "wan", steps=STEPS)
    with make_cache(schedule=SCHEDULE, applied_to="output").attached(pipe):
        torch.testing.assert_close(sample(pipe, "wan", steps=STEPS), found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:torch.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["wrapped", "in place", "blocks"])
@pytest.mark.parametrize("build", [wan, flux])
def test_compiled_it_hands_on_the_same(build, how, make_cache):
    def backend(graph: Any, example_inputs: Any) -> Any:
        return graph.forward

    torch._dynamo.reset()
    pipe, name = build(), build.__name__
    with make_cache(**FITTED).attached(pipe) as cache:
        expected = sample(pipe, name, steps=STEPS)
    if how == "wrapped":
        pipe.transformer = torch.compile(pipe.transformer, backend=backend, fullgraph=True)
    elif how == "in place":
        pipe.transformer.compile(backend=backend, fullgraph=True)
    else:
        pipe.transformer.compile_repeated_blocks(backend=backend, fullgraph=True)
    with make_cache(**FITTED).attached(pipe) as cache:
        for _ in range(2):
            torch.testing.assert_close(sample(pipe, name, steps=STEPS), expected, rtol=1e-4, atol=1e-5)
        assert cache.statistics()["cond"].pattern == "██·█··█"
    torch._dynamo.reset()


def test_half_precision_stays_half_and_near(make_cache):
    pipe = wan()
    with make_cache(**FITTED).attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
    pipe.transformer.to(torch.bfloat16)
    with watched(pipe, make_cache(**FITTED), Seen()) as seen:
        found = sample(pipe, "wan", steps=STEPS)
    assert {tensor.dtype for branch in seen.handed for tensor in branch} == {torch.bfloat16}
    assert (found - expected).norm() < 0.05 * expected.norm()


# Runs that are cut, changed or shared -------------------------------------------------------------------------------------


class Cancelled(Exception):
    pass


def cancel(pipe: Any, step: int, timestep: Any, kwargs: Any) -> Any:
    if step == 2:
        raise Cancelled
    return kwargs


def test_a_cancelled_run_leaves_no_correction_to_the_next(pipelines, make_cache):
    pipe = pipelines("wan")
    with make_cache(**FITTED).attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
        with pytest.raises(Cancelled):
            sample(pipe, "wan", steps=STEPS, seed=3, callback_on_step_end=cancel)
        assert torch.equal(sample(pipe, "wan", steps=STEPS), expected)


def test_another_resolution_or_batch_between_runs(pipelines, make_cache):
    pipe = pipelines("flux")
    changes: list[dict[str, Any]] = [{}, {"height": 32}, {"num_images_per_prompt": 2}, {"true_cfg_scale": 1.0}, {}]
    alone = []
    for change in changes:
        with make_cache(**FITTED).attached(pipe):
            alone.append(sample(pipe, "flux", steps=STEPS, **change))
    with make_cache(**FITTED).attached(pipe):
        for change, expected in zip(changes, alone, strict=True):
            assert torch.equal(sample(pipe, "flux", steps=STEPS, **change), expected)


def test_another_shape_in_the_middle_of_a_run_is_held_not_corrected(make_cache):
    pipe = wan()
    transformer, scheduler = pipe.transformer, pipe.scheduler
    scheduler.set_timesteps(STEPS)
    seen = Seen(branches=1)
    with torch.no_grad(), watched(pipe, make_cache(**FITTED), seen) as _:
        scheduler.set_timesteps(STEPS)
        scheduler.set_begin_index(0)
        state = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        for step, timestep in enumerate(scheduler.timesteps):
            state = torch.cat((state, state)) if step == 3 else state
            velocity = transformer(
                hidden_states=state,
                timestep=timestep.expand(len(state)),
                encoder_hidden_states=torch.ones(len(state), 16, 8),
                return_dict=False,
            )[0]
            state = scheduler.step(velocity, timestep, state, return_dict=False)[0]
    handed, raw = seen.handed[0], seen.raw[0]
    torch.testing.assert_close(handed[2], -raw[0] + 2.0 * raw[1], **CLOSE)
    assert torch.equal(handed[3], raw[3])
    assert torch.equal(handed[4], raw[3])
    assert torch.equal(handed[5], raw[3])
    assert torch.equal(handed[6], raw[6])


def test_a_pipeline_with_another_sampler_on_the_same_transformer_gets_no_correction(make_cache):
    pipe = wan()
    other = diffusers.WanPipeline.from_pipe(pipe, scheduler=unipc())
    other.set_progress_bar_config(disable=True)
    plain = sample(other, "wan", steps=STEPS)
    with make_cache(**FITTED).attached(pipe) as cache:
        expected = sample(pipe, "wan", steps=STEPS)
        with pytest.warns(EasyTeaCacheWarning, match="every step is computed"):
            assert torch.equal(sample(other, "wan", steps=STEPS), plain)
        assert cache.policy.weights is None
        assert torch.equal(sample(pipe, "wan", steps=STEPS), expected)


def test_a_copy_of_an_attached_cache_hands_on_the_same(pipelines, make_cache):
    pipe = pipelines("wan")
    cache = make_cache(**FITTED)
    with cache.attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
        copies = [copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))]
    for other in copies:
        with other.attached(pipe):
            assert torch.equal(sample(pipe, "wan", steps=STEPS), expected)


# Other samplers -----------------------------------------------------------------------------------------------------------


def unipc() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


class Noisy(FlowMatchEulerDiscreteScheduler):
    """Steps further than an Euler sampler does."""

    def step(self, output: Any, *args: Any, **kwargs: Any) -> Any:
        return super().step(1.01 * output, *args, **kwargs)


class Wrapped(FlowMatchEulerDiscreteScheduler):
    """Hands its steps on."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        return super().step(*args, **kwargs)


class Named(FlowMatchEulerDiscreteScheduler):
    """Changes nothing about its steps."""


@pytest.mark.parametrize(
    ("scheduler", "euler"),
    [
        (flow_matching(), True),
        (flow_matching(use_dynamic_shifting=True), True),
        (Named(shift=3.0), True),
        (flow_matching(stochastic_sampling=True), False),
        (Wrapped(shift=3.0), True),
        (Noisy(shift=3.0), False),
        (unipc(), False),
        (diffusers.FlowMatchHeunDiscreteScheduler(), False),
        (diffusers.EulerDiscreteScheduler(), False),
        (None, False),
        (object(), False),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bool) else str(value),
)
def test_only_plain_euler_steps_count_as_euler(scheduler, euler):
    assert is_euler(scheduler) == euler


@pytest.mark.parametrize(
    "scheduler", [unipc, lambda: flow_matching(stochastic_sampling=True), lambda: Noisy(shift=3.0)]
)
def test_under_another_sampler_a_given_plan_computes_every_step_and_says_why(scheduler, make_cache):
    pipe = wan()
    pipe.scheduler = scheduler()
    torch.manual_seed(0)
    plain = sample(pipe, "wan", steps=STEPS)
    with make_cache(**FITTED).attached(pipe) as cache:
        assert "Euler" in cache.policy.refusal
        torch.manual_seed(0)
        with pytest.warns(EasyTeaCacheWarning, match="every step is computed"):
            assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
        assert cache.current_speedup_rate() == 1.0
        assert "Euler" in cache.policy.refusal


def test_a_bare_transformer_is_not_corrected(make_cache):
    pipe = wan()
    with make_cache(**FITTED).attached(pipe.transformer) as cache:
        assert "Euler" in cache.policy.refusal
        with pytest.warns(EasyTeaCacheWarning, match="every step is computed"):
            sample(pipe, "wan", steps=STEPS)
        assert cache.current_speedup_rate() == 1.0


def test_a_scheduler_swapped_between_runs_and_back(make_cache):
    pipe = wan()
    euler = pipe.scheduler
    with make_cache(**FITTED).attached(pipe) as cache:
        expected = sample(pipe, "wan", steps=STEPS)
        for again in range(2):
            pipe.scheduler = unipc()
            # Once a cache and reason.
            with (
                contextlib.nullcontext() if again else pytest.warns(EasyTeaCacheWarning, match="every step is computed")
            ):
                sample(pipe, "wan", steps=STEPS)
            assert cache.current_speedup_rate() == 1.0
            assert cache.policy.weights is None
            pipe.scheduler = euler
            assert torch.equal(sample(pipe, "wan", steps=STEPS), expected)
            assert cache.policy.weights == ROWS


def test_at_another_step_count_a_given_plan_computes_every_step(pipelines, make_cache):
    pipe = pipelines("wan")
    for steps in (STEPS - 1, STEPS + 1):
        plain = sample(pipe, "wan", steps=steps)
        with make_cache(**FITTED).attached(pipe) as cache:
            with pytest.warns(EasyTeaCacheWarning, match="every step is computed"):
                found = sample(pipe, "wan", steps=steps)
            assert torch.equal(found, plain)
            assert f"{steps} steps instead of {STEPS}" in cache.policy.refusal


# A record -----------------------------------------------------------------------------------------------------------------


def levels_of(pipe: Any, name: str) -> list[float]:
    sample(pipe, name, steps=STEPS)
    return [round(float(sigma), 9) for sigma in pipe.scheduler.sigmas]


def record_of(levels: list[float], *points: dict[str, Any], profile: bool = True, length: int = 8) -> Calibration:
    fitted = {
        "schedule": list(SCHEDULE),
        "forecaster": "fitted",
        "applied_to": "output",
        "weights": [list(row) for row in ROWS],
        "speedup": STEPS / len(SCHEDULE),
        "error": {"mean": 0.01},
        "evidence": "replayed",
    }
    bucket = {
        "sequence_length": length,
        "num_steps": STEPS,
        "shift": 3.0,
        "coefficients": [1.0, 0.0],
        "domain": [0.0, 1.0],
        "operating_points": [fitted, *points],
    }
    if profile:
        bucket["sigma_profile"] = {"sigmas": levels, "distances": [0.2 * k for k in range(STEPS + 1)]}
    content = {
        "schema_version": 2,
        "model_key": "toy/model",
        "revision": 1,
        "status": "draft",
        "title": "Toy",
        "modality": "video",
        "method": "teacache",
        "signal": "timestep_projection",
        "buckets": [bucket],
        "provenance": {},
    }
    return Calibration.from_mapping(content)


def cache_of(record: Calibration, **wish: Any) -> TeaCache:
    source = Resolver(Found(record, "given", record.model_key))
    return TeaCache(-1, _session=Session(source, *request_and_run(**wish)))


PLAIN_POINT = {"schedule": list(PLAIN), "speedup": 7 / 4, "error": {"mean": 0.1}, "evidence": "replayed"}
THRESHOLD = {"threshold": 0.5, "speedup": 7 / 4, "error": {"mean": 0.2}, "evidence": "replayed"}


def test_a_record_s_plan_is_followed_at_its_own_setting(pipelines):
    pipe = pipelines("wan")
    cache = cache_of(record_of(levels_of(pipe, "wan"), PLAIN_POINT), speedup=1.75)
    with watched(pipe, cache, Seen()) as seen:
        sample(pipe, "wan", steps=STEPS)
        assert cache.policy.weights == ROWS
        assert cache.statistics()["cond"].pattern == "██·█··█"
    for found, expected in zip(seen.handed[0], seen.expected(0), strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("swap", ["UniPC", "bare", "stochastic"])
def test_under_another_sampler_another_point_of_the_record_is_used(swap):
    pipe = wan()
    cache = cache_of(record_of(levels_of(pipe, "wan"), PLAIN_POINT), speedup=1.75, num_steps=STEPS, shift=3.0)
    pipe.scheduler = {"UniPC": unipc, "stochastic": lambda: flow_matching(stochastic_sampling=True)}.get(
        swap, flow_matching
    )()
    computes = swap == "stochastic"
    told = pytest.warns(EasyTeaCacheWarning) if swap != "bare" else contextlib.nullcontext()
    with cache.attached(pipe.transformer if swap == "bare" else pipe), told:
        sample(pipe, "wan", steps=STEPS)
        assert cache.policy.weights is None
        assert (cache.policy.refusal is not None) == computes
        assert set(cache.statistics()["cond"].pattern) == ({"█"} if computes else {"█", "·"})
        assert (cache.policy.expected_error is None) == (swap != "bare")


@pytest.mark.parametrize("scheduler", [unipc, lambda: flow_matching(stochastic_sampling=True)])
def test_a_target_out_of_reach_at_attach_leaves_nothing_attached(scheduler):
    pipe = wan()
    plain = sample(pipe, "wan", steps=STEPS)
    euler = pipe.scheduler
    cache = cache_of(record_of(levels_of(pipe, "wan"), PLAIN_POINT), max_error=0.05)
    pipe.scheduler = scheduler()
    for _ in range(2):
        with pytest.raises(UnreachableTarget, match="Euler"):
            cache.attach(pipe)
    with pytest.raises(UnreachableTarget, match="Euler"):
        cache.attach(pipe.transformer)
    assert not pipe.transformer._forward_hooks
    assert not pipe.transformer._forward_pre_hooks
    pipe.scheduler = euler
    assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
    with cache.attached(pipe):
        assert not torch.equal(sample(pipe, "wan", steps=STEPS), plain)


def test_an_error_budget_out_of_reach_in_a_later_run_computes_that_run():
    pipe = wan()
    cache = cache_of(record_of(levels_of(pipe, "wan"), PLAIN_POINT), max_error=0.05)
    euler = pipe.scheduler
    pipe.scheduler = unipc()
    plain = sample(pipe, "wan", steps=STEPS)
    pipe.scheduler = euler
    with cache.attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
        pipe.scheduler = unipc()
        with pytest.warns(EasyTeaCacheWarning, match="promised under its own sampler alone"):
            assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
        # Said once.
        assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
        pipe.scheduler = euler
        assert torch.equal(sample(pipe, "wan", steps=STEPS), expected)


OTHER_LEVELS = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "terminal": {"shift_terminal": 0.2},
}


@pytest.mark.parametrize("levels", OTHER_LEVELS)
def test_over_other_noise_levels_another_point_is_used(levels):
    pipe = wan()
    record = record_of(levels_of(pipe, "wan"), PLAIN_POINT)
    pipe.scheduler = flow_matching(**OTHER_LEVELS[levels])
    assert is_euler(pipe.scheduler)
    with cache_of(record, speedup=1.75).attached(pipe) as cache:
        with pytest.warns(EasyTeaCacheWarning, match="carried over by their noise levels"):
            sample(pipe, "wan", steps=STEPS)
        assert (cache.policy.weights, cache.policy.evidence) == (None, "carried")
        assert len({run.pattern for run in cache.statistics().values()}) == 1
        pipe.scheduler = flow_matching()
        sample(pipe, "wan", steps=STEPS)
        assert cache.policy.weights == ROWS
        assert {run.pattern for run in cache.statistics().values()} == {"██·█··█"}


def test_noise_levels_of_the_caller_s_own_are_other_ones(pipelines):
    pipe = pipelines("flux")
    levels = levels_of(pipe, "flux")
    record = record_of(levels, PLAIN_POINT, length=64)
    with cache_of(record, speedup=1.75).attached(pipe) as cache:
        sample(pipe, "flux", steps=STEPS)
        assert cache.policy.weights == ROWS
        with pytest.warns(EasyTeaCacheWarning, match="other noise levels"):
            sample(pipe, "flux", steps=STEPS, sigmas=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
        assert cache.policy.weights is None
        sample(pipe, "flux", steps=STEPS)
        assert cache.policy.weights == ROWS


@pytest.mark.parametrize("profile", [True, False])
def test_a_run_that_begins_in_the_middle_is_not_corrected(profile, pipelines):
    text_to_image = pipelines("flux")
    record = record_of(levels_of(text_to_image, "flux"), PLAIN_POINT, profile=profile, length=64)
    pipe = diffusers.FluxImg2ImgPipeline.from_pipe(text_to_image)
    pipe.set_progress_bar_config(disable=True)
    # Without a profile nothing tells that the second half of a run is not the whole of one.
    told = pytest.warns(EasyTeaCacheWarning, match="other noise levels") if profile else contextlib.nullcontext()
    with cache_of(record, speedup=1.75).attached(pipe) as cache, told:
        result = pipe(
            prompt="a red fox",
            image=torch.zeros(1, 3, 16, 16),
            height=16,
            width=16,
            strength=0.5,
            num_inference_steps=2 * STEPS,
            max_sequence_length=16,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
        )
        assert torch.isfinite(result.images).all()
        [run] = cache.statistics().values()
        assert len(run.steps) == STEPS
        assert cache.policy.weights is None


def test_at_another_step_count_the_record_computes_or_carries_over(pipelines):
    pipe = pipelines("wan")
    levels = levels_of(pipe, "wan")
    plain = sample(pipe, "wan", steps=9)
    told = pytest.warns(EasyTeaCacheWarning, match="carried over by their noise levels")
    with told, cache_of(record_of(levels, PLAIN_POINT), speedup=1.75).attached(pipe) as cache:
        sample(pipe, "wan", steps=9)
    assert (cache.policy.weights, cache.policy.expected_error, cache.policy.refusal) == (None, None, None)
    told = pytest.warns(EasyTeaCacheWarning, match="every step is computed")
    with told, cache_of(record_of(levels, PLAIN_POINT, profile=False), speedup=1.75).attached(pipe):
        assert torch.equal(sample(pipe, "wan", steps=9), plain)
    # The threshold reaches another speed-up than was asked for, which is said, too.
    told = pytest.warns(EasyTeaCacheWarning, match=r"sigma profile carries it over|speed-up of 1\.75 was asked for")
    with told, cache_of(record_of(levels, THRESHOLD), speedup=1.75).attached(pipe) as cache:
        sample(pipe, "wan", steps=9)
    assert (cache.policy.weights, cache.policy.threshold, cache.policy.refusal) == (None, 0.5, None)
    assert "·" in cache.statistics()["cond"].pattern


def test_a_window_of_the_caller_s_own_over_a_record_s_plan(pipelines):
    pipe = pipelines("wan")
    record = record_of(levels_of(pipe, "wan"))
    with watched(pipe, cache_of(record, speedup=1.75, min_skip_step=3), Seen()) as seen:
        sample(pipe, "wan", steps=STEPS)
    # Step 2 is computed against the plan: from there on the last output is held.
    for step, k in ((2, 2), (3, 3), (4, 3), (5, 3), (6, 6)):
        assert torch.equal(seen.handed[0][step], seen.raw[0][k])
