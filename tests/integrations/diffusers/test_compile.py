"""torch.compile: blocks one by one with any signal; the whole model in one graph where the plan is known before."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from tiny_pipelines import beside, flux, sample, wan

from easyteacache.errors import AttachError, EasyTeaCacheWarning

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*", "ignore::DeprecationWarning"),
]

STEPS = 6
COMPARE = {"rtol": 1e-4, "atol": 1e-5}


class Counted:
    """A backend that runs what it is given and counts the graphs."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, example_inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("first", ["compile", "attach"])
@pytest.mark.parametrize("signal", ["timestep_projection", "modulated_input", "first_block_residual"])
def test_blocks_compiled_one_by_one_work_with_any_signal(signal, first, make_cache):
    pipe = wan()
    cache = make_cache(signal=signal, threshold=0.3)
    with cache.attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
        pattern = cache.statistics()["cond"].pattern
    assert "·" in pattern
    backend = Counted()
    if first == "attach":
        cache.attach(pipe)
    pipe.transformer.compile_repeated_blocks(backend=backend, fullgraph=True)
    if first == "compile":
        cache.attach(pipe)
    torch.testing.assert_close(sample(pipe, "wan", steps=STEPS), expected, **COMPARE)
    assert cache.statistics()["cond"].pattern == pattern
    assert 0 < backend.graphs <= 2
    cache.detach()
    assert all(type(block._compiled_call_impl).__name__ == "function" for block in pipe.transformer.blocks)


PLANS = {
    "schedule": {"schedule": (0, 2, 3, 5), "forecaster": "linear"},
    "timestep signal": {"signal": "timestep_projection", "threshold": 0.5},
}


@pytest.mark.parametrize("how", ["wrapped", "in place"])
@pytest.mark.parametrize("plan", PLANS)
def test_a_whole_model_with_a_known_plan_is_two_graphs_without_a_break(plan, how, make_cache, monkeypatch):
    pipe = wan()
    cache = make_cache(**PLANS[plan])
    with cache.attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
        pattern = cache.statistics()["cond"].pattern
    assert "·" in pattern
    backend, plain = Counted(), pipe.transformer
    if how == "wrapped":
        pipe.transformer = torch.compile(pipe.transformer, backend=backend, fullgraph=True)
    else:
        pipe.transformer.compile(backend=backend, fullgraph=True)
    with cache.attached(pipe):
        torch.testing.assert_close(sample(pipe, "wan", steps=STEPS), expected, **COMPARE)
        assert cache.statistics()["cond"].pattern == pattern
        assert backend.graphs == 2
        torch.testing.assert_close(sample(pipe, "wan", steps=STEPS), expected, **COMPARE)
        assert backend.graphs == 2
    assert not plain._forward_pre_hooks


@pytest.mark.parametrize("first", ["compile", "attach"])
def test_a_whole_model_with_breaks_allowed_works_with_any_signal_in_any_order(first, make_cache):
    pipe = wan()
    cache = make_cache(signal="modulated_input", threshold=0.3)
    with cache.attached(pipe):
        expected = sample(pipe, "wan", steps=STEPS)
        pattern = cache.statistics()["cond"].pattern
    assert "·" in pattern
    if first == "attach":
        cache.attach(pipe)
    pipe.transformer.compile(backend=Counted())
    if first == "compile":
        cache.attach(pipe)
    torch.testing.assert_close(sample(pipe, "wan", steps=STEPS), expected, **COMPARE)
    assert cache.statistics()["cond"].pattern == pattern


def test_a_signal_inside_one_whole_graph_is_refused_with_advice(make_cache):
    pipe = wan()
    pipe.transformer.compile(backend=Counted(), fullgraph=True)
    with (
        make_cache(signal="modulated_input", threshold=0.3).attached(pipe),
        pytest.raises(Exception, match="compile the blocks"),
    ):
        sample(pipe, "wan", steps=STEPS)


