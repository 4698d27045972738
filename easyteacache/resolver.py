"""Where the runtime's policies come from: a record with a caller's wishes, or one given policy."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from easyteacache.policy import Policy, resolve
from easyteacache.registry import Found
from easyteacache.setting import Setting
from easyteacache.window import given_window


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
        self._policy = policy

    def policy(self, *, sequence_length: int | None, num_steps: int | None, shift: float | None) -> Policy:
        """The given policy, whatever the setting."""
        return self._policy

    def with_setting(self, setting: Setting) -> FixedPolicy:
        """The given policy with the window and threshold of ``setting``."""
        policy, notes = self._policy, list(self._policy.notes)
        window = given_window(setting, notes, num_steps=setting.num_steps or policy.num_steps)
        limit = window.max_consecutive_skips
        changed = dataclasses.replace(
            policy,
            threshold=policy.threshold if setting.threshold is None else setting.threshold,
            schedule=None,
            first_skip_step=window.first,
            last_skip_step=window.last,
            max_consecutive_skips=policy.max_consecutive_skips if limit is None else limit,
            notes=tuple(notes),
        )
        return FixedPolicy(changed)
