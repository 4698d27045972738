"""Published plans and ratios of real models, as a second witness of the law and of the universal plan."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from easyteacache.policy.carry import shifted_levels
from easyteacache.policy.uncalibrated import REFERENCE_VALUES, VALUES_PER_TOKEN, even_plan, universal_plan

Array = NDArray[np.float64]
FOLDER = Path(__file__).parents[1] / "published"
#: Most and fewest computed steps of the plans that are compared, as shares of all: 1.8 to 3.6 times as fast.
SHARES = (0.28, 0.55)
#: Offsets on the axis log(σ/(1 − σ)) that are tried for the best one.
OFFSETS = np.arange(-0.5, 5.51, 0.25)


@dataclass(frozen=True)
class Family:
    """Plans of one checkpoint by one method: the noise levels and tokens of their runs."""

    prefix: str
    levels: tuple[float, ...]
    tokens: int


def dynamic_shift(tokens: int, *, base: float, most: float, long: int) -> float:
    """exp(μ), μ linear in the tokens from ``base`` at 256 to ``most`` at ``long``, as diffusers' ``calculate_shift``."""
    return math.exp(base + (most - base) * (tokens - 256) / (long - 256))


def families(stored: Any) -> list[Family]:
    """Every family whose noise levels follow from what is published; HunyuanVideo-1.5's and Z-Image's shifts are not printed."""
    qwen = shifted_levels(50, dynamic_shift(6032, base=0.5, most=0.9, long=8192))
    flux = shifted_levels(50, dynamic_shift(4096, base=0.5, most=1.15, long=4096))
    return [
        Family("lemica/wan2.1/t2v-1.3b", shifted_levels(50, 5.0), 32_760),
        Family("lemica/wan2.1/t2v-14b", shifted_levels(50, 5.0), 75_600),
        Family("lemica/wan2.1/i2v-14b-480p", shifted_levels(40, 3.0), 32_760),
        Family("lemica/wan2.1/i2v-14b-720p", shifted_levels(40, 5.0), 57_600),
        Family("lemica/flux.1-dev", flux, 4096),
        Family("lemica/qwen-image", qwen, 6032),
        Family("dpcache/qwen-image-2.1", tuple(stored["shared"]["sigmas_qwen_image_2_1_40"]), 4096),
        Family("meancache/qwen-image/2512", qwen, 6032),
    ]


def compared(stored: Any, family: Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, computed steps) of a family's searched plans at the speed-ups that are compared."""
    steps = len(family.levels) - 1
    for plan in stored["plans"]:
        name, computed = plan["id"], plan["computed_steps"]
        rest = name.removeprefix(family.prefix + "/")
        if rest == name or not isinstance(computed, list) or "uniform" in rest or "fp8" in rest or "/" in rest:
            continue
        if SHARES[0] <= len(computed) / steps <= SHARES[1] and plan["num_steps"] == steps:
            yield rest, tuple(computed)


def plans() -> None:
    """Mean distance, in steps, of the universal plan's computed steps from the published ones.

    By the law over values, over tokens (as if a real model's token stood for as little as the reference model's), at the best offset of
    all, and of evenly spaced steps; and how far off the best offset is what the laws say.
    """
    stored = json.loads((FOLDER / "published_plans.json").read_text())
    click.echo("plan | computed | even | law over tokens | law over values | best | best offset | tokens' | values'")
    totals: list[tuple[float, ...]] = []
    for family in families(stored):
        for name, computed in compared(stored, family):
            steps = len(family.levels) - 1

            def off(offset: float, levels: tuple[float, ...] = family.levels, wanted: Any = computed) -> float:
                values = REFERENCE_VALUES * math.exp(2.0 * offset)
                return _apart(universal_plan(levels, 1, len(wanted), values=values), wanted)

            tokens = 0.5 * math.log(family.tokens * 4 / REFERENCE_VALUES)
            values = 0.5 * math.log(family.tokens * VALUES_PER_TOKEN / REFERENCE_VALUES)
            best = min(OFFSETS.tolist(), key=off)
            row = (_apart(even_plan(steps, len(computed)), computed), off(tokens), off(values), off(best))
            totals.append(row)
            figures = " | ".join(f"{value:.1f}" for value in row)
            click.echo(
                f"{family.prefix}/{name} | {len(computed)} of {steps} | {figures} | {best:.2f} | {tokens:.2f} | {values:.2f}"
            )
    click.echo("mean | | " + " | ".join(f"{value:.2f}" for value in np.mean(totals, axis=0)))


