"""Finding a record: layers, aliases, suggestions, and files that cannot be trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyteacache.errors import (
    AmbiguousModelKey,
    EasyTeaCacheError,
    InvalidCalibration,
    InvalidModelKey,
    UnknownModelKey,
)
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index
from easyteacache.registry.registry import Layer, Registry, home

pytestmark = pytest.mark.floors

Make = Callable[..., Any]


@pytest.fixture
def registry(registry_folder: Path) -> Registry:
    return Registry.from_folder(registry_folder)


@pytest.fixture(autouse=True)
def _no_layers_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EASYTEACACHE_REGISTRY", raising=False)
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path / "home"))


# Keys and aliases ----------------------------------------------------------------------------------------------------


def test_it_is_a_mapping_in_sorted_order(registry: Registry) -> None:
    assert list(registry) == ["single", "toy/model", "toy/model/part"]
    assert len(registry) == 3
    assert registry["toy/model"].model_key == "toy/model"
    assert ("toy/model" in registry, "toy" in registry) == (True, False)
    assert [record.model_key for record in registry.values()] == list(registry)
    assert registry.get("toy/model").title == "Toy"
    assert registry.get("toy", "nothing") == registry.get("../..", "nothing") == "nothing"


def test_a_key_is_never_answered_by_its_ancestor_or_its_part(registry: Registry) -> None:
    for key in ("toy", "toy/model/part/more", "toy/mode"):
        with pytest.raises(UnknownModelKey):
            registry.find(key)


def test_an_alias_is_found_and_named(registry: Registry) -> None:
    found = registry.find("Toy-AI/Toy-Model")
    assert found.calibration.model_key == "toy/model"
    assert found.notes == ("'Toy-AI/Toy-Model' is the hub repository of 'toy/model'.",)


def test_a_borrowed_alias_says_so(registry: Registry) -> None:
    assert "borrowed" in registry.find("Toy-AI/Other").notes[0]


def test_an_alias_of_two_records_is_an_error_with_both(registry: Registry) -> None:
    with pytest.raises(AmbiguousModelKey, match=r"'toy/model', 'toy/model/part'") as error:
        registry.find("Toy-AI/Shared")
    assert error.value.suggestions == ("toy/model", "toy/model/part")


def test_aliases_are_matched_exactly(registry: Registry) -> None:
    with pytest.raises(UnknownModelKey, match="Did you mean 'Toy-AI/Toy-Model'"):
        registry.find("toy-ai/toy-model")


def test_one_record_may_carry_a_name_as_two_kinds_of_alias(
    tmp_path: Path, make_record: Make, file_record: Make
) -> None:
    names = [{"kind": kind, "value": "toy/old"} for kind in ("explicit_key", "former_key")]
    file_record(tmp_path, make_record(aliases=names))
    assert Registry.from_folder(tmp_path).find("toy/old").calibration.model_key == "toy/model"


@pytest.mark.parametrize(
    ("asked", "near"), [("toy/modell", "toy/model"), ("Toy/Model", "toy/model"), ("part", "toy/model/part")]
)
def test_an_unknown_key_names_the_nearest(registry: Registry, asked: str, near: str) -> None:
    with pytest.raises(UnknownModelKey) as error:
        registry.find(asked)
    assert near in error.value.suggestions
    assert f"no calibration named {asked!r}" in str(error.value)
    assert error.value.layers == tuple(layer.name for layer in registry.layers)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "..",
        "../toy/model",
        "toy/../single",
        "/toy/model",
        "toy//model",
        "toy/",
        "C:\\toy",
        "a b",
        "tóy/model",
        3,
        None,
        b"single",
    ],
)
def test_what_is_no_key_is_an_error_of_its_own(registry: Registry, key: Any) -> None:
    with pytest.raises(InvalidModelKey, match="is not a model key"):
        registry.find(key)


# Layers --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def layered(tmp_path: Path, make_record: Make, file_record: Make, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One record in every layer, each of another revision; the bundled one is the real one."""
    for revision, name in enumerate(("explicit", "other", "home/local", "home/pulled"), 101):
        file_record(tmp_path / name, make_record(key="wan2.1/t2v-14b", revision=revision))
        file_record(tmp_path / name, make_record(key=f"only/{name.split('/')[-1]}"))
    monkeypatch.setenv("EASYTEACACHE_REGISTRY", os.pathsep.join([str(tmp_path / "explicit"), str(tmp_path / "other")]))
    return tmp_path


