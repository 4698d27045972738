"""Generate the tables in ``docs/engines.md`` from the exporters' own table, or check that they are fresh.

python tools/docs/engines_page.py            # write it when it changed
python tools/docs/engines_page.py --check    # exit 1 when it is stale, write nothing
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from easyteacache.export.engine import WINDOWS, CachedModels, Engine
from easyteacache.export.table import ENGINES
from easyteacache.files import atomic_write

PAGE = Path(__file__).resolve().parents[2] / "docs" / "engines.md"
BEGIN, END = "<!-- generated: engines -->\n", "<!-- end of generated: engines -->"
PLACES = {
    "residual": "the residual of the blocks",
    "feature": "the output of the last block",
    "output": "the model's output",
}
TREATMENT = {"none": "p(x)", "abs": "\\|p(x)\\|"}


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Exit 1 when the page is stale; write nothing.")
def main(check: bool) -> None:
    """Entry point."""
    present = PAGE.read_text(encoding="utf-8")
    fresh = with_tables(present)
    if fresh == present:
        click.echo(f"{PAGE.name} is fresh")
    elif check:
        click.echo(f"docs/{PAGE.name} is stale: run python tools/docs/engines_page.py", err=True)
        sys.exit(1)
    else:
        atomic_write.write_text(PAGE, fresh)
        click.echo(f"wrote docs/{PAGE.name}")


def with_tables(page: str) -> str:
    """``page`` with its generated part replaced."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise click.ClickException(f"docs/{PAGE.name}: expected the lines {BEGIN.strip()!r} and {END!r}")
    return f"{head}{BEGIN}\n{tables()}\n\n{END}{tail}"


def tables() -> str:
    """One overview, then one section an engine."""
    rows = [
        f"| [{engine.title}](#{_anchor(engine.title)}) | {', '.join(engine.methods)} | {_accumulates(engine)} | "
        f"{_plan(engine)} | {'yes' if engine.reads else 'no'} | `easyteacache export KEY --to {engine.name}` |"
        for engine in ENGINES.values()
    ]
    heading = "| engine | records | accumulates | decides by | import | command |\n|---|---|---|---|---|---|"
    return "\n\n".join(["\n".join([heading, *rows]), *map(_section, ENGINES.values())])


def _section(engine: Engine) -> str:
    parts = [f"### {engine.title}", engine.summary.replace("|", "\\|"), "\n".join(_facts(engine))]
    if engine.models is not None and engine.name != "seed":
        parts.append(_models(engine.models))
    return "\n\n".join(parts)


def _models(models: tuple[CachedModels, ...]) -> str:
    called = any(model.name for model in models)
    rows = [("model keys", *(("called",) if called else ()), "measures", "accumulates")]
    rows.append(("---",) * len(rows[0]))
    for model in models:
        name = (f"`{model.name}`",) if called else ()
        treatment = TREATMENT[model.post] if "teacache" in model.methods else ""
        rows.append((f"`{model.keys}`", *name, _measures(model), treatment))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _facts(engine: Engine) -> Iterator[str]:
    yield f"- Window: {WINDOWS[engine.window]}."
    if engine.place is not None:
        fills = f", filled with `{engine.fills[0]}`" if engine.fills else ""
        yield f"- Reused steps: from {PLACES[engine.place]}{fills}."
    if engine.coefficients is not None:
        yield f"- Coefficients: exactly {engine.coefficients}; lower orders are padded with leading zeros, which is exact."
    if not engine.takes_threshold:
        yield "- Threshold: set elsewhere, not in this file."
    if engine.together:
        held = {"set": "both sets of a checkpoint", "expert": "both experts of a model"}
        yield f"- One file holds {' and '.join(held[role] for role in engine.together)}."
    for source in engine.sources:
        yield f"- Read: `{source.repository}`, `{source.path}` at {source.shown_commit}."


def _accumulates(engine: Engine) -> str:
    if engine.evaluates_as_recorded:
        return "as recorded"
    if engine.plan == "schedule" or engine.name == "diffusers":
        return "nothing"
    return " or ".join(
        dict.fromkeys(TREATMENT[model.post] for model in engine.models or () if "teacache" in model.methods)
    )


def _plan(engine: Engine) -> str:
    return {"threshold": "threshold", "schedule": "schedule", "either": "as recorded"}[engine.plan]


def _measures(model: CachedModels) -> str:
    return ", ".join(f"`{signal}`" for signal in sorted(model.signals)) or "ratios only"


def _anchor(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = "".join(character for character in title.lower() if character.isalnum() or character in " -_")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    main()
