"""How the time of an audit grows with the number of coefficient lists in one file: in proportion.

python tools/bench/audit.py
"""

from __future__ import annotations

import itertools
import time

import click

from easyteacache.audit.scan import Standard, audit_text
from easyteacache.registry import bundled
from easyteacache.registry.registry import Registry

COUNTS = (100, 1000, 10_000)
LIST = "[-303318.725, 49053.7029, -2655.30556, 58.7365115, -0.315583525]"
CODE = "def decide(acc, x):\n    acc += abs(poly1d(x))\n    return acc\n"


def python(count: int) -> str:
    """A table of a Python module, beside code that accumulates."""
    return "TABLE = {\n" + "".join(f"    'wan_{i}': {LIST},\n" for i in range(count)) + "}\n" + CODE


def unfinished(count: int) -> str:
    """The same, cut short: read by its characters instead of its syntax tree."""
    return "TABLE = {(\n" + "".join(f"    'wan_{i}': {LIST},\n" for i in range(count))


def json(count: int) -> str:
    """An object on one line."""
    return "{" + ",".join(f'"wan_{i}": {LIST}' for i in range(count)) + "}"


def yaml(count: int) -> str:
    """A mapping of mappings."""
    return "wan:\n" + "".join(f"  k{i}:\n    coefficients: {LIST}\n" for i in range(count))


FILES = {"table.py": python, "unfinished.py": unfinished, "table.json": json, "table.yaml": yaml}


@click.command(help=__doc__)
def main() -> None:
    """Entry point."""
    standard = Standard.of(Registry.from_folder(bundled.registry()))
    click.echo(f"{'file':<14}" + "".join(f"{count:>10} lists" for count in COUNTS) + "   ten times the lists take")
    for name, make in FILES.items():
        seconds = [_seconds(make(count), name, standard) for count in COUNTS]
        ratios = ", ".join(f"{after / before:.1f}" for before, after in itertools.pairwise(seconds))
        click.echo(f"{name:<14}" + "".join(f"{value:>14.3f} s" for value in seconds) + f"   {ratios} times as long")


def _seconds(text: str, name: str, standard: Standard) -> float:
    """The faster of two audits."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        audit_text(text, standard, filename=name)
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    main()
