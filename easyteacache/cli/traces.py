"""`traces`: look at trace files, check them, join them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli.parameters import json_option
from easyteacache.cli.text import Column, echo_json, paragraph, plain, table

if TYPE_CHECKING:
    from easyteacache.records.trace_set import Trace, TraceSet

_paths = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))


@click.group()
def traces() -> None:
    """Look at trace files, check them, join them.

    A trace file is what `easyteacache record` writes: numbers of full, uncached runs.
    """


@traces.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@_paths
@json_option
def merge(out: Path, paths: tuple[Path, ...], as_json: bool) -> None:
    """Join the trace files and folders IN into the one file OUT.

    A run that occurs in several of them is kept once. The same runs always give the same file, in whatever order they
    come. JSON keys: file, sha256, runs.

    \b
    Examples:
      easyteacache traces merge wan.safetensors traces/
      easyteacache traces merge all.safetensors a.safetensors b.safetensors
    """
    from easyteacache.records.trace_file import SUFFIX
    from easyteacache.records.trace_set import TraceSet, files_of

    if out.suffix != SUFFIX:
        raise click.UsageError(f"{out.name} must end in {SUFFIX}, or nobody will find it again")
    merged = TraceSet.merge(*(TraceSet.load(file) for file in files_of(*paths)))
    reference = merged.save(out)
    if as_json:
        echo_json(reference.model_dump())
        return
    click.echo(f"{reference.runs} runs in {out}, SHA-256 {reference.sha256}")


@traces.command()
@_paths
@json_option
def show(paths: tuple[Path, ...], as_json: bool) -> None:
    """Show what the trace files and folders PATHS hold, one line per setting.

    JSON keys: files (file, sha256, runs) and settings (model_key, sequence_length, width, height, frames, num_steps,
    shift, guidance_scale, runs, prompts, branches, signals, sketch).

    \b
    Example:
      easyteacache traces show traces/
    """
    from easyteacache.records.trace_set import TraceSet

    found = TraceSet.load(*paths)
    settings = _settings(found)
    if as_json:
        echo_json({"files": [file.model_dump() for file in found.files], "settings": settings})
        return
    columns = [Column("model key"), Column("frames×size")]
    columns += [Column(name, align="right") for name in ("tokens", "steps", "shift", "guidance", "prompts", "runs")]
    click.echo(table([*columns, Column("sketch")], [_row(setting) for setting in settings]))
    click.echo(f"{len(found)} runs in {len(found.files)} files.")
    signals = dict.fromkeys(name for setting in settings for name in setting["signals"])
    click.echo(paragraph(", ".join(signals), bullet="Signals: "))


@traces.command()
@_paths
@json_option
@click.pass_context
def verify(ctx: click.Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Check the trace files and folders PATHS: whole, unedited, no run twice.

    Every run is hashed again. Runs that agree too closely to be two runs are reported, too. Exit code 1 when anything is
    found. JSON keys: ok, runs, findings (rule, where, reason).

    \b
    Example:
      easyteacache traces verify traces/ --json
    """
    from easyteacache.errors import InvalidTrace
    from easyteacache.records.trace_set import TraceSet

    findings: list[dict[str, str]] = []
    found: TraceSet | None = None
    try:
        found = TraceSet.load(*paths)
        findings += [_repeat(*pair) for pair in found.near_duplicates()]
    except InvalidTrace as error:
        findings.append({"rule": error.rule, "where": error.where, "reason": error.reason})
    if as_json:
        echo_json({"ok": not findings, "runs": len(found or ()), "findings": findings})
    else:
        for finding in findings:
            click.echo(plain(f"{finding['rule']}: {finding['where']}: {finding['reason']}"), err=True)
        if found is not None:
            click.echo(f"{len(found)} runs in {len(found.files)} files are whole and unedited.")
    ctx.exit(1 if findings else 0)


def _repeat(first: Trace, second: Trace) -> dict[str, str]:
    reason = f"nearly the same numbers as the {second.label}: one run recorded twice? Remove one of them"
    return {"rule": "trace.near-duplicate", "where": first.label, "reason": reason}


def _settings(found: TraceSet) -> list[dict[str, Any]]:
    """One entry per model key and setting, with how many runs and prompts it has."""
    groups: dict[tuple[Any, ...], list[Trace]] = {}
    for run in found:
        head = run.header
        shape = (head.width, head.height, head.frames)
        groups.setdefault((head.model_key, *run.setting, shape, head.guidance_scale), []).append(run)
    return [_setting(runs) for runs in groups.values()]


def _setting(runs: list[Trace]) -> dict[str, Any]:
    head = runs[0].header
    names = ("model_key", "sequence_length", "width", "height", "frames", "num_steps", "shift", "guidance_scale")
    prompts = {run.header.prompt_sha256 or run.header.prompt for run in runs}
    return {
        **{name: getattr(head, name) for name in names},
        "runs": len(runs),
        "prompts": len(prompts),
        "branches": list(head.branches),
        "signals": list(head.signals),
        "sketch": head.sketch.model_dump() if head.sketch else None,
    }


def _row(setting: dict[str, Any]) -> list[Any]:
    size = [str(setting[name]) for name in ("frames", "width", "height") if setting[name]]
    sketch = setting["sketch"]
    return [
        setting["model_key"],
        "×".join(size) or None,
        *(setting[name] for name in ("sequence_length", "num_steps", "shift", "guidance_scale", "prompts", "runs")),
        f"{sketch['kind']} {sketch['dimension']}" if sketch else "exact",
    ]
