"""Who signed a registry folder's index: a sigstore bundle beside it, checked without a network.

The index names every record by its hash, so that one signature holds for the whole folder. A bundle brings everything that is
needed: the signature, the signer's certificate, the proof that both were logged. What it is judged by, sigstore's own trusted
root, comes with the ``sigstore`` package, which is imported only here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from easyteacache.errors import InvalidCalibration, MissingPackage
from easyteacache.hub.review.check_record import Finding
from easyteacache.records import parsing
from easyteacache.registry import index

# No name of a record, which ends in ".json".
BUNDLE_NAME = f"{index.FILE_NAME}.sigstore"
MAX_BUNDLE_BYTES = 1 << 20
GITHUB = "https://token.actions.githubusercontent.com"
RULE = "index.signature"

# (content, bundle, signer, issuer) → why it is not signed so, None where it is
Verify = Callable[[bytes, bytes, str, str], str | None]


def check(folder: Path, *, signer: str, issuer: str = GITHUB, verify: Verify | None = None) -> Finding | None:
    """What is wrong with the signature of a folder's index; None where ``signer`` signed it.

    Args:
        folder: a registry folder.
        signer: identity in the certificate, for example the address of a workflow with its tag, or of a person's mail.
        issuer: who vouches for that identity; GitHub's workflows by default.
        verify: checks content and bundle; None: the sigstore package, offline.

    Raises:
        MissingPackage: sigstore is not installed.
    """
    verify = verify or _sigstore()
    where = os.fspath(folder / BUNDLE_NAME)
    try:
        content = parsing.read_file(folder / index.FILE_NAME, rules=index.RULES, max_bytes=index.MAX_INDEX_BYTES)
        bundle = parsing.read_file(where, rules="signature", max_bytes=MAX_BUNDLE_BYTES)
    except InvalidCalibration as error:
        return Finding(RULE, error.where, "", error.reason)
    reason = verify(content, bundle, signer, issuer)
    return None if reason is None else Finding(RULE, where, "", f"not signed by {signer}: {reason}")


def _sigstore() -> Verify:
    try:
        from sigstore.errors import Error
        from sigstore.models import Bundle
        from sigstore.verify import Verifier, policy
    except ImportError as error:
        advice = "pip install 'easyteacache[signature]'"
        raise MissingPackage("sigstore", "checking a signature", advice) from error

    # It warns at every call that it asks no network, which is what was asked of it.
    logging.getLogger("sigstore").setLevel(logging.ERROR)

    def verify(content: bytes, bundle: bytes, signer: str, issuer: str) -> str | None:
        try:
            verifier = Verifier.production(offline=True)
            wanted = policy.Identity(identity=signer, issuer=issuer)
            verifier.verify_artifact(content, Bundle.from_json(bundle), wanted)
        # Besides its own errors, what pydantic and cryptography say of a damaged bundle.
        except (Error, ValueError, TypeError, KeyError) as error:
            return " ".join(str(error).split())[:300] or type(error).__name__
        return None

    return verify
