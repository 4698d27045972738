"""Where in the scheduler's list the timestep is that a transformer was handed.

Pipelines hand it on in four spellings: t, t / 1000, 1 − t / 1000 and 1000 − t, some in half precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SPAN = 1000.0
#: Relative rounding of timesteps in single precision, a few operations long.
ROUNDING = 1e-5


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
    if low != high and not bool(((values == low) | (values == high)).all()):
        return None
    rounding = torch.finfo(timestep.dtype).eps if timestep.is_floating_point() else 0.0
    slack = 0.0 if timestep.is_floating_point() else 1.0 - ROUNDING
    spelled = (
        (high, list(times)),
        (high, [time / span for time in times]),
        (low, [1.0 - time / span for time in times]),
        (low, [span - time for time in times]),
    )
    misses: list[list[float | None]] = []
    for value, row in spelled:
        largest = max(map(abs, row))
        allowed = [max(ROUNDING * largest, rounding * abs(one), slack) for one in row]
        apart = [abs(one - value) for one in row]
        misses.append([miss if miss <= most else None for miss, most in zip(apart, allowed, strict=True)])
    if any(expected < len(each) and each[expected] is not None for each in misses):
        return expected
    for each in misses:
        near = [(miss, place) for place, miss in enumerate(each) if miss is not None]
        if near:
            return min(near)[1]
    return None
