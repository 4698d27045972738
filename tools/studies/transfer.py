"""Does a calibration hold at a sequence length, step count or shift it was not made at? Answered from traces of full runs.

python tools/studies/transfer.py --traces traces --traces tests/fixtures/traces/reference --out study --record

Without --record the same traces give the same tables, numbers and pictures.

Every fit is made on the runs with even seeds and judged on those with odd seeds, then the other way round; a prompt and its seed
are on the same side in every setting, so no judged run was seen by any fit.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
import transfer_pictures as pictures
import transfer_tables as tables
from tqdm import tqdm
from transfer_judge import (
    FILLINGS,
    Array,
    Judge,
    Predict,
    counts_near,
    drive,
    fit,
    followed,
    threshold_for,
    truth,
)

from easyteacache.files import atomic_write
from easyteacache.records.trace_set import Trace, TraceSet
from easyteacache.solver.fit import curves
from easyteacache.solver.fit.points import gather
from easyteacache.solver.fit.sigma_profile import fit_profile
from easyteacache.solver.replay.gate_replay import Schedule
from easyteacache.solver.search import schedules
from easyteacache.solver.search.planner import computed_steps

Setting = tuple[int, int, float]
SIGNALS = ("timestep_projection", "modulated_input", "first_block_residual")
CURVES = ("monotone", "quartic", "power")
BASE_STEPS, BASE_SHIFT = 50, 3.0
SPEEDUPS = (2, 3)
# Runs at most, and options; what the shipped traces hold (4 frames of 16x16, 24x24 and 32x32 at 25 and 50 steps) is not repeated.
RECORDED: tuple[tuple[int, str], ...] = (
    (12, "--size 16x16 --frames 1 --frames 2 --frames 6 --steps 50"),
    (12, "--size 24x24 --frames 1 --frames 2 --steps 50"),
    (12, "--size 16x16 --frames 4 --steps 20 --steps 30"),
    (12, "--size 16x16 --frames 4 --steps 50 --shift 1 --shift 5 --shift 8"),
    (8, "--size 24x24 --frames 4 --steps 20 --steps 30"),
    (8, "--size 24x24 --frames 4 --steps 50 --shift 1 --shift 5 --shift 8"),
)


@dataclass(frozen=True)
class Half:
    """The runs of one setting with seeds of one parity are fitted to, the others judged on."""

    fitted: tuple[Trace, ...]
    judged: Judge


@dataclass
class Row:
    """How one way of predicting did on the held-out runs of one setting.

    Attributes:
        kind: form of the curve, ``profile``, or a reference that fits nothing.
        signal: what the curve is of; empty for what needs no signal.
        source: what it was fitted to.
        target: sequence length, step count and shift it was judged at.
        relative_error, r2: of the predicted output distance.
        computed: speed-up → mean number of computed steps that the errors belong to.
        carried: speed-up → the speed-up reached with the threshold that gave it on the source's own runs.
        errors: "filling speed-up" → predicted error of the final sample of every run, by seed; geometric mean over computed
            steps within a tenth of the speed-up's.
    """

    kind: str
    signal: str
    source: str
    target: Setting
    relative_error: float = 0.0
    r2: float = 0.0
    computed: dict[str, float] = field(default_factory=dict)
    carried: dict[str, float] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)


class Study:
    """All settings of one recording, split in two both ways."""

    def __init__(self, traces: TraceSet, runs: int) -> None:
        self.settings = traces.settings()
        self.halves: tuple[dict[Setting, Half], ...] = ({}, {})
        self.runs: dict[Setting, tuple[Trace, ...]] = {}
        for setting in self.settings:
            kept = sorted(traces.group(*setting), key=_seed)[:runs]
            if len({_seed(trace) for trace in kept}) < len(kept):
                raise click.ClickException(f"{tables.name(setting)}: two runs share a seed; keep one recording of each")
            parities = [tuple(t for t in kept if _seed(t) % 2 == parity) for parity in (0, 1)]
            if min(map(len, parities)) < 2:
                raise click.ClickException(
                    f"{tables.name(setting)}: two runs with even and two with odd seeds are needed"
                )
            self.runs[setting] = tuple(kept)
            for parity in (0, 1):
                self.halves[parity][setting] = Half(parities[parity], Judge(parities[1 - parity]))
        self.fit = functools.cache(self._fit)

    def row(self, kind: str, signal: str, source: str, target: Setting, make: Callable[[int], Predict]) -> Row:
        """Judge what ``make`` fits to half 0 and to half 1."""
        row = Row(kind, signal, source, target)
        by_seed: dict[str, dict[int, float]] = {}
        for half in (0, 1):
            judge, predict = self.halves[half][target].judged, make(half)
            r2, relative_error = judge.accuracy(predict)
            row.r2, row.relative_error = row.r2 + r2 / 2, row.relative_error + relative_error / 2
            for speedup in SPEEDUPS:
                plans = [judge.plans(predict, count) for count in counts_near(target[1], speedup)]
                self._replay(row, by_seed, judge, plans, speedup)
        row.errors = {key: [found[seed] for seed in sorted(found)] for key, found in by_seed.items()}
        return row

    def reference(self, name: str, target: Setting) -> Row:
        """Judge evenly spaced steps, which need no calibration."""
        row = Row(name, "", "", target)
        by_seed: dict[str, dict[int, float]] = {}
        for half, speedup in itertools.product((0, 1), SPEEDUPS):
            judge = self.halves[half][target].judged
            even = [schedules.uniform(target[1], count) for count in counts_near(target[1], speedup)]
            self._replay(row, by_seed, judge, [[plan] * len(judge.runs) for plan in even], speedup)
        row.errors = {key: [found[seed] for seed in sorted(found)] for key, found in by_seed.items()}
        return row

    def _replay(
        self, row: Row, by_seed: dict[str, dict[int, float]], judge: Judge, plans: list[list[Schedule]], speedup: int
    ) -> None:
        computed = float(np.mean([len(plan) for plans_of_one in plans for plan in plans_of_one]))
        row.computed[str(speedup)] = row.computed.get(str(speedup), 0.0) + computed / 2
        seeds = [_seed(trace) for trace in judge.runs.traces]
        for filling in FILLINGS:
            logs = np.mean([np.log(judge.errors(plans_of_one, filling)) for plans_of_one in plans], axis=0)
            by_seed.setdefault(f"{filling} {speedup}", {}).update(zip(seeds, np.exp(logs).tolist(), strict=True))

    def carried(self, kind: str, signal: str, source: Setting, target: Setting) -> dict[str, float]:
        """The speed-ups that the source's own thresholds reach at the target."""
        reached = dict.fromkeys(map(str, SPEEDUPS), 0.0)
        for half, speedup in itertools.product((0, 1), SPEEDUPS):
            predict = self.fit(half, kind, signal, (source,))
            own = [followed(predict, trace) for trace in self.halves[half][source].fitted]
            threshold = threshold_for(own, computed_steps(source[1], speedup))
            there = drive([followed(predict, t) for t in self.halves[half][target].judged.runs.traces], threshold)
            reached[str(speedup)] += target[1] / float(np.mean([len(plan) for plan in there])) / 2
        return reached

    def _fit(self, half: int, kind: str, signal: str, sources: tuple[Setting, ...]) -> Predict:
        return fit([trace for source in sources for trace in self.halves[half][source].fitted], kind, signal)


