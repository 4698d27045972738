"""What has moved since a record was made, asked of a hub that stands in; nothing is taken for fresh that was not asked."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from easyteacache.cli.hub import main as hub
from easyteacache.hub.staleness import MOST_FILES, NotKnown, Place, Staleness, places_of
from easyteacache.records.calibration import Calibration, save

from .conftest import build_record
from .liar import liar, reply

OLD, NEW = "a" * 40, "b" * 40
CHECKPOINT = Place("tiny/video", "checkpoint", "org/model", OLD)
SOURCE = Place("tiny/video", "source", "org/code", OLD, "src/numbers.py")


def asked_of(answers: dict[str, Any]) -> Staleness:
    def ask(address: str) -> Any:
        found = answers[address]
        if isinstance(found, Exception):
            raise found
        return found

    return Staleness(hub="http://hub", sources_api="http://code/", ask=ask)


MODEL = "http://hub/api/models/org/model/revision/main"
COMPARED = f"http://code/repos/org/code/compare/{OLD}...HEAD"


@pytest.mark.parametrize(("now", "state"), [(OLD, "fresh"), (NEW, "moved")])
def test_a_checkpoint_has_moved_where_main_stands_elsewhere(now: str, state: str) -> None:
    found = asked_of({MODEL: {"sha": now}}).standing(CHECKPOINT)
    assert (found.state, found.now) == (state, now)


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"sha": ' + b"9" * 5000 + b"}", b'{"sha": NaN}', b"\xff", b"", b'{"sha": "\\ud800"}', b"null", b"[1]"],
)  # fmt: skip
def test_an_answer_that_is_no_answer_leaves_a_place_unknown(content: bytes) -> None:
    with liar(lambda _, connection: connection.sendall(reply(content))) as api:
        places = Staleness(hub=api.endpoint, sources_api=api.endpoint)
        assert places.standing(CHECKPOINT).state == "unknown"
        assert places.standing(SOURCE).state == "unknown"


def test_names_of_files_that_are_no_text_are_no_files() -> None:
    files = [{"filename": ["src/numbers.py"]}, {"filename": {}}, {"filename": None}, 5]
    assert asked_of({COMPARED: {"commits": [{"sha": NEW}], "files": files}}).standing(SOURCE).state == "fresh"


def test_a_short_commit_of_the_same_begins_it() -> None:
    place = Place("tiny/video", "checkpoint", "org/model", OLD[:8])
    assert asked_of({MODEL: {"sha": OLD}}).standing(place).state == "fresh"


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ([{"filename": "src/numbers.py"}], "moved"),
        ([{"filename": "src/new.py", "previous_filename": "src/numbers.py"}], "moved"),
        ([{"filename": "README.md"}], "fresh"),
        ([], "fresh"),
        ([{"filename": f"{i}"} for i in range(MOST_FILES)], "unknown"),
    ],
)
def test_a_source_has_moved_where_its_file_was_changed(files: list[Any], state: str) -> None:
    answer = {"commits": [{"sha": NEW}], "files": files}
    assert asked_of({COMPARED: answer}).standing(SOURCE).state == state


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (Place("k", "checkpoint", "org/model", None), "names no commit"),
        (Place("k", "checkpoint", "../etc", OLD), "no repository"),
        (Place("k", "source", "org/code", "release 1.0", "x"), "is no commit"),
    ],
)
def test_what_cannot_be_asked_is_not_known(place: Place, reason: str) -> None:
    found = asked_of({}).standing(place)
    assert found.state == "unknown"
    assert reason in (found.reason or "")


@pytest.mark.parametrize("answer", [NotKnown("no answer"), {"sha": 7}, [], None, {"sha": "not hexadecimal"}])
def test_an_answer_that_is_none_is_not_taken_for_fresh(answer: Any) -> None:
    assert asked_of({MODEL: answer}).standing(CHECKPOINT).state == "unknown"


def test_offline_asks_nobody() -> None:
    found = Staleness(offline=True, ask=lambda address: pytest.fail(address)).standing(CHECKPOINT)
    assert (found.state, found.reason) == ("unknown", "offline, nobody was asked")


def test_the_same_question_is_asked_once() -> None:
    asked: list[str] = []

    def ask(address: str) -> Any:
        asked.append(address)
        return {"sha": OLD}

    staleness = Staleness(ask=ask)
    assert [staleness.standing(CHECKPOINT).state for _ in range(3)] == ["fresh"] * 3
    assert len(asked) == 1


def made() -> Calibration:
    record = json.loads(build_record().to_json())
    record["model"] = {"checkpoint": "org/model", "checkpoint_commit": OLD}
    record["provenance"]["sources"] = [
        {"repository": "org/code", "path": "src/numbers.py", "commit": OLD},
        {"note": "A letter."},
    ]
    return Calibration.from_mapping(record)


def test_a_record_names_its_checkpoint_and_its_sources() -> None:
    assert list(places_of(made())) == [CHECKPOINT, SOURCE]


@pytest.fixture
def server() -> Iterator[str]:
    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/api/models/org/model/revision/main": {"sha": NEW}}
            content = json.dumps(known.get(self.path, {})).encode()
            self.send_response(200 if self.path in known else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_the_command_asks_the_given_addresses(server: str, tmp_path: Any) -> None:
    save(made(), tmp_path / "tiny" / "video.json")
    options = ["--registry", str(tmp_path), "--hub", server, "--sources-api", server]
    result = CliRunner().invoke(hub, ["stale", *options, "--json"])
    told = json.loads(result.output)
    assert result.exit_code == 1
    assert (told["moved"], told["fresh"], told["unknown"]) == (1, 0, 1)
    assert [place["state"] for place in told["places"]] == ["moved", "unknown"]
    assert "no such repository" in told["places"][1]["reason"]


def test_the_command_says_offline_what_it_cannot_know(tmp_path: Any) -> None:
    save(made(), tmp_path / "tiny" / "video.json")
    result = CliRunner().invoke(hub, ["stale", "--registry", str(tmp_path), "--offline"])
    assert result.exit_code == 0
    assert "0 moved, 0 fresh, 2 not known." in result.output
    assert "offline, nobody" in result.output
