"""Trace files: many runs in one safetensors file, read as if somebody hostile had written it.

The arrays of a run are keyed ``<first 16 characters of its run id>/<name>``; all headers stand as one JSON text in the
file's metadata, under ``easyteacache``. Nothing is unpickled, sizes are bounded before anything is allocated, and every
run is hashed again, so that a number edited after the recording is found. The same runs always give the same bytes.

Every run is stored in the version it was recorded in; the file has the newest of its runs' versions, so that one of old runs
alone stays what it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from easyteacache.errors import InvalidTrace
from easyteacache.files import atomic_write, regular_files, strict_json
from easyteacache.records.provenance import TraceReference
from easyteacache.records.trace import MAX_STEPS, TRACE_VERSION, Array, Trace, TraceHeader
from easyteacache.records.trace_version_1 import TraceHeader1

MAX_FILE_BYTES = 1 << 30
MAX_HEADER_BYTES = 32 * 1024 * 1024
MAX_RUNS = 5000
MAX_ARRAY_ITEMS = MAX_STEPS * MAX_STEPS
HEADERS: Mapping[int, type[TraceHeader | TraceHeader1]] = {1: TraceHeader1, TRACE_VERSION: TraceHeader}
METADATA_KEY = "easyteacache"
SUFFIX = ".safetensors"
_KEY_LENGTH = 16


def encode(runs: Sequence[Trace]) -> bytes:
    """The file that holds ``runs``, in this order."""
    headers = {run.run_id: run.recorded.model_dump(mode="json", exclude_none=True) for run in runs}
    version = max((run.recorded.trace_version for run in runs), default=TRACE_VERSION)
    metadata = json.dumps({"trace_version": version, "runs": headers}, ensure_ascii=False, allow_nan=False)
    arrays = {
        f"{run.run_id[:_KEY_LENGTH]}/{name}": values.astype("<f8") for run in runs for name, values in run.arrays()
    }
    return bytes(save(arrays, metadata={METADATA_KEY: metadata}))


def decode(data: bytes, *, where: str) -> tuple[Trace, ...]:
    """Read the runs of a trace file, in its order.

    Args:
        data: the file's bytes.
        where: named in errors, usually the path.

    Raises:
        InvalidTrace: the file is damaged, was edited, or breaks a rule of the format; ``rule`` says which.
    """
    layout = _layout(data, where)
    version, headers = _headers(layout.pop("__metadata__", None), where)
    for name, entry in layout.items():
        _check_entry(name, entry, where)
    try:
        arrays = load(data)
    except (SafetensorError, ValueError) as error:
        _refuse(where, f"not a whole safetensors file ({error})", "trace.truncated")
    by_run: dict[str, dict[str, Array]] = {run_id[:_KEY_LENGTH]: {} for run_id in headers}
    if len(by_run) < len(headers):
        _refuse(where, "two runs share the beginning of their run id", "trace.duplicate")
    for name, values in arrays.items():
        run, _, rest = name.partition("/")
        if run not in by_run:
            _refuse(where, f"the array {name[:80]!r} belongs to no run of the file", "trace.shape")
        by_run[run][rest] = values
    return tuple(
        _run(run_id, header, by_run[run_id[:_KEY_LENGTH]], version, where) for run_id, header in headers.items()
    )


def read(path: str | os.PathLike[str]) -> tuple[tuple[Trace, ...], TraceReference]:
    """Read one trace file; returns its runs and its name, content hash and number of runs.

    Raises:
        InvalidTrace: as ``decode``, or the file is missing, unreadable, empty of runs or larger than 1 GiB.
    """
    where = os.fspath(path)
    try:
        data = regular_files.read_bytes(where, max_bytes=MAX_FILE_BYTES)
    except regular_files.TooLarge as error:
        raise InvalidTrace(where, str(error.strerror), rule="trace.size") from error
    except OSError as error:
        raise InvalidTrace(where, f"cannot be read: {error.strerror or error}", rule="trace.unreadable") from error
    except ValueError as error:
        raise InvalidTrace(
            strict_json.shown(where), f"cannot be a file name: {error}", rule="trace.unreadable"
        ) from error
    _require_name(where)
    runs = decode(data, where=where)
    return runs, TraceReference(file=Path(where).name, sha256=hashlib.sha256(data).hexdigest(), runs=len(runs))


def write(runs: Sequence[Trace], path: str | os.PathLike[str]) -> TraceReference:
    """Write one trace file, whole or not at all; returns its name, content hash and number of runs.

    Raises:
        InvalidTrace: records could not name a file that is called so; nothing is written.
        OSError: the file cannot be written; it is then as it was.
    """
    _require_name(os.fspath(path))
    data = encode(runs)
    atomic_write.write_bytes(path, data)
    return TraceReference(file=Path(path).name, sha256=hashlib.sha256(data).hexdigest(), runs=len(runs))


def _require_name(where: str) -> None:
    """Refuse a file that no record could name."""
    try:
        TraceReference(file=Path(where).name, sha256="0" * 64, runs=1)
    except ValidationError as error:
        reason = (
            "records name trace files by letters, digits, '.', '_' and '-', beginning and ending with a letter or digit, and not as Windows "
            "names devices: rename it"
        )
        raise InvalidTrace(where, reason, rule="trace.name") from error


def _layout(data: bytes, where: str) -> dict[str, Any]:
    if len(data) < 8:
        _refuse(where, f"{len(data)} bytes; a safetensors file begins with 8 bytes of length", "trace.truncated")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        _refuse(where, f"not a trace file, or one whose header is over {MAX_HEADER_BYTES} bytes", "trace.size")
    if len(data) < 8 + length:
        _refuse(where, f"ends inside its header ({len(data)} of {8 + length} bytes)", "trace.truncated")
    layout = _json(data[8 : 8 + length], where)
    if not isinstance(layout, dict):
        _refuse(where, "the safetensors header is not a JSON object", "trace.format")
    return layout


def _headers(metadata: Any, where: str) -> tuple[int, Mapping[str, Any]]:
    """The file's version, and the header of every run by its id."""
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        _refuse(where, f"no {METADATA_KEY!r} metadata: not a trace file (or its metadata was lost)", "trace.format")
    content = _json(text, where)
    version = content.get("trace_version") if isinstance(content, dict) else None
    if type(version) is not int or version not in HEADERS:
        known = ", ".join(map(str, HEADERS))
        _refuse(
            where,
            f"trace_version is {strict_json.shown(version)}, this release reads {known}; upgrade easyteacache",
            "trace.version",
        )
    headers = content.get("runs")
    if not isinstance(headers, dict) or not headers:
        _refuse(where, "holds no runs", "trace.empty")
    if len(headers) > MAX_RUNS:
        _refuse(where, f"{len(headers)} runs, at most {MAX_RUNS} are read from one file", "trace.size")
    return version, headers


