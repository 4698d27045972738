"""What a registry of ten thousand records costs, beside one of a hundred.

    python tools/bench/hub.py
    python tools/bench/hub.py --records 1000 --json

A registry is made, committed to a repository and served on this machine. Every command runs in a new process, as a person would run
it, against the small and the large registry in turn; the ratio says what a hundred times the records cost. Client and server
share the machine, and checks of every record are part of a pull.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from easyteacache.cli import text
from easyteacache.hub.server.git import MAIN, GitRepository
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index

HUB = "easyteacache.cli.hub"
KEY = "family-0/variant-7"
REPOSITORY = "bench/registry"
SETTING = ("--sequence-length", "100", "--steps", "20", "--threshold", "0.1")
# name → (arguments, the person's home is empty, the person's downloads are empty)
COMMANDS: dict[str, tuple[tuple[str, ...], bool, bool]] = {
    "list": (("list", "--registry", "FOLDER"), True, True),
    "list family-0/*": (("list", "family-0/*", "--registry", "FOLDER"), True, True),
    "show KEY": (("show", KEY, "--registry", "FOLDER"), True, True),
    "resolve KEY": (("resolve", KEY, *SETTING, "--registry", "FOLDER"), True, True),
    "pull KEY": (("pull", KEY), True, True),
    "pull": (("pull",), True, True),
    "pull, nothing new": (("pull",), False, False),
    "pull, downloaded before": (("pull",), True, False),
}
ONCE = ("pull", "pull, nothing new", "pull, downloaded before")


@dataclass(frozen=True)
class Registry:
    """A registry folder, and where it is served."""

    folder: Path
    home: Path
    endpoint: str

    def seconds(self, arguments: tuple[str, ...], *, new_home: bool, new_downloads: bool) -> float:
        """Wall time of one command."""
        for needed, path in ((new_home, self.home / "home"), (new_downloads, self.home / "downloads")):
            if needed:
                shutil.rmtree(path, ignore_errors=True)
        words = [str(self.folder) if word == "FOLDER" else word for word in arguments]
        environment = {
            **os.environ,
            "EASYTEACACHE_HOME": str(self.home / "home"),
            "EASYTEACACHE_REPOSITORY": REPOSITORY,
            "EASYTEACACHE_LOCK": "",
            "HF_HOME": str(self.home / "downloads"),
            "HF_ENDPOINT": self.endpoint,
        }
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", HUB, *words], check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - begin


def contents(count: int) -> dict[str, bytes]:
    """The files of a registry of ``count`` records, its index included."""
    files, entries = {}, {}
    bucket = {"sequence_length": 100, "num_steps": 20, "shift": 3.0, "coefficients": [2.0, 0.0], "domain": [0.1, 0.5]}
    for number in range(count):
        content: dict[str, Any] = {
            "schema_version": 1,
            "model_key": f"family-{number // 100}/variant-{number % 100}",
            "revision": 1,
            "status": "draft",
            "title": f"Model {number}",
            "modality": "video",
            "method": "teacache",
            "signal": "timestep_projection",
            "buckets": [bucket],
            "provenance": {"license": "CC0-1.0", "author": "Nobody"},
        }
        record = Calibration.from_mapping(content)
        entry = index.entry_of(record, record.to_json().encode())
        files[entry.path], entries[record.model_key] = record.to_json().encode(), entry
    listed = index.Index(index_version=2, records=dict(sorted(entries.items())))
    return {**files, index.FILE_NAME: listed.to_json().encode()}


@contextmanager
def registry(place: Path, files: Mapping[str, bytes]) -> Iterator[Registry]:
    """A registry folder of ``files``, served from a repository with the same files."""
    for name, data in files.items():
        path = place / "registry" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    git = GitRepository(place / "hub" / "datasets" / f"{REPOSITORY}.git")
    git.create()
    head = git.resolve("main")
    git.move(MAIN, git.commit(head, files, "Publish", "nobody"), head)
    with subprocess.Popen(
        [sys.executable, "-m", HUB, "serve", str(place / "hub"), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        try:
            match = re.search(r"http://\S+(?=;)", server.stdout.readline())
            if match is None:
                raise click.ClickException("the server did not start")
            yield Registry(place / "registry", place / "person", match[0])
        finally:
            server.kill()


def measure(small: Registry, large: Registry, runs: int) -> dict[str, tuple[float, float]]:
    """Command → median seconds with the small and with the large registry; what takes long is run once."""
    found = {}
    for name, (arguments, new_home, new_downloads) in COMMANDS.items():
        count = 1 if name in ONCE else runs
        times = [
            [one.seconds(arguments, new_home=new_home, new_downloads=new_downloads) for one in (small, large)]
            for _ in range(count)
        ]
        found[name] = (statistics.median(a for a, _ in times), statistics.median(b for _, b in times))
    return found


@click.command(help=__doc__)
@click.option("--records", type=click.IntRange(100), default=10_000, show_default=True, help="Of the large registry.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Runs of each short command.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: records, and per command seconds and ratio.")
def main(records: int, runs: int, as_json: bool) -> None:
    """Entry point."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with (
            registry(place / "small", contents(100)) as small,
            registry(place / "large", contents(records)) as large,
        ):
            found = measure(small, large, runs)
    rows = [{"command": name, "small": a, "large": b, "ratio": b / a} for name, (a, b) in found.items()]
    if as_json:
        text.echo_json({"records": records, "runs": runs, "commands": rows})
        return
    columns = [text.Column("COMMAND"), *(text.Column(title, "right") for title in ("100", f"{records:,}", "RATIO"))]
    cells = [(row["command"], f"{row['small']:.2f} s", f"{row['large']:.2f} s", f"{row['ratio']:.1f}") for row in rows]
    click.echo(text.table(columns, cells))


if __name__ == "__main__":
    main()
