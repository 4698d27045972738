"""A small solved and validated calibration with its traces, made once for all tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from easyteacache.records.calibration import Calibration, load, save
from easyteacache.records.sampler import SamplerRecord
from easyteacache.records.trace_set import Trace, TraceHeader, TraceSet

KEY = "test/smooth"


def build_run(seed: int, *, key: str = KEY, steps: int = 12) -> Trace:
    """One run whose residual turns smoothly with sigma, and a signal that knows how fast."""
    rng = np.random.default_rng(seed)
    model = np.random.default_rng(len(key))
    u = np.linspace(1.0, 0.0, steps + 1)
    sigmas = 3 * u / (1 + 2 * u)
    s = sigmas[:-1, None]
    parts = model.normal(size=(4, 24)) + 0.2 * rng.normal(size=(4, 24))
    pace = rng.uniform(0.9, 1.1)
    residual = (
        4 * parts[0] + parts[1] * s + 2 * parts[2] * np.exp(-6 * pace * s) + 0.4 * parts[3] * np.cos(4 * pace * s)
    )
    truth = np.abs(np.diff(residual, axis=0)).mean(axis=1) / np.abs(residual[:-1]).mean(axis=1)
    header = TraceHeader(
        model_key=key,
        signals=("modulated_input",),
        branches=("cond",),
        num_steps=steps,
        sequence_length=64,
        sampler=SamplerRecord(name="Euler", calls=steps, prediction="velocity"),
        shift=3.0,
        prompt=f"prompt {seed}",
        recorded_at="2026-01-02",
        seed=seed,
    )
    signal = {"modulated_input": {"cond": truth**3 * rng.normal(1.0, 0.01, len(truth))}}
    output = residual * (1 + 0.2 * s)
    grams = {"cond": residual @ residual.T, "output:cond": output @ output.T}
    distances = {"cond": truth}
    return Trace(header, 1000 * sigmas[:-1], sigmas, signal, distances, distances, grams)


@dataclass(frozen=True)
class Solved:
    """A record that passes every rule, and where it and its traces lie."""

    record: Calibration
    path: Path
    traces: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Solved:
        """What ``solve_small`` wrote there."""
        return cls(load(folder / "record.json"), folder / "record.json", folder / "traces")

    def changed(self, **changes: Any) -> Calibration:
        """The record with top-level fields replaced; not saved."""
        return Calibration.from_mapping(json.loads(self.record.to_json()) | changes)


def solve_small(folder: Path, *, key: str = KEY, runs: int = 12, first_seed: int = 0, **labels: Any) -> Solved:
    """Record, solve and validate as the command line does."""
    from easyteacache.solver.solve import Labels, solve
    from easyteacache.solver.validation.validate import validate_files

    traces = folder / "traces"
    TraceSet(build_run(first_seed + seed, key=key) for seed in range(runs)).save(
        traces / f"{key.split('/')[-1]}.safetensors"
    )
    chosen = {"license": "CC0-1.0", "author": "A tester", "date": "2026-01-02", **labels}
    draft = solve(TraceSet.load(traces), labels=Labels(**chosen)).calibration
    path = folder / "record.json"
    record = Calibration.from_mapping(json.loads(draft.to_json()) | {"status": "validated"})
    save(record, path)
    report = validate_files(path, [traces])
    assert report.passed, report.text()
    return Solved(record, path, traces)
