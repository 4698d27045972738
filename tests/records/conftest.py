"""Traces made without a model."""

from __future__ import annotations

from ..smooth_traces import make_trace

__all__ = ["make_trace"]
