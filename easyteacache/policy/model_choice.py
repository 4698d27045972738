"""Choose among the records of one model: for each run the one with the strongest evidence of those that hold for it."""

from __future__ import annotations

from collections.abc import Sequence

from easyteacache.errors import EasyTeaCacheError, InvalidCalibration, UnreachableTarget
from easyteacache.policy.model_match import differences
from easyteacache.policy.policy import Policy, resolve
from easyteacache.policy.request import Request, RunContext
from easyteacache.registry.registry import Found

#: More than these in one note help nobody.
_MOST_NAMED = 4


class ModelResolver:
    """Policies of one model: of all records that can do what is wished in a run, the one to be preferred.

    A speed-up or an error is asked of all of them. Without either, or with a threshold, the first record alone decides: the model's own
    where it has one.

    Args:
        found: its records, the bare one first (``Registry.of_model``); presets and records whose signal is not known are left out.
        allow_yanked: use yanked records all the same.

    Raises:
        InvalidCalibration: there are presets alone.
    """

    def __init__(self, found: Sequence[Found], *, allow_yanked: bool = False) -> None:
        self._found = tuple(one for one in found if applicable(one)) or tuple(found[:1])
        self._allow_yanked = allow_yanked
        self._policies: dict[tuple[Request, RunContext], Policy] = {}

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that a policy of any of its records may need."""
        return tuple(dict.fromkeys(one.calibration.signal for one in self._found))

    def policy(self, request: Request, run: RunContext) -> Policy:
        """The preferred record's policy.

        Raises:
            UnreachableTarget: no record reaches what is asked for, with what each offers.
            InvalidCalibration, RetiredCalibration: as ``policy.resolve``, where one record alone is asked.
        """
        found = self._policies.get((request, run))
        if found is None:
            found = self._policies[request, run] = self._chosen(request, run)
        return found

    def _chosen(self, request: Request, run: RunContext) -> Policy:
        asked = self._found if request.speedup is not None or request.budget is not None else self._found[:1]
        if len(asked) == 1:
            return resolve(asked[0], request, run, allow_yanked=self._allow_yanked)
        policies, failures = [], []
        for one in asked:
            try:
                policies.append(resolve(one, request, run, allow_yanked=self._allow_yanked))
            except EasyTeaCacheError as error:
                failures.append((one, error))
        if not policies:
            raise _unreachable(failures)
        best = policies[0]
        for policy in policies[1:]:
            if preferred(policy, best, run):
                best = policy
        others = [policy for policy in policies if policy is not best]
        return best.noting(_note(best, others, [one for one, _ in failures]))


def applicable(found: Found) -> bool:
    """Whether this project can apply a record: it is no preset, and says which signal it was fitted to."""
    return found.calibration.method != "preset" and found.calibration.signal != "unknown"


def preferred(policy: Policy, other: Policy, run: RunContext | None = None) -> bool:
    """Whether ``policy`` goes before ``other``: what holds for the run first, then the stronger evidence, then the better figure."""
    mine, theirs = _holds(policy, run), _holds(other, run)
    if mine != theirs:
        return mine > theirs
    return policy.standing.before(other.standing)


def holds(policy: Policy, run: RunContext) -> bool:
    """Whether what is known of a policy was found in runs like this one: same sampler, steps and length, of the same model."""
    return _holds(policy, run) == 2


def _holds(policy: Policy, run: RunContext | None) -> int:
    """2: it was made for such a run; 1: it is carried over, another step count's or another model's; 0: every step is computed."""
    if policy.refusal is not None:
        return 0
    model = None if run is None else run.model
    others = [] if model is None else differences(policy.model, model)
    return 1 if policy.carried is not None or policy.foreign or others else 2


def described(policy: Policy) -> str:
    """A policy in a few words, for a note."""
    figure = next((f", {metric} {value:g}" for metric, value in policy.standing.figures), "")
    rate = policy.expected_speedup or policy.standing.speedup
    return f"{policy.model_key} ({policy.evidence or 'no evidence'}{'' if rate is None else f', {rate:.3g}×'}{figure})"


def _note(best: Policy, others: Sequence[Policy], failed: Sequence[Found]) -> str:
    offers = [described(policy) for policy in others if policy.refusal is None]
    silent = [policy.model_key for policy in others if policy.refusal is not None]
    silent += [one.calibration.model_key for one in failed]
    more = len(offers) - _MOST_NAMED
    named = [*offers[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])]
    over = f" over {', '.join(named)}" if named else ""
    left = f"; {', '.join(silent)} {'offers' if len(silent) == 1 else 'offer'} nothing for this run" if silent else ""
    return f"Of the records of this model {described(best)} is chosen{over}{left}."


def _unreachable(failures: Sequence[tuple[Found, EasyTeaCacheError]]) -> EasyTeaCacheError:
    """The one error of all, where it is one; else what each record says."""
    (_, first), *others = failures
    if not others or not all(isinstance(error, (UnreachableTarget, InvalidCalibration)) for _, error in failures):
        return first
    return UnreachableTarget("; ".join(f"{one.calibration.model_key}: {error}" for one, error in failures))
