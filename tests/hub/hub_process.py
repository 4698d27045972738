"""A hub in its own process, and the accounts on it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOKENS = {"maintainer": "token-of-maintainer", "contributor": "token-of-contributor", "reader": "token-of-reader"}
ROLES = {"maintainer": "write", "contributor": "contribute", "reader": "read"}


def write_tokens(path: Path) -> Path:
    """The token file that `easyteacache-hub serve --tokens` reads."""
    users = {
        name: {"token_sha256": hashlib.sha256(token.encode()).hexdigest(), "role": ROLES[name]}
        for name, token in TOKENS.items()
    }
    path.write_text(json.dumps({"users": users}))
    return path


@dataclass
class HubProcess:
    """`easyteacache-hub serve` on a free port of this machine."""

    folder: Path
    module: str = "easyteacache.cli.hub"
    process: subprocess.Popen[str] | None = None
    endpoint: str = ""
    count: int = field(default=0)
    log: Path | None = None

    def start(self, port: int = 0) -> HubProcess:
        self.folder.mkdir(parents=True, exist_ok=True)
        tokens = write_tokens(self.folder / "tokens.json")
        command = [sys.executable, "-m", self.module, "serve", str(self.folder), "--port", str(port)]
        with contextlib.ExitStack() as stack:
            said = stack.enter_context(self.log.open("wb")) if self.log else None
            self.process = subprocess.Popen(
                [*command, "--tokens", str(tokens)],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.search(r"http://\S+(?=;)", line)
        if match is None:
            # Nobody gets to stop what did not start; left alone, it would be found and blamed in some later test.
            self.stop()
            raise AssertionError(f"the server said {line!r}")
        self.endpoint = match[0]
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def api(self, who: str | None = "maintainer") -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=TOKENS[who] if who else False)

    def new_repository(self, **options: Any) -> str:
        """An empty repository."""
        self.count += 1
        name = f"registry-{os.getpid()}-{self.count}"
        told = {"name": name, "organization": "team", "type": "dataset", **options}
        assert self._post("/api/repos/create", json.dumps(told).encode())["name"] == f"team/{name}"
        return f"team/{name}"

    def publish(self, repository: str, folder: Path, message: str = "Publish") -> str:
        """Commit a whole registry folder to main, as a maintainer; files that are gone are deleted."""
        there = set(self.api().list_repo_files(repository, repo_type="dataset"))
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        contents: dict[str, bytes | None] = {name: path.read_bytes() for name, path in files.items()}
        return self.commit(repository, contents | dict.fromkeys(sorted(there - files.keys())), message)

    def commit(self, repository: str, files: Mapping[str, bytes | None], message: str = "Change") -> str:
        """Commit files to main, as a maintainer; None deletes."""
        lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": message, "description": ""}}]
        for name, data in files.items():
            content = {} if data is None else {"content": base64.b64encode(data).decode(), "encoding": "base64"}
            lines.append({"key": "deletedFile" if data is None else "file", "value": {"path": name, **content}})
        body = "\n".join(map(json.dumps, lines)).encode()
        return str(self._post(f"/api/datasets/{repository}/commit/main", body)["commitOid"])

    def _post(self, path: str, body: bytes) -> Any:
        """Without the client: versions before 1.0 read addresses in answers by $HF_ENDPOINT alone, and here are several hubs."""
        headers = {"Authorization": f"Bearer {TOKENS['maintainer']}"}
        question = urllib.request.Request(f"{self.endpoint}{path}", data=body, headers=headers)
        with urllib.request.urlopen(question, timeout=60) as answer:
            return json.load(answer)
