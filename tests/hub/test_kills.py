"""Killed writers and two writers at once: afterwards everything reads, old or new, and nothing is lost.

``EASYTEACACHE_LONG=1`` runs the long form: 200 kills of each writer on disk, 60 of each that talks to a hub.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from easyteacache.hub import pull as pulling
from easyteacache.hub.push import prepare, send
from easyteacache.hub.remote import Remote
from easyteacache.hub.server.git import MAIN, GitRepository, StaleReference
from easyteacache.hub.server.pull_requests import Discussions
from easyteacache.hub.store import Store
from easyteacache.original import cache_json
from easyteacache.records import calibration
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index, lock_file
from easyteacache.registry.registry import Registry

from . import killed
from .conftest import build_folder, build_record
from .fault_proxy import FaultProxy
from .hub_process import TOKENS, HubProcess
from .solved import KEY, Solved

# Writers are killed.
pytestmark = pytest.mark.slow

LONG = bool(os.environ.get("EASYTEACACHE_LONG"))
KILLS = 200 if LONG else 12
NETWORK_KILLS = 60 if LONG else 8
posix = pytest.mark.skipif(os.name == "nt", reason="needs fork and SIGKILL")


def kill(action: str, folder: Path, *, longest: float) -> int:
    """Kills happen in rounds, so that what a kill leaves behind is checked and built upon."""
    arguments = [
        sys.executable,
        killed.__file__,
        action,
        str(folder),
        "4",
        str(random.randrange(1 << 30)),
        str(longest),
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def rounds(action: str, folder: Path, check: Callable[[], None], *, longest: float = 0.05, kills: int = KILLS) -> None:
    total = 0
    while total < kills:
        total += kill(action, folder, longest=longest)
        check()


@posix
def test_a_killed_pull_leaves_the_old_records_or_the_new_ones(tmp_path: Path) -> None:
    seen = set()

    def check() -> None:
        layer = Registry.from_folder(Store(tmp_path).link)
        revisions = {layer[key].revision for key in layer}
        assert len(revisions) == 1, "records of two pulls are visible together"
        assert sorted(layer) == killed.KEYS
        assert {one.revision for one in Store(tmp_path).current().origins.records.values()} == revisions
        seen.update(revisions)

    rounds("install", tmp_path, check)
    assert seen


@posix
def test_a_killed_save_leaves_a_whole_file(tmp_path: Path) -> None:
    def check() -> None:
        assert calibration.load(tmp_path / "model.json").model_key == killed.KEYS[0]

    rounds("save", tmp_path, check)


@posix
def test_a_killed_lock_leaves_a_whole_file(tmp_path: Path) -> None:
    def check() -> None:
        assert sorted(lock_file.read(tmp_path / lock_file.FILE_NAME).records) == killed.KEYS

    rounds("lock", tmp_path, check)


@posix
def test_a_killed_merge_leaves_a_whole_history(tmp_path: Path) -> None:
    def check() -> None:
        git = GitRepository(tmp_path / "repository.git")
        fsck = subprocess.run(
            ["git", "--git-dir", str(git.folder), "fsck", "--connectivity-only"], capture_output=True, check=False
        )
        assert fsck.returncode == 0, fsck.stderr
        for entry in git.entries(git.resolve("main") or ""):
            found = git.read(git.resolve("main") or "", entry.path)
            assert found is not None
            assert int(found[1]) % 50 == int(entry.path.removesuffix(".json"))
        git.close()

    # Long enough for a few merges; a lock file of git that a kill left behind may stop later ones, never break earlier ones.
    rounds("merge", tmp_path, check, longest=0.4)


@posix
def test_a_killed_run_of_solve_mode_leaves_a_whole_file_and_loses_nothing(tmp_path: Path) -> None:
    sizes = [0]

    def check() -> None:
        (config,) = cache_json.read(tmp_path / "seed.json", killed.SEED_KEYS)
        assert config.calibration_size == len(config.points)
        sizes.append(config.calibration_size)

    rounds("solve", tmp_path, check)
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[1]


def write_settings(folder: Path, **told: object) -> None:
    (folder / "settings.json").write_text(json.dumps(told))


@posix
def test_a_pull_killed_while_the_hub_answers_leaves_one_commit_and_the_next_one_succeeds(
    hub_process: HubProcess, repository: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    commits = [
        hub_process.publish(
            repository, build_folder(tmp_path / str(revision), *(killed.build(key, revision) for key in killed.KEYS))
        )
        for revision in (1, 2)
    ]
    proxy.slowness = 0.04
    write_settings(tmp_path, repository=repository, endpoint=proxy.endpoint, commits=commits)
    seen = set()

    def check() -> None:
        store = Store(tmp_path / "home")
        layer = Registry.from_folder(store.link)
        assert sorted(layer) == killed.KEYS
        (revision,) = {layer[key].revision for key in layer}
        (commit,) = {one.commit for one in store.current().origins.records.values()}
        assert commit == commits[revision - 1]
        seen.add(revision)
        done = pulling.pull(Remote(repository, endpoint=hub_process.endpoint), store=store)
        assert not done.refused
        assert {Registry.from_folder(store.link)[key].revision for key in killed.KEYS} == {2}

    rounds("pull", tmp_path, check, longest=0.4, kills=NETWORK_KILLS)
    assert seen


@posix
def test_a_push_killed_while_the_hub_answers_leaves_one_whole_request_and_main_as_it_was(
    hub_process: HubProcess, repository: str, proxy: FaultProxy, tmp_path: Path, solved: Solved
) -> None:
    hub_process.publish(repository, build_folder(tmp_path / "upstream", build_record()))
    token = TOKENS["contributor"]
    remote = Remote(repository, endpoint=hub_process.endpoint, token=token)
    main = remote.commit_of("main")
    proxy.slowness = 0.04
    told = {"record": str(solved.path), "traces": str(solved.traces)}
    write_settings(tmp_path, repository=repository, endpoint=proxy.endpoint, token=token, **told)

    def check() -> None:
        (request,) = remote.open_requests("contributor")
        head = remote.commit_of(request.branch)
        listed = pulling.read_index(remote, head)[1]
        data = remote.read(f"{KEY}.json", head, limit=1 << 20)
        record = Calibration.from_json(data)
        assert listed.records[KEY] == index.entry_of(record, data)
        (reference,) = record.provenance.traces
        trace = remote.read(f"traces/{KEY}/{reference.file}", head, limit=1 << 24)
        assert trace == (solved.traces / reference.file).read_bytes()
        assert remote.commit_of("main") == main
        git = ["git", "--git-dir", str(hub_process.folder / "datasets" / f"{repository}.git")]
        assert subprocess.run([*git, "fsck", "--connectivity-only"], capture_output=True, check=False).returncode == 0

    rounds("push", tmp_path, check, longest=0.5, kills=NETWORK_KILLS)
    sent = send(remote, prepare(remote, {"record.json": solved.path.read_bytes()}, [solved.traces], judge=None))
    assert sent.state in ("updated", "unchanged")
    check()


INSTALL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import killed
from easyteacache.hub.store import Store
for number in range(int(sys.argv[4])):
    key = f"tiny/{sys.argv[2]}-{number}"
    killed.KEYS[:] = [key]
    Store(Path(sys.argv[1])).install(killed.arrivals(1))
"""


