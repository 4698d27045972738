"""Generate with a cache that makes its records, and be killed at random moments: python kill_while_working.py HOME KILLS SEED.

The parent forks, so that a round costs no import. After every kill it looks at every file there is, and at the end it prints what it
found as JSON.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from easyteacache import EasyTeaCacheWarning, TeaCache
from easyteacache.calibrating import promise
from easyteacache.calibrating.filing import local_layer
from easyteacache.calibrating.trace_store import MOST_RUNS, traces_home
from easyteacache.records import calibration as records
from easyteacache.records.trace_set import TraceSet
from easyteacache.reference import load_pipeline
from easyteacache.solver.validation.validate import validate

STEPS = (5, 6, 7)
#: A child is killed at most so many finished runs and so many seconds after those; a run takes about a tenth, a solve half a second.
MOST_LINES, LONGEST = 3, 0.6


def generate(pipe: Any, write: int, first_seed: int) -> None:
    """Runs without end, each reported when it is done: steps, and whether it was recorded."""
    warnings.simplefilter("ignore", EasyTeaCacheWarning)
    # Every audit drifts, so that records are solved and filed again and again.
    promise.error_of = lambda policy, trace: 1.0
    cache = TeaCache.for_pipeline(pipe, speedup=1.5, calibrate=True, audit_every=2).attach(pipe)
    os.write(write, b"ready\n")
    seed = first_seed
    while True:
        steps = STEPS[seed % len(STEPS)]
        pipe(f"{seed % 10} down", num_frames=1, num_inference_steps=steps, seeds=[seed], output_type="latent")
        recorded = int(cache.policy.recording is not None)
        os.write(write, f"{steps} {recorded}\n".encode())
        seed += 1


def round_of(pipe: Any, first_seed: int, lines: int, after: float) -> list[str]:
    """One child, killed ``after`` seconds after it finished so many runs; the lines that it wrote."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            generate(pipe, write, first_seed)
        finally:
            os._exit(1)
    os.close(write)
    text = b""
    while text.count(b"\n") <= lines:
        more = os.read(read, 4096)
        assert more, "the child ended before it was killed"
        text += more
    until = time.monotonic() + after
    while (left := until - time.monotonic()) > 0:
        if select.select([read], [], [], left)[0]:
            more = os.read(read, 4096)
            assert more, "the child ended before it was killed"
            text += more
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 4096):
        text += more
    os.close(read)
    return text.decode().splitlines()[1:]


def look(finished: dict[int, int]) -> int:
    """Is every file whole, every record its traces', and every finished run there? Returns how many records there are."""
    kept: dict[int, int] = defaultdict(int)
    for path in traces_home().rglob("run-*.safetensors"):
        kept[TraceSet.load(path)[0].num_steps] += 1
    for steps, count in finished.items():
        assert kept[steps] >= min(count, MOST_RUNS - 1), (
            f"{count} runs of {steps} steps were finished, {kept[steps]} are kept"
        )
    found = list(local_layer().rglob("*.json"))
    for path in found:
        record = records.load(path)
        assert record.status == "validated"
        names = {reference.file for reference in record.provenance.traces}
        files = [file for file in traces_home().rglob("run-*.safetensors") if file.name in names]
        report = validate(record, TraceSet.load(*files))
        assert report.passed, report.text()
    return len(found)


def main() -> None:
    os.environ["EASYTEACACHE_HOME"] = sys.argv[1]
    kills, chance = int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    finished: dict[int, int] = defaultdict(int)
    files = 0
    for number in range(kills):
        for line in round_of(pipe, 1000 * number, chance.randint(0, MOST_LINES), chance.uniform(0.0, LONGEST)):
            steps, recorded = map(int, line.split())
            finished[steps] += recorded
        files = look(finished)
    revisions = [records.load(path).revision for path in local_layer().rglob("*.json")]
    left = [path.name for path in Path(sys.argv[1]).rglob(".easyteacache-*")]
    print(json.dumps({"finished": finished, "records": files, "revisions": revisions, "half_written": len(left)}))


if __name__ == "__main__":
    main()
