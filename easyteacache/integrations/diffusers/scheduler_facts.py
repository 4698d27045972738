"""What a scheduler does in one run: levels, shift, prediction, first step, and its map, measured on a copy.

The one source of these facts for the runtime, the recorder, the benchmarks. A map is measured by running a copy of the
scheduler on unit vectors (``records.sampler`` says what a map is), so that no class needs a rule of its own. The pipeline's
own scheduler is only read, and no random number is drawn where others could miss it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import inspect
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from easyteacache.errors import AttachError
from easyteacache.integrations.sampler_probe import LINEAR, Probe, apart, measured
from easyteacache.records.sampler import DRAWS_NOISE, MOST_CALLS, SHIFT_NAMES, Prediction, SamplerRecord, euler_map
from easyteacache.records.trace import Array
from easyteacache.runtime.sampler_steps import SamplerSteps

#: Steps of the run that shows which of a copy's attributes are memory of the outputs it was handed.
TRIAL_STEPS = 6
PROBES_KEPT = 32


@dataclass(frozen=True)
class SchedulerFacts:
    """One run of one scheduler.

    Attributes:
        name: the scheduler's class.
        timesteps: (N,) what its loop hands on at every call.
        levels: (N + 1,) noise level at every call and after the last: sigmas, or √(1 − ᾱ); None where it keeps neither.
        shift: constant flow-matching time shift, under whichever name; None where it has none or follows the resolution.
        dynamic: its shift follows the resolution.
        prediction: what the model's output is to it.
        begin: position of the run's first call in the scheduler's own list: above 0 where a run begins in the middle.
        calls_per_step: most model calls of one of its steps; 2 for Heun's.
    """

    name: str
    timesteps: tuple[float, ...]
    levels: tuple[float, ...] | None
    shift: float | None
    dynamic: bool
    prediction: Prediction
    begin: int
    calls_per_step: int
    _setup: _Setup

    @property
    def calls(self) -> int:
        """Model calls N of the run."""
        return len(self.timesteps)

    @property
    def probe(self) -> Probe:
        """What a copy of the scheduler showed; measured when first asked for, and once for all runs alike."""
        return _probed(self._setup)

    @property
    def map(self) -> Array | None:
        """(N + 1, N + 1), read-only: row k gives the sample before call k from the noise and the outputs; None without one."""
        return self.probe.map

    @property
    def steps(self) -> SamplerSteps | None:
        """What its steps do to the states that follow; None where there is no map, or no short memory explains it."""
        return None if self.map is None else _steps_of(self._setup)

    @property
    def stochastic(self) -> bool | None:
        """Does it draw noise? None where that could not be tried."""
        return self.probe.stochastic

    @property
    def reason(self) -> str | None:
        """Why there is no map; None where there is one."""
        return self.probe.reason

    @property
    def euler(self) -> bool:
        """Does every step add (σ_{i+1} − σ_i) · output to the sample over flow-matching levels, and nothing else?"""
        if self.levels is None or max(self.levels) > 1.0 + 1e-6 or self.map is None:
            return False
        return bool(np.max(np.abs(self.map - euler_map(self.levels))) <= LINEAR)

    def record(self) -> SamplerRecord:
        """The same as a record keeps it: without a signature where there is no map, and named stochastic where it draws noise."""
        kept = self.calls <= MOST_CALLS
        return SamplerRecord(
            # Two of one class, one drawing noise, do not step alike, and only the other has a signature.
            name=f"{self.name}{DRAWS_NOISE}" if self.stochastic else self.name,
            calls=self.calls,
            calls_per_step=self.calls_per_step,
            prediction=self.prediction,
            levels=self.levels if kept else None,
            signature=self.probe.signature,
        )


def facts_of(scheduler: Any, *, begin: int | None = None) -> SchedulerFacts | None:
    """Facts of the run that ``scheduler`` was last set up for, before it, during it, or after it.

    Args:
        scheduler: a diffusers scheduler, or anything that has ``timesteps`` and steps as they do.
        begin: position of the run's first call in its list, where the caller knows it; by default what the pipeline set with
            ``set_begin_index``, or 0.

    Returns:
        None where there is no scheduler, or none that was set up.
    """
    if getattr(scheduler, "timesteps", None) is None or not len(scheduler.timesteps) or not _steps(scheduler):
        return None
    first = begin if begin is not None else getattr(scheduler, "begin_index", None) or 0
    times = numbers(scheduler.timesteps)[first:]
    levels = _levels(scheduler, len(times) + first)
    order = getattr(scheduler, "order", 1)
    return SchedulerFacts(
        name=type(scheduler).__name__,
        timesteps=tuple(times),
        levels=None if levels is None else levels[first:],
        shift=shift_of(scheduler),
        dynamic=is_dynamic(scheduler),
        prediction=prediction_of(scheduler),
        begin=first,
        calls_per_step=order if isinstance(order, int) and 1 <= order <= 16 else 1,
        _setup=_Setup.of(scheduler, first),
    )


def facts_for(scheduler: Any, num_steps: int) -> SchedulerFacts | None:
    """Facts of a run of ``num_steps`` steps, from a copy set up for it; the scheduler itself is left as it is.

    A shift that follows the resolution is set to what diffusers takes for the exponent 1: such facts tell the kind of sampler,
    not its levels.

    Returns:
        None where there is no scheduler, or a copy of it cannot be set up.
    """
    if not _steps(scheduler):
        return None
    try:
        return facts_of(_set_up(scheduler, num_steps))
    except Exception:  # whatever a class that is none of diffusers' raises when it is made with its own configuration
        return None


def is_euler(scheduler: Any) -> bool:
    """Does every step of ``scheduler`` add Δσ · output to the sample, with no noise and no memory of earlier outputs?"""
    facts = facts_for(scheduler, TRIAL_STEPS)
    return facts is not None and facts.euler


def is_mapped(scheduler: Any) -> bool:
    """Are the steps of ``scheduler`` known, linear ones without noise, so that corrections can be handed to it?"""
    facts = facts_for(scheduler, TRIAL_STEPS)
    return facts is not None and facts.steps is not None


def forget_probes() -> None:
    """Drop every map that was measured, and what was learnt of classes; the next run measures them again."""
    _probed.cache_clear()
    _steps_of.cache_clear()
    _MEMORIES.clear()


def is_dynamic(scheduler: Any) -> bool:
    """Does its time shift follow the resolution?"""
    return bool(_config(scheduler).get("use_dynamic_shifting"))


def shift_of(scheduler: Any) -> float | None:
    """The scheduler's constant flow-matching time shift, under whichever name; None where it has none."""
    config = _config(scheduler)
    if is_dynamic(scheduler) or ("flow_shift" in config and not config.get("use_flow_sigmas")):
        return None
    # ``set_shift`` changes the attribute and leaves the configuration.
    named = (getattr(scheduler, "_shift", None), *(config.get(name) for name in SHIFT_NAMES))
    found = next((value for value in named if isinstance(value, int | float) and not isinstance(value, bool)), None)
    return float(found) if found is not None and found > 0 else None


