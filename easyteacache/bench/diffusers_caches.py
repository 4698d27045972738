"""The caches of diffusers, by their own code and configuration classes."""

from __future__ import annotations

import ast
import contextlib
import io
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from easyteacache.bench.contender import Bed, Calibrated, Contender, Knob, Settings, allowed
from easyteacache.errors import BenchError


class DiffusersCache(Contender):
    """What ``transformer.enable_cache`` takes."""

    family = "diffusers"

    def inapplicable(self, bed: Bed) -> str | None:
        """Only classes with diffusers' ``CacheMixin`` can."""
        kind = type(bed.transformer).__name__
        if not hasattr(bed.transformer, "enable_cache"):
            return f"{kind} has no enable_cache"
        if len(bed.subject.transformers) > 1:
            return "the pipeline has two transformers"
        return None

    @abstractmethod
    def config(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Any:
        """The configuration object."""

    @contextlib.contextmanager
    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Iterator[None]:
        """Enabled inside the block."""
        config = self.config(bed, settings, calibrated)
        with quiet():
            bed.transformer.enable_cache(config)
            try:
                yield
            finally:
                bed.transformer.disable_cache()


class FirstBlockCache(DiffusersCache):
    """FirstBlockCache."""

    name = "FirstBlockCache"
    kind = "hold"
    knob = Knob("threshold", 1e-4, 3.0)
    note = "always runs the first block, which weighs more the fewer blocks a model has"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """The threshold is all there is."""
        return ({},)

    def config(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Any:
        """``FirstBlockCacheConfig``."""
        from diffusers import FirstBlockCacheConfig

        return FirstBlockCacheConfig(**settings)


class MagCache(DiffusersCache):
    """MagCache, calibrated by its own calibration mode."""

    name = "MagCache"
    kind = "hold"
    knob = Knob("threshold", 1e-4, 10.0)

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """The default first; the others reach speed-ups that it cannot."""
        pairs = ((0.2, 3), (0.2, 6), (0.1, 4), (0.1, 12))
        return tuple({"retention_ratio": ratio, "max_skip_steps": most} for ratio, most in pairs)

    def calibrate(self, bed: Bed) -> Calibrated:
        """One run in calibration mode, which prints a list per branch; the configuration takes one, so their mean."""
        from diffusers import MagCacheConfig

        config = MagCacheConfig(calibrate=True, num_inference_steps=bed.case.steps)
        printed = io.StringIO()
        with quiet(), contextlib.redirect_stdout(printed):
            bed.transformer.enable_cache(config)
            try:
                bed.subject.sample(bed.case, bed.calibration_pairs[0], steps=bed.case.steps)
            finally:
                bed.transformer.disable_cache()
        lists = [ast.literal_eval(line) for line in printed.getvalue().splitlines() if line.startswith("[1.0,")]
        if not lists or any(len(ratios) != bed.case.steps for ratios in lists):
            raise BenchError(f"MagCache's calibration printed {len(lists)} complete lists of ratios")
        mean = [sum(at) / len(lists) for at in zip(*lists, strict=True)]
        return {"mag_ratios": mean, "printed": lists}

    def config(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Any:
        """``MagCacheConfig``."""
        from diffusers import MagCacheConfig

        return MagCacheConfig(**settings, num_inference_steps=bed.case.steps, mag_ratios=list(calibrated["mag_ratios"]))


class TaylorSeer(DiffusersCache):
    """TaylorSeer in lite mode: extrapolates the projected output, skips every block."""

    name = "TaylorSeer lite"
    kind = "forecast"
    lite = True
    note = "use_lite_mode: its default patterns match no module of some classes"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Both orders; per target the shortest intervals that fit, with the full steps left over at the start or the end."""
        found: dict[tuple[Any, ...], Settings] = {}
        for target in bed.targets:
            most = bed.case.steps * allowed(target)
            for settings in _taylor_plans(bed.case.steps, most):
                for order in (1, 2):
                    found.setdefault((order, *settings.values()), {"max_order": order, **settings})
        return tuple(found.values())

    def config(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Any:
        """``TaylorSeerCacheConfig``; factors in the model's own precision."""
        from diffusers import TaylorSeerCacheConfig

        where = {"use_lite_mode": True} if self.lite else {"cache_identifiers": list(self.identifiers(bed))}
        return TaylorSeerCacheConfig(**settings, taylor_factors_dtype=bed.transformer.dtype, **where)

    def identifiers(self, bed: Bed) -> Sequence[str]:
        """Modules to extrapolate where the mode is not lite."""
        return ()


class TaylorSeerModules(TaylorSeer):
    """TaylorSeer as in its paper: the output of every attention and feed-forward layer is extrapolated."""

    name = "TaylorSeer modules"
    lite = False
    unit = "parts"
    note = "explicit cache_identifiers; counts attention and feed-forward layers"
    # Attribute names of diffusers' blocks, as `re.fullmatch` patterns.
    parts = r"(attn|attn1|attn2|ff|ffn|ff_context|proj_mlp|proj_out)"

    def identifiers(self, bed: Bed) -> Sequence[str]:
        """Attention and feed-forward layers of every block list."""
        from easyteacache.integrations.diffusers import adapter_for

        lists = [blocks.path for blocks in adapter_for(bed.transformer).blocks]
        return [rf"{path}\.\d+\.{self.parts}" for path in lists]


class SeaCache(DiffusersCache):
    """SeaCache, with its default first-order residual and with plain reuse as in its paper."""

    name = "SeaCache"
    kind = "forecast"
    knob = Knob("threshold", 1e-4, 10.0)
    note = "needs a pipeline that passes step, sigma and step count to cache_context"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """The default first."""
        pairs = ((1, 2), (1, 4), (0, 2), (0, 0))
        return tuple({"residual_order": order, "max_consecutive_cached": most} for order, most in pairs)

    def config(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Any:
        """``SeaCacheConfig``; a FLUX transformer's packed latents are unpacked for it."""
        from diffusers import SeaCacheConfig

        packed = type(bed.transformer).__name__.startswith("Flux")
        return SeaCacheConfig(**settings, raw_vision_callback=_unpacked if packed else None)


def _unpacked(module: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """(B, L, C) latents of FLUX as (C, 1, rows, columns) each, by their position ids."""
    hidden, ids = kwargs["hidden_states"], kwargs["img_ids"]
    rows, columns = (int(ids[:, axis].max()) + 1 for axis in (1, 2))
    return list(hidden.transpose(1, 2).unflatten(2, (1, rows, columns)).unbind(0))


class AttentionCache(DiffusersCache):
    """A cache of attention outputs, which knows no guidance branches: both have to run as one batch."""

    kind = "attention"
    unit = "parts"

    def inapplicable(self, bed: Bed) -> str | None:
        """Not where a pipeline runs its branches apart and cannot do otherwise."""
        reason = super().inapplicable(bed)
        with bed.subject.joined() as joined:
            if reason is None and bed.separate_branches and not joined:
                return "the pipeline runs its guidance branches apart, this cache keeps one state for both"
        return reason

    @contextlib.contextmanager
    def applied(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Iterator[None]:
        """Enabled inside the block, with the guidance branches in one batch."""
        with bed.subject.joined(), super().applied(bed, settings, calibrated):
            yield


class PyramidAttentionBroadcast(AttentionCache):
    """Pyramid Attention Broadcast."""

    name = "PAB"
    note = "skips attention only; counts attention and feed-forward layers"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """Ranges of its paper, at its default timesteps and at all of them."""
        return tuple(
            {"skip_range": count, "timesteps": list(times)}
            for times in ((100, 800), (0, 1000))
            for count in (2, 3, 4, 8)
        )

    def config(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Any:
        """``PyramidAttentionBroadcastConfig`` for self- and cross-attention."""
        from diffusers import PyramidAttentionBroadcastConfig

        count, times = settings["skip_range"], tuple(settings["timesteps"])
        return PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=count,
            cross_attention_block_skip_range=count,
            spatial_attention_timestep_skip_range=times,
            cross_attention_timestep_skip_range=times,
            current_timestep_callback=lambda: bed.subject.pipe.current_timestep,
        )


class FasterCache(AttentionCache):
    """FasterCache."""

    name = "FasterCache"
    note = "skips attention and part of the unconditional branch; counts attention and feed-forward layers"

    def variants(self, bed: Bed) -> Sequence[Settings]:
        """The default first, then earlier timesteps and longer skips."""
        rows = ((5, 641, 681), (2, 1000, 1000), (5, 1000, 1000), (10, 1000, 1000))
        return tuple({"unconditional": n, "until": u, "attention_until": a} for n, u, a in rows)

    def config(self, bed: Bed, settings: Settings, calibrated: Calibrated) -> Any:
        """``FasterCacheConfig``; packed latents have no rows to filter, so there only attention is cached."""
        from diffusers import FasterCacheConfig

        packed = type(bed.transformer).__name__.startswith("Flux")
        return FasterCacheConfig(
            unconditional_batch_skip_range=settings["unconditional"],
            unconditional_batch_timestep_skip_range=(-1, settings["until"]),
            spatial_attention_timestep_skip_range=(-1, settings["attention_until"]),
            attention_weight_callback=lambda _: 0.3,
            is_guidance_distilled=packed or not (bed.separate_branches or bed.forwards > 1),
            tensor_format="BCHW" if packed else "BCFHW",
            current_timestep_callback=lambda: bed.subject.pipe.current_timestep,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers' advice about caches off the terminal."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # FasterCache's own call.
            warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
            yield
    finally:
        logging.set_verbosity(before)


def _taylor_plans(steps: int, most: float) -> Iterator[dict[str, Any]]:
    """Settings of TaylorSeer that compute at most ``most`` of ``steps`` steps and as many of them as possible."""
    fitting = 0
    for interval in range(2, steps):
        if _computed(steps, interval, 2, None) > most:
            continue
        fitting += 1
        if fitting > 2:
            return
        before = max(b for b in range(2, steps) if _computed(steps, interval, b, None) <= most)
        yield _plan(interval, before, None)
        start = 3 if _computed(steps, interval, 3, None) <= most else 2
        after = min(a for a in range(start, steps + 1) if _computed(steps, interval, start, a) <= most)
        if after < steps:
            yield _plan(interval, start, after)


def _plan(interval: int, before: int, after: int | None) -> dict[str, Any]:
    return {"cache_interval": interval, "disable_cache_before_step": before, "disable_cache_after_step": after}


def _computed(steps: int, interval: int, before: int, after: int | None) -> int:
    """Full steps of diffusers' TaylorSeer, by its own rule."""
    end = steps if after is None else after
    return sum(s < before or (s - before - 1) % interval == 0 or s >= end for s in range(steps))
