"""Run the benchmark: every case, every contender, every setting, and go on where an earlier run stopped."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import statistics
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from easyteacache.bench import pilot
from easyteacache.bench.contender import Bed, Contender, Settings
from easyteacache.bench.curves import OURS
from easyteacache.bench.results import COLUMNS, FAILED, IDLE, INAPPLICABLE, MEASURED, Cell, Results, resume
from easyteacache.bench.scheduled import named_record
from easyteacache.bench.subject import Case, Subject
from easyteacache.bench.trial import PeakMemory, Uncached, calibrated_on, measure
from easyteacache.demo.sampling import limited_threads
from easyteacache.errors import BenchError
from easyteacache.records.trace_set import TraceSet

#: Seeds far from those that calibrations are recorded with, and from each other.
FIRST_SEED, PILOT_SEED, CALIBRATION_SEED = 10_000, 20_000, 30_000
PILOT_PAIRS, CALIBRATION_PAIRS = 3, 4
PACKAGES = ("easyteacache", "torch", "diffusers", "cache-dit", "numpy")
# A share this close to 1 is rounding.
NOTHING = 1e-9


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        cases: shapes and step counts.
        pairs: prompt and seed pairs of the evaluation.
        targets: speed-ups, each above 1.
        record: model key or file of EasyTeaCache's calibration.
        measured: the same of one whose plans were chosen by sampling candidates.
        traces: recorded runs for contenders that are fitted to some.
        retimed: pairs of each cell whose uncached run is repeated for its time.
        pilot_pairs: pairs of the pilot.
        threads: CPU threads.
        solved: how EasyTeaCache's record was made, where it was made for this benchmark; kept with the results.
    """

    cases: tuple[Case, ...]
    pairs: int = 32
    targets: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0)
    record: str | Path | None = None
    measured: str | Path | None = None
    traces: Path | None = None
    retimed: int = 2
    pilot_pairs: int = PILOT_PAIRS
    threads: int = 1
    solved: Mapping[str, Any] = field(default_factory=dict)


