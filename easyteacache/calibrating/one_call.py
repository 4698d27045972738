"""``easyteacache.calibrate``: from a pipeline and some prompts to a record in the local layer, in one call."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from easyteacache.calibrating.filing import file_record, path_in_local
from easyteacache.calibrating.judged_solution import FEWEST_RUNS, Judged, solved_and_judged
from easyteacache.calibrating.measuring import measure_with
from easyteacache.calibrating.setting import WEIGHTS
from easyteacache.calibrating.step_time import in_words, seconds_of_a_step
from easyteacache.calibrating.trace_store import folder_of
from easyteacache.errors import AttachError, EasyTeaCacheWarning, InvalidCalibration
from easyteacache.integrations.diffusers import model_identity
from easyteacache.integrations.diffusers.pipeline import parts_of
from easyteacache.integrations.diffusers.record_lookup import key_for_new, repository_of
from easyteacache.integrations.diffusers.recording import Job, RecordingSettings, plan_jobs, record_pipeline
from easyteacache.integrations.diffusers.recording.pipeline_runs import no_record_under, resolved
from easyteacache.integrations.diffusers.recording.prompts import PROMPTS
from easyteacache.integrations.diffusers.recording.session import recorded_identities
from easyteacache.integrations.diffusers.scheduler_facts import facts_for
from easyteacache.recording.share import share_of_environment
from easyteacache.records import calibration as records
from easyteacache.records import model_key as model_keys
from easyteacache.records.calibration import Calibration
from easyteacache.records.trace_set import GUIDED, TraceSet
from easyteacache.reference.pipeline import MovingDigitsPipeline
from easyteacache.registry.registry import Registry
from easyteacache.solver.solve import Labels, check_labels

#: Prompts that are taken where the caller brings none.
PROMPTS_TAKEN = 12
STEPS = 50
#: With ``measure``: runs that a plan is judged on.
MEASURED_RUNS = 16
#: Seconds between two looks for what the other processes have recorded.
LOOK_AGAIN = 2.0

Tell = Callable[[str], None]
AnyNumber = TypeVar("AnyNumber", int, float)


def calibrate(
    pipe: Any,
    prompts: str | Sequence[str] | None = None,
    *,
    steps: int | Sequence[int] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    frames: int | Sequence[int] | None = None,
    seeds: int | Sequence[int] | None = None,
    shifts: float | Sequence[float] | None = None,
    guidance_scales: float | Sequence[float] | None = None,
    branches: str | Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    measure: bool = False,
    model_key: str | None = None,
    labels: Mapping[str, Any] | None = None,
    publish_prompts: bool = False,
    replace: bool = False,
    progress: bool = True,
    tell: Tell | None = None,
) -> Calibration:
    """Calibrate a pipeline's transformer: record, solve, judge on runs held out, and file the record in the local layer.

    One step is timed first, and what it all will take is said. Every finished run is kept: stop it at any time, and the same call goes
    on. Under ``torchrun`` or ``accelerate launch`` the processes share the runs.

    Args:
        pipe: a diffusers pipeline with one transformer and nothing attached to it.
        prompts: what to generate; fewer than six are run with further seeds. None: twelve that come with the program.
        steps: sampler steps, one number or several; None: the pipeline's own.
        sizes: (width, height) in pixels; None: the pipeline's own.
        frames: for videos; None: the pipeline's own.
        seeds: every prompt is run with each; None gives prompt number i the seed i.
        shifts, guidance_scales: None: the scheduler's and the pipeline's own.
        branches: for pipelines that do not name their guidance branches: ``("cond", "uncond")`` in the order in which they run.
        out: folder of the traces; None: one in this machine's home, by model key.
        measure: sample plans with the model itself before one is chosen, which takes about as long again as recording. It is for samplers
            whose steps can be mapped, which draw no noise (docs/attach.md); elsewhere traces alone decide.
        model_key: of the record; None: that of the model whose records the pipeline's exact names lead to, else one from its checkpoint.
        labels: what else the record says: ``title``, ``license``, ``author``, ``modality``, ``notes``.
        publish_prompts: keep the prompts' text in the traces, not only a hash of each.
        replace: overwrite another record of this key in the local layer.
        progress: show bars, and say what happens, on standard error.
        tell: is told what happens instead.

    Returns:
        The record, for ``TeaCache.from_calibration``; of status ``validated`` where it passed and was filed, else ``draft``, with a warning
        that says why.

    Raises:
        AttachError: the pipeline cannot be recorded, its sampler draws noise or clips, it has two experts, or it does not name its guidance branches (found out by the first run).
        InvalidCalibration: the local layer holds another record of this key, and ``replace`` is not set, or no record can hold ``labels``;
            nothing was run.
        InvalidModelKey: ``model_key`` is no model key.
        ValueError: a list is empty, a value is one that no run can have, or ``labels`` names something else; nothing was run.
        KeyboardInterrupt: it was stopped; what was finished is kept.
    """
    say: Tell = tell or (_on_stderr if progress else lambda _: None)
    parts = parts_of(pipe)
    if len(parts) > 1:
        raise AttachError(
            f"{type(pipe).__name__} has two experts, each with a calibration of its own: use `easyteacache record`, and "
            "`easyteacache solve --part` for each"
        )
    key = model_key or key_for_new(pipe, Registry.default())
    model_keys.parse(key)
    folder = Path(out) if out is not None else folder_of(f"{key}-{_made_of(pipe)}", kind="calibrated")
    _refuse_to_replace(key, folder, replace)
    told = _labels(key, labels or {})
    jobs = _jobs(pipe, prompts, steps, sizes, frames, seeds, shifts, guidance_scales)
    unused = no_record_under(facts_for(pipe.scheduler, jobs[0].num_steps))
    if unused is not None:
        raise AttachError(f"{unused}: give the pipeline another scheduler")
    share = _Share.of_environment()
    settings = _settings(pipe, key, publish_prompts=publish_prompts, branches=_names(branches))
    try:
        _record(pipe, jobs, folder, settings, share, say, progress=progress)
        share.wait_for(jobs_of(pipe, jobs), folder, key, pipe.scheduler, say)
        judged = _solve(pipe, jobs, folder, key, told, measure=measure, say=say)
    except KeyboardInterrupt:
        done = len(recorded_identities(folder, key, pipe.scheduler))
        say(f"Stopped: {done} of {len(jobs)} runs are in {folder}; the same call records the rest and goes on.")
        raise
    return _filed(judged, folder, say, first=share.rank == 0)


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr)


# What to run -------------------------------------------------------------------------------------------------------------


def default_prompts(pipe: Any) -> tuple[str, ...]:
    """Prompts for a pipeline whose caller brings none."""
    if isinstance(pipe, MovingDigitsPipeline):
        ways = ("up", "down-left", "right", "up-right", "down", "left")
        return tuple(f"{turn % 10} {ways[turn % len(ways)]}" for turn in range(PROMPTS_TAKEN))
    return PROMPTS[:PROMPTS_TAKEN]


def _jobs(
    pipe: Any,
    prompts: str | Sequence[str] | None,
    steps: int | Sequence[int] | None,
    sizes: Sequence[tuple[int, int]] | None,
    frames: int | Sequence[int] | None,
    seeds: int | Sequence[int] | None,
    shifts: float | Sequence[float] | None,
    guidance_scales: float | Sequence[float] | None,
) -> tuple[Job, ...]:
    texts = list(default_prompts(pipe) if prompts is None else (prompts,) if isinstance(prompts, str) else prompts)
    if seeds is None and texts:
        # The same prompt again is given another seed.
        texts = [texts[i % len(texts)] for i in range(max(len(texts), FEWEST_RUNS))]
    return plan_jobs(
        prompts=texts,
        seeds=None if seeds is None else _several(seeds),
        sizes=(None,) if sizes is None else sizes,
        frames=(None,) if frames is None else _several(frames),
        steps=_several(_steps_of(pipe) if steps is None else steps),
        shifts=(None,) if shifts is None else _several(shifts),
        guidance_scales=(None,) if guidance_scales is None else _several(guidance_scales),
    )


def _several(value: AnyNumber | Sequence[AnyNumber]) -> Sequence[AnyNumber]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)  # type: ignore[return-value]


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Names, or a text that joins them by commas as the command line does."""
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else tuple(value)


