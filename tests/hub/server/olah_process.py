"""olah, an independent server of the same interface, in its own process on the repositories of a served hub.

It runs with another Python than the tests: it asks for an older psutil than they would get. ``EASYTEACACHE_OLAH`` names that Python.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ENVIRONMENT_PYTHON = "EASYTEACACHE_OLAH"
START_SECONDS = 60
HOW = f"python -m venv olah && olah/bin/pip install olah && export {ENVIRONMENT_PYTHON}=$PWD/olah/bin/python"

CONFIGURATION = """
[basic]
host = "127.0.0.1"
port = {port}
repos-path = "{folder}/cache"
mirrors-path = ["{folder}/mirrors"]

[accessibility]
offline = true
"""


def python_with_olah() -> str:
    """The Python that has olah; skips the test where there is none."""
    named = os.environ.get(ENVIRONMENT_PYTHON)
    if named:
        return named
    if importlib.util.find_spec("olah") is not None:
        return sys.executable
    pytest.skip(f"olah is not installed; to compare with it: {HOW}")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def olah_process(folder: Path, hub: Path, repository: str) -> Iterator[str]:
    """Serve a repository of the hub's folder, itself and no copy; the address."""
    python = python_with_olah()
    mirror = folder / "mirrors" / "datasets" / repository
    mirror.parent.mkdir(parents=True)
    # olah expects the bare name.
    mirror.symlink_to(hub / "datasets" / f"{repository}.git", target_is_directory=True)
    port = free_port()
    (folder / "olah.toml").write_text(CONFIGURATION.format(port=port, folder=folder.as_posix()))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "olah.server", "--config", str(folder / "olah.toml"), "--log-path", str(folder / "logs")]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(process, port, folder / "output")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"olah did not start: {output.read_text(errors='replace')[-2000:]}")
