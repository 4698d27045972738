"""A plan as a strip: one cell a step, dark where it is computed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Strip:
    """What the template draws, in a box ``steps`` wide and 1 high.

    Attributes:
        steps: sampler steps of the run.
        computed: how many are computed.
        path: the computed cells as an SVG path.
        told: the same in words, for those who do not see it.
    """

    steps: int
    computed: int
    path: str
    told: str


def strip(computed: Collection[int], steps: int) -> Strip:
    """The strip of a run of ``steps`` steps that computes ``computed`` (zero-based)."""
    runs = _runs(sorted(set(computed)))
    path = "".join(f"M{first} 0h{last - first + 1}v1h-{last - first + 1}z" for first, last in runs)
    named = ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)
    return Strip(steps, len(set(computed)), path, f"computes steps {named} of {steps}")


def _runs(steps: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for step in steps:
        if runs and step == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], step)
        else:
            runs.append((step, step))
    return runs
