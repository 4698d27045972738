"""The gate: reuse or compute this step? A state machine over plain floats.

Tensors drive it in ``forward``, recorded traces drive the very same object in validation: what was validated is what runs.
The rule is TeaCache's (arXiv 2411.19108, section 3.3; ali-vilab/TeaCache): the predicted distance from the *previous* step is
accumulated since the last computed step, and a step is reused while the sum stays strictly below the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Literal

Reason = Literal["start", "gap", "window", "schedule", "consecutive", "unpredictable", "threshold", "off", "below"]


class Gate:
    """Decides step by step for one branch.

    ``admits`` only proposes; the state moves when the caller reports what happened with ``reused`` or ``computed``.

    Args:
        threshold: accumulated predicted distance at which a step must be computed; 0 or less computes every step,
            whatever a polynomial says (published ones go negative).
        first: first step that may be reused, zero-based.
        last: last step that may be reused, inclusive; None: no limit.
        max_consecutive_skips: most steps reused in a row; None: no limit.
        schedule: the computed steps of a fixed plan, which then replaces threshold and ``max_consecutive_skips``; the
            window still holds, because a plan says nothing about steps beyond its end.
        own_limit: most steps reused in a row that the caller allows, plan or not; None: no such limit.
    """

    __slots__ = (
        "_accumulated",
        "_consecutive",
        "_proposed",
        "_schedule",
        "_step",
        "first",
        "last",
        "limit",
        "own_limit",
        "reason",
        "threshold",
    )

    def __init__(
        self,
        *,
        threshold: float = 0.0,
        first: int = 1,
        last: int | None = None,
        max_consecutive_skips: int | None = None,
        schedule: Collection[int] | None = None,
        own_limit: int | None = None,
    ) -> None:
        self.own_limit = own_limit
        self.threshold, self.first, self.last, self.limit = threshold, first, last, max_consecutive_skips
        self._schedule = None if schedule is None else frozenset(schedule)
        self.reason: Reason = "start"
        self.reset()

    def reset(self) -> None:
        """Forget the run: the next step is computed."""
        self._step = -1
        self._accumulated = 0.0
        self._proposed = 0.0
        self._consecutive = 0

    @property
    def accumulated(self) -> float:
        """Predicted distance accumulated since the last computed step."""
        return self._accumulated

    def forced(self, step: int) -> Reason | None:
        """Why ``step`` must be computed before any distance is looked at; None when it need not be."""
        if self._step < 0:
            return "start"
        if step != self._step + 1:
            return "gap"
        if self._schedule is not None and step in self._schedule:
            return "schedule"
        if self._schedule is None and self.threshold <= 0.0:
            return "off"
        if step < self.first or (self.last is not None and step > self.last):
            return "window"
        if self._schedule is None and self.limit is not None and self._consecutive >= self.limit:
            return "consecutive"
        if self.own_limit is not None and self._consecutive >= self.own_limit:
            return "consecutive"
        return None

    def measures(self, step: int) -> bool:
        """True when the answer for ``step`` will depend on a predicted distance."""
        return self._schedule is None and self.forced(step) is None

    def admits(self, step: int, predict: Callable[[], float | None]) -> bool:
        """May ``step`` be reused?

        Args:
            step: zero-based index in the sampler loop.
            predict: gives the predicted output distance from the previous step, or None when it cannot be known;
                called only when the answer depends on it, so that no device is waited for otherwise. A prediction that
                is not finite counts as unknown.
        """
        why = self.forced(step)
        if why is not None:
            self.reason = why
            return False
        if self._schedule is not None:
            self.reason = "schedule"
            return True
        distance = predict()
        if distance is None or not math.isfinite(distance):
            self.reason = "unpredictable"
            return False
        self._proposed = self._accumulated + distance
        admitted = self._proposed < self.threshold
        self.reason = "below" if admitted else "threshold"
        return admitted

    def reused(self, step: int) -> None:
        """The step that ``admits`` allowed was reused."""
        if self._schedule is None:
            self._accumulated = self._proposed
        self._consecutive += 1
        self._step = step

    def computed(self, step: int) -> None:
        """The step was computed, whether ``admits`` allowed its reuse or not."""
        self._accumulated = self._proposed = 0.0
        self._consecutive = 0
        self._step = step
