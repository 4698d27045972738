"""stable-diffusion.cpp: options of ``sd-cli``.

``--scm-mask`` takes a comma-separated list of 0 and 1, ``--scm-policy static`` is documented to reuse every 0. At the commit read here
neither is looked at when a step is decided: the state that samples, ``CacheDitConditionState``, compares a threshold with how far the
latent moved, between 15 % and 95 % of the run, whatever the mask says, and adds what the whole model added to the latent; the state that
follows the mask, ``CacheDitState``, is used nowhere (leejet/stable-diffusion.cpp at 97d2990807fe, docs/caching.md, src/runtime/cache_dit.hpp:558
and :680, src/runtime/sample-cache.h:29).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from easyteacache.export import dbcache, step_masks
from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header

MODES = ("dbcache", "cache-dit")


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """One line of options."""
    mask = dbcache.mask_of(numbers)
    line = (
        f'--steps {len(mask)} --cache-mode dbcache --cache-option "Fn=1,Bn=0,warmup=1" '
        f'--scm-mask "{",".join(map(str, mask))}" --scm-policy static'
    )
    return f"{header(numbers, remarks)}{line}\n"


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """It takes a mask and does not follow it."""
    yield Deviation(
        "mask",
        True,
        "stable-diffusion.cpp reads the mask and the policy and decides without them, by a threshold on how far the latent moved "
        "(CacheDitConditionState in src/runtime/cache_dit.hpp at 97d2990807fe): it would compute other steps. With permission the "
        "options are written as its page documents them.",
    )


def read(text: str, where: str) -> Iterator[Parsed]:
    """The mask among a command's options."""
    if len(text) > files.MAX_BYTES:
        raise files.refuse(where, f"{len(text)} characters, at most {files.MAX_BYTES} are read")
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise files.refuse(where, f"not a command line: {error}") from error
    options = dict(_options(words, where))
    if "--scm-mask" not in options:
        raise files.refuse(where, "no option --scm-mask")
    mode = options.get("--cache-mode")
    if mode not in MODES:
        raise files.refuse(
            where, f"--cache-mode is {mode!r}, expected {' or '.join(MODES)}: no other mode takes a mask"
        )
    policy = options.get("--scm-policy", "dynamic")
    if policy != "static":
        raise files.refuse(
            where, f"--scm-policy is {policy!r}: only 'static' fixes the steps, otherwise they are decided in the run"
        )
    entries = options["--scm-mask"].split(",")
    mask = [{"0": 0, "1": 1}.get(entry.strip(), entry) for entry in entries]
    computed = step_masks.computed_of(mask, "--scm-mask", where)
    steps = options.get("--steps")
    if steps is not None and steps != str(len(mask)):
        raise files.refuse(where, f"--scm-mask has {len(mask)} entries for --steps {steps}; expected one a step")
    yield Parsed(schedule=computed, num_steps=len(mask), model_key=files.key_in(text))


def _options(words: Sequence[str], where: str) -> Iterator[tuple[str, str]]:
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name not in ("--scm-mask", "--scm-policy", "--cache-mode", "--steps"):
            continue
        if equals:
            yield name, value
        elif place + 1 < len(words):
            yield name, words[place + 1]
        else:
            raise files.refuse(where, f"{name} has no value")
