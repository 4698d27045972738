"""What validation found: one entry per rule and place, for people as a table, for programs as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from easyteacache.solver.validation.rules import RULES

WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """One rule, judged at one place.

    Attributes:
        rule: its id; one of ``rules.RULES``, or of the record and trace layers.
        passed: whether it holds.
        where: the bucket, operating point or file.
        found: the number that was compared with the rule's limit, where there is one.
        message: what was expected and found, one sentence; empty where it holds.
    """

    rule: str
    passed: bool
    where: str
    found: float | None = None
    message: str = ""

    @property
    def limit(self) -> float | None:
        """The rule's limit."""
        return RULES[self.rule].limit if self.rule in RULES else None

    def as_json(self) -> dict[str, Any]:
        """Plain values, absent ones left out."""
        values = {
            "rule": self.rule,
            "passed": self.passed,
            "where": self.where,
            "found": self.found,
            "limit": self.limit,
            "message": self.message or None,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Judged:
    """One operating point on the held-out runs, beside what it has to beat; errors are means over runs, relative L2.

    Attributes:
        where: the bucket.
        gate: ``schedule`` or ``threshold``.
        filling: what fills reused steps.
        computed: steps computed, mean over runs.
        speedup: steps divided by computed steps.
        error, p90: mean and 90th percentile over held-out runs.
        baselines: name → mean error at the same number of computed steps.
    """

    where: str
    gate: str
    filling: str
    computed: float
    speedup: float
    error: float
    p90: float
    baselines: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self)}


@dataclass(frozen=True)
class Report:
    """A verdict.

    Attributes:
        model_key: of the calibration, None where it could not be read.
        findings: everything that was judged, failures included.
        points: the operating points on held-out runs.
        calibration_runs, heldout_runs: how many runs each side of the split has.
    """

    model_key: str | None
    findings: tuple[Finding, ...]
    points: tuple[Judged, ...] = ()
    calibration_runs: int = 0
    heldout_runs: int = 0

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return all(finding.passed for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that did not pass."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain values: ``passed``, ``model_key``, ``calibration_runs``, ``heldout_runs``, ``findings``, ``points``."""
        return {
            "passed": self.passed,
            "model_key": self.model_key,
            "calibration_runs": self.calibration_runs,
            "heldout_runs": self.heldout_runs,
            "findings": [finding.as_json() for finding in self.findings],
            "points": [point.as_json() for point in self.points],
        }

    def text(self) -> str:
        """The verdict for people, at most 80 columns wide."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.model_key or 'calibration'}: {'passed' if self.passed else 'refused'}"
        if self.calibration_runs:
            yield f"{self.calibration_runs} calibration runs, {self.heldout_runs} held-out runs"
        for where in dict.fromkeys(point.where for point in self.points):
            yield ""
            yield f"Error of the final sample on held-out runs, {where}"
            yield from _point_table([point for point in self.points if point.where == where])
        yield ""
        yield "Rules"
        yield from _rule_table(self.findings)
        for finding in self.failures:
            yield ""
            yield textwrap.fill(f"{finding.rule}: {finding.where}: {finding.message}", WIDTH)
            if finding.rule in RULES:
                yield textwrap.fill(RULES[finding.rule].reason, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _point_table(points: Sequence[Judged]) -> Iterator[str]:
    names = list(dict.fromkeys(name for point in points for name in point.baselines))
    yield f"  {'steps':>5} {'speed':>6} {'gate':<9} {'error':>8} {'p90':>8}" + "".join(
        f" {_abbreviated(n):>8}" for n in names
    )
    for point in points:
        others = "".join(f" {_number(point.baselines.get(name)):>8}" for name in names)
        yield (
            f"  {point.computed:>5.4g} {point.speedup:>5.3g}x {point.gate:<9} "
            f"{_number(point.error):>8} {_number(point.p90):>8}{others}"
        )


def _abbreviated(name: str) -> str:
    return {"fewer steps": "fewer", "incumbent": "incumb."}.get(name, name)[:8]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _rule_table(findings: Sequence[Finding]) -> Iterator[str]:
    yield f"  {'rule':<30} {'held':>9} {'worst':>9} {'limit':>9}"
    for rule in dict.fromkeys(finding.rule for finding in findings):
        same = [finding for finding in findings if finding.rule == rule]
        held = sum(finding.passed for finding in same)
        numbers = [finding.found for finding in same if finding.found is not None]
        failed = [f.found for f in same if not f.passed and f.found is not None]
        worst = failed[0] if failed else _worst(rule, numbers)
        mark = " " if held == len(same) else "✗"
        yield f"{mark} {rule:<30} {f'{held}/{len(same)}':>9} {_number(worst):>9} {_number(same[0].limit):>9}"


def _worst(rule: str, numbers: Sequence[float]) -> float | None:
    if not numbers:
        return None
    return min(numbers) if rule in RULES and RULES[rule].at_least else max(numbers)
