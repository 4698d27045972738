"""A session: what a driver says of a run, and what holds on when it cannot be met."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from easyteacache.errors import InvalidCalibration, UnreachableTarget
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import VERBS, Capabilities, Request, RunContext
from easyteacache.policy.source import FixedPolicy
from easyteacache.runtime.session import Session

LATENT = torch.zeros(1, 8, 4)
CORRECTING, PLAIN = Capabilities(), Capabilities(corrects=False)


class Demanding:
    """A source that only gives a policy where corrections can be handed on, and to requests it can meet."""

    def __init__(self, policy: Policy) -> None:
        self.fixed, self.asked = policy, []

    def policy(self, request: Request, run: RunContext) -> Policy:
        if not run.can.corrects or request.speedup is not None:
            raise UnreachableTarget("out of reach")
        self.asked.append(run)
        return self.fixed


@pytest.fixture
def session(make_policy: Any) -> Session:
    return Session(Demanding(make_policy(threshold=9.0)), Request(), RunContext(sequence_length=8))


def compute(session: Session, step: int, branch: str = "default") -> None:
    state = session.branch(branch, step)
    state.check(step, LATENT)
    state.store_residual(step, LATENT, LATENT)


def test_what_cannot_be_met_leaves_everything_as_it_was(session: Session) -> None:
    before = session.policy
    for _ in range(2):
        with pytest.raises(UnreachableTarget):
            session.drive(PLAIN)
        with pytest.raises(UnreachableTarget):
            session.begin(RunContext(num_steps=3, sequence_length=99, can=PLAIN))
        with pytest.raises(UnreachableTarget):
            session.wish(Request(speedup=2.0))
    assert (session.policy, session.sequence_length, session.request) == (before, 8, Request())
    # The runs that were refused were not learned from either: this one is driven as the first was.
    compute(session, 0)
    assert session._source.asked[-1] == RunContext(sequence_length=8)


def test_a_driver_that_can_do_the_same_does_not_end_the_run(session: Session) -> None:
    compute(session, 0)
    session.drive(Capabilities())
    assert session.branch("default", 1).check(1, LATENT)
    session.drive(Capabilities(sees=("residual", "output")))
    assert session.known("default") is None


def test_verbs_after_another_driver_get_a_plan_they_can_apply(make_policy: Any) -> None:
    session = Session(FixedPolicy(make_policy()), Request())
    session.begin(RunContext(num_steps=4, can=CORRECTING))
    session.drive(VERBS)
    compute(session, 0)
    assert session.statistics()["default"].pattern == "█"


def test_a_run_context_holds_until_the_next_run_says_otherwise(session: Session) -> None:
    asked = session._source.asked
    session.begin(RunContext(num_steps=4, shift=3.0))
    compute(session, 0)
    assert asked[-1] == RunContext(8, 4, 3.0)
    session.begin(RunContext())
    compute(session, 0)
    # One step was seen before.
    assert asked[-1] == RunContext(8, 1)


def test_a_session_without_a_source_has_nothing_to_decide(make_policy: Any) -> None:
    session = Session(None, Request(threshold=0.1))
    assert (session.driven, session.has_policy) == (False, False)
    with pytest.raises(InvalidCalibration, match="no policy"):
        session.policy  # noqa: B018
    session.begin(RunContext(num_steps=4))
    session.drive(VERBS)
    session.load(FixedPolicy(make_policy()))
    assert session.driven
    assert session.policy.threshold == 0.1
    session.enabled = False
    assert (session.driven, session.has_policy) == (False, True)


def test_a_source_that_cannot_serve_leaves_the_session_without_one(make_policy: Any) -> None:
    session = Session(None, Request(speedup=2.0))
    with pytest.raises(UnreachableTarget):
        session.load(Demanding(make_policy()))
    assert not session.driven


def test_a_copy_keeps_source_and_request_and_forgets_the_run(session: Session) -> None:
    session.reduce = lambda sums: sums
    session.begin(RunContext(num_steps=4))
    compute(session, 0)
    other = copy.deepcopy(session)
    assert (other.request, other.policy, other.sequence_length) == (session.request, session.policy, 8)
    assert (other.statistics(), other.nbytes, other.reduce) == ({}, 0, None)
    assert session.nbytes > 0
