"""What nobody can do to a served hub: every request ends in an answer, and what one client holds is bounded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError

from easyteacache.hub.server import bounds
from easyteacache.hub.server.git import GitRepository
from easyteacache.hub.server.http_server import HubServer
from easyteacache.hub.server.pull_requests import Discussions
from easyteacache.hub.server.tokens import Tokens

from .hub_process import TOKENS, HubProcess, write_tokens
from .raw import Said, open_socket, parse, request, send

DATASET = {"repo_type": "dataset"}


def say(hub: HubProcess, method: str, path: str, who: str | None = None, **options: Any) -> Said:
    found = send(hub.endpoint, request(method, path, token=TOKENS[who] if who else None, **options), method=method)
    assert found is not None, "no answer"
    return found


def propose(hub: HubProcess, repository: str, who: str = "contributor", **fields: Any) -> Said:
    """Open a request by hand."""
    header = {"summary": "A title", "description": "", **fields}
    lines = [{"key": "header", "value": header}, {"key": "file", "value": {"path": "a", "content": "b25l"}}]
    body = "\n".join(map(json.dumps, lines)).encode()
    return say(hub, "POST", f"/api/datasets/{repository}/commit/main?create_pr=1", who, body=body)


# Requests that are no requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/datasets/{}/resolve/main/x%20blob", None, 404),
        ("GET", "/datasets/{}/resolve/main/x%20blob%207", None, 404),
        ("HEAD", "/datasets/{}/resolve/main/a%20missing", None, 404),
        ("POST", "/api/datasets/{}/paths-info/main", b'{"paths":5}', 400),
        ("POST", "/api/datasets/{}/paths-info/main", b'{"paths":[5]}', 400),
        ("POST", "/api/datasets/{}/paths-info/main", b'{"paths":{}}', 400),
        ("POST", "/api/datasets/{}/paths-info/main", b"[[]]", 400),
        ("POST", "/api/datasets/{}/paths-info/main", b"null", 200),
        ("POST", "/api/datasets/{}/paths-info/main", b"paths=%FF%00", 200),
        ("POST", "/api/datasets/{}/paths-info/main", b"a&" * 9000 + b"b=1&" * 9000, 413),
        ("GET", "/api/datasets/{}/discussions?p=%C2%B2", None, 400),
        ("GET", "/api/datasets/{}/discussions?p=" + "1" * 5000, None, 400),
        ("GET", "/api/datasets/{}/discussions?p=-1", None, 400),
        ("GET", "/api/datasets/{}/commits/main?p=%C2%B2", None, 400),
        ("GET", "/api/datasets/{}?" + "a=1&" * 200, None, 400),
        ("GET", "/api/datasets/{}/discussions/" + "9" * 5000, None, 404),
        ("GET", "/api/datasets/{}/revision/" + "9" * 5000, None, 404),
        ("GET", "/api/datasets/{}/revision/%00", None, 404),
        ("GET", "/api/datasets/{}/revision/%FF%FE", None, 404),
        ("GET", "/api/datasets/{}/tree/main/absent", None, 404),
        ("GET", "/api/datasets/{}/tree/main/a%00b", None, 404),
        ("GET", "http://[/x", None, 400),
        ("GET", "//[", None, 404),
        ("GET", "*", None, 404),
        ("GET", "/" + "x" * 65_600, None, 414),
        ("POST", "/api/validate-yaml", b"\xff\xff", 200),
    ],
)
def test_what_no_client_sends_is_answered_with_a_sentence(
    method: str, path: str, body: bytes | None, status: int, hub_process: HubProcess, repository: str
) -> None:
    said = say(hub_process, method, path.format(repository), body=body)
    assert said.status == status
    if status >= 400 and method != "HEAD":
        assert len(said.sentence) > 10
    assert say(hub_process, "GET", f"/api/datasets/{repository}").status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\nGET /api/whoami-v2 HTTP/1.1\r\nConnection: close\r\n\r\n", 401),
        (b"\r\n\r\n\r\n\r\n", 400),
        (b" \r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"POST /\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET / HTTP/\xb2.\xb2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 70_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"BREW /pot HTTP/1.1\r\nConnection: close\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nContent-Length: \xc2\xb2\r\n\r\n", 400),
        (b"POST /api/validate-yaml HTTP/1.1\r\nContent-Length: 1" + b"0" * 30 + b"\r\n\r\n", 411),
        (b"POST /api/validate-yaml HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /api/validate-yaml HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 411),
        (b"POST /api/validate-yaml HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /api/validate-yaml HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", 400),
        (b"GET /api/whoami-v2 HTTP/1.1\r\nAuthorization: Basic \xff\xff\r\nConnection: close\r\n\r\n", 401),
        (b"GET /api/whoami-v2 HTTP/1.1\r\nAuthorization: Bearer\r\nConnection: close\r\n\r\n", 401),
    ],
)
def test_what_is_no_http_is_answered_with_a_sentence(data: bytes, status: int, hub_process: HubProcess) -> None:
    said = send(hub_process.endpoint, data)
    assert said is not None
    assert said.status == status
    assert len(said.sentence) > 10


def test_several_requests_of_one_connection_are_answered_in_their_order(
    hub_process: HubProcess, repository: str
) -> None:
    one = request("GET", f"/api/datasets/{repository}/refs", Connection="keep-alive")
    with open_socket(hub_process.endpoint) as connection:
        connection.sendall(one + request("GET", "/api/nothing"))
        data = bytearray()
        while piece := connection.recv(1 << 16):
            data += piece
    assert [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+)", bytes(data))] == [200, 404]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
def test_a_method_that_is_not_served_is_501_and_says_which_are(
    method: str, hub_process: HubProcess, repository: str
) -> None:
    said = say(hub_process, method, f"/api/datasets/{repository}/refs", "maintainer")
    assert said.status == 501
    assert "only GET" in said.sentence
    assert said.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/api/models/team/x", "dataset repositories only"),
        ("GET", "/team/x/resolve/main/config.json", "dataset repositories only"),
        ("DELETE", "/api/repos/delete", "removes its folder"),
        ("POST", "/api/repos/move", "renames its folder"),
        ("PUT", "/api/datasets/{}/settings", "`private` or `gated`"),
        ("POST", "/datasets/{}.git/info/lfs/objects/batch", "inside the commit"),
        ("GET", "/api/datasets/{}/xet-write-token/main", "inside the commit"),
        ("POST", "/datasets/{}/git-receive-pack", "easyteacache-hub push"),
        ("GET", "/datasets/{}/info/refs?service=git-receive-pack", "easyteacache-hub push"),
        ("GET", "/datasets/{}/info/refs", "smart protocol"),
        ("POST", "/api/datasets/{}/super-squash/main", "stay what they are"),
        ("POST", "/api/datasets/{}/discussions/1/title", "another comment"),
        ("POST", "/api/datasets/{}/discussions", "only GET"),
        ("GET", "/api/datasets?search=x", "pull --dry-run"),
        ("GET", "/api/users/ada/overview", "token file"),
    ],
)
def test_what_the_hub_has_and_this_server_has_not_is_501_with_a_way_out(
    method: str, path: str, reason: str, hub_process: HubProcess, repository: str
) -> None:
    said = say(hub_process, method, path.format(repository), "maintainer")
    assert said.status == 501
    assert reason in said.sentence


# Bodies and connections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "who", "status"),
    [
        ("/api/datasets/{}/commit/main", None, 401),
        ("/api/datasets/{}/commit/main", "reader", 403),
        ("/api/datasets/{}/discussions/1/comment", None, 401),
        ("/api/repos/create", "contributor", 403),
        ("/api/datasets/{}/paths-info/main", None, 413),
        ("/api/datasets/absent/absent/commit/main", "contributor", 404),
        ("/api/nothing", None, 404),
    ],
)
def test_a_body_is_not_read_before_it_is_known_who_sends_it(
    path: str, who: str | None, status: int, hub_process: HubProcess, repository: str
) -> None:
    """The head alone: whoever waited for the 200 MB that it promises would not answer."""
    head = request("POST", path.format(repository), token=TOKENS[who] if who else None, Content_Length="200000000")
    with open_socket(hub_process.endpoint) as connection:
        connection.sendall(head)
        data = connection.recv(1 << 16)
    assert parse(data).status == status


def test_a_client_that_asks_before_it_sends_is_told_first(hub_process: HubProcess, repository: str) -> None:
    path = f"/api/datasets/{repository}/commit/main"
    with open_socket(hub_process.endpoint) as connection:
        connection.sendall(request("POST", path, Content_Length="1000", Expect="100-continue"))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")
    with open_socket(hub_process.endpoint) as connection:
        connection.sendall(
            request("POST", path, token=TOKENS["contributor"], Content_Length="2", Expect="100-continue")
        )
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


def resident(process: int) -> int:
    """Bytes of memory of a process now."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_anonymous_bodies_do_not_fill_the_memory(tmp_path: Path) -> None:
    with_own = HubProcess(tmp_path / "hub").start()
    try:
        name = with_own.new_repository()
        assert with_own.process is not None
        before = resident(with_own.process.pid)
        sockets = [open_socket(with_own.endpoint) for _ in range(16)]
        for connection in sockets:
            head = request("POST", f"/api/datasets/{name}/commit/main", Content_Length="100000000")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(head + b"x" * (8 << 20))
        grown = resident(with_own.process.pid) - before
        for connection in sockets:
            connection.close()
        assert grown < 64 << 20, f"{grown >> 20} MiB more"
    finally:
        with_own.stop()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server in this process with few connections."""
    monkeypatch.setattr(bounds, "CONNECTIONS", 4)
    monkeypatch.setattr(bounds, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(bounds, "GRACE_SECONDS", 0.3)
    write_tokens(tmp_path / "tokens.json")
    lines: list[str] = []
    tokens = Tokens.load(tmp_path / "tokens.json")
    with HubServer(("127.0.0.1", 0), tmp_path / "hub", tokens=tokens, log=lines.append) as server:
        server.lines = lines  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_connection_that_says_nothing_gives_its_place_to_the_next(small: HubServer) -> None:
    silent = [open_socket(small.endpoint) for _ in range(4)]
    time.sleep(1.1)
    said = send(small.endpoint, request("GET", "/api/whoami-v2"))
    assert said is not None
    assert said.status == 401
    assert silent[0].recv(1) == b""
    for connection in silent:
        connection.close()


def test_more_connections_than_are_taken_are_told_so(small: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = threading.Event()
    real = small.service.begin

    def slowly(head: Any) -> Any:
        busy.wait(30)
        return real(head)

    monkeypatch.setattr(small.service, "begin", slowly)
    working = [open_socket(small.endpoint) for _ in range(4)]
    for connection in working:
        connection.sendall(request("GET", "/api/whoami-v2"))
    found = None
    for _ in range(50):
        found = send(small.endpoint, request("GET", "/x"))
        if found is not None and found.status == 503:
            break
    assert found is not None
    assert found.status == 503
    assert b"as many connections as it takes" in found.content
    busy.set()
    for connection in working:
        connection.close()


def test_a_head_or_a_body_that_never_ends_is_given_up(small: HubServer) -> None:
    with open_socket(small.endpoint) as connection:
        connection.sendall(b"GET /api/whoami-v2 HTTP/1.1\r\n")
        assert parse(connection.recv(1 << 16)).status == 408
    head = request("POST", "/api/validate-yaml", Content_Length="100")
    with open_socket(small.endpoint) as connection:
        connection.sendall(head + b"x")
        assert parse(connection.recv(1 << 16)).status == 408


def test_an_error_that_nobody_thought_of_is_an_answer_and_one_line_of_the_log(
    small: HubServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise LookupError("secret inside\nGET /forged")

    monkeypatch.setattr(small.service, "begin", fail)
    said = send(small.endpoint, request("GET", "/api/whoami-v2"))
    assert said is not None
    assert said.status == 500
    assert "secret" not in said.sentence
    lines: list[str] = small.lines  # type: ignore[attr-defined]
    assert any("LookupError: secret inside\\nGET /forged" in line for line in lines)
    assert not any("\n" in line for line in lines)
    assert capfd.readouterr().err == ""


# What is written ------------------------------------------------------------------------------------------------------

CONTROLS = ["\u2028", "\u0085", "\f", "\v", "\x1c", "\r", "\n", "\0", "\x1b[2J", "\u202e", "\x7f", "\u2066"]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_title_holds_no_control_characters(control: str, hub_process: HubProcess, repository: str) -> None:
    said = propose(hub_process, repository, summary=f"A {control} title")
    assert said.status == 400
    assert f"the control character U+{ord(control[0]):04X}" in said.sentence


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"summary": ""}, 400),
        ({"summary": "   "}, 400),
        ({"summary": 5}, 400),
        ({"summary": "x" * 301}, 400),
        ({"summary": "€" * 301}, 400),
        ({"description": "x" * (256 * 1024 + 1)}, 413),
        ({"description": "a\x00b"}, 400),
        ({"description": "a\u2028b"}, 400),
        ({"description": None}, 400),
        ({"parentCommit": "main"}, 400),
        ({"parentCommit": "0" * 40}, 404),
        ({"summary": "Grüße 🙂", "description": "two\r\nlines\tand a tab"}, 200),
    ],
)
def test_titles_and_descriptions_are_bounded(
    fields: dict[str, Any], status: int, hub_process: HubProcess, repository: str
) -> None:
    said = propose(hub_process, repository, **fields)
    assert said.status == status, said.content


@pytest.mark.parametrize("control", [*CONTROLS[:6], "\u001d"])
def test_a_title_that_git_brought_does_not_break_the_history(
    control: str, hub_process: HubProcess, repository: str
) -> None:
    """A commit may also come by git itself, on the server's disk."""
    git = GitRepository(hub_process.folder / "datasets" / f"{repository}.git")
    head = git.resolve("main")
    git.move("refs/heads/main", git.commit(head, {"a": b"x"}, f"One {control} title", "somebody"), head)
    commits = hub_process.api().list_repo_commits(repository, **DATASET)
    assert len(commits) == 2
    assert commits[0].title.startswith("One ")
    assert [title for _, title, _, _ in git.log(git.resolve("main") or "")][1] == "Initial commit"


