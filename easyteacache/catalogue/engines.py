"""What released engines ship, as `tools/audit_engines.py` found it: the data behind one page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easyteacache.errors import InvalidCalibration
from easyteacache.files import strict_json
from easyteacache.records import parsing

RULES = "engines"
# A package's lists → their texts; each has a line beside them.
_PARTS = {
    "lists": ("file", "stands_under", "model_key", "kind"),
    "findings": ("file", "rule", "level", "message"),
}


def read(path: Path) -> Mapping[str, Any]:
    """The content of ``engines-audit.json``.

    Raises:
        InvalidCalibration: the file is unreadable or of another form.
    """
    where = os.fspath(path)
    data = parsing.read_file(path, rules=RULES, max_bytes=strict_json.MAX_BYTES)
    content = parsing.read_object(data, where=where, rules=RULES, max_bytes=strict_json.MAX_BYTES, max_items=100_000)
    packages = content.get("packages")
    if not isinstance(content.get("date"), str) or not isinstance(packages, list) or not all(map(_fits, packages)):
        reason = "expected a date and packages, each with title, version, lists and findings, as tools/audit_engines.py writes them"
        raise InvalidCalibration(where, reason, rule=f"{RULES}.form")
    return content


def _fits(package: object) -> bool:
    if not isinstance(package, dict) or not isinstance(package.get("version", 0), str | None):
        return False
    parts = {name: package.get(name) for name in _PARTS}
    return _texts(package, "package", "title") and all(
        isinstance(part, list)
        and all(isinstance(one, dict) and _texts(one, *_PARTS[name]) and type(one.get("line")) is int for one in part)
        for name, part in parts.items()
    )


def _texts(content: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(content.get(name), str) for name in names)
