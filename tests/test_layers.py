"""The order of the house: each folder imports only from itself and those before it (docs/architecture.md shows the same order).

Read from the sources without importing any; imports inside functions and for the type checker count as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "easyteacache"
ORDER = [
    "files",
    "errors",
    "records",
    "registry",
    "policy",
    "runtime",
    "original",
    "recording",
    "audit",
    "compare",
    "pages",
    "reference",
    "solver",
    "hub",
    "integrations",
    "export",
    "calibrating",
    "catalogue",
    "teacache",
    "diagnosis",
    "demo",
    "bench",
    "cli",
]
# What a command needs it imports in its body, so that the other commands do not pay for it.
CLI_AT_IMPORT = {"files", "errors", "records", "registry", "export", "cli"}


def place(module: str) -> int:
    """Position of a module's folder (or of the module, where it lies at the top) in the order."""
    return ORDER.index(module.split(".")[0])


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.stem in ORDER
}


def imports_of(path: Path) -> Iterator[tuple[ast.stmt, str, bool]]:
    """(statement, module below ``easyteacache``, whether it is imported when its importer is) of every import of our own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    deferred = {id(inner) for outer in ast.walk(tree) if _defers(outer) for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute in this project"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("easyteacache.") and name.split(".")[1] in ORDER:
                assert isinstance(node, ast.stmt)
                yield node, name.removeprefix("easyteacache."), id(node) not in deferred


def _defers(node: ast.AST) -> bool:
    function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    return function or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))


def test_a_folder_imports_only_from_those_before_it() -> None:
    backwards = [
        f"{module} imports {target}"
        for module, path in MODULES.items()
        for _, target, _ in imports_of(path)
        if place(target) > place(module)
    ]
    assert backwards == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {_module(target) for _, target, _ in imports_of(path)} - {module} for module, path in MODULES.items()
    }
    while leaves := {module for module, targets in graph.items() if not targets & graph.keys()}:
        graph = {module: targets for module, targets in graph.items() if module not in leaves}
    assert sorted(graph) == [], "these stand in a circle or lead to one"


def _module(target: str) -> str:
    while target not in MODULES:
        target = target.rpartition(".")[0]
    return target


def test_few_modules_lie_at_the_top() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "_version"}
    assert len(loose) <= 4, sorted(loose)
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders | (loose - {"__main__", "_former_paths"}) == set(ORDER), "a new folder needs a place in ORDER"


def test_a_command_imports_its_folder_when_it_runs() -> None:
    early = [
        f"{module} imports {target} at once"
        for module, path in MODULES.items()
        for _, target, at_once in imports_of(path)
        if module.startswith("cli.") and at_once and target.split(".")[0] not in CLI_AT_IMPORT
    ]
    assert early == []


def test_the_architecture_page_shows_the_same_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[a-z_./]+`[ ,]*)+)\|", page, re.MULTILINE)
    shown = [name.strip("`/").removesuffix(".py") for row in rows for name in re.findall(r"`[a-z_./]+`", row)]
    assert [name for name in shown if name in ORDER] == ORDER
