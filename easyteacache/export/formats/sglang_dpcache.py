"""SGLang's DPCache: a schedule ``sglang-dpcache-schedule-v2`` for ``--dpcache-schedule-dir``.

A full step runs the blocks; every other one extrapolates the last block's output linearly over the step index from the two latest full
steps, element by element in bfloat16, branch by branch. A schedule is bound to one server and one request: pipeline, checkpoint, size,
guidance, attention backend and the very noise levels, compared exactly as single-precision numbers
(sgl-project/sglang, python/sglang/multimodal_gen/runtime/cache/dpcache.py at b9810f5f7847, ``validate_schedule``).

What a record knows of the request is written; the rest must come from the caller: the request block of any schedule that the server's own
calibration wrote, or these fields alone.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from easyteacache._version import __version__
from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import ORIGIN, origin
from easyteacache.files import strict_json
from easyteacache.records.fields import MAX_STEPS

SCHEMA = "sglang-dpcache-schedule-v2"
PREDICTOR = {"name": "final-feature-linear-extrapolation", "order": 1, "arithmetic": "feature-dtype-elementwise-v1"}
OBJECTIVE = "pact-mean-abs-final-feature-predicted-steps-only-v1"
#: The fields of a request, in the order SGLang writes them, and what each must be.
REQUEST: dict[str, type | tuple[type, ...]] = {
    "pipeline": str,
    "checkpoint": str,
    "num_inference_steps": int,
    "height": int,
    "width": int,
    "guidance_scale": (int, float),
    "do_classifier_free_guidance": bool,
    "quality": str,
    "attention_backend": (str, type(None)),
    "dtype": str,
    "scheduler": str,
    "scheduler_config_sha256": str,
    "timesteps": list,
    "sigmas": list,
}
REQUIRED = (
    "schema",
    "predictor",
    "objective",
    "source_commit",
    "request",
    "mandatory_full_steps",
    "force_last_full",
    "max_gap",
    "num_full_steps",
    "full_steps",
    "calibrated_cost",
    "calibration",
)
# Both steps that the first extrapolation needs.
MANDATORY = (0, 1)
TRAIN_TIMESTEPS = 1000.0
_HEX = frozenset("0123456789abcdef")


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """One schedule; the directory's file names are free."""
    assert numbers.schedule is not None
    request = _request(numbers)
    steps = request["num_inference_steps"]
    record = numbers.record.to_json()
    content = {
        ORIGIN: origin(numbers, remarks),
        "schema": SCHEMA,
        "schedule_method": f"easyteacache-{numbers.record.method}",
        "predictor": PREDICTOR,
        "objective": OBJECTIVE,
        "source_commit": f"easyteacache-{__version__}",
        "request": {name: request[name] for name in REQUEST},
        "mandatory_full_steps": list(MANDATORY),
        "force_last_full": numbers.schedule[-1] == steps - 1,
        "max_gap": None,
        "num_full_steps": len(numbers.schedule),
        "full_steps": list(numbers.schedule),
        # SGLang asks for a number and compares it with nothing.
        "calibrated_cost": 0.0,
        "calibration": {
            "manifest_sha256": hashlib.sha256(record.encode()).hexdigest(),
            "num_samples": 0,
            "note": "manifest_sha256 is that of the record this was exported from; calibrated_cost 0 and num_samples 0 stand for: "
            "not measured by SGLang.",
        },
    }
    return strict_json.spell(content)


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """What SGLang's validator would refuse, and what its arithmetic does otherwise."""
    if numbers.schedule is None:
        return
    if numbers.schedule[:2] != MANDATORY:
        yield Deviation(
            "plan",
            True,
            "SGLang extrapolates from two full steps, so that steps 0 and 1 are computed; this plan reuses step 1.",
        )
    known = _request(numbers)
    missing = [name for name in REQUEST if name not in known]
    if missing:
        yield Deviation(
            "server",
            True,
            f"A schedule is bound to one server and request, and nobody says {', '.join(missing)}. Pass --server FILE: a schedule "
            "that this server's calibration wrote, or a JSON object with these fields.",
        )
    else:
        wrong = next(_wrong_request(known), None)
        if wrong is not None:
            yield Deviation("server", True, f"{wrong[0].upper()}{wrong[1:]}.")
        elif known["num_inference_steps"] != numbers.num_steps:
            yield Deviation(
                "steps",
                True,
                f"The plan holds for {numbers.num_steps} steps, the server's request has {known['num_inference_steps']}.",
            )
    levels = _levels(numbers)
    if levels is not None and "sigmas" in numbers.server and not _same(levels, numbers.server["sigmas"]):
        yield Deviation(
            "signal",
            False,
            "The noise levels of the server's request are not those that the plan was made for; the server's are written.",
        )
    yield Deviation(
        "forecast", False, "SGLang extrapolates in bfloat16, element by element; here it is summed in single precision."
    )


