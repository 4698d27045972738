"""A badge for a model's README: its speed-up and the evidence for it, as an SVG of its own."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from easyteacache.catalogue.models import Model
from easyteacache.pages.environment import factor

#: Tier → colour of the right half; white letters stand on each with a contrast above 4.5.
COLOURS: Mapping[str, str] = {
    "verified": "#07724a",
    "submitted": "#1457b8",
    "reported": "#a04a00",
    "published": "#5a6573",
    "unstated": "#5a6573",
}
_NAME = "EasyTeaCache"
_HEIGHT = 20
_LETTER = 6.6
_ROOM = 12


def message(model: Model) -> str:
    """What the badge says: the largest speed-up and the strongest evidence for a speed-up; that nobody says one."""
    rated = [one for one in model.settings if one.speed is not None]
    if not rated:
        return "listed"
    best = max(rated, key=lambda one: one.tier.rank).tier
    speed = max(one.speed or 0 for one in rated if one.tier is best)
    return f"up to {factor(speed)} {best.name}" if best.rank else f"up to {factor(speed)}"


def colour(model: Model) -> str:
    """Its colour, that of the tier."""
    return COLOURS[model.tier.name]


def svg(model: Model) -> str:
    """The badge; letters as text, so that it is read aloud and scales."""
    said = message(model)
    left, right = (round(_LETTER * len(text) + 2 * _ROOM / 2 + 4) for text in (_NAME, said))
    label = escape(f"{_NAME}: {said}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{_HEIGHT}" role="img" aria-label="{label}">',
        f"<title>{label}</title>",
        f'<rect width="{left + right}" height="{_HEIGHT}" rx="3" fill="{colour(model)}"/>',
        f'<path d="M3 0h{left - 3}v{_HEIGHT}H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#2b333d"/>',
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">',
        f'<text x="{left / 2:g}" y="14" textLength="{left - _ROOM}">{_NAME}</text>',
        f'<text x="{left + right / 2:g}" y="14" textLength="{right - _ROOM}">{escape(said)}</text>',
        "</g></svg>",
    ]
    return "".join(parts) + "\n"


def endpoint(model: Model) -> Mapping[str, Any]:
    """The same as data, in the form that shields.io asks endpoints for."""
    return {"schemaVersion": 1, "label": _NAME, "message": message(model), "color": colour(model).lstrip("#")}
