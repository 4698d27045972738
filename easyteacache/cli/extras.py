"""Which extra of this package brings a module that a command needs."""

from __future__ import annotations

from importlib.util import find_spec

import click

#: Module → (package, extra of easyteacache that brings it).
EXTRAS = {
    "accelerate": ("accelerate", "diffusers"),
    "av": ("av", "video"),
    "cache_dit": ("cache-dit", "test"),
    "diffusers": ("diffusers", "diffusers"),
    "lpips": ("lpips", "lpips"),
    "matplotlib": ("matplotlib", "compare"),
    "PIL": ("pillow", "compare"),
    "skimage": ("scikit-image", "compare"),
    "sklearn": ("scikit-learn", "demo"),
    "torchvision": ("torchvision", "lpips"),
    "transformers": ("transformers", "diffusers"),
}


def require(what: str, *modules: str) -> None:
    """Say before anything is done that ``what`` cannot run here: which packages it lacks, and that the extra ``demo`` brings them.

    Args:
        what: the command in words, such as ``the demo``.
        modules: what it imports, names of ``EXTRAS``.

    Raises:
        click.ClickException: one of them is not installed.
    """
    missing = [EXTRAS[module][0] for module in modules if find_spec(module) is None]
    if missing:
        raise click.ClickException(
            f"{what} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            'pip install "easyteacache[demo]"'
        )