def _request(numbers: Numbers) -> dict[str, Any]:
    """What is known of the request: of the caller first, then of the record."""
    record, bucket = numbers.record, numbers.bucket
    known: dict[str, Any] = {"num_inference_steps": numbers.num_steps, "height": bucket.height, "width": bucket.width}
    known["guidance_scale"] = record.conditions.guidance_scale
    if record.model is not None:
        known |= {"checkpoint": record.model.checkpoint_commit, "dtype": record.model.dtype}
    levels = _levels(numbers)
    if levels is not None and bucket.sampler is not None:
        known |= {"sigmas": levels, "timesteps": [_single(level * TRAIN_TIMESTEPS) for level in levels[:-1]]}
        known["scheduler"] = bucket.sampler.name
    known = {name: value for name, value in known.items() if value is not None}
    return known | {name: value for name, value in numbers.server.items() if name in REQUEST}


def _levels(numbers: Numbers) -> list[float] | None:
    sampler = numbers.bucket.sampler
    if sampler is None or sampler.levels is None or sampler.calls != numbers.num_steps:
        return None
    return [_single(level) for level in sampler.levels]


def _single(value: float) -> float:
    """The nearest single-precision number, as SGLang compares."""
    nearest: float = struct.unpack("f", struct.pack("f", value))[0]
    return nearest


def _same(a: Sequence[float], b: Any) -> bool:
    return isinstance(b, list) and len(a) == len(b) and all(x == _single(y) for x, y in zip(a, b, strict=True))


def server(text: str, where: str) -> dict[str, Any]:
    """What a caller's file says of the request: a whole schedule's block, or some of its fields.

    Raises:
        InvalidCalibration: it is no JSON object, or names none of the fields.
    """
    content = files.json_object(text, where)
    block = content.get("request", content)
    if not isinstance(block, dict) or not set(block) & set(REQUEST):
        raise files.refuse(where, f"names none of {', '.join(REQUEST)}")
    return {name: block[name] for name in REQUEST if name in block}


def read(text: str, where: str) -> Iterator[Parsed]:
    """The full steps of one schedule, checked by the rules of SGLang's own validator."""
    content = files.json_object(text, where)
    for reason in _wrong(content):
        raise files.refuse(where, reason)
    request = content["request"]
    yield Parsed(
        schedule=tuple(content["full_steps"]),
        forecaster="linear",
        applied_to="feature",
        num_steps=request["num_inference_steps"],
        height=request["height"],
        width=request["width"],
        levels=tuple(map(float, request["sigmas"])),
        sampler=request["scheduler"],
        guidance_scale=request["guidance_scale"],
        checkpoint_commit=request["checkpoint"],
        dtype=request["dtype"],
        branches=("cond", "uncond") if request["do_classifier_free_guidance"] else ("cond",),
        model_key=files.key_of_origin(content),
    )


def _wrong(content: Mapping[str, Any]) -> Iterator[str]:
    """Every rule of the format that a schedule breaks, the first ones first."""
    missing = [name for name in REQUIRED if name not in content]
    if missing:
        yield f"{', '.join(missing)} missing; a DPCache schedule has {', '.join(REQUIRED)}"
        return
    for name, expected in (("schema", SCHEMA), ("predictor", PREDICTOR), ("objective", OBJECTIVE)):
        if content[name] != expected:
            found = "another object" if isinstance(content[name], dict) else strict_json.shown(content[name])
            yield f"{name} is {found}, expected {expected!r}"
    if not isinstance(content["source_commit"], str) or not content["source_commit"]:
        yield f"source_commit is {strict_json.shown(content['source_commit'])}, expected text"
    yield from _wrong_calibration(content["calibration"], content["calibrated_cost"])
    request = content["request"]
    if not isinstance(request, dict):
        yield f"request is {strict_json.shown(request)}, expected an object"
        return
    extra, absent = sorted(set(request) - set(REQUEST)), [name for name in REQUEST if name not in request]
    if extra or absent:
        told = [f"{', '.join(absent)} missing"] * bool(absent) + [f"{', '.join(extra)[:200]} unknown"] * bool(extra)
        yield f"request: {'; '.join(told)}; expected exactly {', '.join(REQUEST)}"
        return
    wrong = list(_wrong_request(request))
    yield from wrong
    if not wrong:
        yield from _wrong_steps(content, request["num_inference_steps"])