def test_the_first_layer_that_holds_a_key_wins(layered: Path) -> None:
    registry = Registry.default()
    assert [layer.name for layer in registry.layers] == [
        str(layered / "explicit"),
        str(layered / "other"),
        "local",
        "pulled",
        "bundled",
    ]
    found = registry.find("wan2.1/t2v-14b")
    assert (found.layer, found.calibration.revision) == (str(layered / "explicit"), 101)
    for name in ("explicit", "other", "local", "pulled"):
        assert registry.find(f"only/{name}").layer.endswith(name)
    assert registry.find("flux.1/dev").layer == "bundled"


@pytest.mark.parametrize(("variable", "revision"), [("", 103), (os.pathsep, 103)])
def test_an_empty_variable_names_no_folder(
    layered: Path, variable: str, revision: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYTEACACHE_REGISTRY", variable)
    assert Registry.default().find("wan2.1/t2v-14b").calibration.revision == revision


def test_what_is_hidden_is_said(layered: Path) -> None:
    (note,) = Registry.default().find("wan2.1/t2v-14b").notes
    assert (
        note
        == f"revision 101 from the layer {str(layered / 'explicit')!r} hides revision 102 in {str(layered / 'other')!r}."
    )


def test_an_identical_record_below_is_not_worth_a_note(tmp_path: Path, make_record: Make, file_record: Make) -> None:
    for name in ("above", "below"):
        file_record(tmp_path / name, make_record())
    registry = Registry([Layer(name, tmp_path / name) for name in ("above", "below")])
    assert registry.find("toy/model").notes == ()


def test_an_alias_leads_to_the_same_record_as_its_key(layered: Path) -> None:
    registry = Registry.default()
    by_alias, by_key = registry.find("Wan-AI/Wan2.1-T2V-14B-Diffusers"), registry.find("wan2.1/t2v-14b")
    assert (by_alias.calibration, by_alias.layer) == (by_key.calibration, by_key.layer)
    assert by_alias.notes == (
        "'Wan-AI/Wan2.1-T2V-14B-Diffusers' is the hub repository of 'wan2.1/t2v-14b'.",
        *by_key.notes,
    )


def test_entries_list_what_a_lookup_reaches_and_read_no_record(registry: Registry, registry_folder: Path) -> None:
    for path in registry_folder.rglob("*.json"):
        if path.name != index.FILE_NAME:
            path.unlink()
    assert [(key, layer) for key, layer, _ in registry.entries()] == [(key, str(registry_folder)) for key in registry]


def test_the_home_folder_follows_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", "~/there")
    assert home() == Path.home() / "there"
    monkeypatch.delenv("EASYTEACACHE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert home() == Path("/data/easyteacache")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert home() == Path.home() / ".local/share/easyteacache"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidCalibration, match="not a folder"):
        Registry.from_folder(tmp_path / "none")
    monkeypatch.setenv("EASYTEACACHE_REGISTRY", str(tmp_path / "none"))
    with pytest.raises(InvalidCalibration, match="EASYTEACACHE_REGISTRY names"):
        Registry.default()


def test_an_empty_folder_is_an_empty_registry(tmp_path: Path) -> None:
    registry = Registry.from_folder(tmp_path)
    assert (len(registry), list(registry)) == (0, [])
    with pytest.raises(UnknownModelKey):
        registry.find("toy/model")


# Files that cannot be trusted ----------------------------------------------------------------------------------------


def edit(folder: Path) -> None:
    path = folder / "toy/model.json"
    path.write_text(path.read_text().replace("Toy", "Edited"))


def remove(folder: Path) -> None:
    (folder / "toy/model.json").unlink()


def replace_by_folder(folder: Path) -> None:
    remove(folder)
    (folder / "toy/model.json").mkdir()


def replace_by_pipe(folder: Path) -> None:
    remove(folder)
    os.mkfifo(folder / "toy/model.json")


def link_out(folder: Path) -> None:
    path = folder / "toy/model.json"
    outside = folder.parent / "outside.json"
    path.rename(outside)
    path.symlink_to(outside)


def link_in_a_circle(folder: Path) -> None:
    remove(folder)
    (folder / "toy/model.json").symlink_to(folder / "toy/model.json")


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (edit, "index.sha256"),
        (remove, "record.unreadable"),
        (replace_by_folder, "record.unreadable"),
        (replace_by_pipe, "record.unreadable"),
        (link_out, "record.path"),
        (link_in_a_circle, "record.unreadable"),
    ],
)
def test_a_record_that_is_not_what_the_index_says_is_an_error(
    registry_folder: Path, damage: Callable[[Path], None], rule: str
) -> None:
    damage(registry_folder)
    registry = Registry.from_folder(registry_folder)
    with pytest.raises(InvalidCalibration, match=r"model\.json") as error:
        registry.find("toy/model")
    assert error.value.rule == rule
    assert registry.find("single").calibration.model_key == "single"