def test_no_comments_lock_the_others_out(hub_process: HubProcess, repository: str) -> None:
    theirs, ours = hub_process.api("contributor"), hub_process.api()
    assert propose(hub_process, repository, summary="One").status == 200
    assert propose(hub_process, repository, "maintainer", summary="Two").status == 200
    refused = 0
    for number in range(60):
        size = 65_000 if number < 10 else 5_000
        try:
            theirs.comment_discussion(repository, 1, "€" * size, **DATASET)
        except HfHubHTTPError as error:
            refused += error.response.status_code in (413, 429)
    assert refused == 10 + (50 - bounds.COMMENTS) + 1
    page = hub_process.folder / "datasets" / f"{repository}.git" / "requests" / "1.json"
    assert page.stat().st_size < bounds.PAGE
    assert {one.num for one in ours.get_repo_discussions(repository, **DATASET)} == {1, 2}
    assert len(ours.get_discussion_details(repository, 1, **DATASET).events) == bounds.COMMENTS
    ours.merge_pull_request(repository, 1, **DATASET)
    ours.merge_pull_request(repository, 2, **DATASET)


def test_one_damaged_request_hinders_nobody_else(hub_process: HubProcess, repository: str) -> None:
    ours = hub_process.api()
    for title in ("One", "Two", "Three"):
        assert propose(hub_process, repository, summary=title).status == 200
    folder = hub_process.folder / "datasets" / f"{repository}.git" / "requests"
    (folder / "1.json").write_text("{")
    (folder / "3.json").write_text('{"num": 3}')
    assert [one.title for one in ours.get_repo_discussions(repository, **DATASET)] == ["Two"]
    ours.merge_pull_request(repository, 2, **DATASET)
    said = say(hub_process, "GET", f"/api/datasets/{repository}/discussions/1")
    assert said.status == 404
    said = say(hub_process, "POST", f"/api/datasets/{repository}/discussions/1/merge", "maintainer", body=b"{}")
    assert said.status == 404


