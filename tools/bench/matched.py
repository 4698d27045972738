"""Tables of docs/benchmarks.md, the matched regime first: record, solve and measure every contender, each setting with its own results.

python tools/bench/matched.py --folder runs/matched --flux runs/flux        # every setting, a few hours on one core
python tools/bench/matched.py digits-0.35 --folder runs/matched             # one of them
python tools/docs/benchmarks_page.py                                        # the page from what was measured

The same command goes on where it stopped. Runs are recorded and plans are solved once a setting and kept in --folder; results are
written to docs/benchmarks.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from easyteacache.bench import roster
from easyteacache.bench.run import Plan, run
from easyteacache.bench.scheduled import MeasuredEasyTeaCache
from easyteacache.bench.subject import Case, ReferenceSubject, load_reference
from easyteacache.calibrating.measuring import measure_with
from easyteacache.integrations.diffusers.recording import RecordingSettings, record_pipeline
from easyteacache.records import calibration as records
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.solve import Labels, solve

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "benchmarks"
TARGETS = (1.5, 2.0, 2.5, 3.0, 4.0)
#: Of the tables at shift 3, most of which `easyteacache bench run` makes.
AT_SHIFT_3 = (1.5, 2.0, 3.0, 4.0)
#: Prompt and seed pairs of the evaluation, and recorded runs that plans are solved from; their seeds differ.
PAIRS, RUNS = 16, 16
#: Who needs a second record, whose plans are chosen by sampling.
MEASURED = MeasuredEasyTeaCache.name
WAN, FLUX = "reference/moving-digits", "mine/flux-digits"


@dataclass(frozen=True)
class Setting:
    """One model under one sampler.

    Attributes:
        key: model key of what is solved.
        shift: of the sampler.
        cases: shapes and step counts.
        sampler: its name.
        targets: speed-ups to compare at.
    """

    key: str
    shift: float
    cases: tuple[Case, ...]
    sampler: str = "euler"
    targets: tuple[float, ...] = TARGETS


VIDEO, IMAGE = (4, 16, 16), (1, 16, 16)
SETTINGS = {
    "digits-0.35": Setting(WAN, 0.35, (Case(*VIDEO, 50),)),
    "flux-0.35": Setting(FLUX, 0.35, (Case(*IMAGE, 50),)),
    "digits-0.5": Setting(WAN, 0.5, (Case(*VIDEO, 50),)),
    "unipc-0.35": Setting(WAN, 0.35, (Case(*IMAGE, 50), Case(*IMAGE, 25)), "unipc"),
    "flux-3": Setting(FLUX, 3.0, (Case(*IMAGE, 50), Case(*IMAGE, 25)), targets=AT_SHIFT_3),
    "unipc-3": Setting(WAN, 3.0, (Case(*IMAGE, 50), Case(*IMAGE, 30), Case(*IMAGE, 25)), "unipc"),
    "flux-unipc-3": Setting(FLUX, 3.0, (Case(*IMAGE, 50), Case(*IMAGE, 30), Case(*IMAGE, 25)), "unipc"),
}


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(SETTINGS)))
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Keeps traces and records."
)
@click.option(
    "--flux", type=click.Path(path_type=Path, exists=True), help="FLUX transformer of tools/reference/train.py."
)
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="Where results go.  [docs/benchmarks]"
)
@click.option("--contender", "contenders", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--again", multiple=True, metavar="NAME", help="Measure this contender anew; may be repeated.")
@click.option("--pairs", default=PAIRS, show_default=True, type=click.IntRange(1))
def main(
    names: tuple[str, ...],
    folder: Path,
    flux: Path | None,
    results: Path,
    contenders: tuple[str, ...],
    again: tuple[str, ...],
    pairs: int,
) -> None:
    """Entry point."""
    chosen, missing = roster.chosen(contenders), [name for name in names or SETTINGS if SETTINGS[name].key == FLUX]
    if missing and flux is None:
        raise click.UsageError(f"{missing[0]} needs --flux: train it with tools/reference/train.py --architecture flux")
    for name in names or SETTINGS:
        setting = SETTINGS[name]
        subject = load_reference(flux if setting.key == FLUX else None)
        subject.sampled_by(setting.sampler, setting.shift)
        traces, record, measured = folder / name, folder / f"{name}.json", folder / f"{name}-measured.json"
        _record(subject, setting, traces)
        solved = _solved(traces, record)
        if any(contender.name == MEASURED for contender in chosen):
            solved |= {"measured": _solved(traces, measured, subject)}
        plan = Plan(
            setting.cases,
            pairs,
            setting.targets,
            record=record,
            measured=measured,
            traces=traces,
            retimed=0,
            solved=solved,
        )
        out = results / f"matched-{name}.json"
        run(subject, plan, chosen, out, again=again, tell=lambda message: click.echo(message, err=True))
        click.echo(f"wrote {out}")


def _record(subject: ReferenceSubject, setting: Setting, traces: Path) -> None:
    """Record what is not there yet."""
    jobs = [subject.job(case, pair) for case in setting.cases for pair in subject.pairs(RUNS, first_seed=0)]
    record_pipeline(subject.pipe, jobs, traces, RecordingSettings(model_key=setting.key))


def _solved(traces: Path, record: Path, subject: ReferenceSubject | None = None) -> dict[str, Any]:
    """Solve what is not solved yet, by sampling candidates where a subject is given; says what was solved, by which commit."""
    kept = record.with_suffix(".solved.json")
    if not record.exists():
        measure = subject and measure_with(
            subject.pipe,
            model=subject.name,
            runs=RUNS,
            kept_in=record.with_suffix(".sampled.json"),
            on_step=lambda: None,
        )
        solution = solve(
            TraceSet.load(traces), labels=Labels(license="Apache-2.0"), measure=measure, progress=click.echo
        )
        records.save(solution.calibration, record)
        kept.write_text(_commit(), encoding="utf-8")
    calibration = records.load(record)
    plans = {
        str(bucket.num_steps): [
            list(point.plan.computed) for point in bucket.operating_points if point.plan is not None
        ]
        for bucket in calibration.buckets
    }
    return {"commit": kept.read_text(encoding="utf-8"), "runs": RUNS, "plans": plans}


def _commit() -> str:
    """The last one that changed what solves."""
    places = ("easyteacache/solver", "easyteacache/policy")
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%H", "--", *places]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
