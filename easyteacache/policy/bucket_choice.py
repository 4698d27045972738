"""Which buckets of a record serve a run: first the sampler, by what it does, then the sequence length.

A bucket that says what its sampler does to known outputs (``SamplerRecord.signature``) serves the runs whose sampler does the same,
and no others: class, order, noise levels and first step are all in it. A bucket that does not say is chosen by step count and shift,
and serves no run of other noise levels than its profile's, and none that draws noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from easyteacache.policy.curves import log_weight
from easyteacache.policy.request import RunContext
from easyteacache.records.bucket import Bucket
from easyteacache.records.sampler import SamplerRecord


@dataclass(frozen=True)
class Selection:
    """The one or two buckets to use.

    Attributes:
        shares: bucket and weight; weights add up to 1.
        foreign: how the run's sampler setting differs from the buckets', one phrase each; empty when it does not.
        unsure: a sentence where that cannot be known, and what the caller said of the run is believed; None elsewhere.
    """

    shares: tuple[tuple[Bucket, float], ...]
    foreign: tuple[str, ...]
    unsure: str | None = None

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
    signed = [bucket for bucket in buckets if bucket.sampler is not None and bucket.sampler.signature is not None]
    sampler = run.sampler
    if not signed or (sampler is None and not run.begun):
        foreign: list[str] = []
        candidates = _by_setting(list(buckets), run, notes, foreign)
        if sampler is not None and not foreign and all(_differs(bucket, run) for bucket in candidates):
            foreign.append(_unlike(candidates, sampler, run.shift))
        return Selection(_by_length(candidates, run.sequence_length, notes), tuple(foreign))
    holding = [] if sampler is None else [b for b in signed if b.sampler is not None and b.sampler.agrees(sampler)]
    if holding:
        return Selection(_by_length(holding, run.sequence_length, notes), ())
    differing: list[str] = []
    candidates = _by_setting(list(buckets), run, notes, differing)
    shares = _by_length(candidates, run.sequence_length, notes)
    made_with = samplers_of(candidates)
    if sampler is not None:
        return Selection(shares, (f"{made_with}, not {described(sampler, run.shift)}",))
    if differing or run.num_steps is None or run.shift is None:
        return Selection(shares, (*differing, f"{made_with}, and the sampler of this run is not known"))
    unsure = (
        f"The sampler of this run is not known; the record holds for {made_with}. That is taken to be it, because step count and shift "
        "were given."
    )
    return Selection(shares, (), unsure)


def _differs(bucket: Bucket, run: RunContext) -> bool:
    """Does a run differ from a bucket's own, as far as a bucket without a signature shows it: by the knots of its profile?"""
    profile = bucket.sigma_profile
    if profile is None or bucket.num_steps is None or len(profile.sigmas) != bucket.num_steps + 1:
        return False
    return run.over(profile.sigmas) is False or (run.sampler is not None and run.sampler.signature is None)


def _unlike(buckets: Sequence[Bucket], sampler: SamplerRecord, shift: float | None) -> str:
    """What buckets without a signature were made for, where that is not this run."""
    if sampler.signature is None and all(b.sampler is not None and b.sampler.name == sampler.name for b in buckets):
        return f"{described(sampler, shift)}, whose steps could not be measured then"
    return f"other noise levels, or a sampler that does not draw noise, not {described(sampler, shift)}"


def described(sampler: SamplerRecord, shift: float | None = None) -> str:
    """A sampler in a few words: its class, its calls, and its shift where that is known."""
    return f"{sampler.name} ({sampler.calls} calls{'' if shift is None else f', shift {shift:g}'})"


def samplers_of(buckets: Sequence[Bucket]) -> str:
    """The samplers of some buckets in a few words."""
    named = dict.fromkeys(described(b.sampler, b.shift) for b in buckets if b.sampler is not None)
    return " or ".join(named) or "an unknown sampler"


def _by_setting(buckets: list[Bucket], run: RunContext, notes: list[str], foreign: list[str]) -> list[Bucket]:
    """The buckets of the run's step count and shift, or of the nearest; ``foreign`` gets how those differ.

    Of the run's class of sampler where there are some, and of Euler's where nobody says which it is.
    """
    named = [bucket for bucket in buckets if bucket.sampler is None or _likely(bucket.sampler, run)] or buckets
    candidates = _nearest(named, "num_steps", run.num_steps, "{:g} steps", notes, foreign)
    return _nearest(candidates, "shift", run.shift, "shift {:g}", notes, foreign)


def _likely(sampler: SamplerRecord, run: RunContext) -> bool:
    return sampler.is_euler if run.sampler is None else sampler.name == run.sampler.name


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
