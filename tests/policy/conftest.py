"""Small records."""

from __future__ import annotations

from ..toy_records import bucket, make_record

__all__ = ["bucket", "make_record"]
