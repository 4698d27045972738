"""Other engines' files: write a record's numbers in an engine's own format, and read them back.

    exported = export(registry, "wan2.1/t2v-14b", "lightx2v", run=RunContext(num_steps=50))
    exported.text, exported.remarks

Every exporter refuses where the engine would compute something else than what the numbers were calibrated for, and names in
the file what it does otherwise. `docs/engines.md` lists the engines and what each does with coefficients.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import ModuleType
from typing import Any

from easyteacache.errors import ExportRefused
from easyteacache.export import deviations, draft, partners, presets
from easyteacache.export.deviations import Deviation
from easyteacache.export.draft import Draft
from easyteacache.export.engine import Engine
from easyteacache.export.numbers import Numbers, resolve
from easyteacache.export.parsed import Parsed, refuse
from easyteacache.export.table import ENGINES
from easyteacache.policy.policy import RetiredCalibration
from easyteacache.policy.request import Request, RunContext
from easyteacache.registry.registry import Found, Registry

__all__ = [
    "ENGINES",
    "Deviation",
    "Draft",
    "Engine",
    "Exported",
    "Numbers",
    "Parsed",
    "export",
    "read",
    "read_server",
    "write",
]

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
    server: Mapping[str, Any] | None = None,
) -> Exported:
    """Write the record of ``key`` in the format of ``engine``.

    Args:
        registry: where the record, and those that go into the same file, are looked up.
        key: model key or exact alias.
        engine: name of an entry of ``ENGINES``.
        request: the operating point; may be left open.
        run: sequence length, step count and shift; may be left open.
        allow: rules whose refusal becomes a remark.
        server: what is known of the program that will read the file, for formats that name it.

    Raises:
        ExportRefused: the engine would compute something else.
        UnknownModelKey, RetiredCalibration, InvalidCalibration: as a lookup does.
    """
    return write(registry.find(key), ENGINES[engine], request, run, allow=allow, registry=registry, server=server)


def write(
    found: Found,
    engine: Engine,
    request: Request | None = None,
    run: RunContext | None = None,
    *,
    allow: Collection[str] = (),
    registry: Registry | None = None,
    server: Mapping[str, Any] | None = None,
) -> Exported:
    """``export`` for a record that was already found; ``registry`` only for records that go into the same file."""
    request, run = request or Request(), run or RunContext()
    numbers, remarks = _admitted(found, engine, request, run, allow, server)
    others: dict[str, Numbers] = {}
    for role in engine.together:
        if numbers.preset is not None:
            others |= _published_sets(numbers, engine, registry)
            break
        partner = _partner(role, found.calibration.model_key, engine, registry)
        if partner is not None:
            others[role], more = _admitted(partner, engine, request, run, allow)
            remarks += tuple(f"{partner.calibration.model_key}: {remark}" for remark in more)
        elif role == "set" and numbers.record.model_key.startswith("wan"):
            remarks += ("The checkpoint's other set is not at hand: its place in the file stays empty.",)
    text = _format(engine).write(numbers, engine.model_for(found.calibration.model_key), others, remarks)
    return Exported(text, engine.suffix, remarks, numbers)


def read_server(text: str, engine: str, *, file: str) -> dict[str, Any]:
    """What a caller's file says of the program that will read an export, for ``server``.

    Raises:
        InvalidCalibration: it does not say anything of it.
        ExportRefused: files of this engine name no program.
    """
    form = ENGINES[engine]
    if not form.server:
        raise ExportRefused(form.title, ["server"], ["Its files name no server. Leave --server out."])
    known: dict[str, Any] = _format(form).server(text, file)
    return known


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
        raise refuse(file, f"files of {form.title} hold no numbers: there is nothing to import")
    drafts = []
    for parsed in _format(form).read(text, file):
        key = model_key or parsed.model_key
        if key is None:
            raise refuse(file, "names no model; pass its key with --key")
        drafts.append(
            draft.build(parsed, form, model_key=key, title=title, modality=modality, file=PurePath(file).name)
        )
    if not drafts:
        raise refuse(file, f"holds no numbers in the format of {form.title}")
    return drafts


def _published_sets(numbers: Numbers, engine: Engine, registry: Registry | None) -> dict[str, Numbers]:
    """TeaCache's two sets of the preset's checkpoint, where the preset takes them; they must both be at hand."""
    assert numbers.preset is not None
    rule = presets.rule_for(engine.name, numbers.preset)
    if rule is None or not rule.sets:
        return {}
    keys = None if registry is None else partners.published_sets(numbers.record.model_key, registry)
    if keys is None or registry is None:
        reason = "The preset takes both of TeaCache's sets of its checkpoint, and their records were not found."
        raise ExportRefused(engine.title, ["expert"], [reason], "Put them into one registry folder.")
    found = {name: registry.find(key).calibration for name, key in keys.items()}
    return {
        name: Numbers(record=record, bucket=record.buckets[0], coefficients=record.buckets[0].coefficients)
        for name, record in found.items()
    }


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
    found: Found,
    engine: Engine,
    request: Request,
    run: RunContext,
    allow: Collection[str],
    server: Mapping[str, Any] | None = None,
) -> tuple[Numbers, tuple[str, ...]]:
    """The record's numbers and what is to be said about them."""
    record = found.calibration
    if record.status == "yanked":
        raise RetiredCalibration(record)
    unfit = deviations.of_record(engine, record)
    known = [] if unfit is None else [unfit]
    _refuse(engine, known, allow)
    needs = engine.takes_threshold and engine.plan == "threshold"
    numbers = resolve(
        found, request, run, engine=engine.title, needs_threshold=needs, kind=engine.plan, name=engine.name
    )
    numbers = dataclasses.replace(numbers, server=server or {})
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
_FINAL = frozenset({"method", "order", "plan", "threshold", "steps", "server"})


def _own_deviations(engine: Engine, numbers: Numbers) -> list[Deviation]:
    """What only the format's module can see."""
    check = getattr(_format(engine), "deviations", None)
    return [] if check is None or numbers.preset is not None else list(check(numbers))


def _format(engine: Engine) -> ModuleType:
    return importlib.import_module(f"easyteacache.export.formats.{engine.module}")
