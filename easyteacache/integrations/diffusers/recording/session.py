"""Record many runs into a folder: in whole chunks, so that a kill costs at most one, and the same command goes on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from easyteacache.errors import EasyTeaCacheWarning
from easyteacache.integrations.diffusers.recording.jobs import Identity, Job, identity_of
from easyteacache.integrations.diffusers.recording.pipeline_runs import (
    RecordingSettings,
    no_record_under,
    record_run,
    resolved,
)
from easyteacache.integrations.diffusers.scheduler_facts import TRIAL_STEPS, facts_for
from easyteacache.records import model_key
from easyteacache.records.sampler import DRAWS_NOISE
from easyteacache.records.trace_file import SUFFIX
from easyteacache.records.trace_set import Trace, TraceSet

CHUNK = 8


@dataclass(frozen=True, slots=True)
class RecordingSummary:
    """What a recording did.

    Attributes:
        recorded: jobs that were run now.
        skipped: jobs found recorded in the folder.
        files: names of the files written now.
    """

    recorded: int
    skipped: int
    files: tuple[str, ...]


def record_pipeline(
    pipe: Any,
    jobs: Sequence[Job],
    folder: str | Path,
    settings: RecordingSettings,
    *,
    chunk: int = CHUNK,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
) -> RecordingSummary:
    """Record every job that ``folder`` does not hold yet.

    Args:
        pipe: a diffusers pipeline.
        jobs: the same list on every process.
        folder: trace files are read from here and written to here.
        settings: of the recording.
        chunk: jobs per file; what a kill can cost.
        rank: this process takes jobs ``rank``, ``rank + world_size``, …
        world_size: number of processes.
        progress: show a bar on standard error.

    Raises:
        InvalidModelKey: the settings name no model key; nothing was run.
        InvalidTrace: a file in the folder is damaged.
        AttachError: the pipeline cannot be recorded.
        EasyTeaCacheWarning: as a warning, where no record is ever used under the pipeline's sampler.
        Exception: whatever a run of the pipeline raises, and KeyboardInterrupt, after the finished runs were written.
    """
    model_key.parse(settings.model_key)
    Path(folder).mkdir(parents=True, exist_ok=True)
    mine = [resolved(pipe, job) for job in jobs[rank::world_size]]
    done = recorded_identities(folder, settings.model_key, pipe.scheduler)
    missing = [job for job in mine if job.identity() not in done]
    unused = no_record_under(facts_for(pipe.scheduler, missing[0].num_steps)) if missing else None
    if unused is not None:
        warnings.warn(
            f"{unused}: the runs are recorded, and what is solved from them computes every step there",
            EasyTeaCacheWarning,
            stacklevel=2,
        )
    pipe.set_progress_bar_config(disable=True)
    files: list[str] = []
    steps = sum(job.num_steps for job in missing)
    label = f"record {settings.model_key}"
    with tqdm(total=steps, unit="step", disable=not progress, desc=label, mininterval=1.0) as bar:
        for first in range(0, len(missing), chunk):
            files.append(_record_chunk(pipe, missing[first : first + chunk], Path(folder), settings, bar))
    return RecordingSummary(recorded=len(missing), skipped=len(mine) - len(missing), files=tuple(files))


def recorded_identities(folder: str | Path, key: str, scheduler: Any = None) -> set[Identity]:
    """Identities of the jobs of model key ``key`` that the folder's trace files hold.

    Args:
        folder: it need not be there.
        key: runs of its parts count, too.
        scheduler: runs under a sampler of another class, or of which only one draws noise, are other runs; None: under any. Two of one class
            that differ in their options are not told apart: pipelines set noise levels that nobody knows before a run.

    Raises:
        InvalidTrace: a file is damaged.
    """
    if not any(Path(folder).glob(f"*{SUFFIX}")):
        return set()
    facts = None if scheduler is None else facts_for(scheduler, TRIAL_STEPS)
    sampler = None if facts is None else facts.record().name
    return {
        identity_of(run.header)
        for run in TraceSet.load(folder)
        if f"{run.header.model_key}/".startswith(f"{key}/") and _sampled_by(run, sampler)
    }


def _sampled_by(run: Trace, sampler: str | None) -> bool:
    known = run.header.sampler
    if sampler is None or known is None:
        return True
    # Version 1 knew no more than the class.
    return known.name == (sampler if run.recorded.trace_version > 1 else sampler.removesuffix(DRAWS_NOISE))


def _record_chunk(pipe: Any, jobs: Sequence[Job], folder: Path, settings: RecordingSettings, bar: Any) -> str:
    traces: list[Trace] = []
    try:
        for job in jobs:
            traces.extend(record_run(pipe, job, settings, on_step=bar.update))
    except BaseException:  # Ctrl-C, memory that ran out, a shape that the model refuses
        if traces:
            _write(traces, folder)
        raise
    return _write(traces, folder)


def _write(traces: Sequence[Trace], folder: Path) -> str:
    # Named by content: processes that never talk to each other cannot overwrite each other's files.
    digest = hashlib.sha256("".join(sorted(trace.run_id for trace in traces)).encode()).hexdigest()
    name = f"traces-{digest[:16]}{SUFFIX}"
    TraceSet(traces).save(folder / name)
    return name
