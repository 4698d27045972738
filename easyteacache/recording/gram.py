"""Gram matrices of recorded rows: inner products in double precision, and those of the guided combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from easyteacache.records.trace import CROSS, GUIDED, Array
from easyteacache.runtime.tensor_math import Reduce

# Elements of each row turned to float64 at once.
PRODUCTS_AT_ONCE = 16_384


def inner_products(rows: Sequence[Tensor], *, reduce: Reduce | None = None) -> Array:
    """All inner products of equally long 1-D rows, (n, n), symmetric.

    Summed in double precision whatever the rows' dtype: what is read from them later are small differences.

    Args:
        rows: n tensors of one length, dtype and device.
        reduce: adds the matrix up over the processes that each hold a share of every row.
    """
    device = rows[0].device if rows[0].device.type != "mps" else torch.device("cpu")
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=device)
    for first in range(0, rows[0].numel(), PRODUCTS_AT_ONCE):
        piece = torch.stack([row[first : first + PRODUCTS_AT_ONCE] for row in rows]).to(device, torch.float64)
        total.addmm_(piece, piece.T)
    products: Array = (reduce(total) if reduce is not None else total).cpu().numpy()
    return np.asarray((products + products.T) / 2)


def of_branches(products: Array, branches: Sequence[str], *, guidance_scale: float | None) -> dict[str, Array]:
    """Cut the inner products of all branches' rows, one branch after the other, into one Gram per branch and per pair of branches.

    Of two branches ``a*b`` holds the inner products of a's rows with b's, a the one that comes first. With branches ``cond`` and
    ``uncond`` and a guidance scale g also ``guided``, that of v_uncond + g (v_cond − v_uncond) (arXiv 2207.12598).

    Args:
        products: (n · S, n · S) for n branches of S steps.
        branches: their n names in the same order.
        guidance_scale: g, or None.
    """
    blocks = {
        (first, second): block
        for first, row in zip(branches, np.split(products, len(branches), axis=0), strict=True)
        for second, block in zip(branches, np.split(row, len(branches), axis=1), strict=True)
    }
    grams = {branch: blocks[branch, branch] for branch in branches}
    grams |= {CROSS.join(pair): blocks[pair] for pair in combinations(branches, 2)}
    if guidance_scale is not None and {"cond", "uncond"} <= set(branches):
        grams[GUIDED] = _combined(blocks, {"cond": guidance_scale, "uncond": 1.0 - guidance_scale})
    return grams


def _combined(blocks: Mapping[tuple[str, str], Array], weights: Mapping[str, float]) -> Array:
    total = sum(weights[a] * weights[b] * blocks[a, b] for a in weights for b in weights)
    matrix = np.asarray(total)
    return np.asarray((matrix + matrix.T) / 2)
