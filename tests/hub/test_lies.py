"""A hub that lies: nothing it says becomes a path, carries the token elsewhere, is printed raw, or is waited for without end.

``EASYTEACACHE_LONG=1`` runs the long form: 5,000 answers.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from easyteacache.errors import EasyTeaCacheError, HubError
from easyteacache.hub import pull as pulling
from easyteacache.hub import push as pushing
from easyteacache.hub.exchange import Exchange, Limits, Question, Unanswered, origin_of
from easyteacache.hub.failures import TooLarge, pause
from easyteacache.hub.history import history
from easyteacache.hub.newest import Newest
from easyteacache.hub.remote import Remote
from easyteacache.hub.secret import Secret
from easyteacache.hub.store import Store
from easyteacache.registry import index
from easyteacache.registry.index import Index

from .conftest import Program, build_record
from .liar import Asked, Liar, liar, reply

LONG = bool(os.environ.get("EASYTEACACHE_LONG"))
ANSWERS = 5000 if LONG else 150
TOKEN = "token-that-nobody-else-may-see"
COMMIT = "1" * 40
#: As the usual ones, in hundredths of seconds: what ends at all ends at once here.
HASTY = Limits(connect=2.0, first=0.4, grace=0.4, slowest=4096.0, pace=1 << 26)

RECORD = build_record()
DATA = RECORD.to_json().encode()
INDEX = Index(index_version=index.INDEX_VERSION, records={"tiny/video": index.entry_of(RECORD, DATA)})


def remote(hub: Liar, **options: Any) -> Remote:
    settings = {"token": TOKEN, "limits": HASTY, "wait": lambda _: None, **options}
    return Remote("team/x", endpoint=hub.endpoint, **settings)


def honest(asked: Asked) -> bytes:
    """What a true hub would answer about one repository of one record."""
    path = urlsplit(asked.line.split()[1]).path
    about: dict[str, Any] = {
        "/api/whoami-v2": {"name": "ada"},
        "/api/datasets/team/x/refs": {"branches": [_ref("main")], "tags": [], "pullRequests": []},
        "/api/datasets/team/x/discussions": {"count": 0, "start": 0, "discussions": []},
        f"/api/datasets/team/x/paths-info/{COMMIT}": [
            {"type": "file", "path": "tiny/video.json", "oid": "2" * 40, "size": 9}
        ],
        "/api/datasets/team/x/commits/main": [{"id": COMMIT, "title": "First", "date": "2026-01-02T00:00:00.000Z"}],
        f"/api/datasets/team/x/commits/{COMMIT}": [
            {"id": COMMIT, "title": "First", "date": "2026-01-02T00:00:00.000Z"}
        ],
        "/api/datasets/team/x/preupload/main": {"files": [_mode(one) for one in _files(asked)]},
        "/api/datasets/team/x/commit/main": {
            "commitUrl": "x",
            "commitOid": COMMIT,
            "pullRequestUrl": "https://elsewhere/datasets/team/x/discussions/7",
        },
    }
    if path in about:
        return reply(json.dumps(about[path]).encode())
    files = {"index.json": INDEX.to_json().encode(), "tiny/video.json": DATA}
    name = path.split("/", 6)[-1]
    if name in files:
        return reply(files[name], X_Repo_Commit=COMMIT, ETag='"abc"')
    return reply(b"{}", "404 Not Found", X_Error_Code="EntryNotFound")


def _ref(name: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/heads/{name}", "targetCommit": COMMIT}


def _mode(path: str) -> dict[str, Any]:
    return {"path": path, "uploadMode": "regular", "shouldIgnore": False}


def _files(asked: Asked) -> list[str]:
    return [one["path"] for one in json.loads(asked.body)["files"]] if asked.body.startswith(b'{"files"') else []


def instead(pattern: str, data: bytes) -> Callable[[Asked, socket.socket], None]:
    """A true hub that answers with ``data`` where the first line holds ``pattern``."""
    return lambda asked, connection: connection.sendall(data if pattern in asked.line else honest(asked))


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder around this test's own that must stay as it was."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "here").write_text("untouched")
    monkeypatch.chdir(folder)
    yield folder
    assert {path.name for path in folder.iterdir()} == {"here"}


# What becomes a path --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["{outside}/evil.pth", "../../../../evil.pth", "..", "a/b", "\\..\\x", "C:\\x", "x" * 300]
)
@pytest.mark.parametrize("dry", [True, False])
def test_no_entity_tag_becomes_a_path(tag: str, dry: bool, outside: Path, tmp_path: Path) -> None:
    """The fault: the client's cache files what it downloads under the tag that the hub gives it."""
    headers = {"ETag": f'"{tag.format(outside=outside)}"', "X_Linked_ETag": tag.format(outside=outside)}
    data = reply(INDEX.to_json().encode(), X_Repo_Commit=COMMIT, **headers)
    with liar(instead("index.json", data)) as hub:
        before = everything(tmp_path)
        done = pulling.pull(remote(hub), store=Store(tmp_path / "own"), dry_run=dry)
        assert [one.state for one in done.outcomes] == ["new"]
    after = {path for path in everything(tmp_path) if path not in before}
    assert all(
        path.startswith((str(tmp_path / "own"), str(tmp_path / "assets"), str(tmp_path / "home"))) for path in after
    )


