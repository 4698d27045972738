"""The state of one branch of forwards: its gate, the previous signal, and the residuals that a forecast needs.

The only holder of tensors: one signal and at most ``predictor.history`` residuals, none of which keeps an autograd graph.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from easyteacache.errors import InvalidSignal, StepOrderError
from easyteacache.policy.methods.rows import LONGEST_ROW
from easyteacache.runtime.corrector import CorrectedOutputs, tensor_corrector
from easyteacache.runtime.gate import Gate
from easyteacache.runtime.predictors import FITTED, PlannedRows, Predictor, planned, predictor
from easyteacache.runtime.tensor_math import Reduce, alike, relative_l1

if TYPE_CHECKING:
    import torch

    from easyteacache.policy.policy import Policy
    from easyteacache.runtime.sampler_steps import SamplerSteps

#: The branch of callers that name none: one stream of forwards.
DEFAULT_BRANCH = "default"


@dataclass
class StepRecord:
    """What happened at one step.

    Attributes:
        step: zero-based index.
        reused: True when the blocks were skipped.
        reason: why: a ``gate.Reason``; ``levels`` when the predictor needs noise levels that are not known; ``changed`` when the tensors or the sequence length changed; ``declined`` when the caller
            computed a step it might have reused; ``unasked`` when it reported a computed step without asking.
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


class _Proposal(NamedTuple):
    """What ``check`` answered, until ``update`` or ``store_truth`` commits it."""

    step: int
    admitted: bool
    reason: str
    sigma: float | None
    distance: float | None
    predicted: float | None


