from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from safetensors.torch import load_file

from easyteacache.errors import ReferenceModelError
from easyteacache.reference import MovingDigitsPipeline
from easyteacache.reference.pipeline import WEIGHTS

STEPS = 3
MEBIBYTE = 2**20


def latents_of(pipeline: MovingDigitsPipeline, prompt, **arguments) -> torch.Tensor:
    arguments = {"num_frames": 2, "num_inference_steps": STEPS, **arguments}
    return pipeline(prompt, output_type="latent", **arguments).frames


class ContextRecorder(ModelHook):
    """A stateful hook that notes the branch of every forward, as a cache does."""

    _is_stateful = True

    def __init__(self) -> None:
        super().__init__()
        self.branches: list[str] = []
        self.resets = 0
        self.states = StateManager(BaseState)

    def pre_forward(self, module, *args, **kwargs):
        self.branches.append(self.states.context.name)
        return args, kwargs

    def reset_state(self, module):
        self.resets += 1
        return module


@pytest.fixture
def recorder(reference):
    registry = HookRegistry.check_if_exists_or_initialize(reference.transformer)
    hook = ContextRecorder()
    registry.register_hook(hook, "context_recorder")
    yield hook
    registry.remove_hook("context_recorder")


def test_reference_is_the_real_wan_class_in_single_precision(reference) -> None:
    assert type(reference.transformer) is WanTransformer3DModel
    assert reference.transformer.dtype == torch.float32
    assert not reference.transformer.training
    assert sum(p.numel() for p in reference.transformer.parameters()) == 993_316


def test_packaged_weights_are_half_precision_and_small() -> None:
    file = WEIGHTS / "transformer" / "diffusion_pytorch_model.safetensors"
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 4 * MEBIBYTE


def test_a_seed_determines_the_video(reference) -> None:
    first, again, other = (latents_of(reference, 3, seeds=[seed]) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)


def test_prompt_and_direction_change_the_video(reference) -> None:
    three, seven, three_up = (latents_of(reference, text, seeds=[5]) for text in ("3", "7", "3 up"))
    assert not torch.allclose(three, seven, atol=0.1)
    assert not torch.allclose(three, three_up, atol=1e-3)


def test_batch_with_one_seed_per_prompt_equals_single_runs(reference) -> None:
    batch = latents_of(reference, [1, "8 left"], seeds=[10, 11])
    singles = [latents_of(reference, 1, seeds=[10]), latents_of(reference, "8 left", seeds=[11])]
    torch.testing.assert_close(batch, torch.cat(singles), atol=1e-4, rtol=0)


def test_seeds_are_short_for_a_list_of_generators(reference) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in (10, 11)]
    by_generators = latents_of(reference, [1, 2], generator=generators)
    assert torch.equal(by_generators, latents_of(reference, [1, 2], seeds=[10, 11]))


def test_saved_pipeline_loads_and_samples_identically(reference, tmp_path: Path) -> None:
    reference.save_pretrained(tmp_path)
    loaded = MovingDigitsPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.scheduler.config.shift == reference.scheduler.config.shift == 3
    for name, tensor in reference.transformer.state_dict().items():
        assert torch.equal(loaded.transformer.state_dict()[name], tensor)
    # Weights read from another file lie elsewhere in memory, which may choose another matrix kernel.
    expected = latents_of(reference, 4, seeds=[1])
    torch.testing.assert_close(latents_of(loaded, 4, seeds=[1]), expected, atol=1e-4, rtol=0)


def test_branches_reach_stateful_hooks_and_hooks_are_reset_afterwards(reference, recorder) -> None:
    latents_of(reference, 4, seeds=[1])
    assert recorder.branches == ["cond", "uncond"] * STEPS
    assert recorder.resets == 1


def test_guidance_scale_of_one_computes_no_unconditional_branch(reference, recorder) -> None:
    latents_of(reference, 4, seeds=[1], guidance_scale=1.0)
    assert recorder.branches == ["cond"] * STEPS