def test_a_page_that_an_older_server_let_grow_is_still_read(hub_process: HubProcess, repository: str) -> None:
    """What was the fault: 45 comments of 65,000 "€" made a page that nothing read any more."""
    assert propose(hub_process, repository, summary="One").status == 200
    path = hub_process.folder / "datasets" / f"{repository}.git" / "requests" / "1.json"
    page = json.loads(path.read_text())
    event = page["events"][0]
    page["events"] = [{**event, "data": {**event["data"], "latest": {"raw": "€" * 65_000}}} for _ in range(45)]
    path.write_text(json.dumps(page, ensure_ascii=False))
    assert path.stat().st_size > 8 << 20
    ours = hub_process.api()
    assert [one.num for one in ours.get_repo_discussions(repository, **DATASET)] == [1]
    ours.merge_pull_request(repository, 1, **DATASET)


def test_a_contributor_has_a_bounded_number_of_open_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = GitRepository(tmp_path / "x.git")
    git.create()
    head = git.resolve("main") or ""
    requests = Discussions(git, "team/x")
    monkeypatch.setattr(bounds, "OPEN_REQUESTS", 3)
    monkeypatch.setattr(bounds, "REQUESTS", 5)
    for number in range(3):
        requests.require_room("ada", bounded=True)
        requests.open(head, f"{number}", "", "ada")
    with pytest.raises(Exception, match="3 open pull requests, and 3 is the most"):
        requests.require_room("ada", bounded=True)
    requests.require_room("grace", bounded=True)
    requests.require_room("ada", bounded=False)
    for number in (1, 2, 3):
        requests.set_status(number, "ada", "closed", bounded=True)
    for number in (4, 5):
        requests.require_room("ada", bounded=True)
        requests.open(head, f"{number}", "", "ada")
        requests.set_status(number, "ada", "closed", bounded=True)
    with pytest.raises(Exception, match="the most that one contributor may"):
        requests.require_room("ada", bounded=True)
    assert len(list(requests.summaries())) == 5


