"""What can be told of an engine from outside."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from easyteacache.cli.main import main
from easyteacache.integrations import engine_status as statuses
from easyteacache.integrations import last_run
from easyteacache.integrations.comfyui.install import install
from easyteacache.integrations.engine_status import ENGINES, engine_status
from easyteacache.integrations.sglang.plugin import MODEL


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(MODEL, raising=False)
    return tmp_path


def installed(monkeypatch: pytest.MonkeyPatch, *groups: str) -> None:
    def found(*, group: str) -> list[Any]:
        return [EntryPoint("easyteacache", "easyteacache.x:register", group)] if group in groups else []

    monkeypatch.setattr(statuses, "entry_points", found)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_last_request_is_told_whether_loaded_or_not(engine: str) -> None:
    assert engine_status(engine).last is None
    last_run.write(engine, {"record": "toy", "pattern": {"cond": "██·"}})
    assert engine_status(engine).last == {"record": "toy", "pattern": {"cond": "██·"}}


@pytest.mark.parametrize(
    "damage",
    [
        {"speedup": "fast"},
        {"speedup": [1]},
        {"pattern": 1e308},
        {"pattern": ["cond"]},
        {"pattern": {"cond": 3}},
        {"warnings": "w"},
        {"warnings": 5},
        {"record": ["toy"]},
        {"refusal": {}},
    ],
)
@pytest.mark.parametrize("command", [("doctor", "--engine", "comfyui"), ("comfyui", "status")])
def test_a_damaged_file_of_the_last_request_is_no_request(command: tuple[str, ...], damage: dict[str, Any]) -> None:
    last_run.write("comfyui", {"record": "toy", "pattern": {"cond": "██·"}, "speedup": 1.5, **damage})
    assert last_run.read("comfyui") is None
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "No request of it was seen" in result.stdout or "no run yet" in result.stdout


def test_comfyui_is_loaded_where_the_pack_lies(own_home: Path) -> None:
    (own_home / "custom_nodes").mkdir()
    assert engine_status("comfyui").loaded is None
    assert engine_status("comfyui", own_home).loaded is False
    install(own_home)
    found = engine_status("comfyui", own_home)
    assert found.loaded is True
    assert "EasyTeaCache" in found.why


def test_sglang_needs_its_entry_point_and_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    assert engine_status("sglang").loaded is False
    installed(monkeypatch, "sglang.multimodal_gen.plugins")
    assert MODEL in engine_status("sglang").why
    monkeypatch.setenv(MODEL, "wan2.1/t2v-14b")
    assert engine_status("sglang").loaded is True


def test_vllm_omni_needs_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    assert engine_status("vllm-omni").loaded is False
    installed(monkeypatch, "vllm_omni.general_plugins")
    assert engine_status("vllm-omni").loaded is True


def test_an_engine_without_a_plug_in_is_named() -> None:
    with pytest.raises(ValueError, match="expected one of comfyui, sglang, vllm-omni"):
        engine_status("xdit")


def test_the_entry_points_that_are_declared_can_be_loaded() -> None:
    import importlib

    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for group in statuses.GROUPS.values():
        [target] = project["entry-points"][group].values()
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
