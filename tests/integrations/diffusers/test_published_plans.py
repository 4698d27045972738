"""Every published plan, on a tiny instance of the class that runs its model: which steps it computes, and what it fills the others with."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_pipelines import PIPELINES, sample, wan
from tiny_transformers import arguments, build, flat

from easyteacache import EasyTeaCacheWarning, TeaCache
from easyteacache.integrations.diffusers import adapter_for, attach, located
from easyteacache.integrations.diffusers.forward_state import Arguments
from easyteacache.policy.carry import shifted_levels
from easyteacache.policy.methods.magcache import magcache_plan, rule_of
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import Resolver
from easyteacache.records.bucket import Bucket
from easyteacache.records.calibration import Calibration
from easyteacache.records.sampler import SamplerRecord
from easyteacache.registry import bundled
from easyteacache.registry.registry import Found, Registry
from easyteacache.runtime.predictors import predictor
from easyteacache.runtime.session import Session

# Raised by diffusers' own classes when they run on a CPU; and a tiny model's sequence is never as long as a real one's.
pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
    pytest.mark.filterwarnings("ignore::easyteacache.EasyTeaCacheWarning"),
]

#: One of each kind, on six classes; the others are slow.
QUICK = {
    "wan2.1/t2v-14b/lemica-0",
    "qwen-image/2.1/dpcache-0",
    "z-image/base/meancache-0",
    "flux.1/dev/spectrum-0",
    "hunyuan-image/2.1/taylorseer-lite-0",
    "ltx-2/cachedit-0",
}


REGISTRY = Registry.from_folder(bundled.registry())


@dataclass(frozen=True)
class One:
    """One operating point of one record, alone in a copy of it."""

    name: str
    record: Calibration

    @property
    def bucket(self) -> Bucket:
        return self.record.buckets[0]

    @property
    def steps(self) -> int:
        assert self.bucket.num_steps is not None
        return self.bucket.num_steps

    @property
    def levels(self) -> tuple[float, ...]:
        """Those that the record says, or some."""
        own = None if self.bucket.sampler is None else self.bucket.sampler.levels
        return own or shifted_levels(self.steps, self.bucket.shift or 1.0)

    @property
    def class_name(self) -> str:
        assert self.record.model is not None
        assert self.record.model.class_name is not None
        return self.record.model.class_name

    def session(self, *, levels: tuple[float, ...] | None = None) -> Session:
        run = RunContext(
            num_steps=self.steps,
            shift=self.bucket.shift,
            sampler=SamplerRecord.euler(levels or self.levels),
        )
        return Session(Resolver(Found(self.record, "bundled", self.record.model_key)), Request(), run)


def ones(method: str) -> Iterator[One]:
    """Every point of every record of ``method`` that names a class of diffusers."""
    for key in REGISTRY:
        record = REGISTRY[key]
        if record.method != method or record.model is None or record.model.class_name is None:
            continue
        found = [(bucket, point) for bucket in record.buckets for point in bucket.operating_points]
        for count, (bucket, point) in enumerate(found):
            alone = bucket.model_copy(update={"operating_points": (point,)})
            yield One(f"{key}-{count}", record.model_copy(update={"buckets": (alone,)}))


PLANS = {one.name: one for one in ones("plan")}
MAGCACHE = {one.name: one for one in ones("magcache")}


def parameters(found: dict[str, One]) -> list[Any]:
    return [
        pytest.param(one, id=name, marks=[] if name in QUICK else [pytest.mark.slow]) for name, one in found.items()
    ]


class Watch:
    """What enters the blocks, what leaves them, what the model returns and what is handed on, a forward each."""

    def __init__(self, model: Any) -> None:
        adapter = adapter_for(model)
        blocks = located(adapter, model)
        self.adapter, (_, head), (self.last, tail) = adapter, blocks[0], blocks[-1]
        self.model = model
        self.heads: list[dict[str, torch.Tensor]] = []
        self.tails: list[torch.Tensor] = []
        self.raw: list[torch.Tensor] = []
        self.handed: list[torch.Tensor] = []
        self._handles = [
            head.register_forward_pre_hook(self._before, with_kwargs=True),
            tail.register_forward_hook(self._after),
            model.register_forward_hook(lambda module, args, output: self.raw.append(flat(output).clone())),
        ]

    def outside(self) -> None:
        """Look at what the cache hands on as well, once it is attached."""
        self._handles.append(
            self.model.register_forward_hook(lambda module, args, output: self.handed.append(flat(output).clone()))
        )

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def of(self, target: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What was computed at every forward, and what there was in the end, of what a plan predicts."""
        if target == "output":
            return self.raw, self.handed
        if target == "feature":
            return self.tails, self.tails
        added = [tail - vector(head) for head, tail in zip(self.heads, self.tails, strict=True)]
        return added, added

    def _before(self, module: Any, args: Any, kwargs: Any) -> None:
        bound = Arguments(type(module), args, kwargs)
        self.heads.append({name: bound[name].clone() for name in self.adapter.streams if bound.get(name) is not None})

    def _after(self, module: Any, args: Any, output: Any) -> None:
        found = {}
        for name, head in self.heads[-1].items():
            value = output[self.last.returns.index(name)] if len(self.last.returns) > 1 else output
            found[name] = self.last.layout.take(value, head)
        self.tails.append(vector(found))


