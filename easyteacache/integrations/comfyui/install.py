"""Put the node pack into a ComfyUI: a folder of its own among the custom nodes, which imports this package."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from easyteacache.errors import InstallError
from easyteacache.files import atomic_write

#: The pack's folder in ComfyUI.
FOLDER = "EasyTeaCache"
PACK = Path(__file__).resolve().parent / "pack"
# ComfyUI loads no folder whose name ends so.
_PASSED_OVER = ".disabled"
_SUFFIXES = (".py", ".toml", ".json", ".md")


def install(comfyui: str | os.PathLike[str], *, link: bool = False) -> Path:
    """Copy the node pack into ``comfyui``; what an earlier version put there is replaced.

    Args:
        comfyui: ComfyUI's folder, which holds ``custom_nodes``.
        link: put a symbolic link there, so that the pack is always that of this package.

    Returns:
        The pack's folder.

    Raises:
        InstallError: this is no ComfyUI, or something else lies where the pack belongs.
        OSError: the folder cannot be written.
    """
    target = custom_nodes(comfyui) / FOLDER
    if not target.is_symlink() and target.exists() and not ours(target):
        raise InstallError(f"{target} exists and is not this node pack: move it away, or take it out yourself")
    _sweep(target.parent)
    fresh = _aside(target.parent)
    try:
        if link:
            fresh.symlink_to(PACK, target_is_directory=True)
        else:
            atomic_write.fill_folder(fresh, files())
        _take_out(target)
        os.rename(fresh, target)
    except BaseException:
        _remove(fresh)
        raise
    return target


def uninstall(comfyui: str | os.PathLike[str]) -> bool:
    """Take the node pack out again; False where there was none.

    Raises:
        InstallError: this is no ComfyUI, or something else lies where the pack belongs.
    """
    target = custom_nodes(comfyui) / FOLDER
    if not os.path.lexists(target):
        return False
    if not target.is_symlink() and not ours(target):
        raise InstallError(f"{target} is not this node pack, and is left alone")
    _take_out(target)
    return True


def custom_nodes(comfyui: str | os.PathLike[str]) -> Path:
    """The folder of custom nodes.

    Raises:
        InstallError: there is none.
    """
    folder = Path(comfyui).expanduser() / "custom_nodes"
    if not folder.is_dir():
        raise InstallError(f"{comfyui} holds no folder custom_nodes: expected the folder that ComfyUI lies in")
    return folder


def _aside(folder: Path) -> Path:
    """A name beside the pack that ComfyUI passes over: a process killed half-way leaves it, and neither half a pack nor none that was whole."""
    return folder / f".{FOLDER}-{secrets.token_hex(8)}{_PASSED_OVER}"


def _sweep(folder: Path) -> None:
    for left in folder.glob(f".{FOLDER}-*{_PASSED_OVER}"):
        _remove(left)


def _take_out(target: Path) -> None:
    """Remove the pack at once; what it takes long to delete is not where ComfyUI looks."""
    if os.path.lexists(target):
        aside = _aside(target.parent)
        os.rename(target, aside)
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def files() -> dict[str, bytes]:
    """The files of the node pack: path with forward slashes → content."""
    found = sorted(path for path in PACK.rglob("*") if path.is_file() and path.suffix in _SUFFIXES)
    return {path.relative_to(PACK).as_posix(): path.read_bytes() for path in found}


def ours(folder: Path) -> bool:
    """Is this folder a node pack of this package?"""
    project = folder / "pyproject.toml"
    return project.is_file() and 'name = "easyteacache-comfyui"' in project.read_text(
        encoding="utf-8", errors="replace"
    )
