"""Mutated and made-up content: reading raises only this project's errors, checking raises nothing, and both agree.

`EASYTEACACHE_FUZZ_CASES` sets the number of mutations, for longer runs.
"""

import json
import os
import random
import sys
from pathlib import Path

import pytest

from easyteacache.errors import EasyTeaCacheError, InvalidCalibration
from easyteacache.files import strict_json
from easyteacache.hub.review.check_record import check_record
from easyteacache.records.calibration import Calibration

CASES = int(os.environ.get("EASYTEACACHE_FUZZ_CASES", "500"))
FIXTURES = Path(__file__).parent.parent / "fixtures" / "records"
VALID = sorted(path for folder in ("valid", "valid-v1") for path in (FIXTURES / folder).iterdir())
WILD = [
    *(None, True, False, "", " ", "x", "../x", "a/b\n", "\x00", "\x1b[2J", "\ud83c", "\udc00", "\u202e", "é" * 301),
    *(0, -0.0, 1, -1, 2.0, 0.5, 10**18, 10**30, -(10**400), 1e-320, 1e308, -1e308, float("nan"), float("inf")),
    *([], {}, [[]], [None], {"": None}, {"x": {"y": []}}, list(range(50)), "y" * 100_000),
]


def test_mutated_content_is_refused_with_own_errors_only():
    random_source = random.Random(20241128)
    accepted = 0
    for case in range(CASES):
        content = json.loads(random_source.choice(VALID).read_bytes())
        for _ in range(random_source.choice((1, 1, 1, 2, 3))):
            _mutate(content, random_source)
        accepted += _judged_alike(json.dumps(content), case)
    assert 0 < accepted < CASES


def test_mutated_bytes_are_refused_with_own_errors_only():
    random_source = random.Random(19052026)
    for case in range(CASES):
        data = bytearray(random_source.choice(VALID).read_bytes())
        for _ in range(random_source.randint(1, 4)):
            _damage(data, random_source)
        _judged_alike(bytes(data), case)


def _judged_alike(data, case):
    """Read and check ``data``; returns whether it was accepted."""
    findings = check_record(data, where=f"case {case}")
    errors = [finding for finding in findings if finding.severity == "error"]
    assert all(str(finding).isprintable() for finding in findings)
    record, refusal = _read(data)
    if refusal is not None:
        assert refusal.rule in {finding.rule for finding in errors}
        assert str(refusal).isprintable()
        return False
    assert errors == []
    assert Calibration.from_json(record.to_json()) == record
    return True


def _read(data):
    try:
        return Calibration.from_json(data), None
    except EasyTeaCacheError as error:
        return None, error


def _places(content):
    """Every (container, key) below ``content``."""
    for key in list(content) if isinstance(content, dict) else range(len(content)):
        yield content, key
        if isinstance(content[key], (dict, list)):
            yield from _places(content[key])


def _mutate(content, random_source):
    places = list(_places(content))
    if not places:
        return
    inside, key = random_source.choice(places)
    match random_source.randrange(6):
        case 0:
            del inside[key]
        case 1:
            inside[key] = random_source.choice(WILD)
        case 2:
            other, position = random_source.choice(places)
            inside[key] = json.loads(json.dumps(other[position]))
        case 3:
            inside[key] = [inside[key]]
        case 4:
            inside[key] = {"value": inside[key]}
        case 5 if isinstance(inside, list):
            inside.insert(key, inside[key])
        case _:
            inside[random_source.choice(["x", "", "title", "\ud800"]) if isinstance(inside, dict) else key] = 1


def _damage(data, random_source):
    place = random_source.randrange(len(data) + 1)
    match random_source.randrange(5):
        case 0:
            del data[place:]
        case 1 if data:
            data[place % len(data)] ^= 1 << random_source.randrange(8)
        case 2:
            data[place:place] = random_source.choice([b"[" * 40, b"\x00", b"\xff", b'"', b"1e999", b"NaN", b"\\ud800"])
        case 3:
            del data[place : place + random_source.randrange(30)]
        case _:
            data[place:place] = data[place : place + random_source.randrange(60)]


def _endless():
    content = {}
    content["self"] = content
    return content


def _deep():
    content = []
    for _ in range(100_000):
        content = [content]
    return content


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"bytes", float("nan"), 10**5000, "\ud800", _endless(), _deep(), {(1, 2): 3}, 1j],
    ids=["object", "set", "bytes", "nan", "huge", "surrogate", "endless", "deep", "tuple-key", "complex"],
)
def test_a_mapping_that_json_cannot_hold_is_refused(value):
    content = json.loads(VALID[0].read_bytes()) | {"notes": value}
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_mapping(content)
    assert refused.value.rule == "record.json"
    assert [finding.rule for finding in check_record(content)] == ["record.json"]


def test_keys_that_become_equal_in_json_are_refused():
    content = json.loads(VALID[0].read_bytes()) | {None: 1, "null": 2}
    with pytest.raises(InvalidCalibration, match="appears twice"):
        Calibration.from_mapping(content)


def test_a_file_of_more_values_than_any_record_holds_is_refused_before_it_is_judged():
    content = json.loads(VALID[0].read_bytes()) | {"notes": [1] * 350_000}
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_json(json.dumps(content))
    assert refused.value.rule == "record.size"


def test_thousands_of_wrong_values_cost_little_and_are_told_in_one_line():
    content = json.loads(VALID[0].read_bytes()) | {"notes": [1] * 190_000}
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (finding,) = check_record(json.dumps(content))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert finding.rule == "record.schema"
    assert "190000 fields are wrong" in finding.message
    # The unit is KiB on Linux, bytes on macOS.
    assert grown / (1 if sys.platform == "linux" else 1024) < 300 * 1024


def test_a_text_above_the_limit_is_not_even_parsed():
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_json(b"[" * (strict_json.MAX_BYTES + 1))
    assert refused.value.rule == "record.size"


def test_many_findings_are_cut_off():
    content = json.loads(VALID[0].read_bytes())
    content["buckets"] = [{"coefficients": ["x"]} for _ in range(300)]
    assert len(check_record(json.dumps(content))) == 100
