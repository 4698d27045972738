"""What a ComfyUI sampler does in one run: where it calls the model, and its map, measured on its own function with a model of known outputs.

ComfyUI's samplers are functions that call a model with a sample and a noise level and are given the denoised sample. They are run here
on vectors of a few numbers with ComfyUI's own parametrisation in between, so that a map is over the model's outputs, as
``records.sampler`` wants it. Nothing of the run that follows is touched: the random state stays as it was.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from easyteacache.integrations.sampler_probe import LINEAR, Probe, apart, measured
from easyteacache.records.sampler import DRAWS_NOISE, MOST_CALLS, Prediction, SamplerRecord, euler_map
from easyteacache.records.trace import Array
from easyteacache.runtime.sampler_steps import SamplerSteps

#: Runs whose facts are kept: each is measured once.
KEPT = 32
#: Calls a step that a sampler may make before it is given up on.
MOST_CALLS_PER_STEP = 16
# ComfyUI's parametrisations by class, and what the model's output is in each.
_PREDICTIONS: Mapping[str, Prediction] = {
    "CONST": "velocity",
    "X0": "x0",
    "V_PREDICTION": "v",
    "EDM": "unknown",
    "IMG_TO_IMG": "x0",
    "COSMOS_RFLOW": "unknown",
    "EPS": "epsilon",
}


@dataclass(frozen=True)
class SamplerFacts:
    """One run of one sampler.

    Attributes:
        name: of the sampler's function, ``comfyui/euler``.
        levels: (N + 1,) noise level at every call of the model and after the last; None where that is not known before.
        prediction: what the model's output is.
        shift: constant flow-matching time shift; None where the model has none.
        probe: what running it showed.
    """

    name: str
    levels: tuple[float, ...] | None
    prediction: Prediction
    shift: float | None
    probe: Probe

    @property
    def calls(self) -> int | None:
        """Model calls N of the run; None where they are not known before."""
        return None if self.levels is None else len(self.levels) - 1

    @property
    def euler(self) -> bool:
        """Does every step add (σ_{i+1} − σ_i) · output to the sample over flow-matching levels, and nothing else?"""
        if self.levels is None or self.probe.map is None or self.prediction != "velocity":
            return False
        return bool(np.max(np.abs(self.probe.map - euler_map(self.levels))) <= LINEAR)

    @functools.cached_property
    def steps(self) -> SamplerSteps | None:
        """What its steps do to the states that follow; None where there is no map, or no short memory explains it."""
        return None if self.probe.map is None else SamplerSteps.of(self.probe.map)

    def record(self) -> SamplerRecord | None:
        """The same as a record keeps it; None where the calls are not known before."""
        if self.levels is None or self.calls is None:
            return None
        return SamplerRecord(
            name=f"{self.name}{DRAWS_NOISE}" if self.probe.stochastic else self.name,
            calls=self.calls,
            prediction=self.prediction,
            levels=self.levels,
            signature=self.probe.signature,
        )


def facts_of(sampler: Any, sigmas: torch.Tensor, patcher: Any) -> SamplerFacts:
    """Facts of the run that is about to begin.

    Args:
        sampler: ComfyUI's sampler object; one that has no ``sampler_function`` cannot be measured.
        sigmas: (S + 1,) noise levels that it is given.
        patcher: ComfyUI's model patcher; gives the model's parametrisation.
    """
    parametrisation = patcher.get_model_object("model_sampling")
    function, options = getattr(sampler, "sampler_function", None), dict(getattr(sampler, "extra_options", None) or {})
    given = tuple(float(sigma) for sigma in sigmas.detach().double().cpu().tolist())
    prediction, shift = prediction_of(parametrisation), shift_of(parametrisation)
    name = f"comfyui/{_named(sampler, function)}"
    key = function, name, repr(sorted(options.items(), key=str)), given, type(parametrisation).__mro__, shift
    found = _kept.get(key)
    if found is None:
        levels, probe = (
            (None, Probe(None, None, "it is no function that could be tried"))
            if function is None
            else _tried(function, options, given, parametrisation, patcher)
        )
        found = _kept[key] = SamplerFacts(name, levels, prediction, shift, probe)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


_kept: OrderedDict[tuple[Any, ...], SamplerFacts] = OrderedDict()


def prediction_of(parametrisation: Any) -> Prediction:
    """What the model's output is, by ComfyUI's class of parametrisation."""
    for kind in type(parametrisation).__mro__:
        if kind.__name__ in _PREDICTIONS:
            return _PREDICTIONS[kind.__name__]
    return "unknown"


def shift_of(parametrisation: Any) -> float | None:
    """The flow-matching time shift; of FLUX, whose nodes keep its logarithm, too."""
    found = getattr(parametrisation, "shift", None)
    if prediction_of(parametrisation) != "velocity" or isinstance(found, bool) or not isinstance(found, int | float):
        return None
    logarithm = any(kind.__name__ == "ModelSamplingFlux" for kind in type(parametrisation).__mro__)
    shift = math.exp(found) if logarithm else float(found)
    return shift if shift > 0 else None


def _named(sampler: Any, function: Any) -> str:
    name = getattr(function, "__name__", None) or type(sampler).__name__
    return str(name).removeprefix("sample_").removesuffix("_function").lower()[:60] or "unnamed"


def _tried(
    function: Any, options: Mapping[str, Any], sigmas: tuple[float, ...], parametrisation: Any, patcher: Any
) -> tuple[tuple[float, ...] | None, Probe]:
    """Levels and map; a reason where the sampler cannot be followed."""
    most = min(MOST_CALLS, MOST_CALLS_PER_STEP * len(sigmas))
    failures = []
    # Some samplers multiply matrices of the sample's precision with their own single one.
    for precision in (torch.float64, torch.float32):
        trial = _Trial(function, options, sigmas, parametrisation, patcher, precision)
        try:
            with apart():
                levels = trial.levels(most)
                found = measured(trial.states, len(levels) - 1)
                if trial.levels(most, seed=2) != levels:
                    raise _OtherCalls
            return levels, found
        except _OtherCalls:
            return None, Probe(None, None, "that depends on what the model gives")
        except _TooManyCalls:
            return None, Probe(None, None, f"it calls the model more than {most} times")
        except Exception as error:  # a sampler may raise whatever it likes on outputs that no model gives
            failures.append(error)
    [first, *_] = failures
    return None, Probe(None, None, f"it cannot be tried: {type(first).__name__}: {first}")


class _TooManyCalls(Exception):
    """A sampler goes on and on."""


class _OtherCalls(Exception):
    """A sampler calls the model at other levels when the model gives something else."""


@dataclass(frozen=True)
class _Trial:
    """A sampler that can be run on known outputs."""

    function: Any
    options: Mapping[str, Any]
    sigmas: tuple[float, ...]
    parametrisation: Any
    patcher: Any
    precision: torch.dtype

    def levels(self, most: int, *, seed: int = 1) -> tuple[float, ...]:
        """(N + 1,) the noise level at each call on outputs drawn at random, and the last of all."""
        outputs = np.random.default_rng(seed).normal(size=(most + 1, 1))
        model = self._ran(outputs, seed)[0]
        return (*model.levels, self.sigmas[-1])

    def states(self, given: Array, seed: int) -> Array:
        """As ``sampler_probe.measured`` wants them."""
        try:
            model, result = self._ran(given, seed)
        except _TooManyCalls:
            raise _OtherCalls from None
        if len(model.states) != len(given) - 1:
            raise _OtherCalls
        return np.stack([state.reshape(-1).double().numpy() for state in (*model.states, result)])

    def _ran(self, given: Array, seed: int) -> tuple[_KnownModel, torch.Tensor]:
        values = torch.from_numpy(given).to(self.precision)[:, None, :, None, None]
        model = _KnownModel(list(values[1:]), self.parametrisation, self.patcher)
        torch.manual_seed(seed)
        sigmas = torch.tensor(self.sigmas, dtype=self.precision)
        extra = {"model_options": {}, "seed": seed, "denoise_mask": None}
        with _without_progress():
            result = self.function(
                model, values[0].clone(), sigmas, extra_args=extra, callback=None, disable=True, **_copied(self.options)
            )
        if not isinstance(result, torch.Tensor) or result.shape != values[0].shape:
            raise ValueError("it changes the sample's shape")
        return model, result


class _KnownModel:
    """Stands for ComfyUI's guided model: gives known outputs, one a call, and remembers what it was called with."""

    def __init__(self, outputs: list[torch.Tensor], parametrisation: Any, patcher: Any) -> None:
        self._outputs, self._parametrisation = outputs, parametrisation
        self.states: list[torch.Tensor] = []
        self.levels: list[float] = []
        base = SimpleNamespace(model_sampling=parametrisation, current_patcher=patcher)
        self.inner_model = SimpleNamespace(
            inner_model=base, model_patcher=patcher, model_sampling=parametrisation, model_options={}, conds={}, cfg=1.0
        )
        self.noise: torch.Tensor | None = None
        self.latent_image: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
        if len(self.states) >= len(self._outputs):
            raise _TooManyCalls
        output = self._outputs[len(self.states)]
        self.states.append(x.clone())
        self.levels.append(float(sigma.flatten()[0]))
        found: torch.Tensor = self._parametrisation.calculate_denoised(sigma, output, x)
        return found


def _copied(options: Mapping[str, Any]) -> dict[str, Any]:
    # What a noise generator would give in the run must not be used up here.
    return {name: copy.deepcopy(value) for name, value in options.items()}


@contextlib.contextmanager
def _without_progress() -> Iterator[None]:
    """Samplers warn of what they do not like in tiny samples; nobody needs to hear it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
