"""A hub in its own process, and the accounts on it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
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

    def start(self, port: int = 0) -> HubProcess:
        self.folder.mkdir(parents=True, exist_ok=True)
        tokens = write_tokens(self.folder / "tokens.json")
        command = [sys.executable, "-m", self.module, "serve", str(self.folder), "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, "--tokens", str(tokens)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.search(r"http://\S+(?=;)", line)
        assert match, f"the server said {line!r}"
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
        self.count += 1
        name = f"team/registry-{os.getpid()}-{self.count}"
        self.api().create_repo(name, repo_type="dataset", **options)
        return name

    def publish(self, repository: str, folder: Path, message: str = "Publish") -> str:
        """Commit a whole registry folder to main, as a maintainer; files that are gone are deleted."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api = self.api()
        there = set(api.list_repo_files(repository, repo_type="dataset"))
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        operations += [CommitOperationDelete(name) for name in sorted(there - files.keys())]
        return str(api.create_commit(repository, operations, commit_message=message, repo_type="dataset").oid)
