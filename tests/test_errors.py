"""Every error of this project survives a process boundary and a copy with what it knows."""

import copy
import inspect
import pickle

import pytest

from easyteacache import errors
from easyteacache.errors import EasyTeaCacheError

EXAMPLES = [
    errors.EasyTeaCacheError("message"),
    errors.UnknownModelKey("a/b", suggestions=["a/c"], layers=["bundled"]),
    errors.AmbiguousModelKey("x", candidates=["a", "b"]),
    errors.InvalidModelKey("A", "upper case"),
    errors.InvalidCalibration("file.json", "reason", rule="record.json"),
    errors.UnsupportedSchemaVersion("file.json", found=99, supported=(1,)),
    errors.InvalidTrace("file", "reason", rule="trace.size"),
    errors.SignalMismatch("modulated_input", "hidden_states"),
    errors.InvalidSignal("t_mod", "empty"),
    errors.NotEnoughTraces(sequence_length=1560, runs=3, needed=8),
    errors.UnreachableTarget("message"),
    errors.ExportRefused("SGLang", ["signal"], ["Another signal."], "Allow it."),
    errors.StepOrderError("message"),
    errors.AttachError("message"),
    errors.ReferenceModelError("message"),
    errors.BenchError("message"),
    errors.UnreadableFrames("a.png", "damaged"),
    errors.FramesMismatch("a.png", "b.png", "another size"),
    errors.MissingPackage("av", "reading a.mp4", "install it"),
    errors.InvalidPlan("message"),
    errors.InstallError("message"),
    errors.HubError("org/repo", "reason"),
    errors.PushRefused("org/repo", "reason", report=[1]),
]


def test_every_error_class_has_an_example():
    defined = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EasyTeaCacheError)}
    assert {type(error) for error in EXAMPLES} == defined


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("carry", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_an_error_arrives_as_it_was_raised(error, carry):
    arrived = carry(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize(("found", "state"), [(None, "missing"), (99, "99"), ("1\x1b", r"'1\\x1b'"), ([1], "an array")])
def test_an_unsupported_version_says_what_was_found(found, state):
    with pytest.raises(errors.InvalidCalibration, match=f"schema_version is {state}, this release reads 1, 2;"):
        raise errors.UnsupportedSchemaVersion("file.json", found=found, supported=(1, 2))
