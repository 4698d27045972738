"""Tiers of evidence are earned: verified comes with a signature of somebody else over the block and the numbers, on other prompts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from easyteacache.cli.hub import main as hub
from easyteacache.errors import HubError, InvalidCalibration
from easyteacache.hub.claims import FILE_NAME, Signer, Verifiers, hashes_digest, prompts_digest, statement
from easyteacache.hub.review import check_evidence
from easyteacache.records.calibration import Calibration
from easyteacache.records.evidence import Evidence
from easyteacache.records.trace_set import TraceSet

from ..conftest import build_folder
from ..solved import KEY, Solved

BY = "A. Verifier"
PRIVATE = prompts_digest(["a prompt", "another"])
Change = Callable[[dict[str, Any]], object]


def key_pair(folder: Path, name: str) -> tuple[Path, str]:
    """A private key's file, and the public one as ssh writes it."""
    key = Ed25519PrivateKey.generate()
    path = folder / name
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return path, public.decode()


@pytest.fixture
def mine(tmp_path: Path) -> tuple[Signer, Verifiers, str]:
    path, public = key_pair(tmp_path, "verifier")
    return Signer(path), Verifiers({BY: (public,)}), f"{BY}\t{public} a comment\n"


def block(**changes: Any) -> Evidence:
    values = {
        "kind": "verified",
        "how": "measured",
        "metric": "relative-l2",
        "value": 0.01,
        "p50": 0.01,
        "p90": 0.02,
        "worst": 0.03,
        "runs": 2,
        "prompts_sha256": PRIVATE,
        "by": BY,
        "date": "2026-11-28",
    }
    return Evidence(**{**values, **changes})


def claiming(record: Calibration, signer: Signer | None, evidence: Evidence) -> Calibration:
    """The record whose first point claims ``evidence``."""
    bucket = record.buckets[0]
    point = bucket.operating_points[0]
    if signer is not None:
        evidence = signer.signed(record, bucket, point, evidence)
    return edited(record, lambda one: one["evidence"].insert(0, evidence.model_dump(mode="json")))


def edited(record: Calibration, change: Change) -> Calibration:
    content = json.loads(record.to_json())
    change(content["buckets"][0]["operating_points"][0])
    return Calibration.from_mapping(content)


def rules(record: Calibration, verifiers: Verifiers | None, **options: Any) -> list[str]:
    return [finding.rule for finding in check_evidence.check(record, "file", verifiers=verifiers, **options)]


def test_a_signed_block_of_a_listed_verifier_is_earned(mine: Any, solved: Solved) -> None:
    signer, verifiers, _ = mine
    assert rules(claiming(solved.record, signer, block()), verifiers) == []


def test_a_block_without_a_signature_is_refused(mine: Any, solved: Solved) -> None:
    assert rules(claiming(solved.record, None, block()), mine[1]) == ["evidence.unsigned"]


@pytest.mark.parametrize(
    ("field", "value"), [("value", 0.001), ("worst", 0.5), ("runs", 200), ("date", "2026-11-27"), ("speedup", 9.0)]
)
def test_an_edited_block_is_refused(field: str, value: Any, mine: Any, solved: Solved) -> None:
    signer, verifiers, _ = mine
    changed = edited(
        claiming(solved.record, signer, block()), lambda one: one["evidence"][0].update({field: value, "p50": None})
    )
    assert rules(changed, verifiers) == ["evidence.signature"]


def test_numbers_that_changed_since_are_refused(mine: Any, solved: Solved) -> None:
    signer, verifiers, _ = mine
    content = json.loads(claiming(solved.record, signer, block()).to_json())
    content["buckets"][0]["coefficients"][-1] *= 1.001
    assert rules(Calibration.from_mapping(content), verifiers) == ["evidence.signature"]


def test_a_block_of_another_point_is_refused(mine: Any, solved: Solved) -> None:
    signer, verifiers, _ = mine
    first, second, *_ = solved.record.buckets[0].operating_points
    signed = signer.signed(solved.record, solved.record.buckets[0], second, block())
    moved = edited(solved.record, lambda one: one["evidence"].insert(0, signed.model_dump(mode="json")))
    assert first != second
    assert rules(moved, verifiers) == ["evidence.signature"]


def test_words_that_decide_nothing_may_change(mine: Any, solved: Solved) -> None:
    signer, verifiers, _ = mine
    record = claiming(solved.record, signer, block())
    assert rules(record.model_copy(update={"title": "Another", "revision": 7, "notes": ("One.",)}), verifiers) == []


def test_who_is_not_listed_and_whose_key_it_is_not_are_refused(mine: Any, solved: Solved, tmp_path: Path) -> None:
    signer, _, _ = mine
    other = key_pair(tmp_path, "other")[1]
    record = claiming(solved.record, signer, block())
    assert rules(record, Verifiers({})) == ["evidence.verifier"]
    assert rules(record, Verifiers({BY: (other,)})) == ["evidence.signature"]


