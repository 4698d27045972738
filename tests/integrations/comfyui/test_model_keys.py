"""A checkpoint's configuration leads to a model of the registry, or to a sentence that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from easyteacache.integrations.comfyui.model_keys import MODELS, meant_by, unknown
from easyteacache.registry.registry import Registry

FLUX = {
    "image_model": "flux",
    "guidance_embed": True,
    "in_channels": 16,
    "depth": 19,
    "depth_single_blocks": 38,
    "patch_size": 2,
}
WAN = {"image_model": "wan2.1", "model_type": "t2v", "dim": 5120, "in_dim": 16, "out_dim": 16, "patch_size": (1, 2, 2)}


@pytest.mark.parametrize("key", sorted({key for model in MODELS for key in (model.key, *model.also)}))
def test_every_key_leads_to_records_of_the_registry(key: str) -> None:
    assert Registry.default().meant_by(key)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (FLUX, "flux.1/dev"),
        (WAN, "wan2.1/t2v-14b"),
        ({**WAN, "in_dim": 36}, "wan2.2/i2v-a14b"),
        ({**WAN, "dim": 1536}, "wan2.1/t2v-1.3b"),
        ({"image_model": "lumina2", "dim": 3840}, "z-image/turbo"),
        ({"image_model": "hunyuan_video", "in_channels": 16, "patch_size": (1, 2, 2), "guidance_embed": True, "depth": 20}, "hunyuanvideo/t2v"),
    ],
)  # fmt: skip
def test_a_configuration_leads_to_its_model(config: dict[str, Any], key: str) -> None:
    found = meant_by(config)
    assert found is not None
    assert found.key == key


def test_models_of_the_same_configuration_are_named() -> None:
    found = meant_by(FLUX)
    assert found is not None
    assert found.also == ("flux.1/kontext-dev", "flux.1/krea-dev")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"image_model": "flux"},
        {**FLUX, "guidance_embed": False},
        {**FLUX, "in_channels": 96},
        {**FLUX, "depth": 8},
        {**WAN, "model_type": "animate"},
        {"image_model": "made-up"},
    ],
)
def test_another_configuration_is_nobodys(config: dict[str, Any]) -> None:
    assert meant_by(config) is None
    assert "model_key" in unknown(config, "Flux")


def test_the_first_match_is_the_only_one() -> None:
    for model in MODELS:
        config = dict(model.where)
        assert [other.key for other in MODELS if other.matches(config)] == [model.key]
