"""Step by step against an independent float reference of the published algorithm (ali-vilab/TeaCache)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from easyteacache.policy.curves import Polynomial
from easyteacache.teacache import TeaCache

ROOT = Path(__file__).resolve().parents[2]
FACTS: list[dict[str, Any]] = json.loads((ROOT / "tools/published/teacache_coefficients.json").read_text("utf-8"))
STEPS = 40


class Reference:
    """The published rule: signed p, the previous step's signal, strict <, a computed step starts the sum anew."""

    def __init__(self, coefficients: list[float], threshold: float, first: int, last: int) -> None:
        self.p = np.poly1d(coefficients)
        self.threshold, self.first, self.last = threshold, first, last
        self.previous: torch.Tensor | None = None
        self.sum = 0.0

    def reuses(self, step: int, signal: torch.Tensor) -> bool:
        previous, self.previous = self.previous, signal
        if step < self.first or step > self.last:
            self.sum = 0.0
            return False
        assert previous is not None
        distance = ((signal - previous).abs().mean() / previous.abs().mean()).cpu().item()
        self.sum += float(self.p(distance))
        if self.sum < self.threshold:
            return True
        self.sum = 0.0
        return False


def random_signals(seed: int, *, largest: float) -> list[torch.Tensor]:
    """Signals with relative changes between 0 and ``largest``; double precision, so that no rounding decides a step."""
    generator = torch.Generator().manual_seed(seed)
    signals = [torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)]
    for size in torch.rand(STEPS - 1, generator=generator, dtype=torch.float64).tolist():
        noise = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
        signals.append(signals[-1] + size * largest * noise * signals[-1].abs().mean() / noise.abs().mean())
    return signals


def published() -> list[Any]:
    return [pytest.param(fact["coefficients"], fact, id=fact["id"]) for fact in FACTS]


@pytest.mark.parametrize(("coefficients", "fact"), published())
def test_every_published_polynomial_decides_as_its_authors_code(
    coefficients: list[float], fact: dict[str, Any], make_cache: Callable[..., TeaCache], drive: Callable[..., Any]
) -> None:
    thresholds = [entry["threshold"] for entry in fact["thresholds"]] or [0.2]
    for seed, (first, last, largest) in enumerate([(1, STEPS - 2, 0.1), (5, STEPS - 1, 0.4)]):
        signals = random_signals(seed, largest=largest)
        threshold = thresholds[seed % len(thresholds)]
        reference = Reference(coefficients, threshold, first, last)
        cache = make_cache(
            curve=Polynomial(tuple(coefficients)), threshold=threshold, first_skip_step=first, last_skip_step=last
        )
        assert drive(cache, signals) == [reference.reuses(step, s) for step, s in enumerate(signals)]


def test_the_published_polynomials_exercise_every_order_and_negative_values() -> None:
    orders = {len(fact["coefficients"]) - 1 for fact in FACTS}
    assert orders == {1, 2, 4, 5, 6}
    negative = [f["id"] for f in FACTS if min(np.poly1d(f["coefficients"])(x) for x in np.linspace(0.0, 0.4, 41)) < 0]
    assert len(negative) > 20


@pytest.mark.parametrize("order", range(7))
def test_random_polynomials_of_every_order_decide_alike(
    order: int, make_cache: Callable[..., TeaCache], drive: Callable[..., Any]
) -> None:
    generator = np.random.default_rng(order)
    both = set()
    for seed in range(8):
        coefficients = generator.normal(scale=0.2, size=order + 1).tolist()
        coefficients[-1] = abs(coefficients[-1]) * 0.2
        signals = random_signals(seed, largest=0.3)
        reference = Reference(coefficients, 0.15, 1, STEPS - 2)
        cache = make_cache(curve=Polynomial(tuple(coefficients)), threshold=0.15, last_skip_step=STEPS - 2)
        reused = drive(cache, signals)
        assert reused == [reference.reuses(step, s) for step, s in enumerate(signals)]
        both |= set(reused)
    assert both == {True, False}


@pytest.mark.parametrize(("coefficients", "fact"), published())
def test_threshold_zero_never_reuses_even_where_the_polynomial_is_negative(
    coefficients: list[float], fact: dict[str, Any], make_cache: Callable[..., TeaCache], drive: Callable[..., Any]
) -> None:
    cache = make_cache(curve=Polynomial(tuple(coefficients)), threshold=0.0)
    assert not any(drive(cache, random_signals(0, largest=0.3)))


def test_a_sum_that_meets_the_threshold_exactly_computes(
    make_cache: Callable[..., TeaCache], drive: Callable[..., Any], signal: Callable[..., torch.Tensor]
) -> None:
    # Each change is exactly 1/4: 0.25 + 0.25 is not below 0.5.
    signals = [signal(1.25**k, dtype=torch.float64) for k in range(7)]
    assert drive(make_cache(threshold=0.5, curve=Polynomial((0.25,))), signals) == [False, True] * 3 + [False]


def test_the_distance_is_taken_from_the_previous_step_and_not_from_the_last_computed_one(
    make_cache: Callable[..., TeaCache], drive: Callable[..., Any], signal: Callable[..., torch.Tensor]
) -> None:
    cache = make_cache(threshold=10.0)
    drive(cache, [signal(size, dtype=torch.float64) for size in (1.0, 2.0, 3.0, 6.0)])
    assert cache.statistics()["default"].distances == (None, 1.0, 0.5, 1.0)


def test_a_step_outside_the_window_starts_the_sum_anew(
    make_cache: Callable[..., TeaCache], drive: Callable[..., Any], signal: Callable[..., torch.Tensor]
) -> None:
    cache = make_cache(threshold=0.35, curve=Polynomial((0.1,)), first_skip_step=2, max_consecutive_skips=None)
    assert drive(cache, [signal(1.0)] * 8) == [False, False, True, True, True, False, True, True]


def test_post_processing_is_what_the_record_says(
    make_cache: Callable[..., TeaCache], drive: Callable[..., Any], signal: Callable[..., torch.Tensor]
) -> None:
    signals = [signal(1.0)] * 4
    for post, expected in (
        ("none", [False, True, True, True]),
        ("abs", [False] * 4),
        ("clip", [False, True, True, True]),
    ):
        cache = make_cache(curve=Polynomial((-1.0,), post=post), threshold=0.5)
        assert drive(cache, signals) == expected
        assert cache.statistics()["default"].steps[1].predicted == {"none": -1.0, "abs": 1.0, "clip": 0.0}[post]
