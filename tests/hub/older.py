"""Records as an older release wrote them: version 2 of the format, which is still read."""

from __future__ import annotations

import json
from typing import Any

from easyteacache.files import strict_json
from easyteacache.records.calibration import Calibration


def version_2(record: Calibration) -> str:
    """The text of ``record`` in version 2, without what that version could not say: its sampler."""
    content = json.loads(record.to_json()) | {"schema_version": 2}
    for bucket in content["buckets"]:
        bucket.pop("sampler", None)
        bucket["operating_points"] = [_point(one) for one in bucket.get("operating_points", [])]
    return strict_json.spell(content)


def _point(new: dict[str, Any]) -> dict[str, Any]:
    plan = new.get("plan", {})
    (evidence,) = new["evidence"]
    old = {
        "threshold": new.get("threshold"),
        "schedule": plan.get("computed"),
        "forecaster": plan.get("predictor", new.get("predictor")),
        "coordinate": plan.get("coordinate", new.get("coordinate")),
        "applied_to": plan.get("applied_to", new.get("applied_to")),
        "computed_steps": new.get("computed_steps"),
        "speedup": evidence.get("speedup"),
        "error": {"mean": evidence["value"], "p90": evidence.get("p90"), "runs": evidence.get("runs")},
        "evidence": evidence["how"],
    }
    old["error"] = {name: value for name, value in old["error"].items() if value is not None}
    return {name: value for name, value in old.items() if value is not None}


def upgraded(record: Calibration) -> Calibration:
    """``record`` as this release reads what an older one would have written of it."""
    return Calibration.from_json(version_2(record))