def test_a_link_inside_the_folder_is_followed(registry_folder: Path) -> None:
    path = registry_folder / "toy/model.json"
    path.rename(registry_folder / "toy/.real")
    path.symlink_to(".real")
    assert Registry.from_folder(registry_folder).find("toy/model").calibration.title == "Toy"


def test_a_record_filed_under_another_key_is_an_error(tmp_path: Path, make_record: Make) -> None:
    record: Calibration = make_record(key="toy/model")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/other.json").write_text(record.to_json())
    with pytest.raises(InvalidCalibration, match="its path says 'toy/other'"):
        Registry.from_folder(tmp_path).find("toy/other")
    listed = index.entry_of(record, record.to_json().encode()).model_dump(mode="json")
    content = {"index_version": 2, "records": {"toy/other": {**listed, "path": "toy/other.json"}}}
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(InvalidCalibration, match="its path says 'toy/other'"):
        Registry.from_folder(tmp_path).find("toy/other")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"index_version": 3, "records": {}}', '{"index_version": true, "records": {}}',
     '{"index_version": 1}', '{"index_version": 1, "records": {"a": {}}}', '{"index_version": 1, "records": {}, "more": 1}'],
)  # fmt: skip
def test_a_damaged_index_is_an_error_and_not_rebuilt_silently(registry_folder: Path, text: str) -> None:
    (registry_folder / "index.json").write_text(text)
    with pytest.raises(InvalidCalibration, match=r"index\.json"):
        Registry.from_folder(registry_folder).find("single")
    assert (registry_folder / "index.json").read_text() == text


def test_an_index_of_version_1_is_read_as_it_was_written(registry_folder: Path) -> None:
    path = registry_folder / "index.json"
    content = json.loads(path.read_text())
    for entry in content["records"].values():
        for name in ("class_name", "speedup", "evidence"):
            del entry[name]
    path.write_text(json.dumps(content | {"index_version": 1}))
    assert Registry.from_folder(registry_folder).find("single").calibration.model_key == "single"
    (entry,) = (entry for key, _, entry in Registry.from_folder(registry_folder).entries() if key == "single")
    assert (entry.class_name, entry.speedup, entry.evidence) == (None, None, None)
    content["records"]["single"]["speedup"] = 2.0
    path.write_text(json.dumps(content | {"index_version": 1}))
    with pytest.raises(InvalidCalibration, match=r"records.'single'.speedup: not a field of version 1"):
        Registry.from_folder(registry_folder).find("single")


def test_the_index_says_what_a_list_of_records_shows(registry_folder: Path) -> None:
    entries = {key: entry for key, _, entry in Registry.from_folder(registry_folder).entries()}
    assert (entries["single"].speedup, entries["single"].evidence) == (1.5, "submitted")
    bundled = {key: entry for key, _, entry in Registry.default().entries()}
    assert bundled["reference/moving-digits"].evidence == "submitted"
    assert bundled["wan2.1/t2v-14b"].evidence == "published"
    assert bundled["wan2.1/t2v-14b/magcache"].method == "magcache"


