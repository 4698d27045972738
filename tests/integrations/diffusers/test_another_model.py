"""Another model's numbers do not attach silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from diffusers import FluxTransformer2DModel, WanTransformer3DModel

from easyteacache import TeaCache
from easyteacache.errors import AttachError
from easyteacache.records import calibration
from easyteacache.registry.registry import Registry


@pytest.fixture
def wan() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=32, ffn_dim=32, num_layers=2,
    )  # fmt: skip


@pytest.fixture
def flux() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def test_a_record_of_another_family_is_refused_with_both_names(wan: Any) -> None:
    with pytest.raises(AttachError, match=r"flux\.1/dev.*FluxTransformer2DModel.*WanTransformer3DModel"):
        TeaCache.from_registry("flux.1/dev", threshold=0.4).attach(wan)


def test_wans_numbers_are_refused_on_flux(flux: Any) -> None:
    with pytest.raises(AttachError, match="another model's numbers"):
        TeaCache.from_registry("reference/moving-digits").attach(flux)


def test_borrowed_numbers_attach_when_asked_for(wan: Any) -> None:
    cache = TeaCache.from_registry("flux.1/dev", threshold=0.4)
    with cache.attached(wan, allow_borrowed=True):
        assert cache.policy.model_key == "flux.1/dev"


def test_a_refusal_leaves_the_model_free(wan: Any) -> None:
    with pytest.raises(AttachError):
        TeaCache.from_registry("flux.1/dev", threshold=0.4).attach(wan)
    TeaCache.from_registry("wan2.1/t2v-14b").attach(wan).detach()


@pytest.mark.parametrize("key", ["my-studio/video-model", "reference/another-one"])
def test_ones_own_record_that_names_no_model_attaches_to_what_it_is_attached_to(
    flux: Any, tmp_path: Path, key: str
) -> None:
    record = calibration.load(Path(__file__).resolve().parents[3] / "registry" / "reference" / "moving-digits.json")
    place = tmp_path / f"{key}.json"
    place.parent.mkdir()
    calibration.save(record.model_copy(update={"model_key": key, "model": None}), place)
    cache = TeaCache.from_registry(key, registry=Registry.from_folder(tmp_path))
    cache.attach(flux).detach()
