"""Where an engine would compute something else than what a record was calibrated for."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from easyteacache.export import presets
from easyteacache.export.engine import CachedModels, Engine
from easyteacache.export.magcache_rule import engine_plan, magcache_plan
from easyteacache.export.numbers import SAMPLES, Numbers
from easyteacache.policy.curves import USUAL_DISTANCES, Polynomial
from easyteacache.policy.policy import LONGEST_RUN
from easyteacache.records.bucket import FITTED
from easyteacache.records.calibration import Calibration
from easyteacache.runtime.predictors import predictor

Rule = Literal[
    "model",
    "signal",
    "method",
    "order",
    "abs",
    "window",
    "plan",
    "steps",
    "threshold",
    "forecast",
    "branches",
    "mask",
    "server",
    "domain",
]

# Reusing one step more at the very end is what engines do differently, and what a remark is enough for.
TOLERATED_STEPS = 1
# Ratios of two branches this far apart are no measurement noise; only asked where the plans they make are not known.
TOLERATED_RATIO = 0.05
# Weights of two rows this close are one number written twice.
SAME_WEIGHT = 1e-9
# Predictors whose rows follow from the places of the computed steps alone.
_OF_STEPS = frozenset({"hold", "linear", "quadratic", *(f"taylor-{order}" for order in range(1, 5))})
# Stands for a step count that is not known where only distances from its end matter.
FAR = 1_000_000


@dataclass(frozen=True)
class Deviation:
    """One thing that the engine does otherwise.

    Attributes:
        rule: stable name, as ``--allow`` takes it.
        refuses: True when the numbers would mean something else; False when it is enough to know.
        text: what was expected and what the engine does, one or two sentences.
    """

    rule: Rule
    refuses: bool
    text: str


def of_record(engine: Engine, record: Calibration) -> Deviation | None:
    """Why ``engine`` has no use for a record, whatever its operating point; None when it has."""
    key, method = record.model_key, record.method
    if method == "preset" and not engine.evaluates_as_recorded:
        unfit = _preset(engine, record)
        if unfit is not None:
            return unfit
    if method not in engine.methods:
        return Deviation("method", True, f"{engine.title} cannot run {method} with numbers of its caller's.")
    known = [model.keys for model in engine.models or () if method in model.methods]
    if not known or engine.model_for(key, method) is not None:
        return None
    listed = ", ".join(known)
    return Deviation("model", True, f"{engine.title} was read to run {method} for {listed}; {key} is none of these.")


def _preset(engine: Engine, record: Calibration) -> Deviation | None:
    """Why none of a record's presets can be written for ``engine``; None where one can."""
    held = [p.preset for bucket in record.buckets for p in bucket.operating_points if p.preset is not None]
    if any(presets.rule_for(engine.name, preset) is not None for preset in held):
        return None
    methods = ", ".join(dict.fromkeys(f"{preset.engine}'s {preset.method}" for preset in held))
    others = list(dict.fromkeys(name for preset in held for name in presets.engines_for(preset)))
    told = f"The record holds settings of {methods}, which {engine.title} does not run."
    where = f"Export it to {', '.join(others)}." if others else "No exporter writes files of the program that does."
    return Deviation(
        "method", True, f"{told} {where} `easyteacache-hub show {record.model_key}` prints them, --to json writes them."
    )


def of_numbers(engine: Engine, numbers: Numbers) -> tuple[Deviation, ...]:
    """Every difference between what the numbers mean and what ``engine`` would do with them; refusals first."""
    return tuple(sorted(_find(engine, numbers), key=lambda difference: not difference.refuses))


