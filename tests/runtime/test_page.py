"""docs/runtime.md tells the truth: its code runs, and the names it uses exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from easyteacache import TeaCache, errors
from easyteacache.policy.policy import RetiredCalibration
from easyteacache.runtime import predictors

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "runtime.md").read_text("utf-8")


def test_its_code_runs_and_reuses(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "docs/runtime.md", "exec"), names)
    cache = names["cache"]
    assert isinstance(cache, TeaCache)
    assert 1.5 < cache.current_speedup_rate() < 25
    assert "of 50 steps" in capsys.readouterr().out


def test_its_errors_and_forecasters_exist() -> None:
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
    for name in set(predictors.names()) - {"mean", "taylor-2", "taylor-3"}:
        assert f"`{name}`" in PAGE
