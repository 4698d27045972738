"""May this record replace what is published? The rules that concern a change, the same for push and continuous integration.

What concerns a file alone is ``check_record``'s business, what concerns its numbers the solver's: it is handed in as a judge, because
the hub can do without it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from easyteacache.errors import InvalidCalibration, InvalidTrace
from easyteacache.files import strict_json
from easyteacache.hub.claims import Verifiers
from easyteacache.hub.review import check_evidence, check_folder, check_record
from easyteacache.hub.review.check_record import Finding
from easyteacache.records import trace_file
from easyteacache.records.calibration import SCHEMA_VERSION, Calibration
from easyteacache.records.provenance import TraceReference
from easyteacache.registry import index
from easyteacache.registry.index import Index

RETIRED = ("deprecated", "yanked")
NEXT_STATUS: Mapping[str | None, tuple[str, ...]] = {
    None: ("validated", "published"),
    "draft": ("validated", "published"),
    "validated": ("validated", *RETIRED),
    "published": ("published", "validated", *RETIRED),
    "deprecated": RETIRED,
    "yanked": ("yanked",),
}
INCUMBENT = "incumbent.better"


class Judgement(Protocol):
    """One rule judged at one place, as the solver's findings are."""

    @property
    def rule(self) -> str:
        """The rule's id."""

    @property
    def where(self) -> str:
        """The bucket, operating point or file."""

    @property
    def message(self) -> str:
        """What was expected and found."""


class Report(Protocol):
    """The solver's verdict, as far as it is needed here."""

    @property
    def failures(self) -> Sequence[Judgement]:
        """The rules that do not hold."""

    @property
    def points(self) -> Sequence[Any]:
        """The operating points on held-out runs."""

    def text(self) -> str:
        """The verdict for people."""


# (record, its trace files, the record it would replace) → verdict
Judge = Callable[[Calibration, Sequence[Path], Calibration | None], Report]


