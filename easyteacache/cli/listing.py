"""`easyteacache-hub list`: what the registry holds, read from the layers' indices alone."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option, open_registry, registry_option
from easyteacache.records.calibration import Method, Signal
from easyteacache.records.fields import Status
from easyteacache.registry.lock_file import ENVIRONMENT_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from easyteacache.registry.index import IndexEntry
    from easyteacache.registry.registry import Registry

    Line = tuple[str, str, IndexEntry]

SIGNALS = click.Choice(get_args(Signal))
METHODS = click.Choice(get_args(Method))
STATUSES = click.Choice(get_args(Status))


@click.command("list")
@click.argument("pattern", required=False)
@click.option("--source", metavar="LAYER", help="Only this layer: local, pulled, bundled or a folder's path.")
@click.option("--family", help="Only keys whose first name is this: wan2.1, flux.1 …")
@click.option("--signal", type=SIGNALS, metavar="SIGNAL", help=f"Only this signal: {', '.join(SIGNALS.choices)}.")
@click.option("--method", type=METHODS, metavar="METHOD", help=f"Only this method: {', '.join(METHODS.choices)}.")
@click.option("--status", type=STATUSES, metavar="STATUS", help=f"Only this status: {', '.join(STATUSES.choices)}.")
@registry_option
@json_option
def list_records(
    pattern: str | None,
    source: str | None,
    family: str | None,
    signal: str | None,
    method: str | None,
    status: str | None,
    registry: Path | None,
    as_json: bool,
) -> None:
    """List the calibrations that a lookup can reach.

    PATTERN is a part of a key, title or alias, or a glob over keys such as 'wan*/t2v-*'. Where several layers hold a key, the
    one that a lookup would use is shown; --source shows one layer, hidden records included. Where an easyteacache.lock is in force,
    only what it pins is listed.

    HERE says whether this project applies a record, or why not: a preset is another engine's to run (see `easyteacache export`), a
    polynomial whose signal is not known cannot be evaluated. UP TO is the largest speed-up that any of its operating points states,
    EVIDENCE the strongest kind. Narrow screens leave out length, status and signal.

    \b
    Examples:
      easyteacache-hub list
      easyteacache-hub list wan --signal timestep_embedding
      easyteacache-hub list --status validated --json

    \b
    JSON: {"records": [...], "lock", "missing"}, each record with
      key, title, status, revision, method, signal, num_steps,
      sequence_lengths, layer, aliases (each kind, value, borrowed),
      applied, not_applied (why not, or null), speedup (the largest
      stated, or null), evidence (the strongest, or null), class_name;
      lock: the lock in force or null; missing: keys it pins that no layer has
    """
    chosen = _one_layer(open_registry(registry), source)
    reachable = chosen.entries()
    exact = {"family": family, "signal": signal, "method": method, "status": status}
    lines = [line for line in reachable if _wanted(line, pattern, exact)]
    for note in chosen.notes:
        click.echo(text.paragraph(note, bullet="Note: "), err=True)
    if as_json:
        locked = {"lock": None if chosen.lock_path is None else str(chosen.lock_path), "missing": chosen.missing()}
        text.echo_json({"records": [_content(line) for line in lines], **locked})
        return
    if lines:
        click.echo(_table(lines))
        click.echo(f"\n{len(lines)} record{'' if len(lines) == 1 else 's'}")
    else:
        click.echo("No record matches; `easyteacache-hub list` without options shows all of them.", err=True)
    _tell_of_lock(chosen)


def _tell_of_lock(registry: Registry) -> None:
    if registry.lock_path is None:
        return
    click.echo(f"Only what {registry.lock_path} pins is listed; {ENVIRONMENT_LOCK}= lists everything.", err=True)
    missing = registry.missing()
    if missing:
        advice = "not on this machine with the pinned content: get it with `easyteacache-hub pull --locked`"
        click.echo(text.paragraph(f"{', '.join(missing)}: {advice}"), err=True)


def _one_layer(registry: Registry, source: str | None) -> Registry:
    if source is None:
        return registry
    layers = [layer for layer in registry.layers if layer.name == source]
    if not layers:
        names = ", ".join(layer.name for layer in registry.layers)
        raise click.BadParameter(f"no layer named {source!r}; there is {names}", param_hint="--source")
    return type(registry)(layers)


def _wanted(line: Line, pattern: str | None, exact: Mapping[str, str | None]) -> bool:
    key, _, entry = line
    found = {"family": key.split("/")[0], "signal": entry.signal, "method": entry.method, "status": entry.status}
    if any(value is not None and found[name] != value for name, value in exact.items()):
        return False
    if pattern is None:
        return True
    if any(character in pattern for character in "*?["):
        return fnmatch.fnmatchcase(key, pattern)
    names = (key, entry.title, *(alias.value for alias in entry.aliases))
    return any(pattern.lower() in name.lower() for name in names)


def _content(line: Line) -> dict[str, Any]:
    key, layer, entry = line
    return {
        "key": key,
        "title": entry.title,
        "status": entry.status,
        "revision": entry.revision,
        "method": entry.method,
        "signal": entry.signal,
        "num_steps": list(entry.num_steps),
        "sequence_lengths": list(entry.sequence_lengths),
        "layer": layer,
        "aliases": [alias.model_dump(mode="json") for alias in entry.aliases],
        "applied": _why_not(entry) is None,
        "not_applied": _why_not(entry),
        "speedup": entry.speedup,
        "evidence": entry.evidence,
        "class_name": entry.class_name,
    }


def _why_not(entry: IndexEntry) -> str | None:
    """Why this project applies a record to no model, one or two words; None where it does."""
    if entry.status == "yanked":
        return "yanked"
    if entry.method == "preset":
        return "preset"
    return "no signal" if entry.method == "teacache" and entry.signal == "unknown" else None


def _table(lines: Sequence[Line]) -> str:
    several = len({layer for _, layer, _ in lines}) > 1
    columns = [
        text.Column("KEY"),
        text.Column("STATUS", style=text.status_style, optional=2),
        text.Column("SIGNAL", cut=True, optional=1),
        text.Column("STEPS", align="right"),
        text.Column("LENGTH", align="right", optional=3),
        text.Column("HERE"),
        text.Column("UP TO", align="right"),
        text.Column("EVIDENCE"),
        *([text.Column("LAYER", cut=True)] if several else []),
    ]
    rows = [
        (
            key,
            entry.status,
            # Other methods take no signal.
            entry.signal if entry.method == "teacache" else entry.method,
            _range(entry.num_steps),
            _range(entry.sequence_lengths),
            _why_not(entry) or "yes",
            None if entry.speedup is None else f"{entry.speedup:.3g}x",
            entry.evidence,
            *([layer] if several else []),
        )
        for key, layer, entry in lines
    ]
    return text.table(columns, rows)


def _range(values: Iterable[int]) -> str | None:
    values = sorted(values)
    if not values:
        return None
    return str(values[0]) if len(values) == 1 else f"{values[0]}–{values[-1]}"
