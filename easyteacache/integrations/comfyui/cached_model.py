"""What the node EasyTeaCache does: find the model's key, put the wrappers on, say what is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from easyteacache.errors import EasyTeaCacheError
from easyteacache.integrations.comfyui import model_facts, model_keys, status
from easyteacache.integrations.comfyui.report import RunReport
from easyteacache.integrations.comfyui.wrappers import ModelWrappers
from easyteacache.integrations.wish import PlanSource, Wish
from easyteacache.policy.model_choice import described
from easyteacache.policy.quality import NAMES, level
from easyteacache.policy.request import OUTPUTS, RunContext
from easyteacache.runtime.notices import logger

#: Stands for "read it off the configuration" where a node asks for a key.
AUTO = "auto"
#: Stands for "as many times fewer calls as ``speedup`` says" where a node asks for a quality.
BY_SPEEDUP = "by speed-up"
QUALITIES = (BY_SPEEDUP, *NAMES)

Show = Callable[[str], None]


def cached(
    model: Any,
    *,
    plan: PlanSource,
    model_key: str,
    speedup: float,
    quality: str = BY_SPEEDUP,
    show: Show = lambda _: None,
) -> tuple[Any, str]:
    """A clone of the model with the cache on it, and what is known before it runs.

    Args:
        model: ComfyUI's model patcher.
        plan: where the plan comes from.
        model_key: a key or an alias of the registry; ``auto`` reads it off the configuration.
        speedup: calls of the model divided by computed ones to reach, at least 1.
        quality: a level of ``policy/quality.py``, or what an engine calls it, in its place.
        show: shows a text on the node, before a run and after it.
    """
    key, told = found_key(model, model_key)
    wanted = None if quality == BY_SPEEDUP else level(quality).name
    wish = Wish(plan, key, speedup, unknown=None if key is not None else told, quality=wanted)
    heading = "\n".join([_asked(wish), *([told] if plan.startswith("registry") and not wish.exact else [])])
    wrappers = ModelWrappers(
        None if wish.exact else wish.session,
        report=lambda report: reported(report, show),
        heading=heading,
    )
    return wrappers.put_on(model), "\n".join([heading, *_expected(wish)])


def found_key(model: Any, model_key: str) -> tuple[str | None, str]:
    """The key to use and a sentence about it; None where there is none, and the sentence says why."""
    named = model_key.strip()
    if named and named != AUTO:
        return named, f"Model: {named}."
    config = model_facts.unet_config(model)
    meant = model_keys.meant_by(config)
    if meant is None:
        return None, model_keys.unknown(config, type(model.model.diffusion_model).__name__)
    others = (
        f" {' and '.join(meant.also)} {'have' if len(meant.also) > 1 else 'has'} the same: if it is one of them, write that into model_key."
        if meant.also
        else ""
    )
    return meant.key, f"Model: {meant.key}, by its configuration.{others}"


def reported(report: RunReport, show: Show) -> None:
    """A run begins or is over: the node, the log and the status file tell of it."""
    show(report.text)
    if report.over:
        logger.info("%s", report.text)
        status.write(report)


def _asked(wish: Wish) -> str:
    if wish.exact:
        return "Exact: every call of the model is computed."
    if wish.quality is not None:
        return f"Plan: {wish.source}, of {wish.quality} quality (error at most {level(wish.quality).most:g})."
    return f"Plan: {wish.source}, {wish.speedup:g} times fewer calls."


def _expected(wish: Wish) -> list[str]:
    """What the registry offers while nothing is known of the run."""
    if wish.exact:
        return []
    try:
        session = wish.session(RunContext(can=OUTPUTS))
    except EasyTeaCacheError as error:
        return [f"Nothing to go by yet: {error}"]
    return [f"Before a run, by the model alone: {described(session.policy)}."]
