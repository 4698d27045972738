"""What commands print: tables and paragraphs for people, JSON for programs."""

from __future__ import annotations

import re
import shutil
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click

from easyteacache.files import strict_json

ELLIPSIS = "…"
ABSENT = "–"
GAP = "  "
NARROWEST = 5


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: its heading.
        align: where short values stand.
        cut: whether values may be cut where the table is wider than the screen; what people copy must not be.
        style: keyword arguments of ``click.style`` for one value; only terminals show them.
        optional: 0: it always stands; else it is left out where the table does not fit even with cut values, the greatest number first.
    """

    title: str
    align: Literal["left", "right"] = "left"
    cut: bool = False
    style: Callable[[str], dict[str, Any]] | None = None
    optional: int = 0


def screen_width() -> int:
    """Columns of the terminal, or of the COLUMNS variable; 80 where neither is known."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def display_width(text: str) -> int:
    """Terminal columns that ``text`` takes: wide East Asian characters two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def shorten(text: str, width: int) -> str:
    """``text`` cut to ``width`` columns, with an ellipsis where something is missing."""
    if display_width(text) <= width:
        return text
    while text and display_width(text) > width - 1:
        text = text[:-1]
    return text.rstrip() + ELLIPSIS


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, indent: str = "") -> str:
    """A table no wider than the screen if cutting the columns that may be cut, and leaving out optional ones, allows it.

    None is shown as a dash; a column of nothing else is left out.
    """
    values = list(rows)
    used = [i for i in range(len(columns)) if not values or any(row[i] is not None for row in values)]
    available = screen_width() - len(indent)
    while True:
        shown = [columns[i] for i in used]
        cells = [[ABSENT if row[i] is None else str(row[i]) for i in used] for row in values]
        widths = _fit(shown, cells, available)
        least = max(used, key=lambda i: columns[i].optional, default=0)
        if not used or not columns[least].optional or sum(widths) + len(GAP) * (len(widths) - 1) <= available:
            break
        used.remove(least)
    columns = shown
    lines = [_line(columns, [column.title for column in columns], widths, heading=True)]
    lines += [_line(columns, row, widths) for row in cells]
    return "\n".join(indent + line for line in lines)


def _fit(columns: Sequence[Column], cells: Sequence[Sequence[str]], available: int) -> list[int]:
    widths = [
        max(display_width(text) for text in (column.title, *(row[i] for row in cells)))
        for i, column in enumerate(columns)
    ]
    excess = sum(widths) + len(GAP) * (len(columns) - 1) - available
    while excess > 0:
        able = [i for i, column in enumerate(columns) if column.cut and widths[i] > max(NARROWEST, len(column.title))]
        if not able:
            break
        widths[max(able, key=widths.__getitem__)] -= 1
        excess -= 1
    return widths


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int], *, heading: bool = False) -> str:
    parts = []
    for position, (column, text, width) in enumerate(zip(columns, row, widths, strict=True)):
        shown = shorten(text, width)
        room = " " * (width - display_width(shown))
        last = position == len(columns) - 1
        style = {"bold": True} if heading else column.style(text) if column.style else {}
        shown = click.style(shown, **style) if style else shown
        parts.append(room + shown if column.align == "right" else shown if last else shown + room)
    return GAP.join(parts).rstrip()


def plain(text: str) -> str:
    """``text`` without anything a terminal would act on: file names and scanned sources are not ours."""
    return "".join(c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else "�" for c in text)


def paragraph(text: str, *, indent: str = "", bullet: str = "") -> str:
    """``text`` wrapped to the screen, with an optional bullet before its first line."""
    return textwrap.fill(
        plain(text),
        screen_width(),
        initial_indent=indent + bullet,
        subsequent_indent=indent + " " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )


def path(name: object, *, indent: str = "") -> str:
    """The name of a file, whole; on several lines, broken behind separators, where the screen is narrower."""
    lines, room = [""], screen_width() - display_width(indent)
    for piece in re.findall(r"[^/\\]*[/\\]|[^/\\]+", plain(str(name))):
        if lines[-1] and display_width(lines[-1] + piece) > room:
            lines.append("")
        lines[-1] += piece
    # One name that is wider than the screen.
    cut = [line[start : start + room] for line in lines for start in range(0, len(line), room)]
    return "\n".join(indent + line for line in cut)


def heading(text: str) -> str:
    """A section's title, after an empty line."""
    return "\n" + click.style(text, bold=True)


def fields(pairs: Iterable[tuple[str, object]], *, indent: str = "  ") -> str:
    """``name  value`` lines with the values in one column; absent values are left out."""
    shown = [(name, str(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(paragraph(value, indent=indent, bullet=f"{name:<{width}}{GAP}") for name, value in shown)


def number(value: float | None, digits: int = 4) -> str:
    """A number with ``digits`` significant digits, or a dash."""
    return ABSENT if value is None else f"{value:.{digits}g}"


def echo_json(value: object) -> None:
    """Print ``value`` in the project's canonical JSON spelling."""
    click.echo(strict_json.spell(value), nl=False)


STATUS_COLOURS = {"validated": "green", "published": "cyan", "draft": "yellow", "deprecated": "yellow", "yanked": "red"}


def status_style(status: str) -> dict[str, Any]:
    """How a record's status is coloured on a terminal."""
    return {"fg": STATUS_COLOURS[status]} if status in STATUS_COLOURS else {}
