"""What an audit is told to pass over: an ignore file at the top of a tree, and comments beside a list.

``.easyteacache-audit-ignore`` holds one pattern a line, relative to its own folder: ``tests/fixtures/`` for a folder with all
below it, ``*`` and ``?`` as in a shell, ``#`` for comments. A comment ``easyteacache-audit: ignore`` on the line where a list begins,
or on the line above, passes over that list; ``easyteacache-audit: ignore[borrowed]`` only its findings of that rule.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from easyteacache.files import regular_files

FILE_NAME = ".easyteacache-audit-ignore"
EVERY_RULE = "*"
MAX_BYTES = 1 << 20
_COMMENT = re.compile(r"easyteacache-audit:\s*ignore(?:\[([a-z, -]{1,200})\])?")


@dataclass(frozen=True)
class IgnoreFile:
    """The patterns of one ignore file.

    Attributes:
        folder: where it lies; patterns are relative to it.
        patterns: in the order of its lines.
    """

    folder: Path
    patterns: tuple[str, ...] = ()

    @classmethod
    def above(cls, path: Path) -> IgnoreFile:
        """The ignore file in ``path`` or the nearest folder above it; without patterns when there is none.

        Raises:
            OSError: it cannot be read, or is larger than 1 MiB.
        """
        start = path.resolve()
        for folder in (start, *start.parents):
            file = folder / FILE_NAME
            if file.is_file():
                data = regular_files.read_bytes(file, max_bytes=MAX_BYTES)
                return cls(folder, _patterns(data.decode("utf-8", errors="replace")))
        return cls(start)

    def covers(self, file: Path) -> bool:
        """Whether ``file`` is to be passed over."""
        if not self.patterns:
            return False
        try:
            name = file.resolve().relative_to(self.folder).as_posix()
        except ValueError:
            return False
        return any(_matches(name, pattern) for pattern in self.patterns)


def ignored_rules(lines: Sequence[str], line: int) -> frozenset[str]:
    """Rules that a comment beside ``line`` (from 1) passes over; ``*`` stands for all of them."""
    found: set[str] = set()
    for text in lines[max(0, line - 2) : line]:
        match = _COMMENT.search(text)
        if match is not None:
            found |= {rule.strip() for rule in match[1].split(",")} if match[1] else {EVERY_RULE}
    return frozenset(found)


def _patterns(text: str) -> tuple[str, ...]:
    lines = (line.partition("#")[0].strip() for line in text.split("\n"))
    return tuple(line.removeprefix("/") for line in lines if line)


def _matches(name: str, pattern: str) -> bool:
    if pattern.endswith("/"):
        return fnmatch.fnmatchcase(name, f"{pattern}*")
    return fnmatch.fnmatchcase(name, pattern)
