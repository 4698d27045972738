"""As much of ComfyUI's protocol as the wrappers lean on: a patcher that holds wrappers, a guider, samplers, a model of two branches.

Not ComfyUI's code, and not a test of it: ``test_real_comfyui.py`` runs the same things in a real one.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

LEVELS = (1.0, 0.9, 0.75, 0.6, 0.45, 0.3, 0.15, 0.0)
STEPS = len(LEVELS) - 1
SHAPE = (1, 4, 6, 6)
OUTER, PREDICT, MODEL = "outer_sample", "predict_noise", "diffusion_model"


class CONST:
    """Flow matching, by the name that ComfyUI gives it."""

    shift = 2.0

    def calculate_denoised(self, sigma: torch.Tensor, output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x - output * float(sigma.flatten()[0])


class Executor:
    """Hands on to the next wrapper, the last one to the thing itself."""

    def __init__(self, original: Callable[..., Any], owner: Any, wrappers: list[Callable[..., Any]]) -> None:
        self.original, self.class_obj, self.wrappers = original, owner, wrappers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.wrappers:
            return self.original(*args, **kwargs)
        return self.wrappers[0](Executor(self.original, self.class_obj, self.wrappers[1:]), *args, **kwargs)


class Transformer(torch.nn.Module):
    """Adds what was computed to a list; its output depends on level and conditioning."""

    patch_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, tuple[str, ...]]] = []
        self.returns: Callable[[torch.Tensor], Any] = lambda output: output

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        control: Any = None,
        transformer_options: Any = None,
    ) -> Any:
        self.calls.append((float(timestep[0]), tuple(_NAMES[kind] for kind in transformer_options["cond_or_uncond"])))
        extra = 0.0 if control is None else 1.0
        return self.returns(torch.sin(x) * context + timestep.view(-1, 1, 1, 1) ** 2 + extra)


_NAMES = {0: "cond", 1: "uncond"}


class Base:
    def __init__(self) -> None:
        self.diffusion_model, self.model_sampling = Transformer(), CONST()
        self.model_config = SimpleNamespace(unet_config={"image_model": "toy"})
        self.current_patcher: Any = None

    def get_dtype(self) -> torch.dtype:
        return torch.float32


class Patcher:
    """Holds wrappers by kind and key."""

    def __init__(self, model: Base | None = None) -> None:
        self.model = model or Base()
        self.wrappers: dict[str, dict[str, list[Any]]] = {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.patches: dict[str, Any] = {}
        self.current_hooks: Any = None

    def clone(self) -> Patcher:
        found = Patcher(self.model)
        found.wrappers = copy.deepcopy({kind: {key: [] for key in keys} for kind, keys in self.wrappers.items()})
        for kind, keys in self.wrappers.items():
            for key, several in keys.items():
                found.wrappers[kind][key] = list(several)
        found.patches = dict(self.patches)
        return found

    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Any) -> None:
        self.wrappers.setdefault(kind, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, kind: str, key: str) -> None:
        self.wrappers.get(kind, {}).pop(key, None)

    def of(self, kind: str) -> list[Any]:
        return [one for several in self.wrappers.get(kind, {}).values() for one in several]

    def get_model_object(self, name: str) -> Any:
        return getattr(self.model, name)


class CFGGuider:
    """Guidance over two branches, in one batch or in two."""

    def __init__(
        self, patcher: Patcher, *, cfg: float = 3.0, batched: bool = True, kinds: tuple[int, ...] = (1, 0)
    ) -> None:
        self.model_patcher, self.cfg, self._batched, self._kinds = patcher, cfg, batched, kinds
        self.model_options = {
            **patcher.model_options,
            "transformer_options": dict(patcher.model_options["transformer_options"]),
        }
        self.conds: dict[str, list[dict[str, Any]]] = {"positive": [{}], "negative": [{}]}
        self._ids = {kind: uuid.uuid4() for kind in kinds}
        self.inner_model: Any = None
        #: Changes a call of the model: (step, kinds) → keyword arguments.
        self.more: Callable[[int], dict[str, Any]] = lambda step: {}
        self.extra_calls = 0
        self._step = -1

    def sample(
        self, sampler: Any, *, sigmas: tuple[float, ...] = LEVELS, seed: int = 0, mask: Any = None, callback: Any = None
    ) -> torch.Tensor:
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
        self.inner_model, self.model_patcher.model.current_patcher, self._step = (
            self.model_patcher.model,
            self.model_patcher,
            -1,
        )

        def run(
            noise: torch.Tensor,
            latent: torch.Tensor,
            sampler: Any,
            sigmas: torch.Tensor,
            mask: Any,
            callback: Any,
            quiet: bool,
            seed: int,
        ) -> torch.Tensor:
            model = SimpleNamespace(inner_model=self)
            guided = _Guided(self, model)
            result: torch.Tensor = sampler.sampler_function(
                guided, noise, sigmas, extra_args={}, callback=callback, disable=True, **sampler.extra_options
            )
            return result

        executor = Executor(run, self, self.model_patcher.of(OUTER))
        found: torch.Tensor = executor(
            noise, torch.zeros(SHAPE), sampler, torch.tensor(sigmas), mask, callback, True, seed
        )
        return found

    def predict_noise(self, x: torch.Tensor, timestep: torch.Tensor, model_options: Any, seed: Any) -> torch.Tensor:
        self._step += 1
        parts = self._called(x, timestep, model_options)
        for _ in range(self.extra_calls):
            self._called(x, timestep, model_options)
        denoised = {kind: x - out * float(timestep[0]) for kind, out in parts.items()}
        if len(denoised) == 1:
            return denoised[0]
        return denoised[1] + self.cfg * (denoised[0] - denoised[1])

    def _called(self, x: torch.Tensor, timestep: torch.Tensor, model_options: Any) -> dict[int, torch.Tensor]:
        batches = [self._kinds] if self._batched else [(kind,) for kind in self._kinds]
        parts: dict[int, torch.Tensor] = {}
        transformer = self.model_patcher.model.diffusion_model
        for kinds in batches:
            options = {
                **model_options["transformer_options"],
                "cond_or_uncond": list(kinds),
                "uuids": [self._ids[kind] for kind in kinds],
                "sigmas": timestep,
            }
            context = torch.cat([torch.full((len(x), 1, 1, 1), 1.0 + kind) for kind in kinds])
            executor = Executor(transformer.forward, transformer, self.model_patcher.of(MODEL))
            out = executor(
                torch.cat([x] * len(kinds)),
                torch.cat([timestep] * len(kinds)),
                context,
                transformer_options=options,
                **self.more(self._step),
            )
            if isinstance(out, tuple):
                out = out[0]
            parts |= dict(zip(kinds, out.chunk(len(kinds)), strict=True))
        return parts


class _Guided:
    def __init__(self, guider: CFGGuider, inner: Any) -> None:
        self.guider, self.inner_model = guider, inner

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
        guider = self.guider
        executor = Executor(guider.predict_noise, guider, guider.model_patcher.of(PREDICT))
        found: torch.Tensor = executor(x, sigma, guider.model_options, None)
        return found


# Samplers ---------------------------------------------------------------------------------------------------------------


def sample_euler(
    model: Any,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    extra_args: Any = None,
    callback: Any = None,
    disable: Any = None,
    noise: float = 0.0,
) -> torch.Tensor:
    for step in range(len(sigmas) - 1):
        denoised = model(x, sigmas[step] * x.new_ones([x.shape[0]]))
        x = x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
        if noise:
            x = x + noise * torch.randn_like(x)
        if callback is not None:
            callback(step)
    return x


def sample_multistep(
    model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
) -> torch.Tensor:
    """Of second order, by the output before."""
    before = None
    for step in range(len(sigmas) - 1):
        denoised = model(x, sigmas[step] * x.new_ones([x.shape[0]]))
        slope = (x - denoised) / sigmas[step]
        used = slope if before is None else 1.5 * slope - 0.5 * before
        x, before = x + used * (sigmas[step + 1] - sigmas[step]), slope
    return x


def sample_twice(
    model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
) -> torch.Tensor:
    """Heun's: twice a step but for the last."""
    for step in range(len(sigmas) - 1):
        here, there, ones = sigmas[step], sigmas[step + 1], x.new_ones([x.shape[0]])
        slope = (x - model(x, here * ones)) / here
        ahead = x + slope * (there - here)
        if there == 0:
            return ahead
        x = x + 0.5 * (slope + (ahead - model(ahead, there * ones)) / there) * (there - here)
    return x


def sample_adaptive(
    model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
) -> torch.Tensor:
    """Its steps are as large as its model lets them be."""
    level = sigmas[0]
    while level > 0:
        slope = (x - model(x, level * x.new_ones([x.shape[0]]))) / level
        step = min(float(level), 0.1 + 0.1 * float(torch.tanh(slope.abs().mean())))
        x, level = x - slope * step, level - step
        level = level if level > 1e-6 else torch.zeros_like(level)
    return x


def sample_unfit(model: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    raise RuntimeError("it wants what only its own node has")


def sampler(function: Callable[..., torch.Tensor] = sample_euler, **options: Any) -> Any:
    return SimpleNamespace(sampler_function=function, extra_options=options)
