"""The clients that people have, against a served hub: HfFileSystem, `hf`, resumed downloads, `git clone`, curl's ranges."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from easyteacache.hub.server import bounds

from .fault_proxy import Fault, FaultProxy
from .hub_process import TOKENS, HubProcess
from .raw import Said, request, send

DATASET = {"repo_type": "dataset"}
SIZE = 300_000
CONTENT = random.Random(0).randbytes(SIZE)
LARGE = random.Random(1).randbytes(3 << 20)


@pytest.fixture(scope="module")
def filled(hub_process: HubProcess) -> str:
    """A repository with files of several sizes, one of them larger than what is read at once."""
    name = hub_process.new_repository()
    files = {"data.bin": CONTENT, "empty": b"", "one": b"x", "large.bin": LARGE, "a/b/c.txt": b"deep", "a/d.txt": b"d"}
    hub_process.commit(name, files)
    assert len(LARGE) > bounds.SMALL_FILE
    return name


def get(hub: HubProcess, repository: str, file: str, method: str = "GET", **headers: str) -> Said:
    path = f"/datasets/{repository}/resolve/main/{file}"
    found = send(hub.endpoint, request(method, path, **headers), method=method)
    assert found is not None
    return found


# Parts of files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["data.bin", "large.bin"])
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=200000-200015", 200_000, 200_016),
        ("bytes=100-", 100, None),
        ("bytes=-16", -16, None),
        ("bytes=-99999999", 0, None),
        ("bytes=299990-99999999", 299_990, None),
        ("bytes= 5-9", 5, 10),
    ],
)
def test_a_part_of_a_file_is_that_part(
    file: str, asked: str, start: int, stop: int | None, hub_process: HubProcess, filled: str
) -> None:
    whole = {"data.bin": CONTENT, "large.bin": LARGE}[file]
    said = get(hub_process, filled, file, Range=asked)
    begin, end, _ = slice(start, stop).indices(len(whole))
    assert said.status == 206
    assert said.content == whole[begin:end]
    assert said.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(whole)}"
    assert said.headers["content-length"] == str(end - begin)
    assert said.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=300000-", "bytes=300000-300001", "bytes=-0", "bytes=999999999999-"])
def test_a_part_that_a_file_has_not_is_416_and_says_its_size(asked: str, hub_process: HubProcess, filled: str) -> None:
    said = get(hub_process, filled, "data.bin", Range=asked)
    assert said.status == 416
    assert said.headers["content-range"] == f"bytes */{SIZE}"
    assert "300000 bytes" in said.sentence


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Range": "bytes=5-3"},
        {"Range": "bytes=-"},
        {"Range": "bytes=0-1,5-6"},
        {"Range": "lines=0-1"},
        {"Range": "bytes=²-³"},
        {"Range": "bytes=" + "9" * 400 + "-"},
        {"Range": "bytes=0-3", "If_Range": '"another version"'},
        {"Range": "bytes=0-3", "If_Range": "Wed, 21 Oct 2015 07:28:00 GMT"},
    ],
)
def test_what_is_no_range_that_is_served_gets_the_whole_file(
    headers: dict[str, str], hub_process: HubProcess, filled: str
) -> None:
    said = get(hub_process, filled, "data.bin", **headers)
    assert (said.status, said.content) == (200, CONTENT)
    assert said.headers["accept-ranges"] == "bytes"


def test_a_range_of_the_version_that_a_client_has_is_served(hub_process: HubProcess, filled: str) -> None:
    tag = get(hub_process, filled, "data.bin").headers["etag"]
    assert get(hub_process, filled, "data.bin", Range="bytes=0-3", If_Range=tag).content == CONTENT[:4]


@pytest.mark.parametrize(("file", "size"), [("data.bin", SIZE), ("large.bin", len(LARGE)), ("empty", 0)])
def test_the_head_of_a_file_says_its_size_and_sends_nothing(
    file: str, size: int, hub_process: HubProcess, filled: str
) -> None:
    said = get(hub_process, filled, file, method="HEAD", Range="bytes=0-3")
    assert (said.status, said.content, said.headers["content-length"]) == (200, b"", str(size))
    assert len(said.headers["x-repo-commit"]) == 40


def test_an_empty_file_has_no_part(hub_process: HubProcess, filled: str) -> None:
    assert get(hub_process, filled, "empty").content == b""
    assert get(hub_process, filled, "empty", Range="bytes=0-0").status == 416


@pytest.mark.parametrize("file", ["data.bin", "large.bin"])
def test_hf_file_system_seeks_and_reads_what_is_there(file: str, hub_process: HubProcess, filled: str) -> None:
    whole = {"data.bin": CONTENT, "large.bin": LARGE}[file]
    system = HfFileSystem(endpoint=hub_process.endpoint, token=TOKENS["reader"], skip_instance_cache=True)
    with system.open(f"datasets/{filled}/{file}", "rb", block_size=50_000) as opened:
        for position, count in ((200_000, 16), (0, 10), (len(whole) - 5, 100), (123_456, 100_000)):
            opened.seek(position)
            assert opened.read(count) == whole[position : position + count]
        opened.seek(-7, os.SEEK_END)
        assert opened.read() == whole[-7:]
    assert system.read_bytes(f"datasets/{filled}/one") == b"x"
    assert system.cat_file(f"datasets/{filled}/{file}", start=10, end=20) == whole[10:20]


def test_hf_file_system_lists_and_tells_sizes(hub_process: HubProcess, filled: str) -> None:
    system = HfFileSystem(endpoint=hub_process.endpoint, token=TOKENS["reader"], skip_instance_cache=True)
    root = f"datasets/{filled}"
    assert sorted(system.find(root)) == sorted(
        f"{root}/{path}" for path in ("data.bin", "empty", "one", "large.bin", "a/b/c.txt", "a/d.txt")
    )
    assert system.info(f"{root}/data.bin")["size"] == SIZE
    assert system.isdir(f"{root}/a")
    assert not system.exists(f"{root}/absent")
    assert sorted(system.ls(f"{root}/a", detail=False)) == [f"{root}/a/b", f"{root}/a/d.txt"]
    with pytest.raises(FileNotFoundError):
        system.ls(f"{root}/absent")


def test_a_download_that_broke_off_goes_on_where_it_was(
    filled: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends in the middle of the file; the client asks for what it has not written yet."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    proxy.faults = [Fault(r"GET .*/large\.bin", "cut")]
    options = {"endpoint": proxy.endpoint, "token": False, "cache_dir": tmp_path / "cache", **DATASET}
    assert Path(hf_hub_download(filled, "large.bin", **options)).read_bytes() == LARGE
    assert [one for one in proxy.ranges if one] == [f"bytes={len(LARGE) // 2}-"]


def test_a_snapshot_is_what_was_committed(hub_process: HubProcess, filled: str, tmp_path: Path) -> None:
    options = {"endpoint": hub_process.endpoint, "token": False, "cache_dir": tmp_path, **DATASET}
    folder = Path(snapshot_download(filled, **options))
    assert (folder / "large.bin").read_bytes() == LARGE
    assert (folder / "a" / "b" / "c.txt").read_bytes() == b"deep"


# The hf command line --------------------------------------------------------------------------------------------------


def hf(
    hub: HubProcess, work: Path, *arguments: str, who: str = "maintainer", **more: str
) -> subprocess.CompletedProcess[str]:
    """The unmodified `hf` program."""
    program = shutil.which("hf") or str(Path(sys.executable).with_name("hf"))
    own = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKENS[who], "HF_HOME": str(work / "hf"), "NO_COLOR": "1"}
    own |= {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **more}
    return subprocess.run(
        [program, *arguments], cwd=work, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )


def test_the_hf_program_uploads_and_downloads(hub_process: HubProcess, repository: str, tmp_path: Path) -> None:
    (tmp_path / "up" / "folder").mkdir(parents=True)
    (tmp_path / "up" / "one.bin").write_bytes(CONTENT)
    (tmp_path / "up" / "folder" / "two.txt").write_text("two")
    up = hf(hub_process, tmp_path, "upload", repository, str(tmp_path / "up"), ".", "--repo-type", "dataset")
    assert up.returncode == 0, up.stderr
    down = hf(
        hub_process, tmp_path, "download", repository, "--repo-type", "dataset", "--local-dir", str(tmp_path / "down")
    )
    assert down.returncode == 0, down.stderr
    assert (tmp_path / "down" / "one.bin").read_bytes() == CONTENT
    assert (tmp_path / "down" / "folder" / "two.txt").read_text() == "two"


def test_the_hf_program_opens_and_merges_a_request(hub_process: HubProcess, repository: str, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one")
    up = hf(
        hub_process,
        tmp_path,
        "upload",
        repository,
        "one.txt",
        "--repo-type",
        "dataset",
        "--create-pr",
        who="contributor",
    )
    assert up.returncode == 0, up.stderr
    listed = hub_process.api().get_repo_discussions(repository, **DATASET)
    assert [one.num for one in listed] == [1]
    hub_process.api().merge_pull_request(repository, 1, **DATASET)
    assert hub_process.api().list_repo_files(repository, **DATASET) == ["one.txt"]


def test_the_hf_program_says_who_it_is(hub_process: HubProcess, tmp_path: Path) -> None:
    done = hf(hub_process, tmp_path, "auth", "whoami", who="contributor")
    assert done.returncode == 0, done.stderr
    assert "contributor" in done.stdout


# Git ------------------------------------------------------------------------------------------------------------------


def git(*arguments: str, work: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull, **environment}
    return subprocess.run(
        ["git", *arguments], cwd=work, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("version", ["0", "2"])
@pytest.mark.parametrize("ending", ["", ".git"])
def test_git_clones_and_fetches(
    version: str, ending: str, hub_process: HubProcess, filled: str, tmp_path: Path
) -> None:
    url = f"{hub_process.endpoint}/datasets/{filled}{ending}"
    done = git("-c", f"protocol.version={version}", "clone", "--quiet", url, "copy", work=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy" / "large.bin").read_bytes() == LARGE
    head = git("rev-parse", "HEAD", work=tmp_path / "copy").stdout.strip()
    assert head == hub_process.api().repo_info(filled, **DATASET).sha
    shallow = git("clone", "--quiet", "--depth", "1", url, "shallow", work=tmp_path)
    assert shallow.returncode == 0, shallow.stderr
    hub_process.api().create_tag(filled, tag=f"seen-{version}{ending}", **DATASET)
    assert git("fetch", "--tags", work=tmp_path / "copy").returncode == 0
    assert f"seen-{version}{ending}" in git("tag", work=tmp_path / "copy").stdout


def test_git_does_not_push_and_says_why(hub_process: HubProcess, filled: str, tmp_path: Path) -> None:
    url = f"{hub_process.endpoint}/datasets/{filled}"
    assert git("clone", "--quiet", url, "copy", work=tmp_path).returncode == 0
    done = git("push", "origin", "main", work=tmp_path / "copy")
    assert done.returncode != 0
    assert "501" in done.stderr


def test_a_private_repository_is_cloned_with_a_token_only(hub_process: HubProcess, tmp_path: Path) -> None:
    name = hub_process.new_repository(private=True)
    host = hub_process.endpoint.removeprefix("http://")
    assert git("clone", "--quiet", f"http://{host}/datasets/{name}", "one", work=tmp_path).returncode != 0
    with_token = f"http://reader:{TOKENS['reader']}@{host}/datasets/{name}"
    done = git("clone", "--quiet", with_token, "two", work=tmp_path)
    assert done.returncode == 0, done.stderr


def test_no_more_clones_at_once_than_are_taken(
    hub_process: HubProcess, filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place is given back at the end of every clone, also of one that was broken off."""
    import socket

    url = f"{hub_process.endpoint}/datasets/{filled}"
    want = f"0032want {hub_process.api().repo_info(filled, **DATASET).sha}\n0000".encode() + b"0009done\n"
    for _ in range(3 * bounds.CLONES_AT_ONCE):
        body = request("POST", f"/datasets/{filled}/git-upload-pack", body=want)
        with socket.create_connection(tuple(hub_process.endpoint.removeprefix("http://").split(":"))) as connection:
            connection.sendall(body)
            connection.recv(20)
    assert git("clone", "--quiet", url, "copy", work=tmp_path).returncode == 0


