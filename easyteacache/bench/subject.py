"""The model under test: what it samples, from which noise, and what the result shows."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from easyteacache.errors import BenchError
from easyteacache.integrations.diffusers import scheduler_facts
from easyteacache.integrations.diffusers.pipeline import parts_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from easyteacache.integrations.diffusers.recording import Job

Frames = npt.NDArray[np.float32]

REFERENCE_KEY = "reference/moving-digits"
#: Guidance of the reference pipeline when none is asked for.
REFERENCE_GUIDANCE = 3.0


class Pair(NamedTuple):
    """A prompt and the seed of its initial noise."""

    prompt: str
    seed: int


class Sampler(NamedTuple):
    """A flow-matching sampler.

    Attributes:
        name: ``euler`` or ``unipc``.
        shift: its time shift, above 0.
    """

    name: str
    shift: float


@dataclass(frozen=True)
class Case:
    """One setting of the benchmark; None leaves a size to the pipeline.

    Attributes:
        frames, height, width: of a sample, the last two in pixels.
        steps: sampler steps of the uncached run.
    """

    frames: int | None
    height: int | None
    width: int | None
    steps: int

    @property
    def shape(self) -> str:
        """``FxHxW``, without F for images; ``default`` where the pipeline decides."""
        sizes = (self.frames, self.height, self.width)
        return "x".join(str(size) for size in sizes if size is not None) or "default"

    @property
    def name(self) -> str:
        """``FxHxW@steps``."""
        return f"{self.shape}@{self.steps}"


class Subject:
    """Any diffusers pipeline.

    Args:
        pipe: the pipeline; nothing may be attached to it.
        name: what to call it in tables.
        digest: SHA-256 over its transformers' weights and configuration.
        prompts: what to sample, at least one.
        guidance_scale: None leaves it to the pipeline.
    """

    #: Model key of its calibration where the caller names none.
    key: str | None = None
    #: Whether `read` can say what a sample shows.
    reads = False
    #: Class and shift of the sampler it was given, see ``sampled_by``; None: the pipeline's own.
    sampler: Sampler | None = None

    def __init__(
        self, pipe: Any, *, name: str, digest: str, prompts: Sequence[str], guidance_scale: float | None = None
    ) -> None:
        if not prompts:
            raise BenchError("expected at least one prompt, found none")
        self.pipe, self.name, self.digest = pipe, name, digest
        self.prompts, self.guidance_scale = tuple(prompts), guidance_scale
        pipe.set_progress_bar_config(disable=True)

    @property
    def transformers(self) -> tuple[nn.Module, ...]:
        """The pipeline's transformers, the first expert first."""
        return tuple(parts_of(self.pipe).values())

    def sampled_by(self, name: str | None, shift: float | None) -> None:
        """Give the pipeline another flow-matching sampler for all runs to come.

        Args:
            name: ``euler`` or ``unipc``; None: Euler, or UniPC where that is what the pipeline has.
            shift: its time shift; None: that of the pipeline's own sampler.

        Raises:
            BenchError: the pipeline's own sampler is none of flow matching with a fixed shift.
        """
        if name is None and shift is None:
            return
        own = self.pipe.scheduler
        if scheduler_facts.prediction_of(own) != "velocity" or scheduler_facts.is_dynamic(own):
            raise BenchError(
                f"{type(own).__name__} is no flow-matching sampler with a fixed shift, so that none can be chosen"
            )
        kept = name or ("unipc" if type(own).__name__.startswith("UniPC") else "euler")
        found = scheduler_facts.shift_of(own) or 1.0 if shift is None else shift
        self.sampler = Sampler(kept, found)
        self.pipe.scheduler = _scheduler(self.sampler)

    def pairs(self, count: int, *, first_seed: int) -> tuple[Pair, ...]:
        """``count`` prompts in turn, each with a seed of its own."""
        return tuple(Pair(self.prompts[i % len(self.prompts)], first_seed + i) for i in range(count))

    def tokens(self, case: Case) -> int | None:
        """Sequence length in a case, where it is known without a run."""
        return None

    def job(self, case: Case, pair: Pair) -> Job:
        """The same run as the recorder takes it."""
        from easyteacache.integrations.diffusers.recording import Job

        return Job(
            pair.prompt,
            pair.seed,
            case.width,
            case.height,
            case.frames,
            case.steps,
            guidance_scale=self.guidance_scale,
        )

    def sample(self, case: Case, pair: Pair, *, steps: int) -> Frames:
        """One sample, (F, H, W, C) in [0, 1] as users see it; F is 1 for images.

        Raises:
            BenchError: the pipeline gives neither frames nor images.
        """
        accepted = inspect.signature(self.pipe.__call__).parameters
        wanted = {
            "prompt": pair.prompt,
            "num_frames": case.frames,
            "height": case.height,
            "width": case.width,
            "num_inference_steps": steps,
            "guidance_scale": self.guidance_scale,
            "generator": torch.Generator().manual_seed(pair.seed),
            "output_type": "np",
        }
        output = self.pipe(**{k: v for k, v in wanted.items() if v is not None and k in accepted})
        found = getattr(output, "frames", None)
        found = getattr(output, "images", None) if found is None else found
        if found is None:
            raise BenchError(f"{type(self.pipe).__name__} returns neither frames nor images")
        first = np.asarray(found[0], dtype=np.float32)
        return np.clip(first[None] if first.ndim == 3 else first, 0.0, 1.0)

    def read(self, pair: Pair, frames: Frames) -> bool | None:
        """Does the sample show what its prompt asks for? None where nothing can tell."""
        return None

    @contextlib.contextmanager
    def joined(self) -> Iterator[bool]:
        """Run both guidance branches as one batch inside the block, unconditional first; False where that cannot be done."""
        yield False


