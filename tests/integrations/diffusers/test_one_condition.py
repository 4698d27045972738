"""A valid pair of record and run, one condition changed at random: within its promise, told of and computed, or refused.

``tests/policy/test_truth.py`` does the same to what is resolved; here whole runs are sampled.
"""

from __future__ import annotations

import copy
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from easyteacache import TeaCache
from easyteacache.errors import AttachError, EasyTeaCacheWarning
from easyteacache.integrations.diffusers import model_identity
from easyteacache.records.calibration import save
from easyteacache.reference.pipeline import MovingDigitsPipeline, load_pipeline
from easyteacache.registry.registry import Registry

KEY = "reference/moving-digits"
#: Times the promised error, which is a mean over prompts, that one sample may be off.
SLACK = 3.0
STEPS = 25
#: Class and thread are changed in tests of their own.
KINDS = ("sampler", "steps", "begin", "length", "dtype", "adapters", "prompt", "guidance")


class Adapted(torch.nn.Linear):
    """A linear layer with an adapter, as far as layers of peft are read."""

    def __init__(self, layer: Any, weight: float) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.scaling, self.active_adapters = {"style": weight}, ["style"]
        self.disable_adapters, self.merged_adapters = False, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.scaling["style"] * x.sum(-1, keepdim=True)


@pytest.fixture(scope="module")
def reference() -> MovingDigitsPipeline:
    return load_pipeline()


def of(reference: Any, scheduler: Any = None, *, own: bool = False) -> Any:
    """A pipeline that says of its run what most say: the branch, and nothing more."""
    transformer = copy.deepcopy(reference.transformer) if own else reference.transformer
    pipe = MovingDigitsPipeline(transformer, scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0))
    pipe.set_progress_bar_config(disable=True)
    pipe._cache_context = lambda branch, step: pipe.transformer.cache_context(branch)
    return pipe


def sampled(pipe: Any, **call: Any) -> torch.Tensor:
    call = {"prompt": "7 up", "num_inference_steps": STEPS, "seeds": [1], "output_type": "latent", **call}
    return pipe(**call).frames


def change_prompt(at: int) -> dict[str, Any]:
    def change(pipe: Any, step: int, timestep: Any, state: Any) -> Any:
        return {**state, "prompt_embeds": pipe.encode_prompt("3 down")[0]} if step == at else state

    return {"callback_on_step_end": change}


def begin_in_the_middle(pipe: Any, first: int) -> torch.Tensor:
    """As pipelines with ``strength`` do that tell their scheduler nothing."""
    cond, uncond = pipe.encode_prompt("7 up")
    noise = torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    state = {"latents": noise, "prompt_embeds": cond, "negative_prompt_embeds": uncond}
    pipe._guidance_scale = 3.0
    pipe.scheduler.set_timesteps(STEPS)
    with torch.no_grad():
        for step, timestep in enumerate(pipe.scheduler.timesteps[first:]):
            velocity = pipe._guided_velocity(state, step=step, timestep=timestep)
            state["latents"] = pipe.scheduler.step(velocity, timestep, state["latents"], return_dict=False)[0]
    pipe.maybe_free_model_hooks()
    return state["latents"]


def differs(kind: str, draw: Any, reference: Any) -> tuple[Any, Any]:
    """Two functions: one makes a pipeline in which ``kind`` is changed, the other samples with it."""
    if kind == "sampler":
        options = draw(
            st.sampled_from([{"shift": 5.0}, {"use_karras_sigmas": True}, {"stochastic_sampling": True}, {"order": 3}])
        )
        # Of order 2 the record has buckets of its own.
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0, "solver_order": 3}
        if "order" in options:
            return lambda: of(reference, UniPCMultistepScheduler(**flow)), sampled
        return lambda: of(reference, FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **options})), sampled
    if kind == "steps":
        steps = draw(st.integers(8, 40).filter(lambda n: n != STEPS))
        return lambda: of(reference), lambda pipe: sampled(pipe, num_inference_steps=steps)
    if kind == "begin":
        first = draw(st.integers(1, 20))
        return lambda: of(reference), lambda pipe: begin_in_the_middle(pipe, first)
    if kind == "length":
        size = draw(st.sampled_from([{"num_frames": 2}, {"height": 24}, {"num_frames": 1, "height": 26}]))
        return lambda: of(reference), lambda pipe: sampled(pipe, **size)
    if kind == "dtype":
        return lambda: of(reference, own=True).to(torch.bfloat16), sampled
    if kind == "adapters":
        weight = draw(st.floats(0.0, 0.01))

        def adapted() -> Any:
            pipe = of(reference, own=True)
            for block in pipe.transformer.blocks:
                block.attn1.to_q = Adapted(block.attn1.to_q, weight)
            pipe.transformer.requires_grad_(False)
            return pipe

        return adapted, sampled
    if kind == "guidance":
        scale = draw(st.floats(4.0, 9.0))
        return lambda: of(reference), lambda pipe: sampled(pipe, guidance_scale=scale)
    at = draw(st.integers(2, STEPS - 3))
    return lambda: of(reference), lambda pipe: sampled(pipe, **change_prompt(at))


