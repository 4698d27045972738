"""The JSON Schema files: generated, complete, fresh, and never changed once released."""

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from easyteacache.errors import InvalidCalibration
from easyteacache.records.calibration import SCHEMA_VERSION, SUPPORTED_VERSIONS, Calibration
from easyteacache.registry import bundled

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURES = ROOT / "tests" / "fixtures" / "records"
RANGES = (
    r"at least|at most|or more|above 0|zero-based|any finite|≤|never decreasing|−1 to 1|\bto \d|from 1|format\.$|index"
)
UNITS = (
    r"dimensionless|steps?\b|tokens|pixels|seconds|frames|runs|samples|points|distances|line|seed|numbers kept|"
    r"revision|raised by one|sigma|noise level|factor|relative error|fractions|version|model calls"
)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("generate_schemas", ROOT / "tools" / "docs" / "generate_schemas.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def run(tool):
    return lambda root, *options: CliRunner().invoke(tool.main, ["--root", str(root), *options])


@pytest.fixture
def copy(tmp_path, tool, run):
    """A copy of what the tool writes and of what it keeps, with nothing else released yet, to break."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "schemas").mkdir()
    kept = {}
    for path in (path for form in tool.FORMATS for path in form.superseded):
        shutil.copy(ROOT / path, tmp_path / path)
        kept[Path(path).name] = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()
    (tmp_path / "schemas" / "released.json").write_text(json.dumps(kept))
    assert run(tmp_path).exit_code == 0
    return tmp_path


SCHEMAS = sorted((ROOT / "schemas").glob("*.schema.json"))


@pytest.fixture(params=SCHEMAS, ids=lambda path: path.name)
def schema(request):
    return json.loads(request.param.read_bytes())


def _nodes(node, path=""):
    """Every ``(path, subschema)``."""
    yield path, node
    for keyword in ("properties", "patternProperties", "$defs"):
        for name, child in node.get(keyword, {}).items():
            yield from _nodes(child, f"{path}/{keyword}/{name}")
    for keyword in ("anyOf", "prefixItems"):
        for position, child in enumerate(node.get(keyword, [])):
            yield from _nodes(child, f"{path}/{keyword}/{position}")
    if "items" in node:
        yield from _nodes(node["items"], f"{path}/items")


def _fields(schema):
    for path, node in _nodes(schema):
        yield from ((f"{path}/{name}", field) for name, field in node.get("properties", {}).items())


def test_every_generated_file_is_fresh(tool):
    assert dict(tool.outputs(ROOT)) == {
        path: (ROOT / path).read_text(encoding="utf-8") for path, _ in tool.outputs(ROOT)
    }


def test_every_schema_file_comes_from_the_table(tool):
    named = {path for form in tool.FORMATS for path in (form.path, *form.superseded)}
    assert named == {f"schemas/{path.name}" for path in SCHEMAS}


def test_every_version_that_is_read_has_its_schema(tool):
    (form,) = (form for form in tool.FORMATS if form.name == "calibration")
    assert form.version == SCHEMA_VERSION
    names = [f"schemas/calibration.v{version}.schema.json" for version in SUPPORTED_VERSIONS]
    assert names == [*form.superseded, form.path]


def test_the_package_finds_the_schemas():
    assert bundled.schemas().samefile(ROOT / "schemas")


def test_it_is_a_valid_schema_with_a_name_of_its_own(schema):
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert re.fullmatch(
        r"urn:easyteacache:schema:[a-z]+:v[12]|https://easyteacache\.github\.io/easyteacache/schemas/[a-z]+-[1-9][0-9]*\.json",
        schema["$id"],
    )


def test_every_field_says_what_it_means(schema):
    assert [path for path, field in _fields(schema) if len(field.get("description", "")) < 10] == []


def test_every_number_says_its_unit_and_range(schema):
    """A description that fails here lacks a unit (or 'dimensionless') or a range."""
    silent = []
    for path, field in _fields(schema):
        numeric = any(node.get("type") in ("number", "integer") for _, node in _nodes(field))
        text = field["description"]
        if numeric and not (re.search(RANGES, text) and re.search(UNITS, text, re.IGNORECASE)):
            silent.append((path, text))
    assert silent == []


def test_no_object_takes_unknown_fields(schema):
    objects = [(path, node) for path, node in _nodes(schema) if node.get("type") == "object"]
    assert objects
    assert [path for path, node in objects if node.get("additionalProperties") is not False] == []


def test_every_array_and_text_is_bounded(schema):
    def unbounded(node):
        if node.get("type") == "array":
            return "maxItems" not in node
        return node.get("type") == "string" and not {"maxLength", "enum", "const", "pattern"} & set(node)

    allowed = (
        r"/(num_steps|sequence_lengths|aliases|signals)$"
        if "index" in schema["$id"] or "trace" in schema["$id"]
        else "$^"
    )
    assert [path for path, node in _nodes(schema) if unbounded(node) and not re.search(allowed, path)] == []


def test_every_number_is_finite_for_parsers_that_read_infinity(schema):
    numbers = [(path, node) for path, node in _nodes(schema) if node.get("type") == "number"]
    for path, node in numbers:
        validator = Draft202012Validator(node)
        assert not validator.is_valid(float("inf")), path
        assert not validator.is_valid(float("-inf")), path


def _schema_for(content):
    """The schema of the version that a file says it is of."""
    return json.loads((ROOT / "schemas" / f"calibration.v{content['schema_version']}.schema.json").read_bytes())


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in ("valid", "valid-v1", "valid-v2") for path in (FIXTURES / folder).iterdir()),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_a_stock_validator_accepts_every_valid_file(path):
    content = json.loads(path.read_bytes())
    Draft202012Validator(_schema_for(content)).validate(content)


# What the records refuse and a stock validator for Python cannot see: it takes 20.0 for an integer, and its patterns
# let a final line break pass.
UNSEEN = {"fraction-as-step-count", "key-trailing-line-break"}


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in ("invalid", "invalid-v2") for path in (FIXTURES / folder).iterdir()),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_a_stock_validator_refuses_every_malformed_file(path):
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_json(path.read_bytes())
    if refused.value.rule == "record.schema":
        content = json.loads(path.read_bytes())
        assert Draft202012Validator(_schema_for(content)).is_valid(content) == (path.stem in UNSEEN)


def test_version_2_is_still_read_by_what_its_released_schema_says(tool):
    """The models of version 2 give its schema: whoever changes what they share with version 3 is told here."""
    fresh = tool.schema_of(tool.Format("calibration", 2, "easyteacache.records.version_2:Calibration2"))
    released = json.loads((ROOT / "schemas" / "calibration.v2.schema.json").read_bytes())
    assert _said(fresh) == _said(released)


def _said(node):
    """A schema without what it says to people, and without contradictions between fields, which version 2 left to the records."""
    if isinstance(node, list):
        return [_said(item) for item in node]
    if not isinstance(node, dict):
        return node
    told = {"title", "examples", "description", "allOf", "$id"}
    # Classes had no number in their names.
    return {
        key.removesuffix("2") if key[:1].isupper() else key: _said(value)
        for key, value in node.items()
        if key not in told or isinstance(value, dict)
    } | ({"$ref": node["$ref"].removesuffix("2")} if "$ref" in node else {})


def test_released_schema_files_have_not_changed():
    released = json.loads((ROOT / "schemas" / "released.json").read_bytes())
    found = {name: hashlib.sha256((ROOT / "schemas" / name).read_bytes()).hexdigest() for name in released}
    assert found == released


def test_check_names_the_stale_file_and_writes_nothing(copy, run):
    assert run(copy, "--check").exit_code == 0
    stale = copy / "schemas" / "calibration.v3.schema.json"
    stale.write_text(stale.read_text().replace("from 1.", "from 0."))
    before = stale.read_bytes()
    result = run(copy, "--check")
    assert result.exit_code == 1
    assert "schemas/calibration.v3.schema.json is stale" in result.output
    assert "index.v2" not in result.output
    assert stale.read_bytes() == before


def test_check_covers_the_tables_of_the_documentation(copy, run):
    page = copy / "docs" / "registry-format.md"
    fresh = page.read_bytes()
    page.write_text(page.read_text().replace("| `revision` |", "| `version` |"))
    result = run(copy, "--check")
    assert (result.exit_code, "docs/registry-format.md is stale" in result.output) == (1, True)
    assert run(copy).exit_code == 0
    assert page.read_bytes() == fresh


def test_a_page_without_its_markers_is_named(copy, run):
    (copy / "docs" / "registry-format.md").write_text("# Nothing\n")
    result = run(copy)
    assert result.exit_code == 1
    assert "docs/registry-format.md: expected the lines" in result.output


def test_a_missing_schema_file_is_written_again(copy, run):
    path = copy / "schemas" / "index.v2.schema.json"
    fresh = path.read_bytes()
    path.unlink()
    assert run(copy).exit_code == 0
    assert path.read_bytes() == fresh


KEPT = {"calibration.v1.schema.json", "calibration.v2.schema.json", "index.v1.schema.json", "trace.v1.schema.json"}


def test_releasing_records_the_hash_of_every_file_of_that_version(copy, run):
    assert set(json.loads((copy / "schemas" / "released.json").read_bytes())) == KEPT
    assert run(copy, "--release", "v2").output == "released index.v2.schema.json\nreleased trace.v2.schema.json\n"
    released = json.loads((copy / "schemas" / "released.json").read_bytes())
    assert set(released) == {*KEPT, "index.v2.schema.json", "trace.v2.schema.json"}
    assert run(copy, "--release", "v3").output == "released calibration.v3.schema.json\n"
    released = json.loads((copy / "schemas" / "released.json").read_bytes())
    assert set(released) == {path.name for path in SCHEMAS} - {"wanted.v1.schema.json"}
    for name, digest in released.items():
        assert digest == hashlib.sha256((copy / "schemas" / name).read_bytes()).hexdigest()
    again = run(copy, "--release", "v1")
    assert (again.exit_code, again.output) == (0, "released wanted.v1.schema.json\n")


def test_a_released_file_is_neither_rewritten_nor_released_anew(copy, run):
    assert run(copy, "--release", "v3").exit_code == 0
    path = copy / "schemas" / "calibration.v3.schema.json"
    path.write_text(path.read_text().replace("from 1.", "from 0."))
    changed, released = path.read_bytes(), (copy / "schemas" / "released.json").read_bytes()
    for options in ((), ("--check",), ("--release", "v3")):
        result = run(copy, *options)
        assert result.exit_code == 1
        assert "schemas/calibration.v3.schema.json: released" in result.output
    assert path.read_bytes() == changed
    assert (copy / "schemas" / "released.json").read_bytes() == released


@pytest.mark.parametrize("options", [(), ("--check",), ("--release", "v1"), ("--release", "v3")])
def test_a_superseded_file_that_was_changed_is_refused_and_left_alone(copy, run, options):
    path = copy / "schemas" / "calibration.v1.schema.json"
    path.write_text(path.read_text().replace("from 1.", "from 0."))
    changed, released = path.read_bytes(), (copy / "schemas" / "released.json").read_bytes()
    result = run(copy, *options)
    assert result.exit_code == 1
    assert "calibration.v1.schema.json: superseded by version 3, but not the file whose hash" in result.output
    assert path.read_bytes() == changed
    assert (copy / "schemas" / "released.json").read_bytes() == released


def test_a_superseded_file_that_is_missing_or_not_listed_is_named(copy, run):
    path, listed = copy / "schemas" / "calibration.v1.schema.json", copy / "schemas" / "released.json"
    before = listed.read_bytes()
    listed.write_text("{}")
    assert "calibration.v1.schema.json: superseded by version 3, but not the file" in run(copy, "--check").output
    listed.write_bytes(before)
    path.unlink()
    result = run(copy, "--check")
    assert (result.exit_code, "superseded by version 3, but missing" in result.output) == (1, True)
    assert not path.exists()


def test_an_entry_that_was_edited_is_refused(copy, run):
    assert run(copy, "--release", "v3").exit_code == 0
    path = copy / "schemas" / "released.json"
    entries = json.loads(path.read_bytes()) | {"calibration.v3.schema.json": "0" * 64}
    path.write_text(json.dumps(entries))
    result = run(copy, "--release", "v3")
    assert (result.exit_code, "calibration.v3.schema.json: released" in result.output) == (1, True)


def test_a_stale_file_cannot_be_released(copy, run):
    path, listed = copy / "schemas" / "calibration.v3.schema.json", copy / "schemas" / "released.json"
    path.write_text(path.read_text().replace("from 1.", "from 0."))
    before = listed.read_bytes()
    assert run(copy, "--release", "v3").exit_code == 1
    assert listed.read_bytes() == before


def test_a_version_without_files_is_refused(copy, run):
    result = run(copy, "--release", "v9")
    assert (result.exit_code, "no file of version 'v9'" in result.output) == (1, True)
