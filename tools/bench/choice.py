"""How good is what the solver chooses: from traces alone, after sampling a little, and beside the best of what might have been chosen.

    python tools/bench/choice.py --folder runs/choice --flux runs/flux     # docs/benchmarks/choice/plans.json, an hour
    python tools/bench/choice.py --folder runs/choice wan-3                # one setting
    python tools/docs/benchmarks_page.py                                   # the page from it

In every setting 16 runs are recorded. Plans are chosen for several numbers of computed steps from the first 6, 8 and all 16 of them by
traces alone, from the first 6 by sampling as `easyteacache solve --measure` does by default, and all of them, and up to twenty candidates of
other searches, are sampled end to end on 32 further prompts and seeds. Goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from easyteacache import TeaCache
from easyteacache.bench.subject import Case, ReferenceSubject, load_reference
from easyteacache.calibrating.measuring import measure_with, policy_of
from easyteacache.files import atomic_write, strict_json
from easyteacache.integrations.diffusers.recording import RecordingSettings, record_pipeline
from easyteacache.records.trace import Array
from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.replay.fitted_weights import StateFit
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.replay.runs import Runs
from easyteacache.solver.search.answers import Answers
from easyteacache.solver.search.fitted_search import FittedSearch
from easyteacache.solver.search.measured import FILLED_BY, QUICK, FittedPlans
from easyteacache.solver.search.planner import Plan

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "benchmarks" / "choice" / "plans.json"
FORMAT = 1
RECORDED, FEW, JUDGED = 16, (6, 8), 32
#: Seeds of the judged runs; recorded ones begin at 0.
FIRST_JUDGED = 7000
STEPS, COUNTS = 50, (33, 25, 20, 16, 12)
#: Of these numbers of computed steps candidates are sampled, too.
CONTESTED = (25, 16, 12)
#: Candidates are what searches find that let other shares of the answers count.
SHARES = (0.4, 0.7, 1.0, 1.7)
MOST = 20
KEY = "mine/choice"


@dataclass(frozen=True)
class Setting:
    """A model under a sampler: images of 16×16, 64 tokens, so that 32 runs of many plans are affordable."""

    flux: bool
    sampler: str
    shift: float


SETTINGS = {
    f"{name}{'' if sampler == 'euler' else '-unipc'}-{shift:g}": Setting(name == "flux", sampler, shift)
    for name in ("wan", "flux")
    for sampler in ("euler", "unipc")
    for shift in (3.0, 0.35)
}


class Bench:
    """One setting: its recorded runs, and plans sampled on others.

    Args:
        setting: what is sampled.
        folder: keeps traces and what was sampled.
        flux: the FLUX-class transformer, where the setting is of one.
    """

    def __init__(self, setting: Setting, folder: Path, flux: Path | None) -> None:
        self.subject = load_reference(flux if setting.flux else None)
        self.subject.sampled_by(setting.sampler, setting.shift)
        self.subject.pipe.set_progress_bar_config(disable=True)
        self._folder, self._case = folder, Case(1, 16, 16, STEPS)
        self.runs = Runs.stack(_recorded(self.subject, self._case, folder))
        self._file = folder / "sampled.json"
        self._known: dict[str, list[float]] = strict_json.parse(self._file.read_bytes()) if self._file.exists() else {}
        self._exact: Any = None

    def sampled(self, plan: Plan) -> Array:
        """PSNR of the final latents against the uncached runs', (32,)."""
        key = hashlib.sha256(repr((plan.computed, plan.filling)).encode()).hexdigest()[:32]
        if key not in self._known:
            if self._exact is None:
                self._exact = self._sample()
            head = self.runs.traces[0].header
            cache = TeaCache.from_policy(dataclasses.replace(policy_of(plan, self.runs), fitted_for=head.sampler))
            with cache.attached(self.subject.pipe):
                found = self._sample()
            for branch, statistics in cache.statistics().items():
                computed = tuple(step.step for step in statistics.steps if not step.reused)
                if computed != plan.computed:
                    raise click.ClickException(f"{branch} computed {computed} instead of {plan.computed}")
            squares = np.mean((found - self._exact).reshape(JUDGED, -1) ** 2, axis=1)
            self._known[key] = (10.0 * np.log10(4.0 / np.maximum(squares, 1e-20))).tolist()
            atomic_write.write_text(self._file, strict_json.spell(self._known))
        return np.array(self._known[key])

    def measured(self, runs: Runs, counts: Sequence[int]) -> Mapping[int, Plan]:
        """What `--measure` chooses by default, from these recorded runs."""
        measure = measure_with(
            self.subject.pipe, model=KEY, runs=len(runs), kept_in=self._folder / "measured.json", on_step=lambda: None
        )
        return FittedPlans(measure, QUICK).plans(runs, counts)

    def _sample(self) -> Array:
        jobs = [self.subject.job(self._case, pair) for pair in self.subject.pairs(JUDGED, first_seed=FIRST_JUDGED)]
        latents: Any = self.subject.pipe(
            [job.prompt for job in jobs],
            1,
            16,
            16,
            STEPS,
            self.subject.guidance_scale,
            seeds=[job.seed for job in jobs],
            output_type="latent",
            return_dict=False,
        )[0]
        return np.asarray(latents.double().numpy())


