"""`easyteacache-hub diff`: what differs between two records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import find, json_option, registry_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easyteacache.hub.review.record_diff import Change


@click.command("diff")
@click.argument("before")
@click.argument("after")
@registry_option
@json_option
def diff(before: str, after: str, registry: Path | None, as_json: bool) -> None:
    """Show what differs between two records: fields, coefficients side by side, and every operating point.

    BEFORE and AFTER are record files, model keys or exact aliases. Exit code 0 when they are equal, 1 when they differ.

    \b
    Examples:
      easyteacache-hub diff old.json new.json
      easyteacache-hub diff wan2.1/t2v-14b my-refit.json
      easyteacache-hub diff wan2.1/t2v-14b wan2.1/t2v-14b/no-retention

    \b
    JSON: before, after, changes (each where, before, after)
    """
    from easyteacache.hub.review.record_diff import compare

    changes = compare(find(before, registry).calibration, find(after, registry).calibration)
    if as_json:
        text.echo_json({"before": before, "after": after, "changes": [change_content(change) for change in changes]})
    elif changes:
        click.echo(changes_table(changes))
    else:
        click.echo("No difference.")
    if changes:
        raise SystemExit(1)


def change_content(change: Change) -> dict[str, str | None]:
    """One change as plain values."""
    return {"where": change.where, "before": change.before, "after": change.after}


def changes_table(changes: Sequence[Change]) -> str:
    """Changes for people: one table for the record and one for each bucket."""
    sections: dict[str, list[tuple[str, str | None, str | None]]] = {}
    for change in changes:
        bucket, found, field = change.where.partition(": ")
        row = (text.plain(field if found else bucket), _cell(change.before), _cell(change.after))
        sections.setdefault(bucket if found else "", []).append(row)
    columns = [text.Column("FIELD"), text.Column("BEFORE", cut=True), text.Column("AFTER", cut=True)]
    parts = []
    for bucket, rows in sections.items():
        parts += [bucket] if bucket else []
        parts.append(text.table(columns, rows, indent="  "))
    return "\n".join(parts)


def _cell(value: str | None) -> str:
    return text.ABSENT if value is None else text.plain(value)
