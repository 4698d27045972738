"""From serve to a run without a hub: separate programs, separate homes, an empty cache, one pull request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .hub_process import TOKENS, HubProcess

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "registry" / "reference" / "moving-digits.json"
TRACES = ROOT / "tests" / "fixtures" / "traces" / "reference"
KEY = "reference/moving-digits"

RUN = """
import json, sys, torch
from easyteacache import Registry, TeaCache
key, length, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
found = Registry.default().find(key)
cache = TeaCache.from_registry(key, sequence_length=length, num_steps=steps)
reused = 0
torch.manual_seed(0)
signal, latent = torch.randn(1, 8), torch.randn(1, 4, 8)
for step in range(steps):
    signal = signal * 1.001
    if cache.check(step, signal, length):
        cache.update(signal, latent)
        reused += 1
    else:
        cache.store_truth(step, signal, latent, latent * 1.1, length)
print(json.dumps({"layer": found.layer, "reused": reused, "revision": found.calibration.revision}))
"""


class Machine:
    """Somebody's computer: its own home, working folder and cache."""

    def __init__(self, folder: Path, repository: str, endpoint: str, token: str | None = None) -> None:
        self.folder = folder
        (folder / "work").mkdir(parents=True)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "EASYTEACACHE_"))},
            "EASYTEACACHE_HOME": str(folder / "home"),
            "HF_HOME": str(folder / "cache"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "EASYTEACACHE_REPOSITORY": repository,
            "OMP_NUM_THREADS": "1",
            **({"EASYTEACACHE_TOKEN": token} if token else {}),
        }

    def hub(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self._run("-m", "easyteacache.cli.hub", *arguments)

    def run(self, length: int, steps: int) -> dict[str, object]:
        done = self._run("-c", RUN, KEY, length, steps)
        assert done.returncode == 0, done.stderr
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def _run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder / "work", env=self.environment, capture_output=True, text=True, check=False
        )


@pytest.mark.skipif(not TRACES.is_dir(), reason="an installed copy has no traces")
def test_a_calibration_travels_from_one_machine_to_another(tmp_path: Path, hub_process: HubProcess) -> None:
    repository = hub_process.new_repository()
    maker = Machine(tmp_path / "maker", repository, hub_process.endpoint, TOKENS["contributor"])
    user = Machine(tmp_path / "user", repository, hub_process.endpoint)
    bucket = json.loads(RECORD.read_text())["buckets"][0]
    setting = bucket["sequence_length"], bucket["num_steps"]

    pushed = maker.hub("push", RECORD, "--traces", TRACES)
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    assert "Opened" in pushed.stdout
    assert user.hub("pull", KEY).returncode == 1  # nothing is published before a maintainer has merged it

    (request,) = hub_process.api().get_repo_discussions(repository, repo_type="dataset")
    hub_process.api().merge_pull_request(repository, request.num, repo_type="dataset")

    assert user.run(*setting)["layer"] == "bundled"
    pulled = user.hub("pull", KEY, "--json")
    assert pulled.returncode == 0, pulled.stderr
    assert user.hub("lock", KEY).returncode == 0
    online = user.run(*setting)
    assert online["layer"] == "pulled"

    user.environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    assert user.run(*setting) == online
    shutil.rmtree(tmp_path / "user" / "home")
    again = user.hub("pull", "--locked", "--offline")
    assert again.returncode == 0, again.stderr
    assert user.run(*setting) == online
