"""Which run and step a forward belongs to, in loops that tell their scheduler little or nothing."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from tiny_pipelines import wan

from easyteacache.integrations.diffusers.first_timestep import place_of
from easyteacache.integrations.diffusers.step_tracker import Clock, Context

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
Spelling = Callable[[torch.Tensor], torch.Tensor]

SCHEDULERS: dict[str, Callable[[], Any]] = {
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": lambda: UniPCMultistepScheduler(**FLOW),
    "dpm++": lambda: DPMSolverMultistepScheduler(**FLOW),
    "ddim": lambda: DDIMScheduler(clip_sample=False),
    "cogvideox": lambda: CogVideoXDDIMScheduler(timestep_spacing="trailing"),
}


class Loop:
    """A sampler loop over one transformer, followed as the driver follows it."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.clock = Clock(lambda: self.scheduler)
        self.runs = 0
        self._last: dict[str, int] = {}

    def forward(self, timestep: torch.Tensor, branch: str = "cond", context: Context | None = None) -> int:
        """One forward of the transformer; the step that it was taken for."""
        context = context or Context(branch)
        clock, handed = self.clock, timestep.reshape(1) if timestep.ndim == 0 else timestep
        if clock.restarted(context):
            self._begin(context, handed)
        repeated = self._last.get(branch) == clock.step
        if not clock.advance(context, handed, repeated=repeated):
            self._begin(context, handed)
        self._last[branch] = clock.step
        return clock.step

    def _begin(self, context: Context, handed: torch.Tensor) -> None:
        self.clock.end()
        self._last.clear()
        self.clock.begin(context, handed)
        self.runs += 1

    def run(
        self, timesteps: Any, *, steps_with: Any = None, spelled: Spelling = lambda time: time, branches: int = 1
    ) -> list[int]:
        """The steps of a whole run whose outputs ``steps_with`` (by default the scheduler) is handed."""
        stepping, sample, found = steps_with or self.scheduler, torch.zeros(1, 1, 1, 1), []
        for timestep in timesteps:
            for branch in ("cond", "uncond")[:branches]:
                found.append(self.forward(spelled(timestep), branch))
            sample = stepping.step(sample, timestep, sample, return_dict=False)[0]
        return found


def set_up(name: str, steps: int) -> Any:
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(steps)
    return scheduler


# Where a run begins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_loop_that_begins_in_the_middle_is_known_from_its_first_timestep(name: str, branches: int) -> None:
    """Wan, CogVideoX and LTX video2video: strength 0.5 of 50 steps, and nobody calls ``set_begin_index``."""
    scheduler = set_up(name, 50)
    loop = Loop(scheduler)
    first = loop.forward(scheduler.timesteps[25])
    assert (first, loop.clock.num_steps) == (0, 25)
    assert loop.clock.facts is not None
    assert (loop.clock.facts.begin, loop.clock.facts.calls) == (25, 25)
    loop = Loop(set_up(name, 50))
    steps = loop.run(loop.scheduler.timesteps[25:], branches=branches)
    assert steps == [step for step in range(25) for _ in range(branches)]
    assert (loop.runs, loop.clock.num_steps) == (1, 25)


@pytest.mark.parametrize("declared", [True, False], ids=["set_begin_index", "first timestep"])
def test_levels_and_timesteps_are_those_from_where_the_run_begins(declared: bool) -> None:
    scheduler = set_up("euler", 20)
    if declared:
        scheduler.set_begin_index(12)
    loop = Loop(scheduler)
    assert loop.run(scheduler.timesteps[12:15]) == [0, 1, 2]
    clock, sigmas = loop.clock, scheduler.sigmas.double()
    assert clock.num_steps == 8
    assert clock.sigma(Context()) == pytest.approx(float(sigmas[14]))
    assert clock.sampler_steps is not None
    assert clock.sampler_steps.moves[2][0] == pytest.approx(float(sigmas[15] - sigmas[14]))
    assert clock.time() == pytest.approx(float(scheduler.timesteps[14]))
    assert torch.equal(clock.timesteps(), scheduler.timesteps[12:])
    assert clock.facts is not None
    assert clock.facts.levels == tuple(sigmas[12:].tolist())
    assert not clock.euler, "a plan for whole runs does not hold for the rest of one"


