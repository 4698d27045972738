"""Judge a changed registry folder against the one it was changed from: what continuous integration runs on a pull request."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from easyteacache.errors import HubError, InvalidCalibration
from easyteacache.files import strict_json
from easyteacache.files.workflow_command import annotation
from easyteacache.hub import claims
from easyteacache.hub.claims import Verifiers
from easyteacache.hub.review import card, check_submission, pareto, record_diff
from easyteacache.hub.review import check_folder as folder
from easyteacache.hub.review.check_record import Finding
from easyteacache.hub.review.check_submission import Judge, Submission, TraceFiles
from easyteacache.hub.review.json_lines import line_of
from easyteacache.records import model_key, parsing
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index
from easyteacache.registry.family import model_of
from easyteacache.registry.index import Index, IndexEntry

# Entities and not backslashes: a backslash before one of these would take the escaping one's force away.
_HARMLESS = str.maketrans({mark: f"&#{ord(mark)};" for mark in "<@[`|\\"})
#: GitHub takes 65,536 characters as one comment.
MOST_CHARACTERS = 60_000
MOST_CHANGES = 40


class Base(Protocol):
    """A registry folder as it was before the change."""

    def read(self, path: str) -> bytes | None:
        """One file's content, None where there was none."""


@dataclass(frozen=True)
class FolderBase:
    """A copy of the registry folder."""

    folder: Path

    def read(self, path: str) -> bytes | None:
        """One file's content, None where there was none."""
        try:
            return parsing.read_file(self.folder / path, rules="base", max_bytes=index.MAX_INDEX_BYTES)
        except InvalidCalibration:
            return None


@dataclass(frozen=True)
class GitBase:
    """The registry folder at a commit of the git repository it lies in.

    Raises:
        HubError: ``revision`` is no commit.
    """

    registry: Path
    revision: str

    def __post_init__(self) -> None:
        if self.revision.startswith("-") or self._git("rev-parse", "--verify", f"{self.revision}^{{commit}}") is None:
            raise HubError(str(self.registry), f"git knows no commit {self.revision!r}; fetch it first")

    def read(self, path: str) -> bytes | None:
        """One file's content, None where there was none."""
        return self._git("show", f"{self.revision}:./{path}")

    def _git(self, *arguments: str) -> bytes | None:
        done = subprocess.run(["git", *arguments], cwd=self.registry, capture_output=True, check=False)
        return None if done.returncode else done.stdout


@dataclass(frozen=True)
class Review:
    """The verdict on a change.

    Attributes:
        submissions: every record that is new or changed.
        findings: everything that is wrong, each once; errors refuse the change.
    """

    submissions: tuple[Submission, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that refuse the change."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def review(
    registry: Path,
    base: Base,
    *,
    traces: Iterable[Path] = (),
    judge: Judge | None = None,
    force_reason: str | None = None,
) -> Review:
    """Judge every record that differs from ``base``, the index, and what was deleted.

    Args:
        registry: the changed folder.
        base: the folder before the change.
        traces: where trace files are.
        judge: the solver's validator; None leaves accuracy unjudged.
        force_reason: why records that are worse than the published ones should replace them nevertheless.

    Raises:
        InvalidCalibration: the base's own index is damaged.
    """
    published = _published(base)
    options = {
        "traces": TraceFiles(traces),
        "judge": judge,
        "force_reason": force_reason,
        "verifiers": _verifiers(base),
    }
    judged = []
    for key, path in folder.record_files(registry):
        data = _content(path)
        entry = published.records.get(key)
        if data is None or (entry is not None and entry.sha256 == hashlib.sha256(data).hexdigest()):
            continue
        incumbent = _incumbent(base, entry)
        one = check_submission.check(data, os.fspath(path), published=published, incumbent=incumbent, **options)  # type: ignore[arg-type]
        judged.append(dataclasses.replace(one, family=tuple(_family(base, published, key))))
    checked = folder.check(registry)
    findings = [finding for finding in checked.findings if _concerns(finding, judged)]
    findings += [finding for one in judged for finding in one.findings]
    findings += _deleted(registry, published)
    return Review(tuple(judged), tuple(_once(findings)))


def _published(base: Base) -> Index:
    data = base.read(index.FILE_NAME)
    return Index(index_version=2, records={}) if data is None else index.from_json(data, where="base index.json")


def _verifiers(base: Base) -> Verifiers:
    """Those of what is published: a change cannot appoint the ones who vouch for it."""
    data = base.read(claims.FILE_NAME)
    return Verifiers.parse((data or b"").decode("utf-8", "replace"), f"base {claims.FILE_NAME}")


def _content(path: Path) -> bytes | None:
    try:
        return None if path.is_symlink() else parsing.read_file(path, rules="record", max_bytes=strict_json.MAX_BYTES)
    except InvalidCalibration:
        # The check of the folder names what is wrong with it.
        return None


def _incumbent(base: Base, entry: IndexEntry | None) -> Calibration | None:
    data = base.read(entry.path) if entry is not None else None
    return None if data is None else Calibration.from_json(data, where="base record")


def _family(base: Base, published: Index, key: str) -> Iterator[Calibration]:
    """The other published records of the model that ``key`` is of."""
    for name, entry in published.records.items():
        if name != key and model_of(name) == model_of(key):
            found = _incumbent(base, entry)
            if found is not None:
                yield found


def _concerns(finding: Finding, judged: list[Submission]) -> bool:
    """Findings about records that did not change are not this change's business; those about the folder are."""
    return (
        finding.rule.partition(".")[0] != "record"
        or finding.where in {one.where for one in judged}
        or (finding.rule in ("record.size", "record.unreadable"))
    )


