"""A calibration that makes itself while a pipeline generates.

A setting without a record that holds is generated in full and recorded; after enough runs it is solved between two of them, judged on
runs held out, filed in the local layer, and used from the next run on, by this process and by others. Later every so many runs one is
recorded in full again and the record's promise is checked on it.

Nothing here ends a generation: what goes wrong is a warning, and the run goes on.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from easyteacache.calibrating import promise
from easyteacache.calibrating.filing import file_record, path_in_local, withdraw
from easyteacache.calibrating.judged_solution import FEWEST_RUNS, solved_and_judged
from easyteacache.calibrating.setting import Setting
from easyteacache.calibrating.trace_store import MOST_RUNS, State, TraceStore
from easyteacache.errors import EasyTeaCacheError, EasyTeaCacheWarning, HubError, InvalidCalibration, UnreachableTarget
from easyteacache.hub.alone import alone
from easyteacache.integrations.diffusers.forward_state import Arguments
from easyteacache.integrations.diffusers.model_identity import weights_digest
from easyteacache.integrations.diffusers.recording.attached_run import AttachedRun, why_not
from easyteacache.integrations.diffusers.recording.probe import Probe
from easyteacache.policy.curves import Polynomial
from easyteacache.policy.model_choice import holds, preferred
from easyteacache.policy.policy import EXACT, Policy
from easyteacache.policy.record_free import UNIVERSAL
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import PolicySource, Resolver
from easyteacache.records import calibration as records
from easyteacache.records import model_key
from easyteacache.records.calibration import TIMESTEP_SIGNALS, Calibration
from easyteacache.records.trace_set import Trace
from easyteacache.registry.registry import Found
from easyteacache.runtime.notices import Notices, logger
from easyteacache.solver.solve import Labels

#: Set to 0, nothing is recorded, solved or filed anywhere.
ENVIRONMENT = "EASYTEACACHE_CALIBRATE"
Until = Literal["full", "published", "uncalibrated"]
UNTIL = ("full", "published", "uncalibrated")
AUDIT_EVERY = 50
#: More runs that are asked for where a solve did not pass.
MORE_RUNS = 2
#: Recordings in a row that may fail before a process stops trying.
MOST_FAILURES = 3
#: Evidence that was found by running the model, not taken from a source.
FOUND_HERE = ("submitted", "verified")
SIGNALS = (*sorted(TIMESTEP_SIGNALS), "modulated_input", "hidden_states", "first_block_residual")
LAYER = "local"

Method = TypeVar("Method", bound=Callable[..., Any])


def turned_off() -> bool:
    """Does the environment say that nothing may be recorded?"""
    return os.environ.get(ENVIRONMENT, "").strip().lower() in ("0", "no", "off", "false")


@dataclass(frozen=True)
class _Decision:
    """What one run does.

    Attributes:
        setting: of the run.
        kind: ``used`` a record, ``recorded`` in full, an ``audit`` of a record, or ``meanwhile`` something else.
        policy: that it follows.
        record, audited: the record and the policy that an audit checks.
    """

    setting: Setting
    kind: Literal["used", "recorded", "audit", "meanwhile"]
    policy: Policy
    record: Calibration | None = None
    audited: Policy | None = None


def _kept_to_itself(method: Method) -> Method:
    """What goes wrong in a method is a warning and not the generation's; a warning that its caller turned into an error stays one."""

    @functools.wraps(method)
    def wrapped(self: WhileWorking, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except EasyTeaCacheWarning:
            raise
        except Exception as error:
            self.failed(error)
            return None

    return wrapped  # type: ignore[return-value]


class WhileWorking:
    """Policies for the runs of one model, and what is recorded of them. Both a policy source and a run observer.

    Args:
        key: of the model; records made here are filed below it.
        others: the model's other records; None where there are none.
        until: what a setting does until it has a record: ``full``: every run is computed in full and recorded; ``published``,
            ``uncalibrated``: every second run is, and those between follow the published record, or the universal plan.
        runs: that are recorded before they are solved, 6 to 16.
        audit_every: every so many runs one is recorded in full and the promise checked on it; 0: never.

    Raises:
        InvalidModelKey: no record can be filed below ``key``.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        key: str,
        others: PolicySource | None,
        *,
        until: Until = "full",
        runs: int = FEWEST_RUNS,
        audit_every: int = AUDIT_EVERY,
    ) -> None:
        if until not in UNTIL:
            raise ValueError(f"until is {until!r}; expected one of {', '.join(UNTIL)}")
        if not FEWEST_RUNS <= runs <= MOST_RUNS:
            raise ValueError(f"calibrate_runs is {runs}; expected {FEWEST_RUNS} to {MOST_RUNS}")
        if audit_every < 0 or audit_every == 1:
            raise ValueError(f"audit_every is {audit_every}; expected 0 (never) or at least 2")
        probe = Setting(
            key, Setting.of(key, RunContext(), None).model, RunContext(num_steps=1000, sequence_length=10**8)
        )
        model_key.parse(probe.record_key)
        self.key, self._others, self._until = key, others, until
        self._runs, self._audit_every = runs, audit_every
        self._alone()

    def _alone(self) -> None:
        """No transformer and no run."""
        self._transformer: Any = None
        self._probe: Probe | None = None
        self._guidance: Callable[[], float | None] = lambda: None
        self._notices = Notices()
        self._failures = 0
        self._request = Request()
        self._rested: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        """The run is over."""
        self._run: RunContext | None = None
        self._facts: Any = None
        self._weights: str | None = None
        self._why_not: str | None = None
        self._decided: dict[int, _Decision] = {}
        self._current: _Decision | None = None
        self._called: tuple[str, Mapping[str, Any]] | None = None
        self._recording: AttachedRun | None = None
        self._scale: float | None = None
        self._spoilt = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy is not attached, and remembers no run.
        fresh = WhileWorking(self.key, self._others, until=self._until, runs=self._runs, audit_every=self._audit_every)
        del fresh._guidance
        return vars(fresh)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._alone()

    # Where policies come from ----------------------------------------------------------------------------------------

    @property
    def signals(self) -> tuple[str, ...]:
        """Every signal: all of them are recorded, and any may be the one that a record is made with."""
        return SIGNALS

    def policy(self, request: Request, run: RunContext) -> Policy:
        """The policy of a run; raises nothing that its record does not."""
        self._request = request
        if request.exact:
            return self._full(run, EXACT)
        if self._run is None or not run.begun:
            return self._before(request, run)
        if run.sequence_length is None:
            return self._full(run, "The sequence length is not known yet: the first forward shows it.")
        why = f"{ENVIRONMENT}={os.environ.get(ENVIRONMENT)} turns it off" if turned_off() else self._why_not
        if why is not None:
            return self._unrecorded(request, run, why)
        decision = self._decided.get(run.sequence_length)
        if decision is None or decision.setting.run.num_steps != run.num_steps:
            decision = self._decided[run.sequence_length] = self._decide(request, run)
        self._current = decision
        return decision.policy

    def _before(self, request: Request, run: RunContext) -> Policy:
        """What is said before a run of an attached pipeline has begun."""
        if self._others is not None:
            try:
                return self._others.policy(request, run)
            except UnreachableTarget:
                pass
        return self._full(run, "No run has begun on an attached pipeline; until then every step is computed.")

    def _unrecorded(self, request: Request, run: RunContext, why: str) -> Policy:
        """Runs that cannot be recorded: by another record that holds, else by what is allowed meanwhile."""
        try:
            found = None if self._others is None else self._others.policy(request, run)
        except UnreachableTarget:
            found = None
        if found is not None and holds(found, run):
            return found
        text = f"This run is not recorded: {why}."
        if self._until != "full":
            return self._meanwhile(request, run).noting(text)
        policy = self._full(run, f"{text} Every step is computed.")
        return policy if turned_off() else dataclasses.replace(policy, warnings=policy.notes)

    def _decide(self, request: Request, run: RunContext) -> _Decision:
        assert self._run is not None
        known = dataclasses.replace(self._run, sequence_length=run.sequence_length, num_steps=run.num_steps)
        setting = Setting.of(self.key, known, self._weights)
        store = TraceStore(setting.record_key)
        used = self._used(setting, store, request, run)
        if used is not None:
            return used
        state = store.state()
        needed = max(self._runs, state.needed)
        if store.count() >= needed and self._solved(setting, store, known=None):
            used = self._used(setting, store, request, run)
            if used is not None:
                return used
            state = store.state()
            needed = max(self._runs, state.needed)
        if needed > MOST_RUNS:
            why = f"{MOST_RUNS} runs gave no record that passes ({state.refused})"
            return _Decision(setting, "meanwhile", self._unrecorded(request, run, why))
        if self._until != "full" and setting.record_key in self._rested:
            return _Decision(setting, "meanwhile", self._meanwhile(request, run))
        count = min(store.count() + 1, needed)
        text = f"recording: run {count} of {needed}"
        return _Decision(setting, "recorded", self._full(run, text, recording=True))

    def _used(self, setting: Setting, store: TraceStore, request: Request, run: RunContext) -> _Decision | None:
        """By a record that holds for this run: the setting's own or another one of the model; None where there is none."""
        own, unreachable = self._own(setting), None
        candidates: list[tuple[Policy, Calibration | None]] = []
        if own is not None:
            try:
                found = Resolver(Found(own, LAYER, own.model_key)).policy(request, run)
                if holds(found, run) and setting.made_with(found.model):
                    candidates.append((found, own))
            except UnreachableTarget as error:
                unreachable = str(error)
        if self._others is not None:
            try:
                found = self._others.policy(request, run)
                if self._found_here(found, setting, run):
                    candidates.append((found, None))
            except EasyTeaCacheError:
                pass
        if not candidates:
            if unreachable is None:
                return None
            if store.count() < MOST_RUNS:
                # These runs are computed in full anyway, and a record of more runs may keep more of its points.
                text = f"recording: run {store.count() + 1} of {MOST_RUNS}, because {unreachable}"
                return _Decision(setting, "recorded", self._full(run, text, recording=True), own)
            text = (
                f"The record of this setting does not reach what is asked for: {unreachable}. Every step is computed."
            )
            policy = self._full(run, text)
            return _Decision(setting, "meanwhile", dataclasses.replace(policy, warnings=policy.notes))
        policy, record = candidates[0]
        for other in candidates[1:]:
            if preferred(other[0], policy, run):
                policy, record = other
        state = store.state()
        if self._audit_every and record is not None and state.runs + 1 >= self._audit_every:
            text = f"recording: this run in full, to check what {record.model_key} promises"
            return _Decision(setting, "audit", self._full(run, text, recording=True), record, policy)
        return _Decision(setting, "used", policy, record)

    def _found_here(self, policy: Policy, setting: Setting, run: RunContext) -> bool:
        """Does another record hold for this run, by evidence of the model itself?"""
        mine = policy.model_key.startswith(f"{self.key}/teacache-") and policy.layer == LAYER
        return (
            not mine
            and holds(policy, run)
            and policy.evidence in FOUND_HERE
            and policy.decided_by != "nothing"
            and setting.made_with(policy.model)
        )

    def _own(self, setting: Setting) -> Calibration | None:
        """The setting's own record, as it is at this moment: another process may have filed it."""
        path = path_in_local(setting.record_key)
        if not path.exists():
            return None
        try:
            record = records.load(path)
        except InvalidCalibration as error:
            self._notices.give(f"{setting.record_key}: {error}: it is recorded anew.")
            return None
        return record if record.model_key == setting.record_key and record.status == "validated" else None

    def _meanwhile(self, request: Request, run: RunContext) -> Policy:
        if self._until == "uncalibrated":
            return UNIVERSAL.policy(request, run)
        try:
            if self._others is not None:
                return self._others.policy(request, run)
        except UnreachableTarget as error:
            return self._full(run, f"No published record holds: {error}. Every step is computed.")
        return self._full(run, "There is no published record of this model. Every step is computed.")

    def _full(self, run: RunContext, text: str, *, recording: bool = False) -> Policy:
        return Policy(
            model_key=self.key,
            revision=0,
            status="being calibrated",
            layer="none",
            signal="none",
            curve=Polynomial((0.0,)),
            threshold=0.0,
            first_skip_step=0,
            last_skip_step=None if run.num_steps is None else run.num_steps - 1,
            max_consecutive_skips=None,
            buckets=(),
            sequence_length=run.sequence_length,
            num_steps=run.num_steps,
            shift=run.shift,
            refusal=text,
            recording=text if recording else None,
            notes=(text,),
        )

    # What the driver tells -------------------------------------------------------------------------------------------

    @_kept_to_itself
    def attached(self, transformer: Any, *, adapter: Any, guidance_scale: Callable[[], float | None]) -> None:
        """The session is on ``transformer`` now."""
        self._alone()
        self._transformer, self._guidance = transformer, guidance_scale
        self._probe = Probe(transformer)

    def detached(self) -> None:
        """The session was taken off."""
        self._alone()

    @_kept_to_itself
    def run_begins(self, run: RunContext, facts: Any) -> None:
        """A run begins: which weights are in it, and can it be recorded?"""
        self._forget()
        self._run, self._facts = run, facts
        if turned_off():
            return
        # Said first, so that what goes wrong here is said, too.
        self._why_not = "it could not be seen which model runs"
        if self._failures >= MOST_FAILURES:
            self._why_not = f"{MOST_FAILURES} recordings in a row have failed"
            return
        why = "no adapter covers the transformer" if self._probe is None else why_not(self._transformer, facts)
        if why is None:
            self._weights = weights_digest(self._transformer)
        self._why_not = why

    def forward_begins(self, branch: str, arguments: Mapping[str, Any]) -> None:
        """The transformer is called."""
        self._called = (branch, arguments)

    @_kept_to_itself
    def entered(self, block: Any, arguments: Mapping[str, Any], outputs: Mapping[Any, Any]) -> None:
        """The first block is called: the first one of a run shows its length, and so what is done with it."""
        if self._run is None or self._called is None or self._spoilt or self._why_not is not None or turned_off():
            return
        branch, called = self._called
        if self._recording is None:
            if self._request.exact:
                return
            if self._current is not None and self._current.kind not in ("recorded", "audit"):
                return
            assert self._probe is not None
            stream = self._probe.block_input(Arguments(type(block), (), arguments))
            length = self._probe.sequence_length(stream, called)
            run = dataclasses.replace(self._run, sequence_length=length)
            self.policy(self._request, run)
            if self._current is None or self._current.kind not in ("recorded", "audit"):
                return
            self._recording = AttachedRun(self._probe, self._facts)
            self._scale = self._guidance()
        self._recording.enter(branch, called, block=block, inner=arguments, outputs=outputs)

    @_kept_to_itself
    def after_first(self, output: Any) -> None:
        """The first block returned."""
        if self._recording is not None:
            self._recording.after_first(output)

    @_kept_to_itself
    def left(self, output: Any) -> None:
        """The last block returned."""
        if self._recording is not None:
            self._recording.leave(output)

    @_kept_to_itself
    def returned(self, output: Any) -> None:
        """The transformer returned."""
        if self._recording is not None:
            self._recording.finish(output)

    def changed(self, why: str) -> None:
        """The run is no longer what it began as: it is not recorded."""
        if self._recording is not None:
            logger.info("%s: this run is not recorded: %s in the middle of it.", self.key, why)
        self._recording, self._spoilt = None, True

    @_kept_to_itself
    def run_ends(self) -> None:
        """The run is over: keep what was recorded, solve where there is enough, check a promise where this was an audit."""
        recording, decision, scale = self._recording, self._current, self._scale
        began = self._called is not None
        self._recording, self._called, self._spoilt = None, None, True
        if decision is None or not began:
            return
        store = TraceStore(decision.setting.record_key)
        if decision.kind == "meanwhile":
            self._rested.discard(store.key)
        if decision.kind == "used" and decision.record is not None and self._audit_every:
            state = store.state()
            store.remember(dataclasses.replace(state, runs=state.runs + 1))
        if recording is None or not recording.complete:
            return
        trace = recording.trace(model_key=store.key, model=decision.setting.model, guidance_scale=scale)
        self._failures = 0
        self._rested.add(store.key)
        named = () if decision.record is None else tuple(file.file for file in decision.record.provenance.traces)
        store.add(trace, keep=named)
        if decision.kind == "audit":
            self._checked(decision, store, trace, moves=recording.moves)
        elif store.count() >= max(self._runs, store.state().needed):
            self._solved(decision.setting, store, known=recording.moves)

    def failed(self, error: Exception) -> None:
        """Something went wrong that is not the generation's: say it once, and go on without a recording."""
        self._recording, self._spoilt = None, True
        self._failures += 1
        logger.debug("%s: recording failed", self.key, exc_info=error)
        self._notices.give(
            f"{self.key}: this run was generated, and nothing was learnt from it: {type(error).__name__}: {error}",
            reason=f"failed {type(error).__name__}",
        )

    # Between two runs ------------------------------------------------------------------------------------------------

    def _solved(self, setting: Setting, store: TraceStore, *, known: bool | None) -> bool:
        """Solve what there is and file it; False where it did not pass, or where another process is at it.

        Args:
            setting: of the runs.
            store: of the runs.
            known: whether the model makes videos; None where no run has shown it.
        """
        try:
            with alone(store.folder, wait=0.0):
                return self._solve(setting, store, moves=known)
        except HubError:
            # The next run finds what the other process filed.
            return False
        except Exception as error:
            # Traces that no solver can do anything with must not be tried anew at every run.
            self._refuse(store, f"{type(error).__name__}: {error}")
            return False

    def _solve(self, setting: Setting, store: TraceStore, *, moves: bool | None) -> bool:
        traces, previous = store.traces(), self._own(setting)
        if len(traces) < self._runs:
            # Runs of other branches, or damaged ones, were counted.
            store.remember(dataclasses.replace(store.state(), needed=store.count() + self._runs - len(traces)))
            return False
        labels = Labels(
            model_key=setting.record_key,
            title=self.key,
            modality=None if moves is None else "video" if moves else "image",
            revision=1 if previous is None else previous.revision + 1,
            notes=(f"Made while generating, from {len(traces)} runs.",),
        )
        judged = solved_and_judged(traces, labels)
        if not judged.passed:
            self._refuse(store, judged.reason)
            if previous is not None:
                withdraw(setting.record_key)
            return False
        path: Path = file_record(judged.record, replace=True)
        store.remember(State())
        logger.info("%s: solved from %d runs and filed as %s", self.key, len(traces), path)
        return True

    def _refuse(self, store: TraceStore, reason: str) -> None:
        needed = store.count() + MORE_RUNS
        store.remember(State(needed=needed, refused=reason))
        self._notices.give(
            f"{self.key}: {store.count()} recorded runs gave no calibration that passes on runs held out ({reason}); "
            + (f"recording goes on to {needed} runs." if needed <= MOST_RUNS else "no more are recorded."),
            reason=f"refused {store.key} {needed}",
        )

    def _checked(self, decision: _Decision, store: TraceStore, trace: Trace, *, moves: bool) -> None:
        """Check what the record promised of the plan that this run would have followed."""
        store.remember(dataclasses.replace(store.state(), runs=0))
        record, policy = decision.record, decision.audited
        assert record is not None
        assert policy is not None
        error = promise.promised(record, policy)
        if error is None:
            return
        found = promise.error_of(policy, trace)
        if not promise.drifted(found, error):
            logger.info("%s: an audit found an error of %.3g, %.3g was promised", record.model_key, found, error.mean)
            return
        solved = self._solved(decision.setting, store, known=moves)
        self._notices.give(
            f"{record.model_key}: a run that was recorded in full to check it would have had an error of {found:.3g}, and at most "
            f"{promise.upper(error):.3g} was promised. "
            + ("It was solved anew with this run." if solved else "It is recorded anew."),
            reason=f"drift {record.model_key} {record.revision}",
        )
