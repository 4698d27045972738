"""A path that a variable or an argument names, with ``~`` replaced, or one sentence why there is none."""

from __future__ import annotations

import os
from pathlib import Path

from easyteacache.errors import InvalidCalibration
from easyteacache.files import strict_json


def expanded(name: str | os.PathLike[str], given_by: str, *, rule: str) -> Path:
    """``name`` with ``~`` and ``~user`` replaced.

    Args:
        name: the path.
        given_by: variable or argument that it came from, for the error.
        rule: for the error.

    Raises:
        InvalidCalibration: there is no such user, or this one has no home.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        shown = strict_json.shown(os.fspath(name))
        reason = f"names {shown}, whose home folder is not known here; name a folder by its whole path"
        raise InvalidCalibration(given_by, reason, rule=rule) from error
