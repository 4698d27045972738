"""``sessions="thread"``: pipelines that share a transformer, each in a thread of its own, each with a run of its own."""

from __future__ import annotations

import gc
import itertools
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from tiny_pipelines import PIPELINES, beside, sample, wan_experts
from tiny_transformers import arguments as forward_arguments
from tiny_transformers import build

from easyteacache import TeaCache
from easyteacache.errors import AttachError, EasyTeaCacheWarning
from easyteacache.integrations.diffusers import ExpertCaches

WAN = "WanTransformer3DModel"


def together(runs: list[Callable[[Callable[..., Any]], Any]]) -> list[Any]:
    """The runs' results, each in a thread of its own; they wait for each other after each step (``callback_on_step_end``)."""
    both = threading.Barrier(len(runs), timeout=60)

    def in_step(pipe, step, timestep, kwargs):
        both.wait()
        return kwargs

    with ThreadPoolExecutor(len(runs)) as pool:
        return [future.result() for future in [pool.submit(run, in_step) for run in runs]]


POLICIES = {
    "schedule": {"schedule": (0, 3)},
    "signal": {"signal": "modulated_input", "threshold": 0.3},
    "predicted": {"schedule": (0, 1, 4), "forecaster": "linear"},
}


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("name", ["wan", "flux", "chroma"])
def test_each_thread_s_sample_is_the_one_it_gets_alone(name, kind, make_cache):
    pipes = [PIPELINES[name]()]
    pipes.append(beside(pipes[0]))
    make = lambda: make_cache(**POLICIES[kind])  # noqa: E731
    expected, patterns = [], []
    for seed, pipe in enumerate(pipes):
        with make().attached(pipe) as cache:
            expected.append(sample(pipe, name, seed=seed))
            patterns.append({one.pattern for one in cache.statistics().values()})
    assert all("·" in pattern for found in patterns for pattern in found)
    with make().attached(pipes[0], sessions="thread") as cache:

        def run(seed):
            def go(in_step):
                found = sample(pipes[seed], name, seed=seed, callback_on_step_end=in_step)
                return found, {one.pattern for one in cache.statistics().values()}, cache.summary()

            return go

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = together([run(0), run(1)])
        for (output, seen, text), one, pattern in zip(found, expected, patterns, strict=True):
            assert torch.equal(output, one)
            assert seen == pattern
            assert "one of 2 threads" in text
            assert 2 <= len(text.splitlines()) <= 6
        assert cache.nbytes == 0
    plain = sample(pipes[0], name, seed=0)
    assert not torch.equal(plain, expected[0])
    assert not pipes[0].transformer._forward_pre_hooks


def test_threads_may_run_different_steps_and_sizes(make_cache):
    pipes = [PIPELINES["wan"]()]
    pipes.append(beside(pipes[0]))
    expected = []
    for pipe, steps in zip(pipes, (6, 9), strict=True):
        with make_cache(signal="modulated_input", threshold=0.2).attached(pipe):
            expected.append(sample(pipe, "wan", steps=steps))
    cache = make_cache(signal="modulated_input", threshold=0.2)
    with cache.attached(pipes[0], sessions="thread"), ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(sample, pipe, "wan", steps=n) for pipe, n in zip(pipes, (6, 9), strict=True)]
        assert all(torch.equal(run.result(), one) for run, one in zip(runs, expected, strict=True))


def test_one_thread_runs_one_pipeline_after_the_other_by_the_scheduler_of_each(make_cache):
    """As servers do that make a pipeline for each request."""
    pipe = PIPELINES["wan"]()
    with make_cache(schedule=(0, 3)).attached(pipe):
        expected = [sample(pipe, "wan", seed=seed) for seed in range(3)]
    with make_cache(schedule=(0, 3)).attached(pipe, sessions="thread") as cache:
        for seed in range(3):
            assert torch.equal(sample(beside(pipe), "wan", seed=seed), expected[seed])
            assert {one.pattern for one in cache.statistics().values()} == {"█··█··"}


def steps_of(model, cache, first, last, branch="cond"):
    with torch.no_grad():
        for step in range(first, last):
            model(**forward_arguments(WAN, step, branch))


def test_memory_and_statistics_are_each_thread_s_and_go_with_it(make_cache):
    model = build(WAN)
    cache = make_cache(schedule=(0,)).attach(model, sessions="thread")
    halfway, on = threading.Barrier(3, timeout=60), threading.Event()
    seen = {}

    def work(name, steps):
        steps_of(model, cache, 0, steps)
        seen[name] = cache.statistics()["default"].pattern, cache.session.nbytes
        halfway.wait()
        on.wait(60)

    threads = [threading.Thread(target=work, args=(n, n), name=f"worker-{n}") for n in (2, 4)]
    for thread in threads:
        thread.start()
    halfway.wait()
    assert {name: pattern for name, (pattern, _) in seen.items()} == {2: "█·", 4: "█···"}
    assert cache.nbytes == sum(held for _, held in seen.values()) > 0
    assert {name: one.nbytes > 0 for name, one in cache.thread_sessions.items()} == {"worker-2": True, "worker-4": True}
    drivers = [
        weakref.ref(one) for one in gc.get_objects() if type(one).__name__ == "Driver" and one.transformer is model
    ]
    assert len(drivers) == 2
    on.set()
    for thread in threads:
        thread.join()
    assert (cache.nbytes, cache.thread_sessions) == (0, {})
    gc.collect()
    assert [one() for one in drivers] == [None, None]
    # This thread has made no run: it is told of the one that began last.
    assert cache.statistics()["default"].pattern in ("█·", "█···")
    assert "one of 2 threads" in cache.summary()
    cache.detach()
    assert cache.statistics()["default"].pattern in ("█·", "█···")
    assert "threads" not in cache.summary()


