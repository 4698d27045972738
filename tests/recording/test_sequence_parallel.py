"""Recording with the tokens spread over processes gives the trace of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from easyteacache.records.trace_set import TraceSet

# Two gloo processes.
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("sharded_recording.py")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[TraceSet, TraceSet, TraceSet]:
    """(single process, rank 0 of 2, rank 1 of 2)."""
    folder = tmp_path_factory.mktemp("sharded")
    jobs = [("0", "1", "alone"), ("0", "2", "shared"), ("1", "2", "shared")]
    commands = [[sys.executable, str(SCRIPT), r, w, str(folder / "sync"), str(folder / name)] for r, w, name in jobs]
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=300) for process in running] == [0, 0, 0]
    first, second, third = (folder / f"{name}.safetensors" for name in ("alone-0", "shared-0", "shared-1"))
    return TraceSet.load(first), TraceSet.load(second), TraceSet.load(third)


def test_every_process_ends_with_the_same_trace(recorded):
    _, first, second = recorded
    assert [run.run_id for run in first] == [run.run_id for run in second]


def test_it_equals_the_recording_of_one_process(recorded):
    alone, shared, _ = recorded
    assert [run.header.prompt for run in alone] == ["count", "exact", "tokens"]
    for one, two in zip(alone, shared, strict=True):
        assert one.header.sequence_length == two.header.sequence_length == 30
        arrays = dict(two.arrays())
        for name, values in one.arrays():
            np.testing.assert_allclose(arrays[name], values, rtol=2e-5, atol=1e-4 * np.abs(values).max(), err_msg=name)
