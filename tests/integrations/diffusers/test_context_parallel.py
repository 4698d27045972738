"""Context parallelism over 2 and 4 gloo processes: every rank takes the same decision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Two and four gloo processes.
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("ranks.py")
# Wan's sequence is split at its first block, FLUX's where the transformer is entered.
CASES = {
    "wan": (2, ["modulated_input:shared", "modulated_input:alone", "modulated_input:late"]),
    "wan, timestep": (2, ["timestep_projection:shared", "timestep_projection:whole"]),
    "flux": (4, ["modulated_input:shared", "modulated_input:alone"]),
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """``ranks(kind)[mode]``: what every rank reports; each number of processes is started once."""
    wan = {f"wan:{case}" for name in ("wan", "wan, timestep") for case in CASES[name][1]}
    launched = {
        2: launch(2, sorted(wan), tmp_path_factory.mktemp("two")),
        4: launch(4, [f"flux:{case}" for case in CASES["flux"][1]], tmp_path_factory.mktemp("four")),
    }

    def reported(name: str) -> dict[str, list[dict[str, Any]]]:
        world, cases = CASES[name]
        kind = name.partition(",")[0]
        return {case.partition(":")[2]: [rank[f"{kind}:{case}"] for rank in launched[world]] for case in cases}

    return reported


def launch(world: int, cases: list[str], folder: Path) -> list[dict[str, Any]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(world), str(folder / "sync"), *cases]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, timeout=600, check=True)
    return json.loads(done.stdout.rsplit("RESULT", 1)[1])


@pytest.mark.parametrize("kind", ["wan", "flux"])
def test_ranks_agree_on_a_sharded_signal(kind, ranks):
    shared = ranks(kind)["shared"]
    assert all(found["patterns"] == shared[0]["patterns"] for found in shared)
    assert all(found["distances"] == shared[0]["distances"] for found in shared)
    assert "·" in shared[0]["patterns"]["cond"]
    assert "█" in shared[0]["patterns"]["cond"][1:]
    # One collective of two numbers for each distance that was measured.
    measured = sum(distance is not None for run in shared[0]["distances"].values() for distance in run)
    assert shared[0]["collectives"] == [2] * measured


@pytest.mark.parametrize("kind", ["wan", "flux"])
def test_ranks_would_disagree_without_the_reduction(kind, ranks):
    assert len({json.dumps(found["patterns"]) for found in ranks(kind)["alone"]}) > 1


def test_a_timestep_signal_needs_no_collective(ranks):
    reported = ranks("wan, timestep")
    for shared, whole in zip(reported["shared"], reported["whole"], strict=True):
        assert shared["collectives"] == []
        assert shared["patterns"] == whole["patterns"]


def test_the_sequence_length_is_that_of_the_whole_sequence(ranks):
    assert {found["length"] for found in ranks("wan")["shared"]} == {64}
    assert {found["length"] for found in ranks("wan, timestep")["whole"]} == {64}
    assert {found["length"] for found in ranks("flux")["shared"]} == {16}


def test_attaching_outside_of_the_split_is_refused(ranks):
    assert all("attach the cache first" in found["refused"] for found in ranks("wan")["late"])
