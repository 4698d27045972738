"""Where an engine would compute something else than what a record was calibrated for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from easyteacache.export.engine import Engine, Model
from easyteacache.export.numbers import SAMPLES, USUAL_RANGE, Numbers
from easyteacache.policy.curves import Polynomial
from easyteacache.records.bucket import FITTED
from easyteacache.records.calibration import Calibration

Rule = Literal[
    "model", "signal", "method", "order", "abs", "window", "plan", "steps", "threshold", "forecast", "domain"
]

# Computing one step more or less at the very end is what every engine does differently.
TOLERATED_STEPS = 1
# Stands for a step count that is not known where only distances from its end matter.
FAR = 1_000_000


@dataclass(frozen=True)
class Difference:
    """One thing that the engine does otherwise.

    Attributes:
        rule: stable name, as ``--allow`` takes it.
        refuses: True when the numbers would mean something else; False when it is enough to know.
        text: what was expected and what the engine does, one or two sentences.
    """

    rule: Rule
    refuses: bool
    text: str


def of_record(engine: Engine, record: Calibration) -> Difference | None:
    """Why ``engine`` has no use for a record, whatever its operating point; None when it has."""
    key, method = record.model_key, record.method
    if method not in engine.methods:
        return Difference("method", True, f"{engine.title} cannot run {method} with numbers of its caller's.")
    if engine.models is None or engine.model_for(key, method) is not None:
        return None
    known = ", ".join(model.keys for model in engine.models if method in model.methods)
    return Difference("model", True, f"{engine.title} was read to run {method} for {known}; {key} is none of these.")


def of_numbers(engine: Engine, numbers: Numbers) -> tuple[Difference, ...]:
    """Every difference between what the numbers mean and what ``engine`` would do with them; refusals first."""
    return tuple(sorted(_find(engine, numbers), key=lambda difference: not difference.refuses))


def _find(engine: Engine, numbers: Numbers) -> Iterator[Difference]:
    method = numbers.record.method
    model = engine.model_for(numbers.record.model_key, method)
    yield from _plan(engine, numbers)
    if method == "magcache":
        yield from _ratios(engine, numbers)
    elif not engine.evaluates_as_recorded:
        if model is not None:
            yield from _signal(engine, model, numbers)
        if engine.plan == "threshold":
            yield from _order(engine, numbers)
            yield from _sign(engine, model, numbers)
            yield from _domain(engine, numbers)
    if method == "teacache":
        yield from _window(engine, numbers)


def _signal(engine: Engine, model: Model, numbers: Numbers) -> Iterator[Difference]:
    found = numbers.record.signal
    if found == "unknown":
        yield Difference("signal", True, "The record does not say which signal its numbers were fitted to.")
    elif found not in model.signals:
        measures = " or ".join(sorted(model.signals)) or "no signal"
        yield Difference(
            "signal", True, f"The numbers were fitted to {found}, {engine.title} measures {measures} for this model."
        )


def _plan(engine: Engine, numbers: Numbers) -> Iterator[Difference]:
    if engine.plan == "schedule" and numbers.schedule is None:
        yield Difference(
            "plan",
            True,
            f"{engine.title} takes a schedule, this operating point is a threshold. `easyteacache solve` finds schedules from traces.",
        )
    if engine.plan == "threshold" and engine.takes_threshold and numbers.schedule is not None:
        yield Difference(
            "plan", True, f"This operating point is a schedule, {engine.title} takes a threshold. Pass --threshold."
        )
    if engine.plan == "threshold" and engine.takes_threshold and numbers.schedule is None and numbers.threshold is None:
        yield Difference("threshold", True, "A threshold of 0 reuses nothing. Pass --threshold or --speedup.")
    if not engine.takes_threshold and numbers.threshold is not None:
        told = f"{engine.title} takes the threshold outside this file: {numbers.threshold:g}."
        yield Difference("threshold", False, told)
    if engine.plan == "threshold" and numbers.schedule is None and numbers.forecaster != "hold":
        yield Difference(
            "forecast",
            False,
            f"This operating point was judged with the forecaster {numbers.forecaster}; {engine.title} repeats the last residual, "
            "so speed-up and error will differ.",
        )
    if engine.plan == "either" and numbers.forecaster == FITTED:
        # Of this rule, because no permission gives the format a place for them.
        told = f"This operating point fills reused steps with weights of its own, which {engine.title} does not hold."
        yield Difference("plan", True, told)


def _order(engine: Engine, numbers: Numbers) -> Iterator[Difference]:
    assert numbers.coefficients is not None
    if engine.coefficients is not None and len(numbers.coefficients) > engine.coefficients:
        yield Difference(
            "order",
            True,
            f"{engine.title} takes {engine.coefficients} coefficients, the polynomial has {len(numbers.coefficients)}. "
            "With traces, --refit --traces DIR fits one that it can evaluate.",
        )


def _sign(engine: Engine, model: Model | None, numbers: Numbers) -> Iterator[Difference]:
    """Compare the curve as the record means it with the one that the engine evaluates, over the distances that occur."""
    assert numbers.coefficients is not None
    post = "none" if model is None else model.post
    theirs, ours = Polynomial(numbers.coefficients, post=post), numbers.curve
    low, high = numbers.domain or USUAL_RANGE
    places = [low + (high - low) * i / (SAMPLES - 1) for i in range(SAMPLES)]
    scale = max(abs(ours(x)) for x in places)
    differing = [x for x in places if abs(ours(x) - theirs(x)) > 1e-9 * scale]
    if not differing:
        return
    worst = max(differing, key=lambda x: abs(ours(x) - theirs(x)))
    meant = {"none": "p(x)", "abs": "|p(x)|", "clip": "max(p(x), 0)"}[numbers.post]
    meant = "max(p(x), 0)" if numbers.domain is not None and numbers.post == "none" else meant
    does = {"none": "p(x)", "abs": "|p(x)|"}[post]
    yield Difference(
        "abs",
        True,
        f"The record means {meant}, {engine.title} accumulates {does}, and p goes negative within "
        f"[{low:.4g}, {high:.4g}]: at x = {worst:.4g} they are {ours(worst):.4g} and {theirs(worst):.4g}. "
        "With traces, --refit --traces DIR fits a polynomial that stays positive.",
    )


def _domain(engine: Engine, numbers: Numbers) -> Iterator[Difference]:
    if numbers.domain is None:
        return
    low, high = numbers.domain
    bare, ours = Polynomial(numbers.coefficients or ()), numbers.curve
    outside = [x for x in (0.0, 1.5 * high) if abs(bare(x) - ours(x)) > 1e-6 * max(abs(ours(x)), 1e-12)]
    if outside:
        shown = ", ".join(f"p({x:.4g}) = {bare(x):.4g} instead of {ours(x):.4g}" for x in outside)
        yield Difference(
            "domain",
            False,
            f"The fit saw distances from {low:.4g} to {high:.4g}; outside {engine.title} evaluates it all the same: {shown}.",
        )


def engine_window(engine: Engine, numbers: Numbers) -> tuple[int, int | None]:
    """Inclusive range of steps that ``engine`` may reuse with these numbers; None for the end, negative counts from it."""
    if engine.window == "retention":
        return (5, None) if numbers.record.signal == "timestep_projection" else (1, -2)
    if engine.window == "first":
        return 1, None
    if engine.window == "ends":
        return 1, -2
    if engine.window == "start":
        return numbers.first, -2
    return numbers.first, numbers.last


def _window(engine: Engine, numbers: Numbers) -> Iterator[Difference]:
    shares = numbers.fraction if numbers.num_steps is None and numbers.fraction != (0.0, 1.0) else None
    if shares is not None and engine.window != "user" and not engine.evaluates_as_recorded:
        yield Difference(
            "steps", True, "The window is a share of the run, whose step count is not known. Pass --steps."
        )
        return
    if numbers.schedule is None and numbers.last is not None and 0 <= numbers.last < numbers.first:
        yield Difference("steps", True, "The skip window reuses nothing at this step count.")
        return
    if engine.window == "user":
        yield Difference(
            "window", False, f"{engine.title} takes the window outside this file: {_told(numbers, shares)}."
        )
        return
    more = _steps_more(numbers, *engine_window(engine, numbers))
    if more:
        yield Difference(
            "window",
            more > TOLERATED_STEPS,
            f"The record allows reuse in steps {numbers.first} to {_end(numbers)}; {engine.title} may also reuse {more} "
            f"step{'s' * (more > 1)} outside.",
        )
    if numbers.limit is not None and not engine.takes_limit and engine.plan == "threshold":
        yield Difference(
            "window",
            False,
            f"The record reuses at most {numbers.limit} steps in a row; {engine.title} has no such limit.",
        )


def _told(numbers: Numbers, shares: tuple[float, float] | None) -> str:
    if shares is not None:
        return f"allow reuse between {shares[0]:.4g} and {shares[1]:.4g} of the run"
    of = f" of {numbers.num_steps}" if numbers.num_steps else ""
    return f"allow reuse from step {numbers.first} to {_end(numbers)}{of}"


def _end(numbers: Numbers) -> str:
    if numbers.last is None:
        return "the end"
    return str(numbers.last) if numbers.last >= 0 else f"{-numbers.last} steps before the end"


def _steps_more(numbers: Numbers, first: int, last: int | None) -> int:
    """How many steps the engine may reuse that the record does not allow."""
    # Ends that are counted from the end compare at any step count.
    steps = numbers.num_steps or FAR
    allowed, possible = (steps - 1 if end is None else end if end >= 0 else steps + end for end in (numbers.last, last))
    if numbers.num_steps is None and numbers.last is not None and numbers.last >= 0 and (last is None or last < 0):
        # The record's end is an index and the engine's is not: how far apart they are cannot be known.
        possible = allowed + 1
    return max(0, numbers.first - max(first, 1)) + max(0, possible - allowed)


def _ratios(engine: Engine, numbers: Numbers) -> Iterator[Difference]:
    if numbers.num_steps is not None and numbers.num_steps != numbers.bucket.num_steps:
        yield Difference(
            "steps",
            False,
            f"Measured for {numbers.bucket.num_steps} steps; for {numbers.num_steps} the nearest step's ratio is taken.",
        )
    left_out = [
        name for name, value in (("retention", numbers.retention), ("run length", numbers.limit)) if value is None
    ]
    if left_out and not engine.evaluates_as_recorded:
        yield Difference(
            "window", False, f"The record states no {' and no '.join(left_out)}: {engine.title}'s own default applies."
        )
    if not engine.list_per_branch and len(numbers.ratios) > 1:
        first, *others = numbers.ratios.values()
        apart = max(abs(a / b - 1) for other in others for a, b in zip(first, other, strict=False) if b)
        names = list(numbers.ratios)
        yield Difference(
            "signal",
            apart > 0.05,
            f"{engine.title} takes one list for all branches: that of {names[0]} is written, {', '.join(names[1:])} differ by up to "
            f"{apart:.2%}.",
        )