def vector(streams: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([stream.flatten().double() for stream in streams.values()])


@pytest.fixture(scope="module")
def models() -> Any:
    built: dict[str, Any] = {}
    return lambda name: built.setdefault(name, build(name))


@torch.no_grad()
def run(model: Any, name: str, steps: int, branches: Sequence[str] = ("cond",)) -> None:
    for step in range(steps):
        for branch in branches:
            named = hasattr(model, "cache_context")
            with model.cache_context(branch) if named else contextlib.nullcontext():
                model(**arguments(name, step, branch, steps=steps))


def assert_is_the_weighted_sum(
    rows: Sequence[Sequence[float]],
    computed: Sequence[int],
    parts: list[torch.Tensor],
    found: list[torch.Tensor],
    also: list[torch.Tensor],
) -> None:
    """Every reused step is its row times the computed steps' parts, to the precision of single-precision sums.

    ``also`` is what a part may be added to, and so loses precision to.
    """
    for step, row in enumerate(rows):
        if step in computed:
            continue
        used = [k for k in computed if k < step][-len(row) :]
        terms = [weight * parts[k] for weight, k in zip(row, used, strict=True)]
        size = sum(float(term.abs().max()) for term in terms) + float(also[step].abs().max())
        assert float((found[step] - sum(terms)).abs().max()) <= 3e-6 * size, step


@pytest.mark.parametrize("one", parameters(PLANS))
def test_a_plan_computes_its_steps_and_fills_the_others_with_rows_times_what_was_computed(
    one: One, models: Any
) -> None:
    model, (point,) = models(one.class_name), one.bucket.operating_points
    plan, session = point.plan, one.session()
    watch = Watch(model)
    detach = attach(session, model)
    watch.outside()
    try:
        run(model, one.class_name, one.steps)
        [statistics] = session.statistics().values()
    finally:
        detach()
        watch.close()
    assert [record.step for record in statistics.steps if not record.reused] == list(plan.computed)
    assert len(statistics.steps) == one.steps
    rows = plan.rows or predictor(plan.predictor).over(one.levels).rows(plan.computed, one.steps)
    assert_is_the_weighted_sum(rows, plan.computed, *watch.of(plan.applied_to), watch.tails)


@pytest.mark.parametrize("scale", [1.0, 4.5])
def test_a_plan_of_the_guided_output_applied_per_branch_gives_the_guided_output_of_its_rows(
    scale: float, models: Any
) -> None:
    """Rows are weights, and guidance is a weighted sum of branches: filling each branch fills their sum."""
    one = PLANS["z-image/base/meancache-0"]
    model, (point,), session = models(one.class_name), one.bucket.operating_points, one.session()
    assert point.plan.combined
    watch = Watch(model)
    detach = attach(session, model)
    watch.outside()
    try:
        run(model, one.class_name, one.steps, ("cond", "uncond"))
        found = session.statistics()
    finally:
        detach()
        watch.close()
    for statistics in found.values():
        assert [record.step for record in statistics.steps if not record.reused] == list(point.plan.computed)
    raw, handed = (
        [scale * cond + (1 - scale) * uncond for cond, uncond in zip(seen[::2], seen[1::2], strict=True)]
        for seen in (watch.raw, watch.handed)
    )
    rows = predictor(point.plan.predictor).over(one.levels).rows(point.plan.computed, one.steps)
    # Both sums round in single precision, as large as the terms of either branch.
    sizes = [
        abs(scale) * cond.abs() + abs(1 - scale) * uncond.abs()
        for cond, uncond in zip(watch.raw[::2], watch.raw[1::2], strict=True)
    ]
    assert_is_the_weighted_sum(rows, point.plan.computed, raw, handed, sizes)
    assert any("comes to the same where guidance is a weighted sum" in note for note in session.policy.notes)


@pytest.mark.parametrize("one", parameters(MAGCACHE))
def test_magcache_computes_the_steps_of_its_ratios_in_every_branch(one: One, models: Any) -> None:
    model, session = models(one.class_name), one.session()
    detach = attach(session, model)
    try:
        run(model, one.class_name, one.steps, ("cond", "uncond"))
        found = session.statistics()
        expected = {name: session.policy.schedule_of(name) for name in found}
    finally:
        detach()
    assert session.policy.refusal is None
    for name, statistics in found.items():
        assert [record.step for record in statistics.steps if not record.reused] == list(expected[name])
    assert any(len(computed) < one.steps for computed in expected.values())


def test_every_record_of_a_plan_names_a_class_that_can_run_it() -> None:
    plans = [REGISTRY[key] for key in REGISTRY if REGISTRY[key].method == "plan"]
    assert sum(len(bucket.operating_points) for record in plans for bucket in record.buckets) == len(PLANS) >= 106
    assert {*PLANS, *MAGCACHE} >= QUICK


@pytest.mark.parametrize(("name", "most"), [("z-image/base/meancache-0", 7), ("flux.1/dev/spectrum-0", 14)])
def test_no_more_is_held_than_the_rows_reach_back_for(name: str, most: int, models: Any) -> None:
    one = PLANS[name]
    model, (point,), session = models(one.class_name), one.bucket.operating_points, one.session()
    plan, held = point.plan, []
    watch = Watch(model)
    detach = attach(session, model)
    handle = model.register_forward_hook(lambda module, args, output: held.append(session.nbytes))
    try:
        run(model, one.class_name, one.steps)
    finally:
        handle.remove()
        detach()
        watch.close()
    rows = predictor(plan.predictor).over(one.levels).rows(plan.computed, one.steps)
    reach = max(len(row) - next(place for place, weight in enumerate(row) if weight) for row in rows)
    parts, _ = watch.of(plan.applied_to)
    assert reach == most
    assert max(held) == reach * parts[0].numel() * 4


def test_what_leaves_the_blocks_is_predicted_in_the_model_s_own_precision(models: Any) -> None:
    one = PLANS["flux.1/dev/taylorseer-0"]
    model = build(one.class_name).to(torch.bfloat16)
    session, (point,) = one.session(), one.bucket.operating_points
    watch = Watch(model)
    detach = attach(session, model)
    try:
        with torch.no_grad():
            for step in range(12):
                given = arguments(one.class_name, step, "cond", steps=one.steps)
                cast = {
                    name: value.to(torch.bfloat16) if isinstance(value, torch.Tensor) and name != "timestep" else value
                    for name, value in given.items()
                }
                assert model(**cast).sample.dtype == torch.bfloat16
        [statistics] = session.statistics().values()
    finally:
        detach()
        watch.close()
    rows = predictor(point.plan.predictor).rows(point.plan.computed, one.steps)
    computed = [record.step for record in statistics.steps if not record.reused]
    assert 12 > len(computed) > 1
    for step in sorted(set(range(12)) - set(computed)):
        used = [k for k in computed if k < step][-len(rows[step]) :]
        expected = sum(weight * watch.tails[k] for weight, k in zip(rows[step], used, strict=True))
        # Summed in single precision and rounded once: half of bfloat16's last place of the result, not of the terms.
        wrong = (watch.tails[step] - expected).abs() > 2.0**-8 * 1.01 * expected.abs() + 1e-6
        assert not wrong.any()


def test_without_noise_levels_a_plan_that_needs_them_computes_every_step(models: Any) -> None:
    one = PLANS["z-image/base/meancache-0"]
    model = models(one.class_name)
    source = Resolver(Found(one.record, "bundled", one.record.model_key))
    session = Session(source, Request(), RunContext(num_steps=one.steps, shift=one.bucket.shift))
    detach = attach(session, model)
    try:
        run(model, one.class_name, one.steps)
        [statistics] = session.statistics().values()
    finally:
        detach()
    assert not any(record.reused for record in statistics.steps)
    assert {
        record.reason for record in statistics.steps if record.step not in one.bucket.operating_points[0].plan.computed
    } == {"levels"}


# On whole pipelines -------------------------------------------------------------------------------------------------

#: Class of a plan's model → its pipeline here; the other classes' plans run above, forward by forward.
OWN = {
    "WanTransformer3DModel": "wan",
    "FluxTransformer2DModel": "flux",
    "HunyuanVideoTransformer3DModel": "hunyuan",
    "QwenImageTransformer2DModel": "qwen",
}
ON_PIPELINES = {name: one for name, one in PLANS.items() if one.class_name in OWN}
QUICK_PIPELINES = {"wan2.1/t2v-14b/lemica-0", "qwen-image/lemica-0"}


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(one, id=name, marks=[] if name in QUICK_PIPELINES else [pytest.mark.slow])
        for name, one in ON_PIPELINES.items()
    ],
)
def test_a_pipeline_of_the_plan_s_own_class_computes_exactly_its_steps(one: One) -> None:
    """At the plan's own step count and shift, both branches of a guided call."""
    name = OWN[one.class_name]
    pipe, (point,) = PIPELINES[name](), one.bucket.operating_points
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=one.bucket.shift or 3.0)
    session = Session(Resolver(Found(one.record, "bundled", one.record.model_key)), Request(), RunContext())
    detach = attach(session, pipe)
    try:
        sample(pipe, name, steps=one.steps)
        found = session.statistics()
    finally:
        detach()
    assert len(found) == 2
    for statistics in found.values():
        assert tuple(record.step for record in statistics.steps if not record.reused) == point.plan.computed


