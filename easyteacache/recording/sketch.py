"""Seeded linear sketches: a tensor of 10⁸ numbers becomes a short vector that keeps its inner products.

Every sketch here is linear, so the sketch of a residual is the sketch of the block-stack output minus the sketch of its
input (neither has to be kept), the sketch of a forecast is the forecast of sketches, and the sketches of shards add up.
Positions and signs follow from the seed and the position *in the whole tensor* by an integer hash (SplitMix64), so that
shards agree with each other and a release of numpy or torch changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Numbers cast to float32 at once: 4 MiB beside the model, whatever the tensor's size.
CAST_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Shard:
    """Which tokens of the whole sequence this process holds under sequence parallelism.

    Attributes:
        offset: position of the first token held here, 0 or more.
        total: tokens of the whole sequence.
    """

    offset: int
    total: int

    @staticmethod
    def even(rank: int, world_size: int) -> Callable[[int], Shard]:
        """Tokens in equal contiguous shares, as diffusers' context parallelism cuts them: from local length to shard."""
        return lambda length: Shard(rank * length, world_size * length)


class Sketch(Protocol):
    """A linear map to a short float32 vector that nearly keeps inner products."""

    def __call__(self, tensor: Tensor, shard: Shard | None = None) -> Tensor:
        """Sketch ``(B, L, …)``; with ``shard``, this process's share, to be added up over the processes."""
        ...

    def relative_error(self, rows: Tensor, *, shape: tuple[int, int, int]) -> float:
        """Standard deviation of an error norm, relative, given sketches ``(S, m)`` of S tensors of ``shape`` (B, L, D)."""
        ...


class CountSketch:
    """Every element is added, with a random sign, to one of ``dimension`` sums (Charikar, Chen, Farach-Colton 2002).

    The flattened tensor is cut into runs of ``dimension`` elements; each run is rotated by a random offset, multiplied by a
    randomly rotated sequence of random signs, and added. No scatter is needed, so the result does not depend on the order
    of atomic additions. A tensor of at most ``dimension`` elements keeps its inner products exactly.

    Args:
        dimension: length m of the sketch, 1 or more. Squared norms have a relative standard deviation of √(2/m), error
            norms of √(1/(2m)): 0.28 % at 65,536, 0.78 % at 8,192.
        seed: 0 or more.
    """

    def __init__(self, dimension: int, *, seed: int = 0) -> None:
        self.dimension, self.seed = dimension, seed
        signs = (_hash(np.arange(dimension), seed) & np.uint64(1)).astype(np.float32) * 2 - 1
        # Twice in a row: every rotation of the signs is then one slice.
        self._signs = torch.from_numpy(np.concatenate((signs, signs)))

    def relative_error(self, rows: Tensor, *, shape: tuple[int, int, int]) -> float:
        """√(1/(2m)), whatever the rows; 0 where nothing had to be added up."""
        return 0.0 if math.prod(shape) <= self.dimension else math.sqrt(0.5 / self.dimension)

    def __call__(self, tensor: Tensor, shard: Shard | None = None) -> Tensor:
        """``(dimension,)`` float32 on the tensor's device."""
        if self._signs.device != tensor.device:
            self._signs = self._signs.to(tensor.device)
        total = torch.zeros(self.dimension, dtype=torch.float32, device=tensor.device)
        for start, flat in _flat_pieces(tensor, shard):
            for first in range(0, flat.numel(), CAST_AT_ONCE):
                self._add(total, flat[first : first + CAST_AT_ONCE].float(), start + first)
        return total

    def _add(self, total: Tensor, values: Tensor, start: int) -> None:
        size = self.dimension
        done = 0
        while done < values.numel():
            run, begin = divmod(start + done, size)
            count = min(size - begin, values.numel() - done)
            rotation, sign_start = self._rotations(run)
            self._add_run(total, values[done : done + count], (begin + rotation) % size, sign_start + begin)
            done += count

    def _add_run(self, total: Tensor, values: Tensor, at: int, sign_start: int) -> None:
        signs = self._signs[sign_start % self.dimension :]
        head = min(values.numel(), self.dimension - at)
        total[at : at + head].addcmul_(values[:head], signs[:head])
        tail = values.numel() - head
        total[:tail].addcmul_(values[head:], signs[head : head + tail])

    def _rotations(self, run: int) -> tuple[int, int]:
        rotation, sign_start = _hash(np.array([2 * run, 2 * run + 1]), self.seed + 1) % np.uint64(self.dimension)
        return int(rotation), int(sign_start)


