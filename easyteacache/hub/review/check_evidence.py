"""Is every tier of evidence earned? Submitted comes with its traces, verified with the signature of somebody else."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from easyteacache.hub.claims import Verifiers, hashes_digest
from easyteacache.hub.review.check_record import Finding
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.records.evidence import Evidence


def check(
    record: Calibration, where: str, *, verifiers: Verifiers | None, prompts: Collection[str] = ()
) -> Iterator[Finding]:
    """What is wrong with the tiers that a record claims.

    Args:
        record: the record.
        where: named in findings.
        verifiers: whose signatures count, those of what is published; None leaves signatures unjudged.
        prompts: SHA-256 of every prompt that the record's traces were recorded with, where they are at hand.
    """
    own = {record.provenance.prompt_set_sha256, hashes_digest(prompts) if prompts else None}
    for b, bucket in enumerate(record.buckets):
        for p, point in enumerate(bucket.operating_points):
            for e, evidence in enumerate(point.evidence):
                pointer = f"/buckets/{b}/operating_points/{p}/evidence/{e}"
                if evidence.kind == "submitted" and not record.provenance.traces:
                    message = "submitted evidence without traces; name and attach those that it was found on"
                    yield Finding("evidence.untraced", where, f"{pointer}/kind", message)
                if evidence.kind == "verified":
                    yield from _verified(record, bucket, point, evidence, verifiers, own, where, pointer)


def _verified(
    record: Calibration,
    bucket: Bucket,
    point: OperatingPoint,
    evidence: Evidence,
    verifiers: Verifiers | None,
    own: Collection[str | None],
    where: str,
    pointer: str,
) -> Iterator[Finding]:
    if evidence.prompts_sha256 in own:
        message = "these are the prompts that the record was made with; verify it on others"
        yield Finding("evidence.own-prompts", where, f"{pointer}/prompts_sha256", message)
    if evidence.by == record.provenance.author:
        message = f"{evidence.by!r} is the record's author; somebody else must repeat it"
        yield Finding("evidence.verifier", where, f"{pointer}/by", message)
    if evidence.signature is None:
        message = "verified without a signature; `easyteacache-hub verify-claim --sign KEY` writes a signed block"
        yield Finding("evidence.unsigned", where, pointer, message)
    elif verifiers is not None and evidence.by not in verifiers.keys:
        message = f"{evidence.by!r} is not among the registry's verifiers (verifiers.txt)"
        yield Finding("evidence.verifier", where, f"{pointer}/by", message)
    elif verifiers is not None and not verifiers.signed(record, bucket, point, evidence):
        message = (
            f"{evidence.by!r} did not sign this: the block or the numbers were changed since, or the key is another's"
        )
        yield Finding("evidence.signature", where, f"{pointer}/signature", message)