@pytest.mark.parametrize(
    "header",
    [
        {"Content_Disposition": 'attachment; filename="../../evil.pth"'},
        {"X_Xet_Hash": "0" * 64, "X_Xet_Refresh_Route": "http://127.0.0.1:9/x", "X_Xet_Cas_Url": "http://127.0.0.1:9"},
        {"Link": '<http://127.0.0.1:9/auth>; rel="xet-auth"'},
        {"X_Linked_Size": "9" * 50},
        {"Content_Location": "/../../etc/passwd"},
        {"Set_Cookie": "a=b; Path=/"},
    ],
)
def test_no_other_header_is_obeyed(header: dict[str, str], outside: Path, tmp_path: Path) -> None:
    data = reply(INDEX.to_json().encode(), X_Repo_Commit=COMMIT, **header)
    with liar(instead("index.json", data)) as hub:
        done = pulling.pull(remote(hub), store=Store(tmp_path / "own"))
    assert [one.state for one in done.outcomes] == ["new"]
    assert not any("cookie" in one.headers for one in hub.asked)


@pytest.mark.parametrize(
    "commit", ["main", "../../x", "1" * 39, "1" * 41, "G" * 40, "A" * 40, f"{'1' * 40}/../x", "١" * 40]
)
def test_what_is_no_commit_is_refused(commit: str) -> None:
    data = reply(INDEX.to_json().encode(), X_Repo_Commit=commit)
    with liar(instead("index.json", data)) as hub, pytest.raises(HubError, match="which is none"):
        pulling.read_index(remote(hub), None)


def test_a_hub_that_does_not_say_which_commit_it_answered_with_is_asked_for_one() -> None:
    """Mirrors such as olah; the content is then that of the commit that was asked for by its id."""
    asked_by_name = reply(b"another state", X_Other="x")

    def answer(asked: Asked, connection: socket.socket) -> None:
        nameless = reply(INDEX.to_json().encode()) if COMMIT in asked.line else asked_by_name
        connection.sendall(nameless if "index.json" in asked.line else honest(asked))

    with liar(answer) as hub:
        assert pulling.read_index(remote(hub), None) == (COMMIT, INDEX)
        assert pulling.read_index(remote(hub), COMMIT) == (COMMIT, INDEX)


def test_only_the_hub_itself_says_which_commit_it_is() -> None:
    """The address that a redirection leads to serves content; what it calls a commit is not believed."""
    from http.client import HTTPMessage

    from easyteacache.hub.exchange import Answer

    class Told(Exchange):
        def _once(self, question: Question, address: str, origin: Any, *, with_token: bool) -> Any:
            headers = HTTPMessage()
            headers["X-Repo-Commit"] = COMMIT if with_token else "2" * 40
            headers["Location"] = "https://elsewhere/x"
            return Answer(302 if with_token else 200, headers, b"content")

    answer = Told("https://hub.example", TOKEN).ask(Question("GET", "https://hub.example/a", 10))
    assert (answer.commit, answer.content) == (COMMIT, b"content")


def test_a_hub_that_answers_with_another_commit_than_was_asked_for_is_refused() -> None:
    with liar(instead("nothing", b"")) as hub, pytest.raises(HubError, match=f"answered with {COMMIT}"):
        pulling.read_index(remote(hub), "2" * 40)


@pytest.mark.parametrize("revision", ["a b", "", "x\x1b[2J", "x" * 300, "\u202ex", "\udcff"])
def test_a_revision_that_could_be_none_is_not_asked_for(revision: str) -> None:
    with liar(instead("nothing", b"")) as hub, pytest.raises(HubError, match="is no branch, tag or commit"):
        pulling.read_index(remote(hub), revision)
    assert hub.asked == []


# Where the token goes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("other", ["http://127.0.0.1:{port}/x", "//127.0.0.1:{port}/x", "http://localhost:{port}/x"])
def test_a_redirection_to_another_address_is_not_followed_without_https(status: str, other: str) -> None:
    with liar(instead("nothing", b"")) as elsewhere:
        port = elsewhere.endpoint.rsplit(":", 1)[1]
        data = reply(b"", status, Location=other.format(port=port))
        with liar(instead("index.json", data)) as hub, pytest.raises(HubError, match="without https"):
            pulling.read_index(remote(hub), None)
        assert elsewhere.asked == []


