"""Text of others on a line of ours: file names and scanned sources must not end the line, act on a terminal or command a runner."""

from __future__ import annotations

import re

# GitHub's and Azure's runners read what begins with "::", and "##[" or "##vso[" anywhere in a line, as a command to them.
_COMMAND = re.compile(r"(?<!\S):(?=:)")


def escaped(text: str) -> str:
    r"""``text`` on one line, with everything but plain characters as in a Python string: ``a\nb``, ``\x1b``, ``\udcff``.

    A backslash stays as it is, because it separates folders on Windows. What a runner of workflows would take for a command is
    broken up: ``\x3a:error`` for ``::error``.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return _COMMAND.sub(r"\\x3a", shown.replace("##", r"#\x23"))
