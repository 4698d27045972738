"""The figure of the law study: plans found, published and made, over the share of the run and over matched noise."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from law_published import FOLDER, dynamic_shift
from law_runs import Recorded

from easyteacache.policy.carry import shifted_levels
from easyteacache.policy.uncalibrated import REFERENCE_VALUES, VALUES_PER_TOKEN, universal_plan

#: Nearer to 1 a level is pure noise, whose coordinate says nothing.
PURE = 0.9999


@dataclass(frozen=True)
class Line:
    """One plan: its name, computed steps, noise levels, and the values of a sample."""

    name: str
    computed: Sequence[int]
    levels: Sequence[float]
    values: float
    style: str
    colour: str


def draw(path: Path, run: Recorded, found: Sequence[int]) -> None:
    """Draw the plan ``found`` on digits at a matched shift beside published ones and the universal plan for Wan2.1-14B."""
    stored = json.loads((FOLDER / "published_plans.json").read_text())
    printed = {plan["id"]: plan["computed_steps"] for plan in stored["plans"]}
    wan, qwen = shifted_levels(50, 5.0), shifted_levels(50, dynamic_shift(6032, base=0.5, most=0.9, long=8192))
    wan_values, qwen_values = 75_600 * VALUES_PER_TOKEN, 6032 * VALUES_PER_TOKEN
    small = shifted_levels(50, 3.0)
    lines = [
        Line("found on digits, 256 tokens, shift 0.1", found, run.levels.tolist(), 1024, "-", "tab:orange"),
        Line("LeMiCa, Wan2.1-14B", printed["lemica/wan2.1/t2v-14b/B25"], wan, wan_values, "-", "tab:blue"),
        Line(
            "DPCache, Qwen-Image-2.1",
            printed["dpcache/qwen-image-2.1/K20"],
            stored["shared"]["sigmas_qwen_image_2_1_40"],
            4096 * VALUES_PER_TOKEN,
            "-",
            "tab:green",
        ),
        Line("MeanCache, Qwen-Image-2512", printed["meancache/qwen-image/2512/B25"], qwen, qwen_values, "-", "tab:red"),
        Line("universal plan for Wan2.1-14B", universal_plan(wan, 75_600, 25), wan, wan_values, "--", "black"),
        Line(
            "universal plan for digits, 64 tokens, shift 3",
            universal_plan(small, 64, 25, values=4),
            small,
            256,
            ":",
            "grey",
        ),
    ]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, constrained_layout=True)
    for line in lines:
        share = np.arange(1, len(line.computed) + 1) / len(line.computed)
        steps = len(line.levels) - 1
        left.plot(np.array(line.computed) / steps, share, line.style, color=line.colour, label=line.name)
        inner = [step for step in line.computed if 0.0 < line.levels[step] < PURE]
        places = [_coordinate(line.levels[step], line.values) for step in inner]
        right.plot(places, share[-len(inner) :], line.style, color=line.colour)
    left.plot([0, 1], [0, 1], color="lightgrey", linewidth=1, zorder=0)
    left.set(xlabel="share of the run", ylabel="share of the computed steps")
    right.set(xlabel="matched noise  log(σ/(1 − σ)) − ½ log(values / 1024)", xlim=(4.5, -8.5))
    left.legend(loc="lower right", fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 1.02)
    figure.savefig(path, dpi=110)


def _coordinate(sigma: float, values: float) -> float:
    return math.log(sigma / (1.0 - sigma)) - 0.5 * math.log(values / REFERENCE_VALUES)
