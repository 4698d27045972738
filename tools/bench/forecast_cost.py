"""What adding up a forecast costs and loses: single-precision sums against rounding every term, one CPU thread.

    python tools/bench/forecast_cost.py
    python tools/bench/forecast_cost.py --tokens 32760 --channels 5120

A reused step is filled with Σ w_k r_k. In bfloat16 the plain way rounds after every term; the runtime adds up in float32 and rounds
once. The error is relative to the sum in float64; both ways take turns, and the fastest of each counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import torch

from easyteacache.cli import text
from easyteacache.runtime.branch_state import weighted_sum
from easyteacache.runtime.predictors import predictor

FORECASTERS = ("hold", "linear", "quadratic", "cubic", "foca")
# The anchors' gaps and the distance to the reused step of a plan at about 3x.
ANCHORS, AT = (0.0, 3.0, 6.0, 9.0), 11.0


@click.command(help=__doc__)
@click.option("--tokens", default=4096, show_default=True, type=click.IntRange(1))
@click.option("--channels", default=1536, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Print JSON: forecaster, weights, errors, milliseconds, ratio.")
def main(tokens: int, channels: int, rounds: int, as_json: bool) -> None:
    """Entry point."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Residuals of one run resemble each other: a common part, and a change a tenth of its size from anchor to anchor.
    base = torch.randn(1, tokens, channels)
    drift, bend = torch.randn(2, 1, tokens, channels)
    residuals = [(base + 0.03 * a * drift + 0.001 * a * a * bend).bfloat16() for a in ANCHORS]
    rows = [measured(name, residuals, rounds) for name in FORECASTERS]
    if as_json:
        text.echo_json(rows)
        return
    columns = [text.Column("FORECASTER"), text.Column("TERMS", "right"), text.Column("ERROR, ROUNDED EACH", "right")]
    columns += [text.Column("ERROR, SINGLE", "right"), text.Column("MS", "right"), text.Column("TIME RATIO", "right")]
    cells = [
        (
            r["forecaster"],
            r["terms"],
            f"{r['rounded']:.1e}",
            f"{r['single']:.1e}",
            f"{r['ms']:.1f}",
            f"{r['ratio']:.2f}",
        )
        for r in rows
    ]
    click.echo(text.table(columns, cells))


def measured(name: str, residuals: list[torch.Tensor], rounds: int) -> dict[str, object]:
    """Errors and times of one forecaster."""
    chosen = predictor(name)
    anchors = ANCHORS[-chosen.history :]
    weights = chosen.weights(anchors, AT)
    terms = [(w, r) for w, r in zip(weights, residuals[-len(anchors) :], strict=True) if w]
    exact = sum(w * r.double() for w, r in terms)
    assert isinstance(exact, torch.Tensor)
    found = {
        way: float((add(terms).double() - exact).norm() / exact.norm())
        for way, add in (("rounded", rounded_each), ("single", weighted_sum))
    }
    times: dict[str, list[float]] = {"rounded": [], "single": []}
    for _ in range(rounds):
        for way, add in (("rounded", rounded_each), ("single", weighted_sum)):
            times[way].append(_timed(add, terms))
    fastest = {way: min(values) for way, values in times.items()}
    ratio = fastest["single"] / max(fastest["rounded"], 1e-9)
    return {"forecaster": name, "terms": len(terms), **found, "ms": 1000 * fastest["single"], "ratio": ratio}


def rounded_each(terms: list[tuple[float, torch.Tensor]]) -> torch.Tensor:
    """The plain way: every term is added in the residuals' own number type."""
    total = terms[0][1] * terms[0][0]
    for weight, tensor in terms[1:]:
        total.add_(tensor, alpha=weight)
    return total


def _timed(
    add: Callable[[list[tuple[float, torch.Tensor]]], torch.Tensor], terms: list[tuple[float, torch.Tensor]]
) -> float:
    start = time.perf_counter()
    add(terms)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
