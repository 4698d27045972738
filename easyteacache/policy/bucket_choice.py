"""Which buckets of a record serve a run: first the sampler setting, then the sequence length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from easyteacache.policy.curves import log_weight
from easyteacache.policy.request import RunContext
from easyteacache.records.bucket import Bucket


@dataclass(frozen=True)
class Selection:
    """The one or two buckets to use.

    Attributes:
        shares: bucket and weight; weights add up to 1.
        foreign: how the run's sampler setting differs from the buckets', one phrase each; empty when it does not.
    """

    shares: tuple[tuple[Bucket, float], ...]
    foreign: tuple[str, ...]

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets alone."""
        return tuple(bucket for bucket, _ in self.shares)

    @property
    def main(self) -> Bucket:
        """The bucket with the greatest weight."""
        return max(self.shares, key=lambda share: share[1])[0]


def select(buckets: Sequence[Bucket], run: RunContext, notes: list[str]) -> Selection:
    """Choose buckets for ``run``; ``notes`` gets one sentence for every choice that was not the caller's."""
    foreign: list[str] = []
    candidates = _nearest(list(buckets), "num_steps", run.num_steps, "{:g} steps", notes, foreign)
    candidates = _nearest(candidates, "shift", run.shift, "shift {:g}", notes, foreign)
    return Selection(_by_length(candidates, run.sequence_length, notes), tuple(foreign))


def _nearest(
    buckets: list[Bucket], name: str, wanted: float | None, phrase: str, notes: list[str], foreign: list[str]
) -> list[Bucket]:
    """The buckets whose ``name`` is ``wanted`` or nearest to it, and those that do not say."""
    values = sorted({value for value in (getattr(bucket, name) for bucket in buckets) if value is not None})
    if not values:
        return buckets
    listed = ", ".join(phrase.format(value) for value in values)
    if wanted is None:
        # The setting with the most buckets is what the record is mainly about.
        wanted = max(values, key=lambda value: (sum(getattr(b, name) == value for b in buckets), value))
        others = f" (the record has {listed})" if len(values) > 1 else ""
        notes.append(f"No {name} given: {phrase.format(wanted)} assumed{others}.")
    elif wanted not in values:
        nearest = min(values, key=lambda value: abs(math.log(value / wanted)))
        foreign.append(f"{listed}, not {phrase.format(wanted)}")
        notes.append(f"Calibrated for {listed}, not {phrase.format(wanted)}: {phrase.format(nearest)} is nearest.")
        wanted = nearest
    return [bucket for bucket in buckets if getattr(bucket, name) in (wanted, None)]


def _by_length(buckets: list[Bucket], length: int | None, notes: list[str]) -> tuple[tuple[Bucket, float], ...]:
    # Buckets ascend, unknown settings first: of several at one length the last says most about where it holds.
    at = {bucket.sequence_length: bucket for bucket in buckets if bucket.sequence_length is not None}
    if not at or length is None:
        chosen = buckets[-1]
        if length is not None:
            notes.append(f"The record does not say for which sequence length it holds; {length} is assumed to be fine.")
        elif len(at) > 1:
            notes.append(
                f"No sequence length given: the bucket at {chosen.sequence_length} is used until one is known."
            )
        return ((chosen, 1.0),)
    below = [known for known in at if known <= length]
    above = [known for known in at if known >= length]
    if not below or not above:
        nearest = min(at) if above else max(at)
        where = "below the shortest" if above else "above the longest"
        notes.append(f"Sequence length {length} is {where} bucket: the one at {nearest} is used.")
        return ((at[nearest], 1.0),)
    lower, upper = max(below), min(above)
    if lower == upper:
        return ((at[lower], 1.0),)
    weight = log_weight(length, lower=lower, upper=upper)
    notes.append(
        f"Sequence length {length} lies between the buckets at {lower} (weight {1 - weight:.3f}) "
        f"and {upper} (weight {weight:.3f})."
    )
    return ((at[lower], 1.0 - weight), (at[upper], weight))