def test_before_any_thread_has_sampled_it_says_so(make_cache):
    with make_cache(schedule=(0,)).attached(build(WAN), sessions="thread") as cache:
        assert (cache.statistics(), cache.thread_sessions, cache.nbytes) == ({}, {}, 0)
        assert "no step seen yet" in cache.summary()


def test_a_pool_of_many_threads_leaves_nothing_behind(make_cache):
    model = build(WAN)
    plain = [model(**forward_arguments(WAN, step, "cond"))[0] for step in range(3)]
    with make_cache(schedule=(0,)).attached(model, sessions="thread") as cache:
        for _ in range(3):
            threads = [threading.Thread(target=steps_of, args=(model, cache, 0, 3)) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert (cache.nbytes, cache.thread_sessions) == (0, {})
        assert "one of 15 threads" in cache.summary()
    assert all(torch.equal(model(**forward_arguments(WAN, step, "cond"))[0], plain[step]) for step in range(3))


def test_a_thread_that_goes_on_after_detach_computes_and_may_be_attached_again(make_cache):
    model = build(WAN)
    cache = make_cache(schedule=(0,))
    with torch.no_grad():
        plain = [model(**forward_arguments(WAN, step, "cond"))[0] for step in range(4)]
    with ThreadPoolExecutor(1) as pool:
        cache.attach(model, sessions="thread")
        pool.submit(steps_of, model, cache, 0, 3).result()
        assert cache.nbytes > 0
        cache.detach()
        assert cache.nbytes == 0
        pool.submit(steps_of, model, cache, 0, 2).result()
        assert cache.statistics()["default"].pattern == "█··"
        cache.attach(model)
        pool.submit(steps_of, model, cache, 0, 4).result()
        assert cache.statistics()["default"].pattern == "█···"
        cache.detach()
    with torch.no_grad():
        assert all(torch.equal(model(**forward_arguments(WAN, step, "cond"))[0], plain[step]) for step in range(4))


def test_one_thread_s_context_and_prompt_are_no_other_s(make_cache):
    model = build(WAN)
    turn = [threading.Event() for _ in range(9)]
    with make_cache(schedule=(0,)).attached(model, sessions="thread"):
        found = {}

        def work(name, start):
            with torch.no_grad(), model.cache_context(name):
                for number, step in zip(itertools.count(start, 2), range(4)):
                    turn[number].wait(60)
                    found.setdefault(name, []).append(model(**forward_arguments(WAN, step, name))[0])
                    turn[number + 1].set()

        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(work, name, start) for start, name in enumerate(("cond", "uncond"))]
            turn[0].set()
            [run.result() for run in runs]
    for name in ("cond", "uncond"):
        with make_cache(schedule=(0,)).attached(model), torch.no_grad(), model.cache_context(name):
            alone = [model(**forward_arguments(WAN, step, name))[0] for step in range(4)]
        assert all(map(torch.equal, found[name], alone))


def test_what_is_switched_off_or_wished_otherwise_holds_for_every_thread(make_cache):
    model = build(WAN)
    with make_cache(schedule=(0,)).attached(model, sessions="thread") as cache, ThreadPoolExecutor(1) as pool:
        pool.submit(steps_of, model, cache, 0, 3).result()
        cache.enable = False
        pool.submit(steps_of, model, cache, 0, 3).result()
        assert pool.submit(cache.statistics).result()["default"].pattern == "█··"
        cache.enable = True
        cache.set_range(10, 1, threshold=1e9, max_consecutive_skip=1)
        pool.submit(steps_of, model, cache, 0, 5).result()
        assert pool.submit(cache.statistics).result()["default"].pattern == "█·█·█"


def test_a_warning_comes_once_a_cache_and_not_once_a_thread():
    pipe = PIPELINES["wan"]()
    with TeaCache.even(speedup=2.0).attached(pipe, sessions="thread"), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for seed in range(3):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(sample, beside(pipe), "wan", seed=seed).result()
    texts = [str(one.message) for one in told if issubclass(one.category, EasyTeaCacheWarning)]
    assert len(texts) == len(set(texts))


def test_two_experts_have_a_run_for_each_thread(make_cache):
    first = wan_experts()
    second = beside(first)

    def caches():
        return ExpertCaches({part: make_cache(schedule=(0, 3)) for part in ("transformer", "transformer_2")})

    expected = []
    for seed, pipe in enumerate((first, second)):
        with caches().attached(pipe):
            expected.append(sample(pipe, "wan", seed=seed))
    with caches().attached(first, sessions="thread") as both:
        runs = [
            lambda in_step, pipe=pipe, seed=seed: (
                sample(pipe, "wan", seed=seed, callback_on_step_end=in_step),
                both.statistics(),
            )
            for seed, pipe in enumerate((first, second))
        ]
        for (output, statistics), one in zip(together(runs), expected, strict=True):
            assert torch.equal(output, one)
            assert any(run.reused for run in statistics.values())
        assert both.nbytes == 0


@pytest.mark.parametrize("wrong", ["process", "threads", 1, True, ""])
def test_other_values_are_refused_with_those_that_are_known(wrong, make_cache):
    model = build(WAN)
    with pytest.raises(ValueError, match="expected 'thread'"):
        make_cache(schedule=(0,)).attach(model, sessions=wrong)
    assert not model._forward_pre_hooks


def test_a_whole_model_in_one_graph_is_refused_with_advice(make_cache):
    model = build(WAN)
    model.compile()
    with pytest.raises(AttachError, match="compile_repeated_blocks"):
        make_cache(schedule=(0,)).attach(model, sessions="thread")
