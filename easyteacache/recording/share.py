"""Which of several processes this is, as ``torchrun`` and ``accelerate launch`` say it."""

from __future__ import annotations

import os
import re


def share_of_environment() -> tuple[int, int]:
    """This process's number, from 0, and how many there are: ``$RANK`` and ``$WORLD_SIZE``; (0, 1) where neither is set.

    Raises:
        ValueError: they are no whole numbers with 0 ≤ RANK < WORLD_SIZE; a part of the runs would be nobody's.
    """
    rank, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    numbers = [int(one) if re.fullmatch(r"[0-9]{1,9}", one.strip()) else -1 for one in (rank, count)]
    if not 0 <= numbers[0] < numbers[1]:
        raise ValueError(
            f"RANK={rank[:40]} and WORLD_SIZE={count[:40]} in the environment name no share of the runs: expected whole numbers, "
            "RANK below WORLD_SIZE; unset both for one process"
        )
    return numbers[0], numbers[1]
