"""Where in the scheduler's list the timestep is that a transformer was handed.

Pipelines hand it on in four spellings: t, t / 1000, 1 − t / 1000 and 1000 − t, some in half precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SPAN = 1000.0
#: Relative rounding of timesteps in single precision, a few operations long.
ROUNDING = 1e-6


def place_of(timestep: torch.Tensor, times: Sequence[float], *, span: float = SPAN, expected: int = 0) -> int | None:
    """Position of ``timestep`` in ``times``; None where it is not there, or several tokens differ in more than being clean.

    The device is waited for.

    Args:
        timestep: any shape; where some tokens are clean already, the generated ones are the noisier.
        times: (N,) the scheduler's list.
        span: training timesteps, which the spellings count by.
        expected: the place it is at if it may be there: half precision cannot tell the first few apart where the shift is large.
    """
    if timestep.numel() == 0 or not times:
        return None
    values = timestep.detach().double().flatten()
    low, high = torch.stack((values.min(), values.max())).tolist()
    falling, rising = True, True
    if low != high:
        if not bool(((values == low) | (values == high)).all()):
            return None
        # Clean tokens are at the end of time: 0 where it falls, 1 or the span where it rises.
        falling, rising = low == 0.0, low != 0.0 and high in (1.0, span)
    spelled = [(high, list(times)), (high, [time / span for time in times])] if falling else []
    if rising:
        spelled += [(low, [1.0 - time / span for time in times]), (low, [span - time for time in times])]
    near = [_near(value, row, timestep.dtype) for value, row in spelled]
    if any(expected in found for found in near):
        return expected
    return next((min(found, key=found.__getitem__) for found in near if found), None)


def _near(value: float, row: Sequence[float], dtype: torch.dtype) -> dict[int, float]:
    """The places of ``row`` that rounding to ``dtype`` cannot tell from ``value``, and how far each is off."""
    largest = max(map(abs, row))
    # Whole timesteps are cut off; others are rounded as themselves, or as what they were computed from.
    slack = ROUNDING * largest if dtype.is_floating_point else 1.0 - ROUNDING
    rounding = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    misses = ((place, abs(one - value), max(slack, rounding * abs(one))) for place, one in enumerate(row))
    return {place: miss for place, miss, allowed in misses if miss <= allowed}