@pytest.mark.parametrize("path", ["../outside.json", "/etc/passwd", "toy/part.json", "toy/model.JSON"])
def test_an_index_cannot_point_elsewhere(registry_folder: Path, path: str) -> None:
    content = json.loads((registry_folder / "index.json").read_text())
    content["records"]["toy/model"]["path"] = path
    (registry_folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(InvalidCalibration, match=r"expected 'toy/model\.json'"):
        Registry.from_folder(registry_folder).find("single")


def test_without_an_index_the_files_are_scanned(registry_folder: Path) -> None:
    indexed = dict(Registry.from_folder(registry_folder))
    (registry_folder / "index.json").unlink()
    assert dict(Registry.from_folder(registry_folder)) == indexed
    assert not (registry_folder / "index.json").exists()


def test_one_broken_record_without_an_index_is_an_error_that_names_it(registry_folder: Path) -> None:
    (registry_folder / "index.json").unlink()
    (registry_folder / "single.json").write_text("{}")
    with pytest.raises(EasyTeaCacheError, match=r"single\.json"):
        Registry.from_folder(registry_folder).find("toy/model")


def test_the_bundled_registry_answers_all_its_keys_and_aliases() -> None:
    registry = Registry.default()
    bundled = registry.layers[-1]
    assert len(bundled.index.records) >= 60
    for key in bundled.index.records:
        assert registry[key].model_key == key
    for alias, keys in bundled.aliases.items():
        if len(keys) == 1:
            assert registry.find(alias).calibration.model_key == (alias if alias in registry else keys[0])


# Names that two layers claim ------------------------------------------------------------------------------------------

THEIRS = [{"kind": "hub_repository", "value": "Toy-Lab/Toy"}]
FORMER = [{"kind": "former_key", "value": "toy/old-name"}]


@pytest.fixture
def with_pulled(tmp_path: Path, make_record: Make, file_record: Make) -> Callable[..., Registry]:
    """A registry of a pulled layer with one record before a bundled one, whose record is called Toy-Lab/Toy and toy/old-name."""

    def build(key: str, aliases: list[dict[str, Any]], lock: Path | None = None, foreign: bool = True) -> Registry:
        file_record(tmp_path / "pulled", make_record(key=key, aliases=aliases, title="Evil"))
        file_record(tmp_path / "bundled", make_record(key="toy/model", aliases=THEIRS + FORMER))
        layers = [Layer("pulled", tmp_path / "pulled", foreign=foreign), Layer("bundled", tmp_path / "bundled")]
        return Registry(layers, lock=lock)

    return build


@pytest.mark.parametrize("name", ["Toy-Lab/Toy", "toy/old-name"])
def test_a_layers_alias_never_takes_the_name_of_another_layers_record(
    name: str, with_pulled: Callable[..., Registry]
) -> None:
    found = with_pulled("evil/model", THEIRS + FORMER).find(name)
    assert (found.calibration.model_key, found.layer) == ("toy/model", "bundled")
    assert "'evil/model' in the layer 'pulled' claims this name, too: ask for it by its key." in found.notes


def test_two_records_of_one_layer_that_claim_a_name_do_not_hide_another_layers(
    with_pulled: Callable[..., Registry], tmp_path: Path, make_record: Make, file_record: Make
) -> None:
    file_record(tmp_path / "pulled", make_record(key="evil/second", aliases=THEIRS))
    assert with_pulled("evil/model", THEIRS).find("Toy-Lab/Toy").calibration.model_key == "toy/model"


def test_a_pulled_key_does_not_take_the_name_of_another_layers_record(with_pulled: Callable[..., Registry]) -> None:
    registry = with_pulled("toy/old-name", [])
    found = registry.find("toy/old-name")
    assert (found.calibration.model_key, found.layer) == ("toy/model", "bundled")
    assert any("'pulled' has a record of this key" in note for note in found.notes)
    assert "toy/old-name" not in registry
    assert all(registry[key].model_key == key for key in registry)


def test_a_key_of_ones_own_layer_wins_over_an_alias(with_pulled: Callable[..., Registry]) -> None:
    found = with_pulled("toy/old-name", [], foreign=False).find("toy/old-name")
    assert (found.calibration.model_key, found.layer) == ("toy/old-name", "pulled")


@pytest.mark.parametrize(("locked", "expected"), [("toy/model", "toy/model"), ("evil/model", "evil/model")])
def test_a_lock_decides_among_the_records_that_claim_a_name(
    locked: str, expected: str, with_pulled: Callable[..., Registry], tmp_path: Path
) -> None:
    path = tmp_path / "easyteacache.lock"
    free = with_pulled("evil/model", THEIRS)
    layer = next(layer for layer in free.layers if locked in layer.index.records)
    sha256 = layer.index.records[locked].sha256
    text = {"lock_version": 1, "records": {locked: {"sha256": sha256, "revision": 1}}}
    path.write_text(json.dumps(text))
    assert Registry(free.layers, lock=path).find("Toy-Lab/Toy").calibration.model_key == expected


def test_a_name_whose_records_are_not_locked_says_which_one_to_lock(
    with_pulled: Callable[..., Registry], tmp_path: Path
) -> None:
    path = tmp_path / "easyteacache.lock"
    path.write_text('{"lock_version": 1, "records": {}}')
    with pytest.raises(InvalidCalibration, match="easyteacache-hub lock toy/model"):
        with_pulled("evil/model", THEIRS, lock=path).find("Toy-Lab/Toy")


def test_the_default_layers_know_that_others_chose_what_was_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path))
    for name in ("local", "pulled"):
        (tmp_path / name).mkdir()
    assert [(layer.name, layer.foreign) for layer in Registry.default().layers] == [
        ("local", False),
        ("pulled", True),
        ("bundled", False),
    ]