def _deleted(registry: Path, published: Mapping[str, IndexEntry] | Index) -> Iterator[Finding]:
    records = published.records if isinstance(published, Index) else published
    present = {key for key, _ in folder.record_files(registry)}
    moved = set(_former_keys(registry)) if records.keys() - present else set()
    for key in sorted(records.keys() - present - moved):
        where = os.fspath(registry / model_key.path_of(key))
        message = "was deleted; yank it instead, or let the record it was renamed to list it as a former_key alias"
        yield Finding("submission.deleted", where, "", message)


def _former_keys(registry: Path) -> Iterator[str]:
    for _, path in folder.record_files(registry):
        data = _content(path)
        try:
            record = Calibration.from_json(data or b"", where=os.fspath(path))
        except InvalidCalibration:
            continue
        yield from (alias.value for alias in record.aliases if alias.kind == "former_key")


def _once(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Each rule once at each place, the stricter of two."""
    strictest: dict[tuple[str, str, str, str], Finding] = {}
    for finding in findings:
        place = (finding.rule, finding.where, finding.pointer, finding.message)
        if finding.rule == "index.missing":
            finding = Finding(finding.rule, finding.where, finding.pointer, finding.message)
        if place not in strictest or finding.severity == "error":
            strictest[place] = finding
    yield from strictest.values()


def github_annotations(found: Review, root: Path) -> Iterator[str]:
    """GitHub's workflow commands: each finding at its file and line.

    Args:
        found: the verdict.
        root: the repository's root, which paths are given relative to.
    """
    for finding in found.findings:
        path = Path(finding.where)
        relative = Path(os.path.relpath(path, root)).as_posix()
        line = _line(path, finding.pointer)
        yield annotation(finding.severity, file=relative, line=line, title=finding.rule, message=finding.message)


def _line(path: Path, pointer: str) -> int:
    try:
        return line_of(parsing.read_file(path, rules="record", max_bytes=strict_json.MAX_BYTES).decode(), pointer)
    except (InvalidCalibration, UnicodeDecodeError):
        return 1


def summary(found: Review) -> str:
    """The verdict as Markdown."""
    state = "refused" if found.errors else "passed"
    count = f"{len(found.submissions)} record{'' if len(found.submissions) == 1 else 's'} changed"
    lines = [f"## Submission {state}", "", f"{count}, {len(found.errors)} errors.", ""]
    if found.submissions:
        lines += ["| record | revision | status | traces | verdict |", "|---|---|---|---|---|"]
        lines += [_row(one) for one in found.submissions]
    if found.findings:
        lines += ["", "| | rule | where | what |", "|---|---|---|---|"]
        lines += [
            f"| {f.severity} | `{f.rule}` | {_cell(f.where)} {_cell(f.pointer)} | {_cell(f.message)} |"
            for f in found.findings
        ]
    for one in found.submissions:
        if one.record is not None:
            lines += ["", *_explained(one)]
        if one.report is not None:
            lines += [
                "",
                "<details><summary>Every rule and point</summary>",
                "",
                "```",
                one.report.text(),
                "```",
                "",
                "</details>",
            ]
    return _shortened("\n".join(lines) + "\n")


def _explained(one: Submission) -> Iterator[str]:
    """The record's card, the frontier before and after, and what changed of the record it replaces."""
    record = one.record
    assert record is not None
    yield from card.card(one).replace("\n# ", "\n### ").replace("# ", "### ", 1).rstrip().split("\n")
    before = [*([] if one.incumbent is None else [one.incumbent]), *one.family]
    drawn = list(pareto.told(before, [record, *one.family]))
    if drawn:
        yield from ("", "#### What it moves", "", *drawn)
    changes = [] if one.incumbent is None else record_diff.compare(one.incumbent, record)
    if changes and one.incumbent is not None:
        yield from (
            "",
            f"<details><summary>{len(changes)} changes since revision {one.incumbent.revision}</summary>",
            "",
        )
        yield from ("| | before | after |", "|---|---|---|")
        for change in changes[:MOST_CHANGES]:
            yield f"| {_cell(change.where)} | {_cell((change.before or '–')[:200])} | {_cell((change.after or '–')[:200])} |"
        yield from ("", "</details>")


def _shortened(text: str) -> str:
    """At most what GitHub takes as one comment, cut at a line, an open block closed."""
    if len(text) <= MOST_CHARACTERS:
        return text
    kept = text[:MOST_CHARACTERS].rpartition("\n")[0]
    fence = "\n```" if kept.count("\n```") % 2 else ""
    folded = "\n</details>" if kept.count("<details>") > kept.count("</details>") else ""
    return f"{kept}{fence}\n{folded}\n\nThe rest is left out here; the workflow's log has all of it.\n"


def _row(one: Submission) -> str:
    if one.record is None:
        return f"| {_cell(one.where)} | | | | unreadable |"
    before = f"{one.incumbent.revision} → " if one.incumbent else ""
    verdict = "refused" if one.errors else "passed" if one.report else "not judged on traces"
    return f"| `{one.record.model_key}` | {before}{one.record.revision} | {one.record.status} | {len(one.traces)} | {verdict} |"


def _cell(text: str) -> str:
    # One line whatever it holds: a line of its own could be a command to the runner.
    # Nothing in it is a tag, a link of its own wording, a code span, another cell, or a call for somebody's attention.
    printable = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    return printable.translate(_HARMLESS)
