"""Reference models that ``tools/train_reference.py`` trained and saved."""

from __future__ import annotations

from pathlib import Path

from easyteacache import json_text
from easyteacache.errors import ReferenceModelError
from easyteacache.reference.architectures import ARCHITECTURES
from easyteacache.reference.pipeline import MovingDigitsPipeline

CONFIG = "config.json"


def is_saved(folder: Path) -> bool:
    """Does ``folder`` hold a transformer alone, as the training tool exports it, and no whole pipeline?"""
    return (_transformer(folder) / CONFIG).is_file() and not (folder / "model_index.json").exists()


def load_saved(folder: Path) -> MovingDigitsPipeline:
    """The pipeline around a saved Wan or FLUX transformer of reference size.

    Args:
        folder: what was given to ``--export``, or the folder ``transformer`` in it.

    Raises:
        ReferenceModelError: there is no transformer of a class that the reference pipeline can use.
    """
    place = _transformer(folder)
    # diffusers takes what is no folder for a repository on the Hub.
    if not (place / CONFIG).is_file():
        raise ReferenceModelError(f"{place}: expected a folder with a saved transformer, found no {CONFIG}")
    classes = {one.transformer_class.__name__: one.transformer_class for one in ARCHITECTURES.values()}
    name = _class_name(place / CONFIG)
    if name not in classes:
        raise ReferenceModelError(f"{place}: expected a {' or '.join(classes)}, found {name or 'no class name'}")
    try:
        transformer = classes[name].from_pretrained(place).float().eval()
    except (OSError, ValueError) as error:
        raise ReferenceModelError(f"{place}: not a saved {name}: {error}") from error
    return MovingDigitsPipeline.from_transformer(transformer)


def _transformer(folder: Path) -> Path:
    return folder / "transformer" if (folder / "transformer").is_dir() else folder


def _class_name(config: Path) -> str | None:
    try:
        content = json_text.parse(config.read_bytes())
    except json_text.JSONTextError as error:
        raise ReferenceModelError(f"{config}: {error}") from error
    name = content.get("_class_name") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None
