from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import easyteacache

PACKAGE = Path(easyteacache.__file__).parent


def modules_with_all() -> list[str]:
    """Every module that declares ``__all__``."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            found.append(".".join(parts).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", modules_with_all())
def test_every_exported_name_exists(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("easyteacache"):
            raise
        pytest.skip(f"it runs inside an engine that is not here ({error.name})")
    assert [export for export in module.__all__ if not hasattr(module, export)] == []
    assert len(set(module.__all__)) == len(module.__all__)


def written_down() -> list[tuple[str, str]]:
    """(module, name) of every public name in ``public_names.txt``."""
    lines = (Path(__file__).parent / "public_names.txt").read_text(encoding="utf-8").splitlines()
    entries = [line.split(":") for line in lines if line and not line.startswith("#")]
    return [(module, name) for module, names in entries for name in names.split()]


def test_every_name_written_down_can_be_imported() -> None:
    missing = [
        f"{module}.{name}" for module, name in written_down() if not hasattr(importlib.import_module(module), name)
    ]
    assert missing == []


def test_every_documented_import_is_written_down() -> None:
    pages = [PACKAGE.parent / "README.md", *sorted((PACKAGE.parent / "docs").glob("*.md"))]
    shown = {
        (module, name.strip())
        for page in pages
        for module, names in re.findall(
            r"^from ((?:easyteacache|EasyTeaCache)[\w.]*) import ([\w, ]+)$",
            page.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        for name in names.split(",")
    }
    assert shown - set(written_down()) == set()


def test_a_former_path_leads_to_the_same_object() -> None:
    from easyteacache.recorder import Recorder as Former  # type: ignore[import-not-found]

    from easyteacache.recording.recorder import Recorder

    assert Former is Recorder


def test_the_package_shows_its_public_names_and_nothing_else() -> None:
    assert dir(easyteacache) == sorted(easyteacache.__all__)
    for name in easyteacache.__all__:
        assert getattr(easyteacache, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="TeaCach'"):
        easyteacache.TeaCach  # noqa: B018


def test_the_original_projects_import_works() -> None:
    from EasyTeaCache import TeaCache

    assert TeaCache is easyteacache.TeaCache
