"""Files of versions 1 and 2: read, upgraded, judged by their own schema and spelling, and never written again."""

import json
from pathlib import Path

import numpy as np
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
from easyteacache.records.sampler import EULER, agree, euler_map, signature_of

FIXTURES = Path(__file__).parent.parent / "fixtures" / "records"
VERSION_1 = sorted((FIXTURES / "valid-v1").iterdir())
VERSION_2 = sorted((FIXTURES / "valid-v2").iterdir())


@pytest.fixture(params=[*VERSION_1, *VERSION_2], ids=lambda path: f"{path.parent.name}/{path.stem}")
def old(request):
    return request.param


def test_there_are_files_of_every_older_version():
    assert len(VERSION_1) >= 3
    assert len(VERSION_2) >= 20
    assert {json.loads(path.read_bytes())["schema_version"] for path in VERSION_1} == {1}
    assert {json.loads(path.read_bytes())["schema_version"] for path in VERSION_2} == {2}


@pytest.mark.parametrize("path", VERSION_1, ids=lambda path: path.stem)
def test_version_1_is_read_as_the_same_record_as_version_2(path):
    record = load(path)
    assert record.schema_version == SCHEMA_VERSION == 3
    assert record == load(FIXTURES / "valid-v2" / path.name)


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
    written = (tmp_path / "new.json").read_bytes()
    assert json.loads(written)["schema_version"] == SCHEMA_VERSION
    assert check_record(written) == []
    assert load(tmp_path / "new.json") == load(old)
    known = FIXTURES / "valid" / old.name
    if known.exists():
        assert written == known.read_bytes()


# What version 2 called its fields, read back from the record.
UNMOVED = ("model_key", "revision", "status", "title", "modality", "method", "signal", "signal_source", "fitted_output",
           "fitted_output_source", "rescale_post", "branches", "aliases", "retirement", "notes")  # fmt: skip
UNMOVED_OF_A_BUCKET = ("sequence_length", "sequence_length_source", "frames", "height", "width", "num_steps", "shift",
                       "min_skip_step", "max_skip_step", "skip_window_fraction", "max_consecutive_skips", "coefficients",
                       "domain", "magnitude_ratios", "quality", "reported_fit", "sigma_profile")  # fmt: skip


def _same(content, record, names):
    written = json.loads(record.model_dump_json(exclude_none=True))
    for name in names:
        # Absent and empty are one, and what a version leaves out it gives the value that the other writes.
        assert content.get(name, written.get(name)) == written.get(name) or content.get(name) == [], name


def test_it_says_what_it_said(old):
    content, record = json.loads(old.read_bytes()), load(old)
    if content["method"] == "magcache":
        # Which version 2 had no word for.
        assert (content["signal"], record.signal) == ("unknown", "none")
        content["signal"] = "none"
    _same(content, record, UNMOVED)
    origin, conditions, model = content["provenance"], content.get("conditions", {}), record.model
    _same(origin, record.provenance, ("license", "author", "date", "tool", "tool_version", "tool_options", "prompt_set",
                                      "prompt_set_sha256", "traces", "sources"))  # fmt: skip
    _same(conditions, record.conditions, ("sampler", "guidance_scale", "note"))
    for name, part in {"checkpoint": origin, "checkpoint_commit": origin, "dtype": conditions,
                       "quantization": conditions}.items():  # fmt: skip
        assert part.get(name) == (None if model is None else getattr(model, name))
    for before, bucket in zip(content["buckets"], record.buckets, strict=True):
        _same(before, bucket, UNMOVED_OF_A_BUCKET)
        for point, found in zip(before.get("operating_points", []), bucket.operating_points, strict=True):
            _same_point(point, found)


