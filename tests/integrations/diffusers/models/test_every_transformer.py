"""What has to hold for every covered transformer class, on tiny instances of the real classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_transformers import CASES, adapter_named, arguments, build, run

from easyteacache.integrations.diffusers import adapter_for, adapters, located, timestep_plan
from easyteacache.integrations.diffusers.forward_state import Arguments

# Raised by two of diffusers' own classes when they are built or run on a CPU.
pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning"),
]

STEPS = 5
NAMES = sorted(CASES)


class Watch:
    """Remembers what enters the first block and what leaves the last one, as the model itself sees it."""

    def __init__(self, model: Any) -> None:
        adapter = adapter_for(model)
        blocks = located(adapter, model)
        self.adapter, (self.first, head), (self.last, tail) = adapter, blocks[0], blocks[-1]
        self.heads: list[list[torch.Tensor]] = []
        self.tails: list[list[torch.Tensor]] = []
        head.register_forward_pre_hook(self._before, with_kwargs=True)
        tail.register_forward_hook(self._after)

    def _before(self, module, args, kwargs):
        bound = Arguments(type(module), args, kwargs)
        self.heads.append([bound[name].clone() for name in self.adapter.streams])

    def _after(self, module, args, output):
        found = []
        for name, head in zip(self.adapter.streams, self.heads[-1], strict=True):
            value = output[self.last.returns.index(name)] if len(self.last.returns) > 1 else output
            found.append(self.last.layout.take(value, head).clone())
        self.tails.append(found)


@pytest.fixture(scope="module")
def models():
    """Each class's instance, built once; every test has to leave it as it found it."""
    built: dict[str, Any] = {}
    return lambda name: built.setdefault(name, build(name))


def test_every_adapter_is_tested():
    assert {adapter.transformer for adapter in adapters()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_threshold_zero_and_detach_change_no_bit(name, models, make_cache):
    model = models(name)
    keys, plain = list(model.state_dict()), run(model, name)
    with make_cache(threshold=0.0).attached(model):
        assert torch.equal(run(model, name), plain)
    assert torch.equal(run(model, name), plain)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("name", NAMES)
def test_a_reused_step_is_head_input_plus_forecast_residual(name, make_cache):
    model = build(name)
    watch = Watch(model)
    with make_cache(schedule=(0, 2)).attached(model) as cache:
        run(model, name, branches=("cond",), steps=4)
        assert [
            record.reused
            for record in cache.statistics()["cond" if hasattr(model, "cache_context") else "default"].steps
        ] == [
            False,
            True,
            False,
            True,
        ]
    for computed, reused in ((0, 1), (2, 3)):
        for head, tail, now, filled in zip(
            watch.heads[computed], watch.tails[computed], watch.heads[reused], watch.tails[reused], strict=True
        ):
            assert not torch.equal(head, tail)
            torch.testing.assert_close(filled, now + (tail - head))


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_really_skipped(name, models, make_cache):
    model = models(name)
    blocks = [block for _, block in located(adapter_for(model), model)]
    calls: list[str] = []
    # On the layers inside the blocks, which only run when a block is computed.
    handles = [
        layer.register_forward_hook(lambda layer, args, output: calls.append(type(layer).__name__))
        for block in blocks
        for path, layer in block.named_modules()
        # DiT asks its first block's embedding for the output, too, at every step.
        if layer is not block and not path.startswith("norm1.emb")
    ]
    try:
        run(model, name, branches=("cond",), steps=1)
        once = list(calls)
        calls.clear()
        with make_cache(schedule=(0,)).attached(model):
            run(model, name, branches=("cond",), steps=4)
        assert calls == once != []
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("contexts", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_branches_never_share_a_residual(name, contexts, models, make_cache):
    model = models(name)
    with make_cache(schedule=(0,)).attached(model):
        both = run(model, name, contexts=contexts, steps=3)
    for position, branch in enumerate(("cond", "uncond")):
        with make_cache(schedule=(0,)).attached(model):
            assert torch.equal(run(model, name, branches=(branch,), steps=3), both[position::2])


@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_begins_afresh(name, models, make_cache):
    model = models(name)
    with make_cache(schedule=(0, 2)).attached(model):
        first = run(model, name)
        assert torch.equal(run(model, name), first)


@pytest.mark.parametrize("name", NAMES)
def test_every_signal_it_offers_can_be_taken(name, models, make_cache):
    model = models(name)
    for signal in adapter_for(model).signal_names:
        with make_cache(signal=signal, threshold=1e9).attached(model) as cache:
            run(model, name, steps=3)
            for statistics in cache.statistics().values():
                assert statistics.pattern == "█··", signal
                assert all(distance is not None and distance > 0 for distance in statistics.distances[1:]), signal


@pytest.mark.parametrize("name", NAMES)
def test_the_sequence_length_is_that_of_the_generated_stream(name, models, make_cache):
    model = models(name)
    with make_cache(schedule=(0,)).attached(model) as cache:
        run(model, name, steps=2)
        assert cache.sequence_length == CASES[name].tokens


def tensors(values: Any) -> list[torch.Tensor]:
    """Every tensor in a nest of tuples and dictionaries."""
    if isinstance(values, torch.Tensor):
        return [values.clone()]
    if isinstance(values, dict):
        values = tuple(values.values())
    return [tensor for value in values for tensor in tensors(value)] if isinstance(values, (tuple, list)) else []


@pytest.mark.parametrize("name", [name for name in NAMES if "modulated_input" in adapter_named(name).signals])
def test_the_modulated_input_is_what_the_first_block_feeds_its_attention(name, models, make_cache):
    model = models(name)
    head = located(adapter_for(model), model)[0][1]
    fed: list[torch.Tensor] = []
    handles = [
        layer.register_forward_pre_hook(
            lambda layer, args, kwargs: fed.extend(tensors((args, kwargs))), with_kwargs=True
        )
        for layer in head.modules()
        if layer is not head
    ]
    try:
        with make_cache(signal="modulated_input", threshold=1e-9).attached(model) as cache:
            run(model, name, branches=("cond",), steps=1)
            signal = cache.session.branch(next(iter(cache.statistics())), 1)._signal
    finally:
        for handle in handles:
            handle.remove()
    entered = [tensor for tensor in fed if tensor.shape == signal.shape]
    # Extracting runs the block's own norm once more, so what only norms are fed must not be what is found.
    assert any(torch.allclose(tensor, signal, rtol=1e-5, atol=1e-6) for tensor in entered)


@pytest.mark.parametrize("name", [name for name in NAMES if adapter_named(name).embeds])
def test_a_plan_made_from_the_timesteps_has_the_distances_that_are_measured(name, models, make_cache):
    model = models(name)
    adapter = adapter_for(model)
    times = torch.cat([arguments(name, step, "cond")[adapter.timestep] for step in range(STEPS)])
    clock = type("Known", (), {"timesteps": lambda self: times})()
    for signal in adapter.embeds:
        with make_cache(signal=signal, threshold=1e9).attached(model) as cache:
            run(model, name, branches=("cond",))
            measured = next(iter(cache.statistics().values())).distances[1:]
        planned = timestep_plan.distances(adapter, model, signal, clock, arguments(name, 0, "cond"))
        assert planned == pytest.approx(measured, rel=1e-5)
