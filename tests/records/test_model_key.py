"""Model keys: what is one, what is none, and that no key leaves the folder its file lives in."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.errors import EasyTeaCacheError, InvalidModelKey
from easyteacache.records import model_key

GOOD = [
    *("wan2.1/t2v-14b", "wan2.2/t2v-a14b/high-noise", "qwen-image", "a", "1", "a/b/c/d/e", "flux.1/dev", "x_y/z-1.0_b"),
    *("console/model", "auxiliary", "nullable/v1", "com", "com10", "lpt0", "indexer", "json", "a.jsonl"),
    "a/" + "b" * 118,
]
BAD = {
    "": "empty",
    "/etc/passwd": "an absolute path",
    "//server/share": "an absolute path",
    "C:/model": "an absolute path",
    "c:model": "an absolute path",
    "..": "'.' or '..'",
    "../a": "'.' or '..'",
    "a/../b": "'.' or '..'",
    "a/./b": "'.' or '..'",
    "a/..": "'.' or '..'",
    "a..b": "contains '..'",
    "a//b": "an empty name",
    "a/": "an empty name",
    "a\\b": "a backslash",
    "..\\a": "a backslash",
    "a/b/c/d/e/f": "at most 5",
    "Wan2.1/t2v": "did you mean 'wan2.1/t2v'",
    ".hidden": "begins or ends",
    "a/.git": "begins or ends",
    "a.": "begins or ends",
    "a/b.": "begins or ends",
    "-a": "begins or ends",
    "a b": "other than",
    " a": "other than",
    "a\n": "other than",
    "a/b\n": "other than",
    "a\x00b": "other than",
    "a%2e%2e": "other than",
    "a*": "other than",
    "a?b": "other than",
    "~": "other than",
    "$home": "other than",
    "con": "reserved",
    "a/nul": "reserved",
    "aux.v1": "reserved",
    "com1/model": "reserved",
    "lpt9.tar.gz": "reserved",
    "index": "clash",
    "a/index/b": "clash",
    "a.json": "clash",
    "a.json/b": "clash",
    "w\u0430n": "outside ASCII",  # Cyrillic a
    "ｗan": "outside ASCII",
    "a\u2215b": "outside ASCII",  # division slash
    "a\uff0fb": "outside ASCII",  # full-width slash
    "a\u2024\u2024b": "outside ASCII",  # one-dot leaders
    "a\u200bb": "outside ASCII",  # zero-width space
    "a\u0301": "outside ASCII",  # combining accent
    "ﬁ": "outside ASCII",  # ligature, becomes "fi" under NFKC
    "ı": "outside ASCII",  # dotless i, upper-cases to I
    "\u212a": "outside ASCII",  # Kelvin sign, lower-cases to k
    "\ud800": "outside ASCII",
    "a" * 121: "at most 120",
    "a" * 1_000_000: "at most 120",
}


@pytest.mark.parametrize("key", GOOD)
def test_a_key_is_also_its_path(key):
    assert model_key.parse(key) == tuple(key.split("/"))
    assert model_key.is_valid(key)
    assert model_key.path_of(key) == PurePosixPath(f"{key}.json")
    assert model_key.key_of(model_key.path_of(key)) == key


@pytest.mark.parametrize("key", BAD, ids=range(len(BAD)))
def test_anything_else_is_refused_with_its_reason(key):
    assert not model_key.is_valid(key)
    with pytest.raises(InvalidModelKey) as refused:
        model_key.parse(key)
    assert BAD[key] in refused.value.reason
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()
    for function in (model_key.path_of, lambda key: model_key.key_of(PurePosixPath(f"{key}.json"))):
        if function is model_key.path_of or str(PurePosixPath(f"{key}.json")) == f"{key}.json":
            with pytest.raises(InvalidModelKey):
                function(key)


@pytest.mark.parametrize("key", [None, 1, 2.5, b"a/b", ["a"], ("a",), Path("a/b"), object])
def test_only_text_is_a_key(key):
    assert not model_key.is_valid(key)
    with pytest.raises(InvalidModelKey, match="not text"):
        model_key.parse(key)


@given(st.text(alphabet="abz019._-/\\ A\n\u0430", max_size=30))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_no_key_leaves_its_folder_or_looks_like_another(key):
    try:
        segments = model_key.parse(key)
    except EasyTeaCacheError:
        return
    path = model_key.path_of(key)
    folder = Path("/registry").resolve()
    assert (folder / path).resolve().is_relative_to(folder)
    assert ".." not in path.parts
    assert key.isascii()
    assert key == key.casefold()
    assert not any(part.startswith(".") or part.endswith((".", " ")) for part in segments)
    assert model_key.key_of(path) == key


@pytest.mark.parametrize("path", ["a/b", "a/b.JSON", "a.json/../b.json", "/a.json", "A.json", "index.json", ".json"])
def test_a_path_that_no_key_has_is_refused(path):
    with pytest.raises(InvalidModelKey):
        model_key.key_of(PurePosixPath(path))


def test_the_nearest_keys_come_best_first():
    known = ["wan2.1/t2v-14b", "wan2.1/t2v-1.3b", "flux.1/dev", "hunyuanvideo/t2v"]
    assert model_key.nearest("wan2.1/t2v_14b", known)[0] == "wan2.1/t2v-14b"
    assert model_key.nearest("WAN2.1/T2V-14B", known)[0] == "wan2.1/t2v-14b"
    assert model_key.nearest("my/t2v", known, count=2) != ()
    assert model_key.nearest("sdxl", known) == ()
    assert len(model_key.nearest("t2v", known, count=2)) == 2


def test_a_huge_unknown_key_is_compared_in_little_time():
    assert model_key.nearest("x" * 10_000_000, [f"family/variant-{n}" for n in range(200)]) == ()


@pytest.mark.parametrize(
    ("name", "reserved"),
    [("nul", True), ("NUL.txt", True), ("Com7.json", True), ("con .x", True), ("null", False), ("com0", False)],
)
def test_windows_device_names_are_known_whatever_their_ending(name, reserved):
    assert model_key.is_reserved(name) is reserved
