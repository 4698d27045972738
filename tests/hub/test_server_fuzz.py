"""Thousands of requests that nobody would send, to a served hub: each is answered, nothing breaks, the memory stays bounded.

``EASYTEACACHE_LONG=1`` runs the long form: 20,000 requests.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from huggingface_hub import CommitOperationAdd

from .hub_process import TOKENS, HubProcess
from .raw import Said, parse, request, send

LONG = bool(os.environ.get("EASYTEACACHE_LONG"))
REQUESTS = 20_000 if LONG else 600
WORKERS = 8
#: What a server of one small repository may take more than at its start, whatever it was sent.
GROWTH_MIB = 200

ODD_METHODS = ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW", "get", "G\x01T", "CONNECT", "TRACE"]
POSTED = (
    "create",
    "yaml",
    "paths-info",
    "preupload",
    "/commit/",
    "/tag/",
    "/branch/",
    "comment",
    "status",
    "merge",
    "upload-pack",
)
TEMPLATES = [
    "/api/whoami-v2", "/api/repos/create", "/api/repos/delete", "/api/validate-yaml", "/api/datasets", "/api/models/{r}", "/api/datasets/{r}",
    "/api/datasets/{r}/revision/{v}", "/api/datasets/{r}/tree/{v}/{p}", "/api/datasets/{r}/tree/{v}", "/api/datasets/{r}/paths-info/{v}",
    "/api/datasets/{r}/refs", "/api/datasets/{r}/commits/{v}", "/datasets/{r}/resolve/{v}/{p}", "/api/datasets/{r}/preupload/{v}",
    "/api/datasets/{r}/commit/{v}", "/api/datasets/{r}/tag/{v}", "/api/datasets/{r}/branch/{v}", "/api/datasets/{r}/discussions",
    "/api/datasets/{r}/discussions/{n}", "/api/datasets/{r}/discussions/{n}/comment", "/api/datasets/{r}/discussions/{n}/status",
    "/api/datasets/{r}/discussions/{n}/merge", "/api/datasets/{r}/discussions/{n}/title", "/datasets/{r}/info/refs", "/datasets/{r}.git/info/refs",
    "/datasets/{r}/git-upload-pack", "/datasets/{r}/git-receive-pack", "/datasets/{r}.git/info/lfs/objects/batch", "/{p}", "/api/{p}", "{p}",
    "http://elsewhere/api/datasets/{r}", "//", "*", "",
]  # fmt: skip
ODD = [
    "", ".", "..", "../..", "a/../../b", "%2e%2e", "%2F", "%00", "%0a", "%0d%0aX: y", "%ff%fe", "%C2%B2", "²", "é", "x" * 300, "x" * 9000, "-x",
    "--help", "refs/heads/main", "refs%2Fheads%2Fmain", "HEAD", "main:a", "main~1", "main^{tree}", "@{0}", "x blob", "x%20blob%205", "x blob 5", ":(top)x",
    "\\..\\x", "C:\\x", "[", "]", "{", "}", "?", "#", ";", "&", "=", "'", '"', "`id`", "$(id)", "\x1b[2J", "\u202e", "\u2028", "%E2%80%A8", "index.json",
    "a/b", "tokens.json", ".git/config", ".git", "9" * 40, "0" * 40, "9" * 5000, "-1", "1e9", "0x1", "null", "NaN", "1", "2", "main", "v1",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 10**18, "", "x", "x" * 70_000, "€" * 20_000, "a\nb", "\u2028", "\x00", [], [[]], [None], {}, {"a": {}}, "main", "0" * 40,
    "YQ==", "%%%", "../x", ["a"], ["index.json"], "open", "closed", "dataset",
]  # fmt: skip
FIELDS = [
    "paths", "files", "path", "size", "sample", "summary", "description", "parentCommit", "tag", "comment", "status", "name", "organization",
    "type", "private", "visibility", "startingPoint", "overwrite", "content", "encoding", "key", "value", "expand", "__proto__",
]  # fmt: skip


def some_json(draw: random.Random) -> bytes:
    value = {draw.choice(FIELDS): draw.choice(VALUES) for _ in range(draw.randrange(5))}
    return json.dumps(value if draw.random() < 0.9 else draw.choice(VALUES)).encode()


def some_commit(draw: random.Random) -> bytes:
    lines: list[Any] = [
        {"key": "header", "value": {"summary": draw.choice(["x", *VALUES]), "description": draw.choice(["", *VALUES])}}
    ]
    for _ in range(draw.randrange(4)):
        value = {
            "path": draw.choice([*ODD, "a", "a/b"]),
            "content": draw.choice(["YQ==", *VALUES]),
            "encoding": "base64",
        }
        lines.append(
            {
                "key": draw.choice(["file", "file", "deletedFile", "deletedFolder", "lfsFile", "header", "x"]),
                "value": value,
            }
        )
    draw.random() < 0.1 and draw.shuffle(lines)
    return b"\n".join(json.dumps(line).encode() for line in lines)


def some_body(draw: random.Random) -> bytes:
    kind = draw.randrange(8)
    if kind < 2:
        return some_json(draw)
    if kind == 2:
        return some_commit(draw)
    if kind == 3:
        return "&".join(
            f"{draw.choice(FIELDS)}={quote(draw.choice(ODD))}" for _ in range(draw.choice((1, 3, 200)))
        ).encode()
    if kind == 4:
        return draw.randbytes(draw.choice((1, 100, 5000)))
    if kind == 5:
        return draw.choice(
            [
                b"",
                b"null",
                b"[" * 5000,
                b"{" * 5000,
                b'{"a":' * 100,
                b"\xff\xfe{}",
                b'{"a": 1e999}',
                b'{"a": NaN}',
                b'"\\ud800"',
            ]
        )
    if kind == 6:
        return draw.choice(
            [b"0032want " + b"1" * 40 + b"\n00000009done\n", b"0000", b"ffff", b"0001", b"0014command=ls-refs\n0000"]
        )
    return gzip.compress(some_json(draw))


def some_headers(draw: random.Random) -> dict[str, str]:
    found: dict[str, str] = {}
    odd = {
        "Host": ["evil.example", "", "a b", "[::1", "x" * 3000], "Range": ["bytes=0-0", "bytes=-1", "bytes=9-", "bytes=²-", "bytes=" + "9" * 99 + "-", "x"],
        "If-Range": ['"x"', ""], "Content-Encoding": ["gzip", "br", "identity"], "Content-Type": ["application/json", "text/html; charset=²"],
        "Git-Protocol": ["version=2", "version=1", "x" * 500], "Expect": ["100-continue", "200-ok"], "Transfer-Encoding": ["chunked", "identity", "²"],
        "Content-Length": ["0", "5", "²", "-1", "1e3", "0x5", "99999999999", "9" * 200, " 3", "+3"], "Connection": ["keep-alive", "upgrade", "close"],
        "Accept-Encoding": ["gzip"], "X-HTTP-Method-Override": ["DELETE"], "Cookie": ["a=b"], "X-Forwarded-Host": ["evil"], "X": ["\u00ff" * 50],
    }  # fmt: skip
    for name in draw.sample(list(odd), draw.choice((0, 0, 0, 1, 2, 4))):
        found[name] = draw.choice(odd[name])
    return found


def some_token(draw: random.Random) -> str | None:
    return draw.choice(
        [
            None,
            None,
            TOKENS["reader"],
            TOKENS["contributor"],
            TOKENS["contributor"],
            TOKENS["maintainer"],
            "unknown",
            "",
        ]
    )


def some_request(draw: random.Random, repositories: list[str]) -> bytes:
    """One request, well-formed as far as it goes or a little garbled."""
    piece = {
        "r": draw.choice([*repositories, *repositories, "team/absent", "a/b/c", draw.choice(ODD)]),
        "v": draw.choice(["main", "main", "refs%2Fpr%2F1", draw.choice(ODD), quote(draw.choice(ODD), safe="")]),
        "p": draw.choice(["a", "index.json", draw.choice(ODD), quote(draw.choice(ODD))]),
        "n": draw.choice(["1", "2", "99", draw.choice(ODD)]),
    }
    template = draw.choice(TEMPLATES)
    path = template.format(**piece)
    method = "POST" if any(part in template for part in POSTED) else "GET"
    method = draw.choice(ODD_METHODS) if draw.random() < 0.15 else method
    if draw.random() < 0.4:
        pairs = (
            f"{draw.choice(['p', 'create_pr', 'recursive', 'blobs', 'status', 'author', 'service', 'diff'])}={draw.choice(ODD)}"
            for _ in range(draw.choice((1, 2, 150)))
        )
        path += "?" + "&".join(pairs)
    path = path.replace(" ", "%20").replace("\n", "%0A").replace("\r", "%0D") if draw.random() < 0.9 else path
    body = some_body(draw) if draw.random() < (0.9 if method == "POST" else 0.1) else None
    if "/commit/" in template and draw.random() < 0.6:
        body = some_commit(draw)
    headers = {name.replace("-", "_"): value for name, value in some_headers(draw).items()}
    data = request(method, path, token=some_token(draw), body=body, **headers)
    if draw.random() < 0.1:
        at = draw.randrange(len(data))
        data = (
            data[:at]
            + draw.choice([b"", b"\x00", b"\r\n", b"\xff", b" ", b":", b"\r\n\r\n"])
            + data[at + draw.choice((0, 1, 5)) :]
        )
    return data


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[HubProcess]:
    hub = HubProcess(tmp_path / "hub", log=tmp_path / "log").start()
    yield hub
    hub.stop()


def resident(process: int) -> int:
    """Most bytes of memory that a process has had."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_every_request_is_answered_and_the_memory_stays_bounded(own_hub: HubProcess, tmp_path: Path) -> None:
    api = own_hub.api()
    names = [own_hub.new_repository() for _ in range(2)]
    for name in names:
        for number in range(2):
            operations = [CommitOperationAdd("a", f"{number}".encode()), CommitOperationAdd("index.json", b"{}")]
            api.create_commit(name, operations, commit_message=f"{number}", create_pr=True, repo_type="dataset")
    untouched = own_hub.new_repository()
    api.create_commit(untouched, [CommitOperationAdd("a", b"kept")], commit_message="Kept", repo_type="dataset")
    head = api.repo_info(untouched, repo_type="dataset").sha
    assert own_hub.process is not None
    before = resident(own_hub.process.pid)
    seed = random.Random(REQUESTS)
    draws = [random.Random(seed.random()) for _ in range(REQUESTS)]

    def one(draw: random.Random) -> tuple[bytes, Said | None]:
        data = some_request(draw, names)
        return data, send(own_hub.endpoint, data, method="HEAD" if data.startswith(b"HEAD ") else "GET")

    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        for data, said in pool.map(one, draws):
            assert said is not None, f"no answer to {data[:300]!r}"
            statuses[said.status] += 1
            assert said.status != 500, f"{data[:2000]!r}: {said.content!r}"
            if said.status >= 400 and not data.startswith(b"HEAD ") and said.status != 503:
                assert len(said.sentence) > 10, data[:300]
            assert b"token_sha256" not in said.content
    grown = resident(own_hub.process.pid) - before
    print(f"{REQUESTS} requests, answers {dict(sorted(statuses.items()))}, {grown / 2**20:.0f} MiB more at most")
    assert grown < GROWTH_MIB << 20
    assert own_hub.process.poll() is None
    assert (tmp_path / "log").read_text() == ""
    assert statuses[200] > REQUESTS // 50
    assert api.repo_info(untouched, repo_type="dataset").sha == head
    for folder in (own_hub.folder / "datasets").glob("*/*.git"):
        done = subprocess.run(["git", "--git-dir", str(folder), "fsck", "--strict"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in own_hub.folder.iterdir()} == {"tokens.json", "datasets"}
    assert {path.name for path in tmp_path.iterdir()} == {"hub", "log", "work"}


def test_requests_one_after_another_on_one_connection_are_all_answered(own_hub: HubProcess) -> None:
    """What is left of one request must not become the beginning of the next."""
    name = own_hub.new_repository()
    draw = random.Random(7)
    for _ in range(REQUESTS // 20):
        first = request("POST", f"/api/datasets/{name}/paths-info/main", body=some_body(draw), Connection="keep-alive")
        said = send(own_hub.endpoint, first + request("GET", f"/api/datasets/{name}/refs"))
        assert said is not None
        assert said.status in (200, 400, 413)
    assert parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").content == b"{}"
