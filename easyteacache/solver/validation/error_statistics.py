"""What a record states of errors over runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easyteacache.records.evidence import ErrorStatistics, conformal_rank
from easyteacache.records.trace import Array
from easyteacache.solver.fit.bucket_fit import six_digits


def statistics(errors: Sequence[float] | Array) -> ErrorStatistics:
    """Mean, median, ``ninetieth`` and largest of errors over runs, as a record holds them."""
    values = np.asarray(errors, dtype=np.float64)
    return ErrorStatistics(
        mean=six_digits(float(values.mean())),
        p50=six_digits(float(np.percentile(values, 50))),
        p90=six_digits(ninetieth(values)),
        worst=six_digits(float(values.max())),
        runs=len(values),
    )


def ninetieth(errors: Sequence[float] | Array) -> float:
    """What one more run stays within in nine of ten cases, where the runs are enough to say so; of fewer their 90th percentile.

    Of 19 runs and more it is the value of ``conformal_rank``, a little above the percentile. Of fewer that would be their largest
    one, which a record states anyway.
    """
    values = np.sort(np.asarray(errors, dtype=np.float64))
    rank = conformal_rank(len(values))
    return float(values[rank - 1] if rank < len(values) else np.percentile(values, 90))
