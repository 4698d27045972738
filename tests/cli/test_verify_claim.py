"""`easyteacache-hub verify-claim` repeats a record's points with a model, on prompts of its own, and signs what they gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from easyteacache.cli.hub import main as hub
from easyteacache.hub.claims import Verifiers, prompts_digest
from easyteacache.hub.review import check_evidence
from easyteacache.records.calibration import load

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "registry" / "reference" / "moving-digits.json"
TRACES = ROOT / "tests" / "fixtures" / "traces" / "reference"
CHOSEN = ["--steps", "25", "--sequence-length", "64", "--speedup", "5"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "private.txt"
    path.write_text("digit 3 up\n8 left\n\n8 left\n", encoding="utf-8")
    return path


def run(prompts: Path, *options: str | Path) -> tuple[int, str]:
    fixed = ["verify-claim", RECORD, "--model", "reference", "--prompts", prompts, "--by", "A. Verifier"]
    result = CliRunner().invoke(hub, [*map(str, (*fixed, *CHOSEN, *options))])
    return result.exit_code, result.output


@pytest.mark.slow
def test_points_are_repeated_and_signed(prompts: Path, tmp_path: Path) -> None:
    prompts.write_text("3 up\n8 left\n\n8 left\n", encoding="utf-8")
    key = Ed25519PrivateKey.generate()
    file, out = tmp_path / "key", tmp_path / "verified.json"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    file.write_bytes(key.private_bytes(*form))
    code, output = run(prompts, "--sign", file, "--seed", "7", "--date", "2026-11-28", "--out", out, "--json")
    told = json.loads(output)
    assert (code, told["signed"], told["prompts_sha256"]) == (0, True, prompts_digest(["3 up", "8 left"]))
    record, before = load(out), load(RECORD)
    blocks = [p.evidence[0] for b in record.buckets for p in b.operating_points if p.strongest == "verified"]
    assert len(blocks) == len(told["points"]) > 0
    for block in blocks:
        assert (block.runs, block.by, block.date, block.how) == (2, "A. Verifier", "2026-11-28", "measured")
        assert block.value is not None
        assert 0 < block.value < 0.5
    assert record.model_copy(update={"buckets": before.buckets}) == before
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    listed = Verifiers({"A. Verifier": (public.decode(),)})
    assert list(check_evidence.check(record, "file", verifiers=listed)) == []


def test_prompts_of_the_records_own_traces_are_refused(prompts: Path, tmp_path: Path) -> None:
    from easyteacache.records.trace_set import TraceSet

    prompts.write_text(next(iter(TraceSet.load(TRACES))).header.prompt or "", encoding="utf-8")
    code, output = run(prompts, "--traces", TRACES, "--out", tmp_path / "x.json")
    assert code == 2
    assert "in what the record was made with" in output


def test_an_empty_list_and_a_point_that_is_not_there_are_refused(prompts: Path, tmp_path: Path) -> None:
    code, output = run(prompts, "--speedup", "77", "--steps", "3", "--out", tmp_path / "x.json")
    assert (code, "has no such point" in output) == (2, True)
    prompts.write_text("\n", encoding="utf-8")
    code, output = run(prompts, "--out", tmp_path / "x.json")
    assert (code, "found none" in output) == (2, True)


def test_a_record_of_a_layer_is_not_changed_in_place(prompts: Path) -> None:
    options = ["--model", "reference", "--prompts", str(prompts), "--by", "A. Verifier"]
    result = CliRunner().invoke(hub, ["verify-claim", "reference/moving-digits", *options])
    assert (result.exit_code, "--out" in result.output) == (2, True)
