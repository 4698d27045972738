"""Small records, in memory and in a folder."""

from __future__ import annotations

from ..toy_records import bucket, file_record, make_record, registry_folder

__all__ = ["bucket", "file_record", "make_record", "registry_folder"]
