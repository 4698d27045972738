"""What engines ship, as a file says it: of this form, or refused by a sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from easyteacache.catalogue import engines
from easyteacache.errors import InvalidCalibration

LIST = {"file": "a.py", "line": 3, "stands_under": "FLUX", "model_key": "flux.1/dev", "title": "FLUX", "kind": "exact"}
FINDING = {"rule": "borrowed", "level": "error", "file": "a.py", "line": 3, "message": "Not these."}
PACKAGE = {"package": "a", "title": "A", "version": None, "lists": [LIST], "findings": [FINDING]}
TEXTS = [("package",), ("title",), *(("lists", 0, name) for name in ("file", "stands_under", "model_key", "kind"))]
TEXTS += [("findings", 0, name) for name in ("file", "rule", "level", "message")]
LINES = [("lists", 0, "line"), ("findings", 0, "line")]
PLACES = [*TEXTS, *LINES, ("version",), ("lists",), ("lists", 0), ("findings",), ("findings", 0)]


def read(package: Any, folder: Path) -> Any:
    (folder / "audit.json").write_text(json.dumps({"date": "2026-01-01", "packages": [package]}))
    return engines.read(folder / "audit.json")


def test_what_the_tool_writes_is_read(tmp_path: Path) -> None:
    assert read(PACKAGE, tmp_path)["packages"] == [PACKAGE]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_part_that_is_missing_or_of_another_kind_is_refused(place: tuple[Any, ...], tmp_path: Path) -> None:
    for value in (5.5, True, ["x"], None):
        package: Any = copy.deepcopy(PACKAGE)
        holder = package
        for step in place[:-1]:
            holder = holder[step]
        holder[place[-1]] = value
        if value is None and isinstance(holder, dict):
            del holder[place[-1]]
        with pytest.raises(InvalidCalibration, match="expected a date and packages"):
            read(package, tmp_path)
