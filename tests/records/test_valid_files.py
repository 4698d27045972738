"""Every file of `fixtures/records/valid` is accepted, spelled canonically, and the same after a round trip."""

import json
from pathlib import Path

import pytest

from easyteacache.errors import InvalidCalibration
from easyteacache.hub.review.check_record import check_record
from easyteacache.records.calibration import Bucket, Calibration, load, save

pytestmark = pytest.mark.floors

FILES = sorted((Path(__file__).parent.parent / "fixtures" / "records" / "valid").iterdir())


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_nothing_is_found_in_it(path):
    assert check_record(path.read_bytes(), where=path.name) == []


def test_writing_gives_the_same_bytes_as_were_read(path, tmp_path):
    save(load(path), tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_bytes() == path.read_bytes()


def test_reading_what_was_written_gives_an_equal_record(path):
    record = load(path)
    assert Calibration.from_json(record.to_json()) == record
    assert Calibration.from_mapping(json.loads(record.to_json())) == record
    assert hash(Calibration.from_json(record.to_json())) == hash(record)


def test_every_number_survives_exactly(path):
    content = json.loads(path.read_bytes())
    for written, read in zip(content["buckets"], load(path).buckets, strict=True):
        assert [repr(c) for c in written.get("coefficients", ())] == [repr(c) for c in read.coefficients or ()]


def test_another_spelling_is_a_warning_and_not_an_error(path):
    compact = json.dumps(json.loads(path.read_bytes()))
    (finding,) = check_record(compact, where=path.name)
    assert (finding.rule, finding.severity) == ("record.canonical", "warning")
    assert "line 1" in finding.message


def test_parsed_content_is_checked_without_judging_its_spelling(path):
    assert check_record(json.loads(path.read_bytes())) == []


def test_the_corpus_covers_every_published_order_and_every_status():
    records = [load(path) for path in FILES]
    orders = {len(b.coefficients) - 1 for record in records for b in record.buckets if b.coefficients}
    assert orders >= {0, 1, 2, 4, 5, 6}
    assert {record.status for record in records} == {"draft", "validated", "published", "deprecated", "yanked"}
    assert {record.method for record in records} == {"teacache", "magcache", "plan", "preset"}
    evidence = [one for r in records for b in r.buckets for p in b.operating_points for one in p.evidence]
    assert {one.kind for one in evidence} == {"published", "reported", "submitted", "verified"}
    assert {one.how for one in evidence} == {"replayed", "measured", "reported"}


def test_a_file_may_name_its_schema_for_editors(path, tmp_path):
    text = path.read_text(encoding="utf-8")
    named = text.replace(
        "{\n", '{\n  "$schema": "https://easyteacache.github.io/easyteacache/schemas/calibration-3.json",\n', 1
    )
    assert check_record(named) == []
    assert Calibration.from_json(named) == load(path)
    (tmp_path / "named.json").write_text(named, encoding="utf-8")
    save(load(tmp_path / "named.json"), tmp_path / "named.json")
    assert (tmp_path / "named.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("found", [3, None, ["x"], "x" * 301])
def test_the_name_of_a_schema_is_a_short_text(found):
    content = {"$schema": found, **json.loads(FILES[0].read_bytes())}
    with pytest.raises(InvalidCalibration, match=r"\$schema") as refused:
        Calibration.from_mapping(content)
    assert refused.value.rule == "record.schema"
    (finding,) = check_record(content)
    assert (finding.rule, finding.pointer) == ("record.schema", "/$schema")


def test_older_versions_have_no_place_for_the_name_of_a_schema():
    content = json.loads((FILES[0].parent.with_name("valid-v2") / "order-6.json").read_bytes()) | {"$schema": "x"}
    with pytest.raises(InvalidCalibration, match=r"\$schema"):
        Calibration.from_mapping(content)


def test_a_plan_is_read_like_a_threshold():
    points = load(FILES[0].with_name("plans.json")).buckets[0].operating_points
    assert [point.schedule for point in points] == [(0, 1, 2, 3, 4), (0, 2, 3), (0, 2), (0, 2)]
    assert [point.forecaster for point in points] == ["hold", "fitted", "linear", "quadratic"]
    assert [point.applied_to for point in points] == ["residual", "feature", "output", "residual"]
    assert [point.coordinate for point in points] == ["step", "step", "sigma", "sigma"]
    assert [point.weights is not None for point in points] == [False, True, False, True]
    assert [point.strongest for point in points] == ["published", "reported", "verified", None]
    assert [point.speedup for point in points] == [1.0, 1.6, 2.5, None]
    # What was verified goes before what was submitted; another metric is no error.
    assert [None if point.error is None else point.error.mean for point in points] == [None, None, 0.045, None]
    assert (points[2].error.p50, points[2].error.worst, points[2].error.runs) == (0.04, 0.12, 16)


def test_a_record_of_too_many_weights_is_refused():
    content = json.loads(FILES[0].with_name("plans.json").read_bytes())
    bucket = content["buckets"][0]
    bucket["num_steps"] = 2000
    del bucket["sampler"]
    rows = [[1.0], *[[0.5] * min(step, 60) for step in range(1, 2000)]]
    plan = {"computed": list(range(1000)), "applied_to": "output", "corrected": True, "rows": rows}
    bucket["operating_points"] = [{"plan": plan}]
    Calibration.from_mapping(content)
    bucket["operating_points"] = [{"plan": plan}, {"plan": plan}]
    with pytest.raises(InvalidCalibration, match=r"\d+ weights of plans; a record holds at most 200000"):
        Calibration.from_mapping(content)


def test_a_record_cannot_be_changed():
    record = load(FILES[0])
    with pytest.raises(ValueError, match="frozen"):
        record.revision = 2


def test_a_record_changed_past_its_checks_is_not_written(tmp_path):
    path = tmp_path / "record.json"
    record = load(FILES[0])
    save(record, path)
    before = path.read_bytes()
    for change in ({"revision": -1}, {"title": "\ud800"}, {"buckets": ()}, {"title": object}):
        with pytest.raises(InvalidCalibration):
            save(record.model_copy(update=change), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_bucket_made_in_code_obeys_the_same_invariants():
    with pytest.raises(ValueError, match="expected 0 ≤ x_min < x_max"):
        Bucket(coefficients=(1.0,), domain=(0.3, 0.1))
    with pytest.raises(ValueError, match="finite"):
        Bucket(coefficients=(float("nan"),))


@pytest.mark.parametrize("name", ["absent.json", ".", "a\0b.json"])
def test_a_path_that_holds_no_file_is_refused(name, tmp_path):
    with pytest.raises(InvalidCalibration) as refused:
        load(f"{tmp_path}/{name}")
    assert refused.value.rule == "record.unreadable"
    assert "a regular file" in str(refused.value) or "cannot be" in str(refused.value)
