"""The served hub, seen by the unmodified huggingface_hub client and by plain HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..hub_process import TOKENS, HubProcess

DATASET = {"repo_type": "dataset"}


def add(**files: str) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(name.replace("__", "."), content.encode()) for name, content in files.items()]


def test_a_commit_is_a_git_commit_that_git_itself_reads(hub_process: HubProcess, repository: str) -> None:
    done = hub_process.api().create_commit(repository, add(a="one", b="two"), commit_message="Add", **DATASET)
    git = ["git", "--git-dir", str(hub_process.folder / "datasets" / f"{repository}.git")]
    assert subprocess.check_output([*git, "rev-parse", "main"], text=True).strip() == done.oid
    assert subprocess.check_output([*git, "show", "main:b"], text=True) == "two"
    assert subprocess.run([*git, "fsck", "--strict"], capture_output=True, check=False).returncode == 0


def test_a_request_is_opened_extended_merged_and_read(hub_process: HubProcess, repository: str) -> None:
    theirs, ours = hub_process.api("contributor"), hub_process.api()
    head = ours.repo_info(repository, **DATASET).sha
    done = theirs.create_commit(
        repository, add(a="one"), commit_message="Add a", create_pr=True, parent_commit=head, **DATASET
    )
    assert done.pr_revision == "refs/pr/1"
    assert ours.list_repo_files(repository, **DATASET) == []
    more = add(b="two")
    theirs.create_commit(repository, more, commit_message="b", revision="refs/pr/1", parent_commit=done.oid, **DATASET)
    assert [one.title for one in ours.get_repo_discussions(repository, discussion_status="open", **DATASET)] == [
        "Add a"
    ]
    ours.comment_discussion(repository, 1, "Thank you.", **DATASET)
    ours.merge_pull_request(repository, 1, **DATASET)
    details = ours.get_discussion_details(repository, 1, **DATASET)
    assert details.status == "merged"
    assert details.merge_commit_oid == ours.repo_info(repository, **DATASET).sha
    assert [event.type for event in details.events] == ["comment", "commit", "comment", "status-change"]
    assert ours.list_repo_files(repository, **DATASET) == ["a", "b"]
    ours.merge_pull_request(repository, 1, **DATASET)
    assert ours.repo_info(repository, **DATASET).sha == details.merge_commit_oid


def test_requests_that_change_the_same_line_conflict(hub_process: HubProcess, repository: str) -> None:
    api = hub_process.api()
    api.create_commit(repository, add(a="zero"), commit_message="Base", **DATASET)
    for text in ("one", "two"):
        api.create_commit(repository, add(a=text), commit_message=text, create_pr=True, **DATASET)
    api.merge_pull_request(repository, 1, **DATASET)
    assert api.get_discussion_details(repository, 2, **DATASET).conflicting_files == ["a"]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.merge_pull_request(repository, 2, **DATASET)
    assert api.get_discussion_details(repository, 2, **DATASET).status == "open"


def test_a_stale_parent_is_refused_and_nothing_moves(hub_process: HubProcess, repository: str) -> None:
    api = hub_process.api()
    old = api.repo_info(repository, **DATASET).sha
    new = api.create_commit(repository, add(a="one"), commit_message="First", **DATASET).oid
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(repository, add(a="two"), commit_message="Second", parent_commit=old, **DATASET)
    assert api.repo_info(repository, **DATASET).sha == new


def test_files_can_be_deleted_tagged_and_read_at_any_revision(hub_process: HubProcess, repository: str) -> None:
    api = hub_process.api()
    api.create_commit(repository, add(a="one"), commit_message="First", **DATASET)
    api.create_tag(repository, tag="v1", **DATASET)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(repository, tag="v1", **DATASET)
    api.create_commit(repository, [CommitOperationDelete("a")], commit_message="Delete", **DATASET)
    assert [commit.title for commit in api.list_repo_commits(repository, **DATASET)][:2] == ["Delete", "First"]
    options = {"endpoint": hub_process.endpoint, "token": False, **DATASET}
    assert Path(hf_hub_download(repository, "a", revision="v1", **options)).read_text() == "one"
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(repository, "a", **options)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(repository, "a", revision="v2", **options)


def test_rights_follow_the_token(hub_process: HubProcess, repository: str) -> None:
    reader, contributor = hub_process.api("reader"), hub_process.api("contributor")
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_commit(repository, add(a="one"), commit_message="No", create_pr=True, **DATASET)
    with pytest.raises(HfHubHTTPError, match="403"):
        contributor.create_commit(repository, add(a="one"), commit_message="No", **DATASET)
    with pytest.raises(HfHubHTTPError, match="401"):
        hub_process.api(None).create_commit(repository, add(a="one"), commit_message="No", **DATASET)
    contributor.create_commit(repository, add(a="one"), commit_message="Yes", create_pr=True, **DATASET)
    with pytest.raises(HfHubHTTPError, match="403"):
        contributor.merge_pull_request(repository, 1, **DATASET)
    contributor.change_discussion_status(repository, 1, "closed", **DATASET)
    with pytest.raises(HfHubHTTPError, match="is closed"):
        hub_process.api().merge_pull_request(repository, 1, **DATASET)


def test_private_and_gated_repositories_are_closed(hub_process: HubProcess) -> None:
    private, gated = hub_process.new_repository(private=True), hub_process.new_repository()
    (hub_process.folder / "datasets" / f"{gated}.git" / "gated").write_text("maintainer\n")
    with pytest.raises(RepositoryNotFoundError):
        hub_process.api(None).repo_info(private, **DATASET)
    with pytest.raises(GatedRepoError):
        hub_process.api("reader").repo_info(gated, **DATASET)
    assert hub_process.api().repo_info(gated, **DATASET).id == gated
    with pytest.raises(RepositoryNotFoundError):
        hub_process.api().repo_info("team/absent", **DATASET)


def ask(hub: HubProcess, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=20)
    auth = {"Authorization": f"Bearer {TOKENS['maintainer']}"}
    connection.request(method, path, body, {**auth, **{k.replace("_", "-"): v for k, v in headers.items()}})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize(
    "path", ["../../x", "/etc/x", "a/../../x", ".git/config", "a//b", "a\\b", "a\nb", "", "a/.GIT/x"]
)
def test_no_commit_writes_outside_its_tree(path: str, hub_process: HubProcess, repository: str) -> None:
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    status, answer = ask(hub_process, "POST", f"/api/datasets/{repository}/commit/main", body)
    assert status == 400
    assert b"cannot be a file name" in answer


def committed(hub: HubProcess, repository: str, *changes: tuple[str, str | None]) -> tuple[int, bytes]:
    """A commit to main: path → content, None deletes."""
    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "x"}}]
    for path, content in changes:
        data = None if content is None else base64.b64encode(content.encode()).decode()
        file = {"key": "deletedFile", "value": {"path": path}}
        lines.append(file if data is None else {"key": "file", "value": {"path": path, "content": data}})
    return ask(hub, "POST", f"/api/datasets/{repository}/commit/main", "\n".join(map(json.dumps, lines)).encode())


def test_no_file_takes_the_place_of_a_folder_nor_the_other_way_round(hub_process: HubProcess, repository: str) -> None:
    """git itself would put the new one there and delete the old one without a word."""
    assert committed(hub_process, repository, ("index.json", "{}"), ("tiny/video.json", "{}"))[0] == 200
    for path in ("index.json/x", "tiny/video.json/a/b"):
        status, answer = committed(hub_process, repository, (path, "x"))
        assert (status, b"as a folder, and that is a file" in answer) == (400, True)
    status, answer = committed(hub_process, repository, ("tiny", "x"))
    assert (status, b"is a folder with files" in answer) == (400, True)
    assert committed(hub_process, repository, ("q", "x"), ("q/r", "y"))[0] == 400
    api = hub_process.api()
    assert {"index.json", "tiny/video.json"} <= set(api.list_repo_files(repository, **DATASET))
    # Who deletes the one may write the other.
    assert committed(hub_process, repository, ("tiny/video.json", None), ("tiny", "x"))[0] == 200
    assert committed(hub_process, repository, ("tiny", None), ("tiny/video.json", "{}"))[0] == 200
    assert {"index.json", "tiny/video.json"} <= set(api.list_repo_files(repository, **DATASET))


def test_no_branch_is_called_as_git_calls_the_checked_out_one(hub_process: HubProcess, repository: str) -> None:
    assert ask(hub_process, "POST", f"/api/datasets/{repository}/branch/HEAD", b"{}")[0] == 400


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/datasets/{}/resolve/main/../../../tokens.json", 404),
        ("/datasets/{}/resolve/main/%2e%2e/tokens.json", 404),
        ("/datasets/{}/resolve/--help/a", 404),
        ("/datasets/{}/resolve/HEAD:a/a", 404),
        ("/datasets/../..%2ftokens.json/resolve/main/a", 404),
        ("/api/datasets/{}/tree/main/..", 404),
        ("/api/datasets/{}/discussions/99", 404),
        ("/api/nothing", 404),
    ],
)
def test_no_address_leads_out_of_a_repository(
    path: str, expected: int, hub_process: HubProcess, repository: str
) -> None:
    status, answer = ask(hub_process, "GET", path.format(repository))
    assert status == expected
    assert b"token_sha256" not in answer


def test_a_body_that_is_no_json_or_has_no_length_is_refused(hub_process: HubProcess, repository: str) -> None:
    address = f"/api/datasets/{repository}/commit/main"
    assert ask(hub_process, "POST", address, b"[" * 100_000)[0] == 400
    assert ask(hub_process, "POST", address, b"x", Content_Length="99999999999")[0] == 413
    assert ask(hub_process, "POST", address, b"", Transfer_Encoding="chunked")[0] == 411
    assert ask(hub_process, "GET", f"/api/datasets/{repository}")[0] == 200


def test_two_requests_at_once_get_two_numbers(hub_process: HubProcess, repository: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    api = hub_process.api("contributor")

    def propose(name: str) -> str:
        return str(
            api.create_commit(repository, add(**{name: name}), commit_message=name, create_pr=True, **DATASET).pr_num
        )

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(propose, "abcd")) == ["1", "2", "3", "4"]


def test_an_address_that_is_taken_is_an_error_of_one_line(hub_process: HubProcess, tmp_path: Path) -> None:
    port = hub_process.endpoint.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "easyteacache.cli.hub", "serve", str(tmp_path), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: 127.0.0.1:{port}: cannot be listened on: ")
    assert done.stderr.count("\n") == 1
