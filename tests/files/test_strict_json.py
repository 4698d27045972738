"""Strict JSON: what the standard parser lets pass is refused, what it reads is read the same."""

import contextlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyteacache.files import strict_json
from easyteacache.files.strict_json import MAX_DEPTH, JSONTextError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=20,
)


@given(VALUES)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_is_spelled_is_read_back_exactly(value):
    text = strict_json.spell(value)
    for data in (text, text.encode("utf-8"), json.dumps(value)):
        assert repr(strict_json.parse(data)) == repr(value)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@given(st.text(alphabet='[]{}",:\\ 1eEu0d8.-+\n', max_size=40))
@settings(max_examples=600, deadline=None, derandomize=True)
def test_any_text_is_read_as_json_or_refused_with_one_error(text):
    try:
        value = strict_json.parse(text)
    except JSONTextError:
        return
    assert repr(value) == repr(json.loads(text))


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_any_bytes_are_read_as_json_or_refused_with_one_error(data):
    with contextlib.suppress(JSONTextError):
        strict_json.parse(data)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "empty"),
        ("[1,]", "line 1, column"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
        ('{"a": {"b": 1, "\\u0062": 2}}', "'b' appears twice"),
        ("NaN", "NaN is not a number JSON has"),
        ("[-Infinity]", "-Infinity is not a number JSON has"),
        ("1e309", "too large for a double"),
        ("-1" + "0" * 400 + ".0", "too large for a double"),
        ("1" * 20, "an integer of 20 digits"),
        ("-" + "1" * 1_000_000, "an integer of 1000000 digits"),
        ('"\\ud800"', "half a surrogate pair (U+D800)"),
        ('"\\udfff\\ud800"', "half a surrogate pair (U+DFFF)"),
        ('{"\\uDC00": 1}', "half a surrogate pair (U+DC00)"),
        ('"\ud800"', "half a surrogate pair (U+D800)"),
        ("\ufeff{}", "byte order mark"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8 text (byte 0)"),
        (b"\xed\xa0\x80", "not UTF-8"),
        (b'"\xc0\xaf"', "not UTF-8"),
        ('"a\nb"', "control character"),
        ("[" * 33 + "]" * 33, "nested deeper than 32"),
        ("[" * 10_000_000, "10000000 bytes, at most"),
        ("[" * 8_000_000, "nested deeper than 32"),
        ('{"a":' * 8000, "nested deeper than 32"),
    ],
    ids=range(24),
)
def test_what_no_file_may_hold_is_refused_with_the_reason(text, phrase):
    with pytest.raises(JSONTextError) as refused:
        strict_json.parse(text)
    assert phrase in str(refused.value)


def test_both_halves_of_a_surrogate_pair_are_one_character():
    assert strict_json.parse('"\\ud83c\\udfac"') == "🎬"


def test_a_backslash_before_a_surrogate_like_text_is_just_text():
    assert strict_json.parse('"\\\\ud800"') == "\\ud800"


def test_depth_counts_brackets_but_not_those_in_strings():
    assert strict_json.parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for quoted in ('"' + "[" * 100 + '"', '"\\"' + "{" * 100 + '"', '"\\\\", ' + '"' + "[" * 100 + '"'):
        assert strict_json.parse(f"[{quoted}]") == json.loads(f"[{quoted}]")
    with pytest.raises(JSONTextError, match="nested deeper"):
        strict_json.parse('["\\\\", ' + "[" * 100)


def test_integers_up_to_19_digits_are_read_exactly():
    for number in (9_999_999_999_999_999_999, -9_999_999_999_999_999_999, 0, 2**53 + 1):
        assert strict_json.parse(str(number)) == number


def test_the_smallest_numbers_and_the_sign_of_zero_survive():
    read = strict_json.parse("[1e-320, 5e-324, -0.0, 1.7976931348623157e308]")
    assert read == [1e-320, 5e-324, 0.0, 1.7976931348623157e308]
    assert math.copysign(1, read[2]) == -1


@pytest.mark.parametrize(("limit", "kind"), [({"max_bytes": 5}, "size"), ({"max_items": 1}, "size"), ({}, None)])
def test_size_is_bounded_in_bytes_and_in_values(limit, kind):
    if kind is None:
        assert strict_json.parse("[1, 2, 3]", **limit) == [1, 2, 3]
        return
    with pytest.raises(JSONTextError) as refused:
        strict_json.parse("[1, 2, 3]", **limit)
    assert refused.value.kind == kind


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), {1, 2}, object(), {(1,): 2}, "\ud800"], ids=range(6))
def test_what_json_cannot_hold_is_not_spelled(value):
    with pytest.raises(JSONTextError):
        strict_json.spell(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "'a'"),
        ("\x1b[2J", "'\\x1b[2J'"),
        ("\u202e", "'\\u202e'"),
        ("x" * 100, "'" + "x" * 80 + "'…"),
        ({"a": 1}, "an object"),
        ([1], "an array"),
        (1.5, "1.5"),
        (True, "True"),
        (10**5000, "an integer of 16610 bits"),
    ],
    ids=range(9),
)
def test_a_value_is_shown_on_one_short_line(value, expected):
    assert strict_json.shown(value) == expected
