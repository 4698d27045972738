"""A file is written whole or not at all, whatever fails and whenever the process dies."""

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from easyteacache.files import atomic_write

posix_only = pytest.mark.skipif(os.name == "nt", reason="permissions and signals as on POSIX")
# Writes numbered files without end; each is large enough that the write takes several system calls.
WRITER = """
import json, sys
from easyteacache.files import atomic_write
number = 0
while True:
    number += 1
    atomic_write.write_text(sys.argv[1], json.dumps({"number": number, "filler": ["x" * 64] * (number % 7 * 3000)}))
    if number == 1:
        print("ready", flush=True)
"""


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "record.json"
    path.write_text("old")
    return path


def test_the_new_content_replaces_the_old(target):
    atomic_write.write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


def test_text_is_written_as_utf8_without_translating_line_ends(target):
    atomic_write.write_text(str(target), "ü\n模型\r\n")
    assert target.read_bytes() == "ü\n模型\r\n".encode()


def test_missing_folders_are_made(tmp_path):
    atomic_write.write_bytes(tmp_path / "a" / "b" / "c.json", b"x")
    assert (tmp_path / "a" / "b" / "c.json").read_bytes() == b"x"


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(target, monkeypatch, call, failure):
    def fail(*_):
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(failure)):
        atomic_write.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_before_the_first_byte_leaves_no_file_at_all(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        atomic_write.write_text(tmp_path / "record.json", "\ud800")
    with pytest.raises(TypeError):
        atomic_write.write_bytes(tmp_path / "record.json", "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("module", "call"), [("os", "fsync"), ("os", "open"), ("os", "replace"), ("os", "fdopen")])
def test_a_failure_names_the_file_that_was_to_be_written(target, monkeypatch, module, call):
    """A full disk names no file at all, and who reads a temporary file's name does not know what to do."""

    def full(*arguments, **_):
        names = [one for one in arguments if isinstance(one, os.PathLike)]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *(os.fspath(one) for one in names[:1]))

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{call}", full)
        with pytest.raises(OSError, match="No space left") as caught:
            atomic_write.write_bytes(target, b"new")
    assert str(caught.value) == f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: {str(target)!r}"
    folder = target.parent / "folder"
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            atomic_write.fill_folder(folder, {"a/b.json": b"x"})
    assert caught.value.filename == str(folder / "a" / "b.json")


def test_a_failed_cleanup_does_not_hide_the_failure(target, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="No space left"):
        atomic_write.write_bytes(target, b"new")


def test_the_data_is_on_disk_before_the_name_and_the_name_before_the_return(target, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    atomic_write.write_bytes(target, b"new")
    assert calls[:2] == ["fsync", "replace"]
    assert calls[2:] == ([] if os.name == "nt" else ["fsync"])


@posix_only
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444])
def test_the_permissions_of_an_existing_file_are_kept(target, mode):
    target.chmod(mode)
    atomic_write.write_bytes(target, b"new")
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.read_bytes() == b"new"


@posix_only
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        atomic_write.write_bytes(tmp_path / "record.json", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "record.json").stat().st_mode) == mode


@posix_only
def test_a_private_file_is_never_readable_by_others_on_the_way(target, monkeypatch):
    seen = []
    target.chmod(0o600)
    fsync = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: (seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode)), fsync(descriptor)),
    )
    atomic_write.write_bytes(target, b"secret")
    assert seen[0] == 0o600


@posix_only
def test_a_symbolic_link_is_replaced_and_what_it_points_to_is_left_alone(target):
    link = target.with_name("link.json")
    link.symlink_to(target)
    atomic_write.write_bytes(link, b"new")
    assert (link.read_bytes(), link.is_symlink()) == (b"new", False)
    assert target.read_bytes() == b"old"


def test_the_longest_file_name_can_be_written(tmp_path):
    path = tmp_path / ("a" * 250 + ".json")
    atomic_write.write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_folder_in_the_way_is_an_error_that_leaves_nothing_behind(tmp_path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(OSError):
        atomic_write.write_bytes(tmp_path / "record.json", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_several_writers_at_once_leave_one_whole_file(target):
    contents = [bytes([65 + n]) * 50_000 for n in range(4)]
    writers = [
        threading.Thread(target=lambda content=content: [atomic_write.write_bytes(target, content) for _ in range(10)])
        for content in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert target.read_bytes() in (b"old", *contents)
    assert target.read_bytes() in contents
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.slow
@posix_only
def test_a_process_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "record.json"
    moments = random.Random(7)
    numbers = []
    for _ in range(30):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0, 0.03))
            writer.send_signal(signal.SIGKILL)
        content = json.loads(path.read_bytes())
        assert len(content["filler"]) == content["number"] % 7 * 3000
        numbers.append(content["number"])
    assert len(set(numbers)) > 1
    # What the killed processes left can be told from everything else, and is at most one file each.
    left = [found.name for found in tmp_path.iterdir() if found != path]
    assert len(left) <= 30
    assert all(
        name.startswith(atomic_write.TEMPORARY_PREFIX) and name.endswith(atomic_write.TEMPORARY_SUFFIX) for name in left
    )