@dataclass
class BranchState:
    """Everything one branch remembers within a run, and the list of what it did."""

    name: str
    policy: Policy
    reduce: Reduce | None = None
    length: int | None = None
    steps: list[StepRecord] = field(default_factory=list)
    gate: Gate = field(init=False)
    predictor: Predictor = field(init=False)

    def __post_init__(self) -> None:
        self._last_step = -1
        self._changed = False
        # Whether every step so far was what a fixed schedule says; fitted weights correct what that schedule got wrong.
        self._on_plan = True
        self._adopt(self.policy)

    def _adopt(self, policy: Policy) -> None:
        self.policy = policy
        self._schedule = policy.schedule_of(self.name)
        self._corrected: CorrectedOutputs | None = None
        if policy.weights is not None and self._schedule is not None and policy.corrected:
            self._corrected = tensor_corrector(policy.weights, self._schedule)
        self.predictor = _predictor_of(policy, self._schedule)
        # Without the noise levels that its weights follow from, nothing can be predicted.
        self._blind = self.predictor.needs_levels and policy.run_levels is None
        self.gate = Gate(
            threshold=policy.threshold,
            first=policy.first_skip_step,
            last=policy.last_skip_step,
            max_consecutive_skips=policy.longest_run
            if policy.max_consecutive_skips is None
            else policy.max_consecutive_skips,
            schedule=self._schedule,
            own_limit=policy.own_limit,
        )
        self._anchors: deque[tuple[float, torch.Tensor]] = deque(maxlen=self.predictor.history)
        self.release()

    def follow(self, policy: Policy, *, length: int | None) -> None:
        """Go on with another policy, for another sequence length: nothing remembered fits, the next step is computed."""
        self._adopt(policy)
        self.length, self._changed = length, self._last_step >= 0

    def release(self) -> None:
        """Drop every tensor but keep the run's record; the next step is computed."""
        self._signal: torch.Tensor | None = None
        self._sigma: float | None = None
        self._anchors.clear()
        if self._corrected is not None:
            self._corrected.clear()
        self._reused: list[float] = []
        self._proposal: _Proposal | None = None
        # Shape, number type and device of the block input that the residuals belong to.
        self._stored: tuple[torch.Size, torch.dtype, torch.device] | None = None
        self._on_plan = self._on_plan and self._last_step < 0
        self.gate.reset()

    @property
    def last_step(self) -> int:
        """The last step that was reused or computed, −1 before the first."""
        return self._last_step

    @property
    def pending(self) -> int | None:
        """The step of a ``check`` that no ``update`` or ``store_truth`` has answered yet."""
        return None if self._proposal is None else self._proposal.step

    @property
    def axis(self) -> str:
        """What the predictor runs along: the policy's axis, or the step where it knows no other."""
        return self.policy.coordinate if self.policy.coordinate in self.predictor.axes else "step"

    @property
    def sigma(self) -> float | None:
        """The noise level that the unanswered ``check`` was given."""
        return None if self._proposal is None else self._proposal.sigma

    @property
    def nbytes(self) -> int:
        """Bytes of the residuals and the signal held at this moment."""
        held = [residual for _, residual in self._anchors] + ([] if self._signal is None else [self._signal])
        held += [] if self._corrected is None else self._corrected.tensors
        # An output that is both forecast and corrected from is one tensor.
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in held}.values())

    # Deciding --------------------------------------------------------------------------------------------------------

    def check(
        self, step: int, signal: torch.Tensor | None, *, sigma: float | None = None, distance: float | None = None
    ) -> bool:
        """May ``step`` be reused? Proposes only; nothing is remembered but the proposal.

        Args:
            step: zero-based index, above the last one.
            signal: of any shape, or None where the policy needs none.
            sigma: noise level of the step, where it is known.
            distance: the signal distance x to the previous step, where it is known without the signal's tensor.
        """
        expect_order(step, self._last_step, self.name)
        self._proposal = None
        if signal is not None and self._signal is not None and not alike(self._signal, signal):
            # What was remembered describes another shape, number type or device: nothing of it can be reused.
            self.release()
            self._changed = True
        measured: list[float | None] = [None, None]

        def predict() -> float | None:
            measured[:] = self._predict(signal, sigma, distance)
            return measured[1]

        # Without a residual there is nothing to reuse, whatever the gate would say.
        admitted = bool(self._anchors) and self.gate.admits(step, predict)
        reason: str = self.gate.reason if self._anchors else "start"
        if admitted and self._blind:
            admitted, reason = False, "levels"
        self._proposal = _Proposal(step, admitted, "changed" if self._changed else reason, sigma, *measured)
        return admitted

    def _predict(
        self, signal: torch.Tensor | None, sigma: float | None, distance: float | None
    ) -> tuple[float | None, float | None]:
        """Signal distance, and the output distance predicted from the previous step to this one; None where not known."""
        if self.policy.profile is not None and sigma is not None and self._sigma is not None:
            return None, self.policy.profile.between(self._sigma, sigma)
        if self.policy.needs_sigma:
            return None, None
        if distance is None:
            if signal is None or self._signal is None or signal.is_meta:
                return None, None
            distance = relative_l1(signal, self._signal, reduce=self.reduce)
        # An infinite distance lies outside every domain, although clamping would bring it in.
        return distance, self.policy.curve(distance) if math.isfinite(distance) else None

    # A reused step ---------------------------------------------------------------------------------------------------

    def update(
        self, signal: torch.Tensor | None, block_input: torch.Tensor, *, coordinate: float | None = None
    ) -> torch.Tensor:
        """Block input ``(B, L, D)`` + forecast residual, a new tensor; commits the reuse that ``check`` admitted."""
        at = self._place(self._admitted().step, coordinate)
        if (block_input.shape, block_input.dtype, block_input.device) != self._stored:
            raise InvalidSignal(
                "hidden_states",
                f"{_described(block_input.shape, block_input.dtype, block_input.device)}; the last computed step had "
                f"{'another origin' if self._stored is None else _described(*self._stored)}. Pass sequence_length= to check(), or call clear_cache() before a new "
                "resolution or batch",
            )
        output = weighted_sum([(1.0, block_input), *self._terms(at)])
        self.reuse(signal, coordinate=at)
        return output

    def residual(self, *, coordinate: float | None = None) -> torch.Tensor:
        """The residual forecast for the step that ``check`` admitted; nothing is committed. May be an anchor itself."""
        return weighted_sum(self._terms(self._place(self._admitted().step, coordinate)))

    def handed(self, step: int, output: torch.Tensor, sampler: SamplerSteps | None, *, reused: bool) -> torch.Tensor:
        """What the sampler is handed for the model's ``output``, any shape: the tensor itself unless the policy corrects this step.

        Args:
            step: zero-based index.
            output: computed, or made of a forecast.
            sampler: what the sampler's steps do; None where that is not known, and nothing can be corrected.
            reused: the blocks were skipped.
        """
        if self._corrected is None:
            return output
        if not self._goes_on_plan(step, reused=reused):
            self._corrected.clear()
            return output
        return self._corrected.handed(step, output, sampler, computed=not reused)

    def reuse(self, signal: torch.Tensor | None, *, coordinate: float | None = None) -> None:
        """Commit the reuse that ``check`` admitted."""
        step = self._admitted().step
        self._reused.append(self._place(step, coordinate))
        self.gate.reused(step)
        self._commit(step, signal, reused=True)

    def _admitted(self) -> _Proposal:
        if self._proposal is None or not self._proposal.admitted:
            raise StepOrderError(
                f"update() on branch {self.name!r} without a check() that returned True for this step: "
                "call check(), and update() only when it said so"
            )
        return self._proposal

    def _terms(self, at: float) -> list[tuple[float, torch.Tensor]]:
        """The residuals that count at coordinate ``at``, with their weights; never empty."""
        anchors = list(self._anchors)
        if not self._goes_on(at):
            # The sampler turned back: there is no trend to continue.
            return [(1.0, anchors[-1][1])]
        places = [coordinate for coordinate, _ in anchors]
        if isinstance(self.predictor, PlannedRows) and not self._goes_on_plan(int(at), reused=True):
            # Rows hold for the steps they belong to.
            weights = self.predictor.astray(places, at, reused=self._reused)
        else:
            weights = self.predictor.weights(places, at, reused=self._reused)
        return counting(weights, [residual for _, residual in anchors])

    # A computed step -------------------------------------------------------------------------------------------------

    def store_truth(
        self,
        step: int,
        signal: torch.Tensor | None,
        block_input: torch.Tensor,
        block_output: torch.Tensor,
        *,
        coordinate: float | None = None,
    ) -> None:
        """A step was computed: remember its residual ``(B, L, D)`` and signal."""
        if block_input.shape != block_output.shape or block_input.device != block_output.device:
            raise InvalidSignal(
                "output_latent",
                f"{_described(block_output.shape, block_output.dtype, block_output.device)}, does not match input_latent's "
                f"{_described(block_input.shape, block_input.dtype, block_input.device)}",
            )
        expect_order(step, self._last_step, self.name)
        stored = (block_input.shape, block_input.dtype, block_input.device)
        if stored != self._stored:
            self._anchors.clear()
            self._stored = stored
        if len(self._anchors) == self._anchors.maxlen:
            # Let go before the next one is made, so that no more than ``history`` exist at any moment.
            self._anchors.popleft()
        self.store_residual(step, signal, block_output.detach() - block_input.detach(), coordinate=coordinate)

    def store_residual(
        self, step: int, signal: torch.Tensor | None, residual: torch.Tensor, *, coordinate: float | None = None
    ) -> None:
        """A step was computed: remember its residual, any shape, and its signal.

        Without a coordinate, where the policy's predictor extrapolates along another axis than the step, no residual is
        kept and the next step is computed.
        """
        expect_order(step, self._last_step, self.name)
        at = self._known_place(step, coordinate)
        if at is None or (self._anchors and not (alike(self._anchors[-1][1], residual) and self._goes_on(at))):
            self._anchors.clear()
        if at is not None:
            self._anchors.append((at, residual.detach()))
        oldest, newest = (self._anchors[0][0], self._anchors[-1][0]) if self._anchors else (0.0, 0.0)
        self._reused = [place for place in self._reused if (place - oldest) * (newest - oldest) > 0]
        self.gate.computed(step)
        self._commit(step, signal, reused=False)

    def _goes_on(self, at: float) -> bool:
        """True when ``at`` continues the anchors' coordinates: the same direction, none of them again."""
        newest = self._anchors[-1][0]
        direction = newest - self._anchors[0][0]
        return at != newest if direction == 0 else (at - newest) * direction > 0

    # Shared ----------------------------------------------------------------------------------------------------------

    def _goes_on_plan(self, step: int, *, reused: bool) -> bool:
        """True when all steps up to ``step``, none left out, were computed and reused as the schedule says."""
        planned = step not in (self._schedule or ())
        return self._on_plan and step == self._last_step + 1 and reused == planned

    def _known_place(self, step: int, coordinate: float | None) -> float | None:
        if self.axis == "step":
            return float(step)
        return coordinate if coordinate is not None and math.isfinite(coordinate) else None

    def _place(self, step: int, coordinate: float | None) -> float:
        place = self._known_place(step, coordinate)
        if place is None:
            raise InvalidSignal(
                self.axis,
                f"is {coordinate!r} at step {step}; the predictor {self.policy.forecaster!r} of this policy extrapolates "
                f"along the {self.axis}: pass it with every call, or choose another predictor=",
            )
        return place

    def _commit(self, step: int, signal: torch.Tensor | None, *, reused: bool) -> None:
        asked = self._proposal if self._proposal is not None and self._proposal.step == step else None
        reason = "unasked" if asked is None else "declined" if asked.admitted and not reused else asked.reason
        distance, predicted = (None, None) if asked is None else (asked.distance, asked.predicted)
        self.steps.append(StepRecord(step, reused, reason, distance, predicted, self.gate.accumulated))
        self._sigma = None if asked is None else asked.sigma
        self._on_plan = self._goes_on_plan(step, reused=reused)
        self._last_step, self._proposal, self._changed = step, None, False
        self._keep_signal(step, signal)

    def _keep_signal(self, step: int, signal: torch.Tensor | None) -> None:
        """Remember the signal only where the next step's answer can depend on it: it may be as large as the latent."""
        if signal is None or not self.policy.reads_signal(self._sigma) or not self.gate.measures(step + 1):
            self._signal = None
        elif self._signal is not None and alike(self._signal, signal) and _may_write(self._signal):
            self._signal.copy_(signal.detach())
        else:
            # A copy, because the model may go on to change the tensor in place.
            self._signal = signal.detach().clone()