def prediction_of(scheduler: Any) -> Prediction:
    """What the model's output is, as far as class and configuration tell."""
    config, name = _config(scheduler), type(scheduler).__name__
    if config.get("use_flow_sigmas") or name.startswith(("FlowMatch", "FlowMap")) or name.endswith("RFScheduler"):
        return "velocity"
    kinds: dict[str, Prediction] = {
        "flow_prediction": "velocity",
        "epsilon": "epsilon",
        "sample": "x0",
        "v_prediction": "v",
    }
    return kinds.get(str(config.get("prediction_type")), "unknown")


@contextlib.contextmanager
def shifted(pipe: Any, shift: float | None) -> Iterator[None]:
    """Give the pipeline a scheduler with another time shift inside the block; None leaves it alone.

    Raises:
        AttachError: the scheduler has no shift, or derives it from the sequence length.
    """
    original = pipe.scheduler
    if shift is not None:
        names = [name for name in SHIFT_NAMES if name in original.config]
        if not names or is_dynamic(original):
            why = "derives its shift from the sequence length" if names else "has no time shift"
            raise AttachError(
                f"{type(original).__name__} {why}; leave the shift out, or give the pipeline another scheduler"
            )
        pipe.scheduler = type(original).from_config(original.config, **{names[0]: shift})
    try:
        yield
    finally:
        pipe.scheduler = original


def numbers(values: Any) -> list[float]:
    """A scheduler's list as plain numbers, from whatever device; it may be a tensor, an array, or a list."""
    return [float(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]


def _config(scheduler: Any) -> Mapping[str, Any]:
    config = getattr(scheduler, "config", None)
    return config if isinstance(config, Mapping) else {}


def _steps(scheduler: Any) -> bool:
    return callable(getattr(type(scheduler), "step", None))


def _levels(scheduler: Any, count: int) -> tuple[float, ...] | None:
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) == count + 1:
        levels = numbers(sigmas)
    elif (cumulative := getattr(scheduler, "alphas_cumprod", None)) is not None:
        kept = numbers(cumulative)
        where = [int(time) for time in numbers(scheduler.timesteps)]
        if not all(0 <= place < len(kept) for place in where):
            return None
        levels = [math.sqrt(max(0.0, 1.0 - kept[place])) for place in where] + [0.0]
    else:
        return None
    return tuple(levels) if all(math.isfinite(level) and level >= 0 for level in levels) else None