SPELLINGS: dict[str, Spelling] = {
    "as it is": lambda time: time,
    "of 1": lambda time: time / 1000,
    "of 1, rounded": lambda time: time.to(torch.bfloat16) / 1000,
    "rounded": lambda time: time.to(torch.bfloat16),
    "whole": lambda time: time.long(),
    "per token": lambda time: torch.stack([torch.zeros_like(time), time, time]).reshape(1, 3),
}


@pytest.mark.parametrize("begin", [0, 10, 19])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_first_timestep_is_found_however_it_is_spelled(spelling: str, begin: int) -> None:
    scheduler = set_up("euler", 20)
    loop = Loop(scheduler)
    steps = loop.run(scheduler.timesteps[begin:], spelled=SPELLINGS[spelling])
    assert steps == list(range(20 - begin))
    assert (loop.runs, loop.clock.num_steps) == (1, 20 - begin)


@pytest.mark.parametrize("spelled", [lambda time: 1 - time / 1000, lambda time: 1000 - time], ids=["of 1", "of 1000"])
def test_time_that_rises_is_found_too(spelled: Spelling) -> None:
    scheduler = set_up("euler", 20)
    loop = Loop(scheduler)
    assert loop.run(scheduler.timesteps, spelled=spelled) == list(range(20))
    assert (loop.runs, loop.clock.num_steps) == (1, 20)


def test_a_first_timestep_that_was_misread_is_put_right_by_the_schedulers_own_count() -> None:
    """A spelling that nobody knows: the run seems to begin at the first place, until the scheduler has stepped."""
    scheduler = set_up("euler", 20)
    loop = Loop(scheduler)
    steps = loop.run(scheduler.timesteps[14:], spelled=lambda time: time.cos())
    assert steps == [0, 1, 2, 3, 4, 5]
    assert loop.clock.num_steps == 6
    assert loop.clock.facts is not None
    assert loop.clock.facts.begin == 14


def test_the_other_transformer_of_a_run_counts_from_where_the_run_began() -> None:
    """Wan2.2 video2video: the low-noise expert first runs in the middle of a run that began in the middle."""
    scheduler = set_up("unipc", 40)
    high, low = Loop(scheduler), Loop(scheduler)
    assert high.run(scheduler.timesteps[10:20]) == list(range(10))
    assert low.run(scheduler.timesteps[20:]) == list(range(10, 30))
    assert low.clock.num_steps == high.clock.num_steps == 30
    assert low.clock.facts == high.clock.facts


@pytest.mark.parametrize(
    ("timestep", "place"),
    [
        (torch.tensor([750.0]), 1),
        (torch.tensor(0.25), 3),
        (torch.tensor([250]), 3),
        (torch.tensor([750.0, 750.0, 0.0]), 1),
        (torch.tensor([750.0, 500.0, 250.0]), None),
        (torch.tensor([600.0]), None),
        (torch.tensor([]), None),
    ],
)
def test_place_of_a_timestep_in_a_list(timestep: torch.Tensor, place: int | None) -> None:
    assert place_of(timestep, [1000.0, 750.0, 500.0, 250.0]) == place


def test_half_precision_takes_the_place_that_is_expected() -> None:
    times = [999.0, 997.0, 995.0, 600.0]
    handed = torch.tensor([996.0], dtype=torch.bfloat16)
    assert place_of(handed, times) == 0
    assert place_of(handed, times, expected=2) == 2
    assert place_of(handed, times, expected=3) == 1


