"""Files of version 1: read, upgraded, judged by their own schema and spelling, and never written again."""

import json
from pathlib import Path

import pytest

from easyteacache.errors import InvalidCalibration, UnsupportedSchemaVersion
from easyteacache.hub.review.check_record import check_file, check_record
from easyteacache.records import calibration
from easyteacache.records.calibration import (
    SCHEMA_VERSION,
    SUPPORTED_VERSIONS,
    UPGRADES,
    Calibration,
    load,
    save,
    upgraded,
)

FIXTURES = Path(__file__).parent.parent / "fixtures" / "records"
OLD = sorted((FIXTURES / "valid-v1").iterdir())


@pytest.fixture(params=OLD, ids=lambda path: path.stem)
def old(request):
    return request.param


def test_there_are_files_of_version_1():
    assert len(OLD) >= 3
    assert {json.loads(path.read_bytes())["schema_version"] for path in OLD} == {1}


def test_it_is_read_as_the_same_record_as_its_newest_form(old):
    record = load(old)
    assert record.schema_version == SCHEMA_VERSION == 2
    assert record == load(FIXTURES / "valid" / old.name)


def test_nothing_is_found_in_it(old, tmp_path):
    assert check_record(old.read_bytes(), where=old.name) == []
    assert check_record(json.loads(old.read_bytes())) == []
    filed = tmp_path / f"{load(old).model_key}.json"
    filed.parent.mkdir(parents=True, exist_ok=True)
    filed.write_bytes(old.read_bytes())
    assert check_file(filed, tmp_path) == []


def test_another_spelling_than_its_own_is_a_warning(old):
    (finding,) = check_record(json.dumps(json.loads(old.read_bytes())))
    assert (finding.rule, finding.severity) == ("record.canonical", "warning")
    text = old.read_text(encoding="utf-8").replace('"revision": ', '"revision":  ')
    (finding,) = check_record(text)
    assert "line 4" in finding.message


def test_writing_it_writes_the_newest_version(old, tmp_path):
    save(load(old), tmp_path / "new.json")
    assert (tmp_path / "new.json").read_bytes() == (FIXTURES / "valid" / old.name).read_bytes()


def test_reading_changes_nothing_but_the_number(old):
    content = json.loads(old.read_bytes())
    before = json.dumps(content)
    assert upgraded(content, where="file") == content | {"schema_version": 2}
    assert json.dumps(content) == before


def test_a_field_of_version_2_in_it_is_refused_with_its_place():
    content = json.loads((FIXTURES / "valid" / "fitted-weights.json").read_bytes()) | {"schema_version": 1}
    place = r"buckets\[0\].operating_points\[0\].weights: not a field of version 1"
    with pytest.raises(InvalidCalibration, match=place) as refused:
        Calibration.from_mapping(content)
    assert refused.value.rule == "record.schema"
    (finding,) = check_record(content)
    assert (finding.rule, finding.pointer) == ("record.schema", "/buckets/0/operating_points/0")


@pytest.mark.parametrize(
    "buckets", [None, 1, "x", {}, [None], [[]], [{"operating_points": 1}], [{}, {"operating_points": [1]}]]
)
def test_a_wrong_shape_where_weights_could_be_is_left_to_the_record(buckets):
    content = json.loads(OLD[0].read_bytes()) | {"buckets": buckets}
    with pytest.raises(InvalidCalibration, match="buckets") as refused:
        Calibration.from_mapping(content)
    assert refused.value.rule == "record.schema"


def test_there_is_one_upgrade_from_every_version_but_the_newest():
    assert SUPPORTED_VERSIONS == (*UPGRADES, SCHEMA_VERSION) == tuple(range(1, SCHEMA_VERSION + 1))


def test_upgrades_are_applied_one_after_another(monkeypatch):
    """As a version 3 would add its own."""
    monkeypatch.setattr(calibration, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(calibration, "UPGRADES", UPGRADES | {2: lambda content, where: content | {"notes": [where]}})
    content = {"schema_version": 1, "buckets": []}
    assert upgraded(content, where="here") == {"schema_version": 3, "buckets": [], "notes": ["here"]}


@pytest.mark.parametrize("version", [None, 0, 3, -1, 1.0, True, "1", [1], {}])
def test_no_other_version_is_upgraded(version):
    content = json.loads(OLD[0].read_bytes()) | {"schema_version": version}
    with pytest.raises(UnsupportedSchemaVersion, match="this release reads 1, 2; upgrade easyteacache"):
        upgraded(content, where="file")
    with pytest.raises(UnsupportedSchemaVersion):
        Calibration.from_mapping(content)


def test_a_record_is_made_of_the_newest_version_only():
    content = load(OLD[0]).model_dump() | {"schema_version": 1}
    with pytest.raises(ValueError, match="schema_version"):
        Calibration(**content)
