from __future__ import annotations

import pytest
import torch
from torch import nn

from easyteacache.reference import MovingDigitsPipeline
from easyteacache.reference.architectures import (
    ARCHITECTURES,
    FLUX,
    _pack,
    _unpack,
    architecture_of,
    build_transformer,
    predict_velocity,
)
from easyteacache.reference.prompts import embed_null


def test_packing_is_undone_exactly_and_keeps_patches_together() -> None:
    latents = torch.arange(2 * 16 * 20.0).view(2, 1, 1, 16, 20)
    packed = _pack(latents)
    assert packed.shape == (2, 80, 4)
    assert packed[0, 1].tolist() == [2, 3, 22, 23]
    assert torch.equal(_unpack(packed, 8, 10), latents)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_untrained_transformer_predicts_zero_and_is_recognised(name) -> None:
    architecture = ARCHITECTURES[name]
    transformer = build_transformer(architecture)
    latents = torch.randn(2, 1, 1, 16, 20)
    velocity = predict_velocity(transformer, latents, timestep=torch.tensor([1.0, 999.0]), text=embed_null(2))
    assert architecture_of(transformer) is architecture
    assert velocity.shape == latents.shape
    assert not velocity.any()


def test_foreign_transformer_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="found Linear"):
        architecture_of(nn.Linear(1, 1))


def test_the_pipeline_samples_a_flux_transformer_too() -> None:
    torch.manual_seed(0)
    transformer = build_transformer(FLUX).eval()
    nn.init.normal_(transformer.proj_out.weight, std=0.1)
    pipeline = MovingDigitsPipeline.from_transformer(transformer)
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline([1, "2 up"], 1, 16, 20, 2, seeds=[0, 1]).frames
    assert frames.shape == (2, 1, 16, 20, 1)
    with pytest.raises(ValueError, match=r"num_frames in 1\.\.1, found 2"):
        pipeline(1, num_frames=2)
