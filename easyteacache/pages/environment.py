"""Where templates are found and how they print: everything is escaped unless a template of this project says otherwise."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from easyteacache.pages import glossary, links
from easyteacache.pages.tiers import TIERS, tier_named

_HERE = Path(__file__).parent
_TEMPLATES = _HERE / "templates"
_ASSETS = _HERE / "assets"
#: The style and the script of every page.
ASSETS = ("pages.css", "pages.js")


def environment(*folders: Path) -> Environment:
    """The templates of ``folders`` and those that all pages share; what they print is escaped, an unknown name is an error."""
    found = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(number=number, factor=factor, quality=quality)
    found.globals.update(
        tiers=TIERS,
        tier_named=tier_named,
        glossary=glossary.MEANINGS,
        github=links.github,
        hub_repository=links.hub_repository,
        web=links.web,
        sources=links.sources,
        embedded=embedded,
    )
    return found


def asset(name: str) -> str:
    """The text of one of ``ASSETS``."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def inline(name: str) -> Markup:
    """An asset for a page that is one file: it is this project's own text and holds no end tag."""
    return Markup(asset(name))


def embedded(value: Any) -> Markup:
    """JSON that may stand between script tags: nothing in it ends the script, opens a comment or ends a line of it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without a power of ten where that is short; an en dash for None."""
    if value is None:
        return "–"
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f"{value:.{digits - 1}e}"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def factor(value: float | None) -> str:
    """A speed-up: ``1.81×``."""
    return "–" if value is None else f"{number(value)}×"


def quality(metric: str, value: float) -> str:
    """A figure in its metric's own way: relative errors as a share, decibels with their unit."""
    if metric == "relative-l2":
        return f"{number(100 * value)} %"
    return f"{number(value)} dB" if metric == "psnr" else number(value)


def listed(values: Sequence[str]) -> str:
    """``a, b and c``."""
    *first, last = values or ("",)
    return f"{', '.join(first)} and {last}" if first else last
