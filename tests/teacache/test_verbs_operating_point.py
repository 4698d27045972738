"""The three verbs see the block stack alone: they get a plan that forecasts the residual."""

from __future__ import annotations

import torch

from easyteacache import TeaCache

KEY = "reference/moving-digits"


def run(cache: TeaCache, *, steps: int, tokens: int) -> None:
    for step in range(steps):
        signal = torch.full((1, 6, 8), 1.0 + 0.01 * step)
        block_input = torch.full((1, tokens, 8), float(step))
        if cache.check(step, signal, tokens, sigma=1.0 - step / steps):
            cache.update(signal, block_input)
        else:
            cache.store_truth(step, signal, block_input, block_input + 1.0, tokens)


def test_a_record_that_prefers_the_models_output_gives_the_verbs_a_plan_for_the_residual() -> None:
    cache = TeaCache.from_registry(KEY, speedup=2.0, num_steps=50)
    run(cache, steps=50, tokens=256)
    assert cache.policy.applied_to == "residual"
    assert cache.current_speedup_rate() == 2.0


def test_the_plan_for_the_residual_states_its_own_error() -> None:
    either = TeaCache.from_registry(KEY, speedup=2.0, num_steps=50, sequence_length=256)
    best = either.policy.expected_error
    run(either, steps=50, tokens=256)
    assert best is not None
    assert either.policy.expected_error is not None
    assert either.policy.expected_error >= best
