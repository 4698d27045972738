"""Plans that correct computed steps, on a whole pipeline under samplers of every kind: the model sees the states that replay says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import flow_matching, sample, wan

from easyteacache import TeaCache
from easyteacache.errors import EasyTeaCacheWarning
from easyteacache.integrations.diffusers.scheduler_facts import facts_of
from easyteacache.records.calibration import Calibration
from easyteacache.records.sampler import SamplerRecord
from easyteacache.solver.replay.fitted_weights import matrix
from easyteacache.solver.replay.handed import handed_rows

STEPS, GUIDANCE = 7, 5.0
SCHEDULE = (0, 1, 3, 6)
ROWS = ((1.0,), (-0.4, 1.4), (-1.0, 2.0), (0.3, -0.9, 1.6), (0.2, -1.1, 1.9), (0.5, -2.0, 2.5), (-0.25, 0.5, 0.75))
PLAN: dict[str, Any] = {"schedule": SCHEDULE, "weights": ROWS, "applied_to": "output", "num_steps": STEPS}
FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


class Ddim(diffusers.DDIMScheduler):
    """Takes what Wan's pipeline tells its scheduler, and has what it asks for."""

    @property
    def sigmas(self) -> torch.Tensor:
        return torch.cat(((1.0 - self.alphas_cumprod[self.timesteps]).sqrt(), torch.zeros(1)))

    def set_begin_index(self, begin_index: int = 0) -> None:
        pass


SCHEDULERS: dict[str, Callable[[], Any]] = {
    "euler": flow_matching,
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**FLOW),
    "unipc, third order": lambda: diffusers.UniPCMultistepScheduler(**FLOW, solver_order=3),
    "dpm++ 2m": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW),
    "deis": lambda: diffusers.DEISMultistepScheduler(**FLOW),
    "ddim": lambda: Ddim(prediction_type="v_prediction", clip_sample=False),
    "edm": lambda: diffusers.EDMEulerScheduler(),
}
NOISY: dict[str, Callable[[], Any]] = {
    "stochastic euler": lambda: flow_matching(stochastic_sampling=True),
    "sde": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"),
}


def piped(build: Callable[[], Any]) -> Any:
    pipe = wan()
    pipe.scheduler = build()
    return pipe


def sampler_of(pipe: Any) -> SamplerRecord:
    sample(pipe, "wan", steps=STEPS, guidance_scale=GUIDANCE)
    facts = facts_of(pipe.scheduler)
    assert facts is not None
    return facts.record()


def held() -> np.ndarray:
    rows = np.zeros((STEPS, STEPS))
    for step in range(STEPS):
        rows[step, max(place for place in SCHEDULE if place <= step)] = 1.0
    return rows


