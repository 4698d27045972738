"""What a program loads before it has work to do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "scipy", "numpy", "sklearn", "skimage", "PIL", "pandas")
HUB = "from easyteacache.cli.hub import main; main(standalone_mode=False, args={!r})"
PROGRAM = "from easyteacache.cli.main import main; main(standalone_mode=False, args={!r})"


def loaded(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` after ``code``, in a new process."""
    script = f"import contextlib, io, json, sys\nwith contextlib.redirect_stdout(io.StringIO()):\n    {code}\n"
    script += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import easyteacache; dir(easyteacache)",
        "from easyteacache import Registry, Calibration, Policy",
        PROGRAM.format(["--help"]),
        PROGRAM.format(["completion", "zsh"]),
        HUB.format(["--help"]),
        HUB.format(["list"]),
        HUB.format(["list", "--json"]),
        HUB.format(["show", "wan2.1/t2v-14b"]),
        HUB.format(["resolve", "wan2.1/t2v-14b", "--sequence-length", "32760"]),
        HUB.format(["where"]),
        HUB.format(["identify", "498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861"]),
    ],
)
def test_nothing_heavy_is_imported_by(code: str) -> None:
    assert loaded(code).isdisjoint(HEAVY)


def test_the_probe_would_notice() -> None:
    assert not loaded("import numpy").isdisjoint(HEAVY)
