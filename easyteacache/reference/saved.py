"""Reference models that ``tools/reference/train.py`` trained and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easyteacache.errors import ReferenceModelError
from easyteacache.files import strict_json
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
        ReferenceModelError: there is no transformer of a class that the reference pipeline can use, or it takes other latents
            or text than that gives.
    """
    place = _transformer(folder)
    # diffusers takes what is no folder for a repository on the Hub.
    if not (place / CONFIG).is_file():
        raise ReferenceModelError(f"{place}: expected a folder with a saved transformer, found no {CONFIG}")
    classes = {one.transformer_class.__name__: one for one in ARCHITECTURES.values()}
    config = _config(place / CONFIG)
    name = config.get("_class_name")
    if name not in classes:
        found = name if isinstance(name, str) else "no class name"
        raise ReferenceModelError(f"{place}: expected a {' or '.join(classes)}, found {found}")
    for key in classes[name].interface:
        expected, given = classes[name].config[key], config.get(key)
        if strict_json.spell(given) != strict_json.spell(expected):
            raise ReferenceModelError(
                f"{place}: expected a {name} of the reference model's kind, with {key} {expected}, found {given}; "
                "for another model give the folder or repository of its whole pipeline"
            )
    try:
        transformer, loading = classes[name].transformer_class.from_pretrained(place, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ReferenceModelError(f"{place}: not a saved {name}: {error}") from error
    # diffusers fills what the file lacks with random numbers and says so in a warning.
    wrong = sorted(key for kind in ("missing_keys", "unexpected_keys") for key in loading[kind])
    if wrong:
        raise ReferenceModelError(
            f"{place}: not a saved {name}: {len(wrong)} weights are not its own, first {wrong[0]}"
        )
    return MovingDigitsPipeline.from_transformer(transformer.float().eval())


def _transformer(folder: Path) -> Path:
    return folder / "transformer" if (folder / "transformer").is_dir() else folder


def _config(config: Path) -> dict[str, Any]:
    try:
        content = strict_json.parse(config.read_bytes())
    except strict_json.JSONTextError as error:
        raise ReferenceModelError(f"{config}: {error}") from error
    return content if isinstance(content, dict) else {}