def _wrong_calibration(calibration: Any, cost: Any) -> Iterator[str]:
    if not isinstance(calibration, dict):
        yield f"calibration is {strict_json.shown(calibration)}, expected an object"
        return
    digest, samples = calibration.get("manifest_sha256"), calibration.get("num_samples")
    if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= _HEX:
        yield f"calibration.manifest_sha256 is {strict_json.shown(digest)}, expected 64 hexadecimal digits"
    if not _whole(samples) or samples < 0:
        yield f"calibration.num_samples is {strict_json.shown(samples)}, expected a whole number, 0 or more"
    if not _finite(cost):
        yield f"calibrated_cost is {strict_json.shown(cost)}, expected a finite number"


def _wrong_request(request: Mapping[str, Any]) -> Iterator[str]:
    for name, kind in REQUEST.items():
        value = request[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            yield f"request.{name} is {strict_json.shown(value)}, expected {_named(kind)}"
            return
    steps = request["num_inference_steps"]
    if not 2 <= steps <= MAX_STEPS:
        yield f"request.num_inference_steps is {strict_json.shown(steps)}, expected 2 to {MAX_STEPS}"
        return
    for name in ("height", "width"):
        if request[name] <= 0:
            yield f"request.{name} is {strict_json.shown(request[name])}, expected a whole number above 0"
    for name, length in (("timesteps", steps), ("sigmas", steps + 1)):
        values = request[name]
        if len(values) != length or not all(map(_finite, values)):
            yield f"request.{name} has {len(values)} entries, expected {length} finite numbers"
    if request["dtype"] != "bfloat16":
        yield f"request.dtype is {strict_json.shown(request['dtype'])}, SGLang runs 'bfloat16' only"


def _wrong_steps(content: Mapping[str, Any], steps: int) -> Iterator[str]:
    mandatory, full, gap = content["mandatory_full_steps"], content["full_steps"], content["max_gap"]
    if not isinstance(mandatory, list) or not all(map(_whole, mandatory)) or mandatory != [*range(len(mandatory))]:
        yield "mandatory_full_steps is expected to be the first steps, 0, 1, …"
        return
    if not 2 <= len(mandatory) <= steps:
        yield f"mandatory_full_steps has {len(mandatory)} entries, expected 2 to {steps}"
        return
    if gap is not None and not (_whole(gap) and gap >= 1):
        yield f"max_gap is {strict_json.shown(gap)}, expected a whole number of at least 1, or null"
        return
    if not isinstance(full, list) or not full or not all(map(_whole, full)):
        yield f"full_steps is {strict_json.shown(full)}, expected a list of steps"
        return
    if full != sorted(set(full)) or not 0 <= full[0] <= full[-1] < steps:
        yield f"full_steps must be ascending steps of {steps}, from 0"
    elif full[: len(mandatory)] != mandatory:
        yield "full_steps must begin with mandatory_full_steps"
    elif content["num_full_steps"] != len(full):
        yield f"num_full_steps is {strict_json.shown(content['num_full_steps'])}, full_steps has {len(full)}"
    elif content["force_last_full"] and full[-1] != steps - 1:
        yield f"force_last_full is set and the last full step is {full[-1]} of {steps}"
    elif gap is not None and any(b - a > gap for a, b in zip(full, [*full[1:], steps], strict=True)):
        yield f"a gap of full_steps, or that to the end, exceeds max_gap = {gap}"


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _named(kind: type | tuple[type, ...]) -> str:
    names = {str: "text", int: "a whole number", bool: "true or false", list: "a list", float: "a number"}
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(names.get(each, "null") for each in kinds)
