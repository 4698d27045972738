"""The relative L1 distance against its plain formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.errors import InvalidSignal
from easyteacache.runtime import tensor_math
from easyteacache.runtime.tensor_math import relative_l1


def plain(current: torch.Tensor, previous: torch.Tensor) -> float:
    current, previous = current.double(), previous.double()
    return float((current - previous).abs().mean() / previous.abs().mean())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64])
@pytest.mark.parametrize("shape", [(3,), (2, 5, 7), (1, 6, 4, 1)])
def test_it_is_the_mean_change_relative_to_the_earlier_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    previous = (100 * torch.rand(shape) + 1).to(dtype)
    current = (100 * torch.rand(shape) + 1).to(dtype)
    tolerance = 1e-2 if dtype in (torch.bfloat16, torch.float16) else 1e-6
    assert relative_l1(current, previous) == pytest.approx(plain(current, previous), rel=tolerance)
    assert relative_l1(current, previous) != pytest.approx(relative_l1(previous, current), rel=1e-4)


def test_a_mean_over_many_half_precision_numbers_does_not_saturate() -> None:
    previous = torch.full((1, 200_000), 1.0, dtype=torch.float16)
    assert relative_l1(previous * 1.5, previous) == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_walking_a_large_tensor_in_pieces_gives_the_same(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    previous = torch.randn(3, 1001).to(dtype)
    current = previous + torch.randn(3, 1001).to(dtype)
    whole = relative_l1(current, previous)
    monkeypatch.setattr(tensor_math, "_PIECE", 97)
    assert relative_l1(current, previous) == pytest.approx(whole, rel=1e-5)
    assert relative_l1(current.T, previous.T) == pytest.approx(whole, rel=1e-5)


@settings(max_examples=30)
@given(st.floats(0.01, 100.0), st.integers(0, 1000))
def test_a_common_scale_does_not_matter(scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    previous, current = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    assert relative_l1(scale * current, scale * previous) == pytest.approx(relative_l1(current, previous))
    assert relative_l1(previous, previous) == 0.0


def test_zero_infinity_and_nan() -> None:
    zero, one = torch.zeros(4), torch.ones(4)
    assert relative_l1(zero, zero) == 0.0
    assert relative_l1(one, zero) == math.inf
    assert relative_l1(zero, one) == 1.0
    assert math.isnan(relative_l1(one * math.nan, one))
    assert math.isnan(relative_l1(one, one * math.nan))
    assert not math.isfinite(relative_l1(one, one * math.inf))


@pytest.mark.parametrize("current", [torch.ones(3), torch.ones(2, 2), torch.ones(4, 1)])
def test_other_shapes_are_refused_even_where_they_would_broadcast(current: torch.Tensor) -> None:
    with pytest.raises(InvalidSignal, match="does not match the previous"):
        relative_l1(current, torch.ones(4))


def test_an_empty_tensor_is_refused() -> None:
    with pytest.raises(InvalidSignal, match="is empty"):
        relative_l1(torch.ones(0, 4), torch.ones(0, 4))


def test_shards_give_the_distance_of_the_whole() -> None:
    previous, current = torch.randn(2, 8, 30, dtype=torch.float64)
    # Adversarially different: one rank's part hardly changes.
    current[:, :10] = previous[:, :10] + 1e-3
    parts = [(current[:, a:b], previous[:, a:b]) for a, b in ((0, 10), (10, 30))]
    sums: list[torch.Tensor] = []
    for c, p in parts:
        relative_l1(c, p, reduce=lambda part: (sums.append(part), part)[1])
    total = sums[0] + sums[1]
    for c, p in parts:
        assert relative_l1(c, p, reduce=lambda _: total) == pytest.approx(plain(current, previous))
    assert relative_l1(*parts[0]) < 0.1 * relative_l1(*parts[1])


def test_a_sharded_cache_decides_by_the_reduced_distance(make_cache: Any) -> None:
    cache = make_cache(threshold=0.5)
    cache.reduce = lambda sums: torch.tensor([9.0, 1.0])
    latent = torch.zeros(1, 8, 4)
    cache.store_truth(0, torch.ones(4), latent, latent)
    assert not cache.check(1, torch.ones(4))
    assert cache.session.known("default").gate.reason == "threshold"
