"""Write the site: pages, badges, data; every file by itself, nothing fetched from anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment

from easyteacache._version import __version__
from easyteacache.catalogue import badge, engines
from easyteacache.catalogue.endpoint import endpoint
from easyteacache.catalogue.models import Damage, Model, RecordShown, models_of
from easyteacache.errors import InvalidCalibration
from easyteacache.files import atomic_write
from easyteacache.pages.environment import ASSETS, asset, embedded, environment, quality
from easyteacache.registry import bundled, wanted
from easyteacache.registry.family import model_of
from easyteacache.registry.registry import Registry
from easyteacache.registry.wanted import WantedModel

#: Rows of the index that stand in its HTML, for readers without scripts and before the script has run.
FIRST_ROWS = 100
#: A longer record is linked to, not printed in its model's page.
MOST_RAW = 64_000
_TEMPLATES = Path(__file__).parent / "templates"
#: Files of a model's folder: a key whose part is called so gets a mark that no key has.
_TAKEN = frozenset({"index.html", "badge.svg"})
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#0b6e6e"/>'
    '<path d="M3 10h2v3H3zM7 6h2v7H7zM11 3h2v10h-2z" fill="#fff"/></svg>\n'
)


@dataclass(frozen=True)
class Built:
    """What was written.

    Attributes:
        folder: where.
        models, records, settings: how many are shown.
        files: how many files there are.
        damaged: records that could not be read, and why.
    """

    folder: Path
    models: int
    records: int
    settings: int
    files: int
    damaged: tuple[Damage, ...]


@dataclass
class _Counts:
    models: int = 0
    records: int = 0
    settings: int = 0
    rated: int = 0
    engines: int = 0


@dataclass(frozen=True)
class _Row:
    """What the index keeps of a model while the next one is shown."""

    key: str
    title: str
    letter: str


@dataclass(frozen=True)
class _Wish:
    wanted: WantedModel
    model: Model | None


@dataclass
class _Site:
    folder: Path
    templates: Environment
    files: int = 0
    counts: _Counts = field(default_factory=_Counts)

    def write(self, path: str, text: str) -> None:
        target, data = self.folder / path, text.encode("utf-8")
        self.files += 1
        # Most pages of a site that is built again are as they were; replacing a file costs far more than reading it.
        if (
            target.is_file()
            and not target.is_symlink()
            and target.stat().st_size == len(data)
            and target.read_bytes() == data
        ):
            return
        # A site is made anew in seconds: one that loses power half-way is not worth a flush of every file.
        atomic_write.write_bytes(target, data, durable=False)

    def page(self, path: str, template: str, **values: Any) -> None:
        depth = len(PurePosixPath(path).parts) - 1
        values |= {"root": "../" * depth, "here": path, "counts": self.counts, "page_of": page_of}
        self.write(path, self.templates.get_template(template).render(values))

    def data(self, path: str, value: Any) -> None:
        self.write(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def build(
    registry: Registry,
    folder: str | os.PathLike[str],
    *,
    audit: Path | None = None,
    reports: Callable[[RecordShown, Path], bool] = lambda record, folder: False,
    progress: Callable[[str], None] = lambda _: None,
) -> Built:
    """Write the site of ``registry``.

    Args:
        registry: its layers; a record that cannot be read is left out and told.
        folder: made as needed; files of an earlier site are replaced, those of keys that are gone stay.
        audit: ``engines-audit.json``, None for the one that travels with the package.
        reports: writes a record's report into a folder where it can, and says whether it did.
        progress: told the key of every model.

    Raises:
        InvalidCalibration: ``wanted.json`` or the audit is damaged.
        OSError: the folder cannot be written.
    """
    shipped = engines.read(audit or bundled.engines_audit())
    wishes = {one.model_key: one for one in _wanted(registry)}
    templates = environment(_TEMPLATES)
    templates.filters.update(quality_of=lambda value, metric: quality(metric, value), shortened=_shortened)
    pages = [
        ("Models", "index.html"),
        ("Wanted", "wanted.html"),
        ("Engines", "engines.html"),
        ("Evidence", "about.html"),
    ]
    templates.globals.update(version=__version__, pages=pages, most_raw=MOST_RAW)
    damaged: list[Damage] = []
    # Two passes would read every record twice; the counts of the footers are known from the index alone.
    keys = [key for key, _, _ in registry.entries()]
    site = _Site(Path(folder), templates)
    site.counts.records, site.counts.models = len(keys), len(set(map(model_of, keys)))
    for name in ASSETS:
        site.write(f"assets/{name}", asset(name))
    site.write("assets/icon.svg", _ICON)
    _schemas(site)
    index: dict[str, list[dict[str, Any]]] = {"models": [], "records": []}
    first: list[Model] = []
    answered: dict[str, Model] = {}
    for model in models_of(registry, damaged=damaged):
        progress(model.key)
        _model(site, model, wishes.get(model.key), reports)
        index["models"].append(_row(model.key, model.title, model, " ".join(record.names for record in model.records)))
        index["records"] += [_row(model.key, one.calibration.title, one, one.names) for one in model.records]
        # As the script sorts them: strongest evidence first.
        first = sorted([*first, model], key=lambda one: (-one.tier.rank, one.title.lower()))[:FIRST_ROWS]
        answered |= {model.key: model} if model.key in wishes else {}
        site.counts.settings += len(model.settings)
        site.counts.rated += sum(bool(one.figures) for one in model.settings)
    _index(site, index, first)
    _others(site, index, shipped, [_Wish(one, answered.get(key)) for key, one in wishes.items()])
    counts = site.counts
    return Built(site.folder, len(index["models"]), len(index["records"]), counts.settings, site.files, tuple(damaged))


def page_of(key: str) -> str:
    """A model's page, relative to the site."""
    return f"{folder_of(key)}/index.html"


