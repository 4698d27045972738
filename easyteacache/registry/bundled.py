"""Find the registry and the schemas that travel with the package: in a wheel, an editable install or a bare checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def registry() -> Path:
    """Folder of the bundled registry: ``_data/registry`` in a wheel, the top-level ``registry`` in a checkout."""
    return _find("registry")


def schemas() -> Path:
    """Folder of the JSON Schema files: ``_data/schemas`` in a wheel, the top-level ``schemas`` in a checkout."""
    return _find("schemas")


def engines_audit() -> Path:
    """What released engines ship: ``_data/engines-audit.json`` in a wheel, that of ``docs`` in a checkout."""
    for path in (_PACKAGE / "_data" / "engines-audit.json", _PACKAGE.parent / "docs" / "engines-audit.json"):
        if path.is_file():
            return path
    raise FileNotFoundError("easyteacache was installed without engines-audit.json: reinstall the package")


def _find(name: str) -> Path:
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"easyteacache was installed without its {name!r} folder: reinstall the package")
