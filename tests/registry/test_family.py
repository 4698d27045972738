"""The records of one model: its bare key and its methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyteacache.errors import AmbiguousModelKey, InvalidModelKey, UnknownModelKey
from easyteacache.registry import index
from easyteacache.registry.family import METHODS, model_of, names_method
from easyteacache.registry.registry import Layer, Registry

Make = Callable[..., Any]


def keys(registry: Registry, asked: str) -> list[str]:
    return [found.calibration.model_key for found in registry.of_model(asked)]


@pytest.fixture
def registry(tmp_path: Path, make_record: Make, file_record: Make) -> Registry:
    hub = {"kind": "hub_repository", "value": "Toy-AI/Toy"}
    borrowed = {"kind": "hub_repository", "value": "Toy-AI/Other", "borrowed": True}
    younger = {"kind": "hub_repository", "value": "Toy-AI/Younger"}
    both = {"kind": "hub_repository", "value": "Toy-AI/Both"}
    for key, aliases in {
        "toy": [hub, borrowed],
        "toy/lemica": [],
        "toy/magcache-720p": [],
        "toy/2512": [both],
        "toy/2512/dpcache": [both],
        "toy/younger/meancache": [younger],
        "toy/younger/spectrum": [],
        "toy/no-retention": [],
    }.items():
        file_record(tmp_path / "base", make_record(key=key, aliases=aliases))
    return Registry.from_folder(tmp_path / "base")


def test_a_bare_key_comes_first_and_then_its_methods(registry: Registry) -> None:
    assert keys(registry, "toy") == ["toy", "toy/lemica", "toy/magcache-720p"]
    assert keys(registry, "toy/2512") == ["toy/2512", "toy/2512/dpcache"]


def test_a_model_without_a_record_of_its_own_has_its_methods(registry: Registry) -> None:
    assert keys(registry, "toy/younger") == ["toy/younger/meancache", "toy/younger/spectrum"]


def test_a_method_s_key_leads_to_its_model(registry: Registry) -> None:
    assert keys(registry, "toy/lemica") == ["toy", "toy/lemica", "toy/magcache-720p"]


def test_other_sets_of_one_checkpoint_are_no_methods(registry: Registry) -> None:
    assert keys(registry, "toy/no-retention") == ["toy/no-retention"]


@pytest.mark.parametrize(
    ("alias", "model", "holder"),
    [("Toy-AI/Toy", "toy", "toy"), ("Toy-AI/Younger", "toy/younger", "toy/younger/meancache")],
)
def test_an_alias_leads_to_the_whole_model_and_is_named(
    registry: Registry, alias: str, model: str, holder: str
) -> None:
    assert keys(registry, alias) == keys(registry, model)
    first, *others = registry.of_model(alias)
    assert first.notes == (f"{alias!r} is the hub repository of {holder!r}.",)
    assert all(found.notes == () and found.asked == alias for found in others)


def test_several_records_of_one_model_may_carry_its_alias(registry: Registry) -> None:
    assert keys(registry, "Toy-AI/Both") == ["toy/2512", "toy/2512/dpcache"]
    with pytest.raises(AmbiguousModelKey):
        registry.find("Toy-AI/Both")


def test_borrowed_numbers_stay_alone(registry: Registry) -> None:
    (found,) = registry.of_model("Toy-AI/Other")
    assert found.calibration.model_key == "toy"
    assert "borrowed" in found.notes[0]


def test_what_no_layer_holds_is_an_error(registry: Registry) -> None:
    with pytest.raises(UnknownModelKey, match="toy/younger/meancache"):
        registry.of_model("toy/younge")
    for wrong in (None, 3, "../toy"):
        with pytest.raises(InvalidModelKey):
            registry.of_model(wrong)  # type: ignore[arg-type]


def test_each_method_is_taken_from_the_first_layer_that_has_it(
    registry: Registry, tmp_path: Path, make_record: Make, file_record: Make
) -> None:
    file_record(tmp_path / "mine", make_record(key="toy/lemica", revision=7))
    file_record(tmp_path / "mine", make_record(key="toy/plan-own"))
    layered = Registry([Layer("mine", tmp_path / "mine"), *registry.layers])
    found = {one.calibration.model_key: (one.layer, one.calibration.revision) for one in layered.of_model("toy")}
    assert list(found) == ["toy", "toy/lemica", "toy/magcache-720p", "toy/plan-own"]
    assert found["toy/lemica"] == ("mine", 7)
    assert found["toy/plan-own"] == ("mine", 1)


def test_a_layer_that_comes_before_leads_no_alias_to_another_model(
    registry: Registry, tmp_path: Path, make_record: Make, file_record: Make
) -> None:
    hub = {"kind": "hub_repository", "value": "Toy-AI/Toy"}
    file_record(tmp_path / "pulled", make_record(key="other/lemica", aliases=[hub]))
    layered = Registry([Layer("pulled", tmp_path / "pulled"), *registry.layers])
    assert keys(layered, "Toy-AI/Toy") == keys(registry, "toy")
    assert any("claims this name, too" in note for note in layered.of_model("Toy-AI/Toy")[0].notes)


def test_a_damaged_method_is_left_out_with_a_note(registry: Registry, tmp_path: Path) -> None:
    index.write(tmp_path / "base", index.build(tmp_path / "base"))
    path = tmp_path / "base" / "toy" / "lemica.json"
    path.write_text("{}", "utf-8")
    found = Registry.from_folder(tmp_path / "base").of_model("toy")
    assert [one.calibration.model_key for one in found] == ["toy", "toy/magcache-720p"]
    assert "left out because it is damaged" in found[0].notes[0]
    assert "lemica.json" in found[0].notes[0]


@pytest.mark.parametrize(
    ("key", "model"),
    [
        ("flux.1/dev/magcache-vllm-omni", "flux.1/dev"),
        ("qwen-image/2.1/dpcache", "qwen-image/2.1"),
        ("qwen-image/magcache", "qwen-image"),
        ("qwen-image/2512", "qwen-image/2512"),
        ("magcache", "magcache"),
        ("wan2.1/t2v-14b/no-retention", "wan2.1/t2v-14b/no-retention"),
    ],
)
def test_the_last_part_is_a_method_or_belongs_to_the_model(key: str, model: str) -> None:
    assert model_of(key) == model
    assert names_method(key) == (model != key)


def test_no_bundled_model_is_named_like_a_method() -> None:
    for key in Registry.opened(None):
        assert not {part.split("-")[0] for part in model_of(key).split("/")} & METHODS
