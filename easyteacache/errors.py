"""Every error this project raises on purpose.

Each class also derives from the built-in that a caller would expect (``LookupError``, ``ValueError`` …), keeps what it
knows as attributes, and reads as one sentence: what was expected, what was found, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from easyteacache.files.strict_json import shown


class EasyTeaCacheError(Exception):
    """Base class: ``except EasyTeaCacheError`` catches everything this project raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with the message alone, which fails for every class with other arguments: an error
        # raised in a worker process would never arrive.
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[EasyTeaCacheError], args: tuple[object, ...]) -> EasyTeaCacheError:
    return kind.__new__(kind, *args)


class EasyTeaCacheWarning(UserWarning):
    """What a user must notice and no exception says: nothing is reused, numbers hold for something else, a promise is off.

    Given through ``warnings``, once per cache and reason, so that ``warnings.simplefilter("error", EasyTeaCacheWarning)``
    stops a program there.
    """


class UnknownModelKey(EasyTeaCacheError, LookupError):
    """No layer of the registry holds this key or alias.

    Attributes:
        key: what was asked for.
        suggestions: the nearest keys that exist, best first.
        layers: the names of the layers that were searched, in order.
    """

    def __init__(
        self,
        key: str,
        *,
        suggestions: Sequence[str] = (),
        layers: Sequence[str] = (),
        advice: str = "`easyteacache-hub list` shows every key; a missing one is never replaced by a similar model's numbers.",
    ) -> None:
        self.key, self.suggestions, self.layers = key, tuple(suggestions), tuple(layers)
        searched = f" in {', '.join(layers)}" if layers else ""
        hint = f" Did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""
        super().__init__(f"no calibration named {key!r}{searched}.{hint} {advice}")


class AmbiguousModelKey(UnknownModelKey):
    """An alias names several records, so none of them is chosen.

    Attributes:
        suggestions: the model keys it could mean.
    """

    def __init__(self, key: str, *, candidates: Sequence[str]) -> None:
        self.key, self.suggestions, self.layers = key, tuple(candidates), ()
        EasyTeaCacheError.__init__(
            self, f"{key!r} could mean {', '.join(map(repr, candidates))}: ask for one of these keys instead."
        )


class InvalidModelKey(EasyTeaCacheError, ValueError):
    """A model key that is not spelled ``family/variant[/part]``.

    Attributes:
        key: the text that was given.
        reason: which rule it breaks.
    """

    def __init__(self, key: object, reason: str) -> None:
        self.key, self.reason = key, reason
        super().__init__(
            f"{key!r} is not a model key: {reason}. Expected lower-case names of a-z, 0-9, '.', '_' and '-' "
            "joined by '/', for example 'wan2.1/t2v-14b'."
        )


class InvalidCalibration(EasyTeaCacheError, ValueError):
    """A calibration (or a file that should hold one) breaks a rule of the format.

    Attributes:
        where: the file, or the file and the field.
        reason: which rule, and what was found instead.
        rule: the rule's stable identifier, the same in every tool.
    """

    def __init__(self, where: str, reason: str, *, rule: str = "record.invalid") -> None:
        self.where, self.reason, self.rule = where, reason, rule
        super().__init__(f"{where}: {reason}")


class UnsupportedSchemaVersion(InvalidCalibration):
    """The file was written for a format version this release cannot read.

    Attributes:
        found: the version in the file.
        supported: the versions this release reads.
    """

    def __init__(
        self,
        where: str,
        *,
        found: object,
        supported: Sequence[int],
        field: str = "schema_version",
        rule: str = "record.schema-version",
    ) -> None:
        self.found, self.supported = found, tuple(supported)
        known = ", ".join(map(str, supported))
        state = "missing" if found is None else shown(found)
        super().__init__(
            where,
            f"{field} is {state}, this release reads {known}; upgrade easyteacache or ask for an older revision",
            rule=rule,
        )


class InvalidTrace(EasyTeaCacheError, ValueError):
    """A trace file is damaged, was edited after recording, or does not fit the others.

    Attributes:
        where: the file, or the file and the run.
        reason: which rule, and what was found instead.
        rule: the rule's stable identifier, the same in every tool.
    """

    def __init__(self, where: str, reason: str, *, rule: str = "trace.invalid") -> None:
        self.where, self.reason, self.rule = where, reason, rule
        super().__init__(f"{where}: {reason}")


