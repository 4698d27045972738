"""Prompts of the reference model: a digit, optionally with the direction of its first movement.

The "text encoder" is a frozen random table, so a prompt is four tokens: digit, direction, and two pads.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from easyteacache.errors import ReferenceModelError

DIRECTIONS: dict[str, tuple[int, int]] = {
    "right": (1, 0),
    "down-right": (1, 1),
    "down": (0, 1),
    "down-left": (-1, 1),
    "left": (-1, 0),
    "up-left": (-1, -1),
    "up": (0, -1),
    "up-right": (1, -1),
}
DIGITS = 10
TEXT_TOKENS = 4
TEXT_DIM = 64
NULL_DIGIT = DIGITS
NULL_DIRECTION = len(DIRECTIONS)
_TABLE_SEED = 20_250_801


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a video shows; `direction` indexes `DIRECTIONS` and is None where any will do."""

    digit: int
    direction: int | None = None


def parse_prompt(prompt: int | str) -> Prompt:
    """Read `7`, `"7"` or `"7 down-left"`.

    Raises:
        ReferenceModelError: the text is not a digit followed by at most one known direction.
    """
    digit, *rest = str(prompt).split() or [""]
    if not (digit.isdecimal() and int(digit) < DIGITS) or len(rest) > 1:
        raise _unreadable(prompt)
    if not rest:
        return Prompt(int(digit))
    names = list(DIRECTIONS)
    if rest[0] not in names:
        raise _unreadable(prompt)
    return Prompt(int(digit), names.index(rest[0]))


def _unreadable(prompt: int | str) -> ReferenceModelError:
    return ReferenceModelError(
        f"a prompt is a digit 0..9, optionally followed by one of {', '.join(DIRECTIONS)} "
        f"(for example '7 down-left'); found {prompt!r}"
    )


@functools.cache
def _table() -> Tensor:
    """The frozen embedding of digits, directions, their null forms and the two pads, (21, 64)."""
    generator = torch.Generator().manual_seed(_TABLE_SEED)
    rows = DIGITS + 1 + len(DIRECTIONS) + 1 + TEXT_TOKENS - 2
    return torch.randn(rows, TEXT_DIM, generator=generator)


def embed(digits: Tensor, directions: Tensor) -> Tensor:
    """Embed prompts given by index, (B,) each, `NULL_DIGIT` and `NULL_DIRECTION` included.

    Returns:
        (B, 4, 64) float32 text embeddings.
    """
    table = _table()
    pads = table[-(TEXT_TOKENS - 2) :].expand(len(digits), -1, -1)
    return torch.cat((table[digits][:, None], table[DIGITS + 1 + directions][:, None], pads), 1)


def embed_prompts(prompts: Sequence[Prompt]) -> Tensor:
    """Embed prompts, (B, 4, 64)."""
    digits = torch.tensor([prompt.digit for prompt in prompts])
    directions = [NULL_DIRECTION if p.direction is None else p.direction for p in prompts]
    return embed(digits, torch.tensor(directions))


def embed_null(batch: int) -> Tensor:
    """Embed the empty prompt of classifier-free guidance, (B, 4, 64)."""
    return embed(torch.full((batch,), NULL_DIGIT), torch.full((batch,), NULL_DIRECTION))
