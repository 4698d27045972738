"""Python source of strangers, as a tree, without running it."""

from __future__ import annotations

import ast
import warnings

# A tree takes up to a thousand bytes for each character; the longest sources that people write have some hundred thousand.
MAX_CHARACTERS = 1024 * 1024


def parse(text: str) -> ast.Module:
    r"""The tree of ``text``.

    The compiler's warnings about the text (``"\d"``, ``0in x``) are their authors' business: nobody here is to read them, and where a
    user turns warnings into errors the text must not become unreadable.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is no Python, or too much of it.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters, at most {MAX_CHARACTERS} are parsed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)
