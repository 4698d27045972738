"""Tables of a benchmark for people, and the same numbers as data."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from easyteacache.bench import curves
from easyteacache.bench.contender import SLACK
from easyteacache.bench.curves import Difference, Interval, Standing
from easyteacache.bench.results import IDLE, MEASURED, Cell, Results

HEADS = ("contender", "kind", "computed", "PSNR", "95 %", "worst tenth", "SSIM", "right", "time")
_ABSENT = "–"


def tables(results: Results) -> list[dict[str, Any]]:
    """One entry a case: for each target every contender's standing and EasyTeaCache's differences; then who is missing and why."""
    return [_case(results, case) for case in results.uncached]


def as_data(results: Results) -> dict[str, Any]:
    """Everything a program reads: setup, machine, commands, and per case what ``tables`` gives."""
    return {
        "setup": results.setup,
        "machine": results.machine,
        "command": results.command,
        "cases": [
            {
                "case": case["case"],
                "uncached": results.uncached[case["case"]],
                "targets": [
                    {
                        "target": at["target"],
                        "contenders": {name: _plain(one) for name, one in at["standings"].items()},
                        "differences": [asdict(one) for one in at["differences"]],
                    }
                    for at in case["targets"]
                ],
                "curves": {name: [list(point) for point in line] for name, line in case["curves"].items()},
                "short": [{"contender": name, "share": share, "psnr": psnr} for name, share, psnr in case["short"]],
                "missing": [{"contender": c.contender, "state": c.state, "reason": c.reason} for c in case["missing"]],
            }
            for case in tables(results)
        ],
    }


def as_text(results: Results, *, width: int = 80) -> str:
    """Plain tables for a terminal of ``width`` columns, 40 or more: dB and per cent stand in the heads, kinds are left out."""

    def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return (
            _narrow_table(rows, width) if heads is HEADS else "\n".join(_hanging(row[0], row[1], width) for row in rows)
        )

    def say(text: str) -> str:
        return textwrap.fill(text, width, break_on_hyphens=False)

    return "\n".join(_lines(results, table, say=say, heading=lambda text, level: f"\n{say(text)}"))


def as_markdown(results: Results) -> str:
    """The same in Markdown."""
    return "\n".join(_lines(results, _markdown_table, say=str, heading=lambda text, level: f"\n{'#' * level} {text}\n"))


def _lines(results: Results, table: Any, *, say: Callable[[str], str], heading: Any) -> Iterator[str]:
    setup, machine = results.setup, results.machine
    where = machine.get("accelerator") or machine.get("processor")
    yield say(f"{setup['model']}, {len(setup['pairs'])} prompt and seed pairs, on {where}")
    yield say(
        "PSNR and SSIM compare with the uncached sample of the same noise. A contender stands at a speed-up with the best of its "
        f"points that computed no more than {SLACK:g} times its share. Time: of the uncached run, median. *: blocks run in part, so "
        "their attention and feed-forward layers are counted, each by its number of weights."
    )
    for case in tables(results):
        shape, _, steps = case["case"].partition("@")
        yield heading(f"{shape}, {steps} steps", 2)
        right = [value for value in results.uncached[case["case"]]["right"] if value is not None]
        if right:
            yield say(f"uncached: {sum(right)} of {len(right)} samples show what was asked for")
        for at in case["targets"]:
            yield heading(f"{at['target']:g}x less computed", 3)
            yield table(HEADS, [_row(name, one) for name, one in at["standings"].items()])
            for one in at["differences"]:
                yield say(_difference(one))
        absent = [
            (name, f"computed {100 * share:.1f} % at least, at {psnr:.1f} dB") for name, share, psnr in case["short"]
        ]
        absent += [(cell.contender, _why(cell)) for cell in case["missing"]]
        if absent:
            yield heading("Not in these tables", 3)
            yield table(("contender", "why"), absent)
        notes = {cell.contender: cell.note for cell in results.cells if cell.case == case["case"] and cell.note}
        if notes:
            yield heading("Notes", 3)
            yield table(("contender", "note"), list(notes.items()))


def _case(results: Results, case: str) -> dict[str, Any]:
    points = curves.measured(results, case)
    targets = []
    for target in results.setup["targets"]:
        standings = {name: found for name, cells in points.items() if (found := curves.standing(cells, target))}
        ordered = dict(sorted(standings.items(), key=lambda item: -item[1].psnr.mean))
        targets.append({"target": target, "standings": ordered, "differences": curves.differences(points, target)})
    reached = {name for at in targets for name in at["standings"]}
    # Cells are ordered by their share, the last one computed least.
    short = [(name, cells[-1]) for name, cells in points.items() if name not in reached]
    return {
        "case": case,
        "targets": targets,
        "short": [(name, cell.share, curves.bootstrap(cell.pairs["psnr"]).mean) for name, cell in short],
        "curves": {name: curves.envelope(cells) for name, cells in points.items()},
        "missing": [c for c in results.cells if c.case == case and c.state != MEASURED],
    }


def _row(name: str, one: Standing) -> Sequence[str]:
    return (
        name,
        one.cell.kind,
        f"{100 * one.cell.share:.1f} %{'' if one.cell.unit == 'blocks' else ' *'}",
        f"{one.psnr.mean:.1f} dB",
        f"{one.psnr.low:.1f} to {one.psnr.high:.1f}",
        f"{one.worst:.1f} dB",
        f"{one.ssim:.4f}",
        _ABSENT if one.right is None else f"{100 * one.right:.0f} %",
        _ABSENT if one.time is None else f"{100 * one.time:.0f} %",
    )


def _difference(one: Difference) -> str:
    named = {"all others": "the best other", "hold": "the best hold-type cache", "sampler": "the best of fewer steps"}
    return (
        f"EasyTeaCache against {named[one.against]}, {one.other}: {_signed(one.psnr)} dB, "
        f"worst tenth {one.worst:+.1f} dB"
    )


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"


def _why(cell: Cell) -> str:
    applied = "" if not cell.settings else f" ({', '.join(f'{k}={v}' for k, v in cell.settings.items())})"
    return f"{'skipped nothing' if cell.state == IDLE else cell.state}: {cell.reason}{applied}"


def _plain(one: Standing) -> dict[str, Any]:
    found = {name: value for name, value in vars(one).items() if name != "cell"}
    cell = one.cell
    return {
        **found,
        "psnr": asdict(one.psnr),
        "kind": cell.kind,
        "family": cell.family,
        "unit": cell.unit,
        "share": cell.share,
        "settings": cell.settings,
        "memory": cell.memory,
    }


def _narrow_table(rows: Sequence[Sequence[str]], width: int) -> str:
    """``HEADS`` without the kind and without units."""
    heads = ("", "COMPUTED", "PSNR", "95 %", "WORST", "SSIM", "RIGHT", "TIME")
    units = ("CONTENDER", "%", "dB", "dB", "TENTH", "", "%", "%")
    values = [
        [row[0], *(cell.replace(" %", "").replace(" dB", "").replace(" to ", "–") for cell in row[2:])] for row in rows
    ]
    widths = [max(len(row[i]) for row in (heads, units, *values)) for i in range(len(heads))]
    widths[0] = max(10, min(widths[0], width - sum(widths[1:]) - 2 * (len(widths) - 1)))
    return "\n".join(
        "  ".join(
            [
                f"{_cut(row[0], widths[0]):<{widths[0]}}",
                *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in (heads, units, *values)
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _hanging(name: str, text: str, width: int) -> str:
    return textwrap.fill(f"{name}  {text}", width, subsequent_indent="    ", break_on_hyphens=False)


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---" if head in ("contender", "kind", "why", "note") else "---:" for head in heads]
    cells = [heads, marks, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"
