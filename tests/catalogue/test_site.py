"""The site: every page there, every link of its own leads somewhere, nothing asks anybody, hostile text stays text."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from click.testing import CliRunner

from easyteacache.catalogue.site import Built, build, folder_of, page_of
from easyteacache.cli.hub import main as hub
from easyteacache.errors import InvalidCalibration
from easyteacache.policy.model_choice import ModelResolver
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.calibration import load, save
from easyteacache.registry import index
from easyteacache.registry.registry import Registry

from . import hostile
from .conftest import ROOT

# What fetches when a page is opened; a link is only followed by whoever clicks it.
FETCHING = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """Tags with their attributes, ids, and the text between them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def ids(self) -> set[str]:
        return {attributes["id"] or "" for _, attributes in self.tags if "id" in attributes}

    def addresses(self, name: str = "href") -> Iterator[tuple[str, str]]:
        for tag, attributes in self.tags:
            if attributes.get(name):
                yield tag, attributes[name] or ""


def pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


def test_every_model_has_its_page_its_data_and_its_badge(bundled_site: Built) -> None:
    models = json.loads((bundled_site.folder / "models/wan2.1/t2v-14b/model.json").read_text(encoding="utf-8"))
    assert models["model"] == "wan2.1/t2v-14b"
    assert bundled_site.records == len(Registry.from_folder(ROOT / "registry"))
    assert bundled_site.damaged == ()
    for page in (bundled_site.folder / "models").rglob("index.html"):
        assert (page.parent / "model.json").is_file()
        assert (page.parent / "badge.svg").is_file()
        assert (page.parent / "badge.json").is_file()


def test_every_link_of_the_site_leads_to_a_file_and_a_place_in_it(bundled_site: Built) -> None:
    read = {path: Page(path) for path in pages(bundled_site.folder)}
    lost = []
    for path, page in read.items():
        for _, address in (*page.addresses(), *page.addresses("src")):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (parts.fragment and parts.fragment not in read[target].ids):
                lost.append((path, address))
    assert lost == []


def test_no_page_names_anything_outside_to_fetch(bundled_site: Built, tmp_path: Path) -> None:
    hostile_site = build(Registry.from_folder(hostile.folder(tmp_path / "r")), tmp_path / "s").folder
    for path in (*pages(bundled_site.folder), *pages(hostile_site)):
        page = Page(path)
        for tag, attributes in page.tags:
            assert not any(name.startswith("on") for name in attributes), (path, tag)
            assert "style" not in attributes, (path, tag)
            fetched = attributes.get(FETCHING.get(tag, "")) or ""
            assert not urlsplit(fetched).scheme, (path, tag, fetched)
        assert any(attributes.get("http-equiv") == "Content-Security-Policy" for _, attributes in page.tags)


def test_links_out_are_http_and_say_nothing_of_where_they_are_from(bundled_site: Built, tmp_path: Path) -> None:
    hostile_site = build(Registry.from_folder(hostile.folder(tmp_path / "r")), tmp_path / "s").folder
    for path in (*pages(bundled_site.folder), *pages(hostile_site)):
        page = Page(path)
        for tag, attributes in page.tags:
            address = attributes.get("href") or ""
            if urlsplit(address).scheme:
                assert urlsplit(address).scheme == "https", address
                assert tag == "a"
                assert "noopener" in (attributes.get("rel") or "")


def test_hostile_text_in_every_field_is_shown_as_text(tmp_path: Path) -> None:
    folder = build(Registry.from_folder(hostile.folder(tmp_path / "registry")), tmp_path / "site").folder
    page = Page(folder / page_of("hostile/model"))
    shown = "".join(page.text)
    for name in (
        "title", "checkpoint", "adapter", "dtype", "quantization", "hardware", "metric", "author", "license", "tool",
        "path", "source license",
    ):  # fmt: skip
        assert hostile.short(name) in shown, name
    for name in ("signal_source", "compared_with", "evidence note", "prompt_set", "source note", "reason", "note"):
        assert hostile.long(name) in shown, name
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|49(?= onerror)", shown)
    scripts = [attributes.get("src") for tag, attributes in page.tags if tag == "script"]
    assert scripts == ["../../../assets/pages.js"]
    assert [attributes for tag, attributes in page.tags if tag == "img"] == [
        {"src": "badge.svg", "alt": "EasyTeaCache: up to 1.5× reported", "height": "20"}
    ]


def test_hostile_text_ends_no_script_of_the_index(tmp_path: Path) -> None:
    folder = build(Registry.from_folder(hostile.folder(tmp_path / "registry")), tmp_path / "site").folder
    data = (folder / "assets" / "records.js").read_text(encoding="utf-8")
    assert data.isascii()
    assert "<" not in data
    assert ">" not in data
    content = json.loads(data.removeprefix("window.easyteacacheCatalogue = ").removesuffix(";\n"))
    assert content["records"][0]["title"] == hostile.short("title")


def test_wishes_are_shown_as_text_with_what_there_is_today(tmp_path: Path) -> None:
    folder = build(Registry.from_folder(hostile.folder(tmp_path / "registry")), tmp_path / "site").folder
    page = Page(folder / "wanted.html")
    shown = "".join(page.text)
    assert hostile.long("why") in shown
    assert hostile.short("asked note") in shown
    assert ("a", "models/hostile/model/index.html") in list(page.addresses())
    assert not [tag for tag, attributes in page.tags if tag == "script" and not attributes.get("src")]


def test_a_badge_holds_only_this_projects_words(tmp_path: Path) -> None:
    folder = build(Registry.from_folder(hostile.folder(tmp_path / "registry")), tmp_path / "site").folder
    badge = (folder / "models/hostile/model/badge.svg").read_text(encoding="utf-8")
    assert badge.startswith("<svg ")
    assert "script" not in badge
    assert "up to 1.5× reported" in badge