def test_two_pulls_at_once_lose_nothing(tmp_path: Path) -> None:
    count = 50 if LONG else 12
    arguments = [str(Path(killed.__file__).parent), str(count)]
    running = [
        subprocess.Popen([sys.executable, "-c", INSTALL, str(tmp_path), name, *arguments]) for name in ("left", "right")
    ]
    assert [process.wait() for process in running] == [0, 0]
    expected = sorted(f"tiny/{name}-{number}" for name in ("left", "right") for number in range(count))
    layer = Registry.from_folder(Store(tmp_path).link)
    assert sorted(layer) == expected
    assert all(layer[key].revision == 1 for key in layer)


def at_once(code: str, *arguments: object) -> None:
    """Run ``code`` in two processes, one told it is the left one, the other the right one."""
    places = [str(Path(killed.__file__).parent), *map(str, arguments)]
    running = [subprocess.Popen([sys.executable, "-c", code, side, *places]) for side in ("left", "right")]
    assert [process.wait() for process in running] == [0, 0]


SOLVE = """
import sys
from pathlib import Path
side, place, path, runs = sys.argv[1:]
sys.path.insert(0, place)
import killed
run = killed.solver(Path(path), seed=len(side))
for _ in range(int(runs)):
    run()
"""


def test_two_runs_of_solve_mode_at_once_keep_the_points_of_both(tmp_path: Path) -> None:
    runs = 60 if LONG else 15
    at_once(SOLVE, tmp_path / "seed.json", runs)
    (config,) = cache_json.read(tmp_path / "seed.json", killed.SEED_KEYS)
    assert config.calibration_size == 2 * runs * killed.POINTS
    assert len(set(config.points)) == config.calibration_size


