"""The wrappers that a node puts around a model, and what becomes of a run between them.

ComfyUI hands everything of a model on through wrappers of several kinds (``comfy/patcher_extension.py``). Three are needed: around a whole
run, around each call of the sampler, around each call of the model. No forward is copied, so that every model that ComfyUI runs can be
cached, with its LoRAs, quantised weights and controls. What belongs to one run lives in the options that ComfyUI copies for this run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from easyteacache.integrations.comfyui.report import RunReport
from easyteacache.integrations.comfyui.sampled_run import MakeSession, SampledRun, Watcher, options_in
from easyteacache.integrations.comfyui.sampler_facts import facts_of

KEY = "easyteacache"
# The names of ComfyUI's WrappersMP.
OUTER_SAMPLE, PREDICT_NOISE, DIFFUSION_MODEL = "outer_sample", "predict_noise", "diffusion_model"
# Keys of a conditioning that come and go in a run, or have weights of their own.
_CHANGING = frozenset({"control", "hooks", "start_percent", "end_percent", "timestep_start", "timestep_end"})
_NOT_LINEAR = (
    "sampler_cfg_function",
    "sampler_post_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_calc_cond_batch_function",
)
_PLAIN_GUIDERS = ("CFGGuider", "Guider_Basic")

Report = Callable[[RunReport], None]
#: A run, its guider and its seed → who sees its calls.
MakeWatcher = Callable[[SampledRun, Any, "int | None"], Watcher]


class ModelWrappers:
    """What a node puts on a model.

    Args:
        make_session: gives each run's session; None: nothing is reused.
        make_watcher: gives what sees each run's calls; None: nobody.
        report: told of every run when it begins and when it is over.
        heading: first line of reports.
    """

    def __init__(
        self,
        make_session: MakeSession | None,
        *,
        make_watcher: MakeWatcher | None = None,
        report: Report = lambda _: None,
        heading: str = "",
    ) -> None:
        self._make_session, self._make_watcher = make_session, make_watcher
        self._report, self._heading = report, heading

    def put_on(self, model: Any) -> Any:
        """A clone of ComfyUI's model patcher with these wrappers; those of another node of this pack give way."""
        found = model.clone()
        for kind, wrapper in (
            (OUTER_SAMPLE, self.outer_sample),
            (PREDICT_NOISE, predict_noise),
            (DIFFUSION_MODEL, diffusion_model),
        ):
            found.remove_wrappers_with_key(kind, KEY)
            found.add_wrapper_with_key(kind, KEY, wrapper)
        return found

    def outer_sample(
        self, executor: Any, noise: torch.Tensor, latent: Any, sampler: Any, sigmas: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Around a whole run: knows its noise levels before, and cleans up after it whatever happened."""
        guider = executor.class_obj
        options = guider.model_options.setdefault("transformer_options", {})
        outer = options.get(KEY)
        run = self._begun(guider, noise, sampler, sigmas, args, kwargs)
        options[KEY] = run
        whole = False
        try:
            found = executor(noise, latent, sampler, sigmas, *args, **kwargs)
            whole = True
            return found
        finally:
            options.pop(KEY, None)
            if outer is not None:
                options[KEY] = outer
            run.end(whole=whole)
            self._tell(run, over=True, whole=whole)

    def _begun(
        self,
        guider: Any,
        noise: torch.Tensor,
        sampler: Any,
        sigmas: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> SampledRun:
        patcher, model_options = guider.model_patcher, guider.model_options
        changing = any(_CHANGING & set(one) for several in getattr(guider, "conds", {}).values() for one in several)
        plain = type(guider).__name__ in _PLAIN_GUIDERS and not any(model_options.get(name) for name in _NOT_LINEAR)
        run = SampledRun(
            patcher,
            facts_of(sampler, sigmas, patcher),
            tuple(noise.shape),
            self._make_session,
            linear_guidance=plain,
            steady=not changing,
            masked=(kwargs.get("denoise_mask") if "denoise_mask" in kwargs else (args[0] if args else None))
            is not None,
        )
        if self._make_session is None and self._make_watcher is None:
            run.refusal = None
        elif self._make_watcher is not None and run.refusal is None:
            run.watch(self._make_watcher(run, guider, kwargs.get("seed", args[3] if len(args) > 3 else None)))
        self._tell(run, over=False, whole=False)
        return run

    def _tell(self, run: SampledRun, *, over: bool, whole: bool) -> None:
        watched = self._make_watcher is not None
        self._report(RunReport.of(run, heading=self._heading, over=over, whole=whole, watched=watched))


def predict_noise(
    executor: Any, x: torch.Tensor, timestep: torch.Tensor, model_options: Any = None, *args: Any, **kwargs: Any
) -> Any:
    """Around each call of the sampler."""
    run = _run_in((model_options or {}).get("transformer_options"))
    model_options = {} if model_options is None else model_options
    if run is None:
        return executor(x, timestep, model_options, *args, **kwargs)
    return run.predict(executor, x, timestep, model_options, *args, **kwargs)


def diffusion_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Around each call of the model."""
    run = _run_in(options_in(args, kwargs))
    return executor(*args, **kwargs) if run is None else run.compute(executor, args, kwargs)


def _run_in(options: Any) -> SampledRun | None:
    found = options.get(KEY) if isinstance(options, Mapping) else None
    return found if isinstance(found, SampledRun) else None
