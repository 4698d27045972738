"""The same record gives the same decisions, whichever driver asks: diffusers' hooks, ComfyUI's wrappers, a caller of whole outputs, the verbs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import sample, wan

from easyteacache.integrations.comfyui.report import RunReport
from easyteacache.integrations.comfyui.wrappers import ModelWrappers
from easyteacache.policy.request import OUTPUTS, Request, RunContext
from easyteacache.policy.source import Resolver
from easyteacache.records.sampler import SamplerRecord
from easyteacache.registry.registry import Found
from easyteacache.runtime.driver import CallDriver
from easyteacache.runtime.session import Session
from easyteacache.teacache import TeaCache

from ...toy_records import bucket, make_record

sys.path.append(str(Path(__file__).resolve().parents[1] / "comfyui"))
from stand_in import CFGGuider, Patcher, sampler

__all__ = ["bucket", "make_record"]

STEPS = 10
PROFILE = {"sigmas": [1.0, 0.8, 0.5, 0.2, 0.0], "distances": [0.0, 0.3, 0.5, 0.8, 1.6]}
POINTS: dict[str, dict[str, Any]] = {
    "plan": {"operating_points": [{"schedule": [0, 1, 2, 5, 8], "speedup": 2.0, "forecaster": "linear", "applied_to": "output", "evidence": "replayed"}]},
    "plan of the residual": {"operating_points": [{"schedule": [0, 3, 4, 8], "speedup": 2.5, "evidence": "replayed"}]},
    "sigma profile": {"operating_points": [{"threshold": 0.35, "speedup": 1.5, "evidence": "replayed"}], "sigma_profile": PROFILE},
    "sigma profile and window": {
        "operating_points": [{"threshold": 0.9, "speedup": 1.5, "evidence": "replayed"}],
        "sigma_profile": PROFILE,
        "min_skip_step": 3,
        "max_skip_step": 8,
        "max_consecutive_skips": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS)
@pytest.mark.filterwarnings("ignore::easyteacache.errors.EasyTeaCacheWarning")
def test_four_drivers_decide_alike(points: dict[str, Any], make_record: Any, bucket: Any) -> None:
    record = make_record(bucket(None, num_steps=STEPS, **points))

    def source() -> Resolver:
        return Resolver(Found(record, "given", record.model_key))

    pipe = wan()
    cache = TeaCache(-1, _session=Session(source(), Request(), RunContext()))
    cache.attach(pipe, allow_borrowed=True)
    sample(pipe, "wan", steps=STEPS, guidance_scale=1.0)
    levels = tuple(float(level) for level in pipe.scheduler.sigmas)
    by_hooks = cache.statistics()["cond"].pattern
    cache.detach()

    reports: list[RunReport] = []
    wrappers = ModelWrappers(lambda run: Session(source(), Request(), run), report=reports.append)
    CFGGuider(wrappers.put_on(Patcher()), kinds=(0,)).sample(sampler(), sigmas=levels)
    by_wrappers = dict(reports[-1].pattern)["cond"]

    driver = CallDriver(Session(source(), Request(), RunContext(can=OUTPUTS)))
    driver.begin(RunContext(num_steps=STEPS, sampler=SamplerRecord.euler(levels), can=OUTPUTS, begun=True))
    for step in range(STEPS):
        if driver.before("cond", step).reuse:
            driver.give("cond")
        else:
            driver.observe("cond", torch.ones(2))
    by_calls = driver.session.statistics()["cond"].pattern

    assert "·" in by_hooks
    assert by_wrappers == by_hooks
    assert by_calls == by_hooks
    if points["operating_points"][0].get("applied_to") != "output":
        assert by_verbs(source(), levels) == by_hooks


def by_verbs(source: Resolver, levels: tuple[float, ...]) -> str:
    cache = TeaCache(-1, _session=Session(source, Request(), RunContext(num_steps=STEPS)))
    latent, signal = torch.zeros(1, 4, 2), torch.ones(1, 3)
    for step in range(STEPS):
        if cache.check(step, signal, sigma=levels[step]):
            cache.update(signal, latent)
        else:
            cache.store_truth(step, signal, latent, latent + step)
    [run] = cache.statistics().values()
    return run.pattern
