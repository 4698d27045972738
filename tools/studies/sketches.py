"""Measure what sketches cost in accuracy: forecasts' error norms from sketched and from exact Gram matrices.

python tools/studies/sketches.py                    # the table of docs/recording.md
python tools/studies/sketches.py --seeds 1 --steps 20
"""

from __future__ import annotations

from typing import cast

import click
import numpy as np
import torch

from easyteacache.integrations.diffusers.recording import Job, RecordingSettings, record_run
from easyteacache.recording.recorder import SketchChoice
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import Trace
from easyteacache.reference import load_pipeline
from easyteacache.runtime.predictors import Predictor, predictor

CASES = (
    ("count", 65_536),
    ("count", 16_384),
    ("count", 8_192),
    ("count", 4_096),
    ("tokens", 65_536),
    ("tokens", 16_384),
)
FORECASTERS = ("hold", "linear", "quadratic", "foca")
GAPS = (1, 2, 4)
GRAMS = ("cond", "uncond", "guided")


def error_norms(gram: Array) -> Array:
    """Error norms of every forecaster at every gap and step, one after the other."""
    rows = [
        _weights(predictor(name), gap=gap, step=step, steps=len(gram))
        for name in FORECASTERS
        for gap in GAPS
        for step in range(predictor(name).history * gap, len(gram))
    ]
    weights = np.stack(rows)
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", weights, gram, weights)))


def _weights(chosen: Predictor, *, gap: int, step: int, steps: int) -> Array:
    anchors = [step - gap * back for back in range(chosen.history, 0, -1)]
    weights = np.zeros(steps)
    weights[anchors] = chosen.weights([float(anchor) for anchor in anchors], float(step))
    weights[step] -= 1.0
    return weights


def relative_errors(sketched: Trace, exact: Trace) -> Array:
    """How far the sketched error norms are off, relative, over all forecasts and residual Grams."""
    return np.concatenate([error_norms(sketched.grams[name]) / error_norms(exact.grams[name]) - 1 for name in GRAMS])


@click.command()
@click.option("--steps", default=30, show_default=True, help="Sampler steps.")
@click.option("--seeds", default=2, show_default=True, help="Sketch seeds to average over.")
def main(steps: int, seeds: int) -> None:
    """Print a table of dimension, stated and measured error on the reference model at 8 frames of 32x32."""
    torch.set_num_threads(1)
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    job = Job("3 right", seed=1, width=32, height=32, frames=8, num_steps=steps, shift=3.0, guidance_scale=3.0)

    def record(sketch: SketchChoice, dimension: int = 1, seed: int = 0) -> Trace:
        settings = RecordingSettings(model_key="test/sketch", sketch=sketch, dimension=dimension, sketch_seed=seed)
        return record_run(pipe, job, settings)[0]

    exact = record(None)
    click.echo(f"{exact.header.sequence_length} tokens, {steps} steps")
    for kind, dimension in CASES:
        traces = [record(cast(SketchChoice, kind), dimension, seed) for seed in range(seeds)]
        wrong = np.concatenate([relative_errors(trace, exact) for trace in traces])
        stated = np.mean([trace.header.sketch.relative_error for trace in traces if trace.header.sketch])
        root_mean_square, worst = np.sqrt(np.mean(wrong**2)), np.abs(wrong).max()
        click.echo(f"{kind:>7} {dimension:>7}: stated {stated:.2%}, measured {root_mean_square:.2%}, worst {worst:.1%}")


if __name__ == "__main__":
    main()
