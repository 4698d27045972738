"""Where the runtime's policies come from: a record, or one given policy."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from easyteacache.policy.bucket_choice import described
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.skip_window import from_end
from easyteacache.registry.registry import Found


class PolicySource(Protocol):
    """Where policies come from: a registry record, an original JSON file, or one given policy."""

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that any of its policies may need."""
        ...

    def policy(self, request: Request, run: RunContext) -> Policy:
        """The policy for what is wished and what is known of the run."""
        ...


class Resolver:
    """Policies of one record; after the first call for a request and a run, ``policy`` is a dictionary lookup.

    Args:
        found: what the registry gave.
        allow_yanked: use a yanked record all the same.
    """

    def __init__(self, found: Found, *, allow_yanked: bool = False) -> None:
        self._found, self._allow_yanked = found, allow_yanked
        self._policies: dict[tuple[Request, RunContext], Policy] = {}

    @property
    def signals(self) -> tuple[str, ...]:
        """The record's."""
        return (self._found.calibration.signal,)

    def policy(self, request: Request, run: RunContext) -> Policy:
        """The record's policy; raises as ``policy.resolve`` does."""
        found = self._policies.get((request, run))
        if found is None:
            found = resolve(self._found, request, run, allow_yanked=self._allow_yanked)
            self._policies[request, run] = found
        return found


class FixedPolicy:
    """A policy source that always gives the same policy, but for what a request overrides.

    Args:
        policy: the policy.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def signals(self) -> tuple[str, ...]:
        """The policy's."""
        return (self._policy.signal,)

    def policy(self, request: Request, run: RunContext) -> Policy:
        """The given policy with the request's threshold and window; another threshold replaces its schedule.

        Where its weights hold for no such run, it computes every step and says why.
        """
        policy = self._policy
        changes: dict[str, Any] = {}
        if request.threshold is not None:
            changes |= {"threshold": request.threshold, "schedule": None, "branch_schedules": ()}
            changes |= {"weights": None, "forecaster": "hold"} if policy.weights is not None else {}
        elif policy.weights is not None:
            policy = self._corrected(policy, run)
        if request.min_skip_step is not None:
            changes["first_skip_step"] = request.min_skip_step
        if request.max_skip_step is not None:
            changes["last_skip_step"] = from_end(request.max_skip_step, run.num_steps or policy.num_steps)
        if request.max_consecutive_skips is not None:
            changes |= dict.fromkeys(("max_consecutive_skips", "own_limit"), request.max_consecutive_skips)
        return dataclasses.replace(policy, **changes) if changes else policy

    def _corrected(self, policy: Policy, run: RunContext) -> Policy:
        """The policy where its weights hold; else the same one computing every step."""
        if not run.corrects_over(policy.noise_levels, policy.fitted_for):
            made = "Euler's sampler" if policy.fitted_for is None else described(policy.fitted_for)
            why = f"It corrects computed steps, and this is not known to be a run of {made}: every step is computed."
            return _computing(policy, why)
        assert policy.weights is not None
        known = [(run.num_steps, len(policy.weights), "steps"), (run.shift, policy.shift, "as the time shift")]
        other = [
            f"{here:g} {of} instead of {there:g}"
            for here, there, of in known
            if here is not None and there is not None and here != there
        ]
        if other:
            return _computing(policy, f"Its weights hold for no {' and '.join(other)}: every step is computed.")
        return policy


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
        warnings=(*policy.warnings, why),
        notes=(*policy.notes, why),
    )
