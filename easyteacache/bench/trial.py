"""Sample under one contender and measure: closeness to the uncached sample of the same noise, work, time, memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from easyteacache.bench.contender import Bed, Calibrated, Contender, Settings
from easyteacache.bench.meter import Meter, Work
from easyteacache.bench.subject import Case, Frames, Pair, Subject
from easyteacache.compare.quality import psnr, ssim
from easyteacache.errors import BenchError

#: Equal samples have an infinite PSNR, which no mean survives.
HIGHEST_PSNR = 100.0


@dataclass(frozen=True)
class Sampled:
    """One sample with its costs.

    Attributes:
        frames: (F, H, W, C) in [0, 1].
        seconds: wall time of the pipeline call.
        work: what was computed.
    """

    frames: Frames
    seconds: float
    work: Work


@dataclass(frozen=True)
class Score:
    """One pair under one contender.

    Attributes:
        share: work divided by that of the uncached run.
        psnr, ssim: against the uncached sample; PSNR at most ``HIGHEST_PSNR``.
        right: whether the sample shows what was asked for, None where nothing can tell.
        seconds: wall time.
        ratio: ``seconds`` divided by the uncached run's, sampled right before or after it; None where that was not repeated.
    """

    share: float
    psnr: float
    ssim: float
    right: bool | None
    seconds: float
    ratio: float | None


@dataclass
class Uncached:
    """The uncached samples of one case, made when first asked for.

    Args:
        subject, case: what is sampled.
    """

    subject: Subject
    case: Case
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.meter = Meter(self.subject.transformers)
        self._known: dict[Pair, Sampled] = {}

    def sampled(self, pair: Pair) -> Sampled:
        """The uncached sample of a pair."""
        if pair not in self._known:
            self._known[pair] = self.again(pair)
        return self._known[pair]

    def again(self, pair: Pair) -> Sampled:
        """The same once more, for its time."""
        with self.meter.counting():
            return _timed(self.subject, self.case, pair, self.meter, steps=self.case.steps)

    def forwards(self, pair: Pair) -> float:
        """Forwards in a step, in samples."""
        return self.sampled(pair).work.blocks / (self.meter.block_count * self.case.steps)


def measure(
    bed: Bed,
    uncached: Uncached,
    contender: Contender,
    settings: Settings,
    calibrated: Calibrated,
    pairs: Sequence[Pair],
    *,
    retimed: int = 0,
) -> list[Score]:
    """Sample every pair under a contender.

    Args:
        bed, uncached: of the same case.
        contender, settings, calibrated: what to apply.
        pairs: what to sample.
        retimed: of the first so many pairs the uncached run is repeated, before and after in turns, for its time.

    Raises:
        BenchError: the contender gives values that are no image.
        Exception: whatever the contender raises.
    """
    return [
        _score(bed, uncached, contender, settings, calibrated, pair, first=bool(i % 2), again=i < retimed)
        for i, pair in enumerate(pairs)
    ]


def _score(
    bed: Bed,
    uncached: Uncached,
    contender: Contender,
    settings: Settings,
    calibrated: Calibrated,
    pair: Pair,
    *,
    first: bool,
    again: bool,
) -> Score:
    full = uncached.sampled(pair)
    beside = uncached.again(pair).seconds if again and first else None
    found = sample(bed, uncached.meter, contender, settings, calibrated, pair)
    if again and not first:
        beside = uncached.again(pair).seconds
    try:
        decibels = min(psnr(full.frames, found.frames), HIGHEST_PSNR)
        similarity = ssim(full.frames, found.frames)
    except ValueError as error:
        raise BenchError(f"{contender.name} with {dict(settings)}: {error}") from error
    return Score(
        share=found.work.of(contender.unit) / full.work.of(contender.unit),
        psnr=decibels,
        ssim=similarity,
        right=bed.subject.read(pair, found.frames),
        seconds=found.seconds,
        ratio=None if beside is None else found.seconds / beside,
    )


def calibrated_on(bed: Bed, meter: Meter, contender: Contender) -> Calibrated:
    """The contender's own calibration, with everything it put on taken off again."""
    with meter.counting():
        return contender.calibrate(bed)


def sample(
    bed: Bed, meter: Meter, contender: Contender, settings: Settings, calibrated: Calibrated, pair: Pair
) -> Sampled:
    """One sample under a contender, with everything taken off again afterwards."""
    steps = contender.steps(bed.case, settings)
    with meter.counting(), contender.applied(bed, settings, calibrated):
        return _timed(bed.subject, bed.case, pair, meter, steps=steps)


def _timed(subject: Subject, case: Case, pair: Pair, meter: Meter, *, steps: int) -> Sampled:
    meter.reset()
    _synchronise()
    begin = time.perf_counter()
    frames = subject.sample(case, pair, steps=steps)
    _synchronise()
    return Sampled(frames, time.perf_counter() - begin, replace(meter.work))


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class PeakMemory:
    """Most memory taken inside ``watched`` above what was taken before, in bytes; None where it cannot be known."""

    def __init__(self) -> None:
        self.bytes: int | None = None
        self.measure = "torch.cuda.max_memory_allocated" if torch.cuda.is_available() else "peak resident set size"

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the block."""
        before = self._begin()
        yield
        after = self._peak()
        self.bytes = None if before is None or after is None else max(0, after - before)

    def _begin(self) -> int | None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return int(torch.cuda.memory_allocated())
        try:
            # Linux: forget the highest resident set size of this process.
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return None
        return _status("VmRSS")

    def _peak(self) -> int | None:
        return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else None