class SignalMismatch(EasyTeaCacheError, ValueError):
    """The calibration was fitted to another signal than the one it is being driven with.

    Attributes:
        expected: the calibration's signal.
        found: the signal that is at hand.
    """

    def __init__(self, expected: str, found: str, advice: str = "") -> None:
        self.expected, self.found = expected, found
        super().__init__(
            f"the calibration was fitted to the signal {expected!r} but is driven with {found!r}. "
            + (advice or "Pass the tensor it was fitted to, or choose a calibration for this signal.")
        )


class InvalidSignal(EasyTeaCacheError, ValueError):
    """A tensor handed to the cache cannot be used: empty, not a tensor, or of a shape that does not fit.

    Attributes:
        name: the argument.
        reason: what was expected and what was found.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}")


class NotEnoughTraces(EasyTeaCacheError, ValueError):
    """Too few runs to fit or to judge a calibration.

    Attributes:
        sequence_length: tokens of the bucket that lacks runs, or None when it concerns all of them.
        runs: how many there are.
        needed: how many it takes.
    """

    def __init__(self, *, sequence_length: int | None, runs: int, needed: int) -> None:
        self.sequence_length, self.runs, self.needed = sequence_length, runs, needed
        where = "" if sequence_length is None else f" at sequence length {sequence_length}"
        super().__init__(f"{needed} runs are needed{where}, {runs} found: record {needed - runs} more.")


class UnreachableTarget(EasyTeaCacheError, ValueError):
    """No operating point of the calibration reaches the speed-up or error that was asked for."""


class ExportRefused(EasyTeaCacheError, ValueError):
    """An engine would compute something else from these numbers than what they were calibrated for.

    Attributes:
        engine: the engine's name.
        rules: the rules that are broken, as ``--allow`` takes them.
        reasons: one sentence for each.
    """

    def __init__(self, engine: str, rules: Sequence[str], reasons: Sequence[str], advice: str = "") -> None:
        self.engine, self.rules, self.reasons = engine, tuple(rules), tuple(reasons)
        listed = " ".join(f"[{rule}] {reason}" for rule, reason in zip(rules, reasons, strict=True))
        super().__init__(f"not exported to {engine}: {listed}" + (f" {advice}" if advice else ""))


class StepOrderError(EasyTeaCacheError, RuntimeError):
    """The verbs were called in an order that has no meaning, for example ``update`` without an admitting ``check``."""


class AttachError(EasyTeaCacheError, RuntimeError):
    """The cache cannot be attached to this model, or not in the state the model is in."""


class ReferenceModelError(EasyTeaCacheError, ValueError):
    """The reference model cannot do what it was asked for, or its files are missing."""


class UnreadableFrames(EasyTeaCacheError, ValueError):
    """A file or folder does not give frames or arrays: missing, damaged, too large, or of a kind that is not read.

    Attributes:
        where: the file, or the file and the part of it.
        reason: what was expected, what was found, what to do.
    """

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(f"{where}: {reason}")


class FramesMismatch(EasyTeaCacheError, ValueError):
    """Two things cannot be compared: another number of frames, another size, other channels, other names.

    Attributes:
        a: the first one, usually its path.
        b: the second one.
        reason: what each of them has, and what to do.
    """

    def __init__(self, a: str, b: str, reason: str) -> None:
        self.a, self.b, self.reason = a, b, reason
        super().__init__(f"{a} and {b} cannot be compared: {reason}")


class MissingPackage(EasyTeaCacheError, ImportError):
    """An optional package, or data that it needs, is not on this machine.

    Attributes:
        package: its name.
        advice: how to get it.
    """

    def __init__(self, package: str, purpose: str, advice: str) -> None:
        self.package, self.advice = package, advice
        super().__init__(f"{purpose} needs {package}, not found here: {advice}")


class BenchError(EasyTeaCacheError, ValueError):
    """The benchmark cannot do what it was asked for, or a file of results is damaged or another benchmark's."""


class HubError(EasyTeaCacheError):
    """Talking to a hub failed.

    Attributes:
        repository: the repository on the hub.
        reason: what went wrong, without any token.
    """

    def __init__(self, repository: str, reason: str) -> None:
        self.repository, self.reason = repository, reason
        super().__init__(f"{repository}: {reason}")


class PushRefused(HubError):
    """The submission was not sent because it breaks a rule.

    Attributes:
        report: the findings, one per rule.
    """

    def __init__(self, repository: str, reason: str, *, report: object = None) -> None:
        self.report = report
        super().__init__(repository, reason)


class InvalidPlan(EasyTeaCacheError, ValueError):
    """Numbers of a published method that make no plan: its steps, noise levels or parameters contradict each other."""


class InstallError(EasyTeaCacheError, RuntimeError):
    """The node pack cannot be put where it was told to: that is no ComfyUI, or something else lies there."""
