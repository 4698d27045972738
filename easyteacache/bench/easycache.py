"""EasyCache (arXiv 2507.02860; H-EmbodVis/EasyCache 3149a41, EasyCache4Wan2.2/easycache_generate.py) by its published rule.

With x the latent and v the model's output, both of the conditional branch, b the last computed step and c the computed step before it:

    k = mean|v_b − v_c| / mean|x_b − x_c|,  E ← E + k · mean|x_j − x_{j−1}| / mean|v_b|.

A step is reused while E stays below the threshold: v̂_j = x_j + (v_b − x_b), in both branches. The first steps and the last one are
computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from easyteacache.bench.contender import Bed, Calibrated, Contender, Knob, Settings
from easyteacache.errors import BenchError


@dataclass
class EasyCacheRule:
    """The rule over one run.

    Args:
        steps: of the run.
        threshold: E at which a step is computed.
        warm_up: steps computed at the beginning, at least 1.
        branches: forwards a step, the conditional one first.
    """

    steps: int
    threshold: float
    warm_up: int
    branches: int
    calls: int = 0
    error: float = 0.0
    rate: float | None = None
    computes: bool = True
    before: Tensor | None = None
    computed_input: Tensor | None = None
    output: Tensor | None = None
    kept: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, latent: Tensor, model: Callable[[], Tensor]) -> Tensor:
        """The output for ``latent``: the model's own, or the cached difference added to the latent."""
        step, branch = divmod(self.calls, self.branches)
        self.calls = (self.calls + 1) % (self.steps * self.branches)
        if branch == 0:
            self._decide(step, latent)
        if not self.computes and branch in self.kept:
            return latent + self.kept[branch]
        output = model()
        if branch == 0:
            self._measure(latent, output)
        self.kept[branch] = output - latent
        return output

    def _decide(self, step: int, latent: Tensor) -> None:
        if step == 0:
            self.rate = self.before = self.computed_input = self.output = None
            self.kept.clear()
        self.computes = True
        if not self.warm_up <= step < self.steps - 1:
            self.error = 0.0
        elif self.before is not None and self.output is not None and self.rate is not None:
            self.error += self.rate * _mean(latent - self.before) / _mean(self.output)
            self.computes = self.error >= self.threshold
            self.error = 0.0 if self.computes else self.error
        self.before = latent.clone()

    def _measure(self, latent: Tensor, output: Tensor) -> None:
        if self.output is not None and self.computed_input is not None:
            self.rate = _mean(output - self.output) / max(_mean(latent - self.computed_input), 1e-12)
        self.computed_input, self.output = latent.clone(), output.clone()


class EasyCache(Contender):
    """EasyCache."""

    name = "EasyCache"
    family = "published rule"
    kind = "hold"
    knob = Knob("threshold", 1e-4, 50.0)
    packages = ()

    def inapplicable(self, bed: Bed) -> str | None:
        """One transformer alone."""
        return "the pipeline has two transformers" if len(bed.subject.transformers) > 1 else None

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Its default of ten steps first, then shorter and longer warm-ups."""
        return tuple({"warm_up": count} for count in (10, 5, 2, 15) if count < bed.case.steps // 2)

    @contextlib.contextmanager
    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Iterator[None]:
        """Around the transformer's ``forward`` inside the block."""
        branches = 2 if bed.separate_branches else 1
        rule = EasyCacheRule(bed.case.steps, settings["threshold"], settings["warm_up"], branches)
        transformer: Any = bed.transformer
        original, before = transformer.forward, "forward" in vars(transformer)

        def forward(*args: Any, **kwargs: Any) -> Any:
            latent = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            found: list[Any] = []

            def model() -> Tensor:
                found.append(original(*args, **kwargs))
                output: Tensor = _sample(found[0])
                if output.shape != latent.shape:
                    raise BenchError(
                        f"expected an output of the latent's shape {tuple(latent.shape)}, found {tuple(output.shape)}"
                    )
                return output

            output = rule(latent, model)
            return found[0] if found else _like(output, kwargs)

        vars(transformer)["forward"] = forward
        try:
            yield
        finally:
            if before:
                vars(transformer)["forward"] = original
            else:
                del vars(transformer)["forward"]


def _sample(returned: Any) -> Tensor:
    sample: Tensor = returned[0] if isinstance(returned, tuple) else returned.sample
    return sample


def _like(output: Tensor, kwargs: dict[str, Any]) -> Any:
    """What a transformer of diffusers returns."""
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=output) if kwargs.get("return_dict", True) else (output,)


def _mean(values: Tensor) -> float:
    return float(values.abs().mean(dtype=torch.float32))
