"""Files that say they are another engine's: whatever stands in them, one sentence comes of it, and soon."""

from __future__ import annotations

import json
import warnings

import pytest

from easyteacache.errors import InvalidCalibration
from easyteacache.export import read
from easyteacache.export.parsed import LONGEST_REASON, MAX_SCALAR, MAX_YAML_CHARACTERS
from easyteacache.files import python_source

PYTHON = ("python", "cache-dit-python", "diffusers", "xdit", "comfyui-teacache")
YAML = ("tensorrt-llm", "cache-dit")


def refusal(text: str, engine: str) -> str:
    with pytest.raises(InvalidCalibration) as caught:
        read(text, engine, file="f", model_key="flux.1/own", title=None, modality="image")
    assert caught.value.rule == "import.format"
    return caught.value.reason


@pytest.mark.parametrize("engine", YAML)
@pytest.mark.parametrize(
    "value",
    [
        *("2001-99-99", "2001-12-14t21:59:43.10-99:99", "9" * 4400, "!!int abc", "!!float abc", "!!bool abc"),
        *("!!timestamp abc", '!!int ""', "1" + ":1" * 1500 + ".5", '!!binary "///"'),
    ],
)
def test_a_yaml_value_that_is_not_what_it_says_is_refused(engine: str, value: str) -> None:
    assert "YAML" in refusal(f"cache_config:\n  coefficients: [1, 2, 3, 4, {value}]\n", engine)


@pytest.mark.parametrize("engine", YAML)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cache_config: " + "[" * 100_000, "nested deeper than 32 levels"),
        ("{a: " * 20_000, "nested deeper than 32 levels"),
        ("- " * 100_000, "nested deeper than 32 levels"),
        ("cache_config:\n  a: 1" + ":1" * 100_000, f"at most {MAX_SCALAR} are read"),
        ("a: 1\n" * MAX_YAML_CHARACTERS, f"at most {MAX_YAML_CHARACTERS} of YAML are read"),
    ],
)
def test_yaml_that_costs_more_than_its_size_is_refused(engine: str, text: str, said: str) -> None:
    assert said in refusal(text, engine)


@pytest.mark.parametrize(("engine", "text"), [
    ("tensorrt-llm", "cache_config:\n  cache_backend: teacache\n  teacache_thresh: {}\n  coefficients: [1, 2, 3, 4, 5]\n"),
    ("diffusers", "config = MagCacheConfig(threshold={}, num_inference_steps=4, mag_ratios=[1.0, 0.9, 0.9, 0.9])\n"),
])  # fmt: skip
def test_an_integer_that_no_float_can_hold_is_refused(engine: str, text: str) -> None:
    assert "expected a finite number" in refusal(text.format("1" + "0" * 400), engine)


@pytest.mark.parametrize(
    "engine", ["vllm-omni", "sglang-request", "lightx2v", "wan2gp", "seed", "json", "sglang-dpcache"]
)
@pytest.mark.parametrize("key", [True, 1.5, ["flux.1/dev"], None])
def test_an_origin_whose_model_key_is_no_text_names_no_model(engine: str, key: object) -> None:
    content = {"_easyteacache": {"model_key": key}, "coefficients": [1, 2, 3, 4, 5]}
    content["model"] = dict(content)
    with pytest.raises(InvalidCalibration):
        read(json.dumps(content), engine, file="f", model_key=None, title=None, modality="image")


@pytest.mark.parametrize("engine", PYTHON)
@pytest.mark.parametrize(
    "text", ["x = a" + ".b" * 700 + "(k=1)", "f" + "()" * 700 + "(k=1)", "x = a" + "[0]" * 700 + "()"]
)
def test_a_chain_of_names_or_calls_does_not_end_the_stack(engine: str, text: str) -> None:
    refusal(text, engine)


@pytest.mark.parametrize("engine", PYTHON)
def test_python_longer_than_anybody_writes_is_not_parsed(engine: str) -> None:
    assert "of Python are read" in refusal("x = [" + "1," * python_source.MAX_CHARACTERS + "]", engine)


def test_what_the_compiler_thinks_of_somebodys_python_is_not_said() -> None:
    text = 'COEFFICIENTS = [1.0, 2.0, 3.0, 4.0, 5.0]\nx = "\\d"\ny = 0in []\n'
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(python_source.parse(text).body) == 3
    assert said == []


def test_a_refusal_does_not_repeat_the_file() -> None:
    text = f"sd --cache-mode {'9' * 5000} --scm-mask 1,0"
    assert len(refusal(text, "stable-diffusion.cpp")) <= LONGEST_REASON + 1
