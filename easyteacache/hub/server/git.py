"""A bare git repository as a hub needs it: commits made of whole files, references moved by compare-and-swap.

Everything goes through the ``git`` program, so that what the server stores is what any git client reads.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from easyteacache.errors import HubError

MAIN = "refs/heads/main"
# No update of one reference takes this long: whoever held the lock is gone.
DEAD_LOCK_SECONDS = 30
REMEMBERED_COMMITS = 1000
COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"(?!.*\.\.)(?!.*//)[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_FILE_PATH = re.compile(r"[^\x00-\x1f\x7f\\]{1,400}")
# The server's own identity and no settings of the machine: the same content gives the same objects everywhere.
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_COMMITTER_NAME": "easyteacache-hub",
    "GIT_COMMITTER_EMAIL": "hub@localhost",
}


class StaleReference(HubError):
    """A reference moved since it was read."""


class MergeConflict(HubError):
    """Two commits cannot be joined without a person.

    Attributes:
        files: the paths both sides changed.
    """

    def __init__(self, repository: str, files: tuple[str, ...]) -> None:
        self.files = files
        super().__init__(repository, f"conflicts in {', '.join(files)}")


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file (``blob``) or folder (``tree``) of a commit."""

    kind: str
    oid: str
    size: int
    path: str


def safe_path(path: str) -> bool:
    """Whether a client may write ``path``: relative, without ``..`` or ``.git``, no control characters or backslashes."""
    parts = path.split("/")
    return bool(_FILE_PATH.fullmatch(path)) and not any(p in ("", ".", "..") or p.lower() == ".git" for p in parts)


