"""From serve to a run without a hub: one script that anybody can run, and this test of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT / "tests" / "fixtures" / "traces" / "reference"
KEY = "reference/moving-digits"


@pytest.mark.slow
@pytest.mark.skipif(not TRACES.is_dir(), reason="an installed copy has no traces")
def test_a_calibration_travels_from_one_machine_to_another(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "share_and_run.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # One word for each step, in the order in which they have to happen.
    steps = [
        r"^Serving ",
        r"^maker\$ easyteacache-hub push ",
        r"^Opened http",
        r"^user\$ easyteacache-hub pull .*\n.*the file does not exist",
        rf"^Request 1 of contributor: Calibration: {KEY}$",
        rf"^  traces/{KEY}/.*\.safetensors$",
        r"^Merged\.$",
        rf"^  {KEY} +\d+  new$",
        r"^easyteacache\.lock: 1 record$",
        rf"^{KEY} revision \d+ \(layer pulled\)",
        r"^The server has stopped\.$",
        rf"^{KEY} revision \d+ \(layer pulled\)",
        r"cannot be reached",
        r"^user\$ easyteacache-hub pull --locked --offline$",
        rf"^{KEY} revision \d+ \(layer pulled\)",
        r"^All of it worked\.$",
    ]
    position = 0
    for step in steps:
        found = re.compile(step, re.MULTILINE).search(done.stdout, position)
        assert found, f"{step} is not in\n{done.stdout[position:]}"
        position = found.end()
