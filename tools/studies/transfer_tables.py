"""The tables of docs/transfer.md, from the rows that tools/studies/transfer.py writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Results = dict[str, Any]
Row = dict[str, Any]
WAYS = ("own", "interpolated", "nearest", "global", "farthest")
SPEEDUPS = ("2", "3")
FILLINGS = ("hold", "linear")
BASE = (50, 3.0)
MAIN_SIGNAL = "timestep_projection"


def markdown(results: Results) -> str:
    """Every table, under its heading."""
    parts = [
        *_fits(results),
        *_lengths(results),
        *_settings(results, "steps", 1),
        *_settings(results, "shifts", 2),
        *_short_of_target(results),
    ]
    return "\n".join(parts)


def name(setting: Sequence[float]) -> str:
    """A setting as people write it."""
    return f"{setting[0]} tokens, {setting[1]} steps, shift {setting[2]:g}"


def ratio(rows: Sequence[Row], references: Sequence[Row], keys: Sequence[str]) -> tuple[float, float]:
    """Geometric mean of error / reference error and its standard error, the runs (seeds) as independent observations.

    Args:
        rows, references: the same number of each, of the same targets; their logarithms are averaged per seed first.
        keys: "filling speed-up" of the errors to compare.
    """
    pairs = [
        (row["errors"][key], ref["errors"][key]) for row, ref in zip(rows, references, strict=True) for key in keys
    ]
    logs = np.full((len(pairs), max(len(found) for found, _ in pairs)), np.nan)
    for position, (found, expected) in enumerate(pairs):
        logs[position, : len(found)] = np.log(found) - np.log(expected)
    # Some settings have fewer runs; they are the lowest seeds everywhere, so a column is one seed.
    per_seed = np.nanmean(logs, axis=0)
    mean = float(np.exp(per_seed.mean()))
    return mean, mean * float(per_seed.std(ddof=1)) / math.sqrt(len(per_seed))


def pick(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """The rows whose fields have these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _fits(results: Results) -> Iterator[str]:
    yield "\n## How the fits move\n"
    yield _line(
        "tokens",
        "steps",
        "shift",
        "signal distance",
        "output distance",
        "D(0)",
        "x⁴ coefficient (halves)",
        "a·xᵇ: a",
        "b (halves)",
    )
    yield _line(*["---:"] * 9)
    for move in results["moves"]:
        found = move[MAIN_SIGNAL]
        quartic, power = found["quartic"], found["power"]
        yield _line(
            *(f"{value:g}" for value in move["setting"]),
            _range(found["distance"]),
            _range(move["output"]),
            f"{move['profile']['distances'][-1]:.2f}",
            f"{quartic[0][0]:.3g} ({quartic[1][0]:.3g}, {quartic[2][0]:.3g})",
            f"{power[0][0]:.3f}",
            f"{power[0][1]:.3f} ({power[1][1]:.3f}, {power[2][1]:.3f})",
        )


def _lengths(results: Results) -> Iterator[str]:
    rows = results["lengths"]
    inner = sorted({tuple(row["target"]) for row in rows if row["source"] == "interpolated"})

    def of(kind: str, signal: str, way: str) -> list[Row]:
        found = pick(rows, kind=kind, signal=signal, source=way)
        return sorted((row for row in found if tuple(row["target"]) in inner), key=lambda row: row["target"])

    yield f"\n## Lengths: error of the predicted output distance, %, mean over {', '.join(str(s[0]) for s in inner)} tokens\n"
    yield _line("curve", "signal", *WAYS)
    yield _line("---", "---", *["---:"] * len(WAYS))
    for kind, signal in _kinds(rows):
        yield _line(kind, signal, *(f"{_mean_error(of(kind, signal, way)):.1f}" for way in WAYS))
    for filling in FILLINGS:
        yield f"\n## Lengths: error of the final sample relative to the length's own fit, {filling}\n"
        yield _line("curve", "signal", *(f"{way} {speedup}×" for way in WAYS[1:] for speedup in SPEEDUPS))
        yield _line("---", "---", *["---:"] * 8)
        for kind, signal in _kinds(rows):
            own = of(kind, signal, "own")
            cells = [_pm(*ratio(of(kind, signal, w), own, [f"{filling} {s}"])) for w in WAYS[1:] for s in SPEEDUPS]
            yield _line(kind, signal, *cells)
    yield from _each_length(results)


