"""What callers hand to the verbs: checked once, with errors that name the argument."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING

from easyteacache.errors import InvalidCalibration, InvalidSignal

if TYPE_CHECKING:
    import torch

    from easyteacache.policy.policy import Policy
    from easyteacache.runtime.branch_state import BranchState


def step_index(step: object) -> int:
    """A zero-based index in the sampler loop.

    Raises:
        InvalidSignal: no integer (bools and floats are none), or negative.
    """
    return _count(step, "step", "an integer index in the sampler loop, 0 or more")


def token_count(length: object) -> int | None:
    """A number of tokens; None for None and 0, which both mean that it is not known.

    Raises:
        InvalidSignal: no integer, or negative.
    """
    return None if length is None else _count(length, "sequence_length", "a number of tokens, 0 or more") or None


def tensor(value: object, name: str) -> torch.Tensor:
    """A tensor of real numbers that is not empty.

    Raises:
        InvalidSignal: anything else.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise InvalidSignal(name, f"expected a torch.Tensor, found {type(value).__name__}")
    if value.numel() == 0:
        raise InvalidSignal(name, f"is empty, of shape {tuple(value.shape)}")
    if value.is_complex():
        raise InvalidSignal(name, f"expected real numbers, found {value.dtype}")
    return value


def latent(value: object, name: str) -> torch.Tensor:
    """A tensor of floating-point numbers that is not empty.

    Raises:
        InvalidSignal: anything else.
    """
    found = tensor(value, name)
    if not found.is_floating_point():
        raise InvalidSignal(name, f"expected floating-point numbers, found {found.dtype}")
    return found


def tokens(block_input: torch.Tensor) -> int:
    """The tokens of a block-stack input ``(B, L, D)``.

    Raises:
        InvalidSignal: it has no token axis.
    """
    if block_input.ndim < 2:
        raise InvalidSignal(
            "input_latent", f"expected (B, L, D), found shape {tuple(block_input.shape)}; or pass sequence_length="
        )
    return int(block_input.shape[1])


def require_residual(policy: Policy) -> None:
    """Refuse operating points that the verbs cannot apply.

    Raises:
        InvalidCalibration: it forecasts the model's output, which the verbs do not see.
    """
    if policy.applied_to != "residual":
        raise InvalidCalibration(
            policy.model_key,
            f"this operating point forecasts the model's {policy.applied_to}, but update() and store_truth() see the "
            "block stack: use attach(), or choose another operating point (threshold=, predictor=)",
            rule="policy.applied-to",
        )


def coordinate(state: BranchState, timestep: float | None) -> float | None:
    """Where the predictor finds this step on the policy's axis; None where that is the step itself.

    Raises:
        InvalidSignal: the axis is another one, and the step's place on it was not given.
    """
    axis = state.axis
    if axis == "step":
        return None
    place = state.sigma if axis == "sigma" else timestep
    if place is None or not math.isfinite(float(place)):
        how = "sigma= to check()" if axis == "sigma" else "timestep= to update() and store_truth()"
        raise InvalidSignal(
            axis, f"is {place!r}; the predictor {state.policy.forecaster!r} extrapolates along it: pass {how}"
        )
    return float(place)


def _count(value: object, name: str, expected: str) -> int:
    if isinstance(value, bool):
        raise InvalidSignal(name, f"expected {expected}, found {value!r}")
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidSignal(name, f"expected {expected}, found {value!r}") from None
    if count < 0:
        raise InvalidSignal(name, f"expected {expected}, found {count}")
    return count
