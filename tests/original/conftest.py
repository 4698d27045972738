"""Caches driven as a transformer drives them, and the original project"s file."""

from __future__ import annotations

from ..driving import _one_thread, drive, make_cache, make_policy, seed_json, signal

__all__ = ["_one_thread", "drive", "make_cache", "make_policy", "seed_json", "signal"]