@pytest.mark.parametrize("filled", ["fitted", "hold"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_model_sees_the_states_that_replay_says(name: str, filled: str, make_cache: Any) -> None:
    pipe = piped(SCHEDULERS[name])
    sampler = sampler_of(pipe)
    made = make_cache(**PLAN, forecaster=filled, fitted_for=sampler)
    states, raw = list[torch.Tensor](), list[torch.Tensor]()
    handles = [
        pipe.transformer.register_forward_pre_hook(
            lambda module, args, kwargs: states.append(kwargs["hidden_states"].double().clone()), with_kwargs=True
        ),
        pipe.transformer.register_forward_hook(lambda module, args, output: raw.append(output[0].double().clone())),
    ]
    with made.attached(pipe) as cache:
        final = sample(pipe, "wan", steps=STEPS, guidance_scale=GUIDANCE).double()
        assert cache.statistics()["cond"].pattern == "██·█··█"
    for handle in handles:
        handle.remove()
    facts = facts_of(pipe.scheduler)
    assert facts is not None
    guided = torch.stack(
        [uncond + GUIDANCE * (cond - uncond) for cond, uncond in zip(raw[::2], raw[1::2], strict=True)]
    )
    fill = matrix(SCHEDULE, ROWS, STEPS) if filled == "fitted" else held()
    for step in SCHEDULE:
        fill[step] = np.eye(STEPS)[step]
    handed = torch.from_numpy(handed_rows(SCHEDULE, ROWS, fill, facts.steps))
    assert facts.map is not None
    sampler_map, noise = torch.from_numpy(facts.map.copy()), states[0] / facts.map[0, 0]
    outputs = torch.einsum("st,t...->s...", handed, guided)
    expected = torch.einsum("ks,s...->k...", sampler_map[:, 1:], outputs)
    expected += torch.einsum("k,...->k...", sampler_map[:, 0], noise)
    scale = float(expected.abs().max())
    for step in range(STEPS):
        torch.testing.assert_close(states[2 * step], expected[step], rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(final, expected[-1], rtol=1e-4, atol=1e-5 * scale)


# What numpy says of a scheduler of diffusers comes out of the block again.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("other", ["unipc", "dpm++ 2m"])
def test_rows_of_one_sampler_are_not_used_under_another(other: str, make_cache: Any) -> None:
    euler = sampler_of(piped(flow_matching))
    made = make_cache(**PLAN, forecaster="fitted", fitted_for=euler)
    pipe = piped(SCHEDULERS[other])
    plain = sample(pipe, "wan", steps=STEPS)
    with made.attached(pipe) as cache:
        with pytest.warns(EasyTeaCacheWarning, match="every step is computed"):
            found = sample(pipe, "wan", steps=STEPS)
        assert torch.equal(found, plain)
        assert "FlowMatchEulerDiscreteScheduler" in cache.policy.refusal


# What numpy says of a scheduler of diffusers comes out of the block again.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", NOISY)
def test_under_a_sampler_that_adds_noise_nothing_is_corrected_and_that_is_said(name: str, make_cache: Any) -> None:
    pipe = piped(NOISY[name])
    made = make_cache(**PLAN, forecaster="fitted", fitted_for=sampler_of(piped(SCHEDULERS["unipc"])))
    torch.manual_seed(0)
    plain = sample(pipe, "wan", steps=STEPS)
    with made.attached(pipe) as cache:
        torch.manual_seed(0)
        with pytest.warns(EasyTeaCacheWarning, match="every step is computed"):
            found = sample(pipe, "wan", steps=STEPS)
        assert torch.equal(found, plain)
        assert "UniPCMultistepScheduler" in cache.policy.refusal


def record_of(sampler: SamplerRecord) -> Calibration:
    plan = {"computed": SCHEDULE, "applied_to": "output", "corrected": True, "rows": ROWS}
    bucket = {
        "sequence_length": 8,
        "num_steps": STEPS,
        "shift": 3.0,
        "coefficients": [1.0, 0.0],
        "sampler": sampler.model_dump(),
        "operating_points": [{"plan": plan, "computed_steps": 4}],
    }
    content = {"schema_version": 3, "model_key": "toy/model", "revision": 1, "status": "draft", "title": "Toy"}
    content |= {"modality": "video", "method": "teacache", "signal": "timestep_projection", "provenance": {}}
    return Calibration.from_mapping({**content, "buckets": [bucket]})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_record_s_corrected_plan_is_used_under_its_own_sampler_alone(make_source_cache: Any) -> None:
    pipe = piped(SCHEDULERS["unipc"])
    cache = make_source_cache(record_of(sampler_of(pipe)), speedup=1.75)
    with cache.attached(pipe):
        sample(pipe, "wan", steps=STEPS)
        assert cache.policy.weights == ROWS
        assert cache.statistics()["cond"].pattern == "██·█··█"
        pipe.scheduler = SCHEDULERS["dpm++ 2m"]()
        with pytest.warns(EasyTeaCacheWarning):
            sample(pipe, "wan", steps=STEPS)
        assert cache.policy.weights is None


@pytest.fixture
def make_source_cache() -> Callable[..., TeaCache]:
    from easyteacache.policy.request import request_and_run
    from easyteacache.policy.source import Resolver
    from easyteacache.registry.registry import Found
    from easyteacache.runtime.session import Session

    def made(record: Calibration, **wish: Any) -> TeaCache:
        source = Resolver(Found(record, "given", record.model_key))
        return TeaCache(-1, _session=Session(source, *request_and_run(**wish)))

    return made
