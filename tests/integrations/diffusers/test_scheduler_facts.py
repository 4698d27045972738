"""What a scheduler does in a run, measured on a copy of it: every class of the installed diffusers."""

from __future__ import annotations

import collections
import copy
import inspect
import threading
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers import schedulers as installed

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.scheduler_facts import SchedulerFacts, facts_for, facts_of, is_euler, shifted
from easyteacache.records.sampler import euler_map

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
STEPS = 12

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

# They step something else than a sample of a diffusion transformer: tokens, an atom cloud, an image with a mask.
OF_OTHER_THINGS = {
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "ConsistencyDecoderScheduler",
    "DDPMWuerstchenScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "KarrasVeScheduler",
    "PiflowScheduler",
    "RePaintScheduler",
    "RFD4ProteinaScheduler",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "VQDiffusionScheduler",
}
DRAWING = {
    "CMStochasticIterativeScheduler",
    "CogVideoXDPMScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DPMSolverSDEScheduler",
    "EulerAncestralDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
    "LTXEulerAncestralRFScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UnCLIPScheduler",
}


# Their own pipelines step them otherwise: with what only those have, or not to the end of the list.
UNTRIED = {"HeliosDMDScheduler", "SCMScheduler"}


def wants_torchsde(name: str) -> bool:
    return "torchsde" in getattr(getattr(installed, name), "_backends", ())


def scheduler_names() -> list[str]:
    names = [name for name in dir(installed) if name.endswith("Scheduler") and name not in OF_OTHER_THINGS]
    torch_ones = [name for name in names if not name.startswith("Flax")]
    return [name for name in torch_ones if wants_torchsde(name) or hasattr(getattr(installed, name), "set_timesteps")]


def made(name: str, **changes: Any) -> Any:
    """A scheduler of flow matching where the class can be one, and nothing that clips."""
    kind = getattr(installed, name)
    accepted = inspect.signature(kind).parameters
    wanted = {"shift": 3.0, "clip_sample": False, "stages": 1, **changes}
    if "flow_shift" in accepted:
        wanted |= FLOW
    return kind(**{key: value for key, value in wanted.items() if key in accepted})


def set_up(scheduler: Any, steps: int = STEPS) -> Any:
    scheduler.set_timesteps(2 if type(scheduler).__name__ == "SCMScheduler" else steps)
    return scheduler


def run(scheduler: Any, given: np.ndarray, begin: int = 0) -> np.ndarray:
    """The states of a pipeline's loop: the noise and the outputs are ``given`` (N + 1, C)."""
    timesteps = scheduler.timesteps[begin:]
    arguments: dict[str, Any] = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        arguments["generator"] = torch.Generator().manual_seed(7)
    states, older = [torch.from_numpy(given[0]).reshape(1, -1, 1, 1)], None
    for i, timestep in enumerate(timesteps):
        output = torch.from_numpy(given[i + 1]).reshape(1, -1, 1, 1)
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(states[-1], timestep)
        if isinstance(scheduler, diffusers.CogVideoXDPMScheduler):
            back = timesteps[i - 1] if i else None
            state, older = scheduler.step(output, older, timestep, back, states[-1], **arguments, return_dict=False)
        else:
            state = scheduler.step(output, timestep, states[-1], **arguments, return_dict=False)[0]
        states.append(state)
    return np.stack([state.double().flatten().numpy() for state in states])


def random_outputs(calls: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(calls + 1, 5))


def facts(scheduler: Any, **arguments: Any) -> SchedulerFacts:
    found = facts_of(scheduler, **arguments)
    assert found is not None
    return found


def reproduces(found: SchedulerFacts, scheduler: Any, begin: int = 0) -> None:
    assert found.map is not None, found.reason
    given = random_outputs(found.calls)
    states = run(scheduler, given, begin)
    assert np.max(np.abs(found.map @ given - states)) <= 1e-6 * np.max(np.abs(states))