def test_a_known_plan_reads_no_tensor(make_cache, monkeypatch):
    """No value of any tensor is asked for while the steps run, so no device would be waited for."""
    pipe = flux()
    with make_cache(schedule=(0, 2, 3, 5), forecaster="linear").attached(pipe) as cache:
        asked: list[str] = []
        for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
            original = getattr(torch.Tensor, name)

            def watched(self, *args, _name=name, _original=original):
                asked.append(_name)
                return _original(self, *args)

            monkeypatch.setattr(torch.Tensor, name, watched)
        before: list[int] = []
        after: list[int] = []
        pipe.transformer.register_forward_pre_hook(lambda *_: before.append(len(asked)))
        pipe.transformer.register_forward_hook(lambda *_: after.append(len(asked)))
        sample(pipe, "flux", steps=STEPS)
        driver_reads = [asked[start:end] for start, end in zip(before, after, strict=True)]
    assert cache.statistics()["cond"].hits == (1, 4)
    assert driver_reads == [[]] * len(driver_reads)


# Threads -------------------------------------------------------------------------------------------------------------


def in_two_threads(pipes):
    """A sample of each pipeline, step by step at once."""
    both = threading.Barrier(2, timeout=60)

    def in_step(pipe, step, timestep, kwargs):
        both.wait()
        return kwargs

    def run(seed):
        try:
            return sample(pipes[seed], "wan", steps=STEPS, seed=seed, callback_on_step_end=in_step)
        except threading.BrokenBarrierError:
            # The other thread says why.
            return None
        except BaseException:
            both.abort()
            raise

    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(run, seed) for seed in range(2)]]


@pytest.mark.parametrize("first", ["compile", "attach"])
@pytest.mark.parametrize("signal", ["timestep_projection", "modulated_input", "first_block_residual"])
def test_compiled_blocks_serve_each_thread_its_own_run(signal, first, make_cache):
    pipes = [wan()]
    pipes.append(beside(pipes[0]))
    cache = make_cache(signal=signal, threshold=0.3)
    expected = []
    for seed, pipe in enumerate(pipes):
        with cache.attached(pipe):
            expected.append(sample(pipe, "wan", steps=STEPS, seed=seed))
            assert cache.current_speedup_rate() > 1.0
    backend = Counted()
    if first == "attach":
        cache.attach(pipes[0], sessions="thread")
    pipes[0].transformer.compile_repeated_blocks(backend=backend, fullgraph=True)
    if first == "compile":
        cache.attach(pipes[0], sessions="thread")
    for _ in range(2):
        for found, one in zip(in_two_threads(pipes), expected, strict=True):
            torch.testing.assert_close(found, one, **COMPARE)
    assert 0 < backend.graphs <= 2
    cache.detach()
    assert all(type(block._compiled_call_impl).__name__ == "function" for block in pipes[0].transformer.blocks)


def test_beside_a_run_on_compiled_blocks_the_other_thread_computes(make_cache):
    pipes = [wan()]
    pipes.append(beside(pipes[0]))
    pipes[0].transformer.compile_repeated_blocks(backend=Counted(), fullgraph=True)
    plain = [sample(pipe, "wan", steps=STEPS, seed=seed) for seed, pipe in enumerate(pipes)]
    with make_cache(schedule=(0, 3)).attached(pipes[0]), pytest.warns(EasyTeaCacheWarning, match="another thread"):
        found = in_two_threads(pipes)
    # Whichever began first was served.
    assert sorted(map(torch.equal, found, plain)) == [False, True]


def test_a_whole_model_compiled_after_each_thread_has_a_session_is_refused(make_cache):
    pipe = wan()
    with make_cache(schedule=(0, 3)).attached(pipe, sessions="thread"):
        pipe.transformer.compile(backend=Counted())
        with pytest.raises(AttachError, match="compile_repeated_blocks"):
            sample(pipe, "wan", steps=STEPS)