def test_a_key_that_is_called_as_a_page_does_not_take_its_place(tmp_path: Path) -> None:
    assert page_of("a/index.html") == "models/a/~index.html/index.html"
    assert folder_of("a/badge.svg") == "models/a/~badge.svg"
    for key in ("a", "a/index.html", "a/badge.svg"):
        save(hostile.record(key), tmp_path / "registry" / f"{key}.json")
    index.write(tmp_path / "registry", index.build(tmp_path / "registry"))
    built = build(Registry.from_folder(tmp_path / "registry"), tmp_path / "site")
    assert built.models == 3
    assert all((built.folder / page_of(key)).is_file() for key in ("a", "a/index.html", "a/badge.svg"))


def test_the_code_leads_to_the_very_point_that_it_stands_at(bundled_site: Built) -> None:
    registry = Registry.from_folder(ROOT / "registry")
    tried = 0
    for path in (bundled_site.folder / "models").rglob("model.json"):
        for setting in json.loads(path.read_text(encoding="utf-8"))["settings"]:
            found = re.search(r'from_registry\("(.+)", (speedup|max_error)=([0-9.e-]+)\)', setting.get("use", ""))
            if found is None or setting.get("computed") is None:
                continue
            held = ("num_steps", "sequence_length", "shift")
            samplers = [
                bucket.sampler
                for bucket in registry[setting["record"]].buckets
                if all(getattr(bucket, name) == setting.get(name) for name in held)
                and setting.get("sampler") == (bucket.sampler and bucket.sampler.name)
            ]
            request, led = Request(**{found[2]: float(found[3])}), []
            for sampler in samplers:
                run = RunContext(*(setting.get(name) for name in ("sequence_length", "num_steps", "shift")), sampler)
                policy = ModelResolver(registry.meant_by(found[1])).policy(request, run)
                led.append((policy.model_key, list(policy.schedule or ())))
            assert (setting["record"], setting["computed"]) in led
            tried += 1
    assert tried > 50


def test_a_model_without_quality_figures_says_so_and_shows_no_quality(bundled_site: Built) -> None:
    page = Page(bundled_site.folder / page_of("cogvideox1.5/5b"))
    shown = " ".join("".join(page.text).split())
    assert "Nobody states how good these settings are" in shown
    assert "The chart shows speed-ups by evidence, and no quality." in shown
    dots = [attributes for tag, attributes in page.tags if "data-speed" in attributes]
    assert dots
    assert not any("data-quality" in attributes for attributes in dots)


def test_a_site_is_the_same_every_time(tmp_path: Path) -> None:
    folder = hostile.folder(tmp_path / "registry")
    for name in ("one", "two"):
        build(Registry.from_folder(folder), tmp_path / name)
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two


def test_a_damaged_record_is_left_out_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    for key in ("good/model", "bad/model"):
        save(hostile.record(key), folder / f"{key}.json")
    (folder / "bad" / "model.json").write_text("{", encoding="utf-8")
    result = CliRunner().invoke(hub, ["site", "--out", str(tmp_path / "site"), "--registry", str(folder), "--json"])
    told = json.loads(result.output)
    assert result.exit_code == 0
    assert told["models"] == 1
    assert [one["key"] for one in told["damaged"]] == ["bad/model"]


def test_records_lie_below_the_site_as_they_are_stored(bundled_site: Built) -> None:
    for path in (bundled_site.folder / "records").rglob("*.json"):
        stored = ROOT / "registry" / path.relative_to(bundled_site.folder / "records")
        assert path.read_bytes() == stored.read_bytes()


def test_schemas_lie_at_the_addresses_that_they_name(bundled_site: Built) -> None:
    home = "https://easyteacache.github.io/easyteacache/"
    for path in (bundled_site.folder / "schemas").iterdir():
        address = json.loads(path.read_text(encoding="utf-8"))["$id"]
        if not address.startswith("urn:"):
            assert address == f"{home}schemas/{path.name}"


def test_an_audit_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text('{"date": "2026-11-28", "packages": [7]}', encoding="utf-8")
    with pytest.raises(InvalidCalibration, match="expected a date and packages"):
        build(Registry.from_folder(hostile.folder(tmp_path / "r")), tmp_path / "s", audit=tmp_path / "audit.json")


def test_every_borrowing_that_a_record_knows_is_on_its_page(bundled_site: Built) -> None:
    for path in (ROOT / "registry").rglob("*.json"):
        if path.name in ("index.json", "wanted.json"):
            continue
        record = load(path)
        borrowed = [alias.value for alias in record.aliases if alias.borrowed]
        if borrowed:
            told = json.loads(
                (bundled_site.folder / folder_of(_model(record.model_key)) / "model.json").read_text(encoding="utf-8")
            )
            listed = next(one["borrowings"] for one in told["records"] if one["key"] == record.model_key)
            assert all(any(name in line for line in listed) for name in borrowed)


def _model(key: str) -> str:
    from easyteacache.registry.family import model_of

    return model_of(key)


def test_pages_of_an_earlier_site_are_replaced(tmp_path: Path) -> None:
    folder = hostile.folder(tmp_path / "registry")
    site = build(Registry.from_folder(folder), tmp_path / "site").folder
    page = site / page_of("hostile/model")
    fresh = page.read_bytes()
    page.write_bytes(fresh.replace(b"Settings", b"Sittings"))
    shutil.rmtree(site / "assets")
    build(Registry.from_folder(folder), tmp_path / "site")
    assert page.read_bytes() == fresh
    assert (site / "assets" / "pages.css").is_file()