@pytest.mark.parametrize("name", scheduler_names())
def test_the_map_reproduces_a_run_or_the_facts_say_why_there_is_none(name: str) -> None:
    if wants_torchsde(name):
        pytest.importorskip("torchsde")
    scheduler = set_up(made(name))
    found = facts(scheduler)
    assert found.name == name
    assert found.calls == len(scheduler.timesteps)
    if name in UNTRIED:
        assert (found.map, found.stochastic) == (None, None)
        assert str(found.reason).startswith("a copy of it cannot be run")
        return
    assert found.stochastic is (name in DRAWING)
    if name in DRAWING:
        assert found.map is None
        assert found.reason == "it draws noise at its steps"
        assert found.record().signature is None
        assert found.record().name == f"{name} (stochastic)"
    else:
        reproduces(found, scheduler)
        assert np.array_equal(found.map, np.tril(found.map))


VARIANTS: dict[str, Callable[[], Any]] = {
    "euler, karras": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0, use_karras_sigmas=True),
    "euler, exponential": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0, use_exponential_sigmas=True),
    "euler, beta": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0, use_beta_sigmas=True),
    "euler, inverted": lambda: FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    "euler, terminal": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.2),
    "ancestral without noise": lambda: diffusers.LTXEulerAncestralRFScheduler(eta=0.0),
    "unipc, third order": lambda: UniPCMultistepScheduler(**FLOW, solver_order=3),
    "unipc, epsilon": lambda: UniPCMultistepScheduler(),
    "unipc, half corrected": lambda: UniPCMultistepScheduler(**FLOW, disable_corrector=[0, 1]),
    "dpm++, third order": lambda: DPMSolverMultistepScheduler(**FLOW, solver_order=3),
    "dpm++, heun": lambda: DPMSolverMultistepScheduler(**FLOW, solver_type="heun"),
    "dpm++, epsilon, karras": lambda: DPMSolverMultistepScheduler(use_karras_sigmas=True),
    "dpm++, one step": lambda: diffusers.DPMSolverSinglestepScheduler(**FLOW),
    "deis, epsilon": lambda: diffusers.DEISMultistepScheduler(),
    "sa without noise": lambda: diffusers.SASolverScheduler(**FLOW, tau_func=lambda t: 0),
    "ddim, v": lambda: DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    "ddim, sample": lambda: DDIMScheduler(clip_sample=False, prediction_type="sample", timestep_spacing="trailing"),
    "cogvideox": lambda: diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    ),
    "plms": lambda: diffusers.PNDMScheduler(skip_prk_steps=True),
    "euler, v": lambda: EulerDiscreteScheduler(prediction_type="v_prediction"),
    "heun, epsilon, karras": lambda: diffusers.HeunDiscreteScheduler(use_karras_sigmas=True),
    "edm, exponential": lambda: diffusers.EDMEulerScheduler(sigma_schedule="exponential"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_map_reproduces_a_run_of_every_option(variant: str) -> None:
    scheduler = set_up(VARIANTS[variant]())
    reproduces(facts(scheduler), scheduler)


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
        DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"),
        diffusers.LTXEulerAncestralRFScheduler(eta=0.3),
    ],
)
def test_an_option_that_draws_noise_is_found_out(scheduler: Any) -> None:
    found = facts(set_up(scheduler))
    assert (found.map, found.stochastic, found.euler) == (None, True, False)


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler(), DPMSolverMultistepScheduler(thresholding=True)], ids=["clip", "threshold"]
)
def test_clipping_is_not_taken_for_noise(scheduler: Any) -> None:
    found = facts(set_up(scheduler))
    assert (found.map, found.stochastic) == (None, False)
    assert "not linear" in str(found.reason)


# The pipeline's own scheduler ----------------------------------------------------------------------------------------


def kept(scheduler: Any) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in vars(scheduler).items()}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.all(a == b))