class TokenSketch:
    """A stratified random sample of whole tokens, scaled so that squared norms are right on average.

    Cheaper than a count-sketch (it reads only what it keeps) and less exact: its error depends on how evenly an error is
    spread over the tokens.

    Args:
        dimension: numbers to keep; ``dimension // channels`` tokens, one at least.
        seed: 0 or more.
    """

    def __init__(self, dimension: int, *, seed: int = 0) -> None:
        self.dimension, self.seed = dimension, seed
        self._chosen: dict[tuple[int, int, Shard], Tensor] = {}

    def __call__(self, tensor: Tensor, shard: Shard | None = None) -> Tensor:
        """``(tokens · channels,)`` float32 on the tensor's device; zero at tokens that other shards hold."""
        tokens = as_tokens(tensor)
        batch, length, channels = tokens.shape
        whole = shard or Shard(0, length)
        chosen = self._tokens(batch, channels, whole)
        here = chosen % whole.total - whole.offset
        held = (here >= 0) & (here < length)
        rows = (chosen // whole.total)[held] * length + here[held]
        kept = torch.zeros(len(chosen), channels, dtype=torch.float32, device=tensor.device)
        kept[held.to(tensor.device)] = tokens.reshape(-1, channels)[rows.to(tensor.device)].float()
        return (kept * math.sqrt(batch * whole.total / len(chosen))).flatten()

    def relative_error(self, rows: Tensor, *, shape: tuple[int, int, int]) -> float:
        """Estimated from how unevenly errors are spread over the sampled tokens; where a few tokens move, it is too low."""
        count = rows.shape[1] // shape[2]
        if count < 2:
            return 1.0
        unseen = max(0.0, 1.0 - rows.shape[1] / math.prod(shape))
        # First differences are what holding the residual gets wrong one step on, second ones what a linear forecast does.
        orders = range(1, min(3, len(rows)))
        spread = max(_unevenness(rows.diff(n=order, dim=0), count) for order in orders)
        return 0.5 * spread * math.sqrt(unseen / count)

    def _tokens(self, batch: int, channels: int, whole: Shard) -> Tensor:
        key = (batch, channels, whole)
        if key not in self._chosen:
            count = min(max(1, self.dimension // channels), batch * whole.total)
            self._chosen[key] = torch.from_numpy(_stratified(count, batch * whole.total, self.seed))
        return self._chosen[key]


def _unevenness(errors: Tensor, tokens: int) -> float:
    """Root mean square over rows of std / mean of the squared norms of their ``tokens`` equal parts."""
    energy = errors.view(len(errors), tokens, -1).square().sum(2)
    spread = energy.std(dim=1) / energy.mean(dim=1).clamp_min(torch.finfo(energy.dtype).tiny)
    return float(spread.square().mean().sqrt())


class Sample:
    """A fixed sample of single elements for distances that are not linear, such as mean absolute change.

    Every channel is drawn equally often (a few channels of a diffusion transformer can hold most of the magnitude), tokens
    are stratified. A tensor of at most ``size`` elements is taken whole.

    Args:
        size: elements to keep, 1 or more.
        seed: 0 or more.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        self._positions: dict[tuple[tuple[int, ...], Shard, torch.device], Tensor] = {}

    def __call__(self, tensor: Tensor, shard: Shard | None = None) -> Tensor:
        """1-D, in the tensor's own dtype, a copy; with ``shard``, the sampled elements that are held here."""
        if tensor.dim() < 3:
            return tensor.detach().flatten().clone()
        tokens = as_tokens(tensor)
        whole = shard or Shard(0, tokens.shape[1])
        if tensor.numel() // tokens.shape[1] * whole.total <= self.size:
            return tensor.detach().flatten().clone()
        key = (tuple(tokens.shape), whole, tensor.device)
        if key not in self._positions:
            positions = _sample_positions(key[0], whole, self.size, self.seed)
            self._positions[key] = torch.from_numpy(positions).to(tensor.device)
        return tokens.detach().reshape(-1)[self._positions[key]]


def as_tokens(tensor: Tensor) -> Tensor:
    """``(B, L, D)``: as it is, or from a latent ``(B, C, …)`` with one token per position."""
    return tensor if tensor.dim() == 3 else tensor.flatten(2).transpose(1, 2)


def _flat_pieces(tensor: Tensor, shard: Shard | None) -> Iterator[tuple[int, Tensor]]:
    tensor = tensor.detach()
    if shard is None:
        yield 0, tensor.reshape(-1)
        return
    per_token = tensor[0, 0].numel()
    for sample, values in enumerate(tensor):
        yield (sample * shard.total + shard.offset) * per_token, values.reshape(-1)


def _sample_positions(shape: tuple[int, ...], whole: Shard, size: int, seed: int) -> NDArray[np.int64]:
    batch, length, channels = shape
    size = min(size, batch * whole.total * channels)
    order: NDArray[np.int64] = np.argsort(_hash(np.arange(channels), seed + 2))
    tokens = _stratified(size, batch * whole.total, seed)
    here = tokens % whole.total - whole.offset
    held = (here >= 0) & (here < length)
    rows = (tokens // whole.total) * length + here
    positions = rows * channels + order[np.arange(size) % channels]
    return positions[held]


def _stratified(count: int, total: int, seed: int) -> NDArray[np.int64]:
    """``count`` positions of ``range(total)``, one at random in each of as many equal strata."""
    share = (_hash(np.arange(count), seed + 3) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return np.asarray(np.minimum((np.arange(count) + share) * (total / count), total - 1), dtype=np.int64)


def _hash(positions: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014): 64 well-mixed bits per position, the same everywhere."""
    z = positions.astype(np.uint64) + np.uint64((seed * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) % 2**64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