def _steps_of(pipe: Any) -> int:
    """The steps that a pipeline takes where its caller says nothing."""
    import inspect

    default = inspect.signature(pipe.__call__).parameters.get("num_inference_steps")
    return default.default if default is not None and isinstance(default.default, int) else STEPS


def jobs_of(pipe: Any, jobs: Sequence[Job]) -> set[tuple[object, ...]]:
    """The identities of jobs, as recorded ones are recognised."""
    return {resolved(pipe, job).identity() for job in jobs}


def _made_of(pipe: Any) -> str:
    """Eight digits for the model as it runs and its sampler: runs of another one belong into another folder."""
    transformer = next(iter(parts_of(pipe).values()))
    model = model_identity.of_run(transformer).model_dump(mode="json")
    scheduler = getattr(pipe, "scheduler", None)
    config = {name: str(value) for name, value in dict(getattr(scheduler, "config", {})).items() if name[:1] != "_"}
    content = [model, model_identity.weights_digest(transformer), type(scheduler).__name__, config]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _settings(pipe: Any, key: str, *, publish_prompts: bool, branches: tuple[str, ...]) -> RecordingSettings:
    digest = model_identity.weights_digest(next(iter(parts_of(pipe).values())))
    return RecordingSettings(
        model_key=key,
        checkpoint=repository_of(pipe),
        checkpoint_commit=None if digest is None else f"{WEIGHTS}{digest}",
        publish_prompts=publish_prompts,
        branch_names=branches,
    )


