"""The benchmark of a decision: it runs, and both sides of it decide alike."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench" / "check_cost.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_cost", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_cost"] = module
    spec.loader.exec_module(module)
    return module


def test_it_reports_every_cost_of_every_signal(bench: ModuleType) -> None:
    arguments = ["--signal", "1x2x8:float32", "--signal", "1x2x8:bfloat16", "--repeat", "3", "--json"]
    done = CliRunner().invoke(bench.main, arguments, catch_exceptions=False)
    costs = json.loads(done.output)
    assert [cost["signal"] for cost in costs] == arguments[1:4:2]
    assert all(cost[name] > 0 for cost in costs for name in ("published", "check", "keep", "outside", "schedule"))
    table = CliRunner().invoke(bench.main, arguments[:-1], catch_exceptions=False).output
    assert max(map(len, table.splitlines()[:3])) <= 80


def test_the_published_side_of_the_benchmark_decides_as_this_project(bench: ModuleType) -> None:
    published, ours = bench.Published(), bench.Ours(torch.ones(1, 6, 8, dtype=torch.float64))
    published.decide(torch.ones(1, 6, 8, dtype=torch.float64), 1e30)
    size = 1.0
    for step in range(1, 12):
        size *= 1 + 0.003 * step
        signal = torch.full((1, 6, 8), size, dtype=torch.float64)
        published.decide(signal, 1e30)
        ours.check(signal)
        ours.keep()
        assert ours.state.steps[-1].accumulated == pytest.approx(published.accumulated)