LOCK = """
import sys
from pathlib import Path
from easyteacache.hub import locking
side, _, path, *keys = sys.argv[1:]
for key in keys[0 if side == "left" else 1 :: 2]:
    locking.add(Path(path), [key])
"""


def test_two_locks_at_once_list_what_both_added(tmp_path: Path) -> None:
    keys = list(Registry.default())[:24]
    at_once(LOCK, tmp_path / lock_file.FILE_NAME, *keys)
    assert list(lock_file.read(tmp_path / lock_file.FILE_NAME).records) == keys


SAVE = """
import sys
from pathlib import Path
from easyteacache.records import calibration
side, place, path, count = sys.argv[1:]
sys.path.insert(0, place)
import killed
for number in range(1, int(count)):
    calibration.save(killed.build(f"tiny/{side}", number), path)
    calibration.load(path)
"""


def test_two_saves_at_once_leave_a_whole_file_of_one_of_them(tmp_path: Path) -> None:
    count = 200 if LONG else 40
    at_once(SAVE, tmp_path / "model.json", count)
    found = calibration.load(tmp_path / "model.json")
    assert (found.model_key, found.revision) in {("tiny/left", count - 1), ("tiny/right", count - 1)}
    assert not list(tmp_path.glob(".easyteacache-*"))


RETIRE = """
import sys
from pathlib import Path
from easyteacache.hub.retire import retire_in_folder
side, _, folder, count = sys.argv[1:]
for number in range(int(count)):
    retire_in_folder(Path(folder), f"{side}/model-{number}", "deprecated", reason="Old.")
"""


def test_two_retirements_at_once_are_both_in_the_index(tmp_path: Path, solved: Solved) -> None:
    keys = [f"{side}/model-{number}" for side in ("left", "right") for number in range(6)]
    build_folder(tmp_path / "registry", *(solved.changed(model_key=key) for key in keys))
    at_once(RETIRE, tmp_path / "registry", 6)
    listed = index.read(tmp_path / "registry")
    assert listed == index.build(tmp_path / "registry")
    assert {entry.status for entry in listed.records.values()} == {"deprecated"}


MERGE = """
import sys
from pathlib import Path
from easyteacache.hub.server.pull_requests import Discussions
from easyteacache.hub.server.git import GitRepository
side, _, folder, count = sys.argv[1:]
git = GitRepository(Path(folder))
requests = Discussions(git, "team/x")
for number in range(int(count)):
    commit = git.commit(git.resolve("main"), {f"{side}-{number}": b"x"}, "Change", side)
    requests.merge(requests.open(commit, f"{side} {number}", "", side), "maintainer")
"""


def test_two_servers_that_merge_at_once_have_both_histories(tmp_path: Path) -> None:
    count = 25 if LONG else 6
    git = GitRepository(tmp_path / "repository.git")
    git.create()
    at_once(MERGE, git.folder, count)
    expected = {f"{side}-{number}" for side in ("left", "right") for number in range(count)}
    head = git.resolve("main") or ""
    assert {entry.path for entry in git.entries(head)} == expected
    pages = list(Discussions(git, "team/x").all())
    assert sorted(page["title"] for page in pages) == sorted(name.replace("-", " ") for name in expected)
    assert {page["status"] for page in pages} == {"merged"}
    assert sum("(pull request" in title for _, title, _, _ in git.log(head)) == 2 * count


def test_a_lock_that_a_killed_git_left_behind_does_not_stop_the_hub_for_good(tmp_path: Path) -> None:
    git = GitRepository(tmp_path / "repository.git")
    git.create()
    head = git.resolve("main")
    commit = git.commit(head, {"a": b"one"}, "Add", "somebody")
    dead = git.folder / "refs" / "heads" / "main.lock"
    dead.touch()
    with pytest.raises(StaleReference):
        git.move(MAIN, commit, head)
    os.utime(dead, (1, 1))
    git.move(MAIN, commit, head)
    assert git.resolve("main") == commit
