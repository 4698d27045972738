"""Published planners and rules give what their sources' recurrences give, written out here on vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from easyteacache.bench import planners
from easyteacache.bench.dicache import DiCacheRule
from easyteacache.bench.easycache import EasyCacheRule
from easyteacache.errors import BenchError

Array = NDArray[np.float64]
STEPS = 9


def run_of(seed: int, steps: int = STEPS) -> Array:
    """What a smooth run gives at each step, (S, 5)."""
    drawn = np.random.default_rng(seed).normal(size=(steps, 5))
    return np.asarray(np.cumsum(np.cumsum(drawn, axis=0), axis=0) / steps)


RUNS = [run_of(seed) for seed in range(3)]
GRAMS = [run @ run.T for run in RUNS]


def inner(count: int, *, first: Sequence[int], end: int) -> list[tuple[int, ...]]:
    """Every set of ``count`` computed steps below ``end`` that begins with ``first``."""
    rest = range(len(first), end)
    return [(*first, *others) for others in itertools.combinations(rest, count - len(first))]


# DPCache: sgl-project/sglang b9810f5, multimodal_gen/runtime/cache/dpcache.py ---------------------------------------------


def test_the_errors_of_a_straight_line_are_those_of_sglangs_predictor() -> None:
    found = planners.extrapolation_errors(GRAMS)
    for i, j, t in itertools.product(range(STEPS), repeat=3):
        if not i < j < t:
            assert found[i, j, t] == 0
            continue
        expected = []
        for run in RUNS:
            slope = (run[j] - run[i]) / (j - i)
            predicted = run[j] + slope * (t - j)
            unit = np.sqrt((run**2).sum(axis=1).mean())
            expected.append(np.linalg.norm(predicted - run[t]) / unit)
        assert found[i, j, t] == pytest.approx(np.mean(expected), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("count", [3, 5, 7, STEPS])
def test_dpcaches_schedule_is_the_cheapest_of_all(count: int) -> None:
    errors = planners.extrapolation_errors(GRAMS)

    def cost(keys: tuple[int, ...]) -> float:
        # schedule_cost with pact_costs' C[i, j, k] = Σ_{j<t<k} E[i, j, t], the end of the run included.
        ends = [*keys, STEPS]
        return sum(
            errors[ends[n - 2], ends[n - 1], t] for n in range(2, len(ends)) for t in range(ends[n - 1] + 1, ends[n])
        )

    found = planners.dpcache_schedule(errors, count)
    assert len(found) == count
    assert found[:3] == (0, 1, 2)
    assert cost(found) == pytest.approx(min(cost(keys) for keys in inner(count, first=(0, 1, 2), end=STEPS)))


def test_dpcache_refuses_a_budget_below_its_mandatory_steps() -> None:
    with pytest.raises(BenchError, match="expected 3 to 9 computed steps, found 2"):
        planners.dpcache_schedule(planners.extrapolation_errors(GRAMS), 2)


# MeanCache: UnicomAI/MeanCache a4f9a38, MeanCache4Z-Image/MC_zimage.py ----------------------------------------------------


def test_an_edges_cost_is_how_far_the_forecast_mean_velocity_is_from_the_true_one() -> None:
    levels = np.linspace(1.0, 0.0, STEPS + 1) ** 0.7
    found = planners.meancache_edges(GRAMS, levels.tolist(), longest=5)
    for (b, k), (cost, span) in found.items():
        by_span = {}
        for candidate in range(1, planners.LONGEST_SPAN + 1):
            missed = []
            for run in RUNS:
                velocity = [row.copy() for row in run[: b + 1]]
                for j in range(b + 1, k):
                    reach = min(candidate, j)
                    jvp = np.zeros(5)
                    if reach > 1:
                        width = levels[j] - levels[j - reach]
                        # The latents' finite difference, which for Euler is the mean velocity over the span.
                        moved = sum(velocity[m] * (levels[m + 1] - levels[m]) for m in range(j - reach, j))
                        jvp = (velocity[j - reach] - moved / width) / width
                    velocity.append(velocity[j - 1] - jvp * (levels[j + 1] - levels[j]))
                gaps = np.diff(levels)[b:k, None]
                mean, true = ((np.array(v)[b:k] * gaps).sum(axis=0) / gaps.sum() for v in (velocity, run))
                missed.append(np.linalg.norm(mean - true))
            by_span[candidate] = np.mean(missed)
        assert cost == pytest.approx(min(by_span.values()), abs=1e-6)
        assert by_span[span] == pytest.approx(cost, abs=1e-6)
    assert set(found) == {(b, k) for b in range(STEPS) for k in range(b + 1, min(b + 5, STEPS) + 1)}


def edges_at_random() -> dict[tuple[int, int], float]:
    rng = np.random.default_rng(5)
    return {
        (i, j): 0.0 if j == i + 1 else float(rng.uniform(0.1, 1) * (j - i))
        for i in range(STEPS)
        for j in range(i + 1, STEPS + 1)
    }


def costs_of(path: tuple[int, ...], edges: dict[tuple[int, int], float]) -> list[float]:
    return [edges[edge] for edge in itertools.pairwise(path)]


@pytest.mark.parametrize("peak", [1.0, 4.0])
@pytest.mark.parametrize("count", [2, 4, 7])
def test_the_shortest_path_has_the_least_sum_of_powers(count: int, peak: float) -> None:
    edges = edges_at_random()
    found = planners.shortest_path(edges, STEPS, count, peak=peak)
    assert found is not None
    assert len(found) == count

    def total(path: tuple[int, ...]) -> float:
        return sum(cost**peak for cost in costs_of((*path, STEPS), edges))

    assert total(found) == pytest.approx(min(total(path) for path in inner(count, first=(0,), end=STEPS)))


# LeMiCa: arXiv 2511.00090, the lexicographic minimax path -----------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_the_minimax_path_has_the_least_largest_cost_and_then_the_least_second_largest(count: int) -> None:
    edges = edges_at_random()
    found = planners.minimax_path(edges, STEPS, count)
    assert found is not None
    assert len(found) == count
    assert found[-1] == STEPS - 1

    def ranked(path: tuple[int, ...]) -> list[float]:
        return sorted(costs_of(path, edges), reverse=True)

    every = [(*path, STEPS - 1) for path in inner(count - 1, first=(0,), end=STEPS - 1)]
    assert ranked(found) == min(ranked(path) for path in every)


def test_a_budget_that_no_path_has_gives_none() -> None:
    short = {edge: cost for edge, cost in edges_at_random().items() if edge[1] - edge[0] <= 2}
    assert planners.minimax_path(short, STEPS, 3) is None
    assert planners.shortest_path(short, STEPS, 3) is None


# L2P: Aredstone/L2P-Cache 3df73ce, predictor/train.py ----------------------------------------------------------------------


def test_the_matrix_is_what_its_training_loop_ends_with() -> None:
    # In units of a mean square of 1, which is what numbers of a velocity have.
    scale = np.sqrt(np.mean([run**2 for run in RUNS]))
    x = torch.tensor(np.stack(RUNS) / scale)
    mask = torch.ones(STEPS, STEPS, dtype=torch.float64).tril()
    weight = torch.eye(STEPS, dtype=torch.float64).requires_grad_(True)
    optimizer = torch.optim.Adam([weight], lr=0.01)
    for _ in range(201):
        loss = (torch.matmul(weight * mask, x)[:, :-1] - x[:, 1:]).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = planners.l2p_matrix(GRAMS)
    np.testing.assert_allclose(found, (weight * mask).detach().numpy(), atol=2e-5)
    assert np.abs(found - np.eye(STEPS)).max() > 0.1


# EasyCache: H-EmbodVis/EasyCache 3149a41, EasyCache4Wan2.2/easycache_generate.py, easycache_forward -----------------------


def model_at(step: int, branch: int, latent: Tensor) -> Tensor:
    return latent * (0.5 + 0.3 * branch) + torch.sin(torch.tensor(0.7 * step) + latent)


@pytest.mark.parametrize("threshold", [1e-6, 0.5, 2.0])
def test_easycache_decides_and_fills_as_its_source(threshold: float) -> None:
    steps, warm_up = 14, 3
    rule = EasyCacheRule(steps, threshold, warm_up, branches=2)
    source: dict[str, Tensor] = {}
    k: float | None = None
    accumulated, should_calc, computed = 0.0, True, 0
    for run in range(2):
        latent = torch.linspace(-1, 1, 6) * (1 + run)
        for step in range(steps):
            for branch in range(2):
                called: list[int] = []
                found = rule(latent, lambda s=step, b=branch, z=latent, c=called: c.append(1) or model_at(s, b, z))  # type: ignore[misc]
                if step == 0 and branch == 0:
                    # The source runs one sample a process.
                    source, k, accumulated = {}, None, 0.0
                if branch == 0:
                    if step < warm_up or step >= steps - 1:
                        should_calc, accumulated = True, 0.0
                    elif "input" in source and "output" in source and k is not None:
                        change = (latent - source["input"]).abs().mean()
                        accumulated += float(k * (change / source["output"].abs().mean()))
                        should_calc = accumulated >= threshold
                        accumulated = 0.0 if should_calc else accumulated
                    else:
                        should_calc = True
                    source["input"] = latent.clone()
                if not should_calc:
                    expected = latent + source[f"cache {branch}"]
                else:
                    expected = model_at(step, branch, latent)
                    if branch == 0:
                        if "output" in source and "computed input" in source:
                            moved = (source["input"] - source["computed input"]).abs().mean()
                            k = float((expected - source["output"]).abs().mean() / moved)
                        source["computed input"], source["output"] = source["input"], expected.clone()
                    source[f"cache {branch}"] = expected - latent
                assert bool(called) == should_calc
                computed += should_calc
                torch.testing.assert_close(found, expected)
            latent = latent - 0.1 * expected
    assert computed == 2 * 2 * steps if threshold < 1e-3 else computed < 2 * 2 * steps


# DiCache: Bujiazi/DiCache 3f0bd57, FLUX/run_flux_dicache.py, dicache_forward ----------------------------------------------


@pytest.mark.parametrize("measure", ["delta_y", "delta_minus"])
def test_dicache_decides_and_fills_as_its_source(measure: str) -> None:
    steps, retained, threshold, top = 16, 0.2, 0.25, 1.5
    rule = DiCacheRule(steps, threshold, retained, measure, top)
    states: dict[str, Tensor] = {}
    residual_window: list[Tensor] = []
    probe_window: list[Tensor] = []
    accumulated, decisions = 0.0, []
    hidden = torch.linspace(0.5, 2, 8)
    for step in range(steps):
        probe = hidden + 0.2 * torch.cos(hidden * (step + 1) / 5)
        if step <= int(retained * steps) or step == steps - 1:
            should_calc, accumulated = True, 0.0
        else:
            delta_x = (hidden - states["input"]).abs().mean() / states["input"].abs().mean()
            delta_y = (probe - states["probe"]).abs().mean() / states["probe"].abs().mean()
            accumulated += float((delta_y - delta_x).abs() if measure == "delta_minus" else delta_y)
            should_calc = accumulated >= threshold
            accumulated = 0.0 if should_calc else accumulated
        states = {"probe": probe, "input": hidden}
        assert rule.computes(hidden, probe) == should_calc
        if should_calc:
            leaving = probe + torch.sin(probe + step / 3)
            residual_window.append(leaving - hidden)
            probe_window.append(probe - hidden)
            rule.keep(leaving - hidden, probe - hidden)
        else:
            indicator = probe - hidden
            moved = (probe_window[-1] - probe_window[-2]).abs().mean()
            gamma = ((indicator - probe_window[-2]).abs().mean() / moved).clip(1, top)
            expected = hidden + residual_window[-2] + gamma * (residual_window[-1] - residual_window[-2])
            torch.testing.assert_close(hidden + rule.residual(probe - hidden), expected)
        decisions.append(should_calc)
        hidden = hidden * 0.97 + 0.02
    assert not all(decisions)
