"""docs/runtime.md tells the truth: its code runs, and the names it uses exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from easyteacache import TeaCache, errors
from easyteacache.policy.policy import RetiredCalibration
from easyteacache.runtime import predictors

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "runtime.md").read_text("utf-8")


def test_its_code_runs_and_reuses(capsys: pytest.CaptureFixture[str]) -> None:
    code = next(code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "store_truth" in code)
    names: dict[str, object] = {}
    exec(compile(code, "docs/runtime.md", "exec"), names)
    cache = names["cache"]
    assert isinstance(cache, TeaCache)
    assert 1.5 < cache.current_speedup_rate() < 25
    assert "of 50 steps" in capsys.readouterr().out


def test_its_errors_exist() -> None:
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`[,;| ]", PAGE.split("## What is refused")[1])) - {"ValueError"}
    assert named == {
        "UnknownModelKey",
        "AmbiguousModelKey",
        "InvalidCalibration",
        "RetiredCalibration",
        "SignalMismatch",
        "UnreachableTarget",
        "StepOrderError",
        "InvalidSignal",
    }
    for name in named:
        assert issubclass(getattr(errors, name, RetiredCalibration), errors.EasyTeaCacheError)


def test_its_table_lists_every_registered_predictor() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "docs" / "predictors_table.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_its_own_predictor_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easyteacache.runtime.predictors.registry._families", list(predictors.families()))
    code = next(code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "register_predictor" in code)
    exec(compile(code, "docs/runtime.md", "exec"), {"__name__": "__main__"})
    assert predictors.predictor("cautious").weights([4.0], 5.0) == (0.9,)