@pytest.mark.parametrize(
    "name", ["UniPCMultistepScheduler", "SASolverScheduler", "PNDMScheduler", "HeunDiscreteScheduler"]
)
@pytest.mark.parametrize("stepped", [0, 5])
def test_the_scheduler_and_the_random_state_are_left_as_they_are(name: str, stepped: int) -> None:
    scheduler, sample = set_up(made(name)), torch.ones(1, 1, 1, 1)
    for timestep in scheduler.timesteps[:stepped]:
        sample = scheduler.step(sample, timestep, sample, return_dict=False)[0]
    before, state = kept(scheduler), torch.get_rng_state()
    assert facts(scheduler).reason is None or name == "SASolverScheduler"
    assert torch.equal(torch.get_rng_state(), state)
    after = vars(scheduler)
    assert list(after) == list(before)
    assert all(same(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler", "PNDMScheduler"])
def test_facts_are_the_same_before_during_and_after_a_run(name: str) -> None:
    scheduler, sample, seen = set_up(made(name)), torch.ones(1, 1, 1, 1), []
    for timestep in scheduler.timesteps:
        seen.append(facts(scheduler).map)
        sample = scheduler.step(sample, timestep, sample, return_dict=False)[0]
    seen.append(facts(scheduler).map)
    assert all(found is seen[0] for found in seen), "the map is measured once for runs that are set up alike"


def test_another_shift_step_count_or_list_has_a_map_of_its_own() -> None:
    runs = [
        set_up(UniPCMultistepScheduler(**{**FLOW, "flow_shift": shift}), n)
        for shift, n in ((3.0, 8), (5.0, 8), (3.0, 9))
    ]
    signatures = [facts(scheduler).record().signature for scheduler in runs]
    assert len(set(signatures)) == 3
    assert facts(set_up(UniPCMultistepScheduler(**FLOW), 8)).record().signature == signatures[0]


def test_a_map_cannot_be_written_to() -> None:
    rows = facts(set_up(FlowMatchEulerDiscreteScheduler())).map
    assert rows is not None
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 2.0


@pytest.mark.parametrize("around", [torch.inference_mode, lambda: torch.device("meta")], ids=["inference", "device"])
def test_what_surrounds_the_run_does_not_touch_the_copy(around: Callable[[], Any]) -> None:
    scheduler = set_up(DPMSolverMultistepScheduler(**FLOW, solver_order=3), 11)
    with around():
        found = facts(scheduler)
        assert found.map is not None, found.reason
    reproduces(found, scheduler)


def test_threads_measure_the_same_map() -> None:
    scheduler, found = set_up(UniPCMultistepScheduler(**FLOW, solver_order=3), 13), []
    threads = [threading.Thread(target=lambda: found.append(facts(scheduler).map)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(rows, found[0]) for rows in found)


# Levels, shift, prediction -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "shift", "dynamic"),
    [
        (FlowMatchEulerDiscreteScheduler(shift=3.0), 3.0, False),
        (UniPCMultistepScheduler(**FLOW), 3.0, False),
        (UniPCMultistepScheduler(flow_shift=3.0), None, False),
        (DPMSolverMultistepScheduler(**{**FLOW, "flow_shift": 12.0}), 12.0, False),
        (FlowMatchHeunDiscreteScheduler(shift=5.0), 5.0, False),
        (FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), None, True),
        (DDIMScheduler(), None, False),
    ],
)
def test_shift_is_read_under_either_name(scheduler: Any, shift: float | None, dynamic: bool) -> None:
    if dynamic:
        scheduler.set_timesteps(6, mu=0.8)
    found = facts(scheduler if dynamic else set_up(scheduler))
    assert (found.shift, found.dynamic) == (shift, dynamic)


def test_a_shift_set_on_the_object_goes_before_its_configuration() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_shift(7.0)
    assert facts(set_up(scheduler)).shift == 7.0


def test_a_shift_that_follows_the_resolution_is_told_by_the_levels() -> None:
    near, far = (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True) for _ in range(2))
    near.set_timesteps(6, mu=0.5)
    far.set_timesteps(6, mu=1.15)
    assert facts(near).euler
    assert facts(near).levels != facts(far).levels
    assert facts(near).record().agrees(facts(far).record()) is False


@pytest.mark.parametrize(
    ("scheduler", "prediction"),
    [
        (FlowMatchEulerDiscreteScheduler(), "velocity"),
        (diffusers.LTXEulerAncestralRFScheduler(), "velocity"),
        (UniPCMultistepScheduler(**FLOW), "velocity"),
        (UniPCMultistepScheduler(), "epsilon"),
        (EulerDiscreteScheduler(prediction_type="v_prediction"), "v"),
        (DDIMScheduler(prediction_type="sample"), "x0"),
    ],
)
def test_what_the_model_predicts(scheduler: Any, prediction: str) -> None:
    assert facts(set_up(scheduler)).prediction == prediction


