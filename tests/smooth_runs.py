"""Runs with residual tensors we hold in our hands: smooth in sigma, different per run, branch and prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from easyteacache.records.sampler import EULER, SamplerRecord, euler_map
from easyteacache.records.trace_set import Trace, TraceHeader, TraceSet

Array = NDArray[np.float64]
DIMENSION = 48
GUIDANCE = 3.0


@dataclass(frozen=True)
class Made:
    """A trace and the tensors behind it: residuals and outputs by branch and ``guided``, (S, D) each."""

    trace: Trace
    residuals: dict[str, Array]
    outputs: dict[str, Array]


def sigmas(steps: int, shift: float) -> Array:
    """Flow-matching noise levels from 1 to 0, (S + 1,)."""
    u = np.linspace(1.0, 0.0, steps + 1)
    return np.asarray(shift * u / (1.0 + (shift - 1.0) * u))


def build_run(
    seed: int,
    *,
    steps: int = 20,
    shift: float = 3.0,
    length: int = 64,
    key: str = "test/smooth",
    roughness: float = 1.0,
    prompt: str | None = None,
    sampler: str = "Euler",
) -> Made:
    """One run of a fictitious model whose residual turns faster towards the image.

    Args:
        roughness: scales everything that changes along the run; with the key it makes a model.
        sampler: the scheduler's class; fitted weights take the runs of ``fitted.EULER`` alone.
    """
    rng = np.random.default_rng([seed, length])
    model = np.random.default_rng(abs(hash_of(key)))
    levels = sigmas(steps, shift)
    common = model.normal(size=(5, DIMENSION))
    branches = {
        name: 0.3 * rng.normal(size=(5, DIMENSION)) + common + offset
        for name, offset in (("cond", 0.1), ("uncond", 0.0))
    }
    pace = rng.uniform(0.8, 1.2)
    residuals = {name: _trajectory(levels[:-1], parts, roughness, pace) for name, parts in branches.items()}
    outputs = {
        name: values * (1.0 + 0.2 * levels[:-1, None]) + 0.05 * np.cos(3 * levels[:-1, None])
        for name, values in residuals.items()
    }
    for group in (residuals, outputs):
        group["guided"] = group["uncond"] + GUIDANCE * (group["cond"] - group["uncond"])
    header = TraceHeader(
        model_key=key,
        signals=("timestep_projection", "modulated_input", "hidden_states"),
        branches=("cond", "uncond"),
        num_steps=steps,
        sequence_length=length,
        sampler=sampler_record(sampler, levels),
        shift=shift,
        guidance_scale=GUIDANCE,
        prompt=prompt or f"prompt {seed % 7}",
        seed=seed,
    )
    return Made(_trace(header, levels, residuals, outputs, rng), residuals, outputs)


def build_set(runs: int, **settings: object) -> TraceSet:
    """Runs with seeds 0, 1, …"""
    return TraceSet(build_run(seed, **settings).trace for seed in range(runs))  # type: ignore[arg-type]


@pytest.fixture(name="make_run", scope="session")
def _make_run() -> Callable[..., Made]:
    return build_run


@pytest.fixture(name="make_set", scope="session")
def _make_set() -> Callable[..., TraceSet]:
    return build_set


def sampler_record(name: str, levels: Array) -> SamplerRecord:
    """The sampler of a run over these levels: measured where it is diffusers' Euler, else known by name alone."""
    if name == EULER:
        return SamplerRecord.euler(tuple(levels.tolist()))
    return SamplerRecord(name=name, calls=len(levels) - 1, prediction="velocity")


def hash_of(text: str) -> int:
    """A number from a text, the same in every process."""
    return int.from_bytes(text.encode()[-8:], "little")


def _trajectory(levels: Array, parts: Array, roughness: float, pace: float) -> Array:
    s = levels[:, None]
    late = np.exp(-6.0 * pace * s)
    return np.asarray(
        4.0 * parts[0]
        + roughness
        * (
            parts[1] * s
            + 2.0 * parts[2] * late
            + 0.4 * parts[3] * np.cos(4.0 * pace * s)
            + 0.1 * parts[4] * np.cos(14.0 * s)
        )
    )


def relative_l1(values: Array) -> Array:
    """mean|a − b| / mean|b| between consecutive rows, (S − 1,)."""
    return np.asarray(np.abs(np.diff(values, axis=0)).mean(axis=1) / np.abs(values[:-1]).mean(axis=1))


def _trace(
    header: TraceHeader, levels: Array, residuals: dict[str, Array], outputs: dict[str, Array], rng: np.random.Generator
) -> Trace:
    by_time = np.diff(-np.log(levels[:-1] + 0.05)) * 0.2
    truth = {name: relative_l1(residuals[name]) for name in header.branches}
    signal_distances = {
        "timestep_projection": dict.fromkeys(header.branches, by_time),
        "modulated_input": {b: np.sqrt(truth[b]) * rng.normal(1.0, 0.02, len(truth[b])) for b in header.branches},
        # Says nothing about the output: the signal a careless fit would gate on.
        "hidden_states": {b: rng.uniform(0.01, 0.2, len(truth[b])) for b in header.branches},
    }
    grams = {name: values @ values.T for name, values in residuals.items()}
    grams |= {f"output:{name}": values @ values.T for name, values in outputs.items()}
    known = header.sampler is not None and header.sampler.signature is not None
    sampler_map = euler_map(levels) if known else None
    return Trace(header, 1000.0 * levels[:-1], levels, signal_distances, truth, truth, grams, sampler_map)
