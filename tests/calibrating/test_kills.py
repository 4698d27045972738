"""Killed at random moments: nothing is lost but the run at hand, every file is whole, and no record is another one's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
def test_fifty_kills_lose_nothing_but_the_run_at_hand(home):
    script = Path(__file__).parent / "kill_while_working.py"
    ran = subprocess.run(
        [sys.executable, str(script), str(home), str(KILLS), "7"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    # Otherwise nothing was killed that could have gone wrong.
    assert found["records"] >= 1
    assert sum(found["finished"].values()) >= 6
