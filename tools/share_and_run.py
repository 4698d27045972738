"""The life of a calibration on one machine: serve, push, review, merge, pull, run, go offline, run again.

Two people with folders, homes and download caches of their own; every command is printed before it runs.

python tools/share_and_run.py
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
KEY = "reference/moving-digits"
RECORD = ROOT / "registry" / f"{KEY}.json"
TRACES = ROOT / "tests" / "fixtures" / "traces" / "reference"
REPOSITORY = "team/calibrations"
PROGRAMS = {"easyteacache-hub": "easyteacache.cli.hub", "easyteacache": "easyteacache.cli.main"}
ROLES = {"maintainer": "write", "contributor": "contribute"}
# A video that is sampled in seconds; the calibration is the same for all of them.
DEMO = ("demo", "--samples", "1", "--steps", "20", "--frames", "1", "--size", "16x16", "--json")


class Person:
    """Somebody's machine.

    Args:
        name: shown in front of every command.
        folder: made for it: a working folder, a home and an empty download cache.
        endpoint: of the hub.
        token: for the hub; None reads only.
    """

    def __init__(self, name: str, folder: Path, endpoint: str, token: str | None = None) -> None:
        self.name, self.folder = name, folder
        (folder / "work").mkdir(parents=True)
        own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "EASYTEACACHE_"))}
        self.environment = own | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), own.get("PYTHONPATH")))),
            "EASYTEACACHE_HOME": str(folder / "home"),
            "EASYTEACACHE_REPOSITORY": REPOSITORY,
            "HF_HOME": str(folder / "cache"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "OMP_NUM_THREADS": "1",
            **({"EASYTEACACHE_TOKEN": token} if token else {}),
        }

    def run(self, program: str, *arguments: object, expect: int = 0) -> str:
        """Run a program; its standard output.

        Raises:
            click.ClickException: it ended with another exit code than ``expect``.
        """
        words = [str(argument) for argument in arguments]
        click.echo(f"\n{self.name}$ {shlex.join([program, *words])}")
        command = [sys.executable, "-m", PROGRAMS[program], *words]
        done = subprocess.run(
            command, cwd=self.folder / "work", env=self.environment, capture_output=True, text=True, check=False
        )
        if "--json" not in words:
            click.echo(done.stdout + done.stderr, nl=False)
        if done.returncode != expect:
            raise click.ClickException(f"ended with {done.returncode}, expected {expect}\n{done.stdout}{done.stderr}")
        return done.stdout

    def demo(self, layer: str) -> dict[str, Any]:
        """Run the demo; what it did, without times.

        Raises:
            click.ClickException: the calibration did not come from ``layer``.
        """
        found: dict[str, Any] = json.loads(self.run("easyteacache", *DEMO))
        policy = found["policy"]
        (sample,) = found["samples"]
        click.echo(
            f"{policy['model_key']} revision {policy['revision']} (layer {policy['layer']}): {sample['patterns']}"
        )
        if policy["layer"] != layer:
            raise click.ClickException(f"the calibration came from the layer {policy['layer']!r}, expected {layer!r}")
        cached = found["rows"][1]
        return {"policy": policy, "samples": found["samples"], "computed": cached["computed"], "psnr": cached["psnr"]}


@contextmanager
def serving(folder: Path, tokens: dict[str, str]) -> Iterator[str]:
    """`easyteacache-hub serve` on a free port; its address. It is stopped at the end."""
    users = {
        name: {"token_sha256": hashlib.sha256(token.encode()).hexdigest(), "role": ROLES[name]}
        for name, token in tokens.items()
    }
    folder.mkdir()
    (folder / "tokens.json").write_text(json.dumps({"users": users}))
    command = [sys.executable, "-m", PROGRAMS["easyteacache-hub"], "serve", str(folder / "hub"), "--port", "0"]
    with subprocess.Popen(
        [*command, "--tokens", str(folder / "tokens.json")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            match = re.search(r"http://\S+(?=;)", line)
            if match is None:
                raise click.ClickException(f"the server said {line!r}")
            click.echo(line, nl=False)
            yield match[0]
        finally:
            server.kill()


def merge(endpoint: str, token: str) -> None:
    """What a maintainer does with the one open request: look at it and merge it, with the hub's own client."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token)
    (request,) = api.get_repo_discussions(REPOSITORY, repo_type="dataset", discussion_status="open")
    files = api.list_repo_files(REPOSITORY, repo_type="dataset", revision=f"refs/pr/{request.num}")
    click.echo(f"\nRequest {request.num} of {request.author}: {request.title}")
    click.echo("\n".join(f"  {name}" for name in sorted(files)))
    api.merge_pull_request(REPOSITORY, request.num, repo_type="dataset")
    click.echo("Merged.")


@click.command(help=__doc__)
def main() -> None:
    """Entry point."""
    from huggingface_hub import HfApi

    tokens = {name: secrets.token_urlsafe() for name in ROLES}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        with serving(scratch / "server", tokens) as endpoint:
            HfApi(endpoint=endpoint, token=tokens["maintainer"]).create_repo(REPOSITORY, repo_type="dataset")
            maker = Person("maker", scratch / "maker", endpoint, tokens["contributor"])
            user = Person("user", scratch / "user", endpoint)
            maker.run("easyteacache-hub", "push", RECORD, "--traces", TRACES)
            # Nothing is published before a maintainer has merged it.
            user.run("easyteacache-hub", "pull", KEY, expect=1)
            merge(endpoint, tokens["maintainer"])
            user.run("easyteacache-hub", "pull", KEY)
            user.run("easyteacache-hub", "lock", KEY)
            online = user.demo("pulled")
        click.echo("\nThe server has stopped.")
        if user.demo("pulled") != online:
            raise click.ClickException("the demo did something else offline")
        user.run("easyteacache-hub", "pull", KEY, expect=1)
        click.echo("\nThe user's home is lost; the lock and the download cache are not.")
        shutil.rmtree(scratch / "user" / "home")
        user.run("easyteacache-hub", "pull", "--locked", "--offline")
        if user.demo("pulled") != online:
            raise click.ClickException("the demo did something else with the locked record")
    click.echo("\nAll of it worked.")


if __name__ == "__main__":
    main()