def study_lengths(study: Study) -> Iterator[Row]:
    """Every sequence length predicted from its own runs and from those of the others."""
    lengths = [s for s in study.settings if s[1:] == (BASE_STEPS, BASE_SHIFT)]
    for target in lengths:
        ways = _ways(target, [s for s in lengths if s != target])
        for kind, signal in _kinds():
            for source, shares in ways.items():
                make = functools.partial(_blended, study, kind, signal, shares)
                yield study.row(kind, signal, source, target, make)


def study_settings(study: Study, axis: int) -> Iterator[Row]:
    """Every setting predicted from every other that differs from it in step count (axis 1) or shift (axis 2) alone."""
    other = 2 if axis == 1 else 1
    fixed = BASE_SHIFT if axis == 1 else BASE_STEPS
    for _, group in itertools.groupby(study.settings, key=lambda s: s[0]):
        settings = [s for s in group if s[other] == fixed]
        for target, source in itertools.product(settings, settings if len(settings) > 1 else ()):
            for kind, signal in _kinds():
                make = functools.partial(_blended, study, kind, signal, {(source,): 1.0})
                row = study.row(kind, signal, f"{source[axis]:g}", target, make)
                row.carried = study.carried(kind, signal, source, target)
                yield row


def references(study: Study) -> Iterator[Row]:
    """What needs no fit (evenly spaced steps) and what no fit can beat (the run's own distances)."""
    for target in study.settings:
        yield study.reference("uniform", target)
        yield study.row("truth", "", "", target, lambda half: truth)


def moves(study: Study) -> Iterator[dict[str, object]]:
    """What the fits of every setting look like, on all its runs and on each half."""
    for setting, runs in study.runs.items():
        profile = fit_profile(runs)
        found: dict[str, object] = {
            "setting": setting,
            "runs": len(runs),
            "output": _mean([truth(trace) for trace in runs]),
            "profile": {"sigmas": profile.sigmas.tolist(), "distances": profile.distances.tolist()},
        }
        for signal in SIGNALS:
            halves = [study.halves[half][setting].fitted for half in (0, 1)]
            found[signal] = {
                "distance": _mean([np.stack(list(trace.signal_distances[signal].values())) for trace in runs]),
                "quartic": [_quartic(part, signal) for part in (runs, *halves)],
                "power": [_power(part, signal) for part in (runs, *halves)],
            }
        yield found


