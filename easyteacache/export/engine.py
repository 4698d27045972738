"""What an engine does with coefficients: the declarative half of every exporter."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Literal

from easyteacache.records.plan import AppliedTo

Post = Literal["none", "abs"]
Window = Literal["given", "shares", "retention", "first", "second", "ends", "user", "fraction", "mask"]
Suffix = Literal["json", "py", "yaml", "env", "txt"]

# What each kind of window means, for messages and documentation.
WINDOWS: dict[Window, str] = {
    "given": "both ends are parameters, in steps",
    "shares": "both ends are inputs, as shares of the run",
    "retention": "5 first steps computed in retention mode; otherwise the first and the last step",
    "first": "only step 0 is always computed",
    "second": "only steps 0 and 1 are always computed",
    "ends": "the first and the last step are always computed",
    "user": "set by the user outside this file, as a share of the run",
    "fraction": "the share of first steps that are computed is a parameter",
    "mask": "every step is marked",
}


@dataclass(frozen=True)
class Citation:
    """Where an engine's format and semantics were read: a commit, or ``release …`` of an installed package."""

    repository: str
    path: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repository}, {self.path} at {self.shown_commit}"

    @property
    def shown_commit(self) -> str:
        """The first twelve digits of a commit, a release's name as it is."""
        return self.commit if " " in self.commit else self.commit[:12]


@dataclass(frozen=True)
class CachedModels:
    """Models that an engine can run with a cache, and what it measures for them.

    Attributes:
        keys: pattern over model keys, ``*`` matches any number of names.
        signals: what the engine measures; where there are several, its format says which.
        name: what the engine calls the model, in the file or as a class; None when it does not name it.
        post: what it does to p(x).
        methods: caching methods it runs for these models.
    """

    keys: str
    signals: frozenset[str]
    name: str | None = None
    post: Post = "none"
    methods: tuple[str, ...] = ("teacache",)

    def matches(self, key: str) -> bool:
        """Whether ``key`` is one of these models; a record of a checkpoint's other set counts as its checkpoint."""
        return fnmatch.fnmatchcase(key, self.keys)


@dataclass(frozen=True)
class Engine:
    """One engine's format.

    Attributes:
        name: as ``--to`` and ``--from`` take it.
        title: the engine's name as people write it.
        module: name of its format module in ``formats``.
        suffix: ending of its files.
        sources: where format and semantics were read.
        summary: what it does with the numbers, one sentence.
        models: what it can run; None: anything.
        methods: caching methods whose records it can use.
        window: how it limits reuse.
        coefficients: exact number of coefficients it takes, None for any.
        takes_threshold: False where the threshold is set elsewhere.
        takes_limit: whether it limits steps reused in a row.
        together: what one file holds beside the record itself: ``set`` for a checkpoint's other set, ``expert`` for the other expert.
        list_per_branch: whether each branch has ratios of its own.
        within: MagCache's sum of errors may reach the threshold there, where most of its authors' scripts keep it below.
        plan: what decides: a threshold, a schedule, or either.
        place: what a reused step of a schedule repeats or continues: the blocks' residual, their output, or the model's; None: any.
        fills: names of the predictors that it computes exactly; those of which it has something like its module knows.
        extrapolates: first part of the keys of models for which it can extrapolate the residual linearly beside a threshold.
        server: whether its files name the program that reads them, which only the caller can know.
        evaluates_as_recorded: True for formats that carry domain and ``rescale_post`` along instead of evaluating p.
        reads: whether its files carry enough to import.
    """

    name: str
    title: str
    module: str
    suffix: Suffix
    sources: tuple[Citation, ...]
    summary: str
    models: tuple[CachedModels, ...] | None = None
    methods: tuple[str, ...] = ("teacache",)
    window: Window = "given"
    coefficients: int | None = None
    takes_threshold: bool = True
    takes_limit: bool = False
    together: tuple[str, ...] = ()
    list_per_branch: bool = True
    within: bool = False
    plan: Literal["threshold", "schedule", "either"] = "threshold"
    place: AppliedTo | None = None
    fills: tuple[str, ...] = ()
    extrapolates: str = ""
    server: bool = False
    evaluates_as_recorded: bool = False
    reads: bool = True

    def model_for(self, key: str, method: str = "teacache") -> CachedModels | None:
        """The engine's own entry for ``key``; None when it has none, or runs anything."""
        return next((model for model in self.models or () if model.matches(key) and method in model.methods), None)
