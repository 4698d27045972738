"""ComfyUI-LeMiCa: a list of computed steps as the node's source holds them.

The lists stand in ``get_Lemica_path`` of nodes.py, by model and budget, the budget being their length, 6 to 25; the step count stands in
``apply_lemica``. The node adds the last computed step's residual of the block stack, one for each branch
(scruffynerf/LeMiCa, ComfyUI-LeMiCa/nodes.py at b8f570ab5223).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, python_literal
from easyteacache.files import strict_json
from easyteacache.records.fields import MAX_STEPS

LISTS, STEPS, NODE = "CALC_DICT", "NUM_STEPS", "LEMICA_NODE"
LEAST, MOST = 6, 25


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """The list, the step count and the node's inputs."""
    assert numbers.schedule is not None
    name = numbers.record.model_key if model is None or model.name is None else model.name
    budget, steps = len(numbers.schedule), numbers.num_steps or numbers.schedule[-1] + 1
    inputs = {"model_type": name, "lemica_budget": budget}
    return (
        f"{header(numbers, remarks)}{STEPS} = {steps}\n{LISTS} = {python_literal({budget: list(numbers.schedule)})}\n"
        f"{NODE} = {python_literal(inputs)}\n"
    )


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """Lists stand in its source, and its counter counts calls."""
    if numbers.schedule is None:
        return
    budget, steps = len(numbers.schedule), numbers.num_steps or numbers.schedule[-1] + 1
    if not LEAST <= budget <= MOST:
        yield Deviation(
            "plan", True, f"The node's budget is {LEAST} to {MOST} computed steps; this plan computes {budget}."
        )
    yield Deviation(
        "steps",
        False,
        f"Three places of its source hold these numbers: put the list into get_Lemica_path, num_steps = {steps} into apply_lemica, and "
        f"{steps + 1} into the assertion on the entries of sample_sigmas. As published the node demands one entry fewer, runs a step "
        "less, and counts one call too many in every further run.",
    )
    told = (
        "Its counter counts calls of the model: both branches must come in one call, as they do unless memory is short."
    )
    if numbers.record.model_key.startswith("qwen-image"):
        told = (
            "For Qwen-Image its counter moves only at calls whose text has at most 50 tokens, which it takes for the negative prompt: "
            "where both branches come in one call, or the negative prompt is longer, every step is computed."
        )
    yield Deviation("branches", False, told)


def read(text: str, where: str) -> Iterator[Parsed]:
    """Every list, the one of the node's budget first."""
    content = files.python_values(text, where)
    lists = content.get(LISTS, content.get(LISTS.lower()))
    if not isinstance(lists, dict) or not lists:
        raise files.refuse(where, f"no dictionary {LISTS} of budgets and lists of steps")
    node = content.get(NODE)
    chosen = node.get("lemica_budget") if isinstance(node, dict) else None
    steps = files.whole(content, STEPS, where)
    for budget in sorted(lists, key=lambda each: (each != chosen, str(each))):
        computed = _steps(lists[budget], f"{LISTS}[{strict_json.shown(budget)}]", budget, steps, where)
        yield Parsed(
            label=str(budget) if len(lists) > 1 else None,
            schedule=computed,
            num_steps=steps,
            model_key=files.key_in(text),
        )


def _steps(listed: Any, name: str, budget: Any, steps: int | None, where: str) -> tuple[int, ...]:
    if not isinstance(listed, (list, tuple)) or not listed:
        raise files.refuse(where, f"{name} is {strict_json.shown(listed)}, expected a list of steps")
    for place, step in enumerate(listed):
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < (steps or MAX_STEPS):
            of = MAX_STEPS if steps is None else steps
            raise files.refuse(where, f"{name}[{place}] is {strict_json.shown(step)}, expected a step of {of}, from 0")
    if len(listed) != budget:
        raise files.refuse(where, f"{name} has {len(listed)} steps; the node expects as many as the budget says")
    if listed[0] != 0 or any(b <= a for a, b in pairwise(listed)):
        raise files.refuse(where, f"{name} must be strictly ascending from 0")
    return tuple(listed)
