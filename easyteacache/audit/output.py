"""What an audit prints: lines for people, JSON, SARIF 2.1.0 for code scanning, annotations for GitHub's runners."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from easyteacache._version import __version__
from easyteacache.audit.scan import RULES, Diagnostic, TreeAudit
from easyteacache.files.workflow_command import annotation

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "easyteacache/v1"


def text_lines(report: TreeAudit) -> Iterator[str]:
    """One line a finding, in the form that editors understand, and a closing one."""
    for finding in report.findings:
        yield f"{finding.file}:{finding.line}: {finding.level}: [{finding.rule}] {finding.message}"
    found = len(report.findings)
    passed = f", {report.ignored} passed over" if report.ignored else ""
    yield (
        f"{len(report.recognised)} known list{'s' * (len(report.recognised) != 1)} in {report.files} "
        f"file{'s' * (report.files != 1)}{passed}: {found} finding{'s' * (found != 1)}."
    )


def recognised_lines(report: TreeAudit) -> Iterator[str]:
    """One line for each list that was recognised."""
    for match in report.recognised:
        owner = f"{match.known.model_key} ({match.known.title})"
        yield f"{match.file}:{match.found.line}: {match.kind}: {owner}"


def as_json(report: TreeAudit) -> dict[str, Any]:
    """Findings and recognised lists as plain data."""
    return {
        "findings": [finding.to_dict() for finding in report.findings],
        "recognised": [match.to_dict() for match in report.recognised],
        "files": report.files,
        "ignored": report.ignored,
    }


def as_sarif(report: TreeAudit, *, root: Path) -> dict[str, Any]:
    """A SARIF 2.1.0 log of one run, with paths relative to ``root``."""
    rules = [
        {
            "id": rule,
            "shortDescription": {"text": text},
            "defaultConfiguration": {"level": level},
        }
        for rule, (level, text) in RULES.items()
    ]
    driver = {"name": "easyteacache-hub audit", "semanticVersion": __version__, "rules": rules}
    order = list(RULES)
    results = [
        {
            "ruleId": finding.rule,
            "ruleIndex": order.index(finding.rule),
            "level": finding.level,
            "message": {"text": finding.message},
            "locations": [_location(finding, root)],
            "partialFingerprints": {FINGERPRINT: finding.fingerprint},
        }
        for finding in report.findings
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _location(finding: Diagnostic, root: Path) -> dict[str, Any]:
    # Backslashes and spaces are no part of a URI.
    uri = quote(relative(finding.file, root), safe="/", errors="backslashreplace")
    artifact = {"uri": uri} if uri.startswith("/") else {"uri": uri, "uriBaseId": "%SRCROOT%"}
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": finding.line}}}


def github_lines(report: TreeAudit, *, root: Path) -> Iterator[str]:
    """Workflow commands that GitHub shows beside the line."""
    for finding in report.findings:
        command = "notice" if finding.level == "note" else finding.level
        yield annotation(
            command,
            file=relative(finding.file, root),
            line=finding.line,
            title=f"easyteacache {finding.rule}",
            message=finding.message,
        )


def relative(file: str, root: Path) -> str:
    """``file`` relative to ``root`` with forward slashes; absolute where it lies elsewhere."""
    path = os.path.relpath(file, root)
    return Path(file).resolve().as_posix() if path.startswith("..") else Path(path).as_posix()
