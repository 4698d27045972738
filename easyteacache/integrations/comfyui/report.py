"""What a run did, for people: on the node, in the log, and for ``easyteacache doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from easyteacache.integrations.comfyui.sampled_run import SampledRun
from easyteacache.policy.policy import Policy
from easyteacache.runtime.statistics import evidence_of, gate_of


@dataclass(frozen=True)
class RunReport:
    """One run, before or after.

    Attributes:
        heading: what was asked for.
        record: the record that decides, with its revision; None where none does.
        evidence: what is known of it, in a few words.
        sampler: what samples, and how often it calls the model.
        refusal: why nothing is reused, or no longer; None where something is.
        warnings: what a user must notice.
        notes: every choice that was made.
        pattern: one character a call, ``█`` computed, ``·`` reused, for each branch; empty before a run.
        speedup: calls divided by computed calls; None before a run.
        over: the run is over.
        whole: it was not broken off.
        recorded: the file a run was recorded in; None where none was.
        watched: it was to be recorded.
    """

    heading: str
    record: str | None
    evidence: str | None
    sampler: str
    refusal: str | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    pattern: tuple[tuple[str, str], ...]
    speedup: float | None
    over: bool
    whole: bool
    recorded: str | None = None
    watched: bool = False

    @classmethod
    def of(cls, run: SampledRun, *, heading: str, over: bool, whole: bool = False, watched: bool = False) -> RunReport:
        """The report of a run that begins, or is over."""
        policy, session = run.policy, run.session
        calls = "" if run.facts.calls is None else f", {run.facts.calls} calls"
        return cls(
            heading=heading,
            record=None if policy is None else _record(policy),
            evidence=None if policy is None else _evidence(policy),
            sampler=f"{run.facts.name.removeprefix('comfyui/')}{calls}",
            refusal=run.refusal or (None if policy is None else _refusal(policy)),
            warnings=() if policy is None else policy.warnings,
            notes=() if policy is None else policy.notes,
            pattern=()
            if session is None or not over
            else tuple((name, each.pattern) for name, each in session.statistics().items()),
            speedup=None if session is None or not over else session.current_speedup_rate(),
            over=over,
            whole=whole,
            recorded=run.recorded,
            watched=watched,
        )

    @property
    def text(self) -> str:
        """Lines for the node."""
        lines = [self.heading] if self.heading else []
        lines.append(f"Sampler: {self.sampler}")
        if self.record is not None and self.refusal is None:
            lines.append(f"Decided by {self.record}: {self.evidence}")
        if self.refusal is not None:
            lines.append(f"{'Not recorded' if self.watched else 'Computed in full'}: {self.refusal}")
        lines.extend(f"Note: {warning}" for warning in self.warnings if warning != self.refusal)
        alike: dict[str, list[str]] = {}
        for name, pattern in self.pattern:
            alike.setdefault(pattern, []).append(name)
        lines.extend(f"{', '.join(names)}: {pattern}" for pattern, names in alike.items())
        if self.speedup is not None and self.pattern:
            lines.append(f"{self.speedup:.2f}× fewer calls computed (█ computed, · reused)")
        if self.recorded is not None:
            lines.append(f"Recorded: {self.recorded}")
        if self.over and not self.whole:
            lines.append("The run was broken off.")
        return "\n".join(lines)

    def content(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "heading": self.heading,
            "record": self.record,
            "evidence": self.evidence,
            "sampler": self.sampler,
            "refusal": self.refusal,
            "warnings": list(self.warnings),
            "pattern": dict(self.pattern),
            "speedup": self.speedup,
            "whole": self.whole,
            "recorded": self.recorded,
        }


def _record(policy: Policy) -> str:
    if policy.layer == "none":
        return f"the plan {policy.model_key!r}, without a record"
    return f"{policy.model_key} revision {policy.revision} ({policy.layer})"


def _refusal(policy: Policy) -> str | None:
    """Why every call is computed; None where some are not."""
    if policy.refusal is None and policy.decided_by == "nothing":
        return next(iter(policy.notes), "nothing says that any call may be reused")
    return policy.refusal


def _evidence(policy: Policy) -> str:
    return f"{gate_of(policy)}; {evidence_of(policy)}"
