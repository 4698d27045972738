"""Adding up weighted tensors: exact where it can be, better than term by term where it cannot."""

from __future__ import annotations

import pytest
import torch

from easyteacache.runtime.branch_state import weighted_sum

HALF = [torch.bfloat16, torch.float16]


def tensors(
    count: int, dtype: torch.dtype = torch.float32, *, seed: int = 0, spread: float = 1.0
) -> list[torch.Tensor]:
    """``count`` tensors that differ from one another by about ``spread`` of their size."""
    source = torch.Generator().manual_seed(seed)
    base = torch.randn(4, 257, generator=source, dtype=torch.float64)
    others = torch.randn(count, 4, 257, generator=source, dtype=torch.float64)
    return [(base + spread * other).to(dtype) for other in others]


def exact(weights: tuple[float, ...], terms: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([weight * term.double() for weight, term in zip(weights, terms, strict=True)]).sum(0)


@pytest.mark.parametrize("weights", [(1.0,), (0.5,), (1.0, 2.5), (3.0, -3.0, 1.0), (0.1, -0.2, 0.3, 0.8), (0.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
def test_it_is_the_sum_in_double_precision_to_rounding(weights: tuple[float, ...], dtype: torch.dtype) -> None:
    terms = tensors(len(weights), dtype)
    found = weighted_sum(list(zip(weights, terms, strict=True)))
    assert (found.dtype, found.shape) == (dtype, terms[0].shape)
    size = torch.stack([abs(weight) * term.double().abs() for weight, term in zip(weights, terms, strict=True)]).sum(0)
    # A half result is rounded once, not once a term; the others once a term.
    unit = torch.finfo(dtype).eps * (0.51 if dtype in HALF else len(weights))
    bound = unit * (exact(weights, terms).abs() if dtype in HALF else size) + 1e-5 * (dtype in HALF) * size
    assert ((found.double() - exact(weights, terms)).abs() <= bound + 1e-7).all()


@pytest.mark.parametrize("dtype", HALF)
def test_weights_that_cancel_lose_less_than_term_by_term(dtype: torch.dtype) -> None:
    weights, better = (3.0, -3.0, 1.0), []
    for seed in range(20):
        terms = tensors(3, dtype, seed=seed, spread=0.05)
        truth = exact(weights, terms)
        naive = terms[0] * weights[0]
        for weight, term in zip(weights[1:], terms[1:], strict=True):
            naive = naive + term * weight
        found = weighted_sum(list(zip(weights, terms, strict=True)))
        better.append(float((naive.double() - truth).norm() / (found.double() - truth).norm()))
    assert min(better) > 1.5


def test_mixed_number_types_promote() -> None:
    wide, half, other = tensors(1)[0], tensors(1, torch.bfloat16)[0], tensors(1, torch.float16)[0]
    for terms, dtype in (
        ([(2.0, half), (1.0, wide)], torch.float32),
        ([(1.0, half), (1.0, wide)], torch.float32),
        ([(2.0, half), (3.0, other)], torch.float32),
        ([(2.0, wide), (3.0, wide.double())], torch.float64),
        ([(2.0, half), (3.0, half)], torch.bfloat16),
    ):
        found = weighted_sum(terms)
        assert found.dtype == dtype
        torch.testing.assert_close(
            found.double(), exact(tuple(w for w, _ in terms), [t for _, t in terms]), rtol=1e-2, atol=1e-2
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
@pytest.mark.parametrize("weights", [(0.5,), (1.0, 2.0), (2.0, 1.0), (1.0, -3.0, 3.0)])
def test_what_is_added_up_stays_as_it_was(weights: tuple[float, ...], dtype: torch.dtype) -> None:
    terms = tensors(len(weights), dtype)
    before = [term.clone() for term in terms]
    found = weighted_sum(list(zip(weights, terms, strict=True)))
    found.zero_()
    assert all(torch.equal(a, b) for a, b in zip(terms, before, strict=True))


def test_a_single_weight_of_one_is_the_tensor_itself() -> None:
    [term] = tensors(1)
    assert weighted_sum([(1.0, term)]) is term
    assert weighted_sum([(0.5, term)]) is not term


@pytest.mark.parametrize("weights", [(2.0,), (1.0, 0.5), (2.0, 1.0, -1.0)])
def test_what_was_computed_without_a_graph_is_added_up_without_one(weights: tuple[float, ...]) -> None:
    with torch.no_grad():
        terms = tensors(len(weights))
        assert weighted_sum(list(zip(weights, terms, strict=True))).grad_fn is None
    with torch.inference_mode():
        terms = tensors(len(weights))
    found = weighted_sum(list(zip(weights, terms, strict=True)))
    assert found.grad_fn is None
    assert not found.requires_grad


def test_remembered_outputs_keep_no_graph(make_policy) -> None:
    from easyteacache.runtime.branch_state import BranchState

    policy = make_policy(
        schedule=(0, 1), weights=((1.0,), (-1.0, 2.0), (-2.0, 3.0)), forecaster="fitted", applied_to="output"
    )
    state = BranchState("b", policy)
    for step in (0, 1):
        state.check(step, None)
        state.store_residual(step, None, tensors(1, seed=step)[0].requires_grad_() * 2.0)
    assert state.check(2, None)
    assert state.residual().grad_fn is None
