"""The latent that a pipeline ends with: what a plan's error is measured on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.recording.jobs import Job
from easyteacache.integrations.diffusers.recording.pipeline_runs import arguments_of
from easyteacache.integrations.diffusers.scheduler_facts import shifted


def final_sample(pipe: Any, job: Job) -> Tensor:
    """Run ``job`` as ``pipe`` stands, with whatever is attached to it; its last latent, in double precision on the CPU.

    Raises:
        AttachError: the pipeline takes other arguments, or gives no finite numbers.
    """
    with torch.no_grad(), shifted(pipe, job.shift):
        found = pipe(**arguments_of(pipe, job), return_dict=False)
    sample = found[0] if isinstance(found, tuple) else found
    sample = torch.as_tensor(sample).detach().cpu().double()
    if not torch.isfinite(sample).all() or not sample.any():
        raise AttachError(
            f"{type(pipe).__name__} samples no numbers for {job.prompt!r}: use a number type that the model works in"
        )
    return sample


def relative_l2(sample: Tensor, exact: Tensor) -> float:
    """‖sample − exact‖ / ‖exact‖, 0 or more."""
    return float((sample - exact).norm() / exact.norm())


def decoded(pipe: Any, job: Job) -> npt.NDArray[np.float32]:
    """Run ``job`` as ``pipe`` stands and decode it: frames (F, H, W, C) with values of 0 to 1.

    Raises:
        AttachError: the pipeline takes other arguments, or gives no pictures.
    """
    arguments = {**arguments_of(pipe, job), "output_type": "np"}
    with torch.no_grad(), shifted(pipe, job.shift):
        found = pipe(**arguments, return_dict=False)
    frames = np.asarray(found[0] if isinstance(found, tuple) else found, dtype=np.float32)
    # A batch of one: of videos (1, F, H, W, C), or of pictures (1, H, W, C).
    frames = frames[0] if frames.ndim == 5 else frames
    if frames.ndim != 4 or not np.isfinite(frames).all():
        raise AttachError(f"{type(pipe).__name__} gives no pictures with output_type='np', found shape {frames.shape}")
    return frames
