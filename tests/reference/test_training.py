from __future__ import annotations

import dataclasses
import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from easyteacache.errors import ReferenceModelError
from easyteacache.reference.digits import load_glyphs
from easyteacache.reference.training import Training, TrainingSettings, draw_example, draw_shape

SMALL = TrainingSettings(steps=6, tokens_per_step=128, warm_up_steps=2)


def load_tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "reference" / "train.py"
    spec = importlib.util.spec_from_file_location("train_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.fixture
def checkpoint_path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "wan.pt"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["wan", "flux"])
def test_interrupted_run_resumes_bit_for_bit(architecture, checkpoint_path: Path) -> None:
    tool, settings = load_tool(), dataclasses.replace(SMALL, architecture=architecture)
    whole, first, rest = (Training(settings) for _ in range(3))
    losses = [whole.step() for _ in range(6)]
    begun = [first.step() for _ in range(3)]
    tool.save_checkpoint(first, checkpoint_path)
    tool.resume(rest, checkpoint_path)
    assert begun + [rest.step() for _ in range(3)] == losses
    assert same_weights(rest.transformer, whole.transformer)
    assert same_weights(rest.ema, whole.ema)
    assert not same_weights(rest.ema, first.ema)


@pytest.mark.slow
def test_checkpoint_of_other_settings_is_refused() -> None:
    state = Training(SMALL).state_dict()
    with pytest.raises(ReferenceModelError, match="written with"):
        Training(dataclasses.replace(SMALL, seed=1)).load_state_dict(state)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["wan", "flux"])
def test_a_few_steps_lower_the_loss(architecture) -> None:
    settings = TrainingSettings(architecture=architecture, steps=24, tokens_per_step=256, warm_up_steps=5)
    training = Training(settings)
    losses = [training.step() for _ in range(settings.steps)]
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])


def test_learning_rate_warms_up_stays_and_decays_to_nothing() -> None:
    settings = TrainingSettings(steps=100, warm_up_steps=10, decay_from=0.5)
    rates = [settings.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(settings.learning_rate / 10)
    assert rates[10:51] == [settings.learning_rate] * 41
    assert rates[75] == pytest.approx(settings.learning_rate / 2)
    assert rates[100] == 0


def test_examples_follow_from_seed_and_step() -> None:
    first, again, next_one = (draw_example(SMALL, step) for step in (3, 3, 4))
    assert torch.equal(first.noise, again.noise)
    assert first.noise.shape != next_one.noise.shape or not torch.equal(first.noise, next_one.noise)
    assert first.sigma.min() > 0
    assert first.sigma.max() < 1


def test_examples_of_other_glyphs_show_other_handwriting() -> None:
    usual, unseen = draw_example(SMALL, 3), draw_example(SMALL, 3, glyphs=load_glyphs("held_out"))
    assert not torch.equal(usual.latents, unseen.latents)


def test_shapes_cover_what_the_model_is_for() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = {draw_shape(generator, max_frames=8) for _ in range(3000)}
    assert {frames for frames, _, _ in drawn} == set(range(1, 9))
    assert {size for _, height, width in drawn for size in (height, width)} == {16, 20, 24, 28, 32}
    assert {draw_shape(generator, max_frames=1)[0] for _ in range(50)} == {1}


@pytest.mark.slow
def test_command_trains_resumes_and_exports(checkpoint_path: Path, tmp_path: Path, monkeypatch) -> None:
    tool = load_tool()
    monkeypatch.setattr(tool.evaluation, "PICTURE_SHAPES", ((1, 16, 16),))
    arguments = ["--architecture", "flux", "--steps", "2", "--checkpoint", str(checkpoint_path)]
    result = CliRunner().invoke(tool.main, [*arguments, "--export", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0
    weights = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert (tmp_path / "out" / "samples.png").read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(tool.main, arguments, catch_exceptions=False)
    assert "2 of 2 steps done" in again.output


def test_interrupting_the_command_keeps_what_was_done(checkpoint_path: Path, monkeypatch) -> None:
    tool, training, steps = load_tool(), Training(SMALL), iter([False, False, True])

    def interrupted_step() -> float:
        if next(steps):
            raise KeyboardInterrupt
        training.done += 1
        return 1.0

    monkeypatch.setattr(training, "step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        tool.train(training, checkpoint_path, save_every=100)
    assert torch.load(checkpoint_path, weights_only=True)["done"] == 2


def test_command_without_checkpoint_says_what_is_missing() -> None:
    result = CliRunner().invoke(load_tool().main, [])
    assert result.exit_code == 2
    assert "--checkpoint FILE is needed" in result.output


@pytest.mark.slow
def test_command_evaluates_the_packaged_model_at_chosen_shapes(monkeypatch) -> None:
    tool = load_tool()
    monkeypatch.setattr(tool.evaluation, "held_out_loss", functools.partial(tool.evaluation.held_out_loss, batches=1))
    options = ["--evaluate", "--shape", "1x16x16", "--shape", "1x16x20", "--samples", "10", "--sampling-steps", "8"]
    lines = CliRunner().invoke(tool.main, options, catch_exceptions=False).stdout.splitlines()
    assert lines[0].startswith("held-out loss 0.")
    assert [line.split()[:4] for line in lines[-2:]] == [["1", "16", "16", "64"], ["1", "16", "20", "80"]]
    assert int(lines[-1].split("(")[1].split("/")[0]) >= 8


@pytest.mark.parametrize("text", ["4x16", "4x16x16x1", "4xAx16", ""])
def test_unreadable_shape_is_refused(text: str) -> None:
    result = CliRunner().invoke(load_tool().main, ["--evaluate", "--shape", text])
    assert result.exit_code == 2
    assert "FRAMESxHEIGHTxWIDTH" in result.output