@pytest.mark.parametrize("body", [b"", b"0000", b"nonsense", b"\x1f\x8b nonsense", b"0009done\n"])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "br"])
def test_a_negotiation_that_makes_no_sense_is_answered(
    body: bytes, encoding: str, hub_process: HubProcess, filled: str
) -> None:
    said = send(
        hub_process.endpoint,
        request("POST", f"/datasets/{filled}/git-upload-pack", body=body, Content_Encoding=encoding),
    )
    assert said is not None
    assert said.status in (200, 400, 413, 415)


def test_a_packed_negotiation_cannot_grow_without_end(hub_process: HubProcess, filled: str) -> None:
    import gzip

    body = gzip.compress(b"0" * (64 << 20))
    assert len(body) < bounds.ANONYMOUS_BODY
    said = send(
        hub_process.endpoint, request("POST", f"/datasets/{filled}/git-upload-pack", body=body, Content_Encoding="gzip")
    )
    assert said is not None
    assert said.status == 413


# Branches, tags, folders, sizes ---------------------------------------------------------------------------------------


def test_branches_are_made_written_and_deleted(hub_process: HubProcess, repository: str) -> None:
    api = hub_process.api()
    first = api.create_commit(repository, [CommitOperationAdd("a", b"1")], commit_message="One", **DATASET).oid
    api.create_branch(repository, branch="work", **DATASET)
    api.create_branch(repository, branch="work", exist_ok=True, **DATASET)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch(repository, branch="work", **DATASET)
    api.create_commit(repository, [CommitOperationAdd("b", b"2")], commit_message="Two", revision="work", **DATASET)
    assert api.list_repo_files(repository, revision="work", **DATASET) == ["a", "b"]
    assert api.list_repo_files(repository, **DATASET) == ["a"]
    api.create_branch(repository, branch="old", revision=first, **DATASET)
    assert {one.name for one in api.list_repo_refs(repository, **DATASET).branches} == {"main", "work", "old"}
    api.delete_branch(repository, branch="work", **DATASET)
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files(repository, revision="work", **DATASET)
    with pytest.raises(HfHubHTTPError, match="404"):
        api.delete_branch(repository, branch="work", **DATASET)
    with pytest.raises(HfHubHTTPError, match="it is not deleted"):
        api.delete_branch(repository, branch="main", **DATASET)


