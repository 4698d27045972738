"""No cache at all: the same model with fewer sampler steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from easyteacache.bench.contender import Bed, Calibrated, Contender, Settings, most_steps, replaced
from easyteacache.bench.subject import Case


class FewerSteps(Contender):
    """The pipeline's own sampler with fewer steps."""

    name = "fewer steps"
    family = "sampler"
    kind = "sampler"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """As many steps as a target allows."""
        counts = dict.fromkeys(most_steps(bed.case, target) for target in bed.targets)
        return tuple({"steps": count} for count in counts)

    def piloted(self) -> bool:
        """There is nothing to choose."""
        return False

    def steps(self, case: Case, settings: Settings) -> int:
        """The setting's own."""
        return int(settings["steps"])

    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> contextlib.AbstractContextManager[Any]:
        """Nothing is put on."""
        return contextlib.nullcontext()


class Multistep(FewerSteps):
    """Multistep samplers of second and third order on the same noise levels."""

    name = "fewer steps, multistep"
    note = "a better solver moves towards the exact solution, not towards the uncached run's own discretisation"

    def inapplicable(self, bed: Bed) -> str | None:
        """Only flow-matching models, whose shift is a number."""
        from easyteacache.integrations.diffusers import scheduler_facts

        scheduler = bed.subject.pipe.scheduler
        if scheduler_facts.prediction_of(scheduler) != "velocity" or scheduler_facts.is_dynamic(scheduler):
            return f"{type(scheduler).__name__} is no flow-matching sampler with a fixed shift"
        return None

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Every solver at every step count."""
        solvers = (("dpmsolver++", 2), ("dpmsolver++", 3), ("unipc", 2), ("unipc", 3))
        return tuple(
            {"solver": solver, "order": order, **settings}
            for settings in super().variants(bed)
            for solver, order in solvers
        )

    def piloted(self) -> bool:
        """The pilot chooses the solver."""
        return True

    @contextlib.contextmanager
    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Iterator[None]:
        """The scheduler is replaced inside the block."""
        from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

        from easyteacache.integrations.diffusers import scheduler_facts

        pipe = bed.subject.pipe
        options = {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": scheduler_facts.shift_of(pipe.scheduler) or 1.0,
            "solver_order": settings["order"],
        }
        if settings["solver"] == "unipc":
            scheduler: Any = UniPCMultistepScheduler(**options)
        else:
            scheduler = DPMSolverMultistepScheduler(algorithm_type=settings["solver"], **options)
        with replaced(pipe, "scheduler", scheduler):
            yield