def _check_entry(name: str, entry: Any, where: str) -> None:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if (
        not isinstance(shape, list)
        or len(shape) != 1
        or not isinstance(shape[0], int)
        or not 0 < shape[0] <= MAX_ARRAY_ITEMS
    ):
        _refuse(
            where,
            f"{name[:80]!r} has shape {str(shape)[:80]}; expected one axis of 1 to {MAX_ARRAY_ITEMS}",
            "trace.shape",
        )
    if entry.get("dtype") != "F64":
        _refuse(where, f"{name[:80]!r} has dtype {strict_json.shown(entry.get('dtype'))}; expected F64", "trace.dtype")


def _run(run_id: str, header: Any, arrays: Mapping[str, Array], newest: int, where: str) -> Trace:
    version = header.get("trace_version") if isinstance(header, dict) else None
    # A file of version 1 holds runs of version 1; what is no version at all, the newest header refuses.
    kind = HEADERS[version] if type(version) is int and version in HEADERS and version <= newest else HEADERS[newest]
    try:
        parsed = kind.model_validate_json(json.dumps(header))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "header"
        version = "trace_version" in first["loc"]
        _refuse(where, f"run {run_id[:12]}: {field}: {first['msg']}", "trace.version" if version else "trace.header")
    try:
        trace = Trace.from_arrays(parsed, arrays)
    except InvalidTrace as error:
        raise InvalidTrace(where, f"run {run_id[:12]}: {error.reason}", rule=error.rule) from error
    if trace.run_id != run_id:
        _refuse(
            where,
            f"run {run_id[:12]} was changed after it was recorded (its hash is now {trace.run_id[:12]})",
            "trace.hash",
        )
    return trace


def _json(text: bytes | str, where: str) -> Any:
    try:
        return strict_json.parse(text, max_bytes=MAX_HEADER_BYTES)
    except strict_json.JSONTextError as error:
        raise InvalidTrace(where, f"header: {error}", rule="trace.format") from error


def _refuse(where: str, reason: str, rule: str) -> NoReturn:
    raise InvalidTrace(where, reason, rule=rule)