@pytest.mark.parametrize("name", ["../x", "a..b", ".hidden", "x.lock", "a/.b", "-x", "a b", "ä", "0" * 40, "x/", "a~1"])
def test_a_branch_or_tag_that_git_could_not_name_is_refused(
    name: str, hub_process: HubProcess, repository: str
) -> None:
    from urllib.parse import quote

    for path in (f"branch/{quote(name, safe='')}", "tag/main"):
        import json

        body = json.dumps({"tag": name}).encode()
        said = send(
            hub_process.endpoint,
            request("POST", f"/api/datasets/{repository}/{path}", token=TOKENS["maintainer"], body=body),
        )
        assert said is not None
        assert said.status == 400
        assert "is named by letters" in said.sentence


def test_contributors_make_no_branches_and_tags(hub_process: HubProcess, repository: str) -> None:
    api = hub_process.api("contributor")
    for call in (api.create_branch, api.delete_branch):
        with pytest.raises(HfHubHTTPError, match="403"):
            call(repository, branch="work", **DATASET)
    for call in (api.create_tag, api.delete_tag):
        with pytest.raises(HfHubHTTPError, match="403"):
            call(repository, tag="v1", **DATASET)


def test_a_tag_is_deleted(hub_process: HubProcess, repository: str) -> None:
    api = hub_process.api()
    api.create_tag(repository, tag="v1", **DATASET)
    api.delete_tag(repository, tag="v1", **DATASET)
    assert api.list_repo_refs(repository, **DATASET).tags == []


