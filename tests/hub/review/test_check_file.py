"""A file of a registry folder is checked where it lies: inside the folder, under its own key, through no link."""

import os
import shutil
from pathlib import Path

import pytest

from easyteacache.hub.review.check_record import MEANINGS, check_file

VALID = Path(__file__).parents[2] / "fixtures" / "records" / "valid"


@pytest.fixture
def root(tmp_path):
    """A registry folder with one good record, `example/order-0`."""
    folder = tmp_path / "registry"
    (folder / "example").mkdir(parents=True)
    shutil.copy(VALID / "order-0-constant.json", folder / "example" / "order-0.json")
    return folder


def _only(findings):
    (finding,) = findings
    assert finding.rule in MEANINGS
    return finding


def test_a_record_under_its_own_key_is_accepted(root):
    assert check_file(root / "example" / "order-0.json", root) == []


def test_relative_paths_mean_the_same(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert check_file("registry/example/order-0.json", "registry") == []


def test_a_record_under_another_key_names_both(root):
    (root / "example" / "order-0.json").rename(root / "example" / "other.json")
    finding = _only(check_file(root / "example" / "other.json", root))
    assert (finding.rule, finding.pointer) == ("record.path", "/model_key")
    assert "'example/order-0'" in finding.message
    assert "'example/other'" in finding.message


def test_a_wrong_key_is_told_beside_everything_else(root):
    path = root / "example" / "order-0.json"
    path.write_text(path.read_text().replace("example/order-0", "../../etc/passwd").replace('"draft"', '"good"'))
    findings = check_file(path, root)
    assert sorted(finding.rule for finding in findings) == ["record.path", "record.schema", "record.schema"]


@pytest.mark.parametrize(
    "name",
    ["Order.json", "order-0.JSON", "order-0", ".hidden.json", "nul.json", "index.json", "a b.json", "\u0430.json"],
)
def test_a_file_name_that_is_no_key_is_refused(root, name):
    path = root / "example" / name
    shutil.copy(root / "example" / "order-0.json", path)
    assert _only(check_file(path, root)).rule == "record.path"


def test_a_file_outside_the_folder_is_refused(root, tmp_path):
    outside = shutil.copy(root / "example" / "order-0.json", tmp_path / "order-0.json")
    finding = _only(check_file(outside, root))
    assert finding.rule == "record.path"
    assert "outside the registry folder" in finding.message


def test_a_path_that_climbs_out_of_the_folder_is_refused(root, tmp_path):
    shutil.copy(root / "example" / "order-0.json", tmp_path / "order-0.json")
    assert _only(check_file(root / "example" / ".." / ".." / "order-0.json", root)).rule == "record.path"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_symbolic_links_are_refused_wherever_they_stand(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root / "example", elsewhere)
    (root / "linked").symlink_to(elsewhere, target_is_directory=True)
    (root / "example" / "alias.json").symlink_to(root / "example" / "order-0.json")
    for path in (root / "linked" / "order-0.json", root / "example" / "alias.json"):
        finding = _only(check_file(path, root))
        assert (finding.rule, "symbolic link" in finding.message) == ("record.path", True)


def test_a_missing_file_and_a_folder_are_unreadable(root):
    (root / "example" / "folder.json").mkdir()
    for name in ("absent.json", "folder.json"):
        finding = _only(check_file(root / "example" / name, root))
        assert (finding.rule, finding.where) == ("record.unreadable", str(root / "example" / name))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(root):
    os.mkfifo(root / "example" / "pipe.json")
    finding = _only(check_file(root / "example" / "pipe.json", root))
    assert (finding.rule, finding.message) == ("record.unreadable", "not a regular file")


def test_a_file_above_the_limit_is_not_read_whole(root):
    path = root / "example" / "large.json"
    with path.open("wb") as file:
        file.truncate(9 * 1024 * 1024)
    assert _only(check_file(path, root)).rule == "record.size"


def test_a_name_with_a_nul_character_is_refused(root):
    assert _only(check_file(f"{root}/example/a\0b.json", root)).rule == "record.path"