def _labels(key: str, labels: Mapping[str, Any]) -> Labels:
    """What the record says beside its numbers, checked before hours are spent."""
    known = ("title", "license", "author", "modality", "notes")
    unknown = [name for name in labels if name not in known]
    if unknown:
        raise ValueError(f"labels names {', '.join(unknown)}; expected {', '.join(known)}")
    notes = labels.get("notes") or ()
    told = Labels(**{**labels, "model_key": key, "notes": (notes,) if isinstance(notes, str) else tuple(notes)})
    check_labels(told)
    return told


def _refuse_to_replace(key: str, folder: Path, replace: bool) -> None:
    """Refuse before hours are spent, unless the record there was made from runs of this folder and grows with them."""
    path = path_in_local(key)
    if replace or not path.exists():
        return
    named = {file.file for file in records.load(path).provenance.traces}
    if not named or not named <= {one.name for one in folder.glob("*")}:
        raise InvalidCalibration(
            os.fspath(path),
            "is another record of this key, made from other runs: pass model_key= to file this one elsewhere, or replace=True",
            rule="local.exists",
        )


# Recording -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Share:
    """Which of several processes this is."""

    rank: int
    world_size: int

    @classmethod
    def of_environment(cls) -> _Share:
        """As ``torchrun`` and ``accelerate launch`` say it."""
        return cls(*share_of_environment())

    def wait_for(self, wanted: set[tuple[object, ...]], folder: Path, key: str, scheduler: Any, say: Tell) -> None:
        """Wait until the other processes have recorded their shares: their files are the only thing that is looked at."""
        told = self.world_size == 1
        while self.world_size > 1 and not wanted <= recorded_identities(folder, key, scheduler):
            if not told:
                say("Waiting for the other processes to record their shares.")
                told = True
            time.sleep(LOOK_AGAIN)


def _record(
    pipe: Any,
    jobs: Sequence[Job],
    folder: Path,
    settings: RecordingSettings,
    share: _Share,
    say: Tell,
    *,
    progress: bool,
) -> None:
    done = recorded_identities(folder, settings.model_key, pipe.scheduler)
    mine = [resolved(pipe, job) for job in jobs[share.rank :: share.world_size]]
    missing = [job for job in mine if job.identity() not in done]
    if not missing:
        say(f"All {len(mine)} runs are recorded already.")
        return
    pipe.set_progress_bar_config(disable=True)
    _say_how_long(pipe, missing, len(mine) - len(missing), share, say)
    # Alone, so that what cannot be solved is known before hours are spent.
    record_pipeline(pipe, missing[:1], folder, settings, chunk=1, progress=False)
    _refuse_unnamed_branches(pipe, folder, settings.model_key)
    # A file a run: what is stopped loses the run at hand.
    record_pipeline(
        pipe,
        jobs,
        folder,
        settings,
        chunk=1,
        rank=share.rank,
        world_size=share.world_size,
        progress=progress and share.rank == 0,
    )


