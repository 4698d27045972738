"""File a record in the local layer, so that every later lookup on this machine finds it; whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from easyteacache.errors import InvalidCalibration
from easyteacache.hub.alone import alone
from easyteacache.records import calibration as records
from easyteacache.records import model_key
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index, registry


def local_layer() -> Path:
    """The folder of the local layer; it need not be there."""
    return registry.home() / "local"


def path_in_local(key: str) -> Path:
    """Where the record of ``key`` belongs in the local layer."""
    return local_layer() / model_key.path_of(key)


def file_record(record: Calibration, *, replace: bool = False) -> Path:
    """File ``record`` under its key; returns the file.

    Args:
        record: the calibration.
        replace: another record of this key may be there.

    Raises:
        InvalidCalibration: another record of this key is there, or this one breaks a rule of the format.
        HubError: another process holds the layer for minutes.
        OSError: the disk cannot be written; the layer is as it was.
    """
    layer, path = local_layer(), path_in_local(record.model_key)
    with alone(layer):
        if not replace and os.path.lexists(path) and _spelled(path) != record.to_json():
            raise InvalidCalibration(
                os.fspath(path),
                "holds another record of this key, which would be overwritten: pass --force to replace it",
                rule="local.exists",
            )
        with _Unlisted(layer):
            records.save(record, path)
    return path


def withdraw(key: str) -> None:
    """Take the record of ``key`` out of the local layer, where there is one.

    Raises:
        OSError: the disk cannot be written.
    """
    layer = local_layer()
    with alone(layer), _Unlisted(layer):
        path_in_local(key).unlink(missing_ok=True)


class _Unlisted:
    """The layer without its index while a file changes: an index that a kill left behind would hide or refuse the record."""

    def __init__(self, layer: Path) -> None:
        self._layer = layer
        self._listed = False

    def __enter__(self) -> None:
        listed = self._layer / index.FILE_NAME
        self._listed = listed.exists()
        listed.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        if self._listed:
            index.write(self._layer, index.build_around(self._layer)[0])


def _spelled(path: Path) -> str | None:
    """The canonical text of the record in a file; None where it cannot be read."""
    try:
        return records.load(path).to_json()
    except InvalidCalibration:
        return None
