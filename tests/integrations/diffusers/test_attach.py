"""What may be attached, and what a forward at a reused step passes on its way."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from tiny_pipelines import sample, wan

from easyteacache import TeaCache
from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers import ExpertCaches, attach
from easyteacache.policy.request import Request
from easyteacache.policy.source import FixedPolicy
from easyteacache.runtime.session import Session

STEPS = 6


def test_a_session_is_attached_as_the_cache_that_has_it_is(make_cache):
    pipe = wan()
    plain = sample(pipe, "wan", steps=STEPS)
    cache = make_cache(schedule=(0, 3))
    session = Session(FixedPolicy(cache.policy), Request())
    found = []
    for one in (cache, session, cache.session):
        detach = attach(one, pipe)
        found.append(sample(pipe, "wan", steps=STEPS))
        detach()
        assert torch.equal(sample(pipe, "wan", steps=STEPS), plain)
    assert not torch.equal(found[0], plain)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert session.statistics()["cond"].pattern == "█··█··"


def test_solve_mode_is_refused_by_one_cache_and_by_two(tmp_path):
    def solving() -> TeaCache:
        return TeaCache(-1, model_keys=["a"], cache_path=tmp_path / "cache.json", speedup_mode=False)

    pipe = wan()
    with pytest.raises(AttachError, match="solve mode"):
        solving().attach(pipe)
    with pytest.raises(AttachError, match="solve mode"):
        ExpertCaches({"transformer": solving()}).attach(pipe)
    assert not pipe.transformer._forward_pre_hooks


def test_after_a_failed_attach_the_cache_can_be_attached(make_cache):
    cache, pipe = make_cache(schedule=(0,)), wan()
    with pytest.raises(AttachError, match="expected a diffusers pipeline"):
        cache.attach(object())
    with cache.attached(pipe), pytest.raises(AttachError, match="attached already"):
        cache.attach(pipe)
    with cache.attached(pipe):
        pass


# docs/architecture.md lists them; the policy and the adapter are data that they read.
PASSED = {
    "integrations/diffusers/hooks.py",
    "integrations/diffusers/forward_state.py",
    "integrations/diffusers/driver.py",
    "integrations/diffusers/step_tracker.py",
    "runtime/session.py",
    "runtime/branch_state.py",
    "runtime/gate.py",
}
# Each says no and is left: somebody else calls, or what the residual was computed with is another by now.
ASKED = {
    "integrations/diffusers/active_adapters.py",
    "integrations/diffusers/branch_names.py",
    "integrations/diffusers/calling_pipeline.py",
    "integrations/diffusers/calling_thread.py",
    "integrations/diffusers/drivers.py",
    "integrations/diffusers/gradients.py",
    "integrations/diffusers/pipeline.py",
}


@pytest.mark.parametrize(("predictor", "file"), [("hold", "hold"), ("linear", "polynomial"), ("foca", "foca")])
def test_a_forward_at_a_reused_step_passes_eight_files(predictor, file, make_cache, monkeypatch):
    pipe, passed, steps = wan(), set[str](), []

    def note(frame: Any, event: str, argument: Any) -> None:
        _, found, name = frame.f_code.co_filename.partition("/easyteacache/")
        if found and event == "call":
            passed.add(name)

    call = type(pipe.transformer).__call__

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        passed.clear()
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            return call(self, *args, **kwargs)
        finally:
            sys.setprofile(before)
            steps.append(set(passed))

    monkeypatch.setattr(type(pipe.transformer), "__call__", noted)
    with make_cache(schedule=(0, 2, 3, 5), forecaster=predictor).attached(pipe) as cache:
        sample(pipe, "wan", steps=STEPS, guidance_scale=1.0)
        assert cache.statistics()["cond"].pattern == "█·██·█"
    reused = {name for name in steps[4] if not name.startswith("integrations/diffusers/models/")}
    assert reused >= ASKED
    assert reused - ASKED - {"policy/policy.py"} == {*PASSED, f"runtime/predictors/{file}.py"}
    assert len(PASSED) + 1 <= 8
