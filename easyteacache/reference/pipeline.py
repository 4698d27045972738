"""The reference model as a diffusers pipeline: digits bouncing in a small video."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SchedulerMixin,
    WanTransformer3DModel,
)
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from easyteacache.errors import ReferenceModelError
from easyteacache.records.sampler import SHIFT_NAMES
from easyteacache.reference import prompts
from easyteacache.reference.architectures import PATCH, Transformer, architecture_of, predict_velocity

WEIGHTS = Path(__file__).parent / "weights"
SHIFT = 3.0
SMALLEST_SIZE = 16

OutputType = Literal["np", "pil", "pt", "latent"]
PromptInput = int | str | Sequence[int | str]
StepCallback = Callable[["MovingDigitsPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class MovingDigitsOutput(BaseOutput):  # type: ignore[misc]
    """Sampled videos.

    Attributes:
        frames: (B, F, H, W, 1) float32 in [0, 1] for `"np"`; (B, F, 1, H, W) for `"pt"`; B lists of F grey
            images for `"pil"`; (B, 1, F, H, W) in about [-1, 1], unclamped, for `"latent"`.
    """

    frames: Any


class MovingDigitsPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Sample moving digits by flow matching with classifier-free guidance.

    Conventions are those of diffusers' Wan pipeline: any flow-matching scheduler, two forwards a step inside
    `transformer.cache_context("cond")` and `("uncond")`, stateful hooks reset at the end. There is no VAE: latents
    are pixels.
    """

    model_cpu_offload_seq = "transformer"
    transformer: Any
    scheduler: Any
    _callback_tensor_inputs = ("latents", "prompt_embeds", "negative_prompt_embeds")

    def __init__(self, transformer: WanTransformer3DModel | FluxTransformer2DModel, scheduler: SchedulerMixin) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)
        self.video_processor = VideoProcessor(do_resize=False)
        self._guidance_scale = 1.0
        self._num_timesteps = 0
        self._current_timestep: Tensor | None = None
        self._interrupt = False

    @classmethod
    def from_transformer(cls, transformer: Transformer) -> MovingDigitsPipeline:
        """Wrap a transformer with the Euler scheduler the reference model is sampled with (shift 3)."""
        return cls(transformer, FlowMatchEulerDiscreteScheduler(shift=SHIFT))

    @classmethod
    def from_reference(cls, *, dtype: torch.dtype = torch.float32) -> MovingDigitsPipeline:
        """Load the weights that travel with the package (fp16 on disk).

        Raises:
            ReferenceModelError: the installation lacks them.
        """
        folder = WEIGHTS / "transformer"
        if not (folder / "diffusion_pytorch_model.safetensors").is_file():
            raise ReferenceModelError(
                f"expected the reference weights in {folder}, found none; reinstall easyteacache "
                "or train them with tools/reference/train.py"
            )
        transformer = WanTransformer3DModel.from_pretrained(folder, torch_dtype=dtype).eval()
        return cls.from_transformer(transformer)

    @property
    def guidance_scale(self) -> float:
        """Guidance scale of the current call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether each step needs the unconditional forward, too."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Steps of the current call."""
        return self._num_timesteps

    @property
    def current_timestep(self) -> Tensor | None:
        """Timestep being computed, None outside a call."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """Set by a callback (`pipe._interrupt = True`) to leave the remaining steps out."""
        return self._interrupt

    @staticmethod
    def sequence_length(num_frames: int, height: int, width: int) -> int:
        """Tokens entering the blocks: F · H/2 · W/2."""
        return num_frames * (height // PATCH) * (width // PATCH)

    def check_inputs(self, *, num_frames: int, height: int, width: int, callback_inputs: Sequence[str] = ()) -> None:
        """Refuse shapes the transformer cannot draw and tensors a callback cannot have.

        Raises:
            ReferenceModelError: too many frames, a height or width that is odd, below 16 or beyond the positions it knows, or an unknown tensor name.
        """
        unknown = sorted(set(callback_inputs) - set(self._callback_tensor_inputs))
        if unknown:
            known = ", ".join(self._callback_tensor_inputs)
            raise ReferenceModelError(f"expected callback tensors among {known}; found {', '.join(unknown)}")
        most = architecture_of(self.transformer).max_frames
        if not 1 <= num_frames <= most:
            raise ReferenceModelError(f"expected num_frames in 1..{most}, found {num_frames}")
        # Wan's class has a table of positions of this length for each axis.
        longest = self.transformer.config.get("rope_max_seq_len")
        for name, pixels in (("height", height), ("width", width)):
            if pixels < SMALLEST_SIZE or pixels % PATCH:
                raise ReferenceModelError(f"expected {name} even and at least {SMALLEST_SIZE}, found {pixels}")
            if longest is not None and pixels > PATCH * longest:
                raise ReferenceModelError(f"expected {name} of at most {PATCH * longest}, found {pixels}")

    def encode_prompt(self, prompt: PromptInput) -> tuple[Tensor, Tensor]:
        """Embed prompts and as many empty ones, (B, 4, 64) each.

        Raises:
            ReferenceModelError: a prompt is not a digit with an optional direction.
        """
        several = [prompt] if isinstance(prompt, int | str) else list(prompt)
        parsed = [prompts.parse_prompt(one) for one in several]
        if not parsed:
            raise ReferenceModelError("expected at least one prompt, found an empty list")
        like: dict[str, Any] = {"device": self._execution_device, "dtype": self.transformer.dtype}
        return prompts.embed_prompts(parsed).to(**like), prompts.embed_null(len(parsed)).to(**like)

    def prepare_latents(
        self,
        shape: tuple[int, ...],
        *,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seeds: Sequence[int] | None = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Return the initial noise of `shape`: the given `latents`, or drawn from one source of randomness.

        Raises:
            ReferenceModelError: more than one source, not one seed per sample, or latents of another shape.
        """
        if sum(source is not None for source in (generator, seeds, latents)) > 1:
            raise ReferenceModelError("expected at most one of generator, seeds and latents, found several")
        device = self._execution_device
        if latents is not None:
            if latents.shape != shape:
                raise ReferenceModelError(f"expected latents of shape {shape}, found {tuple(latents.shape)}")
            return latents.to(device)
        if seeds is not None:
            generator = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        if isinstance(generator, list) and len(generator) != shape[0]:
            raise ReferenceModelError(f"expected one generator or seed per prompt ({shape[0]}), found {len(generator)}")
        return cast(Tensor, randn_tensor(shape, generator=generator, device=device, dtype=torch.float32))

    @torch.no_grad()
    def __call__(
        self,
        prompt: PromptInput,
        num_frames: int = 4,
        height: int = 16,
        width: int = 16,
        num_inference_steps: int = 50,
        guidance_scale: float = 3.0,
        *,
        shift: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seeds: Sequence[int] | None = None,
        latents: Tensor | None = None,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> MovingDigitsOutput | tuple[Any]:
        """Sample one video per prompt.

        Args:
            prompt: digits 0..9, or texts such as `"7"` and `"7 down-left"`; one or several.
            num_frames: 1..8 (1 for a FLUX transformer).
            height: pixels, even, from 16; trained up to 32.
            width: as `height`.
            num_inference_steps: steps of the scheduler.
            guidance_scale: classifier-free guidance (arXiv 2207.12598); up to 1 computes no unconditional branch.
            shift: timestep shift for this call instead of the scheduler's own.
            generator: one for the batch, or one per prompt: then a batch gives the same samples as single calls.
            seeds: one per prompt; short for a list of generators.
            latents: initial noise (B, 1, F, H, W) instead of drawn noise.
            output_type: see `MovingDigitsOutput.frames`.
            return_dict: return a `MovingDigitsOutput` rather than a tuple.
            callback_on_step_end: called as `(pipe, step, timestep, tensors)`; what it returns replaces the tensors.
            callback_on_step_end_tensor_inputs: which of `latents`, `prompt_embeds`, `negative_prompt_embeds` it gets.

        Raises:
            ReferenceModelError: a prompt, shape, source of noise or callback tensor that cannot be used.
        """
        callback_inputs = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        self.check_inputs(num_frames=num_frames, height=height, width=width, callback_inputs=callback_inputs)
        self._guidance_scale, self._interrupt = guidance_scale, False
        cond, uncond = self.encode_prompt(prompt)
        shape = (len(cond), 1, num_frames, height, width)
        latents = self.prepare_latents(shape, generator=generator, seeds=seeds, latents=latents)
        state = {"latents": latents, "prompt_embeds": cond, "negative_prompt_embeds": uncond}
        with self._shifted(shift):
            self._denoise(state, num_inference_steps, callback=callback_on_step_end, callback_inputs=callback_inputs)
        frames = self._decode(state["latents"], output_type)
        self.maybe_free_model_hooks()
        return MovingDigitsOutput(frames=frames) if return_dict else (frames,)

    def _denoise(
        self,
        state: dict[str, Tensor],
        num_inference_steps: int,
        *,
        callback: StepCallback | None,
        callback_inputs: Sequence[str],
    ) -> None:
        """Run the sampler loop, replacing `state["latents"]` step by step."""
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        self._num_timesteps = len(self.scheduler.timesteps)
        with self.progress_bar(total=self._num_timesteps) as progress:
            for step, timestep in enumerate(self.scheduler.timesteps):
                if self._interrupt:
                    break
                self._current_timestep = timestep
                velocity = self._guided_velocity(state, step=step, timestep=timestep)
                state["latents"] = self.scheduler.step(velocity, timestep, state["latents"], return_dict=False)[0]
                if callback is not None:
                    state.update(callback(self, step, timestep, {name: state[name] for name in callback_inputs}) or {})
                progress.update()
        self._current_timestep = None

    def _guided_velocity(self, state: dict[str, Tensor], *, step: int, timestep: Tensor) -> Tensor:
        cond = self._velocity(state, branch="cond", step=step, timestep=timestep)
        if not self.do_classifier_free_guidance:
            return cond
        uncond = self._velocity(state, branch="uncond", step=step, timestep=timestep)
        return uncond + self._guidance_scale * (cond - uncond)

    def _velocity(self, state: dict[str, Tensor], *, branch: str, step: int, timestep: Tensor) -> Tensor:
        latents = state["latents"]
        text = state["prompt_embeds" if branch == "cond" else "negative_prompt_embeds"]
        with self._cache_context(branch, step):
            velocity = predict_velocity(
                self.transformer,
                latents.to(self.transformer.dtype),
                timestep=timestep.expand(len(latents)),
                text=text,
            )
        return velocity.to(latents.dtype)

    def _cache_context(self, branch: str, step: int) -> contextlib.AbstractContextManager[None]:
        """Name the branch to stateful hooks, and the position where this diffusers release can pass it on."""
        context = self.transformer.cache_context
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(context).parameters.values()):
            return cast(contextlib.AbstractContextManager[None], context(branch))
        # Not every scheduler keeps noise levels by this name.
        sigmas = getattr(self.scheduler, "sigmas", ())
        sigma = float(sigmas[step]) if step < len(sigmas) else None
        where = {"step_index": step, "sigma": sigma, "num_inference_steps": self._num_timesteps}
        return cast(contextlib.AbstractContextManager[None], context(branch, **where))

    @contextlib.contextmanager
    def _shifted(self, shift: float | None) -> Iterator[None]:
        """Swap in a copy of the scheduler with another shift for the time of one call."""
        if shift is None:
            yield
            return
        original = self.scheduler
        names = [name for name in SHIFT_NAMES if name in original.config]
        if not names:
            raise ReferenceModelError(f"{type(original).__name__} has no shift; configure the scheduler itself")
        self.scheduler = type(original).from_config(original.config, **{names[0]: shift})
        try:
            yield
        finally:
            self.scheduler = original

    def _decode(self, latents: Tensor, output_type: OutputType) -> Any:
        if output_type == "latent":
            return latents
        return self.video_processor.postprocess_video(latents.float(), output_type=output_type)


def load_pipeline(*, dtype: torch.dtype = torch.float32) -> MovingDigitsPipeline:
    """Load the packaged reference model as a pipeline; see `MovingDigitsPipeline.from_reference`."""
    return MovingDigitsPipeline.from_reference(dtype=dtype)
