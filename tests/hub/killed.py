"""Writers that never stop by themselves, for tests that kill them: ``python killed.py ACTION FOLDER`` prints a line when ready."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from easyteacache.hub.server.git import GitRepository
from easyteacache.hub.server.pull_requests import Discussions
from easyteacache.hub.store import Arrival, Store
from easyteacache.records import calibration
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index, lock_file
from easyteacache.registry.lock_file import LockedRecord, LockFile

KEYS = [f"tiny/model-{number}" for number in range(4)]
SEED_KEYS = ["tiny", "solved"]
POINTS = 8


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


def settings(folder: Path) -> dict[str, Any]:
    """What the test wrote for the writers that talk to a hub."""
    found = json.loads((folder / "settings.json").read_text())
    assert isinstance(found, dict)
    return found


def pull(folder: Path) -> Iterator[None]:
    """Bring one commit and the other in turn, every second time with no earlier downloads."""
    from easyteacache.hub import downloads
    from easyteacache.hub import pull as pulling
    from easyteacache.hub.remote import Remote

    told = settings(folder)
    remote = Remote(told["repository"], endpoint=told["endpoint"], wait=lambda _: None)
    for number in itertools.count():
        if number % 2 == 0:
            shutil.rmtree(downloads.Downloads().folder, ignore_errors=True)
        pulling.pull(remote, revision=told["commits"][number % 2], store=Store(folder / "home"))
        yield


def push(folder: Path) -> Iterator[None]:
    """Propose the record under ever new titles, with its traces."""
    from easyteacache.hub import push as pushing
    from easyteacache.hub.remote import Remote

    told = settings(folder)
    remote = Remote(told["repository"], endpoint=told["endpoint"], token=told["token"], wait=lambda _: None)
    content = json.loads(Path(told["record"]).read_text())
    for number in itertools.count(time.time_ns()):
        data = Calibration.from_mapping(content | {"title": f"Attempt {number}"}).to_json().encode()
        proposal = pushing.prepare(remote, {"record.json": data}, [Path(told["traces"])], judge=None)
        pushing.send(remote, proposal, wait=lambda _: None)
        yield


def solve(folder: Path) -> Iterator[None]:
    """Solve mode of the original project: every run adds points to the file."""
    run = solver(folder / "seed.json", seed=time.time_ns() % 1000)
    while True:
        run()
        yield


def solver(path: Path, *, seed: int) -> Any:
    """A function that records one run of ``POINTS + 1`` steps and writes its points."""
    import torch

    from easyteacache import TeaCache

    torch.set_num_threads(1)
    cache = TeaCache(-1, model_keys=SEED_KEYS, cache_path=path, speedup_mode=False)
    draw = torch.Generator().manual_seed(seed)

    def run() -> None:
        for step in range(POINTS + 1):
            signal, latent = torch.rand(1, 8, generator=draw) + 1, torch.rand(1, 4, 8, generator=draw) + 1
            cache.store_truth(step, signal, latent, latent * (1 + signal.mean()), 4)
        cache.clear_cache()

    return run


ACTIONS = {
    "install": install,
    "save": save,
    "lock": lock,
    "merge": merge,
    "pull": pull,
    "push": push,
    "solve": solve,
}
# Imported before the fork: a kill should hit the work, not the import.
NEEDED = {"solve": "torch", "pull": "huggingface_hub.hf_api", "push": "huggingface_hub.hf_api"}


def kill_at_random(action: str, folder: Path, *, times: int, seed: int, longest: float) -> int:
    """Start the writer, let it finish once, kill it after a random time, ``times`` over; returns how often it was killed."""
    if action in NEEDED:
        importlib.import_module(NEEDED[action])
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
