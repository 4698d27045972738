"""`easyteacache-hub push --local`: records that were made on this machine, their traces without prompts, and what is missing of the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from easyteacache.calibrating.filing import file_record, path_in_local
from easyteacache.calibrating.trace_store import TraceStore, folder_of
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace_set import TraceSet

from .hub_process import TOKENS, HubProcess
from .solved import KEY, Solved, build_run

DATASET = {"repo_type": "dataset"}


@pytest.fixture
def push(run_hub: Any, hub_process: HubProcess, repository: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("EASYTEACACHE_REPOSITORY", repository)
    monkeypatch.setenv("EASYTEACACHE_TOKEN", TOKENS["contributor"])
    return lambda *arguments: run_hub("push", "--local", *arguments, "--endpoint", hub_process.endpoint)


@pytest.fixture
def made_here(solved: Solved) -> Solved:
    """The record in the local layer, its traces where ``calibrate`` puts them; it names no licence and nobody."""
    origin = solved.record.provenance.model_copy(update={"license": None, "author": None})
    file_record(solved.record.model_copy(update={"provenance": origin}))
    shutil.copytree(solved.traces, folder_of(KEY, kind="calibrated"))
    return solved


def content(result: Any) -> dict[str, Any]:
    return dict(json.loads(result.stdout))


def sent_traces(hub: HubProcess, repository: str, tmp_path: Path) -> TraceSet:
    for name in hub.api().list_repo_files(repository, revision="refs/pr/1", **DATASET):
        if name.endswith(".safetensors"):
            found = hub.api().hf_hub_download(
                repository, name, revision="refs/pr/1", local_dir=tmp_path / "sent", **DATASET
            )
    return TraceSet.load(Path(found).parent)


def test_a_record_made_here_is_sent_with_its_traces_and_without_a_word_of_a_prompt(
    push: Any, made_here: Solved, hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    result = push("--license", "CC0-1.0", "--author", "A tester", "--json")
    assert result.exit_code == 0, result.output
    found = content(result)
    assert found["state"] == "opened"
    assert found["unsent"] == []
    (told,) = found["prompts"]
    assert told["key"] == KEY
    assert all(one.startswith("hash ") or one == "nothing is known of it" for one in told["told"])
    sent = sent_traces(hub_process, repository, tmp_path)
    assert len(sent) == len(TraceSet.load(made_here.traces))
    assert {run.header.prompt for run in sent} == {None}
    assert {run.content_id for run in sent} == {run.content_id for run in TraceSet.load(made_here.traces)}


def test_texts_are_sent_where_that_is_asked_for(
    push: Any, made_here: Solved, hub_process: HubProcess, repository: str, tmp_path: Path
) -> None:
    result = push("--license", "CC0-1.0", "--author", "A tester", "--publish-prompts")
    assert result.exit_code == 0, result.output
    assert "text 'prompt" in result.output
    assert all(run.header.prompt for run in sent_traces(hub_process, repository, tmp_path))


def test_what_is_missing_is_said(push: Any, made_here: Solved) -> None:
    found = content(push("--json"))
    assert found["state"] == "nothing"
    assert found["unsent"] == [
        {"key": KEY, "why": "it has no license: pass --license; it has no author: pass --author"}
    ]
    shutil.rmtree(folder_of(KEY, kind="calibrated"))
    (one,) = content(push("--json", "--license", "CC0-1.0", "--author", "A"))["unsent"]
    assert "trace files are not on this machine" in one["why"]
    assert (
        content(push("--json", "--license", "CC0-1.0", "--author", "A", "--traces", made_here.traces))["unsent"] == []
    )


def test_runs_that_are_still_recorded_say_how_many_more_it_takes(push: Any) -> None:
    store = TraceStore("test/working/teacache-12-steps")
    for seed in range(4):
        store.add(build_run(seed))
    (one,) = content(push("--json", "--dry-run"))["unsent"]
    assert one == {"key": "test/working/teacache-12-steps", "why": "two more runs to record (4 so far)"}
    result = push("--dry-run")
    assert result.exit_code == 0
    assert "Nothing can be sent yet." in result.output


def test_a_record_that_does_not_pass_keeps_nobody_else_from_being_sent(push: Any, made_here: Solved) -> None:
    bad = json.loads(made_here.record.to_json()) | {"model_key": "test/other"}
    file_record(Calibration.from_mapping(bad))
    found = content(push("--json", "--license", "CC0-1.0", "--author", "A", "--dry-run"))
    assert [one["key"] for one in found["unsent"]] == ["test/other"]
    assert found["state"] == "dry-run"
    path_in_local("test/other").write_text("{")
    found = content(push("--json", "--license", "CC0-1.0", "--author", "A", "--dry-run"))
    assert "damaged" in found["unsent"][0]["why"]


def test_one_key_alone_can_be_chosen(push: Any, made_here: Solved) -> None:
    assert content(push("--json", "--dry-run", "--key", "test/nothing"))["unsent"] == []


def test_a_machine_that_made_nothing_says_so(push: Any) -> None:
    assert "Nothing was made on this machine yet." in push("--dry-run").output


@pytest.mark.parametrize("arguments", [[], ["--license", "CC0-1.0", "FILE"], ["--local", "FILE"]])
def test_files_and_this_machines_own_exclude_each_other(run_hub: Any, solved: Solved, arguments: list[str]) -> None:
    result = run_hub("push", *(solved.path if one == "FILE" else one for one in arguments))
    assert result.exit_code == 2
    assert "--local" in result.output
