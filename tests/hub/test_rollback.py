"""The newest commit that was seen of a hub: an older state is refused, a newer one is taken and remembered."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from easyteacache.errors import HubError
from easyteacache.hub import pull as pulling
from easyteacache.hub.newest import Newest, RolledBack
from easyteacache.hub.remote import Remote
from easyteacache.hub.server.git import MAIN, GitRepository
from easyteacache.hub.store import Store
from easyteacache.registry.registry import Registry

from .conftest import Program, Pull, build_folder, build_record, states
from .fault_proxy import Fault, FaultProxy
from .hub_process import HubProcess


@pytest.fixture
def git(hub_process: HubProcess, repository: str) -> Iterator[GitRepository]:
    found = GitRepository(hub_process.folder / "datasets" / f"{repository}.git")
    yield found
    found.close()


@pytest.fixture
def two(upstream: Path, hub_process: HubProcess, repository: str) -> tuple[str, str]:
    """The commits of two revisions of tiny/video, the older one first."""
    first = hub_process.api().repo_info(repository, repo_type="dataset").sha
    build_folder(upstream, build_record(revision=2))
    return first, hub_process.publish(repository, upstream)


def set_back(git: GitRepository, commit: str) -> None:
    git.move(MAIN, commit, git.resolve("main"))


def seen() -> list[dict[str, Any]]:
    """What this machine remembers."""
    return [json.loads(path.read_text()) for path in sorted((Store().home / "seen").glob("*.json"))]


def test_a_hub_that_was_set_back_is_refused_and_nothing_changes(
    pull: Pull, two: tuple[str, str], git: GitRepository
) -> None:
    first, second = two
    assert pull("tiny/video").exit_code == 0
    set_back(git, first)
    result = pull("tiny/video")
    assert result.exit_code == 1
    assert f"main is at {first[:12]}, which does not follow {second[:12]}" in result.output
    assert "--allow-rollback" in result.output
    assert Registry.default()["tiny/video"].revision == 2
    assert pull("--dry-run").exit_code == 1
    assert [one["commit"] for one in seen()] == [second]


def test_it_is_taken_where_it_is_asked_for_and_is_the_newest_from_then_on(
    pull: Pull, two: tuple[str, str], git: GitRepository
) -> None:
    first, second = two
    pull("tiny/video")
    set_back(git, first)
    assert states(pull("tiny/video", "--allow-rollback", "--json")) == {"tiny/video": "changed"}
    assert Registry.default()["tiny/video"].revision == 1
    assert pull("tiny/video").exit_code == 0
    set_back(git, second)
    assert states(pull("tiny/video", "--json")) == {"tiny/video": "changed"}


def test_a_history_that_was_written_anew_is_refused(pull: Pull, two: tuple[str, str], git: GitRepository) -> None:
    pull("tiny/video")
    files = {
        entry.path: git.read(two[1], entry.path)[1]
        for entry in git.entries(two[1], recursive=True)
        if entry.kind == "blob"
    }  # type: ignore[index]
    set_back(git, git.commit(None, files, "Anew", "somebody"))
    assert "a history written anew" in pull("tiny/video").output


def test_an_explicit_commit_is_no_rollback(pull: Pull, two: tuple[str, str]) -> None:
    first, second = two
    pull("tiny/video")
    assert states(pull("tiny/video", "--revision", first, "--json")) == {"tiny/video": "changed"}
    assert [one["commit"] for one in seen()] == [second]
    assert states(pull("tiny/video", "--json")) == {"tiny/video": "changed"}


def test_a_tag_that_moves_back_is_refused(pull: Pull, two: tuple[str, str], git: GitRepository) -> None:
    first, second = two
    git.move("refs/tags/v1", second, None)
    assert pull("tiny/video", "--revision", "v1").exit_code == 0
    git.move("refs/tags/v1", first, second)
    assert "v1 is at" in pull("tiny/video", "--revision", "v1").output
    assert pull("tiny/video").exit_code == 0
    assert sorted(one["revision"] for one in seen()) == ["main", "v1"]


def test_an_update_is_refused_and_allowed_alike(
    pull: Pull, two: tuple[str, str], git: GitRepository, run_hub: Program, hub_process: HubProcess
) -> None:
    pull("tiny/video")
    set_back(git, two[0])
    at = ("--endpoint", hub_process.endpoint)
    refused = run_hub("update", "--apply", *at)
    assert refused.exit_code == 1
    assert "does not follow" in refused.output
    assert Registry.default()["tiny/video"].revision == 2
    assert run_hub("update", "--apply", "--allow-rollback", *at).exit_code == 0
    assert Registry.default()["tiny/video"].revision == 1


def test_an_update_remembers_what_it_saw(
    pull: Pull, upstream: Path, hub_process: HubProcess, repository: str, git: GitRepository, run_hub: Program
) -> None:
    pull("tiny/video")
    first = git.resolve("main") or ""
    build_folder(upstream, build_record(revision=2))
    second = hub_process.publish(repository, upstream)
    assert run_hub("update", "--endpoint", hub_process.endpoint).exit_code == 0
    assert [one["commit"] for one in seen()] == [second]
    set_back(git, first)
    assert pull("tiny/video").exit_code == 1


def test_a_look_without_installing_remembers_nothing(pull: Pull, upstream: Path) -> None:
    assert pull("--dry-run").exit_code == 0
    assert not Store().home.exists()


def test_what_was_seen_of_one_hub_says_nothing_of_another(
    pull: Pull, two: tuple[str, str], git: GitRepository, proxy: FaultProxy, repository: str
) -> None:
    pull("tiny/video")
    set_back(git, two[0])
    other = Remote(repository, endpoint=proxy.endpoint)
    assert pulling.pull(other, ["tiny/video"]).commit == two[0]
    assert len(seen()) == 2


def test_a_hub_that_does_not_show_its_history_is_not_believed(
    pull: Pull, upstream: Path, hub_process: HubProcess, proxy: FaultProxy, repository: str
) -> None:
    remote = Remote(repository, endpoint=proxy.endpoint, wait=lambda _: None)
    pulling.pull(remote)
    build_folder(upstream, build_record(revision=2))
    hub_process.publish(repository, upstream)
    proxy.faults = [Fault(r"/commits/", 404, times=9)]
    with pytest.raises(HubError, match="answered 404"):
        pulling.pull(remote)
    proxy.faults = [Fault(r"/commits/", b"[]", times=9)]
    with pytest.raises(RolledBack):
        pulling.pull(remote)
    proxy.faults = []
    assert {one.state for one in pulling.pull(remote).outcomes} == {"changed", "unchanged"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"commit": "x"}', "\x00"])
def test_a_damaged_memory_is_an_error_that_says_what_to_do(text: str, pull: Pull, upstream: Path) -> None:
    pull("tiny/video")
    (path,) = (Store().home / "seen").glob("*.json")
    good = path.read_text()
    path.write_text(text)
    result = pull("tiny/video")
    assert result.exit_code == 1
    assert "--allow-rollback takes what the hub shows and writes it anew" in " ".join(result.output.split())
    assert pull("tiny/video", "--allow-rollback").exit_code == 0
    assert path.read_text() == good


def test_a_pull_that_another_one_overtook_does_not_write_back_the_older_commit(
    two: tuple[str, str], hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    first, second = two
    remote, newest = Remote(repository, endpoint=hub_process.endpoint), Newest(tmp_path / "own")
    newest.remember(remote, None, second, instead_of=None)
    newest.remember(remote, None, first, instead_of=None)
    assert newest.get(remote, "main") == second


def test_a_home_that_cannot_be_written_is_no_failure(
    hub_process: HubProcess, upstream: Path, repository: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    remote = Remote(repository, endpoint=hub_process.endpoint)
    commit, _ = pulling.newest_index(remote, None, home=tmp_path / "file")
    assert commit == remote.commit_of("main")


def test_one_question_more_where_the_hub_moved_and_none_where_it_did_not(
    two: tuple[str, str], upstream: Path, hub_process: HubProcess, proxy: FaultProxy, repository: str
) -> None:
    remote = Remote(repository, endpoint=proxy.endpoint)
    pulling.pull(remote)
    proxy.seen.clear()
    pulling.pull(remote)
    assert len(proxy.seen) == 1
    build_folder(upstream, build_record(revision=3))
    hub_process.publish(repository, upstream)
    proxy.seen.clear()
    pulling.pull(remote, ["far/image"])
    assert ["commits" in one for one in proxy.seen] == [False, True]


def test_locked_content_is_pinned_already_and_not_asked_about(
    pull: Pull, two: tuple[str, str], git: GitRepository, run_hub: Program
) -> None:
    pull("tiny/video")
    run_hub("lock", "tiny/video")
    set_back(git, two[0])
    assert run_hub("pull", "--locked").exit_code == 0
    assert (
        subprocess.run(["git", "--git-dir", str(git.folder), "fsck"], capture_output=True, check=False).returncode == 0
    )