def test_the_author_cannot_verify_a_record_of_their_own(mine: Any, solved: Solved) -> None:
    signer, verifiers, _ = mine
    author = solved.record.provenance.author
    listed = Verifiers({author or "": verifiers.keys[BY]})
    assert rules(claiming(solved.record, signer, block(by=author)), listed) == ["evidence.verifier"]


def test_the_records_own_prompts_are_refused_in_any_order(mine: Any, solved: Solved) -> None:
    signer, verifiers, _ = mine
    own = {run.header.prompt_sha256 or "" for run in TraceSet.load(solved.traces)}
    record = claiming(solved.record, signer, block(prompts_sha256=hashes_digest(sorted(own, reverse=True))))
    assert rules(record, verifiers, prompts=own) == ["evidence.own-prompts"]


def test_submitted_evidence_without_traces_is_refused(solved: Solved) -> None:
    record = edited(solved.record, lambda one: None)
    bare = record.model_copy(
        update={"status": "draft", "provenance": record.provenance.model_copy(update={"traces": ()})}
    )
    assert set(rules(bare, None)) == {"evidence.untraced"}


def test_without_verifiers_signatures_are_left_unjudged(mine: Any, solved: Solved) -> None:
    assert rules(claiming(solved.record, mine[0], block()), None) == []


def test_a_prompt_list_is_named_by_its_prompts() -> None:
    assert prompts_digest(["b", "a", "a"]) == prompts_digest(["a", "b"])
    assert prompts_digest(["a"]) != prompts_digest(["a", "b"])


def test_a_statement_names_its_purpose_and_holds_no_signature(mine: Any, solved: Solved) -> None:
    bucket = solved.record.buckets[0]
    signed = mine[0].signed(solved.record, bucket, bucket.operating_points[0], block())
    said = json.loads(statement(solved.record, bucket, bucket.operating_points[0], signed))
    assert said["purpose"] == "easyteacache-claim-1"
    assert "signature" not in said["evidence"]
    assert said["record"]["model_key"] == KEY


@pytest.mark.parametrize("line", ["no tab ssh-ed25519 AAAA", "name\tssh-rsa AAAA", "\tssh-ed25519 AAAA", "name\t"])
def test_a_line_of_verifiers_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(InvalidCalibration, match=r"line 2: expected a name, a tab and a key"):
        Verifiers.parse(f"# comment\n{line}\n", "verifiers.txt")


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    with pytest.raises(HubError, match="cannot be read as a private key"):
        Signer(tmp_path / "key")


@pytest.mark.parametrize(
    ("change", "rule"), [("none", None), ("edit", "evidence.signature"), ("strip", "evidence.unsigned")]
)
def test_a_review_judges_by_the_verifiers_of_what_is_published(
    change: str, rule: str | None, mine: Any, solved: Solved, tmp_path: Path
) -> None:
    signer, _, listed = mine
    build_folder(tmp_path / "base", solved.changed(model_key="known/model"))
    shutil.copytree(tmp_path / "base", tmp_path / "registry")
    (tmp_path / "base" / FILE_NAME).write_text(listed)
    (tmp_path / "registry" / FILE_NAME).write_text(listed)
    record = claiming(solved.record, signer, block())
    if change == "edit":
        record = edited(record, lambda one: one["evidence"][0].update(runs=99))
    if change == "strip":
        record = edited(record, lambda one: one["evidence"][0].pop("signature"))
    build_folder(tmp_path / "registry", solved.changed(model_key="known/model"), record)
    options = ["--registry", tmp_path / "registry", "--base-folder", tmp_path / "base", "--traces", solved.traces]
    result = CliRunner().invoke(hub, ["review", *map(str, options), "--root", str(tmp_path)])
    assert result.exit_code == (1 if rule else 0), result.output
    assert (f"`{rule}`" in result.output) if rule else ("evidence." not in result.output)


def test_a_change_cannot_appoint_who_vouches_for_it(mine: Any, solved: Solved, tmp_path: Path) -> None:
    signer, _, listed = mine
    build_folder(tmp_path / "base", solved.changed(model_key="known/model"))
    record = claiming(solved.record, signer, block())
    build_folder(tmp_path / "registry", solved.changed(model_key="known/model"), record)
    (tmp_path / "registry" / FILE_NAME).write_text(listed)
    options = ["--registry", tmp_path / "registry", "--base-folder", tmp_path / "base", "--traces", solved.traces]
    result = CliRunner().invoke(hub, ["review", *map(str, options), "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert "`evidence.verifier`" in result.output