def _recorded(subject: ReferenceSubject, case: Case, folder: Path) -> list[Any]:
    traces = folder / "traces"
    jobs = [subject.job(case, pair) for pair in subject.pairs(RECORDED, first_seed=0)]
    record_pipeline(subject.pipe, jobs, traces, RecordingSettings(model_key=KEY))
    return sorted(TraceSet.load(traces), key=lambda trace: trace.header.seed or 0)


def candidates(count: int, chosen: Schedule, searches: Sequence[FittedSearch]) -> list[Schedule]:
    """Up to twenty schedules: what is chosen, and what searches that let other shares of the answers count find and meet."""
    found = [chosen]
    lists = [search.candidates(count) for search in searches]
    for place in range(MOST):
        found += [each[place] for each in lists if place < len(each)]
    return list(dict.fromkeys(found))[:MOST]


def study(bench: Bench, tell: Any) -> dict[str, Any]:
    """Every choice and candidate of one setting, sampled."""
    runs, found = bench.runs, dict[str, Any]()
    few = {number: runs.take(range(number)) for number in FEW}
    groups = {**few, len(runs): runs}
    tell("searching")
    searches = {number: FittedSearch(group, COUNTS) for number, group in groups.items()}
    expected = Answers.expected(runs)
    others = [
        FittedSearch(runs, COUNTS, answers=dataclasses.replace(expected, ratios=(share,) * len(expected.ratios)))
        for share in SHARES
    ]
    fits = {number: StateFit(group) for number, group in groups.items()}
    tell("sampling as --measure does")
    measured = bench.measured(few[FEW[0]], COUNTS)
    for count in COUNTS:
        rows: dict[str, Any] = {}
        chosen = {number: search.best(count) for number, search in searches.items()}
        for number, schedule in chosen.items():
            tell(f"{count} of {STEPS} steps, from {number} runs")
            rows[f"{number} runs"] = _row(bench, _plan(fits[number], schedule))
        rows[f"{FEW[0]} runs, measured"] = _row(bench, measured[count])
        if count in CONTESTED:
            tell(f"{count} of {STEPS} steps, candidates")
            schedules = candidates(count, chosen[len(runs)], [searches[len(runs)], *others])
            rows["candidates"] = [_row(bench, _plan(fits[len(runs)], schedule)) for schedule in schedules]
        found[str(count)] = rows
    return found


def _plan(fit: StateFit, schedule: Schedule) -> Plan:
    return Plan(dataclasses.replace(FILLED_BY[0], weights=fit.weights(schedule)), schedule)


def _row(bench: Bench, plan: Plan) -> dict[str, Any]:
    psnr = bench.sampled(plan)
    return {
        "computed": list(plan.computed),
        "filled_by": plan.filling.forecaster,
        "psnr": [round(float(each), 2) for each in psnr],
    }


def _spelled(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with a line for every number of computed steps."""
    parts = []
    for name, counts in settings.items():
        lines = [f"   {json.dumps(count)}: {json.dumps(rows)}" for count, rows in counts.items()]
        parts.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n  }")
    head = f' "format": {FORMAT},\n "steps": {STEPS},\n "judged": {JUDGED},\n "settings": {{\n'
    return "{\n" + head + ",\n".join(parts) + "\n }\n}\n"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(SETTINGS)))
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Keeps traces and samples."
)
@click.option(
    "--flux", type=click.Path(path_type=Path, exists=True), help="FLUX transformer of tools/reference/train.py."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=RESULTS, help="Results.  [docs/benchmarks/choice/plans.json]"
)
def main(names: tuple[str, ...], folder: Path, flux: Path | None, out: Path) -> None:
    """Entry point."""
    wanted = names or tuple(SETTINGS)
    if flux is None and any(SETTINGS[name].flux for name in wanted):
        raise click.UsageError("FLUX settings need --flux: train it with tools/reference/train.py --architecture flux")
    known: dict[str, Any] = strict_json.parse(out.read_bytes()) if out.exists() else {}
    settings: dict[str, Any] = known.get("settings", {})
    for name in wanted:
        bench = Bench(SETTINGS[name], folder / name, flux)
        settings[name] = study(bench, lambda message, name=name: click.echo(f"{name}: {message}", err=True))
        ordered = {each: settings[each] for each in SETTINGS if each in settings}
        atomic_write.write_text(out, _spelled(ordered))
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