def test_closing_and_opening_again_is_bounded_for_contributors_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = GitRepository(tmp_path / "x.git")
    git.create()
    requests = Discussions(git, "team/x")
    monkeypatch.setattr(bounds, "EVENTS", 6)
    requests.open(git.resolve("main") or "", "One", "", "ada")
    for turn in range(5):
        requests.set_status(1, "ada", ("closed", "open")[turn % 2], bounded=True)
    with pytest.raises(Exception, match="6 events: open another one"):
        requests.set_status(1, "ada", "open", bounded=True)
    requests.set_status(1, "grace", "open", bounded=False)
    assert requests.merge(1, "grace") == git.resolve("main")


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ({"key": "file", "value": {"path": "a", "content": "%%%"}}, 400, "base64"),
        ({"key": "file", "value": {"path": "a", "content": 5}}, 400, "base64"),
        ({"key": "file", "value": {"path": "a", "content": "YQ==", "encoding": "utf-8"}}, 400, "base64"),
        ({"key": "file", "value": {"path": "a\u202eb", "content": ""}}, 400, "cannot be a file name"),
        ({"key": "file", "value": {"path": 5, "content": ""}}, 400, "cannot be a file name"),
        ({"key": "file", "value": []}, 400, "has a value"),
        ({"key": "file"}, 400, "has a value"),
        ({"key": "lfsFile", "value": {"path": "a", "algo": "sha256", "oid": "0" * 64}}, 501, "no large-file storage"),
        ({"key": "copyFile", "value": {"path": "a"}}, 501, "files and deletions only"),
        ({"key": "deletedFolder", "value": {"path": "../x"}}, 400, "cannot be a file name"),
        ({"key": "header", "value": {}}, 501, "files and deletions only"),
        ({"key": ["file"], "value": {}}, 501, "files and deletions only"),
        ([], 400, "not a JSON object"),
        ({"key": "file", "value": {"path": ".git\u200c/x", "content": ""}}, 400, ""),
    ],
)
def test_a_line_of_a_commit_that_makes_no_sense_is_refused_and_nothing_is_stored(
    line: Any, status: int, reason: str, hub_process: HubProcess, repository: str
) -> None:
    lines = [{"key": "header", "value": {"summary": "x"}}, line]
    body = "\n".join(map(json.dumps, lines)).encode()
    said = say(hub_process, "POST", f"/api/datasets/{repository}/commit/main", "maintainer", body=body)
    assert said.status == status, said.content
    assert reason in said.sentence
    assert hub_process.api().list_repo_files(repository, **DATASET) == []


