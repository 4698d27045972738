"""`easyteacache bench`: every cache and sampler against EasyTeaCache on one model, at equal computed work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli.extras import require
from easyteacache.cli.lazy import INTERRUPTED
from easyteacache.cli.parameters import NumberType, prompts_in, usable_device
from easyteacache.cli.text import echo_json, screen_width

if TYPE_CHECKING:
    from easyteacache.bench.run import Plan
    from easyteacache.bench.subject import Case, Subject

REFERENCE = "reference"
USUAL_SHAPES = ((1, 16, 16), (4, 16, 16), (4, 20, 20))
USUAL_STEPS = (50, 25)


class _Shape(click.ParamType):  # type: ignore[type-arg]
    """``4x16x24``: frames, height, width."""

    name = "FxHxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,3})[xX×]([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", str(value))
        if match is None:
            self.fail(f"{value!r} is not FRAMESxHEIGHTxWIDTH such as 4x16x24", param, ctx)
        return int(match[1]), int(match[2]), int(match[3])


class _Targets(click.ParamType):  # type: ignore[type-arg]
    """``1.5,2,3,4``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(sorted({float(piece) for piece in str(value).split(",")}))
        except ValueError:
            found = ()
        if not found or not all(1 < target <= 100 for target in found):
            self.fail(f"{value!r} are not speed-ups above 1, such as 1.5,2,3,4", param, ctx)
        return found


@click.group("bench")
def bench() -> None:
    """Compare caches and samplers at equal computed work.

    Every contender runs by its own code from its own package, or by its published rule where it has none, and is tuned over its own
    settings, on prompts that the evaluation does not use: diffusers' and cache-dit's caches, the official TeaCache rule, published
    planners on the same traces, plans without a record, evenly spaced steps, and simply fewer steps. What is counted is the work
    really done, not what was configured.

    \b
    Examples:
      easyteacache bench run --out bench.json
      easyteacache bench report bench.json --plots pictures
    """


@bench.command("run")
@click.argument("model", default=REFERENCE)
@click.option("--model-path", type=click.Path(path_type=Path), help="Transformer saved by tools/reference/train.py.")
@click.option("--shape", "shapes", type=_Shape(), multiple=True, help="Of a sample; may be repeated.")
@click.option("--steps", type=click.IntRange(4, 1000), multiple=True, help="Sampler steps; may be repeated.  [50, 25]")
@click.option("--pairs", type=click.IntRange(1), default=32, show_default=True, help="Prompt and seed pairs.")
@click.option("--targets", type=_Targets(), default="1.5,2,3,4", show_default=True, help="Speed-ups to compare at.")
@click.option("--contender", "contenders", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--again", multiple=True, metavar="NAME", help="Measure this contender anew; may be repeated.")
@click.option("--record", metavar="KEY|FILE", help="EasyTeaCache's calibration.  [the reference model's own]")
@click.option(
    "--measured-record", metavar="KEY|FILE", help="Another of its calibrations, whose plans were chosen by sampling."
)
@click.option(
    "--traces",
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR",
    help="Recorded runs for contenders that are fitted to runs, the official TeaCache rule first.  [each records a few itself]",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE", help="One prompt a line."
)
@click.option("--guidance", type=NumberType(min=0), help="Guidance scale of a pipeline other than the reference.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Number type of such a pipeline.")
@click.option("--device", default="cpu", show_default=True, help="Where to run.")
@click.option(
    "--sampler",
    type=click.Choice(["euler", "unipc"]),
    help="Sample by this flow-matching sampler.  [the pipeline's own]",
)
@click.option("--shift", type=NumberType(min=0, min_open=True), help="Time shift of the sampler.  [its own]")
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="CPU threads; one is steadiest."
)
@click.option("--quick", is_flag=True, help="4 pairs, one shape, 50 steps: to see that everything works.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="bench.json", show_default=True, help="Results."
)
def run_(model: str, out: Path, contenders: tuple[str, ...], again: tuple[str, ...], **options: Any) -> None:
    """Measure MODEL and store every pair's result in a file.

    MODEL is 'reference' (the small model that comes with the program; --model-path takes another one of its kind), a folder,
    or a diffusers pipeline on the Hub. The file is written after every setting, and the same command goes on where it
    stopped. Several processes may share the work: give each its own --shape or --steps and its own --out, and hand all
    files to `easyteacache bench report`.

    \b
    Examples:
      easyteacache bench run --quick
      easyteacache bench run --steps 50 --out bench-50.json
      easyteacache bench run --model-path runs/flux --shape 1x32x32
      easyteacache bench run Wan-AI/Wan2.1-T2V-1.3B-Diffusers --shape 17x480x832 \\
          --device cuda --dtype bfloat16 --record wan2.1/t2v-1.3b
    """
    require("the benchmark", "diffusers", "matplotlib", "skimage")
    from easyteacache.bench import roster
    from easyteacache.bench.run import run

    chosen = roster.chosen(contenders)
    roster.chosen(again)
    titles = {contender.name.lower(): contender.name for contender in roster.everybody()}
    subject = _subject(model, options)
    plan = _plan(model, subject, options)
    try:
        run(
            subject,
            plan,
            chosen,
            out,
            again=[titles[name.lower()] for name in again],
            tell=lambda message: click.echo(message, err=True),
        )
    except KeyboardInterrupt:
        click.echo(f"Stopped. What was measured is in {out}; the same command goes on.", err=True)
        click.get_current_context().exit(INTERRUPTED)
    click.echo(f"wrote {out}")
    click.echo(f"See it: easyteacache bench report {out}")


