"""Choose a contender's settings for each target on pairs that the evaluation does not use.

A knob is bisected until the computed share is right; what cannot be bisected is swept. Of what computes little enough for a
target the best is kept, and a second one where it is almost as good.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from easyteacache.bench.contender import Bed, Calibrated, Contender, Knob, Settings, allowed
from easyteacache.bench.subject import Pair
from easyteacache.bench.trial import Uncached, measure

#: Halvings of a knob's logarithmic range per target.
ROUNDS = 8
#: A ratio of two values that is not halved any more, and how far beside a hint is looked first.
NARROW, HINT_STEP = 1.02, 1.3
#: A share this close below what is allowed needs no more halving.
CLOSE = 0.04
#: Decibels of the pilot within which a second setting is measured too, and how many are at most.
ALMOST, MOST = 0.3, 2


@dataclass(frozen=True)
class Piloted:
    """One setting on the pilot's pairs: computed share and mean PSNR in decibels."""

    settings: Mapping[str, Any]
    share: float
    psnr: float


def run(
    bed: Bed, uncached: Uncached, contender: Contender, calibrated: Calibrated, pairs: Sequence[Pair]
) -> list[Piloted]:
    """Try a contender's settings; those that no target can use are left out."""

    def tried(settings: Settings) -> float:
        score = measure(bed, uncached, contender, settings, calibrated, pairs[:1])[0]
        shares[_key(settings)] = (settings, score.share, score.psnr)
        return score.share

    shares: dict[str, tuple[Settings, float, float]] = {}
    hints: dict[float, float] = {}
    grain = 1.01 / bed.case.steps
    for variant in contender.variants(bed):
        if contender.knob is None:
            tried(variant)
        else:
            hints = bisect(tried, variant, contender.knob, bed.targets, grain=grain, hints=hints) or hints
    usable = [key for key, (_, share, _) in shares.items() if any(share <= allowed(t) for t in bed.targets)]
    # Where nothing reaches the smallest target, the one that skips most tells that.
    kept = usable or [min(shares, key=lambda key: shares[key][1])]
    found = []
    for key in _worth_it(shares, kept, bed.targets):
        settings, share, first = shares[key]
        rest = measure(bed, uncached, contender, settings, calibrated, pairs[1:])
        decibels = statistics.fmean([first, *(score.psnr for score in rest)])
        found.append(Piloted(settings, statistics.fmean([share, *(score.share for score in rest)]), decibels))
    return found


def choose(piloted: Sequence[Piloted], targets: Sequence[float], knob: Knob | None = None) -> list[Settings]:
    """The settings to evaluate: per target the best, and a second variant where it is almost as good."""
    found: dict[str, Settings] = {}
    for target in targets:
        able = sorted((p for p in piloted if p.share <= allowed(target)), key=lambda p: -p.psnr)
        variants: dict[str, Piloted] = {}
        for one in able:
            variants.setdefault(_key({k: v for k, v in one.settings.items() if knob is None or k != knob.name}), one)
        for one in list(variants.values())[:MOST]:
            if one.psnr >= able[0].psnr - ALMOST:
                found.setdefault(_key(one.settings), one.settings)
    if not found and piloted:
        most = min(piloted, key=lambda p: p.share)
        found[_key(most.settings)] = most.settings
    return list(found.values())


def bisect(
    share_of: Callable[[Settings], float],
    variant: Settings,
    knob: Knob,
    targets: Sequence[float],
    *,
    grain: float = 0.0,
    hints: Mapping[float, float] | None = None,
) -> dict[float, float]:
    """Bisect a knob for each target.

    Args:
        share_of: tries a setting, returns its computed share, which falls as the knob rises.
        variant: the other settings.
        knob: what to turn.
        targets: speed-ups.
        grain: the least difference that shares have: no value is searched for between two that are this close.
        hints: target → where to look first.

    Returns:
        Target → the smallest value found that computes little enough; targets out of reach are left out.
    """
    known: dict[float, float] = {}

    def share(value: float) -> float:
        if value not in known:
            known[value] = share_of({**variant, knob.name: value})
        return known[value]

    found: dict[float, float] = {}
    for target in sorted(targets):
        most = allowed(target)
        if share(knob.high) > most:
            break
        # Between the largest value known to compute too much and the smallest known to compute little enough.
        low = max((value for value, found_share in known.items() if found_share > most), default=knob.low)
        high = min(value for value, found_share in known.items() if found_share <= most and value >= low)
        middle = (hints or {}).get(target)
        for _ in range(ROUNDS):
            close = known[high] >= most * (1 - CLOSE) or (low in known and known[low] - known[high] <= grain)
            if close or high / low < NARROW:
                break
            middle = math.sqrt(low * high) if middle is None or not low < middle < high else middle
            if share(middle) > most:
                low, middle = middle, middle * HINT_STEP if hints else None
            else:
                high, middle = middle, middle / HINT_STEP if hints else None
        found[target] = high
    return found


def _worth_it(
    shares: Mapping[str, tuple[Settings, float, float]], keys: Sequence[str], targets: Sequence[float]
) -> list[str]:
    """Those that are among the best three of some target on the first pair: the others cost time and cannot win."""
    found: dict[str, None] = {}
    for target in targets:
        able = [key for key in keys if shares[key][1] <= allowed(target)]
        found.update(dict.fromkeys(sorted(able, key=lambda key: -shares[key][2])[:3]))
    return list(found) or list(keys[:1])


def _key(settings: Settings) -> str:
    return repr(sorted(settings.items()))
