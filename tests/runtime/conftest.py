"""Caches driven as a transformer drives them."""

from __future__ import annotations

from ..driving import _one_thread, drive, make_cache, make_policy, signal

__all__ = ["_one_thread", "drive", "make_cache", "make_policy", "signal"]
