"""Audit a source tree: whose coefficient lists does it hold, and which of them are borrowed, mistyped, misused or stale?

Built on ``identify``, which names the record that each list is, exactly, rounded, or but for one coefficient, and the model it
stands under. Engines copy such lists by hand and run this in their own checks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

from easyteacache.audit import sign_rule
from easyteacache.audit.ignore_file import EVERY_RULE, IgnoreFile, ignored_rules
from easyteacache.audit.known_coefficients import Known, KnownList
from easyteacache.audit.recognition import Match, identify_text, name_of, read_source, reason_of, source_files
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Registry

Level = Literal["error", "warning", "note"]
Rule = Literal[
    "borrowed", "other-variant", "mistyped", "signs-lost", "sign-treatment", "stale", "rounded", "lowest-first"
]
Skipped = Callable[[str, str], None]

RULES: dict[Rule, tuple[Level, str]] = {
    "borrowed": ("error", "Coefficients stand under the name of a model they were not fitted to."),
    "mistyped": ("error", "A coefficient differs from the published one."),
    "signs-lost": ("error", "Coefficients lost their signs."),
    "other-variant": ("warning", "Coefficients stand under the name of another variant of their model."),
    "sign-treatment": (
        "warning",
        "The code beside the coefficients takes |p(x)| where their authors take p(x), or the reverse.",
    ),
    "stale": ("warning", "Coefficients of a record that was retired, or of a revision that was superseded."),
    "rounded": ("note", "Coefficients were rounded."),
    "lowest-first": ("note", "Coefficients stand lowest degree first; numpy.polyval takes the highest first."),
}
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Diagnostic:
    """One thing to look at.

    Attributes:
        rule: stable name.
        file: as found below the audited path.
        line: where the list begins, from 1.
        message: what is wrong and what would be right, in one or two sentences.
        match: the list and whose it is.
    """

    rule: Rule
    file: str
    line: int
    message: str
    match: Match = field(repr=False)

    @property
    def level(self) -> Level:
        """How bad it is."""
        return RULES[self.rule][0]

    @property
    def fingerprint(self) -> str:
        """The same for the same finding however far it moves inside its file."""
        numbers = ",".join(map(repr, self.match.found.numbers))
        place = (self.rule, Path(self.file).as_posix(), self.match.filed_under or "", self.match.known.model_key)
        text = "\n".join((*place, numbers))
        return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:32]

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "rule": self.rule,
            "level": self.level,
            "file": self.file,
            "line": self.line,
            "message": self.message,
            "model_key": self.match.known.model_key,
            "kind": self.match.kind,
            "filed_under": self.match.filed_under,
            "difference": self.match.difference,
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True)
class TreeAudit:
    """Everything an audit found.

    Attributes:
        findings: sorted by file and line.
        recognised: every list that was recognised, findings or not.
        files: how many files were read.
        ignored: how many files the ignore file passed over.
    """

    findings: tuple[Diagnostic, ...]
    recognised: tuple[Match, ...]
    files: int
    ignored: int

    def worst(self) -> Level | None:
        """The worst level among the findings, None without any."""
        return min((finding.level for finding in self.findings), key=LEVELS.index, default=None)


@dataclass(frozen=True)
class Standard:
    """What lists are compared with.

    Attributes:
        known: every list that can be recognised.
        records: the newest record of each key.
        superseded: ``(key, coefficients)`` of older revisions → that revision.
    """

    known: Known
    records: dict[str, Calibration]
    superseded: dict[tuple[str, tuple[float, ...]], int]

    @classmethod
    def of(cls, registry: Registry) -> Standard:
        """The newest record of every key in any layer, and what older ones in other layers said.

        A registry keeps no history of its own: an older revision is known only where a layer still holds it.
        """
        versions: dict[str, list[Calibration]] = {}
        for layer in registry.layers:
            for key in layer.index.records:
                versions.setdefault(key, []).append(layer.load(key))
        newest = {key: max(found, key=lambda record: record.revision) for key, found in versions.items()}
        known = Known.from_calibrations(newest.values())
        current = {(entry.model_key, entry.coefficients) for entry in known.lists}
        old = Known.from_calibrations(
            (record for key, found in versions.items() for record in found if record.revision < newest[key].revision),
            variants=None,
        )
        superseded: dict[tuple[str, tuple[float, ...]], int] = {}
        for entry in old.lists:
            if (entry.model_key, entry.coefficients) not in current:
                superseded[(entry.model_key, entry.coefficients)] = newest[entry.model_key].revision
        extra = tuple(entry for entry in old.lists if (entry.model_key, entry.coefficients) in superseded)
        return cls(Known((*known.lists, *extra), known.borrowings), newest, superseded)


def audit(path: str | os.PathLike[str], registry: Registry, *, skipped: Skipped | None = None) -> TreeAudit:
    """Audit a file, or every source and configuration file below a folder.

    Args:
        path: what to audit; hidden folders and links are not followed, files that the ignore file names are passed over.
        registry: whose records the lists are compared with.
        skipped: told (file, reason) for every file below a folder that could not be read.

    Raises:
        OSError: ``path`` does not exist, cannot be read, is too large, or is no regular file.
        ValueError: ``path`` is not text.
    """
    standard = Standard.of(registry)
    root = Path(path)
    ignore = IgnoreFile.above(root)
    findings: list[Diagnostic] = []
    recognised: list[Match] = []
    files = ignored = 0
    for file in source_files(root) if root.is_dir() else [root]:
        if ignore.covers(file):
            ignored += 1
            continue
        try:
            text = read_source(file)
        except (OSError, ValueError) as error:
            if file == root or skipped is None:
                raise
            skipped(name_of(file), reason_of(error))
            continue
        files += 1
        matches, found = audit_text(text, standard, filename=name_of(file))
        recognised += matches
        findings += found
    return TreeAudit(tuple(findings), tuple(recognised), files, ignored)


def audit_text(text: str, standard: Standard, *, filename: str) -> tuple[list[Match], list[Diagnostic]]:
    """The lists of one text and what is wrong with them, by line."""
    matches = identify_text(text, standard.known, filename=filename)
    if not matches:
        return [], []
    lines = text.split("\n")
    treatments = sign_rule.SourceTreatments(text if filename.endswith((".py", ".pyi")) else "")
    findings = []
    told: dict[int, frozenset[str]] = {}
    # One list may be several records'; another list beside it on the line is judged by itself.
    for _, owners in groupby(matches, key=lambda match: id(match.found)):
        match = _owner(list(owners))
        line = match.found.line
        passed_over = told[line] if line in told else told.setdefault(line, ignored_rules(lines, line))
        for finding in _judge(match, treatments, standard):
            if not {EVERY_RULE, finding.rule} & passed_over:
                findings.append(finding)
    return matches, findings


def _owner(matches: list[Match]) -> Match:
    """Of several records with these numbers the one that the list may stand for: rightly filed, else the first."""
    return next((match for match in matches if not match.misfiled), matches[0])


def _judge(match: Match, treatments: sign_rule.SourceTreatments, standard: Standard) -> Iterator[Diagnostic]:
    file, line = match.file or "", match.found.line
    for rule, message in (
        *_filing(match),
        *_spelling(match),
        *_standing(match, standard),
        *_signs(match, treatments, standard),
    ):
        yield Diagnostic(rule, file, line, message, match)


def _filing(match: Match) -> Iterable[tuple[Rule, str]]:
    if not match.misfiled:
        return
    rule: Rule = "borrowed" if match.filing == "other model" else "other-variant"
    what = "another model" if match.filing == "other model" else "another variant"
    documented = f" This copy is documented: {match.documented}." if match.documented else ""
    yield (
        rule,
        f"These coefficients were fitted to {_named(match.known)}, they stand under {match.filed_under!r}, {what}.{documented}",
    )


def _spelling(match: Match) -> Iterable[tuple[Rule, str]]:
    owner = _named(match.known)
    if match.kind == "near":
        yield "mistyped", f"These are almost the coefficients of {owner}: {match.difference}."
    elif match.known.origin == "transcription":
        yield "mistyped", f"These are the coefficients of {match.known.model_key} with other digits. {match.known.note}"
    elif match.kind == "unsigned":
        yield "signs-lost", f"These are the coefficients of {owner} without their signs: {match.difference}."
    elif match.kind == "rounded":
        yield "rounded", f"These are the coefficients of {owner}, rounded."
    if match.lowest_first:
        yield "lowest-first", f"The coefficients of {owner} stand lowest degree first."


def _standing(match: Match, standard: Standard) -> Iterable[tuple[Rule, str]]:
    key = match.known.model_key
    newest = standard.superseded.get((key, match.known.coefficients))
    if newest is not None:
        yield (
            "stale",
            f"These coefficients of {key} were superseded by revision {newest}: `easyteacache-hub show {key}`.",
        )
    record = standard.records.get(key)
    if record is not None and record.retirement is not None and match.known.origin == "registry":
        retirement = record.retirement
        instead = f" Use {retirement.replacement} instead." if retirement.replacement else ""
        yield "stale", f"{_named(match.known)} was {record.status} on {retirement.date}: {retirement.reason}{instead}"


def _signs(match: Match, treatments: sign_rule.SourceTreatments, standard: Standard) -> Iterable[tuple[Rule, str]]:
    record = standard.records.get(match.known.model_key)
    if record is None or match.known.origin != "registry":
        return
    conflict = treatments.conflict(record, match.known.coefficients, match.found.line)
    if conflict is None:
        return
    code, where = conflict
    shown = {"none": "p(x)", "abs": "|p(x)|", "clip": "max(p(x), 0)"}
    yield (
        "sign-treatment",
        f"The code here accumulates {shown[code]}, the authors of {_named(match.known)} take {shown[record.rescale_post]}; at "
        f"x = {where:.4g} that is not the same.",
    )


def _named(known: KnownList) -> str:
    return f"{known.model_key} ({known.title})"