# The copy ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Setup:
    """How a scheduler was set up for a run, without what it remembers of outputs; equal where copies would step alike."""

    kind: type
    begin: int
    #: Attributes as they were before the first step; tensors on the CPU.
    attributes: Mapping[str, Any]
    digest: str
    #: Why no copy can be run, as the end of a sentence; None where one can.
    obstacle: str | None

    @classmethod
    def of(cls, scheduler: Any, begin: int) -> _Setup:
        kind, held = type(scheduler), getattr(scheduler, "__dict__", {})
        # Another object's methods: a copy that calls them would step that object.
        replaced = [name for name, value in held.items() if callable(value) and hasattr(kind, name)]
        if replaced:
            return cls(kind, begin, {}, "", f"its {replaced[0]} was replaced on the object, and may do anything")
        memory = _remembered(scheduler)
        if memory is None and getattr(scheduler, "step_index", None) is not None:
            return cls(kind, begin, {}, "", "it has stepped already, and no copy of it can be set up anew")
        try:
            kept = {name: value for name, value in {**held, **(memory or {})}.items() if value is not _ABSENT}
            attributes = {name: _plain(value) for name, value in kept.items()}
            return cls(kind, begin, attributes, _digest(attributes), None)
        except Exception as error:  # attributes of a class that is none of diffusers' may be anything
            return cls(kind, begin, {}, "", f"it cannot be copied: {type(error).__name__}: {error}")

    def _key(self) -> tuple[Any, ...]:
        return self.kind, self.begin, self.digest, self.obstacle

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Setup) and self._key() == other._key()


_ABSENT: Any = object()
_MEMORIES: dict[tuple[type, str], Mapping[str, Any] | None] = {}


def _remembered(scheduler: Any) -> Mapping[str, Any] | None:
    """The attributes in which a scheduler keeps earlier outputs and its place, with their values before the first step.

    Found by stepping a copy: whatever changes is memory. None where a copy cannot be set up or stepped.
    """
    key = type(scheduler), repr(sorted((str(name), repr(value)) for name, value in _config(scheduler).items()))
    found: Mapping[str, Any] | None = _MEMORIES.get(key, _ABSENT)
    if found is _ABSENT:
        try:
            found = _tried(scheduler)
        except Exception:  # whatever a class raises that is none of diffusers', or takes other arguments
            found = None
        if len(_MEMORIES) >= PROBES_KEPT:
            _MEMORIES.clear()
        _MEMORIES[key] = found
    return found


def _tried(scheduler: Any) -> Mapping[str, Any]:
    made = _set_up(scheduler, TRIAL_STEPS)
    before, changed = {name: _plain(value) for name, value in vars(made).items()}, dict[str, Any]()
    with apart():
        one = torch.ones(1, 1, 1, 1)
        # Watched at every step: some forget on one what they noted on another.
        for _ in _run(made, made.timesteps, one, [one * step for step in range(len(made.timesteps))], seed=0):
            for name, value in vars(made).items():
                if name not in before:
                    changed[name] = _ABSENT
                elif not _alike(before[name], value):
                    changed[name] = before[name]
    return changed


def _set_up(scheduler: Any, num_steps: int) -> Any:
    """A copy of a scheduler set up for ``num_steps`` steps."""
    made = _made(type(scheduler), vars(scheduler))
    with apart():
        if is_dynamic(scheduler) and "mu" in inspect.signature(made.set_timesteps).parameters:
            made.set_timesteps(num_steps, mu=1.0)
        else:
            made.set_timesteps(num_steps)
    return made


def _made(kind: type, attributes: Mapping[str, Any]) -> Any:
    # Not through its constructor: that may want what the object does not keep, or warn of what its configuration holds.
    made: Any = object.__new__(kind)
    vars(made).update({name: _plain(value) for name, value in attributes.items()})
    return made


