"""Transformers that tools/reference/train.py saved: what is loaded, what is refused, and which commands take them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from easyteacache.bench.subject import load_reference
from easyteacache.cli.main import main
from easyteacache.cli.record import open_pipeline
from easyteacache.errors import ReferenceModelError
from easyteacache.records.trace_set import TraceSet
from easyteacache.reference.architectures import ARCHITECTURES, build_transformer
from easyteacache.reference.saved import is_saved, load_saved


def saved(name: Any, folder: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """An untrained transformer of reference size that predicts something, in ``folder/transformer``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = build_transformer(ARCHITECTURES[name])
        torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
    transformer.to(dtype).save_pretrained(folder / "transformer")
    return transformer.eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("exported") / request.param
    return folder, saved(request.param, folder)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def latents(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe("3 right", 1, 16, 16, 3, seeds=[0], output_type="latent", return_dict=False)[0]


def test_what_was_saved_samples_the_same(exported: tuple[Path, Any]) -> None:
    from easyteacache.reference import MovingDigitsPipeline

    folder, transformer = exported
    expected = latents(MovingDigitsPipeline.from_transformer(transformer))
    assert expected.any()
    for place in (folder, folder / "transformer"):
        assert is_saved(place)
        pipe = load_saved(place)
        assert type(pipe.transformer) is type(transformer)
        assert not pipe.transformer.training
        torch.testing.assert_close(latents(pipe), expected)


def test_half_precision_on_disk_is_sampled_in_single(tmp_path: Path) -> None:
    saved("wan", tmp_path, dtype=torch.float16)
    assert {p.dtype for p in load_saved(tmp_path).transformer.parameters()} == {torch.float32}


def test_what_is_no_saved_transformer_is_told_apart(exported: tuple[Path, Any], tmp_path: Path) -> None:
    assert not is_saved(tmp_path)
    assert not is_saved(tmp_path / "nowhere")
    folder, _ = exported
    whole = load_saved(folder)
    whole.save_pretrained(tmp_path / "pipeline")
    assert (tmp_path / "pipeline" / "model_index.json").exists()
    assert not is_saved(tmp_path / "pipeline")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"_class_name": "UNet2DModel"}', "found UNet2DModel"),
        ("{}", "found no class name"),
        ('{"_class_name": 3}', "found no class name"),
        ("[]", "found no class name"),
        ("{", "not complete, valid JSON"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, config: str, message: str) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(config)
    with pytest.raises(ReferenceModelError, match=message):
        load_saved(tmp_path)


def test_a_folder_without_a_transformer_or_without_weights_is_refused(
    exported: tuple[Path, Any], tmp_path: Path
) -> None:
    with pytest.raises(ReferenceModelError, match=r"found no config\.json"):
        load_saved(tmp_path / "nowhere")
    folder, _ = exported
    config = (folder / "transformer" / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ReferenceModelError, match="not a saved"):
        load_saved(tmp_path)


@pytest.mark.parametrize("damage", ["cut", {"attention_head_dim": 48}, {"num_layers": 4}, {"num_layers": 2}])
def test_damaged_weights_and_those_of_another_size_are_refused(tmp_path: Path, damage: str | dict[str, int]) -> None:
    saved("flux", tmp_path)
    [weights] = (tmp_path / "transformer").glob("*.safetensors")
    if isinstance(damage, str):
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        config = json.loads((tmp_path / "transformer" / "config.json").read_text())
        (tmp_path / "transformer" / "config.json").write_text(json.dumps({**config, **damage}))
    with pytest.raises(ReferenceModelError, match="not a saved FluxTransformer2DModel"):
        load_saved(tmp_path)


@pytest.mark.parametrize("change", [{"in_channels": 16}, {"joint_attention_dim": 32}])
def test_a_transformer_that_takes_other_latents_or_text_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    from diffusers import FluxTransformer2DModel

    FluxTransformer2DModel(**{**ARCHITECTURES["flux"].config, **change}).save_pretrained(tmp_path)
    with pytest.raises(ReferenceModelError, match=next(iter(change))):
        load_saved(tmp_path)


# Commands -----------------------------------------------------------------------------------------------------------------


def test_record_takes_it_with_the_reference_prompts(exported: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = exported
    small = ("--size", "16x16", "--frames", "1", "--steps", "3", "--num-prompts", "2")
    result = invoke("record", folder, "--out", tmp_path / "traces", *small)
    assert result.exit_code == 2
    assert "--model-key is needed" in result.output
    result = invoke("record", folder, "--model-key", "test/saved", "--out", tmp_path / "traces", *small)
    assert result.exit_code == 0, result.output
    runs = TraceSet.load(tmp_path / "traces")
    assert len(runs) == 2
    assert all(re.fullmatch(r"\d [a-z-]+", run.header.prompt or "") for run in runs)
    assert {run.header.model.checkpoint for run in runs} == {folder.name}
    assert {run.header.sampler.name for run in runs} == {"FlowMatchEulerDiscreteScheduler"}


def test_a_number_type_may_be_asked_for(exported: tuple[Path, Any]) -> None:
    folder, _ = exported
    assert open_pipeline(str(folder), device="cpu").transformer.dtype == torch.float32
    assert open_pipeline(str(folder), dtype="bfloat16", device="cpu").transformer.dtype == torch.bfloat16


def test_the_benchmark_takes_it(exported: tuple[Path, Any]) -> None:
    folder, transformer = exported
    subject = load_reference(folder)
    assert type(subject.pipe.transformer) is type(transformer)
    assert subject.key is None
    assert folder.name in subject.name


def test_the_demo_takes_it_or_says_why_not(exported: tuple[Path, Any], tmp_path: Path) -> None:
    folder, transformer = exported
    small = ("--steps", "8", "--size", "16", "--samples", "1", "--threshold", "0.1", "--out", tmp_path / "out")
    result = invoke("demo", "--model-path", folder, "--frames", "1", *small)
    if type(transformer).__name__ == "WanTransformer3DModel":
        assert result.exit_code == 0, result.output
        return
    # The packaged calibration is the Wan model's own.
    assert result.exit_code == 1
    assert "FluxTransformer2DModel" in result.output.replace("\n", " ")


def test_the_demo_refuses_more_frames_than_the_model_draws(tmp_path: Path) -> None:
    saved("flux", tmp_path)
    result = invoke("demo", "--model-path", tmp_path, "--frames", "4", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "num_frames" in result.output
    assert not (tmp_path / "out").exists()