def test_a_folder_is_deleted_with_everything_in_it_and_nothing_else(hub_process: HubProcess, repository: str) -> None:
    api = hub_process.api()
    files = ["a/b/c", "a/d", "ab", "e"]
    api.create_commit(repository, [CommitOperationAdd(path, b"x") for path in files], commit_message="Fill", **DATASET)
    api.delete_folder("a", repository, **DATASET)
    assert api.list_repo_files(repository, **DATASET) == ["ab", "e"]
    operations: list[Any] = [CommitOperationDelete("e"), CommitOperationAdd("f", b"y")]
    api.create_commit(repository, operations, commit_message="Both", **DATASET)
    assert api.list_repo_files(repository, **DATASET) == ["ab", "f"]


def test_files_are_listed_with_their_sizes_on_demand(hub_process: HubProcess, filled: str) -> None:
    api = hub_process.api()
    sizes = {one.rfilename: one.size for one in api.repo_info(filled, files_metadata=True, **DATASET).siblings}
    assert sizes["data.bin"] == SIZE
    assert sizes["empty"] == 0
    assert {one.size for one in api.repo_info(filled, **DATASET).siblings} == {None}


def test_a_long_history_comes_in_pages(hub_process: HubProcess, repository: str) -> None:
    from easyteacache.hub.remote import Remote
    from easyteacache.hub.server.git import MAIN, GitRepository

    repo = GitRepository(hub_process.folder / "datasets" / f"{repository}.git")
    count = bounds.COMMITS_A_PAGE + 20
    stream = "".join(
        f"commit refs/heads/main\nmark :{n}\ncommitter a <a@b> {1_700_000_000 + n} +0000\ndata {len(str(n))}\n{n}\n"
        + (f"from {repo.resolve('main')}\n" if n == 1 else "")
        for n in range(1, count + 1)
    )
    done = subprocess.run(
        ["git", "--git-dir", str(repo.folder), "fast-import", "--quiet", "--force"], input=stream.encode(), check=False
    )
    assert done.returncode == 0
    assert repo.resolve(MAIN) is not None
    commits = hub_process.api().list_repo_commits(repository, **DATASET)
    assert [one.title for one in commits] == [*map(str, range(count, 0, -1)), "Initial commit"]
    listed = list(Remote(repository, endpoint=hub_process.endpoint).log(count=10_000))
    assert [one.id for one in listed] == [one.commit_id for one in commits]


def test_the_hf_program_has_no_command_of_ours_as_the_page_says(hub_process: HubProcess, tmp_path: Path) -> None:
    """It would look on the network for an extension of Hugging Face's own; here is none."""
    done = hf(hub_process, tmp_path, "easyteacache", "list", HTTPS_PROXY="http://127.0.0.1:9")
    assert done.returncode != 0
    assert "No such command" in done.stdout + done.stderr
    page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert '`hf easyteacache` says "No such command": call `easyteacache-hub`' in page
