"""Each layer imports only what stands above it (docs/architecture.md); read from the sources, without importing any."""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "easyteacache"


class Layer(NamedTuple):
    """Modules as patterns below `easyteacache`, the layers they may import, and third-party modules at import time."""

    modules: str
    may_import: str
    third_party: str


# A new module needs a place here. Every layer may import itself.
LAYERS = {
    "facts": Layer("_version errors model_key rescale json_text atomic", "", ""),
    "records": Layer("provenance reading bucket calibration trace trace_*", "facts", "pydantic numpy safetensors"),
    "registry": Layer(
        "bundled index lock_file registry setting selection window operating policy resolver",
        "facts records",
        "pydantic",
    ),
    "identify": Layer(
        "identify known agreement model_names nearby_names number_lists audit audit_*", "facts records registry", ""
    ),
    "runtime": Layer(
        "gate forecast distance correction weighted_sum branch statistics arguments run_state driven attachable calibrated seed_file seed_mode teacache",
        "facts records registry",
        "",  # torch and numpy only inside the functions that touch tensors
    ),
    "recorder": Layer("gram sketch recorder", "facts records registry runtime", "pydantic numpy torch"),
    "solver": Layer("solver solver.*", "facts records registry runtime", "numpy scipy"),
    "hub": Layer("hub hub.*", "facts records registry runtime", "pydantic jsonschema huggingface_hub filelock"),
    "integrations": Layer(
        "integrations integrations.diffusers* integrations.recording*",
        "facts records registry runtime recorder",
        "torch diffusers numpy tqdm",
    ),
    "export": Layer("integrations.export integrations.export.*", "facts records registry identify runtime", ""),
    "reference": Layer("reference reference.*", "facts records registry runtime", "torch diffusers numpy safetensors"),
    "compare": Layer("compare compare.* quality", "facts", "numpy"),
    "demo": Layer("demo demo.*", "facts records registry runtime reference compare", "numpy"),
    "bench": Layer(
        "bench bench.*",
        "facts records registry runtime recorder solver integrations reference compare demo",
        "torch diffusers numpy",
    ),
    "cli": Layer(
        "cli cli.* __main__",
        "facts records registry identify runtime recorder solver hub integrations export reference compare demo bench",
        "click",
    ),
    "front": Layer("__init__", "facts", ""),  # everything else by name, on first use
}
# What a command needs it imports in its body, so that the other commands do not pay for it.
CLI_AT_IMPORT = "facts records registry export cli"
# Calls downwards that are wanted: sugar on an upper object for a lower layer, imported inside the method.
WANTED = {
    ("attachable", "integrations.diffusers.attach"),
    ("teacache", "integrations.diffusers.keys"),
    ("teacache", "integrations.diffusers.parts"),
}


class Import(NamedTuple):
    """One import of a module; ``deferred`` when it stands inside a function."""

    target: str
    deferred: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def layers_of(module: str) -> list[str]:
    found = []
    for name, layer in LAYERS.items():
        if any(fnmatch.fnmatchcase(module, pattern) for pattern in layer.modules.split()):
            found.append(name)
    return found


def imports_of(node: ast.AST, *, deferred: bool = False) -> Iterator[Import]:
    """Imports that happen at run time: those for the type checker alone are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from (found for other in child.orelse for found in imports_of(other, deferred=deferred))
        elif isinstance(child, ast.Import):
            yield from (Import(alias.name, deferred) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute in this project"
            yield from (Import(f"{child.module}.{alias.name}", deferred) for alias in child.names)
        else:
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports_of(child, deferred=deferred or function)


def own_module(target: str) -> str | None:
    """``easyteacache.hub.review.check_record.check`` → ``hub.schema``; None for other packages."""
    package, _, rest = target.partition(".")
    if package != "easyteacache":
        return None
    while rest and rest not in MODULES:
        rest = rest.rpartition(".")[0]
    return rest or "__init__"


@pytest.fixture(scope="module")
def imports() -> dict[str, list[Import]]:
    return {name: list(imports_of(ast.parse(path.read_text(encoding="utf-8")))) for name, path in MODULES.items()}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_belongs_to_one_layer(module: str) -> None:
    assert len(layers_of(module)) == 1, f"give {module} a place in LAYERS"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_is_above_it(module: str, imports: dict[str, list[Import]]) -> None:
    (layer,) = layers_of(module)
    allowed = {layer, *LAYERS[layer].may_import.split()}
    for target, deferred in imports[module]:
        own = own_module(target)
        if own in (None, "__init__") or (deferred and (module, own) in WANTED):
            continue
        assert set(layers_of(own)) <= allowed, f"{module} ({layer}) imports {own} ({layers_of(own)})"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_needs_only_its_layers_third_parties_to_be_imported(
    module: str, imports: dict[str, list[Import]]
) -> None:
    (layer,) = layers_of(module)
    packages = {target.partition(".")[0] for target, deferred in imports[module] if not deferred}
    others = {name for name in packages if name not in sys.stdlib_module_names} - {"easyteacache"}
    assert others <= set(LAYERS[layer].third_party.split())


@pytest.mark.parametrize("module", [name for name in MODULES if layers_of(name) == ["cli"]])
def test_a_command_imports_its_layer_when_it_runs(module: str, imports: dict[str, list[Import]]) -> None:
    at_once = [own_module(target) for target, deferred in imports[module] if not deferred]
    for own in at_once:
        if own not in (None, "__init__"):
            assert layers_of(own)[0] in CLI_AT_IMPORT.split(), f"{module} imports {own} at once"


def test_wanted_exceptions_still_exist(imports: dict[str, list[Import]]) -> None:
    for module, own in WANTED:
        assert any(own_module(target) == own and deferred for target, deferred in imports[module])
