"""`easyteacache-hub pull` against a served hub: what lands, what does not, and what a reader sees meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from easyteacache.errors import InvalidCalibration
from easyteacache.hub.downloads import Downloads
from easyteacache.hub.pull import pull as pull_records
from easyteacache.hub.pull import read_index
from easyteacache.hub.remote import Remote
from easyteacache.hub.store import Store
from easyteacache.records.calibration import save
from easyteacache.registry import index, lock_file
from easyteacache.registry.registry import Registry

from .conftest import BASE, Program, Pull, build_folder, build_record, pulled_keys, states
from .fault_proxy import Fault, FaultProxy, fault_proxy
from .hub_process import HubProcess

pytestmark = pytest.mark.floors


def test_only_what_was_asked_for_arrives(pull: Pull, upstream: Path, run_hub: Program) -> None:
    result = pull("tiny/video", "--json")
    assert result.exit_code == 0, result.output
    assert states(result) == {"tiny/video": "new"}
    assert pulled_keys() == ["tiny/video"]
    assert Registry.default().find("tiny/video").layer == "pulled"
    listed = json.loads(run_hub("list", "--source", "pulled", "--json").stdout)
    assert [one["key"] for one in listed["records"]] == ["tiny/video"]


def test_a_second_pull_adds_and_a_third_changes_nothing(pull: Pull, upstream: Path) -> None:
    pull("tiny/video")
    assert states(pull("tiny/*", "--json")) == {"tiny/other": "new", "tiny/video": "unchanged"}
    assert states(pull("--json")) == {"far/image": "new", "tiny/other": "unchanged", "tiny/video": "unchanged"}
    before = Store().link.resolve()
    assert set(states(pull("--json")).values()) == {"unchanged"}
    assert Store().link.resolve() == before


def test_every_record_says_which_commit_it_came_from(
    pull: Pull, upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    first = hub_process.api().repo_info(repository, repo_type="dataset").sha
    pull("tiny/video")
    build_folder(upstream, build_record(revision=2))
    second = hub_process.publish(repository, upstream)
    pull("far/image")
    origins = Store().current().origins.records
    assert (origins["tiny/video"].commit, origins["far/image"].commit) == (first, second)
    assert origins["tiny/video"].repository == repository
    assert states(pull("tiny/video", "--revision", first, "--json")) == {"tiny/video": "unchanged"}
    assert states(pull("tiny/video", "--json")) == {"tiny/video": "changed"}


def test_a_dry_run_installs_nothing(pull: Pull, upstream: Path) -> None:
    result = pull("--dry-run")
    assert "Nothing was installed" in result.output
    assert pulled_keys() == []
    assert not Store().home.exists()


def plant_hash(folder: Path) -> str:
    save(build_record("tiny/other", title="Changed after it was listed"), folder / "tiny" / "other.json")
    return "index.sha256"


def relist(folder: Path, key: str, data: bytes) -> None:
    """List ``data`` under ``key`` as a hub would that checks nothing."""
    import hashlib

    (folder / f"{key}.json").write_bytes(data)
    content = json.loads((folder / index.FILE_NAME).read_text())
    content["records"][key]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / index.FILE_NAME).write_text(json.dumps(content))


def plant_schema(folder: Path) -> str:
    data = (folder / "tiny" / "other.json").read_bytes()
    relist(folder, "tiny/other", data.replace(b'"draft"', b'"excellent"'))
    return "record.schema"


def plant_nan(folder: Path) -> str:
    data = (folder / "tiny" / "other.json").read_bytes()
    relist(folder, "tiny/other", data.replace(b"2.0,", b"NaN,"))
    return "record.json"


def plant_wrong_key(folder: Path) -> str:
    relist(folder, "tiny/other", (folder / "tiny" / "video.json").read_bytes())
    return "record.path"


def plant_invariant(folder: Path) -> str:
    data = (folder / "tiny" / "other.json").read_bytes()
    relist(folder, "tiny/other", data.replace(b'"status": "draft"', b'"status": "yanked"'))
    return "record.invariant"


def plant_gone(folder: Path) -> str:
    (folder / "tiny" / "other.json").unlink()
    return "index.gone"


@pytest.mark.parametrize("plant", [plant_hash, plant_schema, plant_nan, plant_wrong_key, plant_invariant, plant_gone])
def test_a_bad_file_is_kept_aside_while_the_good_ones_land(
    plant: Callable[[Path], str], pull: Pull, upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    rule = plant(upstream)
    hub_process.publish(repository, upstream)
    result = pull("--json")
    assert result.exit_code == 1
    assert states(result) == {"far/image": "new", "tiny/other": "refused", "tiny/video": "new"}
    assert f"[{rule}]" in result.stdout
    assert pulled_keys() == ["far/image", "tiny/video"]
    if rule != "index.gone":
        assert rule in (Store().quarantine / "tiny--other.txt").read_text()
    assert "tiny/other" not in Registry.default()


def test_a_bad_new_revision_leaves_the_old_one_in_use(
    pull: Pull, upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    pull("tiny/other")
    plant_schema(upstream)
    hub_process.publish(repository, upstream)
    assert pull("tiny/other").exit_code == 1
    assert Registry.default()["tiny/other"].title == BASE[1].title


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not complete, valid JSON"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"index_version": 9, "records": {}}', "index_version is 9"),
        (b'{"index_version": 1, "records": {"../../x": {}}}', "records"),
    ],
)
def test_a_bad_index_brings_nothing(
    content: bytes, reason: str, pull: Pull, upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    (upstream / index.FILE_NAME).write_bytes(content)
    hub_process.publish(repository, upstream)
    result = pull()
    assert result.exit_code == 1
    assert reason in result.output
    assert not Store().home.exists()


def test_an_index_cannot_name_a_file_outside_its_folder(
    pull: Pull, upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    text = (upstream / index.FILE_NAME).read_text()
    (upstream / index.FILE_NAME).write_text(text.replace('"tiny/other.json"', '"../../tokens.json"'))
    hub_process.publish(repository, upstream)
    result = pull()
    assert result.exit_code == 1
    assert "is listed under '../../tokens.json'" in result.output


def test_it_works_offline_from_what_was_downloaded(pull: Pull, upstream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pull("tiny/video").exit_code == 0
    shutil.rmtree(Store().home)
    assert states(pull("tiny/video", "--offline", "--json")) == {"tiny/video": "new"}
    result = pull("far/image", "--offline")
    assert result.exit_code == 1
    assert "pull once without --offline" in result.output
    assert pulled_keys() == ["tiny/video"]


@pytest.mark.slow
def test_the_clients_own_variable_for_work_offline_means_offline(
    upstream: Path, hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    """The programs themselves: the client reads the variable when it is imported."""

    def run(*arguments: str, home: str, **more: str) -> subprocess.CompletedProcess[str]:
        own = {
            "EASYTEACACHE_HOME": str(tmp_path / home),
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": hub_process.endpoint,
        }
        return subprocess.run(
            [sys.executable, "-m", "easyteacache.cli.hub", *arguments, "--repo", repository],
            env={**os.environ, **own, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("pull", "tiny/video", home="first").returncode == 0
    done = run("pull", "tiny/video", home="second", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "1 new" in done.stdout
    assert run("update", home="second", HF_HUB_OFFLINE="1").returncode == 0
    refused = run("pull", "far/image", home="second", HF_HUB_OFFLINE="1")
    assert "pull once without --offline" in refused.stderr
    refused = run("log", "tiny/video", home="second", HF_HUB_OFFLINE="1")
    assert refused.returncode == 1
    assert "says to ask nobody" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_damaged_copy_in_the_cache_is_fetched_again(pull: Pull, upstream: Path) -> None:
    pull("tiny/video")
    (kept,) = (path for path in Downloads().folder.rglob("*") if path.is_file())
    for damage in (b"damaged", b""):
        shutil.rmtree(Store().home)
        kept.write_bytes(damage)
        assert states(pull("tiny/video", "--json")) == {"tiny/video": "new"}


def test_content_that_was_downloaded_once_is_not_asked_for_again(
    upstream: Path, repository: str, proxy: FaultProxy
) -> None:
    remote = Remote(repository, endpoint=proxy.endpoint)
    pull_records(remote, store=Store(Store().home / "first"))
    before = len(proxy.seen)
    pull_records(remote, store=Store(Store().home / "second"))
    assert not [request for request in proxy.seen[before:] if "tiny/video.json" in request]


def test_what_another_hub_says_of_a_repository_of_this_name_is_not_believed(
    upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    """The client's cache files by repository and commit; a hub can claim any commit."""
    true = Remote(repository, endpoint=hub_process.endpoint)
    commit = true.commit_of("main")
    lie = (upstream / index.FILE_NAME).read_bytes().replace(b"A tiny video model", b"A tiny video modem")
    with fault_proxy(hub_process.endpoint) as liar:
        liar.faults = [Fault(r"GET .*/index\.json", lie, times=9)]
        told = read_index(Remote(repository, endpoint=liar.endpoint), None)[1]
        assert told.records["tiny/video"].title == "A tiny video modem"
    pinned, found = read_index(true, None)
    assert pinned == commit
    assert found.records["tiny/video"].title == BASE[0].title