def test_callback_sees_every_step_and_may_replace_latents(reference) -> None:
    seen = []

    def blank(pipe, step, timestep, tensors):
        seen.append((step, float(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = latents_of(reference, 4, seeds=[1], callback_on_step_end=blank)
    assert [step for step, _ in seen] == list(range(STEPS))
    assert seen[0][1] == 1000
    assert not latents.any()


def test_callback_may_interrupt(reference, recorder) -> None:
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True
        return tensors

    latents_of(reference, 4, seeds=[1], callback_on_step_end=stop)
    assert recorder.branches == ["cond", "uncond"]


def test_given_latents_are_the_initial_noise(reference) -> None:
    noise = reference.prepare_latents((1, 1, 2, 16, 16), seeds=[7])
    assert torch.equal(latents_of(reference, 4, latents=noise), latents_of(reference, 4, seeds=[7]))


def test_shift_holds_for_one_call(reference) -> None:
    usual = latents_of(reference, 4, seeds=[1])
    assert not torch.allclose(latents_of(reference, 4, seeds=[1], shift=8.0), usual, atol=1e-3)
    assert torch.equal(latents_of(reference, 4, seeds=[1]), usual)


def test_scheduler_can_be_swapped(reference) -> None:
    euler = latents_of(reference, 4, seeds=[1], num_inference_steps=20)
    reference.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    swapped = latents_of(reference, 4, seeds=[1], num_inference_steps=20)
    assert (swapped - euler).abs().mean() < 0.1
    assert not torch.allclose(latents_of(reference, 4, seeds=[1], num_inference_steps=20, shift=8.0), swapped)


def test_output_types_show_the_same_video(reference) -> None:
    def sample(output_type):
        return reference([4, 5], 2, 16, 20, STEPS, seeds=[1, 2], output_type=output_type).frames

    latent, array, tensor, pictures = (sample(kind) for kind in ("latent", "np", "pt", "pil"))
    assert latent.shape == (2, 1, 2, 16, 20)
    assert array.shape == (2, 2, 16, 20, 1)
    np.testing.assert_allclose(array[..., 0], (latent[:, 0] / 2 + 0.5).clamp(0, 1).numpy(), atol=1e-6)
    np.testing.assert_array_equal(tensor.numpy()[:, :, 0], array[..., 0])
    assert pictures[1][0].size == (20, 16)
    np.testing.assert_allclose(np.asarray(pictures[1][0]) / 255, array[1, 0, ..., 0], atol=1 / 255)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"num_frames": 9}, r"num_frames in 1\.\.8, found 9"),
        ({"height": 17}, "height even and at least 16, found 17"),
        ({"width": 8}, "width even and at least 16, found 8"),
        ({"width": 258}, "width of at most 256, found 258"),
        ({"seeds": [1, 2]}, r"one generator or seed per prompt \(1\), found 2"),
        ({"seeds": [1], "latents": torch.zeros(1, 1, 4, 16, 16)}, "at most one of generator, seeds and latents"),
        ({"latents": torch.zeros(1, 1, 4, 16, 18)}, r"shape \(1, 1, 4, 16, 16\), found \(1, 1, 4, 16, 18\)"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "among latents, .* found noise"),
    ],
)
def test_impossible_requests_are_refused(reference, arguments, complaint) -> None:
    with pytest.raises(ReferenceModelError, match=complaint):
        reference(4, **arguments)


def test_no_prompt_at_all_is_refused(reference) -> None:
    with pytest.raises(ReferenceModelError, match="at least one prompt"):
        reference([])


def test_missing_weights_are_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("easyteacache.reference.pipeline.WEIGHTS", tmp_path)
    with pytest.raises(ReferenceModelError, match="reinstall easyteacache"):
        MovingDigitsPipeline.from_reference()