# Variables that name no folder ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variable", ["EASYTEACACHE_HOME", "XDG_DATA_HOME", "EASYTEACACHE_REGISTRY", "EASYTEACACHE_LOCK"]
)
def test_a_variable_that_names_the_home_of_nobody_is_one_sentence(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EASYTEACACHE_HOME", raising=False)
    monkeypatch.setenv(variable, "~nobody-of-this-name/x")
    with pytest.raises(InvalidCalibration, match=f"{variable}: names '~nobody-of-this-name/x'"):
        Registry.default()


def test_a_folder_of_nobody_is_one_sentence() -> None:
    with pytest.raises(InvalidCalibration, match="whose home folder is not known here"):
        Registry.from_folder("~nobody-of-this-name/x")


# Surroundings --------------------------------------------------------------------------------------------------------


def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "EASYTEACACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_home_the_bundled_records_answer_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_home(monkeypatch)
    registry = Registry.default()
    assert [layer.name for layer in registry.layers] == ["bundled"]
    found = registry.find("reference/moving-digits")
    assert any("no home folder" in note and "EASYTEACACHE_HOME" in note for note in found.notes)


@pytest.mark.parametrize("refused", ["stat", "scandir"])
def test_a_home_that_is_not_mine_gives_no_layer_and_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refused: str
) -> None:
    own = home() / "local"
    own.mkdir(parents=True)
    owner: Any = Path if refused == "stat" else os
    original = getattr(owner, refused)

    def guarded(path: Any, *args: Any, **kwargs: Any) -> Any:
        if os.fspath(path).startswith(os.fspath(home())):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(owner, refused, guarded)
    found = Registry.default().find("reference/moving-digits")
    assert found.layer == "bundled"
    assert any("'local'" in note and "Permission denied" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [("toy/broken.json", "{"), ("reference/moving-digits.json", "[]"), ("Not A Key!.json", "{}"), ("index.json", "{")],
)
def test_a_malformed_file_spoils_its_own_record_alone(
    monkeypatch: pytest.MonkeyPatch, registry_folder: Path, name: str, content: str
) -> None:
    (registry_folder / "index.json").unlink(missing_ok=True)
    (registry_folder / name).parent.mkdir(exist_ok=True)
    (registry_folder / name).write_text(content)
    monkeypatch.setenv("EASYTEACACHE_REGISTRY", str(registry_folder))
    registry = Registry.default()
    for key in ("toy/model", "wan2.1/t2v-14b"):
        assert any(name in note for note in registry.find(key).notes)
    key = name.removesuffix(".json")
    assert key not in registry
    assert {"toy/model", "wan2.1/t2v-14b"} <= {entry[0] for entry in registry.entries()}
    if key in ("toy/broken", "reference/moving-digits"):
        with pytest.raises(InvalidCalibration, match=key):
            registry.find(key)
