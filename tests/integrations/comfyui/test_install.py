"""The node pack goes into a ComfyUI's folder, and comes out again; nothing else there is touched."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from easyteacache.cli.main import main
from easyteacache.errors import InstallError
from easyteacache.integrations.comfyui.install import FOLDER, PACK, files, install, uninstall


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    (tmp_path / "custom_nodes" / "another").mkdir(parents=True)
    (tmp_path / "custom_nodes" / "another" / "__init__.py").write_text("mine")
    return tmp_path


def test_installed_is_what_the_package_has(comfyui: Path) -> None:
    folder = install(comfyui)
    assert folder == comfyui / "custom_nodes" / FOLDER
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == files()
    assert {"__init__.py", "pyproject.toml"} <= set(found)
    assert (comfyui / "custom_nodes" / "another" / "__init__.py").read_text() == "mine"


def test_installed_again_nothing_of_before_is_left(comfyui: Path) -> None:
    folder = install(comfyui)
    (folder / "old.py").write_text("")
    install(comfyui)
    assert not (folder / "old.py").exists()


def test_a_link_leads_to_the_package(comfyui: Path) -> None:
    folder = install(comfyui, link=True)
    assert folder.is_symlink()
    assert folder.resolve() == PACK
    install(comfyui)
    assert not folder.is_symlink()
    assert (PACK / "__init__.py").is_file()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_installation_that_ends_half_way_leaves_what_was_there(
    comfyui: Path, before: bool, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        install(comfyui)

    def half(folder: Path, files: Mapping[str, bytes]) -> None:
        folder.mkdir()
        (folder / "__init__.py").write_bytes(files["__init__.py"])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("easyteacache.files.atomic_write.fill_folder", half)
        with pytest.raises(type(error)):
            install(comfyui)
    found = sorted(path.name for path in (comfyui / "custom_nodes").iterdir())
    assert found == ([FOLDER, "another"] if before else ["another"])
    assert not before or (comfyui / "custom_nodes" / FOLDER / "pyproject.toml").is_file()


def test_what_a_killed_installation_left_hinders_nobody(comfyui: Path) -> None:
    """ComfyUI loads no folder that is called so; the next installation removes it."""
    left = comfyui / "custom_nodes" / f".{FOLDER}-0123456789abcdef.disabled"
    left.mkdir()
    (left / "__init__.py").write_text("")
    install(comfyui)
    assert sorted(path.name for path in (comfyui / "custom_nodes").iterdir()) == [FOLDER, "another"]


def test_a_pack_is_taken_out_whole_even_where_deleting_it_ends_half_way(
    comfyui: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(comfyui)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path, **_: (path / "pyproject.toml").unlink())
        assert uninstall(comfyui)
    install(comfyui)
    assert sorted(path.name for path in (comfyui / "custom_nodes").iterdir()) == [FOLDER, "another"]


@pytest.mark.parametrize("link", [False, True])
def test_taken_out_nothing_of_it_is_left(comfyui: Path, link: bool) -> None:
    install(comfyui, link=link)
    assert uninstall(comfyui)
    assert not uninstall(comfyui)
    assert [path.name for path in (comfyui / "custom_nodes").iterdir()] == ["another"]
    assert (PACK / "__init__.py").is_file()


def test_somebody_elses_folder_is_left_alone(comfyui: Path) -> None:
    taken = comfyui / "custom_nodes" / FOLDER
    taken.mkdir()
    (taken / "__init__.py").write_text("theirs")
    for act in (install, uninstall):
        with pytest.raises(InstallError, match="not this node pack"):
            act(comfyui)
    assert (taken / "__init__.py").read_text() == "theirs"


def test_another_folder_is_no_comfyui(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="custom_nodes"):
        install(tmp_path)


def test_the_pack_imports_nothing_but_this_package() -> None:
    tree = ast.parse((PACK / "__init__.py").read_text())
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert modules == ["easyteacache.integrations.comfyui.nodes"]


WORKFLOWS = sorted((PACK / "example_workflows").glob("*.json"))


def test_there_are_example_workflows() -> None:
    assert len(WORKFLOWS) >= 3


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_links_of_a_workflow_fit_together(path: Path) -> None:
    content = json.loads(path.read_text())
    nodes = {node["id"]: node for node in content["nodes"]}
    assert any(node["type"].startswith("EasyTeaCache") for node in nodes.values())
    for link, source, out, target, into, kind in content["links"]:
        assert link in nodes[source]["outputs"][out]["links"]
        assert nodes[source]["outputs"][out]["type"] == kind
        assert nodes[target]["inputs"][into]["link"] == link
        assert nodes[target]["inputs"][into]["type"] == kind
    used = [link for node in nodes.values() for link in [one.get("link") for one in node.get("inputs", [])] if link]
    assert sorted(used) == sorted(link[0] for link in content["links"])


def test_the_command_installs_and_tells(
    comfyui: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(comfyui / "home"))
    assert main(["comfyui", "install", str(comfyui), "--json"], standalone_mode=False) is None
    assert json.loads(capsys.readouterr().out) == {"folder": str(comfyui / "custom_nodes" / FOLDER), "done": True}
    main(["comfyui", "status", str(comfyui)], standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == [f"node pack: {comfyui / 'custom_nodes' / FOLDER}", "no run yet"]
    main(["comfyui", "uninstall", str(comfyui)], standalone_mode=False)
    assert "Taken out" in capsys.readouterr().out