def test_a_file_larger_than_any_record_is_refused_and_not_received_whole(
    pull: Pull, upstream: Path, hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    relist(upstream, "tiny/other", b" " * (9 << 20))
    hub_process.publish(repository, upstream)
    result = pull("--json")
    assert result.exit_code == 1
    assert states(result) == {"far/image": "new", "tiny/other": "refused", "tiny/video": "new"}
    assert "[record.size]" in result.stdout


def test_what_was_damaged_on_this_disk_is_mended(pull: Pull, upstream: Path) -> None:
    pull()
    folder = Store().link
    (folder / "tiny" / "video.json").write_text("damaged")
    (folder / "far" / "image.json").unlink()
    assert states(pull("tiny/video", "far/image", "--json")) == {"far/image": "mended", "tiny/video": "mended"}
    assert Registry.default()["tiny/video"].title == BASE[0].title
    assert set(states(pull("--json")).values()) == {"unchanged"}


@pytest.mark.parametrize("name", [index.FILE_NAME, lock_file.FILE_NAME])
def test_a_damaged_list_of_what_was_pulled_is_made_again(
    name: str, pull: Pull, upstream: Path, run_hub: Program
) -> None:
    pull()
    (Store().link / name).write_text("{")
    with pytest.raises(InvalidCalibration, match="`easyteacache-hub pull` makes it again"):
        Store().current()
    assert run_hub("list", "--source", "pulled").exit_code == (1 if name == index.FILE_NAME else 0)
    assert pull().exit_code == 0
    assert pulled_keys() == ["far/image", "tiny/other", "tiny/video"]


@pytest.mark.parametrize("endpoint", ["not-a-url", "ftp://hub", "http://", "http://[bad", "https://a b", "file:///etc"])
def test_what_is_no_address_of_a_hub_is_refused(endpoint: str, run_hub: Program) -> None:
    result = run_hub("pull", "--repo", "team/x", "--endpoint", endpoint)
    assert result.exit_code == 1
    assert "is no address of a hub; expected http" in result.output


@pytest.mark.parametrize("endpoint", ["https://ada:secret@hub", "ada:secret@hub"])
def test_a_password_in_the_address_is_refused_and_not_shown(endpoint: str, run_hub: Program) -> None:
    result = run_hub("pull", "--repo", "team/x", "--endpoint", endpoint)
    assert result.exit_code == 1
    assert "EASYTEACACHE_TOKEN instead" in result.output
    assert "secret" not in result.output


def test_an_unknown_key_names_the_nearest(pull: Pull, upstream: Path) -> None:
    result = pull("tiny/vidoe")
    assert result.exit_code == 1
    assert "Did you mean 'tiny/video'" in result.output
    assert "pull --dry-run` shows what the hub has" in result.output


def test_what_the_hub_lacks_is_said_plainly(pull: Pull, upstream: Path, repository: str) -> None:
    assert "no such revision" in pull("--revision", "absent").output
    assert "no such dataset repository" in pull("--repo", "team/absent").output
    assert "expected owner/name" in pull("--repo", "a/b/c").output


def test_a_repository_that_is_no_registry_is_said_to_be_none(pull: Pull, repository: str) -> None:
    result = pull()
    assert result.exit_code == 1
    assert "is this a registry" in result.output


def test_a_hub_that_is_not_there_is_said_to_be_unreachable(run_hub: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easyteacache.hub.remote.RETRIES", 1)
    result = run_hub("pull", "--repo", "team/x", "--endpoint", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "cannot be reached" in result.output


def test_a_folder_that_pull_did_not_make_is_left_alone(pull: Pull, upstream: Path) -> None:
    build_folder(Store().link, build_record("own/record"))
    result = pull("tiny/video")
    assert result.exit_code == 1
    assert "move it away" in result.output
    assert pulled_keys() == ["own/record"]
    assert not list(Store().snapshots.iterdir())


def test_a_reader_of_the_old_snapshot_goes_on_reading_it(
    pull: Pull, upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    pull()
    reader = Registry.default()
    assert "far/image" in reader
    build_folder(upstream, build_record("far/image", title="Newer", revision=2))
    hub_process.publish(repository, upstream)
    pull()
    assert reader["far/image"].title == "Far"
    assert Registry.default()["far/image"].title == "Newer"


def test_the_login_of_the_public_hub_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from easyteacache.hub.remote import PUBLIC, token_for

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert token_for(PUBLIC) == "hf_secret"
    assert token_for("http://elsewhere") is None
    monkeypatch.setenv("EASYTEACACHE_TOKEN", "own")
    assert token_for("http://elsewhere") == "own"
