"""A model as data: what its page shows, for programs. ``docs/catalogue.md`` describes the form."""

from __future__ import annotations

from typing import Any, Final

from easyteacache.catalogue.models import Model
from easyteacache.catalogue.setting import Setting

VERSION: Final = 1


def endpoint(model: Model) -> dict[str, Any]:
    """The content of ``models/KEY/model.json``."""
    return {
        "catalogue_version": VERSION,
        "model": model.key,
        "title": model.title,
        "evidence": None if not model.tier.rank else model.tier.name,
        "speedup": model.speed,
        "engines": list(model.engines),
        "records": [
            {
                "key": record.key,
                "revision": record.calibration.revision,
                "status": record.calibration.status,
                "method": record.calibration.method,
                "file": f"records/{record.path}",
                "borrowings": list(record.borrowings),
                "refused": {one.engine: one.reason for one in record.refused},
            }
            for record in model.records
        ],
        "settings": [_setting(one) for one in model.settings],
        "frontier": {
            chart.name: [one.dot.target for one in chart.dots if one.best]
            for chart in model.charts
            if chart.more is not None
        },
    }


def _setting(one: Setting) -> dict[str, Any]:
    bucket, point = one.bucket, one.point
    found = {
        "id": one.name,
        "record": one.record.model_key,
        "sequence_length": bucket.sequence_length,
        "num_steps": bucket.num_steps,
        "shift": bucket.shift,
        "sampler": None if bucket.sampler is None else bucket.sampler.name,
        "threshold": None if point is None else point.threshold,
        "computed": None if point is None or point.schedule is None else list(point.schedule),
        "computed_steps": None if point is None else point.computed_steps,
        "preset": None if point is None or point.preset is None else point.preset.model_dump(mode="json"),
        "speedup": one.speed,
        "speedup_is": None if one.speed is None else ("stated" if one.stated else "steps / computed steps"),
        "evidence": [evidence.model_dump(mode="json", exclude_none=True) for evidence in one.evidence],
        "use": one.usage.code,
        "engines": one.engines,
    }
    return {name: value for name, value in found.items() if value is not None}
