"""L2P (arXiv 2604.26365; Aredstone/L2P-Cache): learned weights of all outputs before a step, forecasts included.

    v̂_j = Σ_{k<j} W[j−1, k] v_k

W is lower-triangular and was trained one step ahead on full runs, so that no schedule enters; its last row is not used. The rows that
follow need not add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from easyteacache.errors import InvalidPlan
from easyteacache.policy.methods.rows import Rows, Weights, combined, unrolled


def l2p_rows(computed: Sequence[int], num_steps: int, matrix: Sequence[Sequence[float]]) -> Rows:
    """L2P's rows for one schedule.

    Args:
        computed: the computed steps, ascending, the first of them 0.
        num_steps: S.
        matrix: W, at least (S − 1, S − 1); what stands above its diagonal is not looked at.

    Raises:
        InvalidPlan: the matrix is too small, or the computed steps are no plan.
    """
    if len(matrix) < num_steps - 1 or any(len(row) < min(k + 1, num_steps - 1) for k, row in enumerate(matrix)):
        raise InvalidPlan(
            f"the matrix has {len(matrix)} rows; expected a lower triangle of {num_steps - 1} for {num_steps} steps"
        )

    def fill(step: int, known: Sequence[Weights]) -> Weights:
        return combined([(matrix[step - 1][k], known[k]) for k in range(step)])

    return unrolled(computed, num_steps, fill)
