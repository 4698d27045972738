"""A record with a caller's wishes, resolved once per sequence length and step count and then only looked up."""

from __future__ import annotations

from easyteacache.policy import Policy, Setting, resolve
from easyteacache.registry import Found


class Resolver:
    """Policies of one record; after the first call for a length, ``policy`` is a dictionary lookup.

    Args:
        found: what the registry gave.
        setting: the caller's wishes.
        allow_yanked: use a yanked record all the same.
    """

    def __init__(self, found: Found, setting: Setting, *, allow_yanked: bool = False) -> None:
        self._found, self._setting, self._allow_yanked = found, setting, allow_yanked
        self._policies: dict[tuple[int | None, int | None], Policy] = {}

    def policy(self, *, sequence_length: int | None, num_steps: int | None) -> Policy:
        """The policy for one sequence length and step count; raises as ``policy.resolve`` does."""
        key = (sequence_length, num_steps)
        if key not in self._policies:
            setting = self._setting.at(sequence_length=sequence_length, num_steps=num_steps)
            self._policies[key] = resolve(self._found, setting, allow_yanked=self._allow_yanked)
        return self._policies[key]

    def with_setting(self, setting: Setting) -> Resolver:
        """The same record with other wishes."""
        return Resolver(self._found, setting, allow_yanked=self._allow_yanked)