def _refuse_unnamed_branches(pipe: Any, folder: Path, key: str) -> None:
    """Refuse runs of several branches of which nobody can tell how the pipeline combines them."""
    run = next(run for run in TraceSet.load(folder) if run.header.model_key == key)
    branches = run.header.branches
    if len(branches) == 1 or GUIDED in run.grams:
        return
    scale = "" if run.header.guidance_scale is not None else ", and guidance_scales= if it does not say its own"
    raise AttachError(
        f"{type(pipe).__name__} calls its transformer for {len(branches)} branches ({', '.join(branches)}), and how it combines them is not "
        f"known: name them in the order in which they run, branches=('cond', 'uncond'){scale}; delete {folder} first"
    )


def _say_how_long(pipe: Any, missing: Sequence[Job], there: int, share: _Share, say: Tell) -> None:
    """One step of every size is timed; steps of other sizes are others' business."""
    seconds: dict[tuple[object, ...], float | None] = {}
    total: float | None = 0.0
    for job in missing:
        size = (job.width, job.height, job.frames, job.guidance_scale)
        if size not in seconds:
            # The timed run has steps enough to be broken off after the second one.
            seconds[size] = seconds_of_a_step(pipe, dataclasses.replace(job, num_steps=max(job.num_steps, 4)))
        one = seconds[size]
        total = None if one is None or total is None else total + one * job.num_steps
    runs = f"{len(missing)} runs" + (f" ({there} are there already)" if there else "")
    shared = f", this process's share of {share.world_size}" if share.world_size > 1 else ""
    if total is None:
        say(f"Recording {runs}{shared}.")
        return
    each = ", ".join(f"{one:.3g} s" for one in seconds.values() if one is not None)
    say(f"One step takes {each}: recording {runs}{shared} will take about {in_words(total)}.")


# Solving -------------------------------------------------------------------------------------------------------------------


def _solve(
    pipe: Any, jobs: Sequence[Job], folder: Path, key: str, labels: Labels, *, measure: bool, say: Tell
) -> Judged:
    traces = TraceSet(run for run in TraceSet.load(folder) if run.header.model_key == key)
    traces = TraceSet(traces, files=TraceSet.load(folder).files)
    previous = records.load(path_in_local(key)) if path_in_local(key).exists() else None
    told = dataclasses.replace(labels, revision=1 if previous is None else previous.revision + 1)
    sampling = None
    if measure:
        traces = _with_prompts(traces, jobs)
        kept_in = folder / "measured.json"
        sampling = measure_with(pipe, model=_made_of(pipe), runs=MEASURED_RUNS, kept_in=kept_in, on_step=lambda: None)
    say(f"Solving {len(traces)} runs.")
    return solved_and_judged(traces, told, measure=sampling)


def _with_prompts(traces: TraceSet, jobs: Sequence[Job]) -> TraceSet:
    """The runs with their prompts' texts, which measuring takes and the files need not hold."""
    texts = {hashlib.sha256(job.prompt.encode()).hexdigest(): job.prompt for job in jobs}
    named = (
        dataclasses.replace(
            run, header=run.header.model_copy(update={"prompt": texts.get(run.header.prompt_sha256 or "")})
        )
        for run in traces
    )
    return TraceSet(named, files=traces.files)


def _filed(judged: Judged, folder: Path, say: Tell, *, first: bool) -> Calibration:
    record = judged.record
    for text in judged.left_out:
        say(f"Left out, because it did not pass on runs held out: {text}.")
    if not judged.passed:
        warnings.warn(
            f"{record.model_key}: the calibration is a draft and was not filed, because it does not pass on runs held out: "
            f"{judged.reason}. More prompts may help; the runs are in {folder}",
            EasyTeaCacheWarning,
            stacklevel=3,
        )
        return record
    place = path_in_local(record.model_key)
    if place.exists():
        previous = records.load(place)
        if record.model_copy(update={"revision": previous.revision}) == previous:
            say(f"Nothing new: {place} holds this record already.")
            return previous
    if first:
        path = file_record(record, replace=True)
        say(f"Filed {record.model_key}, revision {record.revision}: {path}")
    return record