def _find(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    method = numbers.record.method
    model = engine.model_for(numbers.record.model_key, method)
    if method == "preset":
        yield from _settings(engine, numbers)
        return
    yield from _plan(engine, numbers)
    if engine.plan == "schedule":
        yield from _filling(engine, numbers)
    if method == "plan" or (method == "magcache" and engine.plan == "schedule"):
        return
    if method == "magcache":
        yield from _ratios(engine, numbers)
    elif not engine.evaluates_as_recorded:
        if model is not None and engine.plan == "threshold":
            yield from _signal(engine, model, numbers)
        if engine.plan == "threshold":
            yield from _order(engine, numbers)
            yield from _sign(engine, model, numbers)
            yield from _domain(engine, numbers)
    if method == "teacache":
        yield from _window(engine, numbers)
        if engine.plan == "threshold" and not engine.evaluates_as_recorded:
            yield from _caution(engine, numbers)


def _signal(engine: Engine, model: CachedModels, numbers: Numbers) -> Iterator[Deviation]:
    found = numbers.record.signal
    if found == "unknown":
        yield Deviation("signal", True, "The record does not say which signal its numbers were fitted to.")
    elif found not in model.signals:
        measures = " or ".join(sorted(model.signals)) or "no signal"
        yield Deviation(
            "signal", True, f"The numbers were fitted to {found}, {engine.title} measures {measures} for this model."
        )


def _plan(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    if engine.plan == "schedule" and numbers.schedule is None:
        yield Deviation(
            "plan",
            True,
            f"{engine.title} takes a schedule, this operating point is a threshold. `easyteacache solve` finds schedules from traces.",
        )
    if engine.plan == "threshold" and engine.takes_threshold and numbers.schedule is not None:
        yield Deviation(
            "plan", True, f"This operating point is a schedule, {engine.title} takes a threshold. Pass --threshold."
        )
    if engine.plan == "threshold" and engine.takes_threshold and numbers.schedule is None and numbers.threshold is None:
        yield Deviation("threshold", True, "A threshold of 0 reuses nothing. Pass --threshold or --speedup.")
    if not engine.takes_threshold and numbers.threshold is not None:
        told = f"{engine.title} takes the threshold outside this file: {numbers.threshold:g}."
        yield Deviation("threshold", False, told)
    if engine.plan == "threshold" and numbers.schedule is None and not _continues(engine, numbers):
        yield Deviation(
            "forecast",
            False,
            f"This operating point was judged with the forecaster {numbers.forecaster}; {engine.title} repeats the last residual, "
            "so speed-up and error will differ.",
        )


def _continues(engine: Engine, numbers: Numbers) -> bool:
    """Whether an engine with a threshold fills reused steps as the operating point was judged."""
    if numbers.forecaster == "hold":
        return True
    alike = (numbers.forecaster, numbers.coordinate, numbers.applied_to) == ("linear", "step", "residual")
    return bool(engine.extrapolates) and alike and numbers.record.model_key.startswith(engine.extrapolates)


def _filling(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    """What the engine makes a reused step of, beside what the plan means."""
    if numbers.schedule is None:
        return
    if numbers.of_branches:
        told = "; ".join(f"{name} {len(computed)}" for name, computed in numbers.of_branches)
        yield Deviation(
            "branches",
            True,
            f"Branches compute different steps ({told}), {engine.title} takes one list for all: with permission that of the steps "
            f"which any of them computes, {len(numbers.schedule)}.",
        )
    if engine.place is not None and numbers.applied_to != engine.place:
        yield Deviation(
            "forecast",
            True,
            f"The plan was judged on the {numbers.applied_to}; what {engine.title} repeats or continues is {_PLACES[engine.place]}.",
        )
    if numbers.corrected:
        yield Deviation(
            "forecast",
            True,
            f"Rows of computed steps correct the sampler's state; {engine.title} hands the sampler what the model gives.",
        )
    if numbers.coordinate != "step" and numbers.forecaster != "hold":
        yield Deviation(
            "forecast",
            True,
            f"The predictor {numbers.forecaster} extrapolates along the {numbers.coordinate}, {engine.title} along the step.",
        )
    if engine.fills and numbers.forecaster not in engine.fills and not _rows_alike(engine, numbers):
        with_ = "weights of its own" if numbers.forecaster == FITTED else numbers.forecaster
        yield Deviation(
            "forecast",
            True,
            f"The plan fills reused steps with {with_}; {engine.title} fills them with {engine.fills[0]}.",
        )


_PLACES = {
    "residual": "the residual of the blocks",
    "feature": "the output of the last block",
    "output": "the model's output",
}


def _rows_alike(engine: Engine, numbers: Numbers) -> bool:
    """Whether rows, or a predictor of another name, come to what the engine computes."""
    if numbers.schedule is None or numbers.corrected:
        return False
    steps = numbers.num_steps or numbers.schedule[-1] + 1
    theirs = predictor(engine.fills[0]).rows(numbers.schedule, steps)
    if numbers.rows is not None:
        ours: Sequence[Sequence[float]] = numbers.rows
    elif numbers.levels is None and numbers.forecaster in _OF_STEPS:
        ours = predictor(numbers.forecaster).rows(numbers.schedule, steps)
    else:
        return False
    return all(_same_row(a, b) for a, b in zip(ours, theirs, strict=False))


def _same_row(a: Sequence[float], b: Sequence[float]) -> bool:
    size = max(len(a), len(b))
    pairs = zip((0.0,) * (size - len(a)) + tuple(a), (0.0,) * (size - len(b)) + tuple(b), strict=True)
    return all(abs(x - y) <= SAME_WEIGHT for x, y in pairs)


def _settings(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    """A preset's settings: all of them have a place, or none is written."""
    assert numbers.preset is not None
    if not engine.evaluates_as_recorded:
        try:
            presets.settings(engine.name, numbers.preset)
        except presets.Unwritable as error:
            yield Deviation("method", True, f"{engine.title}: {error}")
        if numbers.preset.engine not in engine.title:
            yield Deviation(
                "model",
                False,
                f"These settings were published for {numbers.preset.engine}, which runs the same method.",
            )
    yield Deviation("signal", False, "A preset was not judged by this project, and is never applied by it.")


def _order(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    assert numbers.coefficients is not None
    if engine.coefficients is not None and len(numbers.coefficients) > engine.coefficients:
        yield Deviation(
            "order",
            True,
            f"{engine.title} takes {engine.coefficients} coefficients, the polynomial has {len(numbers.coefficients)}. "
            "With traces, --refit --traces DIR fits one that it can evaluate.",
        )


def _sign(engine: Engine, model: CachedModels | None, numbers: Numbers) -> Iterator[Deviation]:
    """Compare the curve as the record means it with the one that the engine evaluates, over the distances that occur."""
    assert numbers.coefficients is not None
    post = "none" if model is None else model.post
    theirs, ours = Polynomial(numbers.coefficients, post=post), numbers.curve
    places = _places(numbers)
    low, high = places[0], places[-1]
    values = _sampled(ours, low, high)
    scale = max(map(abs, values))
    pairs = zip(places, values, _sampled(theirs, low, high), strict=True)
    differing = [x for x, own, other in pairs if abs(own - other) > 1e-9 * scale]
    if not differing:
        return
    worst = max(differing, key=lambda x: abs(ours(x) - theirs(x)))
    meant = {"none": "p(x)", "abs": "|p(x)|", "clip": "max(p(x), 0)"}[numbers.post]
    meant = "max(p(x), 0)" if numbers.domain is not None and numbers.post == "none" else meant
    does = {"none": "p(x)", "abs": "|p(x)|"}[post]
    yield Deviation(
        "abs",
        True,
        f"The record means {meant}, {engine.title} accumulates {does}, and p goes negative within "
        f"[{low:.4g}, {high:.4g}]: at x = {worst:.4g} they are {ours(worst):.4g} and {theirs(worst):.4g}. "
        "With traces, --refit --traces DIR fits a polynomial that stays positive.",
    )


def _domain(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    if numbers.domain is None:
        return
    low, high = numbers.domain
    bare, ours = Polynomial(numbers.coefficients or ()), numbers.curve
    outside = [x for x in (0.0, 1.5 * high) if abs(bare(x) - ours(x)) > 1e-6 * max(abs(ours(x)), 1e-12)]
    if outside:
        shown = ", ".join(f"p({x:.4g}) = {bare(x):.4g} instead of {ours(x):.4g}" for x in outside)
        yield Deviation(
            "domain",
            False,
            f"The fit saw distances from {low:.4g} to {high:.4g}; outside {engine.title} evaluates it all the same: {shown}.",
        )


def engine_window(engine: Engine, numbers: Numbers) -> tuple[int, int | None]:
    """Inclusive range of steps that ``engine`` may reuse with these numbers; None for the end, negative counts from it."""
    if engine.window == "retention":
        return (5, None) if numbers.record.signal == "timestep_projection" else (1, -2)
    if engine.window == "second":
        return 2, None
    if engine.window == "ends":
        return 1, -2
    if engine.window in ("first", "fraction"):
        # A share of the run is MagCache's; what such an engine runs with a threshold has no window.
        return 1, None
    return numbers.first, numbers.last


def _window(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    shares = numbers.fraction if numbers.num_steps is None and numbers.fraction != (0.0, 1.0) else None
    if shares is not None and engine.window not in ("user", "shares") and not engine.evaluates_as_recorded:
        yield Deviation("steps", True, "The window is a share of the run, whose step count is not known. Pass --steps.")
        return
    if numbers.schedule is None and numbers.last is not None and 0 <= numbers.last < numbers.first:
        yield Deviation("steps", True, "The skip window reuses nothing at this step count.")
        return
    if engine.window == "user" or (engine.window == "shares" and numbers.num_steps is None):
        yield Deviation(
            "window", False, f"{engine.title} takes the window outside this file: {_told(numbers, shares)}."
        )
    else:
        yield from _window_ends(engine, numbers)
    yield from _limit(engine, numbers)


def _window_ends(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    start, end = _steps_more(numbers, *engine_window(engine, numbers))
    may = f"The record allows reuse in steps {numbers.first} to {_end(numbers)}; {engine.title}"
    more, fewer = max(start, 0) + max(end, 0), max(-start, 0) + max(-end, 0)
    if more:
        refuses = start > 0 or end > TOLERATED_STEPS
        yield Deviation("window", refuses, f"{may} may also reuse {more} step{'s' * (more > 1)} outside.")
    if fewer:
        where = [told for told, steps in (("at the start", start), ("at the end", end)) if steps < 0]
        yield Deviation("window", False, f"{may} computes {fewer} of them always, {' and '.join(where)}.")


def _limit(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    """Steps in a row: an engine without a limit does the same where the threshold ends every run sooner."""
    if numbers.limit is None or engine.takes_limit or engine.plan != "threshold" or numbers.schedule is not None:
        return
    told = f"The record reuses at most {numbers.limit} steps in a row; {engine.title} has no such limit"
    if numbers.threshold is None or not engine.takes_threshold:
        yield Deviation("window", False, f"{told}.")
        return
    least = min(_sampled(numbers.curve, *_range(numbers)))
    if (numbers.limit + 1) * least < numbers.threshold:
        yield Deviation(
            "window",
            True,
            f"{told}, and p falls to {least:.3g}, so that its threshold of {numbers.threshold:g} sets none.",
        )


def _caution(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    """What this runtime adds to published numbers, and no engine does."""
    if numbers.trusted_up_to is None or numbers.threshold is None:
        return
    values = dict(zip(_places(numbers), _sampled(numbers.curve, *_range(numbers)), strict=True))
    doubted = [x for x, y in values.items() if y < 0 or x > numbers.trusted_up_to]
    least = min((y for y in values.values() if y >= 0), default=math.inf)
    if doubted:
        told = f"between {doubted[0]:.4g} and {doubted[-1]:.4g} p is below 0 or past its turning point, in part or throughout"
        yield Deviation(
            "domain", False, f"Attached here such a step is computed: {told}. {engine.title} accumulates it."
        )
    if numbers.limit is None and (LONGEST_RUN + 1) * least < numbers.threshold:
        told = f"Attached here at most {LONGEST_RUN} steps are reused in a row, because the record states no limit"
        yield Deviation("domain", False, f"{told}; {engine.title} has none.")


def _places(numbers: Numbers) -> list[float]:
    """Distances that occur: the record's domain, or where published models' lie."""
    return _between(*_range(numbers))


def _range(numbers: Numbers) -> tuple[float, float]:
    return numbers.domain or USUAL_DISTANCES


def _between(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / (SAMPLES - 1) for i in range(SAMPLES)]


# The same curve is asked for once an engine and operating point.
@functools.lru_cache(maxsize=64)
def _sampled(curve: Polynomial, low: float, high: float) -> tuple[float, ...]:
    """A curve at the ``_places`` between two distances."""
    return tuple(map(curve, _between(low, high)))


def _told(numbers: Numbers, shares: tuple[float, float] | None) -> str:
    if shares is not None:
        return f"allow reuse between {shares[0]:.4g} and {shares[1]:.4g} of the run"
    of = f" of {numbers.num_steps}" if numbers.num_steps else ""
    return f"allow reuse from step {numbers.first} to {_end(numbers)}{of}"


def _end(numbers: Numbers) -> str:
    if numbers.last is None:
        return "the end"
    return str(numbers.last) if numbers.last >= 0 else f"{-numbers.last} steps before the end"


def _steps_more(numbers: Numbers, first: int, last: int | None) -> tuple[int, int]:
    """How many steps more the engine may reuse than the record allows, at the start and at the end; fewer are negative."""
    # Ends that are counted from the end compare at any step count.
    steps = numbers.num_steps or FAR
    allowed, possible = (steps - 1 if end is None else end if end >= 0 else steps + end for end in (numbers.last, last))
    if numbers.num_steps is None and numbers.last is not None and numbers.last >= 0 and (last is None or last < 0):
        # The record's end is an index and the engine's is not: how far apart they are cannot be known.
        possible = allowed + 1
    return numbers.first - max(first, 1), possible - allowed


def _ratios(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    if numbers.num_steps is not None and numbers.num_steps != numbers.bucket.num_steps:
        yield Deviation(
            "steps",
            False,
            f"Measured for {numbers.bucket.num_steps} steps; for {numbers.num_steps} the nearest step's ratio is taken.",
        )
    left_out = [
        name for name, value in (("retention", numbers.retention), ("run length", numbers.limit)) if value is None
    ]
    if left_out and not engine.evaluates_as_recorded:
        yield Deviation(
            "window", False, f"The record states no {' and no '.join(left_out)}: {engine.title}'s own default applies."
        )
    if not engine.list_per_branch and len(numbers.ratios) > 1:
        yield _one_list(engine, numbers)
    if not engine.evaluates_as_recorded:
        yield from _other_rule(engine, numbers)


def _one_list(engine: Engine, numbers: Numbers) -> Deviation:
    """One list for all branches: the same steps are computed, or the export is refused."""
    first, *others = numbers.ratios.values()
    names = list(numbers.ratios)
    apart = max(abs(a / b - 1) for other in others for a, b in zip(first, other, strict=False) if b)
    told = (
        f"{engine.title} takes one list for all branches: that of {names[0]} is written, {', '.join(names[1:])} differ by up to "
        f"{apart:.2%}"
    )
    plans = [engine_plan(numbers, ratios, within=engine.within) for ratios in numbers.ratios.values()]
    if None in plans:
        return Deviation("signal", apart > TOLERATED_RATIO, f"{told}.")
    same = all(plan == plans[0] for plan in plans)
    return Deviation("signal", not same, f"{told}, and {'the same' if same else 'other'} steps would be computed.")


def _other_rule(engine: Engine, numbers: Numbers) -> Iterator[Deviation]:
    """Where the authors' script for this model has a rule of its own, an engine that lacks it computes other steps."""
    lists = list(numbers.ratios.values())
    told: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for position, branch in enumerate(numbers.ratios):
        ours = magcache_plan(numbers, branch)
        theirs = engine_plan(numbers, lists[position if engine.list_per_branch else 0], within=engine.within)
        if ours is not None and theirs is not None and ours != theirs:
            told.setdefault((ours, theirs), []).append(branch)
    for (ours, theirs), branches in told.items():
        of = "" if len(branches) == len(lists) else f" of branch {' and '.join(branches)}"
        yield Deviation(
            "steps",
            False,
            f"By its authors' rule MagCache computes {_steps(set(ours) - set(theirs))}{of}, {engine.title} with the same numbers "
            f"{_steps(set(theirs) - set(ours))} instead: {len(theirs)} of {numbers.num_steps} in all, not {len(ours)}.",
        )


def _steps(steps: set[int]) -> str:
    if not steps:
        return "no step more"
    return f"step{'s' * (len(steps) > 1)} {', '.join(map(str, sorted(steps)))}"