@bench.command("report")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--plots", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Draw a picture per case."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def report(files: tuple[Path, ...], markdown: bool, plots: Path | None, as_json: bool) -> None:
    """Print the tables of one benchmark, whose results may lie in several files.

    At each speed-up a contender stands with the best of its points that computed no more than that allows. 95 % intervals
    are bootstrapped over pairs; "worst tenth" is the mean of the lowest tenth of the pairs; "right" counts samples in which a
    classifier reads what was asked for; "time" is wall time relative to the uncached run.

    \b
    Examples:
      easyteacache bench report bench.json
      easyteacache bench report bench-50.json bench-25.json --plots pictures

    \b
    JSON: setup, machine, command, cases (each case, uncached, targets, curves,
      short, missing; targets: target, contenders, differences)
    """
    if markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other: give one of them.")
    require("the benchmark", "diffusers", "matplotlib", "skimage")
    from easyteacache.bench import report as tables
    from easyteacache.bench.results import merge

    results = merge(files)
    if plots is not None:
        from easyteacache.bench import plot

        for path in plot.save(results, plots):
            click.echo(f"wrote {path}", err=True)
    if as_json:
        echo_json(tables.as_data(results))
    else:
        click.echo(tables.as_markdown(results) if markdown else tables.as_text(results, width=screen_width()))


def _subject(model: str, options: dict[str, Any]) -> Subject:
    from easyteacache.bench import subject

    device = usable_device(options["device"])
    if model == REFERENCE:
        found: Subject = subject.load_reference(options["model_path"])
    else:
        if options["model_path"] is not None:
            raise click.UsageError("--model-path is for the reference pipeline; name the model's folder instead.")
        found = subject.load_pipeline(
            model, prompts=_prompts(options["prompts"]), guidance_scale=options["guidance"], dtype=options["dtype"]
        )
    found.pipe.to(device)
    found.sampled_by(options["sampler"], options["shift"])
    return found


def _prompts(file: Path | None) -> list[str]:
    if file is not None:
        return prompts_in(file)
    from easyteacache.integrations.diffusers.recording.prompts import PROMPTS

    return list(PROMPTS)


def _plan(model: str, subject: Subject, options: dict[str, Any]) -> Plan:
    from easyteacache.bench.run import Plan

    quick = options["quick"]
    return Plan(
        cases=_cases(model, options),
        pairs=min(4, options["pairs"]) if quick else options["pairs"],
        targets=options["targets"],
        record=_record(options["record"]) or subject.key,
        measured=_record(options["measured_record"]),
        traces=options["traces"],
        retimed=1 if quick else 2,
        pilot_pairs=2 if quick else 3,
        threads=options["threads"],
    )


def _record(named: str | None) -> str | Path | None:
    from easyteacache.registry.registry import names_file

    return Path(named) if named is not None and names_file(named) else named


def _cases(model: str, options: dict[str, Any]) -> tuple[Case, ...]:
    from easyteacache.bench.subject import Case

    quick = options["quick"]
    usual: tuple[tuple[int | None, int | None, int | None], ...] = USUAL_SHAPES[1:2] if quick else USUAL_SHAPES
    shapes = options["shapes"] or (usual if model == REFERENCE else ((None, None, None),))
    steps = options["steps"] or (USUAL_STEPS[:1] if quick else USUAL_STEPS)
    return tuple(
        dict.fromkeys(Case(frames, height, width, count) for frames, height, width in shapes for count in steps)
    )