def _same_point(before, point):
    (evidence,) = point.evidence
    assert before.get("threshold") == point.threshold
    assert before.get("schedule") == (None if point.schedule is None else list(point.schedule))
    assert before.get("forecaster", "hold") == point.forecaster
    assert before.get("coordinate", "step") == point.coordinate
    assert before.get("applied_to", "residual") == point.applied_to
    assert before.get("weights") == (None if point.weights is None else [list(row) for row in point.weights])
    if point.plan is not None:
        # Its weights corrected computed steps, and filled the others where nothing else did.
        assert point.plan.corrected == ("weights" in before)
        assert (point.plan.predictor is None) == (before.get("forecaster") == "fitted")
    assert before.get("computed_steps") == point.computed_steps
    assert before.get("speedup") == point.speedup
    error = before.get("error")
    assert (error is None) == (point.error is None)
    if error is not None:
        assert error["mean"] == point.error.mean
        assert (error.get("p90"), error.get("runs")) == (point.error.p90, point.error.runs)
    for name in ("latency_seconds", "hardware", "note"):
        assert before.get(name) == getattr(evidence, name)
    assert evidence.how == before["evidence"]
    told = {"reported": "published" if error is None else "reported"}
    assert evidence.kind == told.get(before["evidence"], "submitted")


def _sampled(**changes):
    content = json.loads((FIXTURES / "valid-v2" / "sigma-profile.json").read_bytes())
    bucket = content["buckets"][0]
    levels = [1.0, 0.8, 0.5, 0.2, 0.0]
    bucket["sigma_profile"] = {"sigmas": levels, "distances": [0.0, 0.1, 0.2, 0.3, 0.4]}
    bucket |= {"num_steps": 4, "max_skip_step": -1, "operating_points": []} | changes.pop("bucket", {})
    bucket.pop("max_consecutive_skips", None)
    del content["buckets"][1:]
    return Calibration.from_mapping(content | changes)


def test_the_sampler_of_a_profile_at_every_step_follows_where_it_is_eulers():
    (bucket,) = _sampled(conditions={"sampler": EULER}).buckets
    assert bucket.sampler.name == EULER
    assert (bucket.sampler.calls, bucket.sampler.calls_per_step, bucket.sampler.prediction) == (4, 1, "velocity")
    assert bucket.sampler.levels == (1.0, 0.8, 0.5, 0.2, 0.0)
    assert agree(bucket.sampler.signature, signature_of(euler_map(np.array([1.0, 0.8, 0.5, 0.2, 0.0]))))


@pytest.mark.parametrize(
    "changes",
    [
        {"conditions": {"sampler": "UniPCMultistepScheduler"}},
        {"conditions": {"sampler": f"{EULER} (stochastic)"}},
        {"conditions": {}},
        {"conditions": {"sampler": EULER}, "bucket": {"num_steps": 3}},
        {"conditions": {"sampler": EULER}, "bucket": {"num_steps": None}},
    ],
)
def test_no_other_sampler_is_guessed(changes):
    (bucket,) = _sampled(**changes).buckets
    assert bucket.sampler is None


def _alias(name, *, borrowed=False):
    return {"kind": "transformer_class", "value": f"{name}@{'ab' * 32}", "borrowed": borrowed}


@pytest.mark.parametrize(
    ("aliases", "expected"),
    [
        ([_alias("WanTransformer3DModel")], "WanTransformer3DModel"),
        ([_alias("WanTransformer3DModel"), _alias("FluxTransformer2DModel", borrowed=True)], "WanTransformer3DModel"),
        ([_alias("WanTransformer3DModel"), _alias("FluxTransformer2DModel")], None),
        ([_alias("WanTransformer3DModel", borrowed=True)], None),
        ([], None),
    ],
)
def test_the_class_follows_from_the_only_alias_that_names_one(aliases, expected):
    model = _sampled(aliases=aliases).model
    assert (None if model is None else model.class_name) == expected


def test_reading_changes_nothing_of_what_was_parsed(old):
    content = json.loads(old.read_bytes())
    before = json.dumps(content)
    assert upgraded(content, where="file")["schema_version"] == 3
    assert json.dumps(content) == before


