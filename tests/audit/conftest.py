"""A folder with planted copies, and the command run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from easyteacache.audit.scan import Standard
from easyteacache.cli.hub import main as hub
from easyteacache.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def bundled() -> Registry:
    """The published records."""
    return Registry.from_folder(ROOT / "registry")


@pytest.fixture(scope="session")
def standard(bundled: Registry) -> Standard:
    return Standard.of(bundled)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``run(path, "--format", "json")`` runs `easyteacache-hub audit …` in this process, from ``tmp_path``."""
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EASYTEACACHE_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(hub, ["audit", *map(str, arguments)])


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[str, str], Path]:
    """``plant("a/b.py", text)`` writes a file below ``tmp_path / "tree"`` and gives the tree."""

    def write(name: str, text: str) -> Path:
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return tmp_path / "tree"

    return write
