from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from easyteacache.records.trace_set import TraceSet
from easyteacache.solver.fit import curves
from easyteacache.solver.fit.crossvalidation import evidence
from easyteacache.solver.fit.points import gather
from easyteacache.solver.fit.sigma_profile import fit_profile
from easyteacache.solver.replay import gate_replay

MakeSet = Callable[..., TraceSet]


def test_profile_rises_from_zero_and_ends_at_sigma_zero(make_set: MakeSet) -> None:
    profile = fit_profile(make_set(5).runs)
    assert profile.distances[0] == 0.0
    assert np.all(np.diff(profile.distances) >= 0)
    assert np.all(np.diff(profile.sigmas) < 0)
    assert profile.sigmas[-1] == 0.0


def test_profile_is_the_mean_accumulated_output_distance(make_set: MakeSet) -> None:
    runs = make_set(4, steps=10).runs
    profile = fit_profile(runs)
    total = np.mean([trace.output_distances[b].sum() for trace in runs for b in trace.header.branches])
    assert profile.distances[profile.sigmas == pytest.approx(runs[0].sigmas[-2])] == pytest.approx(total, rel=1e-6)


def test_spread_is_that_between_runs(make_set: MakeSet) -> None:
    runs = make_set(6, steps=10).runs
    totals = [np.mean([trace.output_distances[b].sum() for b in trace.header.branches]) for trace in runs]
    profile = fit_profile(runs)
    last = int(np.argmin(np.abs(profile.sigmas - runs[0].sigmas[-2])))
    assert profile.spread[last] == pytest.approx(np.std(totals, ddof=1), rel=1e-6)


def test_a_record_holds_exactly_what_was_planned_with(make_set: MakeSet) -> None:
    profile = fit_profile(make_set(3).runs)
    stored = profile.record()
    assert stored.sigmas == profile.curve().sigmas
    assert stored.distances == profile.curve().distances


def test_profile_carries_over_to_half_the_steps_where_a_quartic_does_not(make_set: MakeSet) -> None:
    dense, sparse = make_set(8, steps=48), make_set(8, steps=24)
    profile = fit_profile(dense.runs).curve()
    quartic = curves.teacache(gather(dense.runs, "timestep_projection"))
    truth, by_profile, by_quartic = [], [], []
    for trace in sparse:
        for branch in trace.header.branches:
            truth.append(trace.output_distances[branch])
            by_profile.append(gate_replay.from_profile(trace, profile)[branch])
            by_quartic.append(quartic.predict(trace.signal_distances["timestep_projection"][branch]))
    observed = np.concatenate(truth)
    assert evidence(np.concatenate(by_profile), observed)[0] > 0.8
    assert evidence(np.concatenate(by_quartic), observed)[0] < evidence(np.concatenate(by_profile), observed)[0]
