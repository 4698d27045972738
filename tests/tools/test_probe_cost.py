"""The benchmark of a sampler's map: it runs, and every sampler it lists is what it says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench" / "probe_cost.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("probe_cost", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["probe_cost"] = module
    spec.loader.exec_module(module)
    return module


def test_it_reports_every_cost_of_every_sampler(bench: ModuleType) -> None:
    arguments = ["--steps", "4", "--repeat", "1", "--json"]
    costs = json.loads(CliRunner().invoke(bench.main, arguments, catch_exceptions=False).stdout)
    assert [cost["sampler"] for cost in costs] == list(bench.SAMPLERS)
    assert all(cost[name] > 0 for cost in costs for name in ("first", "map", "later"))
    assert all(cost["mapped"] is ("draws noise" not in cost["sampler"]) for cost in costs)
    table = CliRunner().invoke(bench.main, arguments[:-1], catch_exceptions=False).stdout
    assert max(map(len, table.splitlines())) <= 80
