"""What `docs/registry-format.md` shows is true: its example, its code, its rules and its numbers."""

import json
import re
from pathlib import Path

import pytest

from easyteacache.files import strict_json
from easyteacache.hub.review.check_record import MEANINGS, check_record
from easyteacache.records.calibration import MAX_ITEMS, Calibration
from easyteacache.registry.index import Index

PAGE = (Path(__file__).parent.parent.parent / "docs" / "registry-format.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_valid_and_spelled_canonically():
    (example,) = _blocks("json")
    assert check_record(example) == []


def test_the_code_finds_nothing_in_the_example_and_the_defect_in_a_broken_one(tmp_path, monkeypatch, capsys):
    (example,), (code,) = _blocks("json"), _blocks("python")
    path = tmp_path / "registry" / "example" / "video-dit.json"
    path.parent.mkdir(parents=True)
    path.write_text(example, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out == ""
    path.write_text(example.replace('"revision": 2', '"revision": 0'), encoding="utf-8")
    exec(code, {})
    assert "[record.schema]" in capsys.readouterr().out


def test_every_rule_is_listed_with_its_meaning():
    for rule, meaning in MEANINGS.items():
        assert f"| `{rule}` | {meaning} |" in PAGE


def test_every_field_of_the_example_and_of_the_records_is_in_a_table():
    for record in (Calibration, Index):
        for name in record.model_fields:
            assert f"| `{name}` |" in PAGE


@pytest.mark.parametrize("field", ["schema_version", "model_key", "revision", "status", "title", "modality", "method",
                                   "signal", "provenance", "buckets"])  # fmt: skip
def test_the_fields_called_required_are_required(field):
    (example,) = _blocks("json")
    content = json.loads(example)
    del content[field]
    (finding,) = check_record(content)
    assert finding.rule in ("record.schema", "record.schema-version")


def test_nothing_else_is_required():
    (example,) = _blocks("json")
    content = json.loads(example)
    required = ("schema_version", "model_key", "revision", "title", "modality", "method", "signal")
    least = {name: content[name] for name in required}
    least |= {"status": "draft", "provenance": {}, "buckets": [{"coefficients": [0.5]}]}
    assert check_record(least) == []


def test_the_limits_are_the_ones_in_force():
    assert strict_json.MAX_BYTES == 8 * 1024 * 1024
    assert (strict_json.MAX_DEPTH, strict_json.MAX_INTEGER_DIGITS, MAX_ITEMS) == (32, 19, 300_000)
    for limit in ("8 MiB", "300,000 values", "32 levels", "19 digits"):
        assert limit in PAGE


def test_links_inside_the_page_lead_somewhere():
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings
    for target in re.findall(r"\]\(\.\./([^)#]+)\)", PAGE):
        assert (Path(__file__).parent.parent.parent / target).exists()
