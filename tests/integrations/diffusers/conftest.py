"""Tiny real models, and policies made by hand."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from easyteacache import Policy, TeaCache
from easyteacache.policy.curves import Polynomial

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def policy(**changes: Any) -> Policy:
    """A policy that predicts each step's change by the signal's own; computes everything unless told otherwise."""
    plain = Policy(
        model_key="test/model",
        revision=1,
        status="draft",
        layer="given",
        signal="hidden_states",
        curve=Polynomial((1.0, 0.0)),
        threshold=0.0,
        first_skip_step=1,
        last_skip_step=None,
        max_consecutive_skips=None,
        buckets=(),
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture
def make_cache():
    """``make_cache(signal=…, threshold=…)``: a cache with a policy made by hand."""
    return lambda **changes: TeaCache.from_policy(policy(**changes))
