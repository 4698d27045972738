"""This project's warnings as a person reads them at a terminal: ``Warning: …`` on stderr, without a source line."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

import click

from easyteacache.cli import text
from easyteacache.errors import EasyTeaCacheWarning


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Inside the block every ``EasyTeaCacheWarning`` is a line on stderr, each text once; other warnings stay as they are.

    What ``python -W`` or PYTHONWARNINGS asks for is kept: a script may turn warnings into errors, or away.
    """
    said: set[str] = set()
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("always", EasyTeaCacheWarning)
        before = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, EasyTeaCacheWarning):
                before(message, category, filename, lineno, file, line)
            elif str(message) not in said:
                said.add(str(message))
                _echo(f"Warning: {' '.join(text.plain(str(message)).split())}")

        warnings.showwarning = show
        yield


def _echo(line: str) -> None:
    if "tqdm" not in sys.modules:
        click.echo(line, err=True)
        return
    from tqdm import tqdm

    # A progress bar may stand on the line: it is taken away and drawn again below.
    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(line, err=True)
