"""Writers that never stop by themselves, for tests that kill them: ``python killed.py ACTION FOLDER`` prints a line when ready."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from easyteacache import calibration, index, lock_file
from easyteacache.calibration import Calibration
from easyteacache.hub.discussions import Discussions
from easyteacache.hub.git_repository import GitRepository
from easyteacache.hub.store import Arrival, Store
from easyteacache.lock_file import LockedRecord, LockFile

KEYS = [f"tiny/model-{number}" for number in range(4)]


def build(key: str, revision: int) -> Calibration:
    content = {
        "schema_version": 2,
        "model_key": key,
        "revision": revision,
        "status": "draft",
        "title": "A model" + " of a long name" * 10,
        "modality": "image",
        "method": "teacache",
        "signal": "modulated_input",
        "buckets": [{"coefficients": [1.0, 0.0], "domain": [0.1, 0.5]}],
        "provenance": {},
    }
    return Calibration.from_mapping(content)


def arrivals(revision: int) -> dict[str, Arrival]:
    found = {}
    for key in KEYS:
        record = build(key, revision)
        data = record.to_json().encode()
        origin = LockedRecord(sha256=index.entry_of(record, data).sha256, revision=revision)
        found[key] = Arrival(record, data, origin)
    return found


def install(folder: Path) -> Iterator[None]:
    for revision in itertools.count(1):
        Store(folder).install(arrivals(revision))
        yield


def save(folder: Path) -> Iterator[None]:
    for revision in itertools.count(1):
        calibration.save(build(KEYS[0], revision), folder / "model.json")
        yield


def lock(folder: Path) -> Iterator[None]:
    for revision in itertools.count(1):
        origins = {key: one.origin for key, one in arrivals(revision).items()}
        lock_file.write(folder / lock_file.FILE_NAME, LockFile(lock_version=1, records=origins))
        yield


def merge(folder: Path) -> Iterator[None]:
    git = GitRepository(folder / "repository.git")
    if not git.folder.exists():
        git.create()
    requests = Discussions(git, "team/x")
    for number in itertools.count(int(time.time_ns())):
        head = git.resolve("main")
        commit = git.commit(head, {f"{number % 50}.json": str(number).encode()}, "Change", "somebody")
        requests.merge(requests.open(commit, "Change", "", "somebody"), "maintainer")
        yield


ACTIONS = {"install": install, "save": save, "lock": lock, "merge": merge}


def kill_at_random(action: str, folder: Path, *, times: int, seed: int, longest: float) -> int:
    """Start the writer, let it finish once, kill it after a random time, ``times`` over; returns how often it was killed."""
    draw = random.Random(seed)
    killed = 0
    for _ in range(times):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for _ in ACTIONS[action](folder):
                    os.write(writer, b"x")
            finally:
                os._exit(1)
        os.close(writer)
        os.read(reader, 1)
        time.sleep(draw.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    return killed


if __name__ == "__main__":
    name, place, count, start, longest_wait = sys.argv[1:]
    print(kill_at_random(name, Path(place), times=int(count), seed=int(start), longest=float(longest_wait)))