def run(make: Any, sample: Any) -> tuple[TeaCache, torch.Tensor, torch.Tensor, list[str]]:
    """The cache, what was sampled with and without it, and what it warned of."""
    torch.manual_seed(3)
    plain = sample(make())
    torch.manual_seed(3)
    pipe, cache = make(), TeaCache.from_registry(KEY, speedup=2.0)
    with warnings.catch_warnings(record=True) as caught, cache.attached(pipe):
        warnings.simplefilter("always")
        found = sample(pipe)
    return cache, found, plain, [str(one.message) for one in caught if issubclass(one.category, EasyTeaCacheWarning)]


@pytest.mark.slow
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_one_condition_changed_is_kept_told_of_or_refused(reference: Any, data: Any) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    cache, found, plain, told = run(*differs(kind, data.draw, reference))
    off = float(torch.linalg.vector_norm(found - plain) / torch.linalg.vector_norm(plain))
    policy = cache.policy
    if policy.refusal is not None:
        assert any(policy.refusal in text for text in told)
        assert torch.equal(found, plain)
    elif told:
        # What the record's own sampler promises is what another run may be off, but for number types of their own error.
        assert policy.expected_error is None
        assert off <= (0.1 if kind == "dtype" else SLACK * 0.0094)
    else:
        assert kind in ("prompt", "length")
        assert policy.expected_error is not None
        assert off <= SLACK * policy.expected_error


def test_the_first_step_with_another_prompt_computes_in_that_branch_alone(reference: Any) -> None:
    cache, _, _, told = run(
        lambda: of(reference), lambda pipe: sampled(pipe, num_inference_steps=25, **change_prompt(9))
    )
    patterns = {name: one.pattern for name, one in cache.statistics().items()}
    assert told == []
    assert patterns["cond"][10] == "█"


@pytest.mark.parametrize("changed", ["class_name", "configuration_sha256"])
def test_another_class_or_configuration_is_refused(changed: str, reference: Any, tmp_path: Path) -> None:
    record = Registry.default().find(KEY).calibration
    own = model_identity.of_class(reference.transformer)
    path = tmp_path / "record.json"
    save(record.model_copy(update={"model": own}), path)
    TeaCache.from_file(path, speedup=2.0).attach(of(reference)).detach()
    other = own.model_copy(update={changed: "FluxTransformer2DModel" if changed == "class_name" else "0" * 64})
    save(record.model_copy(update={"model": other}), path)
    with pytest.raises(AttachError, match=r"another configuration|runs in FluxTransformer2DModel"):
        TeaCache.from_file(path, speedup=2.0).attach(of(reference))


def test_another_thread_s_run_is_computed_with_a_word_or_has_a_run_of_its_own(reference: Any) -> None:
    plain = sampled(of(reference), num_inference_steps=14)
    for sessions in (None, "thread"):
        first, second = of(reference), of(reference)
        halfway, done, found = threading.Event(), threading.Event(), {}

        def pause(pipe: Any, step: int, timestep: Any, state: Any) -> Any:
            if step == 3:
                halfway.set()  # noqa: B023
                done.wait(60)  # noqa: B023
            return state

        cache = TeaCache.from_registry(KEY, speedup=2.0)
        with warnings.catch_warnings(record=True) as told, cache.attached(first, sessions=sessions):
            warnings.simplefilter("always")
            thread = threading.Thread(
                target=lambda: found.update(a=sampled(first, num_inference_steps=14, callback_on_step_end=pause))  # noqa: B023
            )
            thread.start()
            halfway.wait(60)
            found["b"] = sampled(second, num_inference_steps=14)
            done.set()
            thread.join()
        texts = [str(one.message) for one in told]
        assert not torch.equal(found["a"], plain)
        assert torch.equal(found["b"], plain) == (sessions is None)
        assert torch.equal(found["b"], found["a"]) == (sessions == "thread")
        assert any("another thread" in text for text in texts) == (sessions is None)