def run(
    subject: Subject,
    plan: Plan,
    roster: Sequence[Contender],
    out: Path,
    *,
    again: Sequence[str] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> Results:
    """Measure what ``out`` lacks, and write it after every cell.

    Args:
        subject: the model.
        plan: what to measure.
        roster: who takes part.
        out: the file of results.
        again: names of contenders to measure anew, in the cases of this plan.
        tell: called with a line about each step.

    Raises:
        BenchError: the file is damaged or another benchmark's, or the plan cannot be carried out.
        AttachError: the model's class has no adapter.
        EasyTeaCacheError: the plan's record or traces cannot be read, or the model has no samples of a shape.
    """
    _check(subject, plan)
    results = resume(out, setup_of(subject, plan))
    results.solved = dict(plan.solved) or results.solved
    results.machine, results.command = machine(), shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    for case in plan.cases:
        for name in again:
            results.forget(name, case.name)
    with limited_threads(plan.threads):
        for case in plan.cases:
            _Case(subject, plan, case, results, out, tell).run(roster)
    results.save(out)
    return results


def setup_of(subject: Subject, plan: Plan) -> dict[str, Any]:
    """What two files must share to be one benchmark; cases and contenders may differ."""
    return {
        "model": subject.name,
        "weights": subject.digest,
        "device": str(next(subject.transformers[0].parameters()).device),
        "dtype": str(subject.transformers[0].dtype),
        "guidance_scale": subject.guidance_scale,
        # Absent from files that were measured with the pipeline's own.
        **({} if subject.sampler is None else {"sampler": subject.sampler._asdict()}),
        "pairs": [list(pair) for pair in subject.pairs(plan.pairs, first_seed=FIRST_SEED)],
        "pilot_pairs": plan.pilot_pairs,
        "targets": list(plan.targets),
        "threads": plan.threads,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def machine() -> dict[str, Any]:
    """Where this runs, without any name of it."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
    }


class _Case:
    """All contenders in one case."""

    def __init__(
        self, subject: Subject, plan: Plan, case: Case, results: Results, out: Path, tell: Callable[[str], None]
    ) -> None:
        self.subject, self.plan, self.case = subject, plan, case
        self.results, self.out, self.tell = results, out, tell
        self.pairs = subject.pairs(plan.pairs, first_seed=FIRST_SEED)
        self.pilot_pairs = subject.pairs(plan.pilot_pairs, first_seed=PILOT_SEED)
        self.uncached = Uncached(subject, case)

    def run(self, roster: Sequence[Contender]) -> None:
        """Measure whoever lacks something."""
        self.results.plans.setdefault(self.case.name, {})
        missing = [contender for contender in roster if not self._complete(contender)]
        if not missing:
            return
        self._describe_uncached()
        bed = Bed(
            self.subject,
            self.case,
            forwards=self.uncached.forwards(self.pairs[0]),
            calibration_pairs=self.subject.pairs(CALIBRATION_PAIRS, first_seed=CALIBRATION_SEED),
            targets=self.plan.targets,
            record=self.plan.record,
            measured=self.plan.measured,
            traces=self.plan.traces,
        )
        for contender in missing:
            self._contender(bed, contender)

    def _complete(self, contender: Contender) -> bool:
        """Is everything of its plan measured? EasyTeaCache's record is looked at again, because it may be a new one."""
        known = self.results.plans[self.case.name].get(contender.name)
        if known is None or contender.kind in OURS:
            return False
        return all(self.results.cell(self.case.name, contender.name, s) for s in known["settings"])

    def _describe_uncached(self) -> None:
        self.tell(f"{self.case.name}: uncached")
        self.uncached.again(self.pairs[0])
        memory = PeakMemory()
        with memory.watched():
            self.uncached.again(self.pairs[0])
        samples = [self.uncached.sampled(pair) for pair in self.pairs]
        right = [self.subject.read(pair, one.frames) for pair, one in zip(self.pairs, samples, strict=True)]
        self.results.uncached[self.case.name] = {
            "seconds": [one.seconds for one in samples],
            "right": right,
            "blocks": samples[0].work.blocks,
            "forwards_per_step": self.uncached.forwards(self.pairs[0]),
            "memory": memory.bytes,
            "memory_measure": memory.measure,
        }

    def _contender(self, bed: Bed, contender: Contender) -> None:
        try:
            settings, calibrated = self._plan_of(bed, contender)
        except Exception as error:
            self._record(contender, FAILED, _reason(error))
            return
        for one in settings:
            if self.results.cell(self.case.name, contender.name, one) is None:
                self._measure(bed, contender, one, calibrated)

    def _plan_of(self, bed: Bed, contender: Contender) -> tuple[list[Settings], dict[str, Any]]:
        """The settings to measure and the calibration, from the file where it holds them."""
        plans = self.results.plans[self.case.name]
        known = plans.get(contender.name)
        reason = contender.inapplicable(bed) or _not_installed(contender)
        if reason is not None:
            self._record(contender, INAPPLICABLE, reason)
            return [], {}
        if known is not None and contender.kind not in OURS:
            return known["settings"], known["calibrated"]
        self.tell(f"{self.case.name}: {contender.name}, tuning")
        calibrated = dict(calibrated_on(bed, self.uncached.meter, contender))
        if known is not None and known["calibrated"] == calibrated:
            return known["settings"], calibrated
        self.results.forget(contender.name, self.case.name)
        piloted: list[pilot.Piloted] = []
        settings: list[Settings] = list(contender.variants(bed))
        if contender.piloted():
            piloted = pilot.run(bed, self.uncached, contender, calibrated, self.pilot_pairs)
            settings = pilot.choose(piloted, bed.targets, contender.knob)
        plans[contender.name] = {
            "calibrated": calibrated,
            "pilot": [asdict(one) for one in piloted],
            "settings": [dict(one) for one in settings],
        }
        self.results.save(self.out)
        return settings, calibrated

    def _measure(self, bed: Bed, contender: Contender, settings: Settings, calibrated: dict[str, Any]) -> None:
        self.tell(f"{self.case.name}: {contender.name}, {_spelled(settings)}")
        memory = PeakMemory()
        try:
            with memory.watched():
                scores = measure(
                    bed, self.uncached, contender, settings, calibrated, self.pairs, retimed=self.plan.retimed
                )
        except Exception as error:
            self._record(contender, FAILED, _reason(error), settings)
            return
        columns = {name: [getattr(score, name) for score in scores] for name in COLUMNS}
        if min(columns["share"]) > 1 - NOTHING and contender.kind != "sampler":
            self._record(contender, IDLE, "ran and skipped nothing", settings, columns)
            return
        self._record(contender, MEASURED, None, settings, columns, memory.bytes)
        self.tell(
            f"{self.case.name}: {contender.name}, computed {100 * statistics.fmean(columns['share']):.1f} %, "
            f"{statistics.fmean(columns['psnr']):.1f} dB"
        )

    def _record(
        self,
        contender: Contender,
        state: str,
        reason: str | None,
        settings: Settings | None = None,
        columns: dict[str, list[Any]] | None = None,
        memory: int | None = None,
    ) -> None:
        if reason is not None:
            self.tell(f"{self.case.name}: {contender.name} {state}: {reason}")
        cell = Cell(
            case=self.case.name,
            contender=contender.name,
            kind=contender.kind,
            family=contender.family,
            unit=contender.unit,
            note=contender.note,
            state=state,
            reason=reason,
            settings=None if settings is None else dict(settings),
            pairs=columns or {},
            memory=memory,
        )
        # A contender that failed before is tried again, and what it says now counts.
        self.results.cells = [one for one in self.results.cells if one.identity != cell.identity]
        self.results.cells.append(cell)
        self.results.save(self.out)


def _check(subject: Subject, plan: Plan) -> None:
    """What would otherwise be found out when hours of measuring lie behind it."""
    if not plan.cases:
        raise BenchError("expected at least one shape and step count, found none")
    if not plan.targets or min(plan.targets) <= 1:
        raise BenchError(f"expected speed-ups above 1, found {', '.join(map(str, plan.targets)) or 'none'}")
    for case in plan.cases:
        subject.tokens(case)
    if plan.record is not None:
        named_record(plan.record)
    if plan.traces is not None:
        TraceSet.load(plan.traces)


def _reason(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    # The module, not the path: where things are installed is nobody's business.
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:500]


def _not_installed(contender: Contender) -> str | None:
    missing = [name for name in contender.packages if _version(name) is None]
    return f"needs {', '.join(missing)}, which is not installed" if missing else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _spelled(settings: Settings) -> str:
    spelled = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in settings.items())
    return ", ".join(spelled) or "as it is"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