def _each_length(results: Results) -> Iterator[str]:
    rows = results["lengths"]
    lengths = sorted({tuple(row["target"]) for row in rows})
    for kind, signal in (("monotone", MAIN_SIGNAL), ("profile", "")):
        yield f"\n## Each length: error of the predicted output distance, %, {kind} {signal}\n"
        yield _line("tokens", *WAYS)
        yield _line(*["---:"] * 6)
        for length in lengths:
            found = [pick(rows, kind=kind, signal=signal, source=way, target=list(length)) for way in WAYS]
            yield _line(length[0], *(f"{100 * row[0]['relative_error']:.1f}" if row else "–" for row in found))
    yield from _against_even_steps(results, lengths)


def _against_even_steps(results: Results, lengths: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    def found(part: str, **wanted: Any) -> list[Row]:
        return [pick(results[part], target=list(length), **wanted)[0] for length in lengths]

    keys = [f"{filling} {speedup}" for filling in FILLINGS for speedup in SPEEDUPS]
    even = found("references", kind="uniform")
    ways = {(k, s): found("lengths", kind=k, signal=s, source="own") for k, s in _kinds(results["lengths"])}
    ways["the run's own distances", ""] = found("references", kind="truth")
    yield "\n## Lengths: error of the final sample relative to even steps, own fits, mean over all lengths\n"
    yield _line("curve", "signal", *(f"{key}×" for key in keys))
    yield _line("---", "---", *["---:"] * len(keys))
    for (kind, signal), rows in ways.items():
        yield _line(kind, signal, *(_pm(*ratio(rows, even, [key])) for key in keys))


def _settings(results: Results, part: str, axis: int) -> Iterator[str]:
    rows = results[part]
    base = f"{BASE[axis - 1]:g}"
    what = "steps" if axis == 1 else "shift"
    for signal in sorted({row["signal"] for row in rows} - {""}, reverse=True):
        shown = [(kind, s) for kind, s in _kinds(rows) if s in (signal, "")]
        yield f"\n## {part.capitalize()}, fitted at {what} {base}: error of the predicted output distance, % (R²), {signal}\n"
        yield _line("tokens", what, "native monotone", *(kind for kind, _ in shown), "native profile")
        yield _line(*["---:"] * (len(shown) + 4))
        for target in _targets(rows, axis):
            native = pick(rows, target=list(target), source=f"{target[axis]:g}")
            carried = [pick(rows, target=list(target), source=base, kind=k, signal=s)[0] for k, s in shown]
            cells = [pick(native, kind="monotone", signal=signal)[0], *carried, pick(native, kind="profile")[0]]
            yield _line(target[0], f"{target[axis]:g}", *map(_accuracy, cells))
        yield from _replayed(results, rows, axis, shown)
    yield from _all_pairs(rows, part)
    yield from _profile_against_native(rows, part, axis)
    yield f"\n## {part.capitalize()}: the speed-up that a threshold gives which gives 2× at {what} {base}, {MAIN_SIGNAL}\n"
    shown = [(kind, s) for kind, s in _kinds(rows) if s in (MAIN_SIGNAL, "")]
    yield _line("tokens", what, *(kind for kind, _ in shown))
    yield _line(*["---:"] * (len(shown) + 2))
    for target in _targets(rows, axis):
        found = [pick(rows, target=list(target), source=base, kind=k, signal=s)[0] for k, s in shown]
        yield _line(target[0], f"{target[axis]:g}", *(f"{row['carried']['2']:.2f}×" for row in found))


def _replayed(results: Results, rows: Sequence[Row], axis: int, shown: Sequence[tuple[str, str]]) -> Iterator[str]:
    base, signal = f"{BASE[axis - 1]:g}", shown[0][1]
    yield f"\n### Error of the final sample relative to even steps, same fits, {signal}\n"
    yield _line(
        "tokens", "target", "filling, speed-up", "native monotone", *(kind for kind, _ in shown), "native profile"
    )
    yield _line("---:", "---:", "---", *["---:"] * (len(shown) + 2))
    for target in _targets(rows, axis):
        even = pick(results["references"], kind="uniform", target=list(target))
        native = pick(rows, target=list(target), source=f"{target[axis]:g}")
        carried = [pick(rows, target=list(target), source=base, kind=k, signal=s) for k, s in shown]
        cells = [pick(native, kind="monotone", signal=signal), *carried, pick(native, kind="profile")]
        for key in (f"{filling} {speedup}" for filling in FILLINGS for speedup in SPEEDUPS):
            yield _line(target[0], f"{target[axis]:g}", f"{key}×", *(_pm(*ratio(c, even, [key])) for c in cells))


def _all_pairs(rows: Sequence[Row], part: str) -> Iterator[str]:
    yield f"\n## {part.capitalize()}, all pairs of different settings\n"
    yield _line("curve", "signal", "native, %", "carried: median, %", "worst, %", "worst R²",
                *(f"{filling} {speedup}× against native monotone" for filling in FILLINGS for speedup in SPEEDUPS))  # fmt: skip
    yield _line("---", "---", *["---:"] * 8)
    axis = 1 if part == "steps" else 2
    for kind, signal in _kinds(rows):
        same = pick(rows, kind=kind, signal=signal)
        native = [row for row in same if row["source"] == f"{row['target'][axis]:g}"]
        carried = [row for row in same if row["source"] != f"{row['target'][axis]:g}"]
        against = [
            pick(
                rows,
                kind="monotone",
                signal=signal or MAIN_SIGNAL,
                target=row["target"],
                source=f"{row['target'][axis]:g}",
            )[0]
            for row in carried
        ]
        errors = [100 * row["relative_error"] for row in carried]
        keys = [f"{filling} {speedup}" for filling in FILLINGS for speedup in SPEEDUPS]
        yield _line(kind, signal, f"{_mean_error(native):.1f}", f"{np.median(errors):.1f}", f"{max(errors):.3g}",
                    f"{min(row['r2'] for row in carried):.3g}", *(_pm(*ratio(carried, against, [key])) for key in keys))  # fmt: skip


def _profile_against_native(rows: Sequence[Row], part: str, axis: int) -> Iterator[str]:
    keys = [f"{filling} {speedup}" for filling in FILLINGS for speedup in SPEEDUPS]
    carried = [row for row in pick(rows, kind="profile") if row["source"] != f"{row['target'][axis]:g}"]
    yield f"\n## {part.capitalize()}, all pairs: error of the final sample with a carried profile relative to the target's own fit\n"
    yield _line("own fit", "signal", *(f"{key}×" for key in keys))
    yield _line("---", "---", *["---:"] * len(keys))
    for kind, signal in [found for found in _kinds(rows) if found[0] in ("monotone", "profile")]:
        own = [
            pick(rows, kind=kind, signal=signal, target=row["target"], source=f"{row['target'][axis]:g}")[0]
            for row in carried
        ]
        yield _line(kind, signal, *(_pm(*ratio(carried, own, [key])) for key in keys))


def _short_of_target(results: Results) -> Iterator[str]:
    yield "\n## Computed steps short of what was asked for: mean and largest share\n"
    for part in ("lengths", "steps", "shifts"):
        shares = [
            1.0 - count / math.floor(row["target"][1] / int(speedup))
            for row in results[part]
            for speedup, count in row["computed"].items()
        ]
        if shares:
            yield f"* {part}: {np.mean(shares):.1%}, {max(shares):.1%}"


def _kinds(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["kind"], row["signal"]) for row in rows))


def _targets(rows: Sequence[Row], axis: int) -> list[tuple[Any, ...]]:
    """Settings other than the base, which is what the fits are carried from."""
    return sorted({tuple(row["target"]) for row in rows if row["target"][axis] != BASE[axis - 1]})


def _mean_error(rows: Sequence[Row]) -> float:
    return 100 * float(np.mean([row["relative_error"] for row in rows]))


def _accuracy(row: Row) -> str:
    r2 = row["r2"]
    return (
        f"{100 * row['relative_error']:.3g} ({r2:.2f})" if r2 > -10 else f"{100 * row['relative_error']:.3g} ({r2:.0f})"
    )


def _pm(value: float, error: float) -> str:
    return f"{value:.2f} ±{error:.2f}"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3f}–{max(values):.3f}"


def _line(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