def test_a_field_of_version_2_in_version_1_is_refused_with_its_place():
    content = json.loads((FIXTURES / "valid-v2" / "fitted-weights.json").read_bytes()) | {"schema_version": 1}
    place = r"buckets\[0\].operating_points\[0\].weights: not a field of version 1"
    with pytest.raises(InvalidCalibration, match=place) as refused:
        Calibration.from_mapping(content)
    assert refused.value.rule == "record.schema"
    (finding,) = check_record(content)
    assert (finding.rule, finding.pointer) == ("record.schema", "/buckets/0/operating_points/0")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ((), "model", {"class_name": "X"}),
        ((), "method", "plan"),
        ((), "signal", "none"),
        (("buckets", 0), "sampler", {"name": "X", "calls": 20}),
        (("buckets", 0, "operating_points", 0), "plan", {"computed": [0, 1], "predictor": "hold"}),
        (("buckets", 0, "operating_points", 0), "predictor", "hold"),
        (("buckets", 0, "operating_points", 0), "evidence", [{"kind": "submitted", "how": "replayed"}]),
    ],
)
def test_a_field_of_version_3_in_an_older_one_is_refused_with_its_place(version, place, field, value):
    content = json.loads((FIXTURES / "valid-v2" / "expert-part.json").read_bytes()) | {"schema_version": version}
    inside = content
    for step in place:
        inside = inside[step]
    inside[field] = value
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_mapping(content)
    assert refused.value.rule == "record.schema"
    findings = check_record(content)
    assert {finding.rule for finding in findings} == {"record.schema"}
    assert findings[0].pointer in (
        "/" + "/".join(map(str, place)) if place else "",
        "/".join(["", *map(str, place), field]),
    )


@pytest.mark.parametrize(
    "buckets", [None, 1, "x", {}, [None], [[]], [{"operating_points": 1}], [{}, {"operating_points": [1]}]]
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_wrong_shape_is_told_of_by_its_own_version(version, buckets):
    content = json.loads(VERSION_1[0].read_bytes()) | {"buckets": buckets, "schema_version": version}
    with pytest.raises(InvalidCalibration, match="buckets") as refused:
        Calibration.from_mapping(content)
    assert refused.value.rule == "record.schema"


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_record_that_can_only_reuse_is_refused_as_well(version):
    content = json.loads((FIXTURES / "valid-v2" / "expert-part.json").read_bytes()) | {"schema_version": version}
    content["buckets"][0]["operating_points"][0]["threshold"] = 1e308
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_mapping(content)
    assert refused.value.rule == "record.threshold-never-computes"
    (finding,) = check_record(content)
    assert finding.rule == "record.threshold-never-computes"


def test_there_is_one_upgrade_from_every_version_but_the_newest():
    assert SUPPORTED_VERSIONS == (*UPGRADES, SCHEMA_VERSION) == tuple(range(1, SCHEMA_VERSION + 1))


def test_upgrades_are_applied_one_after_another(monkeypatch):
    """As a version 4 would add its own."""
    monkeypatch.setattr(calibration, "SCHEMA_VERSION", 4)
    monkeypatch.setattr(calibration, "UPGRADES", UPGRADES | {3: lambda content, where: content | {"notes": [where]}})
    found = upgraded(json.loads(VERSION_1[0].read_bytes()), where="here")
    assert (found["schema_version"], found["notes"]) == (4, ["here"])


@pytest.mark.parametrize("version", [None, 0, 4, -1, 1.0, True, "1", [1], {}])
def test_no_other_version_is_upgraded(version):
    content = json.loads(VERSION_1[0].read_bytes()) | {"schema_version": version}
    with pytest.raises(UnsupportedSchemaVersion, match="this release reads 1, 2, 3; upgrade easyteacache"):
        upgraded(content, where="file")
    with pytest.raises(UnsupportedSchemaVersion):
        Calibration.from_mapping(content)


def test_a_record_is_made_of_the_newest_version_only():
    content = load(VERSION_1[0]).model_dump() | {"schema_version": 2}
    with pytest.raises(ValueError, match="schema_version"):
        Calibration(**content)