def test_a_redirection_within_the_hub_is_followed_with_the_token() -> None:
    data = reply(b"", "307 Temporary", Location="/api/resolve-cache/datasets/team/index.json", X_Repo_Commit=COMMIT)

    def answer(asked: Asked, connection: socket.socket) -> None:
        moved = "resolve-cache" in asked.line
        connection.sendall(reply(INDEX.to_json().encode(), X_Repo_Commit=COMMIT) if moved else data)

    with liar(answer) as hub:
        assert pulling.read_index(remote(hub), None) == (COMMIT, INDEX)
    assert [one.headers.get("authorization") for one in hub.asked] == [f"Bearer {TOKEN}"] * 2


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://[",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://a@127.0.0.1/",
        "x" * 9000,
        "http://\x7f/",
        "javascript:1",
    ],
)
def test_a_redirection_to_what_is_no_address_is_one_sentence(location: str) -> None:
    data = reply(b"", "302 Found", Location=location)
    with liar(instead("index.json", data)) as hub, pytest.raises(HubError) as failure:
        pulling.read_index(remote(hub), None)
    assert "\n" not in str(failure.value)


def test_a_redirection_in_a_circle_ends() -> None:
    data = reply(b"", "302 Found", Location="/again/index.json")
    with liar(instead("index.json", data)) as hub, pytest.raises(HubError, match="redirects more than 5 times"):
        pulling.read_index(remote(hub), None)
    assert len(hub.asked) == 6