# Who steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_loop_that_steps_a_copy_of_the_scheduler_is_one_run(name: str, branches: int) -> None:
    """SkyReels-V2 steps a copy a frame, and others a copy each: the pipeline's own stands still."""
    scheduler = set_up(name, 6)
    loop = Loop(scheduler)
    steps = loop.run(scheduler.timesteps, steps_with=copy.deepcopy(scheduler), branches=branches)
    assert steps == [step for step in range(6) for _ in range(branches)]
    assert (loop.runs, loop.clock.num_steps) == (1, 6)
    assert loop.clock.facts is not None


@pytest.mark.parametrize("begin", [0, 2])
def test_a_copys_next_run_over_the_same_list_is_another_run(begin: int) -> None:
    scheduler = set_up("unipc", 6)
    loop = Loop(scheduler)
    for number in (1, 2, 3):
        steps = loop.run(scheduler.timesteps[begin:], steps_with=copy.deepcopy(scheduler), branches=2)
        assert steps == [step for step in range(6 - begin) for _ in range(2)]
        assert (loop.runs, loop.clock.num_steps) == (number, 6 - begin)


def test_copies_a_frame_keep_the_count_of_steps() -> None:
    """Diffusion forcing: every frame has a timestep of its own, which no list of one run holds."""
    scheduler = set_up("unipc", 8)
    loop, times = Loop(scheduler), scheduler.timesteps.double()
    steps = []
    for i in range(10):
        steps.append(loop.forward(torch.stack([times[max(0, min(7, i - late))] for late in range(3)]).reshape(1, 3)))
    assert steps == list(range(10))
    assert loop.clock.facts is None
    assert loop.clock.num_steps is None


def test_calls_between_the_schedulers_steps_are_counted_and_its_facts_given_up() -> None:
    """A loop with a midpoint rule of its own: the scheduler steps after every second call."""
    scheduler = set_up("euler", 5)
    loop, sample, steps = Loop(scheduler), torch.zeros(1, 1, 1, 1), []
    times = [*scheduler.timesteps.tolist(), 0.0]
    for i, (now, following) in enumerate(itertools.pairwise(times)):
        steps += [loop.forward(torch.tensor(time)) for time in (now, (now + following) / 2)]
        sample = scheduler.step(sample, scheduler.timesteps[i], sample, return_dict=False)[0]
    assert steps == list(range(10))
    assert loop.clock.facts is None


def test_a_scheduler_that_another_pipeline_left_behind_tells_nothing() -> None:
    """Two pipelines share a transformer; the attached one's scheduler keeps the list of its own last run."""
    scheduler = set_up("euler", 6)
    loop = Loop(scheduler)
    loop.run(scheduler.timesteps)
    other = set_up("unipc", 4)
    assert loop.run(other.timesteps, steps_with=other) == [0, 1, 2, 3]
    assert loop.runs == 2
    assert loop.clock.facts is None
    assert loop.clock.num_steps is None


def test_a_new_run_of_a_loop_that_stands_still_begins_where_time_turns_back() -> None:
    scheduler = set_up("euler", 4)
    loop, own = Loop(scheduler), [900.0, 640.0, 333.0]
    for number in (1, 2):
        assert [loop.forward(torch.tensor(time)) for time in own] == [0, 1, 2]
        assert loop.clock.facts is None or number == 1


# Several calls a step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [False, True], ids=["own", "copy"])
@pytest.mark.parametrize(
    ("make", "calls"),
    [
        (lambda: FlowMatchHeunDiscreteScheduler(shift=3.0), 13),
        (lambda: diffusers.HeunDiscreteScheduler(), 13),
        (lambda: PNDMScheduler(), 16),
        (lambda: PNDMScheduler(skip_prk_steps=True), 8),
    ],
    ids=["flow heun", "heun", "pndm", "plms"],
)
def test_every_call_of_a_step_is_a_step_of_its_own(make: Callable[[], Any], calls: int, copied: bool) -> None:
    scheduler = make()
    scheduler.set_timesteps(7)
    loop = Loop(scheduler)
    stepping = copy.deepcopy(scheduler) if copied else scheduler
    steps = loop.run(scheduler.timesteps, steps_with=stepping, branches=2)
    assert steps == [step for step in range(calls) for _ in range(2)]
    assert (loop.runs, loop.clock.num_steps) == (1, calls)
    assert loop.clock.facts is not None
    assert loop.clock.facts.calls == calls
    assert not loop.clock.euler


