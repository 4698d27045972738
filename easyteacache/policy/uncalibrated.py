"""The universal plan: which steps to compute on a model that nobody has calibrated.

Over matched noise (``matched_noise``) models have much in common. What a model knows of the sample, x̂, settles at every noise level by a
share that several small trained models agree on; a velocity v = (x − x̂)/σ changes along a run by dv = −dx̂/σ, exactly. So that change
profile says what a linear forecast of v misses at any length, shift and step count, and the plan is the one that
misses least: an exact shortest path over pairs of computed steps, as in DPCache (arXiv 2602.22654), on a profile instead of a model's
own recorded outputs. docs/transfer.md says how the profile was measured and what such plans are worth on models that it never saw.

Changes at noise levels far apart point different ways, those close together the same way; how close is ``WIDTH``. With ξ_k independent and of
unit size, x̂(c) = Σ_k √h_k · Φ((c_k − c)/w) · ξ_k over the coordinate c, where h is the profile and Φ the normal distribution function.

Pure Python: it is worked out once for every setting of a run, in some tenths of a second at 50 steps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import pairwise

from easyteacache.policy.carry import falling
from easyteacache.policy.matched_noise import REFERENCE_LENGTH, matched_noise

#: Numbers of the latent that a token of most models stands for: 16 channels, patches of 2 × 2.
VALUES_PER_TOKEN = 64
#: Values at which the profile below was measured: 256 tokens of 4. Across models the count of values places it, not that of tokens.
REFERENCE_VALUES = 1024
#: Matched noise c_k → weight h_k: how much of x̂ settles around that noise level, relative to the other levels.
CHANGE_PROFILE: tuple[tuple[float, float], ...] = (
    (-6.0, 3.2e-07),
    (-5.5, 9.3e-07),
    (-5.0, 2.7e-06),
    (-4.5, 7.7e-06),
    (-4.0, 2.1e-05),
    (-3.5, 5.5e-05),
    (-3.0, 0.00014),
    (-2.5, 0.00037),
    (-2.0, 0.00094),
    (-1.5, 0.0024),
    (-1.0, 0.0067),
    (-0.5, 0.019),
    (0.0, 0.053),
    (0.5, 0.13),
    (1.0, 0.22),
    (1.5, 0.25),
    (2.0, 0.18),
    (2.5, 0.083),
    (3.0, 0.033),
    (3.5, 0.013),
    (4.0, 0.0051),
    (4.5, 0.0021),
    (5.0, 0.00086),
)
#: How far apart on the axis of matched noise two changes of x̂ may lie and still point about the same way.
WIDTH = 0.5
#: Matched noise → how much of an error that the state has there is left in the final sample, as ratio of sizes; in the typical run.
RESPONSE: tuple[tuple[float, float], ...] = (
    (-1.5, 0.67),
    (-1.0, 0.69),
    (-0.5, 0.84),
    (0.0, 1.01),
    (0.5, 1.13),
    (1.0, 1.41),
    (1.5, 1.59),
    (2.0, 2.02),
    (3.0, 2.24),
)
#: Power of the response that errors are weighed with. Some runs answer an early error several times as much as the typical one, because
#: it makes another sample of them. On the models that the profile is of, 2 is 0.8 dB better than 1 at shift 0.25 and 0.8 dB worse at 3.
CAUTION = 2.0
#: Power of a segment's error in the sum over a run: above 1 one large error is worse than several small ones of the same sum.
POWER = 2.0
#: Longest gap between computed steps, in units of the mean one.
LONGEST_GAP = 3.5
_SHORTEST_LIMIT = 4
_FAR = 40.0
_ROUNDING = 1e-6
# Above this many steps neighbouring levels hardly differ: a plan is made for every second, third … step and spread.
_MOST_STEPS = 120

Vector = list[float]
#: Errors of the segments that begin with the last two computed steps, by the step that is computed next.
Segments = dict[tuple[int, int], list[float]]


def universal_plan(
    levels: Sequence[float], tokens: float, computed: int, *, values: float = VALUES_PER_TOKEN
) -> tuple[int, ...]:
    """The computed steps of a run on a model without a calibration, for a linear forecast of its outputs.

    Args:
        levels: (S + 1,) flow-matching noise levels, falling, the last two may be equal; for a sampler with signal level α and noise level σ, σ/(α + σ).
        tokens: length of the generated stream entering the blocks, above 0.
        computed: how many steps to compute, 1 … S.
        values: numbers of the latent that a token stands for, its channels times its patch.

    Returns:
        ``computed`` ascending step indices, the first 0.

    Raises:
        ValueError: a number of computed steps out of range, levels that do not fall or lie outside [0, 1], or no tokens.
    """
    steps = len(levels) - 1
    _check_count(steps, computed)
    if not falling(levels) or levels[0] > 1.0 + _ROUNDING or levels[-1] < 0.0:
        raise ValueError("expected noise levels that fall within [0, 1]")
    return _planned(
        tuple(float(level) for level in levels), tokens * values * REFERENCE_LENGTH / REFERENCE_VALUES, computed
    )


def even_plan(num_steps: int, computed: int) -> tuple[int, ...]:
    """``computed`` steps as evenly spaced as integers allow, beginning with 0: the plain baseline.

    Raises:
        ValueError: a number of computed steps out of range.
    """
    _check_count(num_steps, computed)
    return tuple(round(k * num_steps / computed) for k in range(computed))


def _check_count(steps: int, computed: int) -> None:
    if not 1 <= computed <= steps:
        raise ValueError(f"expected 1 to {steps} computed steps, found {computed}")


@functools.lru_cache(maxsize=64)
def _planned(levels: tuple[float, ...], length: float, computed: int) -> tuple[int, ...]:
    steps = len(levels) - 1
    if steps > _MOST_STEPS:
        return _coarsely_planned(levels, length, computed)
    weights = [(after - before) * weight_of(matched_noise(before, length)) for before, after in pairwise(levels)]
    return least_error_plan(expected_outputs(levels, length), weights, computed)


def _coarsely_planned(levels: tuple[float, ...], length: float, computed: int) -> tuple[int, ...]:
    """The plan of every stride-th level: its computed steps, or where they are too few for as many, their quantiles."""
    steps = len(levels) - 1
    stride = math.ceil(steps / _MOST_STEPS)
    coarse = (*levels[:-1:stride], levels[-1])
    fewer = min(computed, (len(coarse) - 1) // 2)
    places = [float(stride * step) for step in _planned(coarse, length, fewer)] + [float(steps)]
    found = []
    for k in range(computed):
        at = k * fewer / computed
        found.append(places[int(at)] + (at - int(at)) * (places[int(at) + 1] - places[int(at)]))
    return _distinct(found, steps)


def _distinct(places: Sequence[float], steps: int) -> tuple[int, ...]:
    """Round ascending ``places`` to different steps, the first 0, each as near as its neighbours leave it."""
    found: list[int] = []
    for place in places:
        found.append(max(round(place), found[-1] + 1) if found else 0)
    for back in range(1, len(found)):
        found[-back] = min(found[-back], steps - back)
    return tuple(found)


def expected_outputs(levels: Sequence[float], length: float) -> list[Vector]:
    """What the outputs of the steps are made of, (S, K): their inner products are those that the change profile expects.

    Args:
        levels: (S + 1,) falling noise levels.
        length: tokens, in units of those that the profile was measured with.
    """
    offset = -matched_noise(0.5, length)
    places = [min(max(matched_noise(sigma, length), -_FAR), _FAR) for sigma in levels[:-1]]
    return [[math.sqrt(weight) * _settled(centre, at, offset) for centre, weight in CHANGE_PROFILE] for at in places]


def _settled(centre: float, at: float, offset: float) -> float:
    """∫ 1/σ dx̂ from pure noise down to coordinate ``at``, for an x̂ that settles around ``centre``; 1/σ = 1 + exp(−coordinate − offset)."""
    tail = math.exp(-offset - centre + 0.5 * WIDTH * WIDTH)
    return _normal((centre - at) / WIDTH) + tail * _normal((centre - WIDTH * WIDTH - at) / WIDTH)


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def least_error_plan(outputs: Sequence[Vector], weights: Sequence[float], computed: int) -> tuple[int, ...]:
    """The computed steps for which a linear forecast misses least, exactly, by a shortest path over the last two of them.

    Between two computed steps the sample is off by ‖Σ weight_j e_j‖, e_j what the forecast misses at reused step j; the
    ``POWER``-th powers of these are added up over the run. No gap is longer than ``LONGEST_GAP`` times the mean one.

    Args:
        outputs: (S, K) vectors with the inner products of the steps' outputs.
        weights: (S,) what the sampler multiplies each output by, times how much of an error stays.
        computed: how many steps to compute, 1 … S.

    Returns:
        ``computed`` ascending step indices, the first 0.
    """
    limit = max(_SHORTEST_LIMIT, math.ceil(LONGEST_GAP * len(outputs) / computed))
    return _shortest_path(_segments(outputs, weights, limit), len(outputs), computed, limit)


def _segments(outputs: Sequence[Vector], weights: Sequence[float], limit: int) -> Segments:
    """For the last two computed steps (a, b), a = −1 where there is one alone: the error if b + 1, b + 2, … is computed next."""
    steps = len(outputs)
    found: Segments = {}
    for last in range(steps):
        for earlier in range(max(0, last - limit), last) if last else (-1,):
            slope = _slope(outputs, earlier, last)
            total, errors = [0.0] * len(outputs[0]), [0.0]
            for step in range(last + 1, min(steps, last + limit)):
                reach, weight, truth = float(step - last), weights[step], outputs[step]
                total = [
                    so_far + weight * (known + reach * rise - true)
                    for so_far, known, rise, true in zip(total, outputs[last], slope, truth, strict=True)
                ]
                errors.append(math.hypot(*total) ** POWER)
            found[earlier, last] = errors
    return found


def _slope(outputs: Sequence[Vector], earlier: int, last: int) -> Vector:
    """The change per step that the forecast extends; none after a single computed step."""
    if earlier < 0:
        return [0.0] * len(outputs[last])
    gap = float(last - earlier)
    return [(new - old) / gap for new, old in zip(outputs[last], outputs[earlier], strict=True)]


def weight_of(coordinate: float) -> float:
    """What an error that the state has at a coordinate of matched noise counts: ``RESPONSE`` there, to the power of ``CAUTION``."""
    if coordinate <= RESPONSE[0][0]:
        return float(RESPONSE[0][1] ** CAUTION)
    for (low, left), (high, right) in pairwise(RESPONSE):
        if coordinate <= high:
            return float((left + (coordinate - low) / (high - low) * (right - left)) ** CAUTION)
    return float(RESPONSE[-1][1] ** CAUTION)


def _shortest_path(segments: Segments, steps: int, computed: int, limit: int) -> tuple[int, ...]:
    """The computed steps with the least sum of segment errors, exactly: states are the last two computed steps."""
    layers: list[dict[tuple[int, int], tuple[float, int]]] = [{(-1, 0): (0.0, -1)}]
    for number in range(1, computed):
        left = computed - number
        layer: dict[tuple[int, int], tuple[float, int]] = {}
        for (earlier, last), (cost, _) in layers[-1].items():
            errors = segments[earlier, last]
            # What is left of the run must hold the remaining computed steps, and be within their reach.
            first = max(last + 1, steps - left * limit)
            for following in range(first, min(last + limit, steps - left) + 1):
                total = cost + errors[following - last - 1]
                known = layer.get((last, following))
                if known is None or total < known[0]:
                    layer[last, following] = (total, earlier)
        layers.append(layer)
    state = min(
        (state for state in layers[-1] if steps - state[1] <= limit),
        key=lambda state: layers[-1][state][0] + segments[state][steps - state[1] - 1],
    )
    plan = []
    for layer in reversed(layers):
        plan.append(state[1])
        state = (layer[state][1], state[0])
    return tuple(reversed(plan))
