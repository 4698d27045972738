"""Signed claims: who repeated an operating point on prompts that its submitter never saw, and on what.

A verifier signs with an Ed25519 key, an ordinary one of ``ssh-keygen -t ed25519``. The registry lists whose signatures count in
``verifiers.txt``, one a line: a name, a tab, and the public key as ssh writes it. What is signed is the block of evidence and everything that
decides what the point does, so that neither can be changed afterwards.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyteacache.errors import HubError, InvalidCalibration, MissingPackage
from easyteacache.records import parsing
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.records.evidence import Evidence

FILE_NAME = "verifiers.txt"
MAX_BYTES = 1 << 20
#: First words of what is signed: a signature for another purpose is none for this one.
PURPOSE = "easyteacache-claim-1"
_KIND = "ssh-ed25519"
# What decides nothing of what a point does.
_DESCRIPTIVE = frozenset(
    {"revision", "status", "title", "aliases", "buckets", "provenance", "retirement", "notes", "schema_version"}
)


def prompts_digest(prompts: Iterable[str]) -> str:
    """SHA-256 that names a set of prompts: of their own SHA-256 hashes, each once, sorted, one a line.

    The order, and how often a prompt stands in the list, make no other set.
    """
    return hashes_digest(hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts)


def hashes_digest(hashes: Iterable[str]) -> str:
    """``prompts_digest`` where the prompts are known by their hashes alone, as traces keep them."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(set(hashes))).encode()).hexdigest()


def statement(record: Calibration, bucket: Bucket, point: OperatingPoint, evidence: Evidence) -> bytes:
    """What a verifier signs: canonical JSON of the evidence and of all that decides what ``point`` does.

    Fields at their defaults are left out, so that a field that the format gains later changes no statement.
    """
    content = {
        "purpose": PURPOSE,
        "record": _plain(record.model_dump(mode="json", exclude=set(_DESCRIPTIVE), exclude_defaults=True)),
        "bucket": _plain(bucket.model_dump(mode="json", exclude={"operating_points"}, exclude_defaults=True)),
        "point": _plain(point.model_dump(mode="json", exclude={"evidence"}, exclude_defaults=True)),
        "evidence": _plain(evidence.model_dump(mode="json", exclude={"signature"}, exclude_defaults=True)),
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    return dict(content)


class Signer:
    """A verifier's own key.

    Args:
        path: private key as ssh-keygen writes it, of kind ed25519.
        password: of the file, where it has one.

    Raises:
        MissingPackage: ``cryptography`` is not installed.
        HubError: the file is no such key.
    """

    def __init__(self, path: Path, password: str | None = None) -> None:
        ed25519, serialization = _cryptography("signing a claim")
        try:
            data = parsing.read_file(path, rules="key", max_bytes=MAX_BYTES)
            key = serialization.load_ssh_private_key(data, None if password is None else password.encode())
        except (InvalidCalibration, ValueError, TypeError) as error:
            raise HubError(str(path), f"cannot be read as a private key of ssh: {error}") from error
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise HubError(str(path), "is no ed25519 key; make one with `ssh-keygen -t ed25519`")
        self._key = key

    def signed(self, record: Calibration, bucket: Bucket, point: OperatingPoint, evidence: Evidence) -> Evidence:
        """``evidence`` with this verifier's signature."""
        made = self._key.sign(statement(record, bucket, point, evidence))
        content = evidence.model_dump(mode="json", exclude_none=True)
        return Evidence.model_validate_json(json.dumps({**content, "signature": base64.b64encode(made).decode()}))


@dataclass(frozen=True)
class Verifiers:
    """Whose signatures count.

    Attributes:
        keys: name → public keys, as ssh writes them; a person may have had several.
    """

    keys: Mapping[str, tuple[str, ...]]

    @classmethod
    def parse(cls, text: str, where: str) -> Verifiers:
        """Read ``verifiers.txt``; empty lines and those that begin with ``#`` say nothing.

        Raises:
            InvalidCalibration: a line is not a name, a tab and an ed25519 key.
        """
        keys: dict[str, tuple[str, ...]] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, key = line.partition("\t")
            parts = key.split()
            if not name.strip() or len(parts) < 2 or parts[0] != _KIND:
                reason = f"line {number}: expected a name, a tab and a key that begins with {_KIND!r}"
                raise InvalidCalibration(where, reason, rule="verifiers.form")
            keys[name.strip()] = (*keys.get(name.strip(), ()), " ".join(parts[:2]))
        return cls(keys)

    @classmethod
    def read(cls, folder: Path) -> Verifiers:
        """Those of a registry folder; nobody where it names none.

        Raises:
            InvalidCalibration: the file is unreadable or of another form.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return cls({})
        data = parsing.read_file(path, rules="verifiers", max_bytes=MAX_BYTES)
        return cls.parse(data.decode("utf-8", "replace"), str(path))

    def signed(self, record: Calibration, bucket: Bucket, point: OperatingPoint, evidence: Evidence) -> bool:
        """Whether the one whom ``evidence`` names signed it, for these numbers.

        Raises:
            MissingPackage: ``cryptography`` is not installed.
        """
        ed25519, serialization = _cryptography("checking a verifier's signature")
        from cryptography.exceptions import InvalidSignature

        said = statement(record, bucket, point, evidence)
        for line in self.keys.get(evidence.by or "", ()):
            try:
                key = serialization.load_ssh_public_key(line.encode())
                if isinstance(key, ed25519.Ed25519PublicKey):
                    key.verify(base64.b64decode(evidence.signature or ""), said)
                    return True
            except (InvalidSignature, ValueError):
                continue
        return False


def _cryptography(purpose: str) -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingPackage("cryptography", purpose, "pip install 'easyteacache[signature]'") from error
    return ed25519, serialization
