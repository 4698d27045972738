"""The state of one branch of forwards: its gate, the previous signal, and the residuals that a forecast needs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easyteacache.distance import Reduce, relative_l1
from easyteacache.errors import InvalidSignal, StepOrderError
from easyteacache.forecast import Forecaster, forecaster
from easyteacache.gate import Gate

if TYPE_CHECKING:
    import torch

    from easyteacache.policy import Policy


@dataclass
class StepRecord:
    """What happened at one step.

    Attributes:
        step: zero-based index.
        reused: True when the blocks were skipped.
        reason: why it was decided so (see ``gate.Reason``).
        distance: signal distance x to the previous step, where it was measured.
        predicted: output distance the curve or the profile predicted for it.
        accumulated: predicted distance accumulated after this step.
    """

    step: int
    reused: bool
    reason: str
    distance: float | None
    predicted: float | None
    accumulated: float


@dataclass
class BranchState:
    """Everything one branch remembers within a run, and the list of what it did."""

    name: str
    policy: Policy
    reduce: Reduce | None = None
    steps: list[StepRecord] = field(default_factory=list)
    gate: Gate = field(init=False)
    forecaster: Forecaster = field(init=False)

    def __post_init__(self) -> None:
        self.forecaster = forecaster(self.policy.forecaster)
        self.gate = Gate(
            threshold=self.policy.threshold,
            first=self.policy.first_skip_step,
            last=self.policy.last_skip_step,
            max_consecutive_skips=self.policy.max_consecutive_skips,
            schedule=self.policy.schedule,
        )
        self._anchors: deque[tuple[float, torch.Tensor]] = deque(maxlen=self.forecaster.history)
        self._forget()

    def _forget(self) -> None:
        self._last_step = -1
        self._signal: torch.Tensor | None = None
        self._sigma: float | None = None
        self._anchors.clear()
        self._reused: list[float] = []
        self._pending: tuple[int, bool] | None = None
        self._measured: tuple[float | None, float | None] = (None, None)

    def reset(self) -> None:
        """Drop every tensor and the run's record; the next step is computed."""
        self._forget()
        self.gate.reset()
        self.steps.clear()

    @property
    def last_step(self) -> int:
        """The last step that was reused or computed, −1 before the first."""
        return self._last_step

    @property
    def pending(self) -> bool:
        """True between a ``check`` and the ``update`` or ``store_truth`` that answers it."""
        return self._pending is not None

    def release(self) -> None:
        """Drop every tensor but keep the run's record; the next step is computed."""
        self._forget()
        self.gate.reset()

    @property
    def nbytes(self) -> int:
        """Bytes of the residuals and the signal held at this moment."""
        held = [residual for _, residual in self._anchors]
        return sum(tensor.nbytes for tensor in (*held, *([] if self._signal is None else [self._signal])))

    def check(
        self, step: int, signal: torch.Tensor | None, *, sigma: float | None, distance: float | None = None
    ) -> bool:
        """May ``step`` be reused? Proposes only; nothing is remembered but the proposal.

        ``distance`` is the signal distance x to the previous step where it is known without the signal's tensor.
        """
        self._expect_order(step)
        self._measured = (None, None)
        if self._unusable(signal):
            # What was remembered describes another shape, number type or device: nothing of it can be reused.
            self._forget()
            self.gate.reset()
        admitted = self.gate.admits(step, lambda: self._predict(signal, sigma, distance)) and bool(self._anchors)
        self._pending = (step, admitted)
        self._sigma_now = sigma
        return admitted

    def update(
        self, signal: torch.Tensor | None, block_input: torch.Tensor, *, coordinate: float | None
    ) -> torch.Tensor:
        """Block input ``(B, L, D)`` + forecast residual; commits the reuse that ``check`` admitted."""
        step = self._admitted()
        newest = self._anchors[-1][1]
        if newest.shape != block_input.shape or newest.device != block_input.device:
            raise InvalidSignal(
                "hidden_states",
                f"shape {tuple(block_input.shape)} on {block_input.device}; the last computed step had "
                f"{tuple(newest.shape)} on {newest.device}. Call clear_cache() before a new resolution or batch",
            )
        output = self._forecast(block_input, float(step) if coordinate is None else coordinate)
        self.reuse(signal, coordinate=coordinate)
        return output

    def residual(self, *, coordinate: float | None) -> torch.Tensor:
        """The residual forecast for the step that ``check`` admitted; nothing is committed. May be an anchor itself."""
        step = self._admitted()
        terms = self._terms(float(step) if coordinate is None else coordinate)
        if not terms:
            return self._anchors[-1][1].new_zeros(()).expand_as(self._anchors[-1][1])
        weight, total = terms[0]
        if weight != 1.0:
            total = total * weight
        for weight, residual in terms[1:]:
            total = total.add(residual, alpha=weight)
        return total

    def reuse(self, signal: torch.Tensor | None, *, coordinate: float | None) -> None:
        """Commit the reuse that ``check`` admitted."""
        step = self._admitted()
        self._reused.append(float(step) if coordinate is None else coordinate)
        self.gate.reused(step)
        self._commit(step, signal, reused=True)

    def _admitted(self) -> int:
        if self._pending is None or not self._pending[1]:
            raise StepOrderError(
                f"update() on branch {self.name!r} without a check() that returned True for this step: "
                "call check(), and update() only when it said so"
            )
        return self._pending[0]

    def store_truth(
        self,
        step: int,
        signal: torch.Tensor | None,
        block_input: torch.Tensor,
        block_output: torch.Tensor,
        *,
        coordinate: float | None,
    ) -> None:
        """A step was computed: remember its residual ``(B, L, D)`` and signal."""
        if block_input.shape != block_output.shape:
            raise InvalidSignal(
                "output_latent",
                f"shape {tuple(block_output.shape)} does not match input_latent's {tuple(block_input.shape)}",
            )
        self.store_residual(step, signal, block_output - block_input, coordinate=coordinate)

    def store_residual(
        self, step: int, signal: torch.Tensor | None, residual: torch.Tensor, *, coordinate: float | None
    ) -> None:
        """A step was computed: remember its residual, any shape, and its signal."""
        self._expect_order(step)
        if self._anchors and not _alike(self._anchors[-1][1], residual):
            self._anchors.clear()
            self._reused.clear()
        self._anchors.append((float(step) if coordinate is None else coordinate, residual))
        first = self._anchors[0][0]
        self._reused = [at for at in self._reused if (at - first) * (self._anchors[-1][0] - first) > 0]
        self.gate.computed(step)
        self._commit(step, signal, reused=False)

    def _commit(self, step: int, signal: torch.Tensor | None, *, reused: bool) -> None:
        asked = self._pending is not None and self._pending[0] == step
        reason = self.gate.reason if asked else "start"
        self.steps.append(StepRecord(step, reused, reason, *self._measured, self.gate.accumulated))
        # A clone, because the model may go on to change the tensor in place.
        self._signal = None if signal is None or self.gate.threshold <= 0 else signal.detach().clone()
        self._sigma = self._sigma_now if asked else None
        self._last_step, self._pending = step, None

    def _predict(self, signal: torch.Tensor | None, sigma: float | None, distance: float | None) -> float | None:
        """Predicted output distance from the previous step to this one."""
        profile = self.policy.profile
        if profile is not None and sigma is not None and self._sigma is not None:
            predicted = profile.between(self._sigma, sigma)
            self._measured = (None, predicted)
            return predicted
        if distance is None:
            if signal is None or self._signal is None:
                return None
            distance = relative_l1(signal, self._signal, reduce=self.reduce)
        predicted = self.policy.curve(distance)
        self._measured = (distance, predicted)
        return predicted

    def _forecast(self, block_input: torch.Tensor, at: float) -> torch.Tensor:
        output: torch.Tensor | None = None
        for weight, residual in self._terms(at):
            if output is None:
                output = block_input.add(residual, alpha=weight)
            else:
                output.add_(residual, alpha=weight)
        return block_input.clone() if output is None else output

    def _terms(self, at: float) -> list[tuple[float, torch.Tensor]]:
        """The residuals that count at coordinate ``at``, with their weights."""
        weights = self.forecaster.weights([coordinate for coordinate, _ in self._anchors], at, reused=self._reused)
        return [(weight, residual) for weight, (_, residual) in zip(weights, self._anchors, strict=True) if weight]

    def _unusable(self, signal: torch.Tensor | None) -> bool:
        return signal is not None and self._signal is not None and not _alike(self._signal, signal)

    def _expect_order(self, step: int) -> None:
        if step > self._last_step:
            return
        if step == self._last_step:
            raise StepOrderError(
                f"step {step} came twice on branch {self.name!r}. Two forwards a step (guidance) need one branch each: "
                "pass branch='cond' and branch='uncond' to check(), update() and store_truth()"
            )
        raise StepOrderError(
            f"step {step} came after step {self._last_step} on branch {self.name!r}: steps go up within a run; "
            "a new run begins with step 0 or after clear_cache()"
        )


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
