"""The commands of docs/hub.md and docs/contributing-a-calibration.md do what the pages say; the table of rules is whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from easyteacache.hub.review import rules

from .conftest import build_folder, build_record
from .hub_process import TOKENS, HubProcess
from .solved import Solved

# Every command of two pages, in processes of their own.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HUB, CONTRIBUTING = ROOT / "docs" / "hub.md", ROOT / "docs" / "contributing-a-calibration.md"


def blocks(page: Path) -> list[str]:
    """The shell blocks that are meant to be run."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run_page(page: Path, work: Path, hub: HubProcess, repository: str) -> str:
    """Run every block in one shell; the programs are those of this checkout."""
    programs = work / "bin"
    programs.mkdir(parents=True)
    own = {
        "easyteacache-hub": "-m easyteacache.cli.hub",
        "easyteacache": "-m easyteacache.cli.main",
        "python": "",
    }
    for name, arguments in own.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.endpoint,
        "EASYTEACACHE_REPOSITORY": repository,
        "EASYTEACACHE_TOKEN": TOKENS["contributor"],
        "OMP_NUM_THREADS": "1",
    }
    script = "set -e\n" + "\n".join(blocks(page)).replace("team/calibrations", repository)
    done = subprocess.run(["sh", "-c", script], cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_the_commands_of_the_hub_page_work(tmp_path: Path, hub_process: HubProcess, repository: str) -> None:
    hub_process.publish(repository, build_folder(tmp_path / "up", build_record(), build_record("tiny/other")))
    output = run_page(HUB, tmp_path / "page", hub_process, repository)
    for expected in ("Nothing was installed", "1 new", "1 unchanged", "1 record", "0 of 1 pulled records changed"):
        assert expected in output


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_the_commands_of_the_contributing_page_work(
    tmp_path: Path, hub_process: HubProcess, repository: str, solved: Solved
) -> None:
    work = tmp_path / "page"
    shutil.copytree(solved.traces, work / "traces")
    shutil.copytree(ROOT / "tools", work / "tools")
    build_folder(work / "base", build_record())
    shutil.copytree(work / "base", work / "registry")
    output = run_page(CONTRIBUTING, work, hub_process, repository)
    for expected in ("Nothing was sent", "Opened http", "## Submission passed"):
        assert expected in output


def test_the_page_lists_every_rule() -> None:
    text = HUB.read_text(encoding="utf-8")
    table = text.partition("<!-- rules -->\n")[2].partition("<!-- end of rules -->")[0]
    assert table == rules_table(), "docs/hub.md: the table of rules is stale"


def rules_table() -> str:
    rows = [f"| `{rule}` | {meaning} |\n" for rule, meaning in rules.MEANINGS.items()]
    return "\n| rule | what must hold |\n|---|---|\n" + "".join(rows) + "\n"


@pytest.mark.parametrize("page", [HUB, CONTRIBUTING])
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