@pytest.mark.parametrize("key", ["wan2.1/t2v-14b/lemica", "wan2.1/t2v-1.3b/taylorseer", "wan2.1/t2v-14b/spectrum"])
def test_the_caller_s_own_limit_of_steps_in_a_row_holds_for_a_published_plan(key: str) -> None:
    pipe = PIPELINES["wan"]()
    patterns = {}
    for limit in (1, 0):
        cache = TeaCache.from_registry(key, speedup=2.0, max_consecutive_skips=limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EasyTeaCacheWarning)
            cache.attach(pipe, allow_borrowed=True)
            sample(pipe, "wan", steps=20)
            cache.detach()
        [patterns[limit]] = {run.pattern for run in cache.statistics().values()}
    assert "·█" in patterns[1]
    assert "··" not in patterns[1]
    assert patterns[0] == "█" * 20


def test_plans_on_pipelines_are_those_of_four_classes() -> None:
    assert {one.class_name for one in ON_PIPELINES.values()} == set(OWN)
    assert set(ON_PIPELINES) >= QUICK_PIPELINES
    assert len(ON_PIPELINES) >= 45


def test_magcache_on_a_pipeline_takes_the_ratios_at_its_own_step_count() -> None:
    pipe, steps = wan(), 10
    cache = TeaCache.from_registry("wan2.1/t2v-1.3b/magcache", speedup=1.5)
    with cache.attached(pipe):
        sample(pipe, "wan", steps=steps)
    bucket = REGISTRY["wan2.1/t2v-1.3b/magcache"].buckets[0]
    rule = rule_of("wan2.1/t2v-1.3b/magcache")
    found = {
        name: tuple(record.step for record in statistics.steps if not record.reused)
        for name, statistics in cache.statistics().items()
    }
    thresholds = [point.threshold for point in bucket.operating_points if point.threshold is not None]
    assert set(found) == {"cond", "uncond"}
    assert any(
        found == {name: magcache_plan(bucket, steps, name, threshold=threshold, rule=rule) for name in found}
        for threshold in thresholds
    )


def test_a_model_s_key_takes_the_published_plan_and_says_that_it_carries_it_over() -> None:
    pipe, steps = wan(), 20
    cache = TeaCache.from_registry("wan2.1/t2v-14b", speedup=2.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", EasyTeaCacheWarning)
        with cache.attached(pipe):
            sample(pipe, "wan", steps=steps)
            sample(pipe, "wan", steps=steps)
    policy = cache.policy
    assert (policy.model_key, policy.evidence) == ("wan2.1/t2v-14b/lemica", "carried")
    told = [str(one.message) for one in caught if issubclass(one.category, EasyTeaCacheWarning)]
    assert any("steps are computed, carried over" in text for text in told)
    assert len(told) == len(set(told))
    computed = {
        tuple(record.step for record in statistics.steps if not record.reused)
        for statistics in cache.statistics().values()
    }
    assert computed == {policy.schedule}
    assert any("Of the records of this model" in note for note in policy.notes)
