"""Generate ``schemas/*.schema.json`` and the property tables of the documentation from the records.

    python tools/docs/generate_schemas.py                 # write what changed
    python tools/docs/generate_schemas.py --check         # exit 1 and name what is stale, write nothing
    python tools/docs/generate_schemas.py --release v1    # record the v1 files as released: from then on they never change

A released file that no longer fits its record is an error in every mode: give the format a new version instead. The files of
superseded versions are kept, because files of those versions are still read and checked; they are no longer generated, and an
error in every mode when they are not what was released.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from easyteacache.files import atomic_write, strict_json
from easyteacache.records.calibration import MAX_SCHEMA_FIELD, SCHEMA_FIELD

ROOT = Path(__file__).resolve().parents[2]
RELEASED = "schemas/released.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ADDRESS = "https://easyteacache.github.io/easyteacache/schemas"
LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Format:
    """One file format: its record, its newest version, the page whose table describes it, whether its files may name their schema."""

    name: str
    version: int
    record: str
    page: str | None = None
    names_schema: bool = False

    @property
    def path(self) -> str:
        """The schema file, relative to the repository root."""
        return self._path(self.version)

    @property
    def superseded(self) -> tuple[str, ...]:
        """The schema files of all earlier versions, relative to the repository root."""
        return tuple(map(self._path, range(1, self.version)))

    def _path(self, version: int) -> str:
        return f"schemas/{self.name}.v{version}.schema.json"

    @property
    def identifier(self) -> str:
        """The schema's ``$id``."""
        return f"{ADDRESS}/{self.name}-{self.version}.json"

    def model(self) -> type[BaseModel]:
        """The record that the schema is generated from."""
        module, _, name = self.record.partition(":")
        found: type[BaseModel] = getattr(importlib.import_module(module), name)
        return found


FORMATS = (
    Format("calibration", 3, "easyteacache.records.calibration:Calibration", "docs/registry-format.md", True),
    Format("index", 2, "easyteacache.registry.index:Index", "docs/registry-format.md"),
    Format("wanted", 1, "easyteacache.registry.wanted:WantedList", "docs/catalogue.md", True),
    Format("trace", 2, "easyteacache.records.trace_header:TraceHeader"),
)