def _plain(value: Any) -> Any:
    """A copy that shares nothing changeable, with tensors on the CPU; configurations and models are the same ones."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, torch.Generator):
        return torch.Generator(value.device).set_state(value.get_state())
    if type(value) in (list, tuple):
        return type(value)(_plain(one) for one in value)
    if type(value) is dict:
        return {name: _plain(one) for name, one in value.items()}
    if type(value) is deque:
        return deque((_plain(one) for one in value), value.maxlen)
    if isinstance(value, torch.nn.Module | Mapping):
        return value
    return copy.deepcopy(value)


def _alike(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return bool(a.dtype == b.dtype) and _alike(a.double().numpy(), b.double().numpy())
    if isinstance(a, np.ndarray):
        # By their bytes: what is no number equals itself here.
        return bool(a.shape == b.shape and a.tobytes() == b.tobytes())
    if type(a) in (list, tuple, deque):
        return len(a) == len(b) and all(map(_alike, a, b))
    return a is b or (a == b) is True


def _digest(attributes: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name in sorted(attributes):
        found.update(f"\n{name}:".encode())
        _add(found, attributes[name])
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.double().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        found.update(f"{value.shape}".encode() + value.tobytes())
    elif type(value) in (list, tuple, deque):
        found.update(f"{len(value)}[".encode())
        for one in value:
            _add(found, one)
    elif isinstance(value, Mapping):
        found.update(repr(sorted((str(name), repr(one)) for name, one in value.items())).encode())
    else:
        found.update(repr(value).encode() + b";")


# Its run -------------------------------------------------------------------------------------------------------------


class _OtherArguments(Exception):
    """A scheduler's ``step`` cannot be called with what a sampler loop has."""


@functools.lru_cache(maxsize=PROBES_KEPT)
def _probed(setup: _Setup) -> Probe:
    if setup.obstacle is not None:
        return Probe(None, None, setup.obstacle)
    if "timesteps" not in setup.attributes:
        return Probe(None, None, "it keeps its timesteps where a copy does not find them")
    calls = len(setup.attributes["timesteps"]) - setup.begin
    if calls > MOST_CALLS:
        return Probe(None, None, f"it calls the model {calls} times, and maps of up to {MOST_CALLS} calls are measured")
    try:
        return measured(lambda given, seed: _states(setup, given, seed=seed), calls, acts="a copy of it gives")
    except _OtherArguments as error:
        return Probe(None, None, str(error))
    except Exception as error:  # a class may raise whatever it likes on outputs that no model gives
        return Probe(None, None, f"a copy of it cannot be run: {type(error).__name__}: {error}")


@functools.lru_cache(maxsize=PROBES_KEPT)
def _steps_of(setup: _Setup) -> SamplerSteps | None:
    found = _probed(setup).map
    return None if found is None else SamplerSteps.of(found)


def _states(setup: _Setup, given: Array, seed: int) -> Array:
    """(N + 1, C): the states of C runs at once, given their noise and outputs (N + 1, C)."""
    with apart():
        made = _made(setup.kind, setup.attributes)
        values = torch.from_numpy(given)[:, None, :, None, None]
        states = list(_run(made, made.timesteps[setup.begin :], values[0], list(values[1:]), seed=seed))
    return np.stack([state.reshape(-1).double().numpy() for state in states])


def _run(
    scheduler: Any, timesteps: Any, noise: torch.Tensor, outputs: Sequence[torch.Tensor], *, seed: int
) -> Iterator[torch.Tensor]:
    """Step through ``timesteps``; gives every state (1, C, 1, 1), the noise first."""
    parameters = _named_parameters(type(scheduler))
    fixed: dict[str, Any] = {"return_dict": False} if "return_dict" in parameters else {}
    if "generator" in parameters:
        fixed["generator"] = _generator(seed)
    given = {"model_output", "timestep", "sample", "old_pred_original_sample", "timestep_back"}
    required = {name for name, each in parameters.items() if each.default is each.empty}
    if given & required and required - given:
        lacking = ", ".join(sorted(required - given))
        raise _OtherArguments(f"its step wants {lacking}, which only its own pipeline has")
    state, before, older = noise, None, None
    yield state
    for timestep, output in zip(timesteps, outputs, strict=True):
        arguments: dict[str, Any] = {"model_output": output, "timestep": timestep, "sample": state}
        if "old_pred_original_sample" in parameters:
            arguments |= {"old_pred_original_sample": older, "timestep_back": before}
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(state, timestep)
        # Some call the first three by other names.
        found = (
            scheduler.step(**arguments, **fixed)
            if set(arguments) <= set(parameters)
            else scheduler.step(*arguments.values(), **fixed)
        )
        state = found[0] if isinstance(found, tuple) else found.prev_sample
        older = found[1] if isinstance(found, tuple) and len(found) > 1 else None
        if state.shape != noise.shape:
            raise _OtherArguments("its step changes the sample's shape")
        before = timestep
        yield state


def _named_parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The arguments of ``step`` by name, without ``self``; a subclass that hands all on has those of its base."""
    for each in kind.__mro__:
        if "step" in vars(each):
            found = list(inspect.signature(vars(each)["step"]).parameters.values())[1:]
            named = {one.name: one for one in found if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
            if named:
                return named
    return {}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)
