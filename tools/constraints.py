"""Pin every package that the tests run with: write ``.ci/constraints.txt``, or check that it says what is installed.

python tools/constraints.py            # from a new virtual environment with the extra `dev`, with the newest packages
python tools/constraints.py --check    # of the environment this runs in: exit 1 when a package is not at its pin
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import distributions
from pathlib import Path

import click

from easyteacache.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / ".ci" / "constraints.txt"
# Reproducible numbers need one torch; a new one is a decision (``--torch``), not an accident.
HEAD = """# Every package that the tests run with, at the version they passed with. Written by `python tools/constraints.py`.
# What torch brings besides for one kind of GPU is pinned by torch itself.
"""
# What a virtual environment comes with, and what is installed from here.
UNPINNED = {"pip", "setuptools", "wheel", "easyteacache"}


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Compare the pins with what is installed here; write nothing.")
@click.option("--torch", metavar="VERSION", help="Version of torch.  [the one pinned now]")
def main(check: bool, torch: str | None) -> None:
    """Entry point."""
    pinned = pins(FILE.read_text(encoding="utf-8"))
    if not check:
        found = resolved(torch or pinned["torch"])
        lines = [f"{name}=={version}" for name, version in sorted(found.items())]
        atomic_write.write_text(FILE, HEAD + "\n".join(lines) + "\n")
        click.echo(f"wrote {FILE.relative_to(ROOT)}: {len(found)} packages")
        return
    wrong = [
        f"{name} {version} is installed, {pinned.get(name, 'nothing')} is pinned"
        for name, version in sorted(installed().items())
        if pinned.get(name) != version
    ]
    for line in wrong:
        click.echo(line, err=True)
    if wrong:
        click.echo(f"{FILE.relative_to(ROOT)} is stale: run python tools/constraints.py", err=True)
        sys.exit(1)
    click.echo(f"{FILE.relative_to(ROOT)} is what is installed")


def pins(text: str) -> dict[str, str]:
    """Package → version of every ``name==version`` line."""
    return {normal(name): version for name, version in re.findall(r"^([\w.-]+)==([\w.!-]+)", text, re.MULTILINE)}


def installed() -> dict[str, str]:
    """Package → version of everything in this environment, without local versions such as ``+cpu``."""
    found = {normal(one.metadata["Name"]): one.version.partition("+")[0] for one in distributions()}
    return {name: version for name, version in found.items() if name not in UNPINNED and not _brought_by_torch(name)}


def _brought_by_torch(name: str) -> bool:
    return name.startswith(("nvidia-", "cuda-")) or name == "triton"


def resolved(torch: str) -> dict[str, str]:
    """What pip installs today for the extra ``dev``, in an environment that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        only_torch = Path(folder, "torch.txt")
        only_torch.write_text(f"torch=={torch}\n", encoding="utf-8")
        venv.create(Path(folder, "venv"), with_pip=True)
        python = Path(folder, "venv", "Scripts" if os.name == "nt" else "bin", "python")
        environment = {**os.environ, "PIP_CONSTRAINT": str(only_torch)}
        environment.pop("PYTHONPATH", None)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[dev]"], check=True, env=environment)
        frozen = subprocess.run(
            [python, "-m", "pip", "freeze"], check=True, env=environment, capture_output=True, text=True
        )
    found = pins(re.sub(r"\+[\w.]+$", "", frozen.stdout, flags=re.MULTILINE))
    return {name: version for name, version in found.items() if name not in UNPINNED and not _brought_by_torch(name)}


def normal(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
