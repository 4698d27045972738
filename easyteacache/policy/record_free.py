"""Policies without a record: the plan is made for each run, once its length, noise levels and step count are known.

``UNIVERSAL`` plans are those of ``uncalibrated``; ``EVEN`` ones space the computed steps evenly, which is the plain baseline. Reused steps
are filled by extending the block stack's residual, or the output where nothing else is seen, linearly over the steps. Neither has any evidence
for the model it is used on, and its policy says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from easyteacache.errors import UnreachableTarget
from easyteacache.policy.carry import falling
from easyteacache.policy.curves import Polynomial
from easyteacache.policy.figures import Standing
from easyteacache.policy.planned import levels_in
from easyteacache.policy.policy import EXACT, Policy
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.skip_window import from_end
from easyteacache.policy.source import PolicySource
from easyteacache.policy.uncalibrated import VALUES_PER_TOKEN, even_plan, universal_plan
from easyteacache.records.sampler import DRAWS_NOISE

#: A linear forecast takes two computed steps.
FEWEST = 2
#: Up to this many steps there is little to win: models made for so few steps give outputs that do not follow from each other
#: (sgl-project/sglang #23640, vllm-project/vllm-omni #3448). On the reference model the universal plan for half of 4 steps is 11 to 31 % off.
TOO_FEW = 8
_FEW = (
    "A run of {} steps: in so few each step changes much, and those of a model distilled for few steps do not follow from each other. "
    "Compare with a run without the cache (`easyteacache doctor`)."
)
PREDICTOR = "linear"
NO_EVIDENCE = "There is no calibration in this: nothing is known of its quality on this model. `easyteacache record` and `solve` make one."

#: (steps, computed steps, run) → the plan, or why there is none, a sentence.
Planned = Callable[[int, int, RunContext], tuple[int, ...] | str]


@dataclass(frozen=True)
class RecordFree:
    """A policy source that needs no record.

    Attributes:
        name: stands where policies of records have their model key.
        makes: the plan of a run.
        note: what the plan is, a sentence.
    """

    name: str
    makes: Planned
    note: str

    @property
    def signals(self) -> tuple[str, ...]:
        """None is read."""
        return ("none",)

    def because(self, reason: str) -> RecordFree:
        """The same with the reason for going without a record before its note."""
        return replace(self, note=f"{reason} {self.note}")

    def policy(self, request: Request, run: RunContext) -> Policy:
        """The plan for this run; where none can be made every step is computed, and ``refusal`` says why or what would be needed.

        Raises:
            UnreachableTarget: an error is asked for, which nobody knows here.
            ValueError: a threshold is asked for, or no speed-up.
        """
        if request.exact:
            return self._policy(request, run, None, EXACT)
        if request.budget is not None:
            raise UnreachableTarget(
                f"{self.name}: no calibration says what error a plan has; ask for a speedup, or calibrate the model"
            )
        if request.speedup is None:
            raise ValueError(f"{self.name}: expected a speedup, at least 1")
        if run.num_steps is None:
            return self._refused(
                request, run, "The step count is not known yet: pass num_steps=, or attach a pipeline."
            )
        computed = max(math.floor(run.num_steps / request.speedup + 1e-9), min(FEWEST, run.num_steps))
        made = self.makes(run.num_steps, computed, run)
        if isinstance(made, str):
            return self._refused(request, run, made)
        return self._planned(request, run, _within(made, request, run.num_steps))

    def _planned(self, request: Request, run: RunContext, plan: tuple[int, ...]) -> Policy:
        assert run.num_steps is not None
        assert request.speedup is not None
        rate = run.num_steps / len(plan)
        notes = [self.note, NO_EVIDENCE]
        if rate < request.speedup * 0.99:
            wishes = (request.min_skip_step, request.max_skip_step, request.max_consecutive_skips)
            windowed = any(wish is not None for wish in wishes)
            why = "are computed in the window that was asked for" if windowed else "is the least that can be computed"
            notes.append(f"{len(plan)} of {run.num_steps} steps {why}: {rate:.3g}×.")
        if len(plan) < run.num_steps <= TOO_FEW:
            notes.append(_FEW.format(run.num_steps))
        return self._policy(request, run, plan, *notes, rate=rate)

    def _refused(self, request: Request, run: RunContext, why: str) -> Policy:
        refusal = f"{why} Every step is computed."
        return self._policy(request, run, None, refusal, refusal=refusal, warnings=(refusal,))

    def _policy(
        self,
        request: Request,
        run: RunContext,
        plan: tuple[int, ...] | None,
        *notes: str,
        rate: float | None = None,
        refusal: str | None = None,
        warnings: tuple[str, ...] = (),
    ) -> Policy:
        return Policy(
            model_key=self.name,
            revision=0,
            status="without calibration",
            layer="none",
            signal="none",
            curve=Polynomial((0.0,)),
            threshold=0.0,
            schedule=plan,
            first_skip_step=request.min_skip_step or 0,
            last_skip_step=from_end(-1 if request.max_skip_step is None else request.max_skip_step, run.num_steps),
            max_consecutive_skips=request.max_consecutive_skips,
            wished_limit=request.max_consecutive_skips,
            buckets=(),
            forecaster=request.predictor or PREDICTOR,
            applied_to=run.can.alone or "residual",
            run_levels=None if run.sampler is None else run.sampler.levels,
            sequence_length=run.sequence_length,
            num_steps=run.num_steps,
            shift=run.shift,
            expected_speedup=rate,
            standing=Standing(speedup=rate, fixed=True),
            warnings=warnings,
            refusal=refusal,
            notes=notes,
        )


def _within(plan: tuple[int, ...], request: Request, num_steps: int) -> tuple[int, ...]:
    """The plan's steps, and those that the caller's own window computes besides."""
    first, limit = request.min_skip_step or 0, request.max_consecutive_skips
    last = from_end(-1 if request.max_skip_step is None else request.max_skip_step, num_steps)
    computed, reused = [], 0
    for step in range(num_steps):
        outside = step < first or (last is not None and step > last) or (limit is not None and reused >= limit)
        reused = 0 if step in plan or outside else reused + 1
        if not reused:
            computed.append(step)
    return tuple(computed)


def _even(steps: int, computed: int, run: RunContext) -> tuple[int, ...]:
    return even_plan(steps, computed)


def _universal(steps: int, computed: int, run: RunContext) -> tuple[int, ...] | str:
    if run.sampler is not None and run.sampler.draws_noise:
        name = run.sampler.name.removesuffix(DRAWS_NOISE)
        return f"{name} draws noise at its steps, after which an output no longer follows from the ones before it."
    levels = levels_in(run, steps)
    if levels is None:
        return "The noise levels are not known: pass shift=, or attach a pipeline."
    if run.sequence_length is None:
        return "The sequence length is not known yet: pass sequence_length=, or go on."
    values = VALUES_PER_TOKEN if run.values_per_token is None else run.values_per_token
    prediction = "velocity" if run.sampler is None else run.sampler.prediction
    shares = _flow_levels(levels, prediction)
    if not falling(shares):
        return "The sampler's noise levels do not fall from call to call, so that no plan can be made for it."
    return universal_plan(shares, run.sequence_length, computed, values=values)


def _flow_levels(levels: tuple[float, ...], prediction: str) -> tuple[float, ...]:
    """Noise levels as shares of noise in noise plus sample, which those of flow matching are."""
    if levels[0] > 1.0 + 1e-6:
        return tuple(level / (1.0 + level) for level in levels)
    if prediction in ("epsilon", "x0", "v"):
        # √(1 − ᾱ) beside √ᾱ.
        return tuple(level / (level + math.sqrt(max(1.0 - level * level, 0.0))) for level in levels)
    return tuple(min(level, 1.0) for level in levels)


UNIVERSAL = RecordFree(
    "uncalibrated",
    _universal,
    "The universal plan: it computes what a linear forecast would miss most on small models, compared over matched noise.",
)
EVEN = RecordFree("even", _even, "Evenly spaced steps, the plain baseline.")


class OrUniversal:
    """A source, and the universal plan where it offers nothing for a run.

    Args:
        source: what goes first.
    """

    def __init__(self, source: PolicySource) -> None:
        self._source = source

    @property
    def signals(self) -> tuple[str, ...]:
        """Those of both."""
        return (*self._source.signals, *UNIVERSAL.signals)

    def policy(self, request: Request, run: RunContext) -> Policy:
        """The source's policy, or the universal plan with a note that says why; raises as the source does where no speed-up is asked for."""
        try:
            found = self._source.policy(request, run)
        except UnreachableTarget as error:
            if request.speedup is None:
                raise
            return UNIVERSAL.policy(request, run).noting(f"No record holds: {error}")
        if found.refusal is None or request.speedup is None:
            return found
        return UNIVERSAL.policy(request, run).noting(f"{found.model_key} offers nothing for this run: {found.refusal}")
