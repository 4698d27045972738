"""Decisions and outputs agree, step by step, with the published TeaCache forwards on the same coefficients.

This project's own caution with published polynomials stands apart: they are not followed below 0 or past their turning point,
and at most seven steps are reused in a row. Without it everything is as in the scripts; with it steps are computed that they
reuse, and nothing else differs.

The reference below is written from the published semantics (ali-vilab/TeaCache 7c10efc), not from this project's gate: it
runs the uncached model, takes the signal from the model's own layers by plain torch hooks, keeps the scripts' counters, and
at a reused step overwrites the last block's result with its input of that step + the last computed residual.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tiny_transformers import adapter_named, arguments, build, flat

from easyteacache import Policy, TeaCache
from easyteacache.integrations.diffusers import located
from easyteacache.integrations.diffusers.forward_state import Arguments
from easyteacache.policy.curves import Polynomial, turning_point
from easyteacache.registry.registry import Registry
from easyteacache.runtime.statistics import RunStatistics

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")


@dataclass(frozen=True)
class Published:
    """One published script.

    Attributes:
        name: the transformer's class.
        key: the record of its coefficients.
        steps: sampler steps.
        thresholds: published ones, and larger ones where the tiny model's signal moves more than the real one's.
        module: where the signal is seen, below the first block when it begins with a dot.
        pick: takes it from that module's arguments and result.
        branches: forwards of one step, in order.
        retention: forwards computed at the beginning, and whether the last ones are computed too.
        cautioned: whether the tiny model's signals lead where this project does not follow the polynomial.
    """

    name: str
    key: str
    steps: int
    thresholds: tuple[float, ...]
    module: str
    pick: Callable[[dict[str, Any], Any], torch.Tensor]
    branches: tuple[str, ...] = ("cond",)
    retention: tuple[int, bool] = (1, True)
    cautioned: bool = True


def first(arguments: dict[str, Any], result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


SCRIPTS = [
    Published(
        "WanTransformer3DModel", "wan2.1/t2v-14b", 50, (0.2, 5.0), "condition_embedder", lambda a, r: r[1],
        branches=("cond", "uncond"), retention=(5, False),
    ),
    Published(
        "WanTransformer3DModel", "wan2.1/t2v-14b/no-retention", 50, (0.14, 0.2), "condition_embedder", first,
        branches=("cond", "uncond"),
    ),
    Published("FluxTransformer2DModel", "flux.1/dev", 28, (0.4, 0.6, 0.8), ".norm1", first, cautioned=False),
    Published("HunyuanVideoTransformer3DModel", "hunyuanvideo/t2v", 50, (0.1, 0.15, 1.0), ".norm1", first),
    Published("CogVideoXTransformer3DModel", "cogvideox/5b", 50, (0.3, 3.0), "time_embedding", first),
    Published("LTXVideoTransformer3DModel", "ltx-video/0.9.1", 50, (0.05, 1.0), ".attn1", lambda a, r: a["hidden_states"]),
    Published("MochiTransformer3DModel", "mochi-1/preview", 64, (0.09, 1.0), ".norm1", first),
    Published(
        "Lumina2Transformer2DModel", "lumina-image-2.0", 30, (0.3, 1.1, 6.0), ".norm1", first, cautioned=False,
    ),
]  # fmt: skip
IDS = [script.key for script in SCRIPTS]


#: Most steps that this project reuses in a row where a published record states no limit.
LONGEST_RUN = 7


class Reference:
    """The published accumulator around an uncached model; ``cautious``: with this project's caution on top of it."""

    def __init__(
        self, script: Published, model: Any, coefficients: list[float], threshold: float, *, cautious: bool = False
    ) -> None:
        self.script, self.model, self.threshold = script, model, threshold
        self.rescale = np.poly1d(coefficients)
        self.turn = turning_point(coefficients)
        self.cautious = cautious
        # The steps of each branch that the script would have reused from here, and caution computes.
        self.extra: list[list[int]] = [[] for _ in script.branches]
        adapter = adapter_named(script.name)
        blocks = located(adapter, model)
        self.returns, self.head, self.tail = blocks[-1][0].returns, blocks[0][1], blocks[-1][1]
        below = script.module.startswith(".")
        seen = self.head.get_submodule(script.module[1:]) if below else model.get_submodule(script.module)
        seen.register_forward_hook(self._signal, with_kwargs=True)
        self.head.register_forward_pre_hook(self._enter, with_kwargs=True)
        self.tail.register_forward_hook(self._leave)
        self.count = 0
        # Even and odd forwards keep a state each, as the Wan script does.
        self.states = [{"acc": 0.0, "previous": None, "residual": None, "reused": 0} for _ in script.branches]
        self.computed: list[list[bool]] = [[] for _ in script.branches]

    def _signal(self, module, args, kwargs, result):
        self.signal = self.script.pick({**Arguments(type(module), args, kwargs)}, result).detach().clone()

    def _enter(self, module, args, kwargs):
        self.block_input = Arguments(type(module), args, kwargs)["hidden_states"].clone()

    def _leave(self, module, args, result):
        state = self.states[self.count % len(self.states)]
        output = result[self.returns.index("hidden_states")] if isinstance(result, tuple) else result
        calculate = self._should_calculate(state)
        if self.cautious and not calculate and self._is_cautioned(state):
            calculate, state["acc"] = True, 0.0
            self.extra[self.count % len(self.states)].append(self.count // len(self.states))
        state["reused"] = 0 if calculate else state["reused"] + 1
        self.computed[self.count % len(self.states)].append(calculate)
        self.count += 1
        if calculate:
            state["residual"] = output - self.block_input
            return result
        output = self.block_input + state["residual"]
        if not isinstance(result, tuple):
            return output
        where = self.returns.index("hidden_states")
        return (*result[:where], output, *result[where + 1 :])

    def _should_calculate(self, state: dict[str, Any]) -> bool:
        forwards, (begin, and_last) = len(self.states), self.script.retention
        cutoff = self.script.steps * forwards - (forwards if and_last else 0)
        previous, state["previous"] = state["previous"], self.signal
        if self.count < begin * forwards or self.count >= cutoff:
            state["acc"] = 0.0
            return True
        self.distance = ((self.signal - previous).abs().mean() / previous.abs().mean()).cpu().item()
        state["acc"] += float(self.rescale(self.distance))
        if state["acc"] < self.threshold:
            return False
        state["acc"] = 0.0
        return True

    def _is_cautioned(self, state: dict[str, Any]) -> bool:
        return self.rescale(self.distance) < 0 or self.distance > self.turn or state["reused"] >= LONGEST_RUN


@torch.no_grad()
def sampled(model: Any, script: Published) -> torch.Tensor:
    outputs = []
    for step in range(script.steps):
        for branch in script.branches:
            context = model.cache_context(branch) if hasattr(model, "cache_context") else contextlib.nullcontext()
            with context:
                outputs.append(flat(model(**arguments(script.name, step, branch, steps=script.steps))))
    return torch.stack(outputs)


def as_published(policy: Policy) -> Policy:
    """The policy that a record gives, without caution: its polynomial is followed everywhere, for as long as it says so."""
    assert isinstance(policy.curve, Polynomial)
    return dataclasses.replace(policy, curve=dataclasses.replace(policy.curve, up_to=None), longest_run=None)


def resolved(script: Published, threshold: float) -> Policy:
    return TeaCache.from_registry(script.key, threshold=threshold, num_steps=script.steps).policy


def ran(script: Published, policy: Policy) -> tuple[torch.Tensor, list[RunStatistics]]:
    """Outputs of every forward, and what each branch did, under a policy."""
    model = build(script.name)
    with TeaCache.from_policy(policy).attached(model) as cache:
        return sampled(model, script), list(cache.statistics().values())


def referred(script: Published, threshold: float, *, cautious: bool = False) -> tuple[torch.Tensor, Reference]:
    [bucket] = Registry.default()[script.key].buckets
    plain = build(script.name)
    reference = Reference(script, plain, list(bucket.coefficients or ()), threshold, cautious=cautious)
    return sampled(plain, script), reference


def decisions(runs: list[RunStatistics]) -> list[list[bool]]:
    return [[not record.reused for record in run.steps] for run in runs]


@pytest.mark.parametrize("script", SCRIPTS, ids=IDS)
def test_decisions_and_outputs_agree_with_the_published_script(script):
    reused = computed = 0
    for threshold in script.thresholds:
        expected, reference = referred(script, threshold)
        found, runs = ran(script, as_published(resolved(script, threshold)))
        assert decisions(runs) == reference.computed
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        reused += sum(run.reused for run in runs)
        computed += sum(run.computed for run in runs)
    assert reused > script.steps // 4
    assert computed > len(script.thresholds)


@pytest.mark.parametrize("script", SCRIPTS, ids=IDS)
@pytest.mark.filterwarnings("ignore:.*no step of the run was reused:easyteacache.errors.EasyTeaCacheWarning")
def test_caution_only_computes_steps_that_the_published_script_reuses(script):
    extra = 0
    for threshold in script.thresholds:
        _, published = referred(script, threshold)
        expected, reference = referred(script, threshold, cautious=True)
        found, runs = ran(script, resolved(script, threshold))
        assert decisions(runs) == reference.computed
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        for run, more, theirs in zip(runs, reference.extra, published.computed, strict=True):
            ours = [not record.reused for record in run.steps]
            # Until caution first acts all is as published; a step computed more then begins the script's sum anew.
            differing = next((step for step in range(script.steps) if ours[step] != theirs[step]), None)
            assert differing == (more[0] if more else None)
            assert all(run.steps[step].reason in ("unpredictable", "consecutive") for step in more)
            extra += len(more)
    assert (extra > 0) == script.cautioned


@pytest.mark.parametrize("name", ["LTXVideoTransformer3DModel", "MochiTransformer3DModel"])
@torch.no_grad()
def test_a_residual_of_the_blocks_is_nearer_to_uncached_than_one_that_includes_norm_out(name: str) -> None:
    """The scripts of these two add (input of proj_out − input of the blocks) of the last computed step and skip norm_out.

    ali-vilab/TeaCache 7c10efc, TeaCache4LTX-Video/teacache_ltx.py and TeaCache4Mochi/teacache_mochi.py.
    """
    steps, model = 20, build(name)
    (_, first), (_, last) = located(adapter_named(name), model)[:: len(located(adapter_named(name), model)) - 1]
    seen: dict[str, torch.Tensor] = {}
    replaced: dict[str, torch.Tensor] = {}

    def tail(_: torch.nn.Module, __: Any, output: Any) -> Any:
        seen["blocks"] = output[0] if isinstance(output, tuple) else output
        if "blocks" not in replaced:
            return None
        return (replaced["blocks"], *output[1:]) if isinstance(output, tuple) else replaced["blocks"]

    def before_projection(_: torch.nn.Module, given: Any) -> Any:
        seen["normed"] = given[0]
        return (replaced["normed"],) if "normed" in replaced else None

    def head(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
        seen["input"] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    first.register_forward_pre_hook(head, with_kwargs=True)
    last.register_forward_hook(tail)
    model.proj_out.register_forward_pre_hook(before_projection)

    def output(step: int) -> torch.Tensor:
        return flat(model(**arguments(name, step, "cond", steps=steps)))

    errors = []
    for step in range(steps - 1):
        output(step)
        block_residual, published_residual = seen["blocks"] - seen["input"], seen["normed"] - seen["input"]
        full = output(step + 1)
        here = seen["input"]
        replaced["blocks"] = here + block_residual
        ours = output(step + 1)
        replaced.clear()
        replaced["normed"] = here + published_residual
        theirs = output(step + 1)
        replaced.clear()
        errors.append([float((each - full).norm() / full.norm()) for each in (ours, theirs)])
    ours_mean, theirs_mean = np.mean(errors, axis=0)
    assert 0 < ours_mean < theirs_mean
