"""What a diagnosis says: one answer a question, and the figures behind them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["good", "note", "bad"]

#: Question → what is asked, in the order in which the answers are shown.
QUESTIONS: Mapping[str, str] = {
    "attach": "Can a cache be put on this pipeline?",
    "model": "Are these numbers this model's?",
    "conditions": "Does the record hold for this run?",
    "run": "Does a run with the cache go through?",
    "steps": "Will caching help at this step count?",
    "exact": "Is a computed step bit for bit the model's own?",
    "branches": "Are the guidance branches kept apart?",
    "skips": "Does a reused step skip the blocks, and what does it save?",
    "error": "How far is the cached sample from the uncached one?",
    "fewer-steps": "Is it nearer than sampling with fewer steps?",
}


_COLUMNS, _INDENT = 80, " " * 6


@dataclass(frozen=True)
class Answer:
    """One question's answer.

    Attributes:
        question: a key of ``QUESTIONS``.
        verdict: ``good``; ``note``: worth knowing; ``bad``: do not use it like this.
        text: what was found, one or two sentences.
        fix: what to do about it; empty where there is nothing to do.
    """

    question: str
    verdict: Verdict
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The answers of one checkup.

    Attributes:
        answers: in the order of ``QUESTIONS``; a question that could not be asked is left out.
        applied: what was put on the pipeline, in a few words; None where nothing could be.
        figures: numbers behind the answers, by name: ``speedup`` (steps ÷ computed steps), ``error`` (relative L2 of the final sample),
            ``fewer_steps_error``, ``time_saved`` (share of the model's time, 0 to 1), ``reused_share`` (a reused forward's time as a
            share of a computed one's), ``cost`` (in uncached runs). What was not measured is left out.
    """

    answers: tuple[Answer, ...]
    applied: str | None = None
    figures: Mapping[str, float] | None = None

    @property
    def healthy(self) -> bool:
        """No answer is ``bad``."""
        return all(answer.verdict != "bad" for answer in self.answers)

    def __getitem__(self, question: str) -> Answer:
        """The answer to a question.

        Raises:
            KeyError: it was not asked.
        """
        for answer in self.answers:
            if answer.question == question:
                return answer
        raise KeyError(question)

    def as_data(self) -> dict[str, Any]:
        """Plain values, the JSON of `easyteacache doctor`."""
        return {
            "healthy": self.healthy,
            "applied": self.applied,
            "answers": [
                {
                    "question": a.question,
                    "asked": QUESTIONS[a.question],
                    "verdict": a.verdict,
                    "text": a.text,
                    "fix": a.fix,
                }
                for a in self.answers
            ],
            "figures": dict(self.figures or {}),
        }

    def __str__(self) -> str:
        lines = [] if self.applied is None else [f"Checked: {self.applied}", ""]
        for answer in self.answers:
            lines.append(f"{answer.verdict:<4}  {QUESTIONS[answer.question]}")
            lines += textwrap.wrap(answer.text, _COLUMNS, initial_indent=_INDENT, subsequent_indent=_INDENT)
            if answer.fix:
                lines += textwrap.wrap(
                    f"→ {answer.fix}", _COLUMNS, initial_indent=_INDENT, subsequent_indent=f"{_INDENT}  "
                )
        bad = sum(answer.verdict == "bad" for answer in self.answers)
        lines += ["", "All is well." if not bad else f"{bad} answer{'s' * (bad != 1)} to act on."]
        return "\n".join(lines)
