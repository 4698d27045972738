"""What takes part: a cache or a sampler, the settings that trace its curve, and how it is put on a pipeline for one run."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from easyteacache.bench.subject import Case, Pair, Subject

Settings = Mapping[str, Any]
#: What a contender's own calibration gave, as JSON.
Calibrated = Mapping[str, Any]
Kind = Literal["own", "own, measured", "hold", "forecast", "attention", "sampler"]

#: A point counts at a target as long as it computed no more than this many times the target's share.
SLACK = 1.02
_ROUNDING = 1e-9


def allowed(target: float) -> float:
    """The largest computed share that counts at the speed-up ``target``."""
    return SLACK / target + _ROUNDING


def most_steps(case: Case, target: float) -> int:
    """Computed steps that ``allowed`` leaves of a run, at least 1."""
    return max(1, int(case.steps * allowed(target)))


@dataclass(frozen=True)
class Knob:
    """A number that makes a contender skip more the larger it is; bisected on a logarithmic scale.

    Attributes:
        name: its name in ``Settings``.
        low, high: where to search, both above 0.
    """

    name: str
    low: float
    high: float


@dataclass
class Bed:
    """Where contenders run: one case of one subject.

    Attributes:
        subject, case: what is sampled.
        forwards: forwards of one transformer in one step of an uncached run, each of one sample: 2 where a pipeline runs its
            guidance branches apart.
        calibration_pairs: for contenders that calibrate themselves; they appear neither in the pilot nor in the evaluation.
        targets: speed-ups to be compared at.
        record: model key or file of EasyTeaCache's calibration; None: there is none.
        measured: the same of one whose plans were chosen by sampling candidates.
        traces: recorded runs for contenders that are fitted to some; None: each records a few itself.
    """

    subject: Subject
    case: Case
    forwards: float
    calibration_pairs: Sequence[Pair]
    targets: Sequence[float]
    record: str | Path | None = None
    measured: str | Path | None = None
    traces: Path | None = None

    @property
    def transformer(self) -> Any:
        """The first transformer: every contender but EasyTeaCache knows only one."""
        return self.subject.transformers[0]

    @property
    def separate_branches(self) -> bool:
        """Are the guidance branches separate forwards?"""
        return self.forwards > 1.5


class Contender(ABC):
    """One line of the table.

    Attributes:
        name: unique.
        family: the package whose code runs.
        kind: what fills a skipped step: ``hold`` the last residual, ``forecast`` an extrapolation; ``attention`` skips inside
            the blocks; ``sampler`` takes fewer steps; ``own`` is EasyTeaCache.
        unit: what is counted: ``blocks``, or ``parts`` where blocks run in part.
        knob: what is bisected, if anything.
        note: what a reader should know.
        packages: what has to be installed.
    """

    name: str
    family: str
    kind: Kind
    unit: Literal["blocks", "parts"] = "blocks"
    knob: Knob | None = None
    note: str = ""
    packages: tuple[str, ...] = ("diffusers",)

    def inapplicable(self, bed: Bed) -> str | None:
        """Why it cannot take part here; None when it can."""
        return None

    def calibrate(self, bed: Bed) -> Calibrated:
        """Calibrate it with its own tool, on pairs nobody else sees; plain data, kept with the results."""
        return {}

    @abstractmethod
    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Settings to try, without the knob."""

    def piloted(self) -> bool:
        """Are its settings chosen by a pilot? Otherwise all of ``variants`` are measured."""
        return True

    def steps(self, case: Case, settings: Settings) -> int:
        """Sampler steps to ask for."""
        return case.steps

    @abstractmethod
    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> contextlib.AbstractContextManager[Any]:
        """Put it on the subject's pipeline for one run."""

    def __repr__(self) -> str:
        return f"<{self.name}>"


@contextlib.contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute inside the block."""
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)
