"""The file of results: everything measured, pair by pair, written whole after every cell, so that a run can go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easyteacache.errors import BenchError
from easyteacache.files import atomic_write, regular_files, strict_json

FORMAT = "easyteacache-bench/1"
MAX_BYTES = 512 * 1024 * 1024
MEASURED, FAILED, IDLE, INAPPLICABLE = STATES = ("measured", "failed", "idle", "inapplicable")
#: Columns of a measured cell, one value a pair.
COLUMNS = ("share", "psnr", "ssim", "right", "seconds", "ratio")


@dataclass
class Cell:
    """One contender at one setting in one case.

    Attributes:
        case: ``FxHxW@steps``.
        contender: its name; kind, family, unit, note: as the contender's.
        state: ``measured``; ``failed`` with an exception; ``idle``: it ran and skipped nothing; ``inapplicable``.
        reason: why it was not measured.
        settings: what was applied, None where it did not come to that.
        pairs: column → one value a pair, see ``COLUMNS``.
        memory: most bytes above the resting state while it was measured, None where unknown.
    """

    case: str
    contender: str
    kind: str
    family: str
    unit: str
    note: str
    state: str
    reason: str | None = None
    settings: Mapping[str, Any] | None = None
    pairs: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    memory: int | None = None

    @property
    def identity(self) -> str:
        """What no two cells of a file share."""
        return json.dumps([self.case, self.contender, self.settings], sort_keys=True)

    @property
    def share(self) -> float:
        """Mean computed share."""
        shares = self.pairs["share"]
        return float(sum(shares)) / len(shares)


@dataclass
class Results:
    """One benchmark.

    Attributes:
        setup: what makes numbers comparable: model, pairs, targets, versions. A file with another setup is not continued.
        machine: where it ran; command: how it was called.
        uncached: case → what the uncached runs cost and show.
        plans: case → contender → calibration, pilot and chosen settings.
        cells: everything measured.
        solved: of EasyTeaCache's record, where it was solved for this benchmark: by which commit, from how many runs.
    """

    setup: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    solved: dict[str, Any] = field(default_factory=dict)
    uncached: dict[str, Any] = field(default_factory=dict)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)

    def cell(self, case: str, contender: str, settings: Mapping[str, Any] | None) -> Cell | None:
        """A cell by its identity."""
        wanted = json.dumps([case, contender, settings], sort_keys=True)
        return next((cell for cell in self.cells if cell.identity == wanted), None)

    def forget(self, contender: str, case: str) -> None:
        """Drop everything known of a contender in a case."""
        self.cells = [cell for cell in self.cells if (cell.contender, cell.case) != (contender, case)]
        self.plans.get(case, {}).pop(contender, None)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        content = {"format": FORMAT, **vars(self), "cells": [vars(cell) for cell in self.cells]}
        atomic_write.write_text(path, strict_json.spell(content))


def load(path: Path) -> Results:
    """Read a file of results.

    Raises:
        BenchError: it is missing, damaged, or no file of results of this release.
    """
    try:
        content = strict_json.parse(regular_files.read_bytes(path, max_bytes=MAX_BYTES), max_bytes=MAX_BYTES)
    except OSError as error:
        raise BenchError(f"{path}: expected a file of results, {error.strerror or error}") from error
    except strict_json.JSONTextError as error:
        raise BenchError(f"{path}: damaged, {error}; delete it to measure again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise BenchError(f"{path}: expected the format {FORMAT!r}, found {strict_json.shown(found)}")
    try:
        cells = [Cell(**cell) for cell in content.pop("cells")]
        content.pop("format")
        results = Results(cells=cells, **content)
    except (TypeError, KeyError, AttributeError) as error:
        raise BenchError(
            f"{path}: damaged, a part is missing or unknown ({error}); delete it to measure again"
        ) from error
    for cell in results.cells:
        _check(path, cell)
    return results


def _check(path: Path, cell: Cell) -> None:
    columns = {name: cell.pairs.get(name) for name in COLUMNS} if isinstance(cell.pairs, dict) else {}
    lengths = {len(column) for column in columns.values() if isinstance(column, list)}
    whole = len(lengths) == 1 and lengths != {0} and all(isinstance(c, list) for c in columns.values())
    whole = whole and all(_number(value, name) for name, column in columns.items() for value in column or ())
    if cell.state not in STATES or (cell.state == MEASURED and not whole):
        raise BenchError(
            f"{path}: damaged, the cell of {cell.contender!r} in {cell.case!r} is not complete; delete it to measure again"
        )


def _number(value: object, column: str) -> bool:
    return (value is None and column != "share") or isinstance(value, (bool, int, float))


def resume(path: Path, setup: Mapping[str, Any]) -> Results:
    """What a file holds of the same benchmark, or an empty one.

    Raises:
        BenchError: the file is damaged, or of a benchmark with another setup.
    """
    if not path.exists():
        return Results(dict(setup))
    found = load(path)
    plain = strict_json.parse(strict_json.spell(dict(setup)))
    differing = [name for name in {**plain, **found.setup} if plain.get(name) != found.setup.get(name)]
    if differing:
        name = differing[0]
        raise BenchError(
            f"{path} was measured with another {name}: {_short(found.setup.get(name))} there, {_short(plain.get(name))} now. "
            "Name another file with --out, or delete this one."
        )
    return found


def merge(files: Iterable[Path]) -> Results:
    """The cells of several files of one benchmark.

    Raises:
        BenchError: none is given, one is damaged, their setups differ, or two hold the same cell.
    """
    merged: Results | None = None
    for path in files:
        found = load(path)
        if merged is None:
            merged = found
            continue
        differing = [
            name for name in {**merged.setup, **found.setup} if merged.setup.get(name) != found.setup.get(name)
        ]
        if differing:
            raise BenchError(f"{path}: its {differing[0]} is not that of the other files, so they cannot be compared")
        twice = {cell.identity for cell in merged.cells} & {cell.identity for cell in found.cells}
        if twice:
            raise BenchError(f"{path}: holds {min(twice)} as another file does; give one of them")
        merged.cells += found.cells
        merged.uncached |= found.uncached
        for case, plans in found.plans.items():
            merged.plans.setdefault(case, {}).update(plans)
        merged.solved = merged.solved or found.solved
        merged.command += f"\n{found.command}"
    if merged is None:
        raise BenchError("expected a file of results, none is given")
    return merged


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}…"
