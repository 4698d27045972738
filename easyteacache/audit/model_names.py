"""Which model a name speaks of: `FluxTransformer2DModel`, `wan2.1_i2v_480p_14B` or `pipeline_flux.py` → family and variant.

Only for reading other people's files, where a list of coefficients stands near some name. Nothing is ever resolved by it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# A name that several families share counts as any of them. Tried in order; what one pattern matches, later ones do not see.
_FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"tango ?flux", ("TangoFlux",)),
    (r"\bflux(?![a-z])", ("FLUX",)),
    (r"\bchroma(?![a-z])", ("Chroma",)),
    (r"consis ?id", ("ConsisID",)),
    (r"cog ?video", ("CogVideoX",)),
    (r"sky ?reels", ("SkyReels",)),
    (r"multi ?talk", ("MultiTalk",)),
    (r"\bwan(?:x|video)?(?![a-z])", ("Wan",)),
    (r"frame ?pack", ("FramePack",)),
    (r"hunyuan ?image", ("HunyuanImage",)),
    (r"hunyuan ?video", ("HunyuanVideo",)),
    (r"hunyuan", ("HunyuanVideo", "HunyuanImage")),
    (r"lumina ?next|lumina ?t2x", ("Lumina-Next",)),
    (r"lumina ?(?:image ?)?2", ("Lumina-Image-2.0",)),
    (r"lumina", ("Lumina-Next", "Lumina-Image-2.0")),
    (r"open ?sora ?plan", ("Open-Sora-Plan",)),
    (r"open ?sora", ("Open-Sora",)),
    (r"easy ?animate", ("EasyAnimate",)),
    (r"\bltx ?2(?!\d)", ("LTX-2",)),
    (r"\bltx(?:v(?![a-z])| ?video|(?![a-z]))", ("LTX-Video",)),
    (r"cosmos", ("Cosmos",)),
    (r"mochi", ("Mochi",)),
    (r"hidream", ("HiDream",)),
    (r"\blatte(?![a-z])", ("Latte",)),
    (r"\bruyi(?![a-z])", ("Ruyi",)),
    (r"omni ?gen(?: ?2)?", ("OmniGen2",)),
    (r"\bboogu", ("Boogu",)),
    (r"qwen ?(?:image)?", ("Qwen-Image",)),
    (r"\bz ?image", ("Z-Image",)),
    (r"\bbagel(?![a-z])", ("BAGEL",)),
    (r"sensenova", ("SenseNova",)),
    (r"stable ?audio", ("Stable Audio",)),
    (r"long ?cat", ("LongCat",)),
    (r"mini ?max", ("MiniMax",)),
    (r"\bsdxl(?![a-z])|noob ?ai", ("SDXL",)),
    (r"\banima(?![a-z])", ("Anima",)),
    (r"new ?bie", ("NewBie",)),
)
# FluxTransformer, ZImage and Cache4Wan are words without spaces between them.
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=[A-Z][a-z])")
_COMPILED = tuple((re.compile(pattern), families) for pattern, families in _FAMILIES)

# What sets the variants of a family apart: dimension → pattern whose first group is the value. Read from the lower-case name.
_TASK = r"(?<![a-z])(t2v|i2v|ti2v|s2v)(?![a-z])"
_SIZE = r"(?<![\d.])(?:a)?(\d+(?:[._]\d+)?)b(?![a-z0-9])"
_RESOLUTION = r"(?<!\d)(480|540|720|1080)p?(?!\d)"
_VARIANTS: dict[str, dict[str, str]] = {
    "FLUX": {
        "version": r"flux[ ._-]?([12])(?!\d)",
        "edition": r"(?<![a-z])(kontext|krea|klein|schnell|fill|redux|(?<!kontext[._-])(?<!krea[._-])dev)(?![a-z])",
    },
    "Wan": {
        "version": r"(?:wan(?:video)?[ ._-]?|_)(2[._]?[12])(?!\d)",
        "task": _TASK,
        "size": _SIZE,
        "resolution": _RESOLUTION,
    },
    "HunyuanVideo": {
        "version": r"(?:hunyuan[ _-]?video|[ _-])[ _-]?(1[._]?5)(?!\d)",
        "task": _TASK,
        "resolution": _RESOLUTION,
    },
    "CogVideoX": {"version": r"cog[ _-]?video ?x?[ _-]?(1[._]?5)(?!\d)", "size": _SIZE},
    "Cosmos": {"version": r"(?:predict|cosmos)[ _-]?(\d(?:\.\d)?)(?!\d)"},
    "HiDream": {"edition": r"(?<![a-z])(full|fast|dev)(?![a-z])"},
    "EasyAnimate": {"version": r"v(5(?:\.1)?)(?!\d)", "size": _SIZE},
    "Qwen-Image": {"edition": r"(?<![a-z0-9])(2512|edit|layered)(?![a-z0-9])"},
    "Z-Image": {"edition": r"(?<![a-z])(turbo)(?![a-z])"},
}
# Values a record has although its key does not spell them: the first of its family, the plain edition.
_IMPLIED: dict[str, dict[str, str]] = {
    "HunyuanVideo": {"version": "1"},
    "CogVideoX": {"version": "1"},
    "Qwen-Image": {"edition": "plain"},
    "Z-Image": {"edition": "base"},
}


@dataclass(frozen=True)
class ModelName:
    """What a name, or several for one model, says.

    Attributes:
        families: the families it can mean; empty when it names none.
        variant: dimension (``task``, ``size`` …) → the values it can mean.
    """

    families: frozenset[str]
    variant: dict[str, frozenset[str]] = field(default_factory=dict)


@functools.lru_cache(maxsize=4096)
def families_in(name: str) -> frozenset[str]:
    """The model families a name mentions; a shared word counts for all that share it."""
    words = re.sub(r"[^A-Za-z0-9]+", " ", _CAMEL.sub(" ", name)).lower()
    found: set[str] = set()
    for pattern, families in _COMPILED:
        words, count = pattern.subn(" ", words)
        if count:
            found.update(families)
    return frozenset(found)


def variants_in(name: str, family: str) -> dict[str, frozenset[str]]:
    """What a name says about the variant of ``family``: dimension → values it can mean."""
    lower = _CAMEL.sub(" ", name).lower()
    found = {}
    for dimension, pattern in _VARIANTS.get(family, {}).items():
        values = {reading for match in re.finditer(pattern, lower) for reading in _readings(dimension, match[1])}
        if values:
            found[dimension] = frozenset(values)
    return found


def _readings(dimension: str, value: str) -> tuple[str, ...]:
    plain = value.replace("_", ".")
    if dimension == "version" and len(plain) == 2 and plain.isdigit():
        return (f"{plain[0]}.{plain[1]}",)
    if dimension == "size" and "." in plain:
        # "t2v_1_3b" is 1.3b, "flux_2_4b" is 4b: both readings are kept.
        return (plain, plain.rpartition(".")[2])
    return (plain,)


def describe(names: Iterable[str]) -> ModelName:
    """One model from all its names: key, title, repositories."""
    names = list(names)
    families = frozenset().union(*(families_in(name) for name in names)) if names else frozenset()
    variant: dict[str, frozenset[str]] = {}
    for family in families:
        for name in names:
            for dimension, values in variants_in(name, family).items():
                variant[dimension] = variant.get(dimension, frozenset()) | values
        for dimension, value in _IMPLIED.get(family, {}).items():
            variant.setdefault(dimension, frozenset({value}))
    return ModelName(families, variant)
