"""Other engines' files: write a record's numbers in an engine's own format, and read them back.

    exported = export(registry, "wan2.1/t2v-14b", "lightx2v", run=RunContext(num_steps=50))
    exported.text, exported.remarks

Every exporter refuses where the engine would compute something else than what the numbers were calibrated for, and names in
the file what it does otherwise. `docs/engines.md` lists the engines and what each does with coefficients.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import ModuleType

from easyteacache.errors import ExportRefused
from easyteacache.export import deviations, draft, partners
from easyteacache.export.deviations import Deviation
from easyteacache.export.draft import Draft
from easyteacache.export.engine import Engine
from easyteacache.export.numbers import Numbers, resolve
from easyteacache.export.parsed import Parsed, refuse
from easyteacache.export.table import ENGINES
from easyteacache.policy.policy import RetiredCalibration
from easyteacache.policy.request import Request, RunContext
from easyteacache.registry.registry import Found, Registry

__all__ = ["ENGINES", "Deviation", "Draft", "Engine", "Exported", "Numbers", "Parsed", "export", "read", "write"]

_ALLOW = "To export all the same, name the rule with --allow: {rules}."


@dataclass(frozen=True)
class Exported:
    """A file for an engine.

    Attributes:
        text: its content.
        suffix: its ending: json, py or yaml.
        remarks: what the engine does otherwise, one sentence each; they stand in the file, too.
        numbers: what was written.
    """

    text: str
    suffix: str
    remarks: tuple[str, ...]
    numbers: Numbers


def export(
    registry: Registry,
    key: str,
    engine: str,
    request: Request | None = None,
    run: RunContext | None = None,
    *,
    allow: Collection[str] = (),
) -> Exported:
    """Write the record of ``key`` in the format of ``engine``.

    Args:
        registry: where the record, and those that go into the same file, are looked up.
        key: model key or exact alias.
        engine: name of an entry of ``ENGINES``.
        request: the operating point; may be left open.
        run: sequence length, step count and shift; may be left open.
        allow: rules whose refusal becomes a remark.

    Raises:
        ExportRefused: the engine would compute something else.
        UnknownModelKey, RetiredCalibration, InvalidCalibration: as a lookup does.
    """
    return write(registry.find(key), ENGINES[engine], request, run, allow=allow, registry=registry)


def write(
    found: Found,
    engine: Engine,
    request: Request | None = None,
    run: RunContext | None = None,
    *,
    allow: Collection[str] = (),
    registry: Registry | None = None,
) -> Exported:
    """``export`` for a record that was already found; ``registry`` only for records that go into the same file."""
    request, run = request or Request(), run or RunContext()
    numbers, remarks = _admitted(found, engine, request, run, allow)
    others: dict[str, Numbers] = {}
    for role in engine.together:
        partner = _partner(role, found.calibration.model_key, engine, registry)
        if partner is not None:
            others[role], more = _admitted(partner, engine, request, run, allow)
            remarks += tuple(f"{partner.calibration.model_key}: {remark}" for remark in more)
        elif role == "set" and numbers.record.model_key.startswith("wan"):
            remarks += ("The checkpoint's other set is not at hand: its place in the file stays empty.",)
    text = _format(engine).write(numbers, engine.model_for(found.calibration.model_key), others, remarks)
    return Exported(text, engine.suffix, remarks, numbers)


def read(text: str, engine: str, *, file: str, model_key: str | None, title: str | None, modality: str) -> list[Draft]:
    """Read an engine's file as draft records, its active set first.

    Args:
        text: content of the file.
        engine: name of an entry of ``ENGINES``.
        file: its name, for messages and notes.
        model_key: key of the record; None takes the one that an export left in the file.
        title: the model's name as people write it; None: the key.
        modality: what the model generates.

    Raises:
        InvalidCalibration: the file is not in that format, carries too little, or names no model.
    """
    form = ENGINES[engine]
    if not form.reads:
        raise refuse(file, f"files of {form.title} hold no coefficients: there is nothing to import")
    drafts = []
    for parsed in _format(form).read(text, file):
        key = model_key or parsed.model_key
        if key is None:
            raise refuse(file, "names no model; pass its key with --key")
        drafts.append(
            draft.build(parsed, form, model_key=key, title=title, modality=modality, file=PurePath(file).name)
        )
    return drafts


def _partner(role: str, key: str, engine: Engine, registry: Registry | None) -> Found | None:
    """The record that goes into the same file; a missing expert is refused, because its steps would use the wrong numbers."""
    other = None if registry is None else partners.FIND[role](key, registry)
    if other is not None and registry is not None:
        return registry.find(other)
    if role == "expert" and partners.expert(key) is not None:
        reason = f"{key} is one of two experts; the file needs the numbers of both, and the other record was not found."
        raise ExportRefused(engine.title, ["expert"], [reason], "Put both records into one registry folder.")
    return None


def _admitted(
    found: Found, engine: Engine, request: Request, run: RunContext, allow: Collection[str]
) -> tuple[Numbers, tuple[str, ...]]:
    """The record's numbers and what is to be said about them."""
    record = found.calibration
    if record.status == "yanked":
        raise RetiredCalibration(record)
    unfit = deviations.of_record(engine, record)
    known = [] if unfit is None else [unfit]
    _refuse(engine, known, allow)
    needs = engine.takes_threshold and engine.plan == "threshold"
    numbers = resolve(found, request, run, engine=engine.title, needs_threshold=needs, kind=engine.plan)
    listed = [*known, *deviations.of_numbers(engine, numbers), *_own_deviations(engine, numbers)]
    _refuse(engine, listed, allow)
    return numbers, tuple(one.text for one in listed)


def _refuse(engine: Engine, listed: Sequence[Deviation], allow: Collection[str]) -> None:
    refused = [one for one in listed if one.refuses and one.rule not in allow]
    if not refused:
        return
    rules = [one.rule for one in refused]
    # Permission for some of several rules would not help where another cannot be permitted.
    helps = not _FINAL & set(rules)
    advice = _ALLOW.format(rules=" ".join(f"--allow {rule}" for rule in dict.fromkeys(rules))) if helps else ""
    raise ExportRefused(engine.title, rules, [one.text for one in refused], advice)


# What no permission can mend: the format has no place for the numbers.
_FINAL = frozenset({"method", "order", "plan", "threshold", "steps"})


def _own_deviations(engine: Engine, numbers: Numbers) -> list[Deviation]:
    """What only the format's module can see."""
    check = getattr(_format(engine), "deviations", None)
    return [] if check is None else list(check(numbers))


def _format(engine: Engine) -> ModuleType:
    return importlib.import_module(f"easyteacache.export.formats.{engine.module}")