def _predictor_of(policy: Policy, schedule: tuple[int, ...] | None) -> Predictor:
    """What fills the reused steps of a branch that computes ``schedule``; None: a gate decides."""
    if policy.forecaster == FITTED and policy.weights is not None and schedule is not None:
        return PlannedRows(policy.weights, schedule)
    found = predictor(policy.forecaster)
    if policy.run_levels is not None:
        found = found.over(policy.run_levels)
    steps = policy.num_steps or next((share.num_steps for share in policy.buckets if share.num_steps is not None), None)
    by_steps = policy.coordinate == "step" or policy.coordinate not in found.axes
    if schedule is None or steps is None or not by_steps or found.history < LONGEST_ROW:
        return found
    if found.needs_levels and policy.run_levels is None:
        return found
    return planned(found, schedule, max(steps, schedule[-1] + 1))


def weighted_sum(terms: Sequence[tuple[float, torch.Tensor]]) -> torch.Tensor:
    """Σ w_k t_k of tensors of one shape; with a single weight of 1, the tensor itself.

    Half precision is added up in single: weights such as 3, −3, 1 cancel most of what they multiply, and rounding every term would
    leave several times the rounding of the result (``tools/bench/forecast_cost.py`` measures both).
    """
    import torch

    (weight, first), *others = terms
    if weight == 1.0 and len(others) < 2:
        # One rounding at most: there is nothing to gain.
        return first.add(others[0][1], alpha=others[0][0]) if others else first
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for _, tensor in terms))
    half = dtype in (torch.bfloat16, torch.float16)
    total = first.to(torch.float32 if half else dtype, copy=True).mul_(weight)
    for weight, tensor in others:
        total.add_(tensor, alpha=weight)
    return total.to(dtype)


