"""`easyteacache-hub resolve`: what the runtime would apply, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import (
    MODEL_KEY,
    NumberType,
    json_option,
    meant_by,
    one_target,
    operating_options,
    registry_option,
)

if TYPE_CHECKING:
    from easyteacache.policy.curves import Curve
    from easyteacache.policy.policy import Policy

# Where a curve without a domain is sampled: the distances that published models show within a run.
USUAL_DISTANCES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
SAMPLES = 8


@click.command("resolve")
@click.argument("key", type=MODEL_KEY, metavar="KEY|FILE")
@click.option(
    "--sequence-length", type=click.IntRange(min=1), help="Tokens of the generated stream entering the blocks."
)
@click.option("--steps", type=click.IntRange(min=1), help="Sampler steps of the run.")
@click.option("--shift", type=NumberType(min=0, min_open=True), help="Flow-matching time shift of the run.")
@operating_options
@click.option("--allow-yanked", is_flag=True, help="Resolve a yanked record all the same.")
@registry_option
@json_option
def resolve(
    key: str,
    sequence_length: int | None,
    steps: int | None,
    shift: float | None,
    threshold: float | None,
    speedup: float | None,
    max_error: float | None,
    quality: str | None,
    allow_yanked: bool,
    registry: Path | None,
    as_json: bool,
) -> None:
    """Show what the runtime applies for KEY, or the calibration in FILE, at one sequence length and sampler setting, with every choice it makes.

    Without --threshold, --speedup, --max-error or --quality the record's most cautious operating point is taken. For a speed-up or an error, all
    records of KEY's model are asked, and the one with the strongest evidence of those that hold for the run is taken.

    \b
    Examples:
      easyteacache-hub resolve wan2.1/t2v-14b --speedup 2 --steps 50
      easyteacache-hub resolve wan2.1/t2v-14b --sequence-length 32760
      easyteacache-hub resolve wan2.1/t2v-14b --steps 30 --threshold 0.15
      easyteacache-hub resolve flux.1/dev --speedup 1.5 --json
      easyteacache-hub resolve my-model.json --steps 50 --speedup 2

    \b
    JSON: model_key, revision, status, layer, class_name, signal, threshold,
      schedule, branch_schedules (each branch, computed, where they differ),
      weights (per step, or null), corrected, combined, noise_levels (where
      they hold, or null), fitted_for (the sampler that correcting weights
      were fitted for: name, calls, calls_per_step, prediction, levels,
      signature; or null), run_levels, forecaster, coordinate, applied_to,
      first_skip_step, last_skip_step, max_consecutive_skips, wished_limit
      (the caller's own), longest_run (where nobody states a limit), buckets
      (each sequence_length, num_steps, shift, weight), sequence_length,
      num_steps, shift,
      expected_speedup, expected_error, evidence (its kind, or null),
      figures (each metric, value), carried (why it is used for another run
      than it was made for, or null), doubtful, warnings, foreign, refusal
      (why every step is computed, or null), needs_sigma, recording (that the
      run is recorded, or null), curve (each x, y:
      null where the step is computed), profile (each sigma, distance, or
      null), notes
    """
    from easyteacache.policy.model_choice import ModelResolver
    from easyteacache.policy.request import request_and_run

    one_target(threshold, speedup, max_error, quality)
    request, run = request_and_run(
        sequence_length=sequence_length,
        num_steps=steps,
        shift=shift,
        threshold=threshold,
        speedup=speedup,
        max_error=max_error,
        quality=quality,
    )
    resolved = ModelResolver(meant_by(key, registry), allow_yanked=allow_yanked).policy(request, run)
    if as_json:
        text.echo_json(_content(resolved))
    else:
        click.echo("\n".join(_page(resolved)))


def _content(policy: Policy) -> dict[str, Any]:
    import dataclasses

    told_apart = ("curve", "profile", "buckets", "standing", "branch_schedules", "model", "class_name")
    kept = {name: value for name, value in vars(policy).items() if name not in told_apart}
    profile = policy.profile
    return {
        **kept,
        "class_name": None if policy.model is None else policy.model.class_name,
        "doubtful": policy.doubtful,
        "branch_schedules": [{"branch": name, "computed": steps} for name, steps in policy.branch_schedules],
        "evidence": policy.evidence,
        "figures": [{"metric": metric, "value": value} for metric, value in policy.standing.figures],
        "buckets": [dataclasses.asdict(share) for share in policy.buckets],
        "curve": [{"x": x, "y": None if math.isnan(y) else y} for x, y in _samples(policy.curve)],
        "profile": None
        if profile is None
        else [{"sigma": s, "distance": d} for s, d in zip(profile.sigmas, profile.distances, strict=True)],
    }


def _page(policy: Policy) -> Iterator[str]:
    yield click.style(policy.model_key, bold=True) + f"  revision {policy.revision}, layer {policy.layer}"
    yield text.fields(_facts(policy))
    yield text.heading("Buckets")
    columns = [text.Column(title, align="right") for title in ("LENGTH", "STEPS", "SHIFT", "WEIGHT")]
    shares = [
        (s.sequence_length, s.num_steps, s.shift and text.number(s.shift), f"{s.weight:.3f}") for s in policy.buckets
    ]
    yield text.table(columns, shares, indent="  ")
    points = [(f"{x:.4g}", "computed" if math.isnan(y) else f"{y:.4g}") for x, y in _samples(policy.curve)]
    if points:
        yield text.heading("Predicted output distance y for a signal distance x")
        yield text.table([text.Column("X", align="right"), text.Column("Y", align="right")], points, indent="  ")
    if policy.notes:
        yield text.heading("Notes")
        yield from (text.paragraph(note, indent="  ", bullet="- ") for note in policy.notes)


def _facts(policy: Policy) -> Iterator[tuple[str, object]]:
    yield "status", policy.status
    yield "signal", policy.signal
    if policy.schedule is None:
        yield "threshold", text.number(policy.threshold)
    else:
        for name, steps in policy.branch_schedules or (("", policy.schedule),):
            yield f"computes {name}".rstrip(), ", ".join(map(str, steps))
    yield "fill", f"{policy.forecaster}, over {policy.coordinate}, of the {policy.applied_to}"
    last = "the end" if policy.last_skip_step is None else policy.last_skip_step
    yield "skip window", f"{policy.first_skip_step} to {last}"
    yield "in a row", policy.max_consecutive_skips
    yield "reuses", "nothing, see the last note" if policy.refusal else None
    yield "speed-up", policy.expected_speedup and f"{policy.expected_speedup:.3g}x"
    yield "error", policy.expected_error and text.number(policy.expected_error, 3)
    figures = ", ".join(f"{metric} {value:g}" for metric, value in policy.standing.figures)
    yield "evidence", policy.evidence and (f"{policy.evidence}: {figures}" if figures else policy.evidence)
    yield (
        "profile",
        policy.profile and f"{len(policy.profile.sigmas)} noise levels; used where the sampler gives sigmas",
    )


def _samples(curve: Curve) -> list[tuple[float, float]]:
    from easyteacache.policy.curves import Polynomial

    if isinstance(curve, Polynomial) and not curve.coefficients:
        # The record has none: it is of computed steps.
        return []
    domain = _domain(curve)
    if domain is None:
        return [(x, curve(x)) for x in USUAL_DISTANCES]
    low, high = domain
    places = [low + (high - low) * i / (SAMPLES - 1) for i in range(SAMPLES)]
    return [(x, curve(x)) for x in places]


def _domain(curve: Curve) -> tuple[float, float] | None:
    """Everything that one of the blended fits saw; None where a fit does not say."""
    from easyteacache.policy.curves import Blend, Polynomial

    if isinstance(curve, Blend):
        parts = [_domain(curve.lower), _domain(curve.upper)]
    else:
        parts = [curve.domain if isinstance(curve, Polynomial) else None]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return min(low for low, _ in known), max(high for _, high in known)
