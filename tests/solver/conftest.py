"""Runs whose tensors are known."""

from __future__ import annotations

from ..smooth_runs import _make_run, _make_set

__all__ = ["_make_run", "_make_set"]
