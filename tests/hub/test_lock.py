"""The lock: every lookup finds the content it pins or fails, and nothing it says is trusted beyond that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from easyteacache.errors import InvalidCalibration
from easyteacache.hub.downloads import Downloads
from easyteacache.hub.store import Store
from easyteacache.registry import lock_file
from easyteacache.registry.registry import Registry

from .conftest import Program, Pull, build_folder, build_record
from .fault_proxy import FaultProxy
from .hub_process import TOKENS, HubProcess


def test_a_lock_makes_every_lookup_find_that_content_or_fail(
    pull: Pull, upstream: Path, hub_process: HubProcess, repository: str, run_hub: Program
) -> None:
    pull()
    assert run_hub("lock", "tiny/video").exit_code == 0
    assert Registry.default()["tiny/video"].revision == 1
    build_folder(upstream, build_record(revision=2))
    hub_process.publish(repository, upstream)
    pull()
    with pytest.raises(InvalidCalibration, match="pull --locked") as failure:
        Registry.default().find("tiny/video")
    assert failure.value.rule == "lock.sha256"
    assert run_hub("lock", "--check").exit_code == 1
    assert run_hub("pull", "--locked").exit_code == 0
    assert Registry.default()["tiny/video"].revision == 1
    assert run_hub("lock", "--check").exit_code == 0


def test_a_lock_does_not_say_where_a_token_is_sent(
    pull: Pull, upstream: Path, proxy: FaultProxy, run_hub: Program, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_hub("pull", "tiny/video", "--endpoint", proxy.endpoint, "--repo", repository)
    run_hub("lock", "tiny/video")
    shutil.rmtree(Store().home)
    shutil.rmtree(Downloads().folder)
    monkeypatch.setenv("EASYTEACACHE_TOKEN", TOKENS["reader"])
    proxy.tokens.clear()
    assert run_hub("pull", "--locked").exit_code == 0
    assert proxy.tokens
    assert set(proxy.tokens) == {None}
    shutil.rmtree(Store().home)
    shutil.rmtree(Downloads().folder)
    assert run_hub("pull", "--locked", "--endpoint", proxy.endpoint).exit_code == 0
    assert f"Bearer {TOKENS['reader']}" in proxy.tokens


def test_a_lock_prefers_the_layer_that_holds_its_content(
    pull: Pull, upstream: Path, run_hub: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull()
    run_hub("lock", "tiny/video")
    build_folder(Store().home / "local", build_record(revision=7))
    assert Registry.default().find("tiny/video").layer == "pulled"
    monkeypatch.setenv("EASYTEACACHE_LOCK", "")
    assert Registry.default().find("tiny/video").layer == "local"


def test_a_key_that_the_lock_does_not_list_is_refused(pull: Pull, upstream: Path, run_hub: Program) -> None:
    pull()
    run_hub("lock", "tiny/video")
    with pytest.raises(InvalidCalibration, match="lock far/image") as failure:
        Registry.default().find("far/image")
    assert failure.value.rule == "lock.unlisted"
    assert run_hub("lock", "far/image").exit_code == 0
    assert Registry.default()["far/image"].title == "Far"


def test_iterating_gives_what_the_lock_lists_and_never_fails(
    pull: Pull, upstream: Path, hub_process: HubProcess, repository: str, run_hub: Program
) -> None:
    pull()
    run_hub("lock", "tiny/video", "far/image")
    build_folder(upstream, build_record(revision=2))
    hub_process.publish(repository, upstream)
    pull()
    registry = Registry.default()
    assert list(registry) == ["far/image"]
    assert [registry[key].model_key for key in registry] == ["far/image"]
    assert len(registry) == 1
    assert "far/image" in registry
    assert "tiny/video" not in registry
    assert "wan2.1/t2v-14b" not in registry
    assert registry.missing() == ["tiny/video"]
    with pytest.raises(InvalidCalibration, match="does not list"):
        registry.get("wan2.1/t2v-14b")


def test_list_says_that_a_lock_limits_it_and_what_is_missing(run_hub: Program) -> None:
    run_hub("lock", "wan2.1/t2v-14b")
    lock = lock_file.read(lock_file.FILE_NAME)
    absent = lock.records["wan2.1/t2v-14b"].model_copy(update={"sha256": "0" * 64})
    lock_file.write(lock_file.FILE_NAME, lock.model_copy(update={"records": {**lock.records, "tiny/video": absent}}))
    listed = run_hub("list")
    assert listed.exit_code == 0
    assert "1 record" in listed.stdout
    assert "Only what easyteacache.lock pins is listed" in listed.stderr
    assert "tiny/video: not on this machine" in " ".join(listed.stderr.split())
    content = json.loads(run_hub("list", "--json").stdout)
    assert (content["lock"], content["missing"]) == ("easyteacache.lock", ["tiny/video"])
    assert len(json.loads(run_hub("list", "--source", "bundled", "--json").stdout)["records"]) > 50
    assert "what it does not list is refused" in run_hub("where").stdout


def test_the_demo_says_how_to_lock_its_record(run_hub: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from easyteacache.cli.main import main

    run_hub("lock", "wan2.1/t2v-14b")
    refused = CliRunner().invoke(main, ["demo"])
    assert refused.exit_code == 1
    for advice in ("`easyteacache-hub lock reference/moving-digits`", "EASYTEACACHE_LOCK= to do without"):
        assert advice in refused.stderr


def test_a_bundled_record_can_be_locked_by_its_content(run_hub: Program) -> None:
    assert run_hub("lock", "wan2.1/t2v-14b").exit_code == 0
    (one,) = lock_file.read(lock_file.FILE_NAME).records.values()
    assert one.repository is None
    assert Registry.default().find("wan2.1/t2v-14b").layer == "bundled"


def test_from_registry_obeys_the_lock(pull: Pull, upstream: Path, run_hub: Program) -> None:
    from easyteacache import TeaCache

    pull()
    run_hub("lock", "tiny/video")
    TeaCache.from_registry("tiny/video", sequence_length=100, num_steps=20)
    with pytest.raises(InvalidCalibration, match="does not list"):
        TeaCache.from_registry("far/image", sequence_length=100, num_steps=20)


def test_a_damaged_lock_is_an_error_not_an_empty_lock(run_hub: Program) -> None:
    Path(lock_file.FILE_NAME).write_text('{"lock_version": 1, "records": {"tiny/video": {}}}')
    with pytest.raises(InvalidCalibration, match="sha256: missing"):
        Registry.default().find("wan2.1/t2v-14b")
    assert run_hub("lock", "--check").exit_code == 1
