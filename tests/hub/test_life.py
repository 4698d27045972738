"""The life of a published record: compared, updated, deprecated, yanked, and its history."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easyteacache.errors import EasyTeaCacheError
from easyteacache.hub.review.record_diff import predicted_steps
from easyteacache.records.calibration import SCHEMA_VERSION, load, save
from easyteacache.registry import index
from easyteacache.registry.registry import Registry

from ..older_records import written_by_version
from .conftest import Program, build_folder, build_record
from .hub_process import TOKENS, HubProcess
from .solved import Solved

DATASET = {"repo_type": "dataset"}


@pytest.fixture
def hub(
    run_hub: Program, hub_process: HubProcess, repository: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    monkeypatch.setenv("EASYTEACACHE_REPOSITORY", repository)
    monkeypatch.setenv("EASYTEACACHE_TOKEN", TOKENS["contributor"])
    return lambda *arguments: run_hub(*arguments, "--endpoint", hub_process.endpoint)


@pytest.fixture
def upstream(tmp_path: Path, hub_process: HubProcess, repository: str, solved: Solved) -> Path:
    validated = solved.changed(model_key="tiny/video")
    folder = build_folder(tmp_path / "upstream", validated, build_record("tiny/draft"))
    hub_process.publish(repository, folder, "First")
    return folder


def refit(**changes: Any) -> Any:
    content = json.loads(build_record().to_json())
    content["buckets"][0] |= {"coefficients": [3.0, 0.5], **changes}
    return build_record(revision=2, buckets=content["buckets"], notes=["Refitted."])


def test_diff_shows_coefficients_side_by_side_and_every_point(tmp_path: Path, run_hub: Program) -> None:
    save(build_record(), tmp_path / "a.json")
    points = json.loads(build_record().to_json())["buckets"][0]["operating_points"]
    points[0]["computed_steps"] = 12
    points[0]["evidence"][0]["value"] = 0.015
    save(refit(operating_points=points[:1]), tmp_path / "b.json")
    result = run_hub("diff", tmp_path / "a.json", tmp_path / "b.json", "--json")
    assert result.exit_code == 1
    changes = {one["where"]: (one["before"], one["after"]) for one in json.loads(result.stdout)["changes"]}
    bucket = "100 tokens, 20 steps, shift 3"
    assert changes["revision"] == ("1", "2")
    assert changes["notes"] == (None, "Refitted.")
    assert changes[f"{bucket}: coefficient of x^1"] == ("2", "3")
    assert changes[f"{bucket}: coefficient of x^0"] == ("0", "0.5")
    # Means over x in [0.1, 0.5] of 2x and 3x + 0.5: 0.6 and 1.4.
    assert changes[f"{bucket}: predicted change, mean over the domain"] == ("1", "2.333")
    assert changes[f"{bucket}: threshold 0.1, hold of residual"] == (
        "14 computed steps, 1.43×, error 0.02",
        "12 computed steps, 1.43×, error 0.015",
    )
    assert changes[f"{bucket}: threshold 0.3, hold of residual"] == ("8 computed steps, 2.5×, error 0.08", None)


FITTED = {
    "schedule": [0, 2],
    "forecaster": "fitted",
    "applied_to": "output",
    "weights": [[1.0], [1.0], [-0.5, 1.5], [1.25]],
    "error": {"mean": 0.02},
    "evidence": "replayed",
}


def fitted(weights: list[list[float]], **changes: Any) -> Any:
    bucket = {
        "num_steps": 4,
        "coefficients": [2.0, 0.0],
        "operating_points": [FITTED | {"weights": weights, "computed_steps": 2} | changes],
    }
    return build_record(schema_version=2, buckets=[bucket])


def test_fitted_weights_are_summed_up(tmp_path: Path, run_hub: Program) -> None:
    save(fitted([[1.0], [1.0], [-0.5, 1.5], [1.25]]), tmp_path / "a.json")
    save(fitted([[1.0], [1.0], [-0.53, 1.5], [0.01, 1.25]]), tmp_path / "b.json")
    save(fitted([[1.0], [1.0], [-0.5, 1.5], [1.0]], error={"mean": 0.01}), tmp_path / "c.json")

    def changes(a: str, b: str) -> list[tuple[str, str, str]]:
        found = json.loads(run_hub("diff", tmp_path / a, tmp_path / b, "--json").stdout)["changes"]
        return [(one["where"], one["before"], one["after"]) for one in found]

    point = "any length, 4 steps: schedule of 2, fitted of output"
    weights = "any length, 4 steps: weights of schedule of 2"
    summed = (weights, "4 steps", "2 changed, largest difference 0.03")
    assert changes("a.json", "b.json") == [summed]
    assert changes("a.json", "c.json") == [
        (point, "2 computed steps, error 0.02", "2 computed steps, error 0.01"),
        (weights, "4 steps", "1 changed, largest difference 0.25"),
    ]
    assert "largest difference 0.03" in " ".join(
        run_hub("diff", tmp_path / "a.json", tmp_path / "b.json").stdout.split()
    )


def test_equal_records_have_no_difference(tmp_path: Path, run_hub: Program) -> None:
    save(build_record(), tmp_path / "a.json")
    result = run_hub("diff", tmp_path / "a.json", tmp_path / "a.json")
    assert result.exit_code == 0
    assert "No difference" in result.output


def test_keys_can_be_compared(run_hub: Program) -> None:
    result = run_hub("diff", "wan2.1/t2v-14b", "wan2.1/t2v-14b/no-retention")
    assert result.exit_code == 1
    assert "coefficient of x^4" in result.output


def test_a_threshold_is_replayed_on_the_sigma_profile() -> None:
    profile = {"sigmas": [1.0, 0.75, 0.5, 0.25], "distances": [0.0, 0.2, 0.4, 0.6]}
    record = refit(num_steps=4, operating_points=[], sigma_profile=profile)
    assert predicted_steps(record.buckets[0], 0.1) == 4
    assert predicted_steps(record.buckets[0], 0.3) == 2
    assert predicted_steps(record.buckets[0], 9.0) == 1
    assert predicted_steps(refit().buckets[0], 0.3) is None


def test_update_shows_what_changed_and_installs_it_only_when_told(
    hub: Callable[..., Any], upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    hub("pull")
    build_folder(upstream, refit(), build_record("tiny/draft"))
    hub_process.publish(repository, upstream, "Second")
    result = hub("update")
    assert result.exit_code == 0, result.output
    assert "tiny/video: revision 1 → 2" in result.output
    assert "1 of 2 pulled records changed" in result.output
    assert Registry.default()["tiny/video"].revision == 1
    shown = json.loads(hub("update", "--apply", "--json").stdout)
    assert [one["key"] for one in shown["records"]] == ["tiny/video"]
    assert Registry.default()["tiny/video"].revision == 2
    assert "0 of 2" in hub("update").output


def test_update_says_when_only_the_version_of_the_format_differs(
    hub: Callable[..., Any], upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    path = upstream / "tiny" / "draft.json"
    path.write_text(written_by_version(load(path), 2))
    index.write(upstream, index.build(upstream))
    hub_process.publish(repository, upstream, "As an older release wrote it")
    assert hub("pull").exit_code == 0
    assert Registry.default()["tiny/draft"].schema_version == SCHEMA_VERSION
    save(Registry.default()["tiny/draft"], path)
    index.write(upstream, index.build(upstream))
    hub_process.publish(repository, upstream, "Written anew")
    result = hub("update")
    assert "tiny/draft: revision 1 → 1" in result.output
    assert "Only the way it is written differs." in result.output


def test_the_log_names_the_commits_that_changed_the_record(
    hub: Callable[..., Any], upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    build_folder(upstream, build_record("tiny/new"))
    hub_process.publish(repository, upstream, "Something else")
    build_folder(upstream, refit())
    hub_process.publish(repository, upstream, "Second")
    commits = json.loads(hub("log", "tiny/video", "--json").stdout)["commits"]
    assert [(one["title"], one["revision"]) for one in commits] == [("Second", 2), ("First", 1)]
    assert commits[0]["authors"] == ["maintainer"]
    assert json.loads(hub("pull", "tiny/video", "--revision", commits[1]["commit"], "--json").stdout)
    assert Registry.default()["tiny/video"].revision == 1
    assert "no calibration named 'tiny/absent'" in hub("log", "tiny/absent").output


def test_a_yanked_record_is_an_error_unless_allowed(
    hub: Callable[..., Any], upstream: Path, hub_process: HubProcess, repository: str
) -> None:
    from easyteacache import TeaCache

    result = hub("yank", "tiny/video", "--reason", "Fitted to the wrong signal.")
    assert result.exit_code == 0, result.output
    hub_process.api().merge_pull_request(repository, 1, **DATASET)
    hub("pull")
    record = Registry.default()["tiny/video"]
    assert (record.status, record.revision) == ("yanked", 2)
    assert record.retirement is not None
    assert record.retirement.reason == "Fitted to the wrong signal."
    with pytest.raises(EasyTeaCacheError, match="yanked"):
        TeaCache.from_registry("tiny/video", sequence_length=64, num_steps=12)
    TeaCache.from_registry("tiny/video", sequence_length=64, num_steps=12, allow_yanked=True)
    assert hub("yank", "tiny/absent", "--reason", "x").exit_code == 1


def test_a_damaged_record_beside_it_leaves_no_retirement_half_made(upstream: Path, run_hub: Program) -> None:
    before = index.read(upstream)
    assert before is not None
    (upstream / "tiny" / "draft.json").write_text("{")
    done = run_hub("yank", "tiny/video", "--reason", "Wrong.", "--registry", upstream)
    assert done.exit_code == 0, done.output
    after = index.read(upstream)
    assert after is not None
    assert after.records["tiny/draft"] == before.records["tiny/draft"]
    assert after.records["tiny/video"].status == load(upstream / "tiny" / "video.json").status == "yanked"


def test_a_folder_is_changed_in_place_with_its_index(upstream: Path, run_hub: Program) -> None:
    done = run_hub("deprecate", "tiny/video", "--reason", "Old.", "--replacement", "tiny/draft", "--registry", upstream)
    assert done.exit_code == 0, done.output
    record = load(upstream / "tiny" / "video.json")
    assert (record.status, record.revision) == ("deprecated", 2)
    assert run_hub("verify", upstream, "--strict").exit_code == 0
    assert Registry.from_folder(upstream)["tiny/video"].retirement is not None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("tiny/draft", "--reason", "x"), "status is 'deprecated'; after draft"),
        (("tiny/video", "--reason", "x", "--replacement", "tiny/absent"), "is not published"),
        (("tiny/video", "--reason", "x", "--replacement", "Bad Key"), "not a model key"),
        (("tiny/absent", "--reason", "x"), "holds no 'tiny/absent'"),
    ],
)
def test_a_retirement_that_breaks_a_rule_changes_nothing(
    arguments: tuple[str, ...], reason: str, upstream: Path, run_hub: Program
) -> None:
    before = {path: path.read_bytes() for path in upstream.rglob("*.json")}
    result = run_hub("deprecate", *arguments, "--registry", upstream)
    assert result.exit_code == 1
    assert reason in result.output
    assert {path: path.read_bytes() for path in upstream.rglob("*.json")} == before


def test_a_former_key_leads_to_the_renamed_record(tmp_path: Path) -> None:
    renamed = build_record("tiny/renamed", aliases=[{"kind": "former_key", "value": "tiny/old-name"}])
    found = Registry.from_folder(build_folder(tmp_path / "r", renamed)).find("tiny/old-name")
    assert found.calibration.model_key == "tiny/renamed"
    assert "former key" in found.notes[0]
    assert index.read(tmp_path / "r") is not None


def test_update_of_what_was_never_pulled_is_an_error(run_hub: Program) -> None:
    result = run_hub("update", "tiny/absent", "--repo", "team/x")
    assert result.exit_code == 1
    assert "no calibration named 'tiny/absent' in the pulled layer" in result.output


def test_a_hub_that_is_gone_is_said_to_be_without_a_minute_of_retries(
    run_hub: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("easyteacache.hub.remote.RETRIES", 1)
    monkeypatch.setattr("time.sleep", waits.append)
    result = run_hub("log", "tiny/video", "--repo", "team/x", "--endpoint", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "cannot be reached" in result.output
    assert sum(waits) < 10
