"""Every program of tools/ can be loaded: none imports what was moved or renamed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PROGRAMS = [path for path in sorted(TOOLS.rglob("*.py")) if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(TOOLS).as_posix())
def test_a_program_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = set(sys.modules)
    for folder in (TOOLS, path.parent):  # as when it is run
        monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "program", program)
    try:
        spec.loader.exec_module(program)
    finally:
        for name in set(sys.modules) - known - {"program"}:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(path.parent)):
                del sys.modules[name]
    assert hasattr(program, "main") or hasattr(program, "bench")


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 15
