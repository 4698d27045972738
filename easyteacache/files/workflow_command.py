"""Workflow commands: the lines by which GitHub's runners show a finding beside the code it is about."""

from __future__ import annotations


def annotation(level: str, *, file: str, line: int, title: str, message: str) -> str:
    """One finding as a command; nothing in its texts ends the command or begins another one.

    Args:
        level: ``error``, ``warning`` or ``notice``.
        file: path from the repository's root, with forward slashes.
        line: from 1.
        title: what the finding is called.
        message: what it says.
    """
    return f"::{level} file={_property(file)},line={line},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    # A file's name may hold what a terminal acts on; a runner's commands have their own spelling of line ends.
    text = "".join(c if c.isprintable() or c in "\r\n" else "�" for c in text)
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
