"""`easyteacache-hub verify --signature`: who signed the index of a folder, checked from a bundle beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from easyteacache.errors import MissingPackage
from easyteacache.hub import signature
from easyteacache.registry import index

from .conftest import Program, build_folder, build_record

SIGNER = "https://github.com/owner/repo/.github/workflows/release.yml@refs/tags/v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = build_folder(tmp_path / "registry", build_record())
    (made / signature.BUNDLE_NAME).write_text('{"signed": true}')
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes, str, str]]:
    """What the verifier was asked; it believes what says that it is signed."""
    found: list[tuple[bytes, bytes, str, str]] = []

    def verify(content: bytes, bundle: bytes, signer: str, issuer: str) -> str | None:
        found.append((content, bundle, signer, issuer))
        return None if bundle == b'{"signed": true}' and signer == SIGNER else "the certificate names somebody else"

    monkeypatch.setattr(signature, "_sigstore", lambda: verify)
    return found


def test_a_folder_is_signed_by_its_index_and_the_bundle_beside_it(
    folder: Path, run_hub: Program, asked: list[Any]
) -> None:
    result = run_hub("verify", folder, "--signature", "--signer", SIGNER)
    assert result.exit_code == 0, result.output
    content = (folder / index.FILE_NAME).read_bytes()
    assert asked == [(content, b'{"signed": true}', SIGNER, signature.GITHUB)]


def test_the_bundle_is_no_record_of_the_folder(folder: Path, run_hub: Program) -> None:
    assert run_hub("verify", folder, "--strict").exit_code == 0
    assert index.read(folder) == index.build(folder)


def test_another_signer_or_issuer_is_refused_with_the_rule(folder: Path, run_hub: Program, asked: list[Any]) -> None:
    result = run_hub(
        "verify", folder, "--signature", "--signer", "eve@example.com", "--issuer", "https://eve", "--json"
    )
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["folders"][0]["findings"]
    assert finding["rule"] == "index.signature"
    assert "not signed by eve@example.com" in finding["message"]
    assert asked[0][3] == "https://eve"


@pytest.mark.parametrize("damage", ["missing", "too large", "a folder", "no index"])
def test_what_cannot_be_checked_is_not_signed(damage: str, folder: Path, run_hub: Program, asked: list[Any]) -> None:
    bundle = folder / signature.BUNDLE_NAME
    if damage == "no index":
        (folder / index.FILE_NAME).unlink()
    else:
        bundle.unlink()
    if damage == "too large":
        bundle.write_bytes(b" " * (signature.MAX_BUNDLE_BYTES + 1))
    if damage == "a folder":
        bundle.mkdir()
    result = run_hub("verify", folder, "--signature", "--signer", SIGNER)
    assert result.exit_code == 1
    assert "[index.signature]" in result.output
    assert asked == []


def test_a_signature_does_not_excuse_a_changed_record(folder: Path, run_hub: Program, asked: list[Any]) -> None:
    path = folder / "tiny" / "video.json"
    path.write_text(path.read_text().replace("A tiny video model", "A tiny video modem"))
    result = run_hub("verify", folder, "--signature", "--signer", SIGNER)
    assert result.exit_code == 1
    assert "[index.sha256]" in result.output


@pytest.mark.parametrize("arguments", [("--signature",), ("--signature", "--signer", SIGNER)])
def test_who_must_have_signed_and_what_is_named(arguments: tuple[str, ...], folder: Path, run_hub: Program) -> None:
    paths = [folder] if len(arguments) == 1 else []
    result = run_hub("verify", *paths, *arguments)
    assert result.exit_code == 2
    assert "needs folders and --signer" in result.output


def test_without_the_package_its_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run_hub: Program
) -> None:
    monkeypatch.setitem(sys.modules, "sigstore.errors", None)
    with pytest.raises(MissingPackage, match=r"easyteacache\[signature\]"):
        signature.check(folder, signer=SIGNER)
    result = run_hub("verify", folder, "--signature", "--signer", SIGNER)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert run_hub("verify", folder).exit_code == 0


@pytest.mark.parametrize(
    "bundle", ["", "{", "{}", "[]", '{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}', "\x00"]
)
def test_a_bundle_that_is_none_is_one_sentence_of_the_real_package(bundle: str, folder: Path) -> None:
    pytest.importorskip("sigstore")
    (folder / signature.BUNDLE_NAME).write_text(bundle)
    found = signature.check(folder, signer=SIGNER)
    assert found is not None
    assert found.rule == "index.signature"
    assert "\n" not in found.message
