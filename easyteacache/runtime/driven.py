"""The part of a ``TeaCache`` that knows the current run: what ``attach`` drives, and what the run did."""

from __future__ import annotations

import dataclasses
from typing import Any

from easyteacache.errors import InvalidCalibration
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Setting
from easyteacache.runtime.branch_state import BranchState
from easyteacache.runtime.session import RunState
from easyteacache.runtime.statistics import RunStatistics, describe
from easyteacache.runtime.tensor_math import Reduce


class DrivenCache:
    """Base of ``TeaCache``; not made by itself."""

    def _prepare(self, setting: Setting, *, enable: bool) -> None:
        self._setting, self._enable = setting, enable
        self._run: RunState | None = None
        #: Adds the two sums of a sharded signal up over a process group; None when every rank holds the whole signal.
        self.reduce: Reduce | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A run's tensors and its process group belong to the model and process they came from.
        run = None if self._run is None else self._run.fresh()
        return {**self.__dict__, "_run": run, "reduce": None}

    @property
    def driven(self) -> bool:
        """True when there is something to decide: the cache is enabled, in speed mode, and has a policy."""
        return self._enable and self._run is not None

    @property
    def policy(self) -> Policy:
        """What is applied: record, buckets, threshold, window, and a note for every choice that was made.

        Raises:
            InvalidCalibration: there is none, because the cache is disabled or in solve mode.
        """
        if self._run is None:
            raise InvalidCalibration(
                "TeaCache", "no policy: the cache is disabled, in solve mode, or its threshold is 0"
            )
        return self._run.policy

    @property
    def solving(self) -> bool:
        """True in solve mode, which records what its caller reports."""
        return False

    # What attach needs -----------------------------------------------------------------------------------------------

    def begin_run(
        self,
        *,
        num_steps: int | None = None,
        sequence_length: int | None = None,
        shift: float | None = None,
        euler: bool | None = None,
    ) -> None:
        """Drop the state of an earlier run and say what is known of the next one; ``attach`` calls it for you.

        Args:
            num_steps: sampler steps of this run; goes before what the cache was made with.
            sequence_length: tokens; ``check`` may say otherwise later.
            shift: flow-matching time shift of this run; goes before what the cache was made with.
            euler: as for ``know_sampler``, which raises the same; None: as it was.
        """
        if self._run is None:
            return
        setting = self._setting if euler is None else dataclasses.replace(self._setting, uncorrected=not euler)
        other = None if setting == self._setting else setting
        self._run.begin(num_steps=num_steps, sequence_length=sequence_length, shift=shift, setting=other)
        self._setting = setting

    def know_sampler(self, *, euler: bool) -> None:
        """Say whether the run's sampler is Euler's, to which alone a plan may hand corrections of earlier steps.

        Raises:
            UnreachableTarget: it is not, and without corrections the record does not reach the speed-up or error asked for;
                what was known before holds on.
        """
        if self._run is not None and self._setting.uncorrected == euler:
            setting = dataclasses.replace(self._setting, uncorrected=not euler)
            self._run.use(setting)
            self._setting = setting

    def branch_state(self, branch: str, step: int, *, sequence_length: int | None = None) -> BranchState:
        """The state of one branch, ready for ``step``: what ``attach`` drives instead of the three verbs.

        A new run, another sequence length or an unknown branch gives a state that remembers nothing, with the policy resolved
        for it. Only where ``driven`` is true.
        """
        assert self._run is not None
        return self._run.branch(branch, step, length=sequence_length, reduce=self.reduce)

    def release(self) -> None:
        """Let go of every remembered tensor; ``statistics`` and ``summary`` still tell what the run did."""
        if self._run is not None:
            self._run.release()

    def forget(self, branch: str) -> None:
        """Drop what one branch remembers, because its next forward has another shape; its record stays."""
        state = None if self._run is None else self._run.known(branch)
        if state is not None:
            state.release()

    @property
    def sequence_length(self) -> int | None:
        """The tokens that were said last; None when nobody has."""
        return None if self._run is None else self._run.length

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held at this moment, over all branches."""
        return 0 if self._run is None else self._run.nbytes

    # What happened ---------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, RunStatistics]:
        """Per branch of the current run, or of the last one: computed and reused steps, hit list, distances."""
        return {} if self._run is None else self._run.statistics()

    def current_speedup_rate(self) -> float:
        """Steps divided by computed steps in the current run, over all branches; 1 before the first step."""
        seen = self.statistics().values()
        total, computed = sum(len(run.steps) for run in seen), sum(run.computed for run in seen)
        return total / computed if computed else 1.0

    def summary(self) -> str:
        """The current run, or the last one, in a few readable lines."""
        policy = None if self._run is None else self._run.policy
        return describe(policy, self.statistics(), self.current_speedup_rate())

    def __repr__(self) -> str:
        if self._run is None:
            return f"TeaCache({'solve mode' if self.solving else 'off'})"
        p = self._run.policy
        gate = f"threshold={p.threshold:g}" if p.schedule is None else f"schedule={len(p.schedule)} computed steps"
        buckets = ", ".join(f"{share.sequence_length}×{share.weight:.2f}" for share in p.buckets)
        return (
            f"TeaCache({p.model_key!r}, revision={p.revision}, layer={p.layer!r}, signal={p.signal!r}, {gate}, "
            f"forecaster={p.forecaster!r}, window=[{p.first_skip_step}, {p.last_skip_step}], buckets=[{buckets}], "
            f"notes={list(p.notes)})"
        )