def _quartic(traces: Sequence[Trace], signal: str) -> list[float]:
    return list(curves.teacache(gather(traces, signal)).coefficients or ())


def _power(traces: Sequence[Trace], signal: str) -> list[float]:
    """(a, b) of a·xᵇ, read off the fitted curve at the largest distance seen and at half of it."""
    points = gather(traces, signal)
    x = points.domain[1] * np.array([0.5, 1.0])
    low, high = np.log(curves.power(points).predict(x))
    exponent = float(high - low) / math.log(2.0)
    return [float(np.exp(high)) / float(x[1]) ** exponent, exponent]


def _mean(values: Sequence[Array]) -> list[float]:
    """Mean over runs and branches, per step."""
    return np.mean(np.concatenate(values), axis=0).tolist()  # type: ignore[no-any-return]


def _kinds() -> list[tuple[str, str]]:
    return [*itertools.product(CURVES, SIGNALS), ("profile", "")]


def _ways(target: Setting, others: Sequence[Setting]) -> dict[str, dict[tuple[Setting, ...], float]]:
    """Ways to get a curve for a length: name → {settings pooled in one fit: share of that fit}."""
    at = {s: math.log(s[0] / target[0]) for s in others}
    ways: dict[str, dict[tuple[Setting, ...], float]] = {"own": {(target,): 1.0}}
    below, above = [s for s in others if at[s] < 0], [s for s in others if at[s] > 0]
    if below and above:
        low, high = below[-1], above[0]
        weight = -at[low] / (at[high] - at[low])
        ways["interpolated"] = {(low,): 1.0 - weight, (high,): weight}
    ways["nearest"] = {(min(others, key=lambda s: abs(at[s])),): 1.0}
    ways["global"] = {tuple(others): 1.0}
    ways["farthest"] = {(max(others, key=lambda s: abs(at[s])),): 1.0}
    return ways


def _blended(study: Study, kind: str, signal: str, shares: dict[tuple[Setting, ...], float], half: int) -> Predict:
    parts = [(share, study.fit(half, kind, signal, sources)) for sources, share in shares.items()]
    return lambda trace: np.sum([share * predict(trace) for share, predict in parts], axis=0)


def _seed(trace: Trace) -> int:
    if trace.header.seed is None:
        raise click.ClickException(f"{trace.label}: runs are told apart by their seed; record with one")
    return trace.header.seed


def _record(folder: Path, runs: int) -> None:
    for most, options in RECORDED:
        prompts = ("--num-prompts", str(min(most, runs)))
        arguments = ("record", "reference", "--out", str(folder), *prompts, *options.split())
        subprocess.run([sys.executable, "-m", "easyteacache.cli.main", *arguments], check=True)


def _rounded(value: object) -> object:
    """Six digits of every number: the last ones differ between linear-algebra libraries."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


@click.command()
@click.option(
    "--traces",
    "folders",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Trace files or folders; may be repeated.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for transfer.json and the pictures."
)
@click.option(
    "--record", "record_runs", is_flag=True, help="First record what is missing in the first --traces folder."
)
@click.option("--runs", default=12, show_default=True, type=click.IntRange(4), help="Runs per setting, those with the lowest seeds.")  # fmt: skip
def main(folders: tuple[Path, ...], out: Path, record_runs: bool, runs: int) -> None:
    """Print the tables of docs/transfer.md; write all results and the pictures to OUT."""
    if record_runs:
        _record(folders[0], runs)
    study = Study(TraceSet.merge(*(TraceSet.load(folder) for folder in folders)), runs)
    parts = {
        "references": references(study),
        "lengths": study_lengths(study),
        "steps": study_settings(study, 1),
        "shifts": study_settings(study, 2),
    }
    results = {name: [asdict(row) for row in tqdm(rows, desc=name, leave=False)] for name, rows in parts.items()}
    results = _rounded({"moves": list(moves(study)), **results})  # type: ignore[assignment]
    out.mkdir(parents=True, exist_ok=True)
    atomic_write.write_text(out / "transfer.json", json.dumps(results, indent=1) + "\n")
    for name, picture in pictures.draw(results).items():
        atomic_write.write_bytes(out / f"transfer-{name}.png", picture)
    click.echo(tables.markdown(results))


if __name__ == "__main__":
    main()
