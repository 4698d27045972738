"""The lines that lead to one operating point, and why there are none where nothing leads to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from easyteacache.errors import EasyTeaCacheError
from easyteacache.policy.figures import rate_of
from easyteacache.policy.model_choice import ModelResolver
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Found

#: Figures of an argument: few, and on the safe side of what is asked for.
_DIGITS = 3


@dataclass(frozen=True)
class Usage:
    """How to use a setting here: Python, or one sentence that says why that cannot be."""

    code: str | None = None
    reason: str | None = None


class Asking:
    """Says what to ask for to get an operating point of one record; every answer is tried before it is given.

    Args:
        found: the record.
        family: the records that its key means to ``TeaCache.from_registry``, the model's own first.
    """

    def __init__(self, found: Found, family: Sequence[Found]) -> None:
        self._record = found.calibration
        self._resolver = ModelResolver(family) if family else None

    def usage(self, bucket: Bucket, point: OperatingPoint | None) -> Usage:
        """The lines for ``point`` of ``bucket``; None stands for a record that names no setting."""
        record = self._record
        if record.status == "yanked":
            return Usage(reason="The record was yanked: it must not be used.")
        if point is not None and point.preset is not None:
            return Usage(reason=f"Run by {point.preset.engine} itself: these are settings of its own method.")
        if record.signal == "unknown":
            return Usage(reason="The source does not say which signal the numbers take: they can be read, not applied.")
        if point is None:
            return Usage(_code(record, bucket, "threshold=…  # the source names none"))
        if point.threshold is not None and _plain(point):
            return Usage(_code(record, bucket, f"threshold={point.threshold!r}"))
        run = RunContext(bucket.sequence_length, bucket.num_steps, bucket.shift, bucket.sampler)
        for request in _requests(bucket, point):
            if self._leads_to(point, request, run):
                return Usage(_code(record, bucket, _asked(request)))
        return Usage(reason="No speed-up, error or threshold leads here: another setting of the model goes before it.")

    def _leads_to(self, point: OperatingPoint, request: Request, run: RunContext) -> bool:
        if self._resolver is None:
            return False
        try:
            policy: Policy = self._resolver.policy(request, run)
        except EasyTeaCacheError:
            return False
        filled = (policy.forecaster, policy.applied_to, policy.coordinate)
        same = policy.schedule == point.schedule and policy.weights == point.weights
        if point.threshold is not None:
            same = same and policy.threshold == point.threshold
        return (
            same
            and policy.model_key == self._record.model_key
            and filled == (point.forecaster, point.applied_to, point.coordinate)
        )


def _plain(point: OperatingPoint) -> bool:
    """Whether asking for the threshold gives the point: what fills a reused step is then the last residual."""
    return (point.forecaster, point.applied_to) == ("hold", "residual")


def _requests(bucket: Bucket, point: OperatingPoint) -> Iterator[Request]:
    rate = rate_of(point, bucket.num_steps)
    if rate is not None and rate >= 1:
        yield Request(speedup=_rounded(rate, math.floor))
    if point.error is not None:
        yield Request(max_error=_rounded(point.error.mean, math.ceil))
    if point.threshold is not None:
        yield Request(threshold=point.threshold)


def _asked(request: Request) -> str:
    if request.threshold is not None:
        return f"threshold={request.threshold!r}"
    return f"max_error={request.max_error!r}" if request.speedup is None else f"speedup={request.speedup!r}"


def _rounded(value: float, way: Callable[[float], int]) -> float:
    if value <= 0:
        return value
    scale = 10.0 ** (_DIGITS - 1 - math.floor(math.log10(value)))
    return float(f"{way(value * scale) / scale:.{_DIGITS}g}")


def _code(record: Calibration, bucket: Bucket, wish: str) -> str:
    wish, comment = wish.partition("  #")[::2]
    steps = f", num_inference_steps={bucket.num_steps}" if bucket.num_steps else ""
    lines = [
        "from easyteacache import TeaCache",
        "",
        f'TeaCache.from_registry("{record.model_key}", {wish}).attach(pipe)' + (f"  #{comment}" if comment else ""),
        f"pipe(prompt{steps})",
    ]
    return "\n".join(lines)
