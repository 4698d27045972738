"""May a record be carried over to a run of another sampler than its own?

What was judged under one sampler is no evidence of another's runs. It may still be used there, without a promise, where enough is known to
keep its harm to what it does in its own: the noise levels of both, and how much the output changes between them.
"""

from __future__ import annotations

from collections.abc import Sequence

from easyteacache.policy.carry import falling
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import Bucket
from easyteacache.records.sampler import SamplerRecord

#: Noise levels of flow matching lie in [0, 1]; samplers keep them in single precision.
HIGHEST = 1.0 + 1e-6
#: Time runs evenly to within this share of it, where a time shift spaces the levels.
_EVEN = 0.03
#: Time shifts that are tried, from 1/32 to 32.
_SHIFTS = tuple(2.0 ** (power / 8) for power in range(-40, 41))


def why_not(buckets: Sequence[Bucket], request: Request, run: RunContext) -> str | None:
    """Why it may not, as the end of a sentence; None where it may.

    It may under a deterministic sampler that takes the same kind of output and calls the model at falling noise levels of flow
    matching, once each. No error can be promised there, so a request for one (``max_error=``, ``quality=``) is never carried over.
    """
    if request.budget is not None:
        return f"an error of at most {request.budget:g} can be promised under its own sampler alone"
    sampler = run.sampler
    if sampler is None:
        # Of callers of the three verbs nobody knows it; they pass each step's noise level, or the step is computed.
        return "the sampler of this run is not known" if run.begun and not run.can.block_stack_only else None
    if sampler.signature is None:
        return f"{sampler.name} draws noise, or does something else that could not be measured"
    levels = sampler.levels
    if levels is None or max(levels) > HIGHEST:
        return f"the noise levels of {sampler.name} are not those of flow matching"
    if not falling(levels):
        return f"{sampler.name} calls the model more than once at one noise level"
    if not spaced_by_shift(levels) and not sampler.agrees(SamplerRecord.euler(levels)):
        return f"{sampler.name} looks back at earlier outputs, over noise levels that no time shift spaces"
    kinds = {bucket.sampler.prediction for bucket in buckets if bucket.sampler is not None} - {"unknown"}
    if kinds and sampler.prediction not in {*kinds, "unknown"}:
        return f"{sampler.name} takes the model's output as {sampler.prediction}, not as {' or '.join(sorted(kinds))}"
    return None


def spaced_by_shift(levels: Sequence[float]) -> bool:
    """Are the first N of N + 1 falling noise levels σ = s t / (1 + (s − 1) t) at evenly spaced times t, for some time shift s?

    Wherever the first of them lies: a run that begins in the middle is spaced as the whole one. Karras, beta and exponential
    spacings are not.
    """
    for shift in _SHIFTS:
        times = [level / (shift - (shift - 1.0) * level) for level in levels[:-1]]
        step = (times[0] - times[-1]) / max(len(times) - 1, 1)
        if all(abs(times[0] - k * step - time) <= _EVEN * times[0] for k, time in enumerate(times)):
            return True
    return False