@pytest.mark.parametrize(
    ("files", "status"),
    [
        (5, 400),
        ({}, 400),
        ([5], 400),
        ([{}], 400),
        ([{"path": "a", "size": "x"}], 413),
        ([{"path": "a", "size": 1 << 40}], 413),
    ],
)
def test_a_question_how_to_send_files_that_makes_no_sense_is_refused(
    files: Any, status: int, hub_process: HubProcess, repository: str
) -> None:
    body = json.dumps({"files": files}).encode()
    said = say(hub_process, "POST", f"/api/datasets/{repository}/preupload/main", "contributor", body=body)
    assert said.status == status
    assert len(said.sentence) > 10


def test_a_name_that_holds_a_file_and_a_folder_is_refused(hub_process: HubProcess, repository: str) -> None:
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "file", "value": {"path": "a", "content": ""}},
        {"key": "file", "value": {"path": "a/b", "content": ""}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    said = say(hub_process, "POST", f"/api/datasets/{repository}/commit/main", "maintainer", body=body)
    assert said.status in (200, 400)
    assert say(hub_process, "GET", f"/api/datasets/{repository}").status == 200


def test_a_disk_that_is_nearly_full_takes_nothing_more(small: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    create = json.dumps({"name": "x", "organization": "team", "type": "dataset"}).encode()
    assert send(small.endpoint, request("POST", "/api/repos/create", token=TOKENS["maintainer"], body=create))
    monkeypatch.setattr(bounds, "FREE_DISK", 1 << 62)
    said = send(
        small.endpoint, request("POST", "/api/datasets/team/x/commit/main", token=TOKENS["contributor"], body=b"{}")
    )
    assert said is not None
    assert said.status == 507


# What is shown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "a b", "127.0.0.1:1", "", "x" * 5000, "\x1b[2J"])
def test_links_lead_to_this_server_whatever_the_request_calls_it(
    host: str, hub_process: HubProcess, repository: str
) -> None:
    header = {"summary": "x"}
    lines = [{"key": "header", "value": header}, {"key": "file", "value": {"path": "a", "content": "b25l"}}]
    body = "\n".join(map(json.dumps, lines)).encode()
    path = f"/api/datasets/{repository}/commit/main"
    said = say(hub_process, "POST", path, "maintainer", body=body, Host=host)
    assert said.status == 200
    assert json.loads(said.content)["commitUrl"].startswith(f"{hub_process.endpoint}/datasets/")


def test_links_use_the_name_that_a_client_knows_this_machine_by_or_the_one_that_is_given(tmp_path: Path) -> None:
    with HubServer(("127.0.0.1", 0), tmp_path) as server:
        port = server.server_address[1]
        reached = ("127.0.0.1", port)
        assert server.origin(f"localhost:{port}", reached) == f"http://localhost:{port}"
        assert server.origin(f"LOCALHOST:{port}", reached) == f"http://localhost:{port}"
        assert server.origin(f"evil:{port}", reached) == f"http://127.0.0.1:{port}"
        assert server.origin(None, reached) == f"http://127.0.0.1:{port}"
    with HubServer(("127.0.0.1", 0), tmp_path, url="https://hub.example/") as server:
        assert server.origin("evil", ("127.0.0.1", 1)) == server.endpoint == "https://hub.example"


def test_the_log_of_a_server_shows_escape_sequences_and_does_not_send_them(tmp_path: Path) -> None:
    arguments = ["-m", "easyteacache.cli.hub", "serve", str(tmp_path), "--port", "0", "--verbose"]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().decode().split(" at ")[1].split(";")[0]
        send(endpoint, b"GET /\x1b]0;owned\x07\xc2\x9b31m HTTP/1.1\r\nConnection: close\r\n\r\n")
    finally:
        process.terminate()
        _, log = process.communicate()
    assert b"\\x1b]0;owned\\x07" in log
    assert not any(byte in log for byte in (b"\x1b", b"\x07", b"\x9b"))


def test_the_page_lists_the_bounds_and_what_is_not_served() -> None:
    from easyteacache.hub.server.unserved import UNSERVED

    page = (Path(__file__).resolve().parents[2] / "docs" / "hub.md").read_text(encoding="utf-8")
    for one in UNSERVED:
        assert f"| {one.what} | {one.instead} |" in page
    rows = {
        "connections at one time": f"{bounds.CONNECTIONS}",
        "a body without a token": f"{bounds.ANONYMOUS_BODY >> 10} KiB",
        "a commit": f"{bounds.COMMIT_BODY >> 20} MiB",
        "one file": f"{bounds.FILE >> 20} MiB",
        "all bodies at one time": f"{bounds.BODIES_AT_ONCE >> 20} MiB",
        "a title": f"{bounds.TITLE_CHARACTERS} characters",
        "a description": f"{bounds.DESCRIPTION >> 10} KiB",
        "a comment": f"{bounds.COMMENT >> 10} KiB",
        "comments of one contributor on one request": f"{bounds.COMMENTS}",
        "open requests of one contributor": f"{bounds.OPEN_REQUESTS}",
        "requests of one contributor": f"{bounds.REQUESTS}",
        "paths in one question": f"{bounds.PATHS}",
        "clones at one time": f"{bounds.CLONES_AT_ONCE}",
    }
    for what, most in rows.items():
        assert f"| {what} | {most} |" in page


def test_many_clients_at_once_are_all_answered(hub_process: HubProcess, repository: str) -> None:
    path = f"/api/datasets/{repository}/refs"
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda _: say(hub_process, "GET", path).status, range(200)))
    assert set(found) <= {200, 503}
    assert found.count(200) > 150