class GitRepository:
    """One bare repository on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._commits: set[str] = set()

    def create(self) -> None:
        """Make the repository with one empty commit on main, so that requests have a base; appears whole or not at all."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".new-") as scratch:
            new = GitRepository(Path(scratch, "repository"))
            new._git("init", "--quiet", "--bare", "--initial-branch=main", str(new.folder), anywhere=True)
            new.move(MAIN, new.commit(None, {}, "Initial commit", "easyteacache-hub"), None)
            os.rename(new.folder, self.folder)

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag, ``refs/…`` name or commit id stands for, or None."""
        if not _REVISION.fullmatch(revision):
            return None
        names = [revision] if revision.startswith("refs/") else [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        if COMMIT.fullmatch(revision):
            if revision in self._commits:
                return revision
            names = [revision]
        for name in names:
            done = self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)
            if done.returncode == 0:
                found = done.stdout.decode().strip()
                self._remember(found)
                return found
        return None

    def _remember(self, commit: str) -> None:
        """A commit stays where it is: asking git about it once is enough, and a pull asks thousands of times."""
        if len(self._commits) >= REMEMBERED_COMMITS:
            self._commits.clear()
        self._commits.add(commit)

    def entries(self, commit: str, path: str = "", *, recursive: bool = False) -> Iterator[TreeEntry]:
        """Files and folders below ``path``."""
        options = ["-r", "-t"] if recursive else []
        listing = self._git("ls-tree", "-z", "-l", *options, f"{commit}:{path}", check=False).stdout
        for line in listing.split(b"\0")[:-1]:
            about, _, name = line.partition(b"\t")
            _, kind, oid, size = about.decode().split()
            full = "/".join(filter(None, (path, name.decode("utf-8", "replace"))))
            yield TreeEntry(kind, oid, 0 if size == "-" else int(size), full)

    def read(self, commit: str, path: str) -> tuple[str, bytes] | None:
        """``(object id, content)`` of a file, or None."""
        if not safe_path(path):
            return None
        with self._lock:
            return self._ask(f"{commit}:{path}")

    def _ask(self, name: str) -> tuple[str, bytes] | None:
        """Ask a git process that stays: starting one for every file costs more than the file."""
        if self._reader is None or self._reader.poll() is not None:
            self._reader = subprocess.Popen(
                ["git", "--git-dir", str(self.folder), "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
            )
        assert self._reader.stdin is not None
        assert self._reader.stdout is not None
        self._reader.stdin.write(name.encode() + b"\n")
        self._reader.stdin.flush()
        answer = self._reader.stdout.readline().decode("utf-8", "replace").split()
        if len(answer) != 3 or answer[1] not in ("blob", "tree", "commit", "tag"):
            return None
        data = self._reader.stdout.read(int(answer[2]))
        self._reader.stdout.read(1)
        return (answer[0], data) if answer[1] == "blob" else None

    def close(self) -> None:
        """End the reading process."""
        if self._reader is not None:
            with contextlib.suppress(OSError):
                self._reader.communicate()
            self._reader = None

    def commit(self, parent: str | None, changes: Mapping[str, bytes | None], message: str, author: str) -> str:
        """Store a commit that no reference names yet.

        Args:
            parent: the commit it follows; None begins a history.
            changes: path → content, None deletes.
            message: its message.
            author: name of the user.
        """
        with tempfile.TemporaryDirectory() as scratch:
            own = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            if parent is not None:
                self._git("read-tree", parent, environment=own)
            stored = self._store({path: data for path, data in changes.items() if data is not None}, Path(scratch))
            lines = [
                f"100644 {stored[path]}\t{path}" if path in stored else f"0 {'0' * 40}\t{path}" for path in changes
            ]
            self._git("update-index", "-z", "--index-info", stdin="\0".join([*lines, ""]).encode(), environment=own)
            tree = self._git("write-tree", environment=own).stdout.decode().strip()
        return self._commit_tree(tree, [parent] if parent else [], message, author)

    def _store(self, contents: Mapping[str, bytes], scratch: Path) -> dict[str, str]:
        """The object ids of contents, stored by one process: one for each file costs more than the file."""
        names = [scratch / str(number) for number in range(len(contents))]
        for name, data in zip(names, contents.values(), strict=True):
            name.write_bytes(data)
        listed = "".join(f"{name}\n" for name in names).encode()
        ids = self._git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listed).stdout.decode().split()
        return dict(zip(contents, ids, strict=True))

    def _commit_tree(self, tree: str, parents: list[str], message: str, author: str) -> str:
        options = [option for parent in parents for option in ("-p", parent)]
        name = re.sub(r"[^A-Za-z0-9 ._-]", "", author) or "unknown"
        identity = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": f"{name.replace(' ', '-')}@localhost"}
        done = self._git("commit-tree", tree, *options, stdin=message.encode(), environment=identity)
        return done.stdout.decode().strip()

    def move(self, reference: str, commit: str, expected: str | None) -> None:
        """Point ``reference`` at ``commit`` if it still points at ``expected`` (None: if it does not exist).

        Raises:
            StaleReference: it points elsewhere.
        """
        arguments = ("update-ref", reference, commit, expected or "0" * 40)
        done = self._git(*arguments, check=False)
        if done.returncode and self._forget_dead_lock(reference):
            done = self._git(*arguments, check=False)
        if done.returncode:
            raise StaleReference(self.folder.name, f"{reference} moved since it was read")

    def _forget_dead_lock(self, reference: str) -> bool:
        """Remove the lock that a killed git left on a reference; True when there was one."""
        lock = self.folder / f"{reference}.lock"
        try:
            dead = time.time() - lock.stat().st_mtime > DEAD_LOCK_SECONDS
        except OSError:
            return False
        if dead:
            lock.unlink(missing_ok=True)
        return dead

    def merge(self, theirs: str, message: str, author: str) -> str:
        """Join ``theirs`` into main and move main; returns the merge commit.

        Raises:
            MergeConflict: both changed the same lines.
            StaleReference: main moved meanwhile.
        """
        ours = self.resolve("main")
        assert ours is not None
        tree, conflicts = self._merged_tree(ours, theirs)
        if conflicts:
            raise MergeConflict(self.folder.name, conflicts)
        merged = self._commit_tree(tree, [ours, theirs], message, author)
        self.move(MAIN, merged, ours)
        return merged

    def contains(self, commit: str) -> bool:
        """Whether main already holds ``commit``."""
        return self._git("merge-base", "--is-ancestor", commit, MAIN, check=False).returncode == 0

    def conflicts(self, theirs: str) -> tuple[str, ...]:
        """Paths that a merge of ``theirs`` into main could not join."""
        ours = self.resolve("main")
        return self._merged_tree(ours, theirs)[1] if ours else ()

    def _merged_tree(self, ours: str, theirs: str) -> tuple[str, tuple[str, ...]]:
        done = self._git("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs, check=False)
        if done.returncode not in (0, 1):
            raise HubError(self.folder.name, f"git merge-tree failed: {done.stderr.decode(errors='replace')[:200]}")
        tree, *files = done.stdout.decode("utf-8", "replace").rstrip("\0").split("\0")
        return tree.strip(), tuple(files)

    def references(self) -> dict[str, str]:
        """Every reference → commit."""
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname)").stdout.decode().splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def log(self, commit: str, count: int = 1000) -> Iterator[tuple[str, str, str, str]]:
        """``(commit, title, author, ISO date)``, newest first."""
        form = "--format=%H%x00%s%x00%an%x00%cI"
        for line in self._git("log", f"-{count}", form, commit).stdout.decode("utf-8", "replace").splitlines():
            oid, title, author, date = line.split("\0")
            yield oid, title, author, date

    def _git(
        self,
        *arguments: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        anywhere: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        where = [] if anywhere else ["--git-dir", str(self.folder)]
        base = {
            **os.environ,
            "GIT_AUTHOR_NAME": "easyteacache-hub",
            "GIT_AUTHOR_EMAIL": "hub@localhost",
            **_ENVIRONMENT,
        }
        done = subprocess.run(
            ["git", *where, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            env={**base, **(environment or {})},
        )
        if check and done.returncode:
            reason = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise HubError(self.folder.name, f"git {arguments[0]} failed: {reason}")
        return done
