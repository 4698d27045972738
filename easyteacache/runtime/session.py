"""The current run of one transformer: its branches, and which policy each of them follows."""

from __future__ import annotations

from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Setting
from easyteacache.policy.source import PolicySource
from easyteacache.runtime.branch_state import BranchState
from easyteacache.runtime.statistics import RunStatistics
from easyteacache.runtime.tensor_math import Reduce


class RunState:
    """Branches of one run; knows when a new run begins and what is known of it.

    A run begins with step 0 on a branch that has seen steps. Every branch of the earlier run is dropped then: one that
    does not take part in the new run must not be found later with residuals of the old one.

    Args:
        source: where policies come from.
        setting: what the caller said when the cache was made.
    """

    def __init__(self, source: PolicySource, setting: Setting) -> None:
        self._source, self._setting = source, setting
        self._branches: dict[str, BranchState] = {}
        self._finished: dict[str, RunStatistics] = {}
        self._declared_steps: int | None = None
        self._declared_shift: float | None = None
        self._seen_steps: int | None = None
        #: The tokens that were said last.
        self.length = setting.sequence_length
        #: The policy that was resolved last.
        self.policy = self._resolve(self.length)

    def branch(self, name: str, step: int, *, length: int | None, reduce: Reduce | None) -> BranchState:
        """The state of branch ``name``, ready for ``step``.

        Args:
            name: any text.
            step: 0 on a branch that has seen steps begins a new run.
            length: tokens; None keeps what is known. Another length than before resolves another policy.
            reduce: adds a sharded signal's sums up over the ranks.
        """
        state = self._branches.get(name)
        if state is not None and step == 0 and state.last_step >= 0:
            self.clear()
            self._finished = {}
            state = None
        if state is None:
            self.length = length or self.length
            state = BranchState(name, self._resolve(self.length), reduce, self.length)
            self._branches[name] = state
        elif length is not None and length != state.length:
            self.length = length
            state.follow(self._resolve(length), length=length)
        return state

    def known(self, name: str) -> BranchState | None:
        """The state of a branch that has been seen in this run."""
        return self._branches.get(name)

    def begin(
        self,
        *,
        num_steps: int | None,
        sequence_length: int | None,
        shift: float | None,
        setting: Setting | None = None,
    ) -> None:
        """A new run begins, with other wishes where ``setting`` is given; None for what is not known of it."""
        self.clear()
        self._finished = {}
        self._declared_steps, self._declared_shift = num_steps, shift
        self.length = sequence_length or self.length
        if setting is None:
            self._resolve(self.length)
        else:
            self._adopt(setting)

    def clear(self) -> None:
        """The run is over: drop every tensor; ``statistics`` still tells what it did."""
        steps = max((state.last_step + 1 for state in self._branches.values()), default=0)
        if steps:
            # The latest run is the best guess at the next one; a cancelled run only makes the next one more cautious.
            self._seen_steps = steps
            self._finished = self.statistics()
        self._branches.clear()

    def release(self) -> None:
        """Let go of every tensor; the branches keep their records."""
        for state in self._branches.values():
            state.release()

    def use(self, setting: Setting) -> None:
        """Go on with other wishes; with the old ones where these cannot be had, which raises as resolving does."""
        self.clear()
        self._adopt(setting)

    def _adopt(self, setting: Setting) -> None:
        before = self._source, self._setting
        self._source, self._setting = self._source.with_setting(setting), setting
        try:
            self._resolve(self.length)
        except Exception:
            self._source, self._setting = before
            raise

    def statistics(self) -> dict[str, RunStatistics]:
        """What each branch of the current run did; of the last run when none has begun since."""
        if not self._branches:
            return dict(self._finished)
        return {name: RunStatistics(tuple(state.steps)) for name, state in self._branches.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of tensors held at this moment, over all branches."""
        return sum(state.nbytes for state in self._branches.values())

    def fresh(self) -> RunState:
        """The same source and setting before its first run."""
        return RunState(self._source, self._setting)

    def _resolve(self, length: int | None) -> Policy:
        known = (self._declared_steps, self._setting.num_steps, self._seen_steps)
        steps = next((count for count in known if count is not None), None)
        shift = self._setting.shift if self._declared_shift is None else self._declared_shift
        self.policy = self._source.policy(sequence_length=length, num_steps=steps, shift=shift)
        return self.policy