def counting(weights: Sequence[float], tensors: Sequence[torch.Tensor]) -> list[tuple[float, torch.Tensor]]:
    """The terms that count; one of weight 0 where none does, so that there is something to add up."""
    terms = [(weight, tensor) for weight, tensor in zip(weights, tensors, strict=True) if weight]
    return terms or [(0.0, tensors[-1])]


def expect_order(step: int, last: int, branch: str) -> None:
    """Steps go up within a run.

    Raises:
        StepOrderError: ``step`` is not above ``last``, the last one seen on ``branch``.
    """
    if step > last:
        return
    if step == last:
        raise StepOrderError(
            f"step {step} came twice on branch {branch!r}. Two forwards a step (guidance) need one branch each: "
            "pass branch='cond' and branch='uncond' to check(), update() and store_truth()"
        )
    raise StepOrderError(
        f"step {step} came after step {last} on branch {branch!r}: steps go up within a run; "
        "a new run begins with step 0 or after clear_cache()"
    )


def _may_write(tensor: torch.Tensor) -> bool:
    """True unless the tensor was made in inference mode and is now outside it."""
    import torch

    return not tensor.is_inference() or torch.is_inference_mode_enabled()


def _described(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> str:
    return f"shape {tuple(shape)} of {dtype} on {device}"