def test_the_token_is_sent_to_one_origin_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scheme, host and port; once a redirection has led away, it is not sent to where the stranger sends back to either."""
    sent: list[tuple[str, bool]] = []

    class Told(Exchange):
        def _once(self, question: Question, address: str, origin: Any, *, with_token: bool) -> Any:
            sent.append((address, with_token))
            location = {"https://hub.example/a": "https://other/b", "https://other/b": "https://hub.example/c"}.get(
                address
            )
            from http.client import HTTPMessage

            from easyteacache.hub.exchange import Answer

            headers = HTTPMessage()
            if location:
                headers["Location"] = location
            return Answer(302 if location else 200, headers, b"")

    Told("https://hub.example", TOKEN).ask(Question("GET", "https://hub.example/a", 10))
    assert sent == [("https://hub.example/a", True), ("https://other/b", False), ("https://hub.example/c", False)]
    for address in ("https://hub.example:444/", "https://hub.example.evil/", "https://sub.hub.example/"):
        sent.clear()
        Told("https://hub.example", TOKEN).ask(Question("GET", address, 10))
        assert sent == [(address, False)]
    assert origin_of("https://HUB.example") == origin_of("https://hub.example:443/x")


def test_a_post_is_never_redirected() -> None:
    data = reply(b"", "307 Temporary", Location="/elsewhere")
    with liar(instead("paths-info", data)) as hub, pytest.raises(HubError, match="answered 307"):
        remote(hub).stored(["a"], COMMIT)
    assert len(hub.asked) == 1


@pytest.mark.parametrize("verify", [True, False])
def test_large_files_go_where_the_hub_says_and_the_token_does_not(verify: bool) -> None:
    """In large-file storage the hub names the address; one that is not its own and not https is not used at all."""
    with liar(instead("nothing", b"")) as elsewhere:

        def answer(asked: Asked, connection: socket.socket) -> None:
            if "preupload" in asked.line:
                modes = [{**_mode(path), "uploadMode": "lfs"} for path in _files(asked)]
                connection.sendall(reply(json.dumps({"files": modes}).encode()))
            elif "objects/batch" in asked.line:
                told = json.loads(asked.body)["objects"]
                place = {"href": f"{hub.endpoint if verify else elsewhere.endpoint}/put"}
                check = {"verify": {"href": f"{elsewhere.endpoint}/verify"}} if verify else {}
                objects = [{**one, "actions": {"upload": place, **check}} for one in told]
                connection.sendall(reply(json.dumps({"objects": objects}).encode()))
            else:
                connection.sendall(reply(b"{}") if asked.line.startswith("PUT") else honest(asked))

        with liar(answer) as hub, pytest.raises(HubError, match="another address without https"):
            remote(hub).commit({"a": b"data"}, title="t", description="", parent=COMMIT, branch=None)
        assert elsewhere.asked == []
        put = [one for one in hub.asked if one.line.startswith("PUT")]
        assert [one.body for one in put] == ([b"data"] if verify else [])


def test_large_files_are_sent_and_named_by_their_hash() -> None:
    """The interface of Git LFS, as huggingface_hub speaks it: batch, put, verify, then the commit."""
    import hashlib

    data = b"large content"
    oid = hashlib.sha256(data).hexdigest()

    def answer(asked: Asked, connection: socket.socket) -> None:
        if "preupload" in asked.line:
            modes = [{**_mode(path), "uploadMode": "lfs" if path == "big" else "regular"} for path in _files(asked)]
            connection.sendall(reply(json.dumps({"files": modes}).encode()))
        elif "objects/batch" in asked.line:
            actions = {
                "upload": {"href": f"{hub.endpoint}/put", "header": {}},
                "verify": {"href": f"{hub.endpoint}/verify"},
            }
            connection.sendall(
                reply(json.dumps({"objects": [{"oid": oid, "size": len(data), "actions": actions}]}).encode())
            )
        else:
            connection.sendall(honest(asked))

    def honest_too(asked: Asked, connection: socket.socket) -> None:
        if asked.line.split()[1] in ("/put", "/verify"):
            connection.sendall(reply(b""))
        else:
            answer(asked, connection)

    with liar(honest_too) as hub:
        url = remote(hub).commit({"big": data, "small": b"s"}, title="t", description="d", parent=COMMIT, branch=None)
    assert url == f"{hub.endpoint}/datasets/team/x/discussions/7"
    lines = [one.line.split(" HTTP")[0] for one in hub.asked]
    assert lines == [
        "POST /api/datasets/team/x/preupload/main?create_pr=1",
        "POST /datasets/team/x.git/info/lfs/objects/batch",
        "PUT /put",
        "POST /verify",
        "POST /api/datasets/team/x/commit/main?create_pr=1",
    ]
    assert json.loads(hub.asked[1].body)["objects"] == [{"oid": oid, "size": len(data)}]
    assert hub.asked[2].body == data
    assert json.loads(hub.asked[3].body) == {"oid": oid, "size": len(data)}
    header, big, small = map(json.loads, hub.asked[4].body.splitlines())
    assert header["value"] == {"summary": "t", "description": "d", "parentCommit": COMMIT}
    assert big == {"key": "lfsFile", "value": {"path": "big", "algo": "sha256", "oid": oid, "size": len(data)}}
    assert small == {"key": "file", "value": {"content": "cw==", "path": "small", "encoding": "base64"}}


# What is printed ------------------------------------------------------------------------------------------------------

ECHOES = [
    TOKEN,
    TOKEN.upper(),
    f"Bearer {TOKEN}",
    f"\x1b[2J{TOKEN}\r\n",
    "token%2Dthat%2Dnobody%2Delse%2Dmay%2Dsee",
    "hf_AbCdEfGhIjKlMnOpQrStUv",
]


@pytest.mark.parametrize("echo", ECHOES[:4])
@pytest.mark.parametrize(
    "status", ["400 Bad", "401 No", "403 No", "404 No", "409 No", "418 Pot", "429 Busy", "500 Broken"]
)
def test_a_token_that_a_hub_repeats_is_struck_out(echo: str, status: str) -> None:
    said = echo.replace("\r\n", "")
    data = reply(json.dumps({"error": echo}).encode(), status, X_Error_Message=said, X_Error_Code=said)
    with liar(lambda asked, connection: connection.sendall(data)) as hub:
        for call in calls(remote(hub)):
            text = refusal(call)
            assert TOKEN not in text.lower()
            assert text.isprintable()


def test_forms_of_a_token_are_struck_out() -> None:
    secret = Secret("secret/token+1")
    text = secret.struck(
        "secret/token+1, SECRET/TOKEN+1, secret%2Ftoken%2B1, c2VjcmV0L3Rva2VuKzE=, hf_AbCdEfGhIjKlMnOpQrStUv"
    )
    assert text == "***, ***, ***, ***=, ***"
    assert Secret("x").struck("x y z") == "x y z"
    assert Secret(None).struck("nothing") == "nothing"
    assert secret.held_by(rb'{"a": "\u0073ecret\/token+1"}')
    assert not secret.held_by(b'{"a": "another"}')


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("place", ["index.json", "commits", "whoami", "refs", "discussions"])
def test_a_hub_that_files_the_token_in_an_answer_is_refused(place: str, escaped: bool, run_hub: Program) -> None:
    shown = "".join(f"\\u{ord(c):04x}" for c in TOKEN) if escaped else TOKEN
    content = f'{{"name": "{shown}"}}'.encode()
    with liar(instead(place, reply(content, X_Repo_Commit=COMMIT))) as hub:
        texts = [refusal(call) for call in calls(remote(hub))]
    assert any("repeats the token it was sent" in text for text in texts)
    assert not any(TOKEN in text for text in texts)


def test_control_characters_of_a_hub_reach_no_terminal(run_hub: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "\x1b]0;owned\x07\r\n::error::forged\u2028\u202e\x9b31m"
    commits = [{"id": COMMIT, "title": evil, "date": "2026-01-02T00:00:00.000Z", "authors": [{"user": evil}]}]
    with liar(instead("commits", reply(json.dumps(commits).encode()))) as hub:
        monkeypatch.setenv("EASYTEACACHE_TOKEN", TOKEN)
        shown = run_hub("log", "tiny/video", "--repo", "team/x", "--endpoint", hub.endpoint)
    assert shown.exit_code == 0, shown.output
    assert "owned" in shown.output
    assert all(c.isprintable() or c == "\n" for c in shown.output)
    assert not any(line.startswith("::") for line in shown.output.splitlines())
    assert len(shown.output.splitlines()) == 2
    assert "\x1b" not in shown.output
    with liar(
        lambda asked, connection: connection.sendall(reply(b"", "400 Bad", X_Error_Message=evil.replace("\r\n", "")))
    ) as hub:
        shown = run_hub("pull", "--repo", "team/x", "--endpoint", hub.endpoint)
    assert shown.exit_code == 1
    assert shown.output.count("\n") == 1
    assert all(c.isprintable() or c == "\n" for c in shown.output)


# How much and how long ------------------------------------------------------------------------------------------------


def calls(hub: Remote) -> list[Callable[[], object]]:
    """Every kind of question that is asked of a hub."""
    return [
        lambda: pulling.read_index(hub, None),
        hub.whoami,
        lambda: hub.commit_of("main"),
        lambda: hub.stored(["tiny/video.json"], COMMIT),
        lambda: list(hub.log()),
        lambda: list(hub.open_requests("ada")),
        lambda: hub.read("tiny/video.json", COMMIT, limit=1 << 20),
        lambda: hub.commit({"a": b"x"}, title="t", description="", parent=COMMIT, branch=None),
        lambda: pushing.published_at(hub, COMMIT),
        lambda: history(hub, "tiny/video"),
    ]


def refusal(call: Callable[[], object]) -> str:
    """What the project says about it in one line; empty where the answer happened to make sense."""
    said = ""
    try:
        call()
    except EasyTeaCacheError as error:
        said = str(error)
    assert "\n" not in said
    return said


def endless(chunked: bool) -> Callable[[Asked, socket.socket], None]:
    def answer(_: Asked, connection: socket.socket) -> None:
        how = "Transfer-Encoding: chunked" if chunked else "Connection: close"
        connection.sendall(f"HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\n{how}\r\n\r\n".encode())
        piece = b"[" * (1 << 16)
        for _number in range(1 << 14):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)

    return answer


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("number", range(10))
def test_an_answer_without_end_is_received_no_further_than_the_bound(number: int, chunked: bool) -> None:
    """The bound is set small here: what is counted is what a client takes of a gigabyte that it is sent."""
    with liar(endless(chunked)) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr("easyteacache.hub.remote.MAX_ANSWER_BYTES", 1 << 20)
        patch.setattr("easyteacache.registry.index.MAX_INDEX_BYTES", 1 << 20)
        text = refusal(calls(remote(hub, limits=Limits()))[number])
    assert "bytes" in text or "makes no sense" in text


@pytest.mark.parametrize("size", [b"-1", b" -1 ", b"-0x1"])
def test_a_chunk_of_minus_one_byte_is_not_everything_that_follows(size: bytes) -> None:
    """A reader that is asked for -1 bytes takes all there is."""
    sent = 0

    def answer(_: Asked, connection: socket.socket) -> None:
        nonlocal sent
        head = f"HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        connection.sendall(head + size + b"\r\n")
        for _number in range(1 << 10):
            connection.sendall(b"[" * (1 << 16))
            sent += 1 << 16

    with liar(answer) as hub:
        assert "is no HTTP" in refusal(lambda: remote(hub, limits=Limits()).read("a.json", COMMIT, limit=1000))
    # What the system's buffers hold is sent, too.
    assert sent < 32 << 20


def test_an_index_that_names_more_than_a_pull_may_bring_ends_the_pull(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("easyteacache.hub.pull.MAX_PULL_BYTES", len(DATA) - 1)
    with liar(instead("nothing", b"")) as hub, pytest.raises(HubError, match="name fewer at a time"):
        pulling.pull(remote(hub), store=Store(tmp_path / "own"))
    assert Store(tmp_path / "own").current().index.records == {}


def test_a_proxy_or_a_file_of_certificates_that_is_none_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from easyteacache.hub import exchange

    for name in ("HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://[bad")
    assert "a proxy whose address is none" in refusal(
        Remote("team/x", endpoint="http://hub.example", token=TOKEN).whoami
    )
    monkeypatch.delenv("http_proxy")
    exchange._trust.cache_clear()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent"))
    assert "is no list of certificates" in refusal(Remote("team/x", endpoint="https://127.0.0.1:9", token=TOKEN).whoami)
    exchange._trust.cache_clear()


@pytest.mark.parametrize("length", ["9" * 20, "9" * 5000, "99999999999"])
def test_an_answer_that_promises_too_much_is_not_begun(length: str) -> None:
    data = f"HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: {length}\r\n\r\n".encode()
    with liar(lambda asked, connection: connection.sendall(data)) as hub:
        text = refusal(lambda: pulling.read_index(remote(hub), None))
    assert text


def test_a_small_answer_that_would_unpack_to_a_large_one_is_refused() -> None:
    import gzip

    data = reply(gzip.compress(b" " * (64 << 20)), X_Repo_Commit=COMMIT, Content_Encoding="gzip")
    with liar(lambda asked, connection: connection.sendall(data)) as hub:
        assert "what is no HTTP" in refusal(lambda: pulling.read_index(remote(hub), None))
        assert all(one.headers["accept-encoding"] == "identity" for one in hub.asked)


def drip(data: bytes, pause: float) -> Callable[[Asked, socket.socket], None]:
    def answer(_: Asked, connection: socket.socket) -> None:
        for position in range(len(data)):
            connection.sendall(data[position : position + 1])
            time.sleep(pause)

    return answer


SLOW: dict[str, Callable[[Asked, socket.socket], None]] = {
    "nothing at all": lambda asked, connection: time.sleep(5) or None,  # type: ignore[func-returns-value]
    "a head byte by byte": drip(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50, 0.1),
    "an endless line": drip(b"HTTP/1.1 200 " + b"x" * 100, 0.1),
    "continue without end": drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 20, 0.02),
    "a body byte by byte": drip(
        f"HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: 900\r\n\r\n".encode() + b" " * 99, 0.05
    ),
    "chunks of one byte": drip(
        f"HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + b"1\r\nx\r\n" * 99,
        0.02,
    ),
}


@pytest.mark.parametrize("kind", SLOW)
def test_an_answer_that_comes_too_slowly_is_given_up_once(kind: str) -> None:
    quick = Limits(first=0.3, grace=0.3)
    with liar(SLOW[kind]) as hub:
        text = refusal(lambda: pulling.read_index(remote(hub, limits=quick), None))
        assert "did not answer in the time there is" in text
        assert len(hub.asked) == 1


def test_a_hub_that_floods_interim_answers_is_given_up() -> None:
    def answer(_: Asked, connection: socket.socket) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    with liar(answer) as hub:
        assert "did not answer in the time there is" in refusal(lambda: pulling.read_index(remote(hub), None))


def test_limits_are_those_that_the_page_states() -> None:
    limits = Limits()
    page = (Path(__file__).resolve().parents[2] / "docs" / "hub.md").read_text(encoding="utf-8")
    assert f"begins within {limits.first:.0f} s" in page
    assert f"at least {limits.slowest / 1024:.0f} KiB a second" in page
    longest = limits.first + limits.grace + index.MAX_INDEX_BYTES / limits.pace
    assert f"after {longest:.0f} s at the latest" in page


def test_patience_counts_from_the_first_byte_and_by_the_bytes() -> None:
    from easyteacache.hub.patience import Patience

    now = [0.0]
    patience = Patience(first=10, grace=5, rate=100, total=60, clock=lambda: now[0])
    assert patience.left() == 10
    now[0] = 8
    patience.count(1000)
    assert patience.left() == 5 + 10
    now[0] = 20
    patience.count(10**9)
    assert patience.left() == 40
    now[0] = 60
    with pytest.raises(TimeoutError, match="1000001000 bytes in 60 s"):
        patience.left()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("7", 7.0), ("0", 0.0), ("99999", 60.0), ("²", 2.0), ("٣", 2.0), ("-5", 2.0), ("1e9", 2.0), ("9" * 5000, 2.0), ("", 2.0),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 2.0), (" 7 ", 7.0)],
)  # fmt: skip
def test_how_long_a_hub_asks_to_wait_is_read_strictly(asked: str, expected: float) -> None:
    from easyteacache.hub.exchange import ErrorAnswer

    assert pause(ErrorAnswer(503, retry_after=asked), 1) == expected


def test_attempts_end_in_a_bounded_time_whatever_a_hub_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("easyteacache.hub.remote.time.monotonic", lambda: clock[0])
    with liar(lambda asked, connection: connection.sendall(reply(b"", "503 Busy", Retry_After="60"))) as hub:
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            clock[0] += seconds

        assert "answered 503" in refusal(remote(hub, wait=wait).whoami)
    assert waits == [60.0, 60.0]


def test_a_hub_that_is_not_there_is_said_to_be_in_one_sentence(run_hub: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    text = refusal(Remote("team/x", endpoint=f"http://127.0.0.1:{port}", token=TOKEN, wait=lambda _: None).whoami)
    assert f"http://127.0.0.1:{port} cannot be reached (Connection refused); --offline" in text


def test_pages_without_end_are_not_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easyteacache.hub.remote.MAX_PAGES", 7)
    one = [{"id": COMMIT, "title": "x", "date": "2026-01-02T00:00:00.000Z"}]
    link = '<http://127.0.0.1:9/evil?p=1>; rel="next"'
    with liar(instead("commits", reply(json.dumps(one).encode(), Link=link))) as hub:
        assert len(list(remote(hub).log(count=10**6))) == 7
        assert {one.line.split()[1].partition("?")[0] for one in hub.asked} == {"/api/datasets/team/x/commits/main"}
    page = {
        "count": 10**9,
        "start": 0,
        "discussions": [{"num": 1, "title": "x", "isPullRequest": True, "author": {"name": "ada"}}],
    }
    with liar(instead("discussions", reply(json.dumps(page).encode()))) as hub:
        assert len(list(remote(hub).open_requests("ada"))) == 7


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_is_used(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with liar(instead("nothing", b"")) as proxy:
        monkeypatch.setenv(variable, proxy.endpoint.replace("http://", "http://user:word@"))
        found = Remote("team/x", endpoint="http://hub.example", token=TOKEN, limits=HASTY)
        assert pulling.read_index(found, None)[0] == COMMIT
    assert proxy.asked[0].line.startswith("GET http://hub.example/datasets/team/x/")
    assert proxy.asked[0].headers["host"] == "hub.example"
    assert proxy.asked[0].headers["proxy-authorization"] == "Basic dXNlcjp3b3Jk"


def test_connections_are_used_again_and_a_closed_one_is_no_failure(hub_process: Any, repository: str) -> None:
    exchange = Exchange(hub_process.endpoint, None)
    question = Question("GET", f"{hub_process.endpoint}/api/datasets/{repository}/refs", 1 << 20)
    assert exchange.ask(question).status == 200
    ((_, _, connection),) = exchange._idle
    assert exchange.ask(question).status == 200
    assert exchange._idle[0][2] is connection
    connection.sock.socket.shutdown(socket.SHUT_RDWR)
    assert exchange.ask(question).status == 200


# All of it at random --------------------------------------------------------------------------------------------------


def garbled(data: bytes, draw: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(draw.choice((1, 2, 5))):
        at = draw.randrange(len(found) + 1)
        end = min(len(found), at + draw.choice((0, 1, 4, 40)))
        found[at:end] = draw.choice(PIECES)
    return bytes(found)


PIECES = [
    b"", b"\r\n", b"\r\n\r\n", b"\x00", b"\xff\xfe", b"\x1b[2J", b"{", b"[", b'"', b"]" * 9, b"HTTP/1.1 200 OK\r\n", b"\xc2\xb2", b"../../x",
    TOKEN.encode(), b"9" * 30, b"NaN", b"1e999", b"null", b"0\r\n\r\n", b"\\ud800", "\u202e\u2028".encode(), b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 1\r\n", b"Content-Encoding: gzip\r\n", b'ETag: "/tmp/evil.pth"\r\n', b"Location: http://127.0.0.1:9/\r\n",
]  # fmt: skip


def lie(asked: Asked, draw: random.Random, outside: Path) -> bytes:
    """One answer of many kinds: true ones garbled, wrong types, wrong status codes, hostile headers, cut short, nothing."""
    kind = draw.randrange(10)
    true = honest(asked)
    if kind < 3:
        return garbled(true, draw)
    if kind == 3:
        return true[: draw.randrange(len(true) + 1)]
    if kind == 4:
        value = draw.choice(
            [None, [], {}, 5, "x", [[]], [None], {"count": []}, {"files": {}}, {"branches": 5}, TOKEN, [TOKEN]]
        )
        return reply(json.dumps(value).encode(), X_Repo_Commit=COMMIT)
    if kind == 5:
        status = draw.choice(
            [100, 101, 200, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 409, 412, 416, 429, 500, 503, 599, 999]
        )
        code = draw.choice(["", "RepoNotFound", "EntryNotFound", "GatedRepo", "RevisionNotFound", TOKEN, "x" * 900])
        said = draw.choice(["", TOKEN, "\x1b[2J", "x" * 5000, "²"])
        location = draw.choice(
            ["/x", "http://127.0.0.1:9/x", "//127.0.0.1:9", f"file://{outside}/x", "\\\\x", "x" * 9999]
        )
        wait = draw.choice(["", "²", "-1", "0", "9" * 400])
        return reply(b"{}", f"{status} X", X_Error_Code=code, X_Error_Message=said, Location=location, Retry_After=wait)
    if kind == 6:
        tag = draw.choice([f"{outside}/evil.pth", "../../../evil", "..", "x" * 999, TOKEN])
        commit = draw.choice([COMMIT, "2" * 40, "../x", "", "²" * 40])
        names = {"ETag": tag, "X_Linked_ETag": tag, "X_Repo_Commit": commit, "Content_Disposition": f"filename={tag}"}
        return reply(true.partition(b"\r\n\r\n")[2], **names, X_Xet_Hash="0" * 64)
    if kind == 7:
        return draw.choice(
            [b"", b"\r\n", b"\x00" * 100, b"SSH-2.0-x\r\n", b"HTTP/9.9 200\r\n\r\n", b"HTTP/1.1 \xc2\xb200 OK\r\n\r\n"]
        )
    if kind == 8:
        sizes = [b"zz", b"-1", b"\xc2\xb2", b"f" * 40, b"1;" + b"x" * 70_000, b"5"]
        head = f"HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        return (
            head
            + draw.choice(sizes)
            + b"\r\n"
            + true.partition(b"\r\n\r\n")[2]
            + b"\r\n0\r\n"
            + b"x: y\r\n" * 300
            + b"\r\n"
        )
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(draw.choice([90, 120, 3000])))
    return head + b"\r\n" + true.partition(b"\r\n\r\n")[2]


def pulls(hub: Remote, store: Store) -> list[Callable[[], object]]:
    """Everything of them that writes to a disk."""
    return [
        lambda: pulling.pull(hub, store=store),
        lambda: pulling.pull(hub, ["tiny/*"], store=store),
        lambda: Newest(store.home).check(hub, "main", "3" * 40),
    ]


def test_no_lie_leaves_the_folder_hangs_or_takes_more_than_a_sentence(outside: Path, tmp_path: Path) -> None:
    draw = random.Random(ANSWERS)
    told = 0
    state = {"share": 1.0}

    def answer(asked: Asked, connection: socket.socket) -> None:
        nonlocal told
        if draw.random() < state["share"]:
            told += 1
            data = lie(asked, draw, outside)
            if draw.random() < 0.02:
                # And then nothing, with the connection open.
                connection.sendall(data[: draw.randrange(len(data) + 1)])
                hub.stopped.wait(2 * HASTY.first)
            else:
                connection.sendall(data)
        else:
            connection.sendall(honest(asked))

    own = (str(tmp_path / "own"), str(tmp_path / "assets"), str(tmp_path / "home"))
    before = set(everything(tmp_path))
    longest = 0.0
    number = 0
    with liar(answer) as hub:
        while told < ANSWERS:
            number += 1
            # Early answers true more often than not, so that late ones are reached.
            state["share"] = draw.choice((1.0, 0.5, 0.3))
            store = Store(tmp_path / "own" / str(number % 50))
            actions = [*calls(remote(hub)), *pulls(remote(hub), store)]
            begun = time.monotonic()
            text = refusal(draw.choice(actions))
            longest = max(longest, time.monotonic() - begun)
            assert TOKEN not in text
            assert text.isprintable(), text
            for key in store.current().index.records:
                assert key == "tiny/video"
    assert all(path.startswith(own) for path in set(everything(tmp_path)) - before)
    assert all(TOKEN.encode() not in data for data in everything(tmp_path).values())
    print(f"{told} lies in {number} questions, the longest took {longest:.2f} s")


def test_what_was_too_large_says_which_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        liar(instead("nothing", b"")) as hub,
        pytest.raises(TooLarge, match=r"tiny/video\.json has more than the 10 bytes"),
    ):
        remote(hub).read("tiny/video.json", COMMIT, limit=10)


@pytest.mark.parametrize("token", ["a b", "a\nb", "tökén", "\x7f"])
def test_a_token_that_could_be_none_is_said_to_be_and_not_shown(token: str) -> None:
    with pytest.raises(HubError, match="is it whole") as failure:
        Remote("team/x", endpoint="http://hub", token=token)
    assert token not in str(failure.value)


def test_an_address_that_is_no_origin_is_refused() -> None:
    for address in ("http://", "x", "http://a:0x", "http://a:99999", "http://ä", "http://u@h"):
        with pytest.raises(Unanswered):
            origin_of(address)