def folder_of(key: str) -> str:
    """A model's folder: its key, with a mark where a part is called as a file of such a folder is."""
    return "/".join(("models", *(f"~{part}" if part in _TAKEN else part for part in key.split("/"))))


def _model(site: _Site, model: Model, wish: WantedModel | None, reports: Callable[[RecordShown, Path], bool]) -> None:
    folder = folder_of(model.key)
    written = {}
    for position, record in enumerate(model.records, start=1):
        site.write(f"records/{record.path}", record.stored)
        if reports(record, site.folder / folder / f"report-{position}.html"):
            written[record.key] = f"report-{position}.html"
            site.files += 1
    site.page(page_of(model.key), "model.html", model=model, wanted=wish, badge=badge.message(model), reports=written)
    site.write(f"{folder}/badge.svg", badge.svg(model))
    site.data(f"{folder}/badge.json", badge.endpoint(model))
    site.data(f"{folder}/model.json", endpoint(model))


def _row(model: str, title: str, one: Model | RecordShown, names: str) -> dict[str, Any]:
    methods = one.methods if isinstance(one, Model) else (one.calibration.method,)
    row = {
        "title": title,
        "key": one.key,
        "page": page_of(model),
        "method": ", ".join(methods),
        "evidence": one.tier.name,
        "speedup": one.speed,
        "settings": len(one.settings),
        "engines": list(one.engines),
        "names": names,
    }
    return {name: value for name, value in row.items() if value is not None}


def _index(site: _Site, index: Mapping[str, list[dict[str, Any]]], first: Sequence[Model]) -> None:
    rows = [row for rows in index.values() for row in rows]
    names = sorted({engine for row in rows for engine in row["engines"]}, key=str.lower)
    places = {name: place for place, name in enumerate(names)}
    for row in rows:
        row["engines"] = [places[name] for name in row["engines"]]
    site.counts.engines = len(names)
    methods = sorted({method for row in index["records"] for method in row["method"].split(", ")})
    site.write("assets/records.js", f"window.easyteacacheCatalogue = {embedded({**index, 'engines': names})};\n")
    site.page("index.html", "index.html", first=first, methods=methods, engines=names)
    listed = [_Row(row["key"], row["title"], row["key"][0].upper()) for row in index["models"]]
    site.page("all.html", "all.html", models=listed)


def _others(
    site: _Site,
    index: Mapping[str, list[dict[str, Any]]],
    shipped: Mapping[str, Any],
    wishes: Iterable[_Wish],
) -> None:
    keys = {row["key"] for row in index["models"]}

    def known(key: object) -> str | None:
        model = model_of(key) if isinstance(key, str) else None
        return model if model in keys else None

    site.page("wanted.html", "wanted.html", wanted=list(wishes))
    site.page("engines.html", "engines.html", audit=shipped, known=known)
    site.page("about.html", "about.html")


def _schemas(site: _Site) -> None:
    """The schemas at the addresses that their files name."""
    for path in sorted(bundled.schemas().glob("*.v*.schema.json")):
        name, version, *_ = path.name.split(".")
        site.write(f"schemas/{name}-{version.removeprefix('v')}.json", path.read_text(encoding="utf-8"))


def _wanted(registry: Registry) -> list[WantedModel]:
    """The wishes of every layer, each model once."""
    found: dict[str, WantedModel] = {}
    for layer in registry.layers:
        listed = wanted.read(layer.folder)
        for one in () if listed is None else listed.models:
            found.setdefault(one.model_key, one)
    return list(found.values())


def _shortened(value: str) -> str:
    """The name of a class without all digits of its configuration's hash."""
    name, found, digest = value.partition("@")
    digest = digest.removeprefix("sha256:")
    return f"{name}@{digest[:8]}…" if len(digest) > 12 else f"{name}{found}{digest}"


__all__ = ["Built", "InvalidCalibration", "build", "folder_of", "page_of"]
