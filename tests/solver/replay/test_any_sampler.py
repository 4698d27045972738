"""Replay by a sampler's map is a run of the real scheduler with the plan's outputs put in, whatever the scheduler."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.integrations.diffusers.scheduler_facts import SchedulerFacts, facts_of
from easyteacache.records.bucket import FITTED
from easyteacache.records.trace_set import Trace, TraceHeader
from easyteacache.runtime.corrector import tensor_corrector
from easyteacache.solver.replay.fitted_weights import StateFit, correctable
from easyteacache.solver.replay.plan_errors import PlanErrors
from easyteacache.solver.replay.predictor_rows import Filling, Rows
from easyteacache.solver.replay.runs import Runs

STEPS, SIZE = 16, 24
FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "euler, karras": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_karras_sigmas=True),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**FLOW),
    "unipc, shift 0.35": lambda: diffusers.UniPCMultistepScheduler(**{**FLOW, "flow_shift": 0.35}),
    "unipc, third order": lambda: diffusers.UniPCMultistepScheduler(**FLOW, solver_order=3),
    "unipc, no corrector at first": lambda: diffusers.UniPCMultistepScheduler(**FLOW, disable_corrector=[0, 1]),
    "unipc, epsilon": lambda: diffusers.UniPCMultistepScheduler(),
    "dpm++ 2m": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW),
    "dpm++ 3m": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW, solver_order=3),
    "deis": lambda: diffusers.DEISMultistepScheduler(**FLOW),
    "ddim, v": lambda: diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
    "cogvideox": lambda: diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction"),
    "edm": lambda: diffusers.EDMEulerScheduler(),
    "edm dpm": lambda: diffusers.EDMDPMSolverMultistepScheduler(),
}


def set_up(name: str) -> Any:
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(STEPS)
    return scheduler


@functools.cache
def facts_named(name: str) -> SchedulerFacts:
    found = facts_of(set_up(name))
    assert found is not None
    assert found.map is not None
    return found


def outputs(seed: int) -> np.ndarray:
    """(S, D) that turn smoothly along the run."""
    place = np.linspace(-1.0, 1.0, STEPS)[:, None]
    drawn = np.random.default_rng(seed).normal(size=(5, SIZE))
    return np.asarray(drawn[0] + drawn[1] * place + drawn[2] * np.sin(2 * place) + 0.1 * drawn[3] * np.cos(7 * place))


def run_of(name: str, seed: int) -> Trace:
    facts, values = facts_named(name), outputs(seed)
    levels = np.array(facts.levels)
    header = TraceHeader(
        model_key="test/any", signals=(), branches=("cond",), num_steps=STEPS, sequence_length=64, seed=seed,
        sampler=facts.record().model_copy(update={"levels": None}),
    )  # fmt: skip
    one, gram = {"cond": np.ones(STEPS - 1)}, values @ values.T
    # Some samplers count levels beyond 1 or keep a last one above 0: nothing here depends on them.
    falling = np.linspace(1.0, 0.0, STEPS + 1) if np.any(np.diff(levels) >= 0) else levels
    times = np.linspace(1000.0, 10.0, STEPS)
    return Trace(header, times, falling, {}, one, one, {"cond": gram, "output:cond": gram}, facts.map)


@functools.cache
def runs_of(name: str) -> Runs:
    return Runs.stack([run_of(name, seed) for seed in range(6)])


def sampled(name: str, handed: Callable[[int], torch.Tensor]) -> np.ndarray:
    """The real scheduler's sample (D,) when it is handed these outputs."""
    scheduler, state = set_up(name), torch.zeros(1, SIZE, 1, 1, dtype=torch.float64)
    for step, timestep in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(state, timestep)
        state = scheduler.step(handed(step)[None, :, None, None], timestep, state, return_dict=False)[0]
    return np.asarray(state.flatten().numpy())


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, ...]:
    return (0, *sorted(draw(st.sets(st.integers(1, STEPS - 1), min_size=1, max_size=9))))


@st.composite
def weights(draw: st.DrawFn, schedule: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    number = st.floats(-2.0, 2.0)
    rows = [tuple(draw(number) for _ in range(min(3, sum(k <= j for k in schedule)))) for j in range(STEPS)]
    return ((1.0,), *rows[1:])


def handed_by(name: str, filling: Filling, schedule: tuple[int, ...], values: np.ndarray) -> list[torch.Tensor]:
    """What the runtime hands on at every step, computed outputs being ``values`` whatever the state."""
    tensors = torch.from_numpy(values)
    if filling.forecaster == FITTED:
        assert filling.weights is not None
        rows = [[k for k in schedule if k <= j][-len(row) :] for j, row in enumerate(filling.weights)]
        return [
            sum(w * tensors[k] for w, k in zip(row, places, strict=True))
            for row, places in zip(filling.weights, rows, strict=True)
        ]
    plain = Filling(filling.forecaster, filling.coordinate, filling.applied_to)
    filled = torch.from_numpy((Rows(plain, runs_of(name)).matrix(schedule) + np.eye(STEPS)) @ values)
    if filling.weights is None:
        return list(filled)
    corrected = tensor_corrector(filling.weights, schedule)
    steps = facts_named(name).steps
    return [corrected.handed(j, value, steps, computed=j in schedule) for j, value in enumerate(filled)]


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_replay_is_the_scheduler_s_own_run(name: str, data: st.DataObject) -> None:
    schedule = data.draw(schedules())
    kind = data.draw(st.sampled_from(["hold", "linear", "foca", "fitted", "corrected"]))
    seed, runs = data.draw(st.integers(0, 5)), runs_of(name)
    filling = Filling(kind if kind in ("hold", "linear", "foca") else "linear", "step", "output")
    if kind == "corrected":
        filling = dataclasses.replace(filling, weights=data.draw(weights(schedule)))
    elif kind == "fitted":
        filling = Filling(FITTED, "step", "output", data.draw(weights(schedule)))
    values = outputs(seed)
    handed = handed_by(name, filling, schedule, values)
    exact = sampled(name, lambda step: torch.from_numpy(values[step]))
    found = sampled(name, lambda step: handed[step])
    predicted = PlanErrors(runs, view=np.zeros(STEPS)).errors(schedule, filling)[seed]
    difference = float(np.linalg.norm(found - exact)) / runs.displacement[seed]
    assert predicted == pytest.approx(difference, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_fitted_weights_end_nearer_than_any_prediction(name: str) -> None:
    runs, schedule = runs_of(name), (0, 1, 3, 5, 7, 9, 11, 13, 14)
    assert correctable(runs)
    errors = PlanErrors(runs, view=np.zeros(STEPS))
    rows = StateFit(runs).weights(schedule)
    fitted = errors.errors(schedule, Filling(FITTED, "step", "output", rows)).mean()
    plain = [errors.errors(schedule, Filling(each, "step", "output")).mean() for each in ("hold", "linear", "foca")]
    assert fitted < 0.5 * min(plain)


def test_a_sampler_that_draws_noise_is_not_corrected() -> None:
    for scheduler in (
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True),
        diffusers.DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"),
    ):
        scheduler.set_timesteps(STEPS)
        found = facts_of(scheduler)
        assert found is not None
        assert (found.map, found.steps) == (None, None)
