"""A record attaches to the model it was made with; what differs in its state is told of; it is found wherever the weights lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import flux, wan

from easyteacache import TeaCache
from easyteacache.errors import AmbiguousModelKey, AttachError, EasyTeaCacheWarning, UnknownModelKey
from easyteacache.integrations.diffusers import model_identity
from easyteacache.policy.policy import resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.calibration import Calibration, save
from easyteacache.records.model_identity import ActiveAdapter, ModelIdentity
from easyteacache.registry import index
from easyteacache.registry.registry import Layer, Registry

Make = Callable[..., Any]


def record(model: ModelIdentity | None, key: str = "mine/model", **changes: Any) -> Calibration:
    content = {
        "schema_version": 3,
        "model_key": key,
        "revision": 1,
        "status": "draft",
        "title": "Mine",
        "modality": "video",
        "method": "teacache",
        "signal": "timestep_projection",
        "buckets": [{"coefficients": [1.0, 0.0], "operating_points": [{"threshold": 0.1}]}],
        "provenance": {},
        **({} if model is None else {"model": model.model_dump(mode="json", exclude_none=True)}),
        **changes,
    }
    return Calibration.from_mapping(content)


@pytest.fixture
def filed(tmp_path: Path) -> Callable[..., Registry]:
    def make(*records: Calibration) -> Registry:
        for one in records:
            path = tmp_path / f"{one.model_key}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(one, path)
        index.write(tmp_path, index.build(tmp_path))
        return Registry.from_folder(tmp_path)

    return make


def test_a_record_made_on_flux_is_refused_on_wan_whatever_its_key(filed: Make) -> None:
    layers = filed(record(model_identity.of_class(flux().transformer)))
    cache = TeaCache.from_registry("mine/model", threshold=0.1, registry=layers)
    with pytest.raises(AttachError, match="runs in FluxTransformer2DModel, this is a WanTransformer3DModel"):
        cache.attach(wan())
    cache.attach(wan(), allow_borrowed=True).detach()


def test_another_configuration_of_the_class_is_refused_unless_borrowed(filed: Make) -> None:
    pipe = wan()
    other = model_identity.of_class(pipe.transformer).model_copy(update={"configuration_sha256": "0" * 64})
    cache = TeaCache.from_registry("mine/model", threshold=0.1, registry=filed(record(other)))
    with pytest.raises(AttachError, match="another configuration"):
        cache.attach(pipe)
    cache.attach(pipe, allow_borrowed=True).detach()


def test_its_own_model_is_attached_without_a_word(filed: Make) -> None:
    pipe = wan()
    layers = filed(record(model_identity.of_run(pipe.transformer)))
    TeaCache.from_registry("mine/model", threshold=0.1, registry=layers).attach(pipe).detach()


@pytest.mark.parametrize("bare", [True, False])
def test_for_pipeline_finds_it_by_class_and_configuration_in_another_folder(
    bare: bool, filed: Make, tmp_path: Path
) -> None:
    pipe = wan()
    layers = filed(record(model_identity.of_class(pipe.transformer)))
    folder = tmp_path / "moved" / "transformer"
    pipe.transformer.save_pretrained(folder)
    pipe.transformer = type(pipe.transformer).from_pretrained(folder)
    if not bare:
        pipe.register_to_config(_name_or_path=str(folder.parent))
    assert TeaCache.for_pipeline(pipe, threshold=0.1, registry=layers).policy.model_key == "mine/model"


def test_what_was_pulled_displaces_no_other_layer_s_record_of_the_configuration(tmp_path: Path) -> None:
    known, layers = model_identity.of_class(wan().transformer), []
    for name, key in (("pulled", "theirs/model"), ("bundled", "ours/model")):
        path = tmp_path / name / f"{key}.json"
        path.parent.mkdir(parents=True)
        save(record(known, key), path)
        layers.append(Layer(name, tmp_path / name, foreign=name == "pulled"))
    found = TeaCache.for_pipeline(wan(), threshold=0.1, registry=Registry(layers))
    assert found.policy.model_key == "ours/model"
    alone = TeaCache.for_pipeline(wan(), threshold=0.1, registry=Registry(layers[:1]))
    assert alone.policy.model_key == "theirs/model"


def test_two_records_of_one_configuration_are_ambiguous(filed: Make) -> None:
    known = model_identity.of_class(wan().transformer)
    layers = filed(record(known, "mine/one"), record(known, "mine/two"))
    with pytest.raises(AmbiguousModelKey, match=r"mine/one.*mine/two"):
        TeaCache.for_pipeline(wan(), threshold=0.1, registry=layers)


def test_where_there_is_none_the_records_of_the_class_are_listed_and_how_to_name_one() -> None:
    with pytest.raises(UnknownModelKey) as error:
        TeaCache.for_pipeline(wan(), threshold=0.1)
    said = str(error.value)
    assert "WanTransformer3DModel" in said
    assert "'wan2.1/t2v-14b'" in said
    assert "TeaCache.from_registry(" in said
    assert "flux" not in said
    assert "easyteacache record" in said


def test_both_experts_of_wan_2_2_are_served_by_the_records_of_the_whole_run() -> None:
    import diffusers
    from tiny_pipelines import flow_matching, t5, tokenizer, wan_transformer, wan_vae

    pipe = diffusers.WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=wan_vae(),
        scheduler=flow_matching(),
        transformer=wan_transformer(),
        transformer_2=wan_transformer(),
        boundary_ratio=0.8,
    )
    pipe.register_to_config(_name_or_path="Wan-AI/Wan2.2-T2V-A14B-Diffusers")
    caches = TeaCache.for_pipeline(pipe)
    assert {name: policy.model_key for name, policy in caches.policies.items()} == {
        "transformer": "wan2.2/t2v-a14b/cachedit",
        "transformer_2": "wan2.2/t2v-a14b/cachedit",
    }
    caches.attach(pipe)
    caches.detach()
    with pytest.raises(AttachError, match="two transformers, and a cache serves one of them"):
        TeaCache.from_registry("wan2.2/t2v-a14b/cachedit").attach(pipe)


MADE = ModelIdentity(class_name="A", dtype="float32", adapters=(ActiveAdapter(name="style", scale=1.0),))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"quantization": "bitsandbytes"}, "bitsandbytes"),
        ({"adapters": ()}, "no adapters act"),
        ({"adapters": (ActiveAdapter(name="style", scale=0.5),)}, r"style at 0\.5 act"),
        ({"adapters": (ActiveAdapter(name="other", scale=1.0),)}, "other at 1 act"),
    ],
)
def test_what_differs_in_the_model_s_state_is_a_warning_and_no_promise(change: dict[str, Any], word: str) -> None:
    import re

    evidence = {"kind": "submitted", "how": "replayed", "metric": "relative-l2", "value": 0.01, "speedup": 1.5}
    points = [{"threshold": 0.1, "evidence": [evidence]}]
    made = record(MADE, buckets=[{"coefficients": [1.0, 0.0], "domain": [0.0, 1.0], "operating_points": points}])
    same = resolve(made, Request(speedup=1.5), RunContext(model=MADE))
    assert (same.warnings, same.expected_error) == ((), 0.01)
    other = resolve(made, Request(speedup=1.5), RunContext(model=MADE.model_copy(update=change)))
    assert len(other.warnings) == 1
    assert re.search(word, other.warnings[0])
    assert set(other.warnings) <= set(other.notes)
    assert other.expected_error is None


def test_the_number_type_of_a_run_is_seen_by_the_driver(filed: Make) -> None:
    from tiny_pipelines import sample

    pipe = wan()
    made = model_identity.of_run(pipe.transformer).model_copy(update={"dtype": "bfloat16"})
    cache = TeaCache.from_registry("mine/model", threshold=0.1, num_steps=8, registry=filed(record(made)))
    with cache.attached(pipe), pytest.warns(EasyTeaCacheWarning, match="bfloat16, this transformer runs in float32"):
        sample(pipe, "wan", steps=8)


def test_quantisation_is_read_from_the_configuration() -> None:
    @dataclasses.dataclass
    class Config:
        quant_method: str = "torchao"

    for found in ({"quant_method": "torchao"}, Config()):
        transformer = wan().transformer
        transformer.register_to_config(quantization_config=found)
        assert model_identity.quantization(transformer) == "torchao"
    assert model_identity.quantization(torch.nn.Linear(1, 1)) is None
