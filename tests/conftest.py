"""What tests of several folders need, and which tests a plain `pytest` leaves out (docs/testing.md)."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock

# Libraries read these when they are first imported: two workers on two cores, and nothing of this machine's user.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_HUB_FILES = tempfile.TemporaryDirectory(prefix="easyteacache-tests-")
os.environ["HF_HOME"] = _HUB_FILES.name
os.environ["HF_HUB_DISABLE_XET"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

TOOLS = Path(__file__).resolve().parents[1] / "tools"

Shared = Callable[[str, Callable[[Path], None]], Path]

_LEFT_OUT = pytest.StashKey[int]()


def pytest_unconfigure() -> None:
    """Remove this process's hub cache."""
    _HUB_FILES.cleanup()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked slow, unless ``-m`` chooses or the test is named."""
    if config.option.markexpr:
        return
    named = [argument for argument in config.args if "::" in argument]
    slow = [
        item
        for item in items
        if item.get_closest_marker("slow") and not any(_names(argument, item) for argument in named)
    ]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]
    config.stash[_LEFT_OUT] = len(slow)
    if hasattr(config, "workeroutput"):  # the workers of pytest-xdist collect, its controller prints
        config.workeroutput["left_out"] = len(slow)


def _names(argument: str, item: pytest.Item) -> bool:
    path, _, rest = argument.partition("::")
    name = item.nodeid.partition("::")[2]
    return item.path == (item.config.invocation_params.dir / path).resolve() and (
        name == rest or name.startswith((f"{rest}[", f"{rest}::"))
    )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Every worker left out the same tests."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out."""
    if count := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{count} slow tests were left out (they compile, train, or start and kill processes); "
            'all of them: pytest -m "slow or not slow"'
        )


@pytest.fixture(scope="session")
def load_tool() -> Callable[[str], ModuleType]:
    """``load_tool("bench/oracle.py")``: a program of the tools folder as a module."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"tool_{Path(path).stem}", TOOLS / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Data classes look their module up while it is executed.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """``shared("solved", make)``: a folder that ``make(folder)`` filled, once for all workers. Nobody may change it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def find(name: str, make: Callable[[Path], None]) -> Path:
        folder = base / f"shared-{name}"
        with FileLock(base / f"shared-{name}.lock"):
            if not (folder / "made").is_file():
                folder.mkdir(exist_ok=True)
                make(folder)
                (folder / "made").touch()
        return folder

    return find
