"""What each engine would be given for one operating point, or why it cannot run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from easyteacache.errors import EasyTeaCacheError
from easyteacache.export import ENGINES, Engine, deviations, write
from easyteacache.policy.request import Request, RunContext
from easyteacache.records.bucket import Bucket, OperatingPoint
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Found, Registry

#: Formats for programs of one's own; every other entry is an engine.
PLAIN = ("json", "python")
RUNNERS: Mapping[str, Engine] = MappingProxyType({name: one for name, one in ENGINES.items() if name not in PLAIN})
#: A longer file is named and not printed; the command writes it.
MOST_CHARACTERS = 20_000


@dataclass(frozen=True)
class EngineFile:
    """A file for an engine.

    Attributes:
        engine: its name as people write it.
        suffix: ending of the file.
        text: its content; None where it is too long for a page.
        remarks: what the engine does otherwise.
        command: what writes it.
    """

    engine: str
    suffix: str
    text: str | None
    remarks: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Refusal:
    """An engine that cannot run a setting, and why."""

    engine: str
    reason: str


class Exporting:
    """Exports of one record.

    Args:
        found: the record.
        registry: where records are looked up that go into the same file.
    """

    def __init__(self, found: Found, registry: Registry) -> None:
        self._found, self._registry = found, registry
        unfit = {name: deviations.of_record(engine, found.calibration) for name, engine in RUNNERS.items()}
        #: What holds for the whole record.
        self.refused = tuple(Refusal(RUNNERS[name].title, one.text) for name, one in unfit.items() if one is not None)
        self._fit = tuple(engine for name, engine in RUNNERS.items() if unfit[name] is None)

    def of_point(
        self, bucket: Bucket, point: OperatingPoint | None
    ) -> tuple[tuple[EngineFile, ...], tuple[Refusal, ...]]:
        """Files of the engines that can run ``point`` of ``bucket``, and the others of those that can use the record at all."""
        record = self._found.calibration
        if not self._fit or record.status == "yanked":
            return (), ()
        found = Found(_alone(record, bucket, point), self._found.layer, self._found.asked)
        threshold = None if point is None else point.threshold
        run = RunContext(bucket.sequence_length, bucket.num_steps, bucket.shift)
        files, refused = [], []
        for engine in self._fit:
            try:
                exported = write(found, engine, Request(threshold=threshold), run, registry=self._registry)
            except EasyTeaCacheError as error:
                refused.append(Refusal(engine.title, str(error)))
                continue
            text = exported.text if len(exported.text) <= MOST_CHARACTERS else None
            command = _command(record, engine, bucket, threshold)
            files.append(EngineFile(engine.title, exported.suffix, text, exported.remarks, command))
        return tuple(files), tuple(refused)


def _alone(record: Calibration, bucket: Bucket, point: OperatingPoint | None) -> Calibration:
    """The record with nothing to choose from."""
    points = () if point is None else (point,)
    return record.model_copy(update={"buckets": (bucket.model_copy(update={"operating_points": points}),)})


def _command(record: Calibration, engine: Engine, bucket: Bucket, threshold: float | None) -> str:
    parts = [f"easyteacache export {record.model_key} --to {engine.name}"]
    parts += [f"--threshold {threshold!r}"] if threshold is not None else []
    parts += [f"--steps {bucket.num_steps}"] if bucket.num_steps else []
    return " ".join(parts)