@dataclass(frozen=True)
class Submission:
    """One record as it was judged.

    Attributes:
        where: the file.
        record: None when it cannot be read.
        data: its content.
        traces: the trace files it names, in its order, as far as they were found.
        findings: what is wrong; errors refuse it.
        report: the solver's verdict, None where it was not asked.
        incumbent: the published record it would replace.
        family: the model's other records that are published.
    """

    where: str
    record: Calibration | None
    data: bytes
    traces: tuple[Path, ...] = ()
    findings: tuple[Finding, ...] = ()
    report: Report | None = None
    incumbent: Calibration | None = None
    family: tuple[Calibration, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that refuse it."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


class TraceFiles:
    """Trace files at hand, found by content, whatever folder they are in."""

    def __init__(self, places: Iterable[str | os.PathLike[str]]) -> None:
        self._by_name: dict[str, list[Path]] = {}
        for place in map(Path, places):
            files = sorted(place.rglob(f"*{trace_file.SUFFIX}")) if place.is_dir() else [place]
            for path in files:
                self._by_name.setdefault(path.name, []).append(path)

    def find(self, reference: TraceReference) -> tuple[Path | None, str | None]:
        """The file, or why there is none: the rule that is broken."""
        named = self._by_name.get(reference.file, [])
        for path in named:
            if not path.is_symlink() and _sha256(path) == reference.sha256:
                return path, None
        return None, "submission.trace-hash" if named else "submission.trace-missing"


def check(
    data: bytes,
    where: str,
    *,
    published: Index,
    incumbent: Calibration | None,
    traces: TraceFiles,
    judge: Judge | None = None,
    force_reason: str | None = None,
    elsewhere: bool = False,
    verifiers: Verifiers | None = None,
) -> Submission:
    """Judge one record against what is published. Raises nothing.

    Args:
        data: the record's file.
        where: named in findings.
        published: the index of what is published now.
        incumbent: the published record of the same key, None where there is none.
        traces: the trace files at hand.
        judge: the solver's validator; None leaves accuracy unjudged.
        force_reason: why a record that is worse than the incumbent should replace it nevertheless.
        elsewhere: a record that is new here may have a history elsewhere, and keeps the revision it has there.
        verifiers: whose signatures of verified evidence count; None leaves them unjudged.
    """
    findings = [_as_error(finding) for finding in check_record.check_record(data, where)]
    try:
        record = Calibration.from_json(data, where=where)
    except InvalidCalibration:
        return Submission(where, None, data, (), tuple(findings))
    findings += _check_version(data, where)
    findings += _check_change(record, incumbent, where, elsewhere=elsewhere)
    findings += _check_replacement(record, published, where)
    findings += _check_origin(record, where)
    findings += _check_aliases(record, data, published, where)
    needs_traces = record.status == "validated"
    files, missing = _attached(record, traces, where) if needs_traces else ((), [])
    findings += missing
    findings += check_evidence.check(record, where, verifiers=verifiers, prompts=_prompts(files))
    report = None
    if needs_traces and judge is not None and not findings:
        report = judge(record, files, incumbent)
        findings += _judged(report, where, force_reason)
    return Submission(where, record, data, files, tuple(findings), report, incumbent)


def _as_error(finding: Finding) -> Finding:
    # A warning is what a private file may have and a published one may not.
    return Finding(finding.rule, finding.where, finding.pointer, finding.message)


def _check_version(data: bytes, where: str) -> Iterator[Finding]:
    # Readers take older versions; writing them would leave every later release with more of them.
    version = strict_json.parse(data)["schema_version"]
    if version != SCHEMA_VERSION:
        message = (
            f"schema_version is {version}; what is new or changed is published in version {SCHEMA_VERSION}: "
            "`easyteacache solve` and `validate --write` write it, or read and save the file with this release"
        )
        yield Finding("submission.schema-version", where, "/schema_version", message)


def _check_change(
    record: Calibration, incumbent: Calibration | None, where: str, *, elsewhere: bool
) -> Iterator[Finding]:
    before = incumbent.status if incumbent else None
    if before == "yanked" and record.status != "yanked":
        message = "the published record is yanked; it stays so, publish under another key"
        yield Finding("submission.yanked-base", where, "/status", message)
    elif record.status not in NEXT_STATUS[before]:
        expected = " or ".join(NEXT_STATUS[before])
        message = f"status is {record.status!r}; after {before or 'nothing'} it can be {expected}"
        yield Finding("submission.status", where, "/status", message)
    # Written anew in the newest version of the format, a record still says what it said.
    same = incumbent is not None and record == incumbent
    expected_revision = 1 if incumbent is None else incumbent.revision + (0 if same else 1)
    if record.revision != expected_revision and not (incumbent is None and elsewhere):
        message = f"revision is {record.revision}; expected {expected_revision}: raised by one with every change"
        yield Finding("submission.revision", where, "/revision", message)
    if incumbent is not None and record.status in RETIRED and _numbers(record) != _numbers(incumbent):
        message = "numbers change together with the status; retire the published record as it is"
        yield Finding("submission.retirement", where, "/status", message)


def _check_replacement(record: Calibration, published: Index, where: str) -> Iterator[Finding]:
    replacement = record.retirement.replacement if record.retirement else None
    if replacement is not None and replacement not in published.records:
        message = f"the replacement {replacement!r} is not published"
        yield Finding("submission.replacement", where, "/retirement/replacement", message)


def _numbers(record: Calibration) -> dict[str, Any]:
    return record.model_dump(exclude={"revision", "status", "retirement", "notes"})


def _check_origin(record: Calibration, where: str) -> Iterator[Finding]:
    origin = record.provenance
    if record.status == "validated":
        if not origin.license:
            yield Finding("submission.license", where, "/provenance", "no licence: nobody could use the numbers")
        for name in ("author", "date", "tool", "tool_version"):
            if not getattr(origin, name):
                yield Finding("submission.provenance", where, "/provenance", f"{name} is missing")
    if record.status == "published":
        for position, source in enumerate(origin.sources):
            if not (source.license or origin.license or source.note):
                message = "a source without a licence must say in its note why"
                yield Finding("submission.license", where, f"/provenance/sources/{position}", message, "warning")


def _check_aliases(record: Calibration, data: bytes, published: Index, where: str) -> Iterator[Finding]:
    entries = dict(published.records) | {record.model_key: index.entry_of(record, data)}
    before = set(check_folder.shared_aliases(published.records))
    for _, message in set(check_folder.shared_aliases(entries)) - before:
        yield Finding("registry.alias", where, "/aliases", message)


def _attached(record: Calibration, traces: TraceFiles, where: str) -> tuple[tuple[Path, ...], list[Finding]]:
    found: list[Path] = []
    findings: list[Finding] = []
    for position, reference in enumerate(record.provenance.traces):
        pointer = f"/provenance/traces/{position}"
        path, rule = traces.find(reference)
        if path is None:
            reason = {
                "submission.trace-missing": "is named but not attached",
                "submission.trace-hash": f"has another content than the record names ({reference.sha256[:12]}…)",
            }[rule or ""]
            findings.append(Finding(rule or "", where, pointer, f"{reference.file} {reason}"))
            continue
        found.append(path)
        findings += _check_trace(path, reference, where, pointer)
    return tuple(found), findings


def _check_trace(path: Path, reference: TraceReference, where: str, pointer: str) -> Iterator[Finding]:
    try:
        runs, _ = trace_file.read(path)
    except InvalidTrace as error:
        yield Finding(error.rule, where, pointer, f"{reference.file}: {error.reason}")
        return
    if len(runs) != reference.runs:
        message = f"{reference.file} holds {len(runs)} runs, the record says {reference.runs}"
        yield Finding("submission.trace-runs", where, f"{pointer}/runs", message)


def _prompts(files: Iterable[Path]) -> set[str]:
    """SHA-256 of the prompts of trace files; of those that cannot be read, none."""
    found: set[str] = set()
    for path in files:
        try:
            runs, _ = trace_file.read(path)
        except InvalidTrace:
            continue
        found |= {run.header.prompt_sha256 for run in runs if run.header.prompt_sha256 is not None}
    return found


def _judged(report: Report, where: str, force_reason: str | None) -> Iterator[Finding]:
    for failure in report.failures:
        forced = failure.rule == INCUMBENT and bool(force_reason)
        message = f"{failure.where}: {failure.message}" + (f" (accepted: {force_reason})" if forced else "")
        yield Finding(failure.rule, where, "", message, "warning" if forced else "error")


def _sha256(path: Path) -> str | None:
    """The hash of a regular file; None for anything else, which would be waited for or read without end."""
    digest = hashlib.sha256()
    if not path.is_file():  # A pipe would wait for somebody to write.
        return None
    try:
        # Opened without waiting: a pipe has nobody at its other end.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()
