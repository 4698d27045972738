"""Without diffusers, what needs it says which extra brings it."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules['diffusers'] = None; "


@pytest.mark.parametrize(
    "code",
    [
        "import easyteacache.integrations.diffusers",
        "from easyteacache.reference import load_pipeline",
        "from easyteacache import TeaCache; TeaCache.from_registry('flux.1/dev', threshold=0.25).attach(object())",
        "from easyteacache import TeaCache; TeaCache.for_pipeline(object())",
        "from easyteacache.cli.main import main; main(['record', 'reference', '--out', 'x', '--num-prompts', '1'])",
        "from easyteacache.cli.main import main; main(['demo'])",
    ],
    ids=["import", "reference", "attach", "for_pipeline", "record", "demo"],
)
def test_the_extra_is_named(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "diffusers" in done.stderr.splitlines()[-1]
    assert 'pip install "easyteacache[' in done.stderr.splitlines()[-1]
    if "main" in code:
        assert "Traceback" not in done.stderr


def test_looking_up_needs_no_diffusers() -> None:
    code = "from easyteacache.cli.main import main; main(['resolve', 'flux.1/dev', '--steps', '28'])"
    done = subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
