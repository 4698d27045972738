"""What the verbs take as a step and as a token count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from easyteacache.errors import InvalidSignal
from easyteacache.teacache import TeaCache

LATENT = torch.zeros(1, 8, 4)
ONE = torch.ones(1, 6, 4)
Make = Callable[..., Any]


def compute(cache: TeaCache, step: int, *, residual: float = 1.0, signal: torch.Tensor = ONE, **arguments: Any) -> None:
    assert not cache.check(step, signal, **arguments)
    branch = {"branch": arguments["branch"]} if "branch" in arguments else {}
    cache.store_truth(step, signal, LATENT, LATENT + residual, **branch)


@pytest.mark.parametrize("step", [np.int64(1), np.uint8(1), torch.tensor(1)], ids=["int64", "uint8", "tensor"])
def test_every_kind_of_integer_is_a_step(make_cache: Make, step: Any) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0, sequence_length=8)
    assert cache.check(step, ONE, np.int32(8))
    cache.update(ONE, LATENT)
    assert cache.statistics()["default"].hits == (1,)


@pytest.mark.parametrize("step", [True, 1.0, np.float64(1), "1", None, -1, float("nan")])
def test_what_is_no_index_is_refused(make_cache: Make, step: Any) -> None:
    cache = make_cache(threshold=9.0)
    compute(cache, 0)
    for call in (lambda: cache.check(step, ONE), lambda: cache.store_truth(step, ONE, LATENT, LATENT)):
        with pytest.raises(InvalidSignal, match="step: expected an integer index"):
            call()
    assert cache.check(1, ONE)


@pytest.mark.parametrize("length", [True, 8.0, "8", -8])
def test_what_is_no_token_count_is_refused(make_cache: Make, length: Any) -> None:
    with pytest.raises(InvalidSignal, match="sequence_length: expected a number of tokens"):
        make_cache().check(0, ONE, length)
