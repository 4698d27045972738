"""Every limit a calibration is judged by, in one table: rule id, limit, and why.

`docs/solver.md` shows the same table. Rules of files (``record.…``, ``trace.…``) are those of the records and trace layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from easyteacache.errors import NotEnoughTraces
from easyteacache.records.trace_set import TraceSet


@dataclass(frozen=True)
class Rule:
    """One thing a calibration is refused for.

    Attributes:
        id: stable identifier, the same in tables, JSON, CI and push.
        title: what must hold.
        reason: why, and why the limit is where it is.
        limit: the number, None where there is none.
        at_least: whether what is found must be at least the limit, otherwise at most.
    """

    id: str
    title: str
    reason: str
    limit: float | None = None
    at_least: bool = False

    def holds(self, found: float) -> bool:
        """Whether ``found`` is on the right side of the limit."""
        assert self.limit is not None, f"{self.id} has no limit"
        return found >= self.limit if self.at_least else found <= self.limit


TABLE: tuple[Rule, ...] = (
    Rule("record.method", "the record is a TeaCache calibration with a known signal",
         "Other methods have no rescale polynomial, and numbers for an unknown signal cannot be repeated."),
    Rule("record.tool-options", "the options of the fit can be repeated",
         "A fit nobody can repeat is a claim, not evidence."),
    Rule("traces.model-key", "the traces are of the record's model",
         "Coefficients of a look-alike model fail silently: FLUX shipped with Wan's."),
    Rule("traces.model", "the traces are of one class, configuration and set of adapters, the record's",
         "A fine-tune or an adapter moves otherwise; nothing in the numbers shows which one they were made with."),
    Rule("traces.sampler", "the traces of a bucket were sampled alike, as the bucket says",
         "The same outputs lead elsewhere under another sampler, and so do the errors of a plan."),
    Rule("traces.part", "the traces are of one expert",
         "Experts have their own residuals; a mixture describes neither."),
    Rule("traces.files", "the trace files are those the record names, by hash",
         "Other runs give other numbers, so nothing could be repeated."),
    Rule("traces.bucket", "every bucket has runs of its length, steps and shift, and every run a bucket",
         "A bucket without runs is unsupported; leaving runs out would choose the evidence."),
    Rule("traces.calibration-runs", "calibration runs per bucket",
         "The fit has up to six parameters and its order is chosen by leaving runs out; with fewer than four neither means anything.",
         4, at_least=True),
    Rule("traces.heldout-runs", "held-out runs per bucket",
         "One run says nothing about the spread; errors of single samples differ by a factor of two and more.", 2, at_least=True),
    Rule("traces.duplicate", "no run stands on both sides of the split",
         "A run that was fitted to is no evidence, whatever it is called the second time."),
    Rule("signal.absent", "the runs hold the record's signal", "What was not recorded cannot be judged."),
    Rule("signal.mislabelled", "the coefficients are not those of another recorded signal",
         "Wan2.1 has two incompatible sets for one checkpoint; the signal is part of the identity."),
    Rule("signal.explains-nothing", "R² of the best non-decreasing curve, runs left out",
         "Below this no curve of the signal can tell steps apart: the signal is wrong, not the fit.", 0.1, at_least=True),
    Rule("fit.not-reproduced", "largest difference of the refitted curve, relative to its largest value",
         "The same traces and options give the same numbers up to rounding of linear algebra.", 1e-6),
    Rule("fit.profile-not-reproduced", "largest difference of the refitted sigma profile, relative to its end",
         "As for the curve.", 1e-6),
    Rule("fit.rank-correlation", "rank correlation of predicted with observed output distance, held-out runs",
         "A curve that orders steps wrongly skips the wrong ones; unrelated signals reach about 0.1 by chance.", 0.3, at_least=True),
    Rule("gate.agreement", "share of steps on which the gate decides as with the true distances, mean over thresholds",
         "A gate that skips at random agrees on half of the steps at 2×; a shift by one step still counts as a miss.", 0.6, at_least=True),
    Rule("point.misstated", "stated errors of an operating point (mean, median, 90 %, largest) differ from the replayed ones by at most this share",
         "Users choose by these numbers.", 0.01),
    Rule("point.inaccurate", "mean held-out error of an operating point",
         "Half of the way from noise to sample is another sample, not a faster one.", 0.5),
    Rule("point.worse-than-uniform", "held-out error relative to evenly spaced steps filled the same way",
         "Evenly spaced steps need no calibration; geometric mean over runs, 5 % for the noise of few runs.", 1.05),
    Rule("gate.worse-than-identity", "held-out error relative to the same gate without a fit, p(x) = x",
         "What no fit gives for nothing; geometric mean over runs and thresholds, 10 % because both move by whole steps.", 1.1),
    Rule("point.worse-than-fewer-steps", "held-out error relative to sampling with as many steps of the same sampler",
         "The trap of this field: a cache that loses to a smaller step count is no use; geometric mean over runs.", 1.0),
    Rule("incumbent.better", "best held-out error at each number of computed steps, relative to the incumbent's at no more",
         "A record is replaced by a better one; geometric mean over runs, 5 % for the noise of few runs.", 1.05),
)  # fmt: skip

RULES: dict[str, Rule] = {rule.id: rule for rule in TABLE}


def limit(rule: str) -> float:
    """The number of a rule that has one."""
    value = RULES[rule].limit
    assert value is not None, f"{rule} has no limit"
    return value


def fewest_runs() -> int:
    """Runs that a bucket takes in all: to fit to, and held out."""
    return int(limit("traces.calibration-runs") + limit("traces.heldout-runs"))


def require_all(runs: int, sequence_length: int) -> None:
    """Refuse a bucket that has too few runs however they are split.

    Raises:
        NotEnoughTraces: with how many it takes in all.
    """
    if runs < fewest_runs():
        raise NotEnoughTraces(sequence_length=sequence_length, runs=runs, needed=fewest_runs())


def require_runs(calibration: TraceSet, heldout: TraceSet, sequence_length: int) -> None:
    """Refuse a bucket with too few runs on either side of the split.

    Raises:
        NotEnoughTraces: with how many runs it takes in all.
    """
    if len(calibration) < limit("traces.calibration-runs") or len(heldout) < limit("traces.heldout-runs"):
        raise NotEnoughTraces(
            sequence_length=sequence_length, runs=len(calibration) + len(heldout), needed=fewest_runs()
        )
