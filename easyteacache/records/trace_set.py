"""Traces: what full uncached runs recorded, as a set that can be loaded, merged, grouped and split.

``Trace`` is one run, ``TraceSet`` any number of them in a canonical order, so that shards recorded by several processes
merge to the same file as one recording; the split into calibration and held-out runs follows from the numbers alone.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from easyteacache.errors import InvalidTrace, NotEnoughTraces
from easyteacache.records import trace_file
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.provenance import TraceReference
from easyteacache.records.trace import CROSS, FEATURE_PREFIX, GUIDED, OUTPUT_PREFIX, SketchInfo, Trace, TraceHeader

if TYPE_CHECKING:
    from easyteacache.records.bucket import Bucket

__all__ = [
    "CROSS",
    "FEATURE_PREFIX",
    "GUIDED",
    "OUTPUT_PREFIX",
    "SketchInfo",
    "Trace",
    "TraceHeader",
    "TraceSet",
    "common_model",
    "one_model",
]

#: Sequence length, step count, shift or 0; and the sampler's name, where runs of several samplers share these three.
Setting = tuple[int, int, float] | tuple[int, int, float, str]


class TraceSet(Sequence[Trace]):
    """Runs in canonical order: by model key, part, sequence length, step count, shift, sampler, prompt, seed, run id.

    Attributes:
        runs: the runs, each content once.
        files: name, SHA-256 and number of runs of every file they were loaded from; empty for runs made in memory.

    Raises:
        InvalidTrace: the same numbers twice, under one label or two (rule ``trace.duplicate``).
    """

    def __init__(self, runs: Iterable[Trace], *, files: Iterable[TraceReference] = ()) -> None:
        self.runs: tuple[Trace, ...] = tuple(sorted(runs, key=_order))
        self.files: tuple[TraceReference, ...] = tuple(files)
        seen: dict[str, Trace] = {}
        for run in self.runs:
            if run.content_id in seen:
                raise InvalidTrace(
                    run.label,
                    f"holds the same numbers as the {seen[run.content_id].label}; a run counts once: remove one",
                    rule="trace.duplicate",
                )
            seen[run.content_id] = run

    @classmethod
    def load(cls, *paths: str | os.PathLike[str]) -> TraceSet:
        """Read trace files, and every ``*.safetensors`` directly inside the folders among ``paths``.

        Raises:
            InvalidTrace: a file is missing or breaks a rule, or the files repeat a run.
        """
        runs: list[Trace] = []
        files: list[TraceReference] = []
        places: dict[str, Path] = {}
        for path in files_of(*paths):
            found, reference = trace_file.read(path)
            for run in found:
                other = places.setdefault(run.content_id, path)
                if other is not path:
                    raise InvalidTrace(
                        str(path),
                        f"holds the same numbers as {other}, as the {run.label}; a run counts once: remove one of the files, or join them "
                        "with `easyteacache traces merge`",
                        rule="trace.duplicate",
                    )
            runs.extend(found)
            files.append(reference)
        return cls(runs, files=files)

    @classmethod
    def merge(cls, *sets: TraceSet) -> TraceSet:
        """All runs of ``sets``; a run with the same run id in several of them is kept once.

        Raises:
            InvalidTrace: two runs of different labels hold the same numbers.
        """
        unique = {run.run_id: run for runs in sets for run in runs}
        return cls(unique.values(), files=dict.fromkeys(file for runs in sets for file in runs.files))

    def save(self, path: str | os.PathLike[str]) -> TraceReference:
        """Write all runs as one file, whole or not at all; returns its name, SHA-256 and number of runs."""
        return trace_file.write(self.runs, path)

    def settings(self) -> tuple[Setting, ...]:
        """Every (sequence length, step count, shift or 0) that occurs, ascending; with the sampler's name where there are several."""
        return tuple(sorted({self._setting(run.setting, _sampler_name(run)) for run in self.runs}))

    def setting_of(self, bucket: Bucket) -> Setting:
        """Where in ``settings`` the runs of a record's bucket stand; not among them where there are none."""
        sampler = "" if bucket.sampler is None else bucket.sampler.name
        return self._setting((bucket.sequence_length or 0, bucket.num_steps or 0, bucket.shift or 0.0), sampler)

    def _setting(self, setting: tuple[int, int, float], sampler: str) -> Setting:
        return (*setting, sampler) if setting in self._several else setting

    @functools.cached_property
    def _several(self) -> frozenset[tuple[int, int, float]]:
        """The settings that runs of several samplers share."""
        names: dict[tuple[int, int, float], set[str]] = {}
        for run in self.runs:
            names.setdefault(run.setting, set()).add(_sampler_name(run))
        return frozenset(setting for setting, found in names.items() if len(found) > 1)

    def group(
        self,
        sequence_length: int | None = None,
        num_steps: int | None = None,
        shift: float | None = None,
        sampler: str | None = None,
    ) -> TraceSet:
        """The runs of one sequence length, step count, shift or sampler; None takes all (shift 0: runs without a shift)."""
        wanted = (sequence_length, num_steps, shift, sampler)
        kept = (
            run
            for run in self.runs
            if all(w is None or w == v for w, v in zip(wanted, (*run.setting, _sampler_name(run)), strict=True))
        )
        return TraceSet(kept, files=self.files)

    def part(self, name: str | None) -> TraceSet:
        """The runs of one expert; None: those of models without experts."""
        return TraceSet((run for run in self.runs if run.header.part == name), files=self.files)

    def split_heldout(self, fraction: float = 0.25) -> tuple[TraceSet, TraceSet]:
        """(calibration runs, held-out runs), decided by the hash of each run's numbers, so that nobody can choose it.

        In every setting the runs with the smallest hashes are held out: ``fraction`` of them rounded up, but never
        all.

        Args:
            fraction: share of the runs to hold out, above 0 and below 1.

        Raises:
            ValueError: ``fraction`` is outside.
            NotEnoughTraces: a setting has fewer than two runs.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}; expected a share above 0 and below 1")
        heldout: set[str] = set()
        for setting in self.settings():
            ids = sorted(run.content_id for run in self.group(*setting))
            if len(ids) < 2:
                raise NotEnoughTraces(sequence_length=setting[0], runs=len(ids), needed=2)
            heldout.update(ids[: min(math.ceil(fraction * len(ids)), len(ids) - 1)])
        parts = ([run for run in self.runs if (run.content_id in heldout) == side] for side in (False, True))
        calibration, held = (TraceSet(runs, files=self.files) for runs in parts)
        return calibration, held

    def near_duplicates(self, *, tolerance: float = 1e-4) -> tuple[tuple[Trace, Trace], ...]:
        """Pairs of runs whose distances agree within ``tolerance`` (relative): a run recorded twice or disguised.

        Equal runs have no place on both sides of a split; ``TraceSet`` itself refuses only exact copies.
        """
        found: list[tuple[Trace, Trace]] = []
        for setting in self.settings():
            runs = self.group(*setting).runs
            found.extend(_close_pairs(runs, tolerance))
        return tuple(found)

    @overload
    def __getitem__(self, index: int) -> Trace: ...
    @overload
    def __getitem__(self, index: slice) -> TraceSet: ...
    def __getitem__(self, index: int | slice) -> Trace | TraceSet:
        if isinstance(index, slice):
            return TraceSet(self.runs[index], files=self.files)
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Trace]:
        return iter(self.runs)

    def __repr__(self) -> str:
        return f"TraceSet({len(self)} runs, settings={list(self.settings())})"


def one_model(traces: TraceSet) -> None:
    """Refuse runs of several models, experts or samplers.

    Raises:
        InvalidTrace: rule ``traces.model-key``, ``traces.model``, ``traces.part`` or ``traces.sampler``.
    """
    keys = sorted({trace.header.model_key for trace in traces})
    if len(keys) > 1:
        reason = f"runs of several models ({', '.join(keys)}); a calibration holds for one: solve them apart"
        raise InvalidTrace("traces", reason, rule="traces.model-key")
    for name in ("class_name", "configuration_sha256", "adapters"):
        found = {value for value in (getattr(head.header.model, name, None) for head in traces) if value is not None}
        if len(found) > 1:
            listed = ", ".join(sorted(map(_shown, found)))
            reason = f"runs of models that differ in {name} ({listed}); a calibration holds for one: solve them apart"
            raise InvalidTrace("traces", reason, rule="traces.model")
    parts = sorted({trace.header.part or "none" for trace in traces})
    if len(parts) > 1:
        reason = f"runs of several experts ({', '.join(parts)}); each has its own calibration: choose one with --part"
        raise InvalidTrace("traces", reason, rule="traces.part")
    firsts: dict[tuple[int, int, float], Trace] = {}
    for setting in traces.settings():
        first, *others = traces.group(*setting)
        different = next((other for other in others if not _same_sampler(first, other)), None)
        before = firsts.setdefault(first.setting, first)
        if different is None and before is not first and not _told_apart(before, first):
            different = before
        if different is not None:
            names = " and ".join(_sampler_name(run) for run in sorted((first, different), key=_order))
            reason = (
                f"runs of {setting[0]} tokens and {setting[1]} steps were sampled differently, by {names}; a bucket holds "
                "for one sampler, and only what was measured of two tells them apart: solve them apart"
            )
            raise InvalidTrace("traces", reason, rule="traces.sampler")


_HASHED = "@sha256:"


def common_model(traces: TraceSet) -> ModelIdentity | None:
    """The model that ran, as far as all runs say the same of it; None where they say nothing.

    A checkpoint named by the hash of its weights has one class and configuration: where all runs name the same, one run that says which is
    enough. Older traces do not.
    """
    models = [trace.header.model or ModelIdentity.model_construct() for trace in traces]
    weights = {model.checkpoint for model in models}
    one = len(weights) == 1 and _HASHED in str(next(iter(weights)))
    found = {}
    for name in ModelIdentity.model_fields:
        values = {getattr(model, name) for model in models}
        if one and name in ("class_name", "configuration_sha256"):
            values = values - {None} or values
        if len(values) == 1:
            found[name] = values.pop()
    parts = {trace.header.part for trace in traces}
    if found.get("part") is None and len(parts) == 1:
        found["part"] = parts.pop()
    said = {name: value for name, value in found.items() if value not in (None, ())}
    return ModelIdentity(**said) if said else None


def _same_sampler(a: Trace, b: Trace) -> bool:
    one, other = a.header.sampler, b.header.sampler
    if one is None or other is None:
        return one is other
    agrees = one.agrees(other)
    return one.name == other.name if agrees is None else agrees


def _told_apart(a: Trace, b: Trace) -> bool:
    """Do signatures say that these runs had different samplers?"""
    one, other = a.header.sampler, b.header.sampler
    return one is not None and other is not None and one.agrees(other) is False


def _sampler_name(run: Trace) -> str:
    return "an unknown sampler" if run.header.sampler is None else run.header.sampler.name


def _shown(value: object) -> str:
    return ", ".join(adapter.name for adapter in value) or "none" if isinstance(value, tuple) else str(value)


def _order(run: Trace) -> tuple[object, ...]:
    head = run.header
    seed = -1 if head.seed is None else head.seed
    return (
        head.model_key,
        head.part or "",
        *run.setting,
        _sampler_name(run),
        head.prompt or head.prompt_sha256 or "",
        seed,
        run.run_id,
    )


def files_of(*paths: str | os.PathLike[str]) -> list[Path]:
    """The trace files among ``paths`` and directly inside the folders among them, each once.

    Raises:
        InvalidTrace: a folder holds none.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.glob(f"*{trace_file.SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            raise InvalidTrace(
                str(path), f"a folder without {trace_file.SUFFIX} files; record traces first", rule="trace.empty"
            )
        found.extend(inside)
    return list(dict.fromkeys(found))


def _close_pairs(runs: Sequence[Trace], tolerance: float) -> Iterator[tuple[Trace, Trace]]:
    by_branches: dict[tuple[str, ...], list[Trace]] = {}
    for run in runs:
        by_branches.setdefault(tuple(sorted(run.residual_distances)), []).append(run)
    for branches, alike in by_branches.items():
        rows = np.array([np.concatenate([run.residual_distances[branch] for branch in branches]) for run in alike])
        scale = np.maximum(rows.mean(axis=1), np.finfo(float).tiny)
        for i in range(len(alike) - 1):
            gaps = np.abs(rows[i + 1 :] - rows[i]).max(axis=1) / scale[i]
            yield from ((alike[i], alike[i + 1 + int(j)]) for j in np.flatnonzero(gaps < tolerance))
