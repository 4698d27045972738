"""MeanCache (arXiv 2601.19961; UnicomAI/MeanCache): forecasts of the mean velocity over a step, on the guided output.

With noise levels σ and a span S,

    v̂_j = v_{j−1} − J (σ_{j+1} − σ_j),
    J = (v_{j−S} − u) / (σ_j − σ_{j−S}),  u = Σ_{m=j−S}^{j−1} v_m (σ_{m+1} − σ_m) / (σ_j − σ_{j−S}),

where v_m may itself be a forecast. S = 1 gives J = 0: the last velocity again. The published code takes u from the latents, which is
the same for a sampler that adds (σ_{m+1} − σ_m) · v_m and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from easyteacache.errors import InvalidPlan
from easyteacache.policy.methods.rows import Rows, Weights, combined, expect_levels, unrolled


def meancache_rows(
    computed: Sequence[int], num_steps: int, levels: Sequence[float], spans: int | Mapping[int, int]
) -> Rows:
    """MeanCache's rows over the noise levels of a run.

    Args:
        computed: the computed steps, ascending, the first of them 0.
        num_steps: S.
        levels: (S + 1,) noise levels, falling, the sample's last.
        spans: one span for all reused steps, or reused step → its span; 0 and 1 both hold.

    Raises:
        InvalidPlan: steps, levels or spans contradict each other.
    """
    expect_levels(levels, num_steps)

    def fill(step: int, known: Sequence[Weights]) -> Weights:
        span = spans if isinstance(spans, int) else spans.get(step)
        if span is None:
            raise InvalidPlan(f"no span is given for step {step}, which is reused")
        return meancache_step(step, known, levels, span)

    return unrolled(computed, num_steps, fill)


def spans_of_edges(computed: Sequence[int], edges: Sequence[int]) -> dict[int, int]:
    """Reused step → span, from one span for every edge between two computed steps, as the published lists give them.

    Raises:
        InvalidPlan: not one span an edge.
    """
    if len(edges) != len(computed) - 1:
        raise InvalidPlan(
            f"{len(edges)} spans for {len(computed)} computed steps; expected {len(computed) - 1}, one an edge"
        )
    return {
        step: span
        for before, after, span in zip(computed, computed[1:], edges, strict=False)
        for step in range(before + 1, after)
    }


def meancache_step(step: int, known: Sequence[Weights], levels: Sequence[float], span: int) -> Weights:
    """Weights of reused ``step`` from those of all steps before it."""
    # Early in a run there are fewer steps than the span: the published code takes those there are.
    reach = min(span, step)
    if reach < 2:
        return known[step - 1]
    width = levels[step] - levels[step - reach]
    slope = (levels[step + 1] - levels[step]) / width
    terms = [(1.0, known[step - 1]), (-slope, known[step - reach])]
    terms += [(slope * (levels[m + 1] - levels[m]) / width, known[m]) for m in range(step - reach, step)]
    return combined(terms)