class _Generator(GenerateJsonSchema):
    """Pydantic's generator without invented titles, the same in every release, and with what is implicit spelled out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def float_schema(self, schema: Any) -> dict[str, Any]:
        content = super().float_schema(schema)
        content = {key: int(value) if value == int(value) else value for key, value in content.items() if key != "type"}
        # Parsers that read 1e400 as infinity must refuse it all the same.
        if "exclusiveMinimum" not in content:
            content.setdefault("minimum", -LARGEST)
        if "exclusiveMaximum" not in content:
            content.setdefault("maximum", LARGEST)
        return {"type": "number"} | content

    def literal_schema(self, schema: Any) -> dict[str, Any]:
        content = super().literal_schema(schema)
        if "const" in content:
            content.pop("enum", None)
        return content

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        content = super().dict_schema(schema)
        if "patternProperties" in content:
            longest = schema["keys_schema"]["max_length"]
            content |= {"propertyNames": {"maxLength": longest}, "additionalProperties": False}
        return content


_SCHEMA_FIELD = {
    "title": "Schema",
    "description": "Address of this schema, by which an editor completes and checks the file; nothing else reads it.",
    "type": "string",
    "maxLength": MAX_SCHEMA_FIELD,
}
# One order whatever release of pydantic generates, and the meaning of a field before its details.
_ORDER = ("$schema", "$id", "title", "description", "type", "$ref", "const", "enum", "anyOf")
_LAST = ("default", "properties", "required", "additionalProperties", "if", "then", "else", "allOf", "$defs")


def schema_of(form: Format) -> dict[str, Any]:
    """The JSON Schema of one format."""
    content = form.model().model_json_schema(schema_generator=_Generator)
    for definition in [content, *content.get("$defs", {}).values()]:
        definition.pop("title", None)
        # Editors show it; the record's own name of a class is no word for people.
        definition["properties"] = {
            name: {"title": name.replace("_", " ").capitalize(), **field}
            for name, field in definition["properties"].items()
        }
    if form.names_schema:
        content["properties"] = {SCHEMA_FIELD: _SCHEMA_FIELD, **content["properties"]}
    heading = {"$schema": DIALECT, "$id": form.identifier, "title": f"EasyTeaCache {form.name}, version {form.version}"}
    ordered: dict[str, Any] = _in_order(heading | content)
    return ordered


def _in_order(node: Any) -> Any:
    if isinstance(node, list):
        return [_in_order(item) for item in node]
    if not isinstance(node, dict):
        return node

    def rank(keyword: str) -> tuple[int, str]:
        if keyword in _ORDER:
            return _ORDER.index(keyword), ""
        return (100 + _LAST.index(keyword), "") if keyword in _LAST else (50, keyword)

    if len(node.get("allOf", ())) == 1 and "$ref" in node["allOf"][0]:
        # How releases before 2.9 put a description beside a reference.
        node = {**node, **node["allOf"][0]}
        del node["allOf"]
    ordered = {}
    for keyword in sorted(node, key=rank):
        if keyword in ("properties", "$defs", "patternProperties"):
            # Names, not keywords: fields stay in the record's order.
            ordered[keyword] = {name: _in_order(field) for name, field in node[keyword].items()}
        elif keyword != "default":
            ordered[keyword] = _in_order(node[keyword])
        else:
            ordered[keyword] = node[keyword]
    return ordered


def table_of(schema: dict[str, Any], heading: str, *, skip: Container[str] = ()) -> str:
    """Every object of a schema as a Markdown table of field, type and meaning; ``skip`` names parts told elsewhere."""
    parts = [_rows(heading, schema)]
    parts += [_rows(f"`{name}`", part) for name, part in schema.get("$defs", {}).items() if name not in skip]
    return "\n\n".join(parts)


def _rows(heading: str, definition: dict[str, Any]) -> str:
    required = definition.get("required", [])
    lines = [f"### {heading}", "", _cell(definition.get("description", "")), ""]
    lines += ["| field | type | meaning |", "|---|---|---|"]
    for name, field in definition["properties"].items():
        default = field.get("default")
        state = " **Required.**" if name in required else ""
        if default not in (None, []) and not isinstance(default, dict):
            state = f" Default: `{json.dumps(default)}`."
        lines.append(f"| `{name}` | {_cell(_type(field))} | {_cell(field['description'])}{state} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"] if option.get("type") != "null")
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    if "prefixItems" in field:
        return f"array of {len(field['prefixItems'])} {_type(field['prefixItems'][0])}s"
    if field.get("type") == "array":
        return f"array of {_type(field['items'])}"
    if "patternProperties" in field:
        return f"object of {_type(next(iter(field['patternProperties'].values())))}"
    return str(field["type"])


def outputs(root: Path) -> Iterator[tuple[str, str]]:
    """``(path, content)`` of everything that is generated, relative to ``root``."""
    pages: dict[str, str] = {}
    told: set[str] = set()
    for form in FORMATS:
        schema = schema_of(form)
        yield form.path, strict_json.spell(schema)
        if form.page is not None:
            page = pages.get(form.page) or (root / form.page).read_text(encoding="utf-8")
            table = table_of(schema, f"The {form.name}", skip=told)
            pages[form.page] = _with_table(page, f"{form.name}.v{form.version}", table, form.page)
            told |= set(schema.get("$defs", {}))
    yield from pages.items()


def _with_table(page: str, name: str, table: str, where: str) -> str:
    begin, end = f"<!-- generated: {name} -->\n", f"<!-- end of generated: {name} -->"
    head, found_begin, rest = page.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise click.ClickException(f"{where}: expected the lines {begin.strip()!r} and {end!r}")
    return f"{head}{begin}\n{table}\n\n{end}{tail}"


def released(root: Path) -> dict[str, str]:
    """Released schema file name → SHA-256 of its content."""
    try:
        found = strict_json.parse((root / RELEASED).read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise click.ClickException(f"{RELEASED}: expected an object of file names and hashes")
    return found


def release(root: Path, version: str) -> list[str]:
    """Record the schema files of ``version`` (``v1``) as released; returns the names that are new.

    Raises:
        click.ClickException: no such files, or one is released already with other content.
    """
    known = released(root)
    files = sorted((root / "schemas").glob(f"*.{version}.schema.json"))
    if not files:
        raise click.ClickException(f"schemas/ has no file of version {version!r}; expected a name like 'v1'")
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    changed = [name for name, digest in hashes.items() if known.get(name, digest) != digest]
    if changed:
        raise click.ClickException(
            f"{', '.join(changed)}: released with other content; a released schema never changes"
        )
    atomic_write.write_text(root / RELEASED, strict_json.spell(dict(sorted((known | hashes).items()))))
    return [name for name in hashes if name not in known]


def _stale(root: Path) -> dict[str, str]:
    found = {}
    for path, content in outputs(root):
        target = root / path
        if not target.exists() or target.read_text(encoding="utf-8") != content:
            found[path] = content
    return found


def _refuse_released(root: Path, stale: dict[str, str]) -> None:
    frozen = [path for path in stale if Path(path).name in released(root)]
    if frozen:
        raise click.ClickException(
            f"{', '.join(frozen)}: released, but no longer what the records say. A released format never changes: "
            "undo the change of the record, or give the format a new version and an upgrade function."
        )


def _refuse_changed_superseded(root: Path) -> None:
    known = released(root)
    for form in FORMATS:
        for path in form.superseded:
            target = root / path
            digest = hashlib.sha256(target.read_bytes()).hexdigest() if target.exists() else None
            if digest is None or digest != known.get(target.name):
                state = "missing" if digest is None else f"not the file whose hash is in {RELEASED}"
                raise click.ClickException(
                    f"{path}: superseded by version {form.version}, but {state}. Files of its version are still checked "
                    "against it and it is generated from nothing: restore it from the history."
                )


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Exit 1 when a generated file is stale, naming it; write nothing.")
@click.option("--release", "version", metavar="VERSION", help="Record this version's schema files as released.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=ROOT, help="Repository root.")
def main(check: bool, version: str | None, root: Path) -> None:
    """Entry point."""
    stale = _stale(root)
    _refuse_released(root, stale)
    _refuse_changed_superseded(root)
    if check or version:
        for path in stale:
            click.echo(f"{path} is stale: run python tools/docs/generate_schemas.py", err=True)
        if stale:
            sys.exit(1)
    for path, content in stale.items():
        atomic_write.write_text(root / path, content)
        click.echo(f"wrote {path}")
    for name in release(root, version) if version else []:
        click.echo(f"released {name}")


if __name__ == "__main__":
    main()