def test_levels_are_the_sigmas_or_follow_from_alpha() -> None:
    euler = set_up(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert facts(euler).levels == pytest.approx(euler.sigmas.double().tolist())
    ddim = set_up(DDIMScheduler())
    levels = facts(ddim).levels
    assert levels is not None
    alphas = ddim.alphas_cumprod[ddim.timesteps].double()
    assert levels[:-1] == pytest.approx((1 - alphas).sqrt().tolist())
    assert levels[-1] == 0.0


@pytest.mark.parametrize(
    "given",
    [
        {"sigmas": [1.0, 0.8, 0.55, 0.3]},
        {"timesteps": [1000.0, 900.0, 500.0, 100.0]},
        {"sigmas": [1.0, 0.8, 0.55, 0.3], "timesteps": [1000.0, 900.0, 500.0, 100.0]},
    ],
    ids=["sigmas", "timesteps", "both"],
)
def test_levels_of_the_callers_own_are_another_setting(given: dict[str, Any]) -> None:
    own, plain = FlowMatchEulerDiscreteScheduler(shift=3.0), set_up(FlowMatchEulerDiscreteScheduler(shift=3.0), 4)
    own.set_timesteps(**given)
    found = facts(own)
    reproduces(found, own)
    assert found.euler
    assert found.record().agrees(facts(plain).record()) is False


@pytest.mark.parametrize("spacing", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler])
def test_another_spacing_of_the_levels_is_another_setting(kind: Any, spacing: str) -> None:
    options = {"shift": 3.0} if kind is FlowMatchEulerDiscreteScheduler else {}
    plain, other = set_up(kind(**options)), set_up(kind(**options, **{spacing: True}))
    assert facts(other).record().agrees(facts(plain).record()) is False


# Where a run begins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [True, False], ids=["set_begin_index", "first timestep"])
@pytest.mark.parametrize(
    "name", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"]
)
def test_a_run_that_begins_in_the_middle_has_the_map_of_its_own_calls(name: str, declared: bool) -> None:
    scheduler = set_up(made(name))
    if declared:
        scheduler.set_begin_index(5)
    found = facts(scheduler) if declared else facts(scheduler, begin=5)
    assert (found.begin, found.calls) == (5, STEPS - 5)
    assert found.levels == pytest.approx(scheduler.sigmas[5:].double().tolist())
    assert found.timesteps == pytest.approx(scheduler.timesteps[5:].double().tolist())
    reproduces(found, scheduler, begin=5)


@pytest.mark.parametrize("name", ["DDIMScheduler", "CogVideoXDDIMScheduler"])
def test_a_scheduler_without_a_place_of_its_own_begins_in_the_middle_too(name: str) -> None:
    scheduler = set_up(made(name))
    reproduces(facts(scheduler, begin=4), scheduler, begin=4)


def test_half_a_run_is_another_setting_than_a_whole_one_of_as_many_calls() -> None:
    half, whole = set_up(made("UniPCMultistepScheduler"), 20), set_up(made("UniPCMultistepScheduler"), 10)
    found = facts(half, begin=10)
    assert found.calls == facts(whole).calls
    assert found.record().agrees(facts(whole).record()) is False


# Several calls a step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FlowMatchHeunDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
def test_two_calls_a_step_are_counted(name: str) -> None:
    record = facts(set_up(made(name), 7)).record()
    assert (record.calls, record.calls_per_step) == (13, 2)
    assert record.levels is not None
    assert len(record.levels) == 14


# Euler ---------------------------------------------------------------------------------------------------------------


def test_the_map_of_the_flow_matching_euler_scheduler_is_eulers() -> None:
    scheduler = set_up(FlowMatchEulerDiscreteScheduler(shift=3.0), 25)
    found = facts(scheduler)
    assert found.euler
    assert found.map == pytest.approx(euler_map(scheduler.sigmas.double().numpy()), abs=1e-6)


@pytest.mark.parametrize(
    ("scheduler", "euler"),
    [
        (FlowMatchEulerDiscreteScheduler(shift=3.0), True),
        (UniPCMultistepScheduler(**FLOW, solver_order=1, disable_corrector=list(range(100)), predict_x0=True), True),
        (UniPCMultistepScheduler(**FLOW), False),
        (EulerDiscreteScheduler(), False),
        (diffusers.LTXEulerAncestralRFScheduler(), False),
        (None, False),
    ],
)
def test_euler_is_what_steps_as_euler_does_whatever_its_class(scheduler: Any, euler: bool) -> None:
    assert is_euler(scheduler) is euler


