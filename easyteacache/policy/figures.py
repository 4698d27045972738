"""Which of two operating points is to be preferred: the one with the stronger evidence, then the one with the better figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from easyteacache.records.evidence import RELATIVE_L2, EvidenceKind
from easyteacache.records.operating_point import OperatingPoint

#: Quality figures that can be compared, the most telling first → whether more is better.
METRICS: Mapping[str, bool] = {
    RELATIVE_L2: False,
    "lpips": False,
    "psnr": True,
    "ssim": True,
    "imagereward": True,
    "vbench": True,
    "clip-score": True,
    "fid": False,
}
_RANKS: Mapping[str | None, int] = {None: 0, "published": 1, "reported": 2, "submitted": 3, "verified": 4}


@dataclass(frozen=True)
class Standing:
    """What is known of one operating point, or of the policy it became.

    Attributes:
        evidence: its strongest kind; None where there is none.
        figures: (metric, mean value) of that kind.
        speedup: what a source states or steps ÷ computed steps, a factor; None where neither is known.
        fixed: its computed steps are fixed: nothing measured in the run can mislead it.
    """

    evidence: EvidenceKind | None = None
    figures: tuple[tuple[str, float], ...] = ()
    speedup: float | None = None
    fixed: bool = False

    def before(self, other: Standing) -> bool:
        """Whether this one is to be preferred to ``other``, where both meet what was asked for.

        The stronger evidence first; then the first figure that both have; then fixed steps before a threshold, and the slower before
        the faster.
        """
        if _RANKS[self.evidence] != _RANKS[other.evidence]:
            return _RANKS[self.evidence] > _RANKS[other.evidence]
        mine, theirs = dict(self.figures), dict(other.figures)
        for metric, more in METRICS.items():
            if metric in mine and metric in theirs and mine[metric] != theirs[metric]:
                return (mine[metric] > theirs[metric]) == more
        if self.fixed != other.fixed:
            return self.fixed
        return (self.speedup or math.inf) < (other.speedup or math.inf)


#: Nothing is known.
UNKNOWN = Standing()


def standing_of(point: OperatingPoint, num_steps: int | None) -> Standing:
    """The standing of an operating point of a bucket of ``num_steps`` steps."""
    strongest = point.strongest
    figures = {
        one.metric: one.value
        for one in reversed(point.by_strength)
        if one.kind == strongest and one.metric is not None and one.value is not None
    }
    return Standing(strongest, tuple(figures.items()), rate_of(point, num_steps), point.schedule is not None)


def rate_of(point: OperatingPoint, num_steps: int | None) -> float | None:
    """The speed-up of a point: what its evidence states, else its steps divided by its computed ones."""
    if point.speedup is not None:
        return point.speedup
    computed = len(point.schedule) if point.schedule is not None else point.computed_steps
    return None if computed is None or num_steps is None else num_steps / computed
