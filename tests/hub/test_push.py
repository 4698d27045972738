"""`easyteacache-hub push` against a served hub: one request or none, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyteacache.errors import HubError
from easyteacache.hub import push as pushing
from easyteacache.hub.remote import Remote
from easyteacache.records.calibration import Calibration, save

from .conftest import Program
from .fault_proxy import Fault, FaultProxy
from .hub_process import TOKENS, HubProcess
from .solved import KEY, Solved, solve_small

DATASET = {"repo_type": "dataset"}
Push = Callable[..., Any]


@pytest.fixture
def push(run_hub: Program, hub_process: HubProcess, repository: str, monkeypatch: pytest.MonkeyPatch) -> Push:
    monkeypatch.setenv("EASYTEACACHE_REPOSITORY", repository)
    monkeypatch.setenv("EASYTEACACHE_TOKEN", TOKENS["contributor"])
    return lambda *arguments: run_hub("push", *arguments, "--endpoint", hub_process.endpoint)


def requests(hub: HubProcess, repository: str, status: str = "open") -> list[Any]:
    return list(hub.api().get_repo_discussions(repository, discussion_status=status, **DATASET))


def merged(hub: HubProcess, repository: str, number: int) -> None:
    hub.api().merge_pull_request(repository, number, **DATASET)


def state(result: Any) -> str:
    return str(json.loads(result.stdout)["state"])


def rules(result: Any) -> list[str]:
    return [finding["rule"] for finding in json.loads(result.stdout)["findings"]]


def test_a_push_is_one_request_with_record_traces_page_and_index(
    push: Push, solved: Solved, hub_process: HubProcess, repository: str
) -> None:
    result = push(solved.path, "--traces", solved.traces)
    assert result.exit_code == 0, result.output
    assert "/discussions/1" in result.output
    (request,) = requests(hub_process, repository)
    assert request.title == f"Calibration: {KEY}"
    files = hub_process.api().list_repo_files(repository, revision="refs/pr/1", **DATASET)
    assert files == [
        "cards/test/smooth.md",
        "cards/test/smooth.svg",
        "index.json",
        "test/smooth.json",
        "traces/test/smooth/smooth.safetensors",
    ]
    assert hub_process.api().list_repo_files(repository, **DATASET) == []
    details = hub_process.api().get_discussion_details(repository, 1, **DATASET)
    assert "Validation on runs it had not seen" in details.events[0].content
    assert details.conflicting_files == []


def test_the_same_content_opens_nothing_new_and_a_change_updates(
    push: Push, solved: Solved, hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    assert state(push(solved.path, "--traces", solved.traces, "--json")) == "opened"
    assert state(push(solved.path, "--traces", solved.traces, "--json")) == "unchanged"
    save(solved.changed(notes=["A better explanation."]), tmp_path / "again.json")
    assert state(push(tmp_path / "again.json", "--traces", solved.traces, "--json")) == "updated"
    assert len(requests(hub_process, repository)) == 1
    merged(hub_process, repository, 1)
    assert state(push(tmp_path / "again.json", "--traces", solved.traces, "--json")) == "published"


def test_a_dry_run_sends_nothing(push: Push, solved: Solved, hub_process: HubProcess, repository: str) -> None:
    result = push(solved.path, "--traces", solved.traces, "--dry-run")
    assert "traces/test/smooth/smooth.safetensors" in result.output
    assert requests(hub_process, repository, "all") == []


def refused(solved: Solved, **changes: Any) -> Calibration:
    return solved.changed(**changes)


def without(record: Calibration, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(record.to_json())["provenance"]
    del content[name]
    return content


def wrong_coefficients(record: Calibration) -> list[dict[str, Any]]:
    buckets: list[dict[str, Any]] = json.loads(record.to_json())["buckets"]
    buckets[0]["coefficients"] = [value * 1.5 for value in buckets[0]["coefficients"]]
    return buckets


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("submission.status", lambda record: {"status": "draft"}),
        ("submission.license", lambda record: {"provenance": without(record, "license")}),
        ("submission.provenance", lambda record: {"provenance": without(record, "author")}),
        ("fit.not-reproduced", lambda record: {"buckets": wrong_coefficients(record)}),
    ],
)
def test_a_refusal_names_its_rule_and_sends_nothing(
    rule: str,
    changes: Callable[[Calibration], dict[str, Any]],
    push: Push,
    solved: Solved,
    hub_process: HubProcess,
    repository: str,
    tmp_path: Path,
) -> None:
    save(solved.changed(**changes(solved.record)), tmp_path / "bad.json")
    result = push(tmp_path / "bad.json", "--traces", solved.traces, "--json")
    assert result.exit_code == 1
    assert rule in rules(result)
    assert requests(hub_process, repository, "all") == []


def test_without_its_traces_a_record_is_refused(push: Push, solved: Solved) -> None:
    assert rules(push(solved.path, "--json")) == ["submission.trace-missing"]


def test_a_base_that_was_yanked_is_refused(
    push: Push, solved: Solved, hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    yanked = solved.changed(status="yanked", retirement={"date": "2026-01-03", "reason": "Wrong."})
    from .conftest import build_folder

    hub_process.publish(repository, build_folder(folder, yanked))
    save(solved.changed(revision=2), tmp_path / "next.json")
    assert rules(push(tmp_path / "next.json", "--traces", solved.traces, "--json")) == ["submission.yanked-base"]


def test_a_record_that_is_new_to_a_hub_keeps_the_revision_it_has_elsewhere(
    push: Push, solved: Solved, hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    save(solved.changed(revision=7), tmp_path / "known.json")
    assert state(push(tmp_path / "known.json", "--traces", solved.traces, "--json")) == "opened"
    merged(hub_process, repository, 1)
    for revision in (7, 9):
        save(solved.changed(revision=revision, notes=["More."]), tmp_path / "next.json")
        assert rules(push(tmp_path / "next.json", "--traces", solved.traces, "--json")) == ["submission.revision"]


def test_a_worse_record_needs_a_reason(
    push: Push,
    solved: Solved,
    hub_process: HubProcess,
    repository: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from easyteacache.cli import judging
    from easyteacache.solver.validation.verdict import Finding, Report

    push(solved.path, "--traces", solved.traces)
    merged(hub_process, repository, 1)

    def worse(record: Calibration, traces: object, incumbent: Calibration | None) -> Report:
        assert incumbent == solved.record
        return Report(record.model_key, (Finding("incumbent.better", False, "64 tokens", 1.4, "1.4 times its error"),))

    monkeypatch.setattr(judging, "judge_of", lambda: worse)
    save(solved.changed(revision=2, notes=["Worse."]), tmp_path / "worse.json")
    assert rules(push(tmp_path / "worse.json", "--traces", solved.traces, "--json")) == ["incumbent.better"]
    forced = push(tmp_path / "worse.json", "--traces", solved.traces, "--force-reason", "Smaller domain.", "--json")
    assert state(forced) == "opened"
    text = hub_process.api().get_discussion_details(repository, 2, **DATASET).events[0].content
    assert "Smaller domain." in text


# Rights and faults ---------------------------------------------------------------------------------------------------


def test_without_a_token_nothing_is_sent(push: Push, solved: Solved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EASYTEACACHE_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_of_another_hub")
    result = push(solved.path, "--traces", solved.traces)
    assert result.exit_code == 1
    assert "no token for http://" in result.output
    assert "hf_of_another_hub" not in result.output


@pytest.mark.parametrize(
    ("token", "reason"), [(TOKENS["reader"], "does not allow"), ("token-of-nobody", "your token is not known")]
)
def test_a_token_without_rights_is_said_to_lack_them_and_never_shown(
    token: str, reason: str, push: Push, solved: Solved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EASYTEACACHE_TOKEN", token)
    result = push(solved.path, "--traces", solved.traces)
    assert result.exit_code == 1
    assert reason in result.output
    assert token not in result.output


def test_a_gated_repository_is_said_to_be_gated(
    push: Push, solved: Solved, hub_process: HubProcess, repository: str
) -> None:
    (hub_process.folder / "datasets" / f"{repository}.git" / "gated").write_text("maintainer\n")
    result = push(solved.path, "--traces", solved.traces)
    assert result.exit_code == 1
    assert "access is restricted" in result.output


@pytest.fixture(scope="session")
def accept() -> Callable[..., Any]:
    """A judge that lets everything pass: these tests are about the network."""
    from easyteacache.solver.validation.verdict import Report

    return lambda record, traces, incumbent: Report(record.model_key, ())


@pytest.fixture
def through(proxy: FaultProxy, repository: str, solved: Solved, accept: Any) -> Callable[..., tuple[Any, list[float]]]:
    """Push through the proxy with planted faults; returns what was sent and the pauses made."""

    def run(*faults: Fault) -> tuple[Any, list[float]]:
        pauses: list[float] = []
        remote = Remote(repository, endpoint=proxy.endpoint, token=TOKENS["contributor"], wait=pauses.append)
        proposal = pushing.prepare(remote, {"record.json": solved.path.read_bytes()}, [solved.traces], judge=accept)
        proxy.faults = list(faults)
        return pushing.send(remote, proposal, wait=pauses.append), pauses

    return run


COMMIT = r"POST .*/commit/"


def test_a_busy_hub_is_asked_again_after_the_time_it_names(
    through: Callable[..., Any], hub_process: HubProcess, repository: str
) -> None:
    sent, pauses = through(Fault(COMMIT, 429, times=2))
    assert sent.state == "opened"
    assert len(requests(hub_process, repository)) == 1
    assert pauses == [7, 7]


@pytest.mark.parametrize("action", ["drop", "lose", 503])
def test_a_connection_lost_in_the_middle_of_a_commit_opens_one_request(
    action: int | str, through: Callable[..., Any], hub_process: HubProcess, repository: str
) -> None:
    sent, _ = through(Fault(COMMIT, action))
    assert sent.state == ("unchanged" if action == "lose" else "opened")
    assert len(requests(hub_process, repository)) == 1


def test_a_hub_that_stays_busy_ends_in_an_error_and_nothing_published(
    through: Callable[..., Any], hub_process: HubProcess, repository: str
) -> None:
    with pytest.raises(HubError, match="too many requests"):
        through(Fault(COMMIT, 429, times=99))
    assert requests(hub_process, repository, "all") == []


def test_a_request_whose_branch_moved_is_read_again(
    through: Callable[..., Any], hub_process: HubProcess, repository: str, solved: Solved, accept: Any
) -> None:
    through()
    remote = Remote(repository, endpoint=hub_process.endpoint, token=TOKENS["contributor"])
    data = solved.changed(notes=["Changed."]).to_json().encode()
    proposal = pushing.prepare(remote, {"record.json": data}, [solved.traces], judge=accept)
    real, moved = remote.commit, []

    def commit_after_another(*arguments: Any, **options: Any) -> str:
        if not moved:
            moved.append(True)
            from huggingface_hub import CommitOperationAdd

            hub_process.api().create_commit(
                repository, [CommitOperationAdd("note", b"x")], commit_message="x", revision="refs/pr/1", **DATASET
            )
        return real(*arguments, **options)

    remote.commit = commit_after_another  # type: ignore[method-assign]
    assert pushing.send(remote, proposal).state == "updated"
    assert len(requests(hub_process, repository)) == 1


def test_a_request_that_can_no_longer_be_merged_is_replaced(
    hub_process: HubProcess, repository: str, solved: Solved, accept: Any
) -> None:
    remote = Remote(repository, endpoint=hub_process.endpoint, token=TOKENS["contributor"])
    record = {"record.json": solved.path.read_bytes()}
    pushing.send(remote, pushing.prepare(remote, record, [solved.traces], judge=accept))
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd("test/smooth.json", b"{}")]
    hub_process.api().create_commit(repository, operations, commit_message="Other", **DATASET)
    proposal = pushing.prepare(remote, record, [solved.traces], judge=accept)
    assert pushing.send(remote, proposal).state == "opened"
    assert {request.num: request.status for request in requests(hub_process, repository, "all")} == {
        1: "closed",
        2: "open",
    }


def test_several_records_go_into_one_request(
    push: Push, solved: Solved, hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    other = solve_small(tmp_path / "other", key="test/rough", first_seed=50)
    result = push(solved.path, other.path, "--traces", solved.traces, "--traces", other.traces)
    assert result.exit_code == 0, result.output
    (request,) = requests(hub_process, repository)
    assert request.title == "Calibration: test/rough, test/smooth"
