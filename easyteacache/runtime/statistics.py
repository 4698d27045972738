"""What a run did: computed and reused steps, the hit list, distances; numbers and a readable text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyteacache.files.plain_marks import printable

if TYPE_CHECKING:
    from easyteacache.policy.policy import Policy
    from easyteacache.runtime.branch_state import StepRecord


@dataclass(frozen=True)
class RunStatistics:
    """One branch's steps of one run, in order."""

    steps: tuple[StepRecord, ...]

    @property
    def computed(self) -> int:
        """Steps whose blocks were computed."""
        return sum(not record.reused for record in self.steps)

    @property
    def reused(self) -> int:
        """Steps whose blocks were skipped."""
        return sum(record.reused for record in self.steps)

    @property
    def hits(self) -> tuple[int, ...]:
        """Indices of the reused steps."""
        return tuple(record.step for record in self.steps if record.reused)

    @property
    def distances(self) -> tuple[float | None, ...]:
        """Signal distance x at each step, None where it was not measured."""
        return tuple(record.distance for record in self.steps)

    @property
    def speedup(self) -> float:
        """Steps divided by computed steps; 1 before the first step."""
        return len(self.steps) / self.computed if self.computed else 1.0

    @property
    def pattern(self) -> str:
        """One character a step: ``█`` computed, ``·`` reused."""
        return "".join("·" if record.reused else "█" for record in self.steps)


def speedup(branches: Iterable[RunStatistics]) -> float:
    """Steps divided by computed steps over all branches; 1 before the first step."""
    runs = list(branches)
    total, computed = sum(len(run.steps) for run in runs), sum(run.computed for run in runs)
    return total / computed if computed else 1.0


def gate_of(policy: Policy) -> str:
    """What decides, in a few words."""
    if policy.decided_by == "nothing":
        return "every step is computed"
    if policy.decided_by == "schedule":
        return f"a schedule of {len(policy.schedule or ())} computed steps"
    return f"threshold {policy.threshold:g}"


def evidence_of(policy: Policy) -> str:
    """Whose figures there are, and what they promise, in a few words."""
    said = "no evidence" if policy.evidence is None else f"{policy.evidence} evidence"
    return said if policy.expected_error is None else f"{said}, error {policy.expected_error:.3g} expected"


def describe(policy: Policy | None, branches: Mapping[str, RunStatistics], speedup: float, *, threads: int = 0) -> str:
    """The text of ``TeaCache.summary()``: two to seven lines of at most 80 columns.

    What standard output cannot show stands in plain marks: nobody should lose a sample to its summary.

    Args:
        policy: of the run.
        branches: what each of them did.
        speedup: over all branches.
        threads: how many have had runs of their own, where each has; this is one's.
    """
    if policy is None:
        return (
            "TeaCache: no policy (disabled, in solve mode, or threshold 0)\nnothing is decided, every step is computed"
        )
    lines = [_cut(f"{policy.model_key} revision {policy.revision} ({policy.status}, layer {policy.layer})")]
    decided, known = f"{gate_of(policy)}, predictor {policy.forecaster}", evidence_of(policy)
    if policy.recording is not None:
        lines.extend([_cut(f"{decided}; {known}"), _cut(policy.recording)])
    elif len(decided) + len(known) + 2 <= _COLUMNS:
        lines.append(f"{decided}; {known}")
    else:
        # The promised error stands at the end: it is what people look for.
        lines.extend([_cut(decided), _cut(known)])
    alike: dict[str, list[str]] = {}
    for name, run in branches.items():
        alike.setdefault(run.pattern, []).append(name)
    shown = list(alike.items())[:_GROUPS]
    for _, names in shown:
        run = branches[names[0]]
        told = f"{run.computed} computed, {run.reused} reused of {len(run.steps)} steps ({run.speedup:.2f}x)"
        lines.append(_cut(f"{', '.join(names)}: {told}"))
    if len(shown) == 1:
        lines.append(_cut(f"  {shown[0][0]}"))
    if not branches:
        lines.append("no step seen yet" if not threads else f"no step seen yet by one of {_threads(threads)}")
    else:
        more = f" ({len(alike) - _GROUPS} more branches differ)" if len(alike) > _GROUPS else ""
        whose = f", one of {_threads(threads)}" if threads else ""
        lines.append(_cut(f"computed-step speed-up {speedup:.2f}x{whose} (█ computed, · reused){more}"))
    if policy.notes:
        warned = len(policy.warnings)
        some = f", {warned} of them warnings" if warned else ""
        many = f"{len(policy.notes)} notes{some}" if len(policy.notes) > 1 else f"1 {'warning' if warned else 'note'}"
        lines.append(f"{many}: see `notes` of the cache")
    return printable("\n".join(lines))


#: Groups of branches that did the same which have a line of their own.
_GROUPS = 2
_COLUMNS = 80


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _cut(line: str) -> str:
    return line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 1]}…"
