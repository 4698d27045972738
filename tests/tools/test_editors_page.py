"""What docs/editors.md tells editors: schemas under the addresses they name, and settings that fit the registry's files."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from easyteacache.registry import index

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "editors.md").read_text(encoding="utf-8")
NEWEST = {
    json.loads(path.read_text(encoding="utf-8"))["$id"]: path
    for path in (ROOT / "schemas").glob("*.schema.json")
    if "urn:" not in path.read_text(encoding="utf-8")[:300]
}


def blocks() -> list[Any]:
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def test_every_schema_is_listed_with_its_address_and_its_file() -> None:
    listed = dict(re.findall(r"\| <(https://[^>]+)> \| \[[^\]]+\]\(\.\./(schemas/[^)]+)\)", PAGE))
    assert {address: str(path.relative_to(ROOT)) for address, path in NEWEST.items()} == listed


def test_the_store_names_addresses_that_exist() -> None:
    entries = json.loads((ROOT / "docs" / "editors" / "schemastore.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in entries] == sorted(entry["name"] for entry in entries)
    for entry in entries:
        assert set(entry) == {"name", "description", "fileMatch", "url", "versions"}
        assert {entry["url"], *entry["versions"].values()} <= set(NEWEST)
        assert all("easyteacache" in pattern for pattern in entry["fileMatch"])


def test_the_first_line_names_the_newest_schema() -> None:
    (example,) = [block for block in blocks() if "$schema" in block]
    assert example["$schema"] in NEWEST


def schema_of(path: str) -> str | None:
    (settings,) = [block for block in blocks() if "json.schemas" in block]
    for entry in settings["json.schemas"]:
        taken = [pattern for pattern in entry["fileMatch"] if not pattern.startswith("!")]
        left = [pattern[1:] for pattern in entry["fileMatch"] if pattern.startswith("!")]
        if any(fnmatch.fnmatch(path, p.replace("**/", "*")) for p in taken) and path not in left:
            return str(entry["url"])
    return None


@pytest.mark.parametrize("path", ["registry/index.json", "registry/wanted.json", "registry/wan2.1/t2v-14b.json"])
def test_the_setting_gives_a_file_of_the_registry_a_schema_that_it_keeps(path: str) -> None:
    schema = json.loads((ROOT / (schema_of(path) or "")).read_text(encoding="utf-8"))
    content = json.loads((ROOT / path).read_text(encoding="utf-8"))
    assert list(Draft202012Validator(schema).iter_errors(content)) == []


def test_the_setting_covers_every_record() -> None:
    for _, file in index.record_paths(ROOT / "registry"):
        assert schema_of(file.relative_to(ROOT).as_posix()) == "./schemas/calibration.v3.schema.json"