def _apart(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    return float(np.mean(np.abs(np.array(one) - np.array(other))))


#: Pairs of MagCache's ratios that differ in length: name, keys, shifts, steps, ratio of lengths.
RATIO_PAIRS = (
    ("Wan2.1 I2V-14B, 480p and 720p", "wan2.1/i2v-14b-480p", 3.0, "wan2.1/i2v-14b-720p", 5.0, 40, 75_600 / 32_760),
    ("Wan2.1 T2V, 1.3B at 480p and 14B at 720p", "wan2.1/t2v-1.3b", 5.0, "wan2.1/t2v-14b", 5.0, 50, 75_600 / 32_760),
    ("HunyuanVideo, 544p and 720p", "hunyuanvideo/t2v-544p", 7.0, "hunyuanvideo/t2v-720p", 7.0, 50, 921_600 / 522_240),
    (
        "Kandinsky 5 Lite, 5 s and 10 s",
        "kandinsky-5/lite-t2v-5s-sft-sd",
        5.0,
        "kandinsky-5/lite-t2v-10s-sft-sd",
        5.0,
        50,
        2.0,
    ),
)


def ratios() -> None:
    """How far MagCache's ratios of two lengths move along the noise axis, beside what the law says."""
    stored = json.loads((FOLDER / "mag_ratios.json").read_text())
    click.echo("pair | by noise level | by the law | exponent | its distance | by step")
    for name, short, shift, long, other, steps, ratio in RATIO_PAIRS:
        one, two = _norms(stored, short, steps), _norms(stored, long, steps)
        places = [np.log(s) - np.log1p(-s) for s in (np.array(shifted_levels(steps, x)[1:-1]) for x in (shift, other))]

        def distance(move: float, places: Any = places, one: Array = one, two: Array = two) -> float:
            expected = np.interp(-places[1], -(places[0] + move), one)
            expected = (expected - expected[0]) / (expected[-1] - expected[0])
            return float(np.mean(np.abs(expected - two)))

        exponents = np.linspace(-0.3, 0.8, 111)
        best = float(min(exponents, key=lambda e: distance(e * math.log(ratio))))
        figures = [distance(e * math.log(ratio)) for e in (0.0, 0.5)]
        by_step = float(np.mean(np.abs(one - two)))
        moved = distance(best * math.log(ratio))
        click.echo(f"{name} | {figures[0]:.4f} | {figures[1]:.4f} | {best:.2f} | {moved:.4f} | {by_step:.4f}")


def _norms(stored: Any, key: str, steps: int) -> Array:
    """|log ratio| added up over steps 2 …, 0 to 1, mean over branches."""
    entry = (
        next(e for e in stored if e["model_key"] == key and e["num_steps"] == steps and "interleaved" in e["layout"])
        if key.startswith(("wan", "kandinsky")) and not key.endswith("t2v-1.3b")
        else next(e for e in stored if e["model_key"] == key and e["num_steps"] == steps)
    )
    values = np.array(entry["ratios"], dtype=float)
    if "interleaved" in entry["layout"]:
        values = 0.5 * (values[0::2] + values[1::2])
    if not entry["prepended_ones"]:
        values = values[1:]
    total = np.cumsum(np.abs(np.log(values[: steps - 1])))
    return np.asarray((total - total[0]) / (total[-1] - total[0]))
