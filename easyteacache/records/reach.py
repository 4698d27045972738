"""Refuse records that can only reuse: a gate that never computes a step gives the same output for the whole run.

A curve predicts how far the output moved since the last step, and a gate computes a step once these predictions add up to
its threshold. Neither says anything wrong about itself when it never gets there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from easyteacache.records.bucket import BranchRatios, Bucket
from easyteacache.records.fields import MAX_STEPS, BrokenRule

#: Signal distances that occur, where a record states no domain: relative L1 between consecutive steps.
DISTANCES = (0.0, 1.0)
#: Predicted distances below what single precision resolves are no predictions.
LEAST_DISTANCE = 1e-6
_PLACES = 256


class Reaching(Protocol):
    """A record, as far as it is judged here."""

    @property
    def method(self) -> str:
        """What its numbers are."""

    @property
    def rescale_post(self) -> str:
        """What is done to p(x)."""

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Where they hold."""


def check_reach(record: Reaching) -> None:
    """Refuse curves that predict no change, and thresholds that no run reaches.

    Raises:
        BrokenRule: ``curve-never-computes`` or ``threshold-never-computes``, with the place.
    """
    for position, bucket in enumerate(record.buckets):
        steps = (bucket.num_steps or MAX_STEPS) - 1
        reach = math.inf
        if bucket.coefficients is not None:
            largest = largest_distance(bucket.coefficients, bucket.domain, record.rescale_post)
            if largest < LEAST_DISTANCE:
                low, high = bucket.domain or DISTANCES
                raise BrokenRule(
                    "curve-never-computes",
                    ("buckets", position, "coefficients"),
                    f"the polynomial predicts at most {largest:.3g} for signal distances of {low:.3g} to {high:.3g}; expected "
                    f"{LEAST_DISTANCE:g} or more somewhere, or no step would ever be computed",
                )
            reach = largest * steps
            if bucket.sigma_profile is not None:
                reach = max(reach, bucket.sigma_profile.distances[-1])
        elif bucket.magnitude_ratios:
            reach = max(_error_of_reuse(entry) for entry in bucket.magnitude_ratios)
        for place, threshold in _thresholds(bucket):
            if threshold > reach:
                raise BrokenRule(
                    "threshold-never-computes",
                    ("buckets", position, "operating_points", place, "threshold"),
                    f"threshold is {threshold:.6g}; all {steps + 1 if bucket.num_steps else MAX_STEPS} steps together predict at most "
                    f"{reach:.6g}, so no step would ever be computed",
                )


def largest_distance(coefficients: tuple[float, ...], domain: tuple[float, float] | None, post: str) -> float:
    """The largest predicted distance over the domain, or over the distances that occur; 0 or less where there is none."""
    low, high = domain or DISTANCES
    values = (_at(coefficients, low + (high - low) * place / _PLACES) for place in range(_PLACES + 1))
    return max(map(abs, values) if post == "abs" else values)


def _at(coefficients: tuple[float, ...], x: float) -> float:
    y = 0.0
    for coefficient in coefficients:
        y = y * x + coefficient
    return y


def _error_of_reuse(entry: BranchRatios) -> float:
    """MagCache's accumulated error when every step but the first is reused, Σ |1 − Π ratios|."""
    product, total = 1.0, 0.0
    for ratio in entry.ratios[1:]:
        product *= ratio
        total += abs(1.0 - product)
    return total


def _thresholds(bucket: Bucket) -> Iterator[tuple[int, float]]:
    for place, point in enumerate(bucket.operating_points):
        if point.threshold is not None:
            yield place, point.threshold
