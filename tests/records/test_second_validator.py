"""A validator of another author and language reads the same schemas: it agrees with the records on every file, beyond what no
schema can say."""

import json
from pathlib import Path

import jsonschema_rs
import pytest

from easyteacache.errors import InvalidCalibration
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace_file import read
from easyteacache.registry import bundled, index

FIXTURES = Path(__file__).parent.parent / "fixtures" / "records"
VALID = sorted(path for folder in ("valid", "valid-v1", "valid-v2") for path in (FIXTURES / folder).iterdir())
INVALID = sorted(path for folder in ("invalid", "invalid-v2") for path in (FIXTURES / folder).iterdir())
BUNDLED = [path for _, path in index.record_paths(bundled.registry())]

# Contradictions that only the records find, because they compare one field's numbers with another's, read a calendar or follow
# a curve. A schema of version 1 or 2 says nothing about contradictions at all.
BEYOND_A_SCHEMA = {
    "alias-former-key-climbs", "alias-is-the-key", "alias-twice", "bucket-twice", "buckets-unsorted", "buckets-unsorted-steps",
    "coefficients-overflow", "computed-steps-above-step-count", "computed-steps-contradict-plan", "curve-negative",
    "curve-negative-over-its-domain", "curve-of-almost-nothing", "date-29-february-2026", "date-31-february",
    "domain-of-one-point", "domain-reversed", "evidence-quantiles-fall", "key-ending-in-json", "key-named-index", "key-two-dots",
    "key-windows-device", "key-windows-device-with-ending", "magcache-threshold-beyond-reach",
    "more-distinct-distances-than-points", "plan-beyond-last-step", "plan-levels-of-another-sampler",
    "plan-levels-of-wrong-length", "plan-levels-rise", "plan-not-ascending", "plan-of-step-0-alone",
    "plan-of-step-0-alone-of-unknown-steps", "plan-reuses-outside-window", "plan-reuses-too-many-in-a-row", "plan-step-twice",
    "profile-distances-fall", "profile-of-unequal-lengths", "profile-sigma-twice", "profile-sigmas-rise",
    "profile-spread-of-wrong-length", "ratios-name-a-branch-twice", "ratios-of-unknown-branch", "ratios-of-wrong-length",
    "replacement-is-no-key", "replacement-is-the-record-itself", "rows-beyond-the-last-computed", "rows-of-a-computed-step",
    "rows-of-outputs-not-computed-yet", "rows-of-too-few-steps", "rows-of-too-many-steps", "rows-without-step-count",
    "sampler-of-fewer-calls", "sampler-signature-of-wrong-length", "threshold-above-what-all-steps-predict",
    "threshold-beyond-reach", "trace-file-windows-device", "trace-twice-under-two-names", "traces-of-one-name",
    "two-samplers-that-nothing-tells-apart", "window-beyond-last-step", "window-empty", "window-empty-from-the-end",
    "window-fraction-reversed",
}  # fmt: skip
# JSON Schema counts 20.0 as an integer; the format spells integers as integers.
TAKEN_FOR_AN_INTEGER = {"fraction-as-step-count"}


def _validator(name):
    # As files, so that a schema that only one parser can read would be found.
    return jsonschema_rs.validator_for(json.loads((bundled.schemas() / name).read_bytes()))


@pytest.fixture(scope="module")
def of_version():
    return {version: _validator(f"calibration.v{version}.schema.json") for version in (1, 2, 3)}


def _name(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", VALID, ids=_name)
def test_it_accepts_every_valid_file(path, of_version):
    content = json.loads(path.read_bytes())
    of_version[content["schema_version"]].validate(content)


def test_it_accepts_every_bundled_record(of_version):
    assert len(BUNDLED) >= 100
    for path in BUNDLED:
        content = json.loads(path.read_bytes())
        of_version[content["schema_version"]].validate(content)


@pytest.mark.parametrize("path", INVALID, ids=_name)
def test_it_refuses_what_the_records_refuse(path, of_version):
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_json(path.read_bytes())
    if refused.value.rule in ("record.json", "record.schema-version"):
        return
    content = json.loads(path.read_bytes())
    accepted = of_version[content["schema_version"]].is_valid(content)
    if refused.value.rule == "record.schema":
        assert accepted == (path.stem in TAKEN_FOR_AN_INTEGER)
    elif content["schema_version"] < 3:
        assert accepted
    else:
        assert accepted == (path.stem in BEYOND_A_SCHEMA)


def test_no_entry_of_the_list_is_out_of_date():
    assert {path.stem for path in (FIXTURES / "invalid").iterdir()} >= BEYOND_A_SCHEMA


def test_it_accepts_the_index_and_the_headers_of_traces():
    listed = json.loads((bundled.registry() / index.FILE_NAME).read_bytes())
    _validator(f"index.v{listed['index_version']}.schema.json").validate(listed)
    runs, _ = read(FIXTURES.parent / "traces" / "reference" / "steps-25.safetensors")
    stored, newest = _validator("trace.v1.schema.json"), _validator("trace.v2.schema.json")
    for run in runs[:5]:
        stored.validate(json.loads(run.recorded.model_dump_json()))
        newest.validate(json.loads(run.header.model_dump_json()))


@pytest.mark.parametrize("name", sorted(path.name for path in bundled.schemas().glob("*.schema.json")))
def test_every_schema_is_one_by_its_own_dialect(name):
    assert jsonschema_rs.meta.is_valid(json.loads((bundled.schemas() / name).read_bytes()))
