"""Generate the table of predictors in ``docs/runtime.md`` from the registered classes, or check that it is fresh.

python tools/docs/predictors_table.py            # write it when it changed
python tools/docs/predictors_table.py --check    # exit 1 when it is stale, write nothing
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click

from easyteacache.files import atomic_write
from easyteacache.runtime.predictors import Predictor, families

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runtime.md"
HEAD = "| predictor | steps | along | of | searched | what it does |\n|---|---|---|---|---|---|\n"


def table() -> str:
    """The table, one line a class."""
    return HEAD + "".join(f"{_line(family)}\n" for family in families())


def page(text: str) -> str:
    """The page with the table brought up to date."""
    before, after = text.split(HEAD)
    rest = after.split("\n\n", 1)[1] if after.startswith("|") else after.lstrip("\n")
    return f"{before}{table()}\n{rest}"


def _line(family: type[Predictor]) -> str:
    names = [f"`{name}`" for name in family.names]
    named = ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]}"
    reach = sorted({family.named(name).history for name in family.names})
    said = inspect.cleandoc(family.__doc__ or "").splitlines()[0]
    cells = (
        f"{named}, `{family.spelling.split(' ')[0]}`" if family.spelling else named,
        str(reach[0]) if len(reach) == 1 else f"{reach[0]}–{reach[-1]}",
        ", ".join(family.axes),
        "anything" if len(family.places) == 3 else ", ".join(family.places),
        ", ".join(f"`{name}`" for name in family.searched()) or "–",
        said.replace("|", "\\|").replace("``", "`"),
    )
    return f"| {' | '.join(cells)} |"


@click.command()
@click.option("--check", is_flag=True, help="Only say whether the table is fresh; exit 1 when it is not.")
def main(check: bool) -> None:
    """Bring the table of predictors up to date."""
    known = PAGE.read_text("utf-8")
    fresh = page(known)
    if fresh == known:
        click.echo(f"{PAGE.name}: its table is fresh")
    elif check:
        click.echo(f"{PAGE.name}: its table is stale, run python tools/docs/predictors_table.py", err=True)
        sys.exit(1)
    else:
        atomic_write.write_text(PAGE, fresh)
        click.echo(f"{PAGE.name}: written")


if __name__ == "__main__":
    main()
