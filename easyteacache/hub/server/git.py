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
# No question to git takes this long.
GIT_SECONDS = 300
PIECE = 1 << 16
# A listing of about 200,000 files.
LISTING = 16 * 1024 * 1024
COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"(?!.*\.\.)(?!.*//)[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
# No control character, no backslash, nothing that turns the direction of what follows.
_FILE_PATH = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\\]{1,400}")
_FOUND = re.compile(rb"([0-9a-f]{40,64}) (blob|tree|commit|tag) ([0-9]+)\n")
# The server's own identity and no settings of the machine: the same content gives the same objects everywhere. Names that
# other systems take for ".git" are refused, and folders that belong to another user are served.
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_CONFIG_COUNT": "3",
    "GIT_CONFIG_KEY_0": "core.protectHFS",
    "GIT_CONFIG_VALUE_0": "true",
    "GIT_CONFIG_KEY_1": "core.protectNTFS",
    "GIT_CONFIG_VALUE_1": "true",
    "GIT_CONFIG_KEY_2": "safe.directory",
    "GIT_CONFIG_VALUE_2": "*",
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


def environment(**more: str) -> dict[str, str]:
    """What a git process of this server sees: nothing that steers git comes from the machine's own environment."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **_ENVIRONMENT,
        **more,
    }


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

    def create(self, *, private: bool = False) -> None:
        """Make the repository with one empty commit on main, so that requests have a base; appears whole or not at all."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".new-") as scratch:
            new = GitRepository(Path(scratch, "repository"))
            new._git("init", "--quiet", "--bare", "--initial-branch=main", str(new.folder), anywhere=True)
            new.move(MAIN, new.commit(None, {}, "Initial commit", "easyteacache-hub"), None)
            if private:
                (new.folder / "private").touch()
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
        """Files and folders below ``path``; none where it is no folder.

        Raises:
            HubError: there are more than can be listed.
        """
        options = ["-r", "-t"] if recursive else []
        for line in self._listed("ls-tree", "-z", "-l", *options, f"{commit}:{path}").split(b"\0")[:-1]:
            about, _, name = line.partition(b"\t")
            _, kind, oid, size = about.decode().split()
            full = "/".join(filter(None, (path, name.decode("utf-8", "replace"))))
            yield TreeEntry(kind, oid, 0 if size == "-" else int(size), full)

    def _listed(self, *arguments: str) -> bytes:
        """What git lists, up to a bound; nothing where it fails."""
        command = ["git", "--git-dir", str(self.folder), *arguments]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        assert process.stdout is not None
        try:
            listing = process.stdout.read(LISTING + 1)
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
        if len(listing) > LISTING:
            raise HubError(self.folder.name, f"this lists more files than fit into {LISTING >> 20} MiB")
        return listing

    def entry(self, commit: str, path: str) -> TreeEntry | None:
        """The file or folder at ``path``, or None."""
        if not safe_path(path):
            return None
        found = self._asked("info", f"{commit}:{path}")
        if found is None or found[1] not in ("blob", "tree"):
            return None
        return TreeEntry(found[1], found[0], found[2] if found[1] == "blob" else 0, path)

    def read(self, commit: str, path: str) -> tuple[str, bytes] | None:
        """``(object id, content)`` of a file, or None."""
        if not safe_path(path):
            return None
        found = self._asked("contents", f"{commit}:{path}")
        return None if found is None or found[1] != "blob" else (found[0], found[3])

    def pieces(self, oid: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes ``start`` to ``stop`` of a file, without holding it; close the iterator to end early."""
        command = ["git", "--git-dir", str(self.folder), "cat-file", "blob", oid]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        assert process.stdout is not None
        try:
            position = 0
            while position < stop and (piece := process.stdout.read(min(PIECE, stop - position))):
                after = position + len(piece)
                if after > start:
                    yield piece[max(0, start - position) :]
                position = after
        finally:
            process.stdout.close()
            process.kill()
            process.wait()

    def _asked(self, question: str, name: str) -> tuple[str, str, int, bytes] | None:
        """Ask a git process that stays: starting one for every file costs more than the file."""
        with self._lock:
            for last in (False, True):
                try:
                    return self._ask(question, name)
                except OSError as error:
                    self._end()
                    if last:
                        raise HubError(self.folder.name, "cannot be read now") from error
        raise AssertionError("unreachable")

    def _ask(self, question: str, name: str) -> tuple[str, str, int, bytes] | None:
        """``(object id, kind, size, content)``; None for what is not there."""
        if self._reader is None or self._reader.poll() is not None:
            self._end()
            self._reader = subprocess.Popen(
                ["git", "--git-dir", str(self.folder), "cat-file", "--batch-command"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
        assert self._reader.stdin is not None
        assert self._reader.stdout is not None
        self._reader.stdin.write(f"{question} {name}\n".encode())
        self._reader.stdin.flush()
        line = self._reader.stdout.readline()
        # A name with a space would look like an answer to who only counts the words of "NAME missing".
        match = _FOUND.fullmatch(line)
        if match is None:
            if not line.endswith(b" missing\n") and not line.endswith(b" ambiguous\n"):
                raise BrokenPipeError(f"git said {line[:80]!r}")
            return None
        oid, kind, size = match[1].decode(), match[2].decode(), int(match[3])
        data = b""
        if question == "contents":
            data = self._reader.stdout.read(size)
            if len(data) < size or self._reader.stdout.read(1) != b"\n":
                raise BrokenPipeError("git ended in the middle of a file")
        return oid, kind, size, data

    def close(self) -> None:
        """End the reading process; the next question starts another one."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._reader is not None:
            self._reader.kill()
            with contextlib.suppress(OSError, ValueError):
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
                self._git("read-tree", parent, more=own)
            stored = self._store({path: data for path, data in changes.items() if data is not None}, Path(scratch))
            lines = [
                f"100644 {stored[path]}\t{path}" if path in stored else f"0 {'0' * 40}\t{path}" for path in changes
            ]
            done = self._git("update-index", "-z", "--index-info", stdin="\0".join([*lines, ""]).encode(), more=own)
            if b"Ignoring path" in done.stderr:
                raise HubError(self.folder.name, "a file has a name that some system takes for git's own folder")
            tree = self._git("write-tree", more=own).stdout.decode().strip()
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
        done = self._git("commit-tree", tree, *options, stdin=message.encode(), more=identity)
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

    def remove(self, reference: str) -> None:
        """Delete ``reference``; its commits stay where other references lead to them.

        Raises:
            HubError: it cannot be deleted now.
        """
        self._git("update-ref", "-d", reference)

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
        lines = (
            self._git("for-each-ref", "--format=%(refname) %(objectname)").stdout.decode("utf-8", "replace").split("\n")
        )
        return dict(line.rsplit(" ", 1) for line in lines if line)

    def log(self, commit: str, count: int = 1000, *, skip: int = 0) -> Iterator[tuple[str, str, str, str]]:
        """``(commit, title, author, ISO date)``, newest first, without the ``skip`` newest ones."""
        # Parts end with a zero byte, which no part can hold; what else ends a line is up to who wrote the title.
        form = "--format=%H%x00%s%x00%an%x00%cI"
        listing = self._git("log", "-z", f"-{count}", f"--skip={skip}", form, commit).stdout.decode("utf-8", "replace")
        parts = iter(listing.split("\0"))
        yield from zip(parts, parts, parts, parts, strict=False)

    def _git(
        self,
        *arguments: str,
        stdin: bytes = b"",
        more: Mapping[str, str] | None = None,
        check: bool = True,
        anywhere: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        where = [] if anywhere else ["--git-dir", str(self.folder)]
        own = {"GIT_AUTHOR_NAME": "easyteacache-hub", "GIT_AUTHOR_EMAIL": "hub@localhost", **(more or {})}
        try:
            done = subprocess.run(
                ["git", *where, *arguments],
                input=stdin,
                capture_output=True,
                check=False,
                env=environment(**own),
                timeout=GIT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise HubError(self.folder.name, f"git {arguments[0]} took more than {GIT_SECONDS} s") from error
        if check and done.returncode:
            reason = done.stderr.decode("utf-8", "replace").strip()[:300]
            raise HubError(self.folder.name, f"git {arguments[0]} failed: {reason}")
        return done
