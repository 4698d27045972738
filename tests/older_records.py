"""Records as older releases wrote them: what version 3 says, in the words of version 1 or 2, as far as they had any."""

from __future__ import annotations

from typing import Any

from easyteacache.records import version_2
from easyteacache.records.calibration import Calibration
from easyteacache.records.evidence import RELATIVE_L2
from easyteacache.records.operating_point import OperatingPoint

_GONE = {"model", "schema_version"}


def written_by_version(record: Calibration, version: int) -> str:
    """The file of ``version`` that says of ``record`` what that version could say; plans without a predictor correct."""
    content = record.model_dump(mode="json", exclude=_GONE, exclude_none=True) | {"schema_version": version}
    told = {} if record.model is None else record.model.model_dump(mode="json", exclude_none=True)
    for place, names in (
        ("provenance", ("checkpoint", "checkpoint_commit")),
        ("conditions", ("dtype", "quantization")),
    ):
        content[place] |= {name: told[name] for name in names if name in told}
    for bucket, own in zip(content["buckets"], record.buckets, strict=True):
        bucket.pop("sampler", None)
        bucket["operating_points"] = [_point(point) for point in own.operating_points]
    if version == 1:
        content = version_2.from_1(content, "an older record")
    return version_2.canonical(content, version, where="an older record")


def _point(point: OperatingPoint) -> dict[str, Any]:
    (evidence,) = point.evidence
    found: dict[str, Any] = {
        "threshold": point.threshold,
        "schedule": None if point.schedule is None else list(point.schedule),
        "forecaster": point.forecaster,
        "coordinate": point.coordinate,
        "applied_to": point.applied_to,
        "weights": None if point.weights is None else [list(row) for row in point.weights],
        "computed_steps": point.computed_steps,
        "evidence": evidence.how,
    }
    found |= {name: getattr(evidence, name) for name in ("speedup", "latency_seconds", "hardware", "note")}
    if evidence.metric == RELATIVE_L2:
        found["error"] = {"mean": evidence.value, "p90": evidence.p90, "runs": evidence.runs}
        found["error"] = {name: value for name, value in found["error"].items() if value is not None}
    return {name: value for name, value in found.items() if value is not None}