def test_facts_for_a_number_of_steps_leave_the_scheduler_as_it_is() -> None:
    scheduler = set_up(UniPCMultistepScheduler(**FLOW), 9)
    before = kept(scheduler)
    planned = facts_for(scheduler, 20)
    assert planned is not None
    assert planned.map is facts(set_up(UniPCMultistepScheduler(**FLOW), 20)).map
    assert all(same(before[name], value) for name, value in vars(scheduler).items())


# Classes of users ----------------------------------------------------------------------------------------------------


class OwnNames:
    """A scheduler that is none of diffusers', with names of its own."""

    num_inference_steps = 0

    def __init__(self, pull: float) -> None:
        self.pull, self.last = pull, None

    def set_timesteps(self, num_steps: int) -> None:
        self.num_inference_steps, self.last = num_steps, None
        self.timesteps = torch.linspace(1000, 1000 / num_steps, num_steps)

    def step(self, velocity: torch.Tensor, at: Any, state: torch.Tensor, return_dict: bool = True) -> Any:
        mean = velocity if self.last is None else 1.5 * velocity - 0.5 * self.last
        self.last = velocity
        return (state - self.pull * mean,)


def test_a_class_of_the_users_own_is_measured_too() -> None:
    scheduler = OwnNames(0.1)
    scheduler.set_timesteps(6)
    found = facts(scheduler)
    assert (found.name, found.levels, found.shift, found.prediction) == ("OwnNames", None, None, "unknown")
    reproduces(found, scheduler)
    # It remembers an output now; what is measured is a run from its beginning.
    assert facts(scheduler).map is found.map


class Queued(OwnNames):
    """Remembers its outputs in a queue."""

    def set_timesteps(self, num_steps: int) -> None:
        super().set_timesteps(num_steps)
        self.queue: collections.deque[torch.Tensor] = collections.deque(maxlen=2)

    def step(self, velocity: torch.Tensor, at: Any, state: torch.Tensor, return_dict: bool = True) -> Any:
        self.queue.append(velocity)
        return (state - self.pull * sum(self.queue) / len(self.queue),)


def test_the_memory_of_a_users_own_class_is_not_touched() -> None:
    scheduler, one = Queued(0.2), torch.ones(1, 1, 1, 1)
    scheduler.set_timesteps(7)
    before = facts(scheduler)
    scheduler.step(one, scheduler.timesteps[0], one)
    assert np.array_equal(facts(scheduler).map, before.map)
    assert list(scheduler.queue) == [one]
    scheduler.set_timesteps(7)
    reproduces(before, scheduler)


def test_a_step_replaced_on_the_object_is_not_vouched_for() -> None:
    scheduler = set_up(FlowMatchEulerDiscreteScheduler())
    scheduler.step = lambda *given, **named: (given[2],)
    found = facts(scheduler)
    assert found.map is None
    assert found.stochastic is None
    assert "replaced" in str(found.reason)
    assert not is_euler(scheduler)


def test_a_step_that_fails_on_the_copy_says_so() -> None:
    class Failing(FlowMatchEulerDiscreteScheduler):
        def step(self, *given: Any, **named: Any) -> Any:
            raise ZeroDivisionError("no such step")

    found = facts(set_up(Failing()))
    assert found.map is None
    assert found.reason == "a copy of it cannot be run: ZeroDivisionError: no such step"


@pytest.mark.parametrize(
    "scheduler", [None, object(), FlowMatchEulerDiscreteScheduler], ids=["none", "object", "class"]
)
def test_there_are_no_facts_of_what_is_no_scheduler(scheduler: Any) -> None:
    assert facts_of(scheduler) is None
    assert facts_for(scheduler, 5) is None


# Shift of a pipeline -------------------------------------------------------------------------------------------------


class Pipe:
    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler


@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler])
def test_a_pipeline_gets_another_shift_for_a_while(kind: Any) -> None:
    pipe = Pipe(kind(**FLOW) if kind is UniPCMultistepScheduler else kind(shift=3.0))
    before = pipe.scheduler
    with shifted(pipe, 8.0):
        assert facts(set_up(pipe.scheduler)).shift == 8.0
    assert pipe.scheduler is before


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (DDIMScheduler(), "has no time shift"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "derives its shift from the sequence length"),
    ],
)
def test_a_shift_that_a_scheduler_cannot_have_is_refused(scheduler: Any, reason: str) -> None:
    with pytest.raises(AttachError, match=reason), shifted(Pipe(scheduler), 8.0):
        pass