class ReferenceSubject(Subject):
    """The reference model, or another transformer of the classes its pipeline can use."""

    def __init__(self, pipe: Any, *, name: str, digest: str, key: str | None) -> None:
        from easyteacache.reference.prompts import DIGITS, DIRECTIONS

        names = list(DIRECTIONS)
        prompts = [f"{d} {names[(d + turn) % len(names)]}" for turn in range(len(names)) for d in range(DIGITS)]
        super().__init__(pipe, name=name, digest=digest, prompts=prompts, guidance_scale=REFERENCE_GUIDANCE)
        self.key = key
        self.reads = True

    def sample(self, case: Case, pair: Pair, *, steps: int) -> Frames:
        """As ``Subject.sample``; raises ``ReferenceModelError`` for a shape that the model cannot draw."""
        frames = self.pipe(
            pair.prompt,
            case.frames or 1,
            case.height or 16,
            case.width or 16,
            steps,
            REFERENCE_GUIDANCE,
            seeds=[pair.seed],
            return_dict=False,
        )[0][0]
        return np.asarray(frames, dtype=np.float32)

    def tokens(self, case: Case) -> int:
        """Tokens entering the blocks; raises ``ReferenceModelError`` for a shape that the model cannot draw."""
        frames, height, width = case.frames or 1, case.height or 16, case.width or 16
        self.pipe.check_inputs(num_frames=frames, height=height, width=width)
        return int(self.pipe.sequence_length(frames, height, width))

    def read(self, pair: Pair, frames: Frames) -> bool | None:
        """Does the digit classifier read the digit asked for?"""
        from easyteacache.reference import load_classifier
        from easyteacache.reference.prompts import parse_prompt

        if not hasattr(self, "_classifier"):
            self._classifier = load_classifier()
        # (F, H, W, 1) in [0, 1] → (1, 1, F, H, W) in [-1, 1], as the classifier takes it.
        video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
        return int(self._classifier.read(video)[0]) == parse_prompt(pair.prompt).digit

    @contextlib.contextmanager
    def joined(self) -> Iterator[bool]:
        """As CogVideoX and other pipelines of diffusers do by themselves."""
        from easyteacache.reference.architectures import predict_velocity

        pipe = self.pipe

        def guided_velocity(state: dict[str, Tensor], *, step: int, timestep: Tensor) -> Tensor:
            latents = state["latents"]
            text = torch.cat((state["negative_prompt_embeds"], state["prompt_embeds"]))
            twice = torch.cat((latents, latents)).to(pipe.transformer.dtype)
            with pipe._cache_context("joined", step):
                velocity = predict_velocity(
                    pipe.transformer, twice, timestep=timestep.expand(len(twice)), text=text.to(twice.dtype)
                )
            uncond, cond = velocity.to(latents.dtype).chunk(2)
            guided: Tensor = uncond + pipe.guidance_scale * (cond - uncond)
            return guided

        pipe._guided_velocity = guided_velocity
        try:
            yield True
        finally:
            del pipe._guided_velocity


def load_reference(model_path: Path | None) -> ReferenceSubject:
    """The packaged reference model, or the Wan or FLUX transformer that ``tools/reference/train.py`` saved.

    Raises:
        ReferenceModelError: there is no such transformer.
    """
    from easyteacache.reference import load_pipeline
    from easyteacache.reference.saved import load_saved

    if model_path is None:
        pipe = load_pipeline()
        return ReferenceSubject(pipe, name=REFERENCE_KEY, digest=digest_of(pipe), key=REFERENCE_KEY)
    pipe = load_saved(model_path)
    kind = type(pipe.transformer).__name__
    return ReferenceSubject(pipe, name=f"{model_path.name} ({kind})", digest=digest_of(pipe), key=None)


def load_pipeline(
    model: str, *, prompts: Sequence[str], guidance_scale: float | None = None, dtype: str | None = None
) -> Subject:
    """A diffusers pipeline from a folder or from the Hub.

    Args:
        model: folder or repository id.
        prompts: what to sample.
        guidance_scale: None leaves it to the pipeline.
        dtype: name of torch's number type; None loads it as it is stored.
    """
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=getattr(torch, dtype) if dtype else None)
    # A folder's place on this machine is nobody's business, its name may be.
    name = Path(model).name if Path(model).exists() else model
    return Subject(pipe, name=name, digest=digest_of(pipe), prompts=prompts, guidance_scale=guidance_scale)


def _scheduler(sampler: Sampler) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    if sampler.name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=sampler.shift)
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=sampler.shift)


def digest_of(pipe: Any) -> str:
    """SHA-256 over names, shapes and bytes of the weights of every transformer of ``pipe``."""
    found = hashlib.sha256()
    for name, transformer in parts_of(pipe).items():
        found.update(f"{name} {type(transformer).__name__}".encode())
        for key, tensor in transformer.state_dict().items():
            found.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
