"""What pull and huggingface_hub read from our server is what olah, written by others, reads from the same repositories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from easyteacache.errors import HubError
from easyteacache.hub.push import prepare, send
from easyteacache.hub.remote import Remote
from easyteacache.hub.store import Store
from easyteacache.registry import index

from ..conftest import build_folder, build_record
from ..hub_process import TOKENS, HubProcess
from ..solved import KEY, Solved
from .olah_process import olah_process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there"),
]


@dataclass(frozen=True)
class Both:
    """One repository, with a pushed and merged record in it, at two servers."""

    repository: str
    ours: str
    olah: str

    def same(self, read: Callable[[str], object]) -> None:
        assert read(self.ours) == read(self.olah)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, hub_process: HubProcess, solved: Solved) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("olah")
    repository = hub_process.new_repository()
    hub_process.publish(repository, build_folder(folder / "upstream", build_record()))
    remote = Remote(repository, endpoint=hub_process.endpoint, token=TOKENS["contributor"])
    sent = send(remote, prepare(remote, {"record.json": solved.path.read_bytes()}, [solved.traces], judge=None))
    number = int(sent.url.rsplit("/", 1)[1])
    hub_process.api().merge_pull_request(repository, number, repo_type="dataset")
    hub_process.api().create_tag(repository, tag="v1", repo_type="dataset")
    with olah_process(folder, hub_process.folder, repository) as endpoint:
        yield Both(repository, hub_process.endpoint, endpoint)


def name_of(endpoint: str) -> str:
    """A folder for what one server says."""
    return endpoint.rsplit(":", 1)[1]


def test_every_file_is_the_same_byte_for_byte(both: Both, solved: Solved, tmp_path: Path) -> None:
    def read(endpoint: str) -> dict[str, bytes]:
        folder = tmp_path / name_of(endpoint)
        found = snapshot_download(
            both.repository, repo_type="dataset", endpoint=endpoint, token=False, cache_dir=folder / "cache"
        )
        files = [path for path in Path(found).rglob("*") if path.is_file()]
        return {path.relative_to(found).as_posix(): path.read_bytes() for path in files}

    ours, olah = read(both.ours), read(both.olah)
    assert ours == olah
    (trace,) = solved.traces.glob("*.safetensors")
    assert ours[f"{KEY}.json"] == solved.path.read_bytes()
    assert ours[f"traces/{KEY}/{trace.name}"] == trace.read_bytes()
    assert {index.FILE_NAME, f"{KEY}.json", "tiny/video.json", f"cards/{KEY}.md"} <= ours.keys()


def test_a_pull_installs_the_same_from_both(both: Both, tmp_path: Path) -> None:
    """The program itself, each time with an empty home and an empty cache."""

    def read(endpoint: str) -> dict[str, bytes]:
        home = tmp_path / name_of(endpoint)
        own = {"EASYTEACACHE_HOME": str(home), "HF_HOME": str(home / "cache"), "HF_ENDPOINT": endpoint}
        command = [sys.executable, "-m", "easyteacache.cli.hub", "pull", "--repo", both.repository, "--json"]
        done = subprocess.run(
            command, env={**os.environ, **own}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        (pulled,) = json.loads(done.stdout)["pulls"]
        assert {one["key"]: one["state"] for one in pulled["records"]} == {KEY: "new", "tiny/video": "new"}
        store = Store(home)
        assert {one.commit for one in store.current().origins.records.values()} == {pulled["commit"]}
        folder = store.link.resolve()
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.json")}
        return {**files, "commit": pulled["commit"].encode()}

    both.same(read)


@pytest.mark.parametrize("revision", ["main", "v1", "refs/pr/1"])
def test_a_revision_is_the_same_commit_at_both(revision: str, both: Both) -> None:
    both.same(lambda endpoint: Remote(both.repository, endpoint=endpoint, token="x").commit_of(revision))


def test_files_and_their_hashes_are_listed_alike(both: Both) -> None:
    def tree(endpoint: str) -> set[tuple[str, int, str]]:
        found = HfApi(endpoint=endpoint, token=False).list_repo_tree(
            both.repository, repo_type="dataset", recursive=True
        )
        return {(one.path, one.size, one.blob_id) for one in found if hasattr(one, "blob_id")}

    both.same(tree)
    both.same(lambda endpoint: Remote(both.repository, endpoint=endpoint).stored(["index.json", "absent"], "main"))


def test_the_history_is_the_same(both: Both) -> None:
    """Asked without the client, which wants account names that olah leaves out."""

    def commits(endpoint: str) -> list[str]:
        with urllib.request.urlopen(f"{endpoint}/api/datasets/{both.repository}/commits/main", timeout=60) as answer:
            return [one["id"] for one in json.load(answer)]

    assert len(commits(both.ours)) >= 4
    both.same(commits)


def refusal(read: Callable[[], object], endpoint: str) -> str:
    with pytest.raises(HubError) as failure:
        read()
    return str(failure.value).replace(endpoint, "the hub")


def test_what_is_missing_is_refused_alike(both: Both) -> None:
    """olah has no answer of its own for a missing file when it is offline, only for repositories and revisions."""
    both.same(lambda e: refusal(lambda: Remote("team/absent", endpoint=e).pin("index.json", None, limit=1000), e))
    both.same(lambda e: refusal(lambda: Remote("team/absent", endpoint=e).stored(["index.json"], "main"), e))
    both.same(lambda e: refusal(lambda: Remote(both.repository, endpoint=e).commit_of("absent"), e))


def test_one_file_of_an_old_commit_is_the_same(both: Both, tmp_path: Path) -> None:
    oldest = list(Remote(both.repository, endpoint=both.ours).log())[-2].id

    def read(endpoint: str) -> bytes:
        folder = tmp_path / name_of(endpoint)
        options = {"repo_type": "dataset", "revision": oldest, "endpoint": endpoint, "token": False}
        return Path(hf_hub_download(both.repository, index.FILE_NAME, cache_dir=folder, **options)).read_bytes()  # type: ignore[arg-type]

    both.same(read)
