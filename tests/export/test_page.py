"""docs/engines.md says what the exporters' table says."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from easyteacache.audit.scan import RULES
from easyteacache.export import ENGINES
from easyteacache.export.deviations import Rule

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("engines_page", ROOT / "tools" / "docs" / "engines_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tool_generates(tool: ModuleType) -> None:
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.with_tables(page) == page, "run python tools/docs/engines_page.py"


def test_the_page_names_every_rule(tool: ModuleType) -> None:
    page = tool.PAGE.read_text(encoding="utf-8")
    told = set(re.findall(r"`([a-z-]+)`", page))
    assert set(get_args(Rule)) - {"domain"} <= told  # A difference of the domain is only ever a remark.
    assert set(RULES) <= told


@pytest.mark.parametrize("engine", ENGINES)
def test_every_module_cites_what_its_entry_cites(engine: str) -> None:
    module = importlib.import_module(f"easyteacache.export.formats.{ENGINES[engine].module}")
    text = " ".join((module.__doc__ or "").split())
    for source in ENGINES[engine].sources:
        repository = source.repository if source.repository in text else source.repository.split("/")[0]
        assert repository in text
        assert source.shown_commit.removeprefix("release ") in text
    assert callable(module.write)
    assert hasattr(module, "read") == ENGINES[engine].reads
