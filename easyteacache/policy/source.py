"""Where the runtime's policies come from: a record with a caller's wishes, or one given policy."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Setting
from easyteacache.policy.skip_window import from_end
from easyteacache.registry.registry import Found


class PolicySource(Protocol):
    """Where policies come from: a registry record, an original JSON file, or one given policy."""

    def policy(self, *, sequence_length: int | None, num_steps: int | None, shift: float | None) -> Policy:
        """The policy for one sequence length, step count and time shift; None for what is not known."""
        ...

    def with_setting(self, setting: Setting) -> PolicySource:
        """The same source with another window or threshold."""
        ...


class Resolver:
    """Policies of one record; after the first call for a setting, ``policy`` is a dictionary lookup.

    Args:
        found: what the registry gave.
        setting: the caller's wishes.
        allow_yanked: use a yanked record all the same.
    """

    def __init__(self, found: Found, setting: Setting, *, allow_yanked: bool = False) -> None:
        self._found, self._setting, self._allow_yanked = found, setting, allow_yanked
        self._policies: dict[tuple[int | None, int | None, float | None], Policy] = {}

    def policy(self, *, sequence_length: int | None, num_steps: int | None, shift: float | None) -> Policy:
        """The policy for one setting; raises as ``policy.resolve`` does."""
        key = (sequence_length, num_steps, shift)
        if key not in self._policies:
            setting = self._setting.at(sequence_length=sequence_length, num_steps=num_steps, shift=shift)
            self._policies[key] = resolve(self._found, setting, allow_yanked=self._allow_yanked)
        return self._policies[key]

    def with_setting(self, setting: Setting) -> Resolver:
        """The same record with other wishes."""
        return Resolver(self._found, setting, allow_yanked=self._allow_yanked)


class FixedPolicy:
    """A policy source that always gives the same policy."""

    def __init__(self, policy: Policy) -> None:
        self._given = self._policy = policy

    def policy(self, *, sequence_length: int | None, num_steps: int | None, shift: float | None) -> Policy:
        """The given policy, whatever the setting; every step is computed where its weights are those of another sampler setting."""
        policy = self._policy
        if policy.weights is None:
            return policy
        known = [(num_steps, len(policy.weights), "steps"), (shift, policy.shift, "as the time shift")]
        other = [
            f"{here:g} {of} instead of {there:g}"
            for here, there, of in known
            if here is not None and there is not None and here != there
        ]
        return (
            _computing(policy, f"Its weights hold for no {' and '.join(other)}: every step is computed.")
            if other
            else policy
        )

    def with_setting(self, setting: Setting) -> FixedPolicy:
        """The given policy with what ``setting`` says of threshold and window; another threshold replaces its schedule."""
        policy = self._given
        changes: dict[str, Any] = {}
        if setting.uncorrected and setting.threshold is None and policy.weights is not None:
            policy = _computing(
                policy,
                "It corrects computed steps, and this is not known to be a run of Euler's sampler: every step is computed.",
            )
        if setting.threshold is not None:
            changes |= {"threshold": setting.threshold, "schedule": None}
            changes |= {"weights": None, "forecaster": "hold"} if policy.weights is not None else {}
        if setting.min_skip_step is not None:
            changes["first_skip_step"] = setting.min_skip_step
        if setting.max_skip_step is not None:
            changes["last_skip_step"] = from_end(setting.max_skip_step, setting.num_steps or policy.num_steps)
        if setting.max_consecutive_skips is not None:
            changes["max_consecutive_skips"] = setting.max_consecutive_skips
        found = FixedPolicy(dataclasses.replace(policy, **changes))
        found._given = self._given
        return found


def _computing(policy: Policy, why: str) -> Policy:
    """The same policy, computing every step, with the reason."""
    return dataclasses.replace(
        policy,
        schedule=None,
        weights=None,
        forecaster="hold",
        threshold=0.0,
        refusal=why,
        expected_speedup=None,
        expected_error=None,
        notes=(*policy.notes, why),
    )