# What is known of the sampler ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
def test_the_shift_is_read_under_its_other_name(shift: float) -> None:
    scheduler = UniPCMultistepScheduler(**{**FLOW, "flow_shift": shift})
    scheduler.set_timesteps(5)
    loop = Loop(scheduler)
    loop.forward(scheduler.timesteps[0])
    assert loop.clock.shift == shift
    assert not loop.clock.euler


def test_a_whole_run_of_euler_is_eulers() -> None:
    scheduler = set_up("euler", 5)
    loop = Loop(scheduler)
    loop.forward(scheduler.timesteps[0])
    assert loop.clock.euler
    assert loop.clock.shift == 3.0


def test_nothing_is_known_after_the_end_and_without_a_scheduler() -> None:
    scheduler = set_up("euler", 5)
    loop = Loop(scheduler)
    loop.forward(scheduler.timesteps[0])
    loop.clock.end()
    assert loop.clock.facts is None
    bare = Loop(None)
    assert [bare.forward(torch.tensor(time)) for time in (900.0, 500.0, 100.0, 900.0)] == [0, 1, 2, 0]
    assert (bare.clock.facts, bare.clock.shift, bare.clock.euler, bare.runs) == (None, None, False, 2)


# Attached ------------------------------------------------------------------------------------------------------------


def sampled(pipe: Any, scheduler: Any, timesteps: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(1, 16, 2, 4, 4, generator=generator)
    text = {name: torch.randn(1, 16, 8, generator=generator) for name in ("cond", "uncond")}
    with torch.no_grad():
        for timestep in timesteps:
            outputs = {}
            for name, embeds in text.items():
                with pipe.transformer.cache_context(name):
                    outputs[name] = pipe.transformer(
                        hidden_states=state,
                        timestep=timestep.expand(1),
                        encoder_hidden_states=embeds,
                        return_dict=False,
                    )[0]
            output = outputs["uncond"] + 2.0 * (outputs["cond"] - outputs["uncond"])
            state = scheduler.step(output, timestep, state, return_dict=False)[0]


@pytest.mark.parametrize("name", ["euler", "unipc"])
def test_a_plan_holds_in_a_loop_that_steps_a_copy(name: str, make_cache: Any) -> None:
    pipe = wan()
    pipe.scheduler = set_up(name, 6)
    with make_cache(schedule=(0, 1, 3, 5)).attached(pipe) as cache:
        for _ in range(2):
            sampled(pipe, copy.deepcopy(pipe.scheduler), pipe.scheduler.timesteps)
            assert {run.pattern for run in cache.statistics().values()} == {"██·█·█"}


@pytest.mark.parametrize("name", ["euler", "unipc"])
def test_a_plan_is_counted_from_where_the_run_begins(name: str, make_cache: Any) -> None:
    pipe = wan()
    pipe.scheduler = set_up(name, 12)
    with make_cache(schedule=(0, 1, 3, 5)).attached(pipe) as cache:
        sampled(pipe, pipe.scheduler, pipe.scheduler.timesteps[6:])
        assert {run.pattern for run in cache.statistics().values()} == {"██·█·█"}


def test_a_plan_is_counted_in_calls_of_the_model(make_cache: Any) -> None:
    pipe = wan()
    pipe.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    pipe.scheduler.set_timesteps(4)
    with make_cache(schedule=(0, 1, 3, 5)).attached(pipe) as cache:
        sampled(pipe, pipe.scheduler, pipe.scheduler.timesteps)
        assert {run.pattern for run in cache.statistics().values()} == {"██·█·█·"}
