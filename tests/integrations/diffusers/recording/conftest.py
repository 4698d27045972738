"""Pipelines small enough to record in a blink."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, WanTransformer3DModel

from easyteacache.reference.architectures import FLUX, WAN
from easyteacache.reference.pipeline import MovingDigitsPipeline


@pytest.fixture
def small_pipeline():
    """A pipeline with an untrained Wan transformer of three narrow blocks that predicts something."""
    return build_pipeline(WanTransformer3DModel, WAN.config, num_layers=3, num_attention_heads=2, ffn_dim=48)


@pytest.fixture
def small_flux_pipeline():
    """The same with a FLUX transformer of two block lists."""
    return build_pipeline(FluxTransformer2DModel, FLUX.config, num_layers=1, num_single_layers=2, num_attention_heads=2)


def build_pipeline(kind: Any, config: dict[str, Any], **changes: Any) -> MovingDigitsPipeline:
    torch.manual_seed(0)
    return MovingDigitsPipeline.from_transformer(kind(**{**config, **changes}).eval())
