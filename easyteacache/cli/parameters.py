"""Parameters that several commands share."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable

    from easyteacache.registry.registry import Found, Registry

    Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class ModelKeyType(click.ParamType):  # type: ignore[type-arg]
    """A model key or an exact alias; shells complete it from the registry's indices."""

    name = "key"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Keys that begin with what was typed; none when the registry cannot be read."""
        from easyteacache.errors import EasyTeaCacheError

        try:
            entries = list(open_registry(ctx.params.get("registry")).entries())
        except (EasyTeaCacheError, OSError):
            return []
        return [CompletionItem(key, help=entry.title) for key, _, entry in entries if key.startswith(incomplete)]


class SizeType(click.ParamType):  # type: ignore[type-arg]
    """``WIDTHxHEIGHT`` in pixels, or one number for a square."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """``"24x32"`` → ``(24, 32)``; ``"24"`` → ``(24, 24)``."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", str(value))
        if match is None:
            self.fail(f"{value!r} is not a size; expected WIDTHxHEIGHT such as 24x32", param, ctx)
        return int(match[1]), int(match[2] or match[1])


class NumberType(click.FloatRange):
    """A finite number of at least ``min``: click's own range lets NaN and infinity through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or wrong usage."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class QualityType(click.ParamType):  # type: ignore[type-arg]
    """A level of quality, or what an engine calls it."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The level's own name."""
        from easyteacache.policy.quality import level

        try:
            return level(value).name
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The levels' names."""
        from easyteacache.policy.quality import NAMES

        return [CompletionItem(name) for name in NAMES if name.startswith(incomplete)]


MODEL_KEY = ModelKeyType()
QUALITY = QualityType()
SIZE = SizeType()


def open_registry(folder: str | Path | None) -> Registry:
    """The registry of ``folder`` alone, or the default layers."""
    from easyteacache.registry.registry import Registry

    return Registry.opened(folder)


def find(name: str, registry: str | Path | None) -> Found:
    """The record that a command's KEY names: a model key, an exact alias, or a file.

    Raises:
        UnknownModelKey: nothing is called so.
        InvalidCalibration: the file is missing, unreadable or malformed.
    """
    from easyteacache.registry.registry import Found, names_file

    return Found.in_file(name) if names_file(name) else open_registry(registry).find(name)


def meant_by(name: str, registry: str | Path | None) -> tuple[Found, ...]:
    """What the runtime chooses among for a command's KEY: the records of a model, one of its methods' alone, or a file.

    Raises:
        UnknownModelKey, InvalidCalibration: as ``find``.
    """
    from easyteacache.registry.registry import Found, names_file

    return (Found.in_file(name),) if names_file(name) else open_registry(registry).meant_by(name)


def registry_option(command: Decorated) -> Decorated:
    """``--registry FOLDER``."""
    return click.option(
        "--registry",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Use this registry folder and no other layer.",
    )(command)


def json_option(command: Decorated) -> Decorated:
    """``--json``, passed as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON with the keys listed above.")(command)


def operating_options(command: Decorated) -> Decorated:
    """``--threshold``, ``--speedup``, ``--max-error`` and ``--quality``; pass them through ``one_target``."""
    options = (
        click.option("--threshold", type=NumberType(min=0), help="Accumulated distance at which a step is computed."),
        click.option("--speedup", type=NumberType(min=1), help="Steps divided by computed steps to reach."),
        click.option("--max-error", type=NumberType(min=0), help="Relative L2 error of the sample not to exceed."),
        click.option(
            "--quality",
            type=QUALITY,
            metavar="LEVEL",
            help="The same by name: exact (nothing is reused), high, balanced or fast.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def one_target(
    threshold: float | None, speedup: float | None, max_error: float | None, quality: str | None = None
) -> None:
    """Refuse two ways of choosing the operating point at once.

    Raises:
        click.UsageError: more than one is given.
    """
    given = {"--threshold": threshold, "--speedup": speedup, "--max-error": max_error, "--quality": quality}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} exclude each other: give one of them.")


def loading_options(when: str = "") -> Callable[[Decorated], Decorated]:
    """``--dtype``, ``--device`` and ``--offload``: how a command loads the model it runs; ``when`` begins their help."""
    options = (
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            help=f"{when}Number type to load the model in.",
        ),
        click.option("--device", help=f"{when}Where to run.  [cuda or mps where there is one, else cpu]"),
        click.option(
            "--offload", is_flag=True, help=f"{when}Move parts of the pipeline to the device only while they run."
        ),
    )

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def text_of(file: Path) -> str:
    """The text of another program's file.

    Raises:
        InvalidCalibration: it cannot be read, is too large, or is no text.
    """
    from easyteacache.errors import InvalidCalibration
    from easyteacache.files import strict_json
    from easyteacache.records import parsing

    try:
        return parsing.read_file(file, rules="import", max_bytes=strict_json.MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidCalibration(str(file), "is not UTF-8 text", rule="import.format") from error


def prompts_in(file: Path) -> list[str]:
    """The prompts of a file, one a line: what other programs take for ends of lines, and a mark of the byte order, are none of ours.

    Raises:
        click.UsageError: it is no text, or holds no prompt.
        OSError: it cannot be read, is no regular file, or larger than 8 MiB.
    """
    from easyteacache.files import regular_files, strict_json

    try:
        content = regular_files.read_bytes(file, max_bytes=strict_json.MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file} is not UTF-8 text; expected a prompt on every line") from error
    found = [line.strip() for line in content.split("\n") if line.strip()]
    if not found:
        raise click.UsageError(f"expected a prompt on every line of {file}, found none")
    return found


def usable_device(device: str) -> str:
    """``device``, which torch can put a tensor on.

    Raises:
        click.BadParameter: it cannot; found out before a model is loaded.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch.OutOfMemoryError is no answer to this question.
        if "memory" in str(error):
            raise
        reason = next(iter(str(error).splitlines()), "").rstrip(".")
        raise click.BadParameter(f"{device!r} cannot be used here: {reason}", param_hint="--device") from error
    return device


def process_share() -> tuple[int, int]:
    """This process's number and how many there are.

    Raises:
        click.UsageError: the environment says neither.
    """
    from easyteacache.recording.share import share_of_environment

    try:
        return share_of_environment()
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def run_options(command: Decorated) -> Decorated:
    """``--size``, ``--frames``, ``--shift`` and ``--guidance``, each repeatable: what runs of a recording differ in besides their steps."""
    options = (
        click.option("--size", "sizes", type=SIZE, multiple=True, help="WIDTHxHEIGHT in pixels; may be repeated."),
        click.option("--frames", type=click.IntRange(min=1), multiple=True, help="Frames; may be repeated."),
        click.option(
            "--shift",
            "shifts",
            type=NumberType(min=0, min_open=True),
            multiple=True,
            help="Time shift; may be repeated.",
        ),
        click.option(
            "--guidance",
            "guidance_scales",
            type=NumberType(min=0),
            multiple=True,
            help="Guidance scale; may be repeated.",
        ),
        click.option(
            "--branches",
            metavar="NAMES",
            help="For pipelines that name no branches: cond,uncond in the order they run.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
