"""SGLang diffusion with cache-dit: environment variables of the server, one a line.

The mask goes in as bins, ``SGLANG_CACHE_DIT_SCM_COMPUTE_BINS`` and ``…_CACHE_BINS``, both or neither, with the policy ``static``;
SGLang cuts them to the steps of a request, and a mistyped bin only warns and leaves the cache to its threshold. Warm-up, limit and
blocks are variables of their own, whose defaults would decide beside a dynamic mask (sgl-project/sglang release 0.5.23,
python/sglang/multimodal_gen/envs.py, runtime/pipelines_core/stages/denoising.py and runtime/cache/cache_dit_integration.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easyteacache.export import dbcache, presets, step_masks
from easyteacache.export import parsed as files
from easyteacache.export.deviations import Deviation
from easyteacache.export.engine import CachedModels
from easyteacache.export.numbers import Numbers
from easyteacache.export.parsed import Parsed
from easyteacache.export.spelling import header, yaml_scalar

PREFIX = "SGLANG_CACHE_DIT_"
#: cache-dit's name of a setting → the end of the variable's.
VARIABLES = {
    "Fn_compute_blocks": "FN",
    "Bn_compute_blocks": "BN",
    "max_warmup_steps": "WARMUP",
    "residual_diff_threshold": "RDT",
    "max_continuous_cached_steps": "MC",
    "enable_taylorseer": "TAYLORSEER",
    "taylorseer_order": "TS_ORDER",
}
HIGHEST_ORDER = 2
# Part of the keys of models whose two experts take turns within a run.
TWO_EXPERTS = "a14b"
_WHOLE = (
    "Fn_compute_blocks",
    "Bn_compute_blocks",
    "max_warmup_steps",
    "max_continuous_cached_steps",
    "taylorseer_order",
)


def write(numbers: Numbers, model: CachedModels | None, others: Mapping[str, Numbers], remarks: Sequence[str]) -> str:
    """Lines of NAME=value, which a shell and container tools read alike."""
    given: dict[str, Any] = {"ENABLED": True}
    if numbers.preset is not None:
        told = presets.settings("sglang-cache-dit", numbers.preset)
        given |= {VARIABLES[name]: value for name, value in told.items()}
    else:
        compute, cache = step_masks.bins_of(dbcache.mask_of(numbers))
        told = {**dbcache.BY_MASK, **dbcache.filling(numbers)}
        given |= {VARIABLES[name]: value for name, value in told.items()}
        given |= {
            "SCM_COMPUTE_BINS": ",".join(map(str, compute)),
            "SCM_CACHE_BINS": ",".join(map(str, cache)),
            "SCM_POLICY": "static",
        }
    lines = "".join(f"{PREFIX}{name}={yaml_scalar(value)}\n" for name, value in given.items())
    return header(numbers, remarks) + lines


def deviations(numbers: Numbers) -> Iterator[Deviation]:
    """What DBCache does otherwise, and what bins cannot say."""
    yield from dbcache.deviations(numbers, "SGLang", highest=HIGHEST_ORDER)
    yield from of_bins(numbers)


def of_bins(numbers: Numbers) -> Iterator[Deviation]:
    """What bins cannot say to SGLang."""
    if numbers.schedule is None:
        return
    if all(dbcache.mask_of(numbers)):
        yield Deviation(
            "plan",
            True,
            "The plan computes every step: bins without a reused one are no mask to SGLang, and its threshold would decide.",
        )
    if TWO_EXPERTS in numbers.record.model_key:
        yield Deviation(
            "mask",
            True,
            "SGLang gives one list of bins to both experts, each counting from its own first step; a plan counts the run's.",
        )


def read(text: str, where: str) -> Iterator[Parsed]:
    """The bins, or the settings where there are none."""
    given = _variables(text, where)
    settings = {
        name: _value(name, given[PREFIX + end], where) for name, end in VARIABLES.items() if PREFIX + end in given
    }
    texts = {f"{PREFIX}SCM_{which}_BINS": given.get(f"{PREFIX}SCM_{which}_BINS", "") for which in ("COMPUTE", "CACHE")}
    if all(texts.values()):
        compute, cache = (step_masks.bin_list(_numbers(told, name, where), name, where) for name, told in texts.items())
        settings["steps_computation_mask"] = step_masks.mask_of_bins(compute, cache, where)
        settings["steps_computation_policy"] = given.get(f"{PREFIX}SCM_POLICY", "dynamic")
    elif any(texts.values()):
        raise files.refuse(where, f"{PREFIX}SCM_COMPUTE_BINS and _CACHE_BINS belong together; one of them is missing")
    elif given.get(f"{PREFIX}SCM_PRESET", "none") != "none":
        raise files.refuse(
            where, f"{PREFIX}SCM_PRESET names a policy, which stands for lists inside cache-dit; give bins instead"
        )
    yield dbcache.read(settings, "SGLang", where, model_key=files.key_in(text))


def _variables(text: str, where: str) -> dict[str, str]:
    """NAME=value of a shell text or a file of variables; nothing is run or expanded."""
    if len(text) > files.MAX_BYTES:
        raise files.refuse(where, f"{len(text)} characters, at most {files.MAX_BYTES} are read")
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise files.refuse(where, f"not lines of NAME=value: {error}") from error
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.startswith(PREFIX):
            if found.get(name, value) != value:
                raise files.refuse(where, f"{name} is given twice, as {found[name][:80]!r} and {value[:80]!r}")
            found[name] = value
    if not found:
        raise files.refuse(where, f"no variable {PREFIX}…")
    return found


def _value(name: str, text: str, where: str) -> Any:
    if name == "enable_taylorseer":
        if text.lower() not in ("true", "1", "false", "0"):
            raise files.refuse(where, f"{PREFIX}{VARIABLES[name]} is {text[:80]!r}, expected true or false")
        return text.lower() in ("true", "1")
    try:
        number = int(text) if name in _WHOLE else float(text)
    except ValueError as error:
        raise files.refuse(where, f"{PREFIX}{VARIABLES[name]} is {text[:80]!r}, expected a number") from error
    return files.number({name: number}, name, where) if isinstance(number, float) else number


def _numbers(text: str, name: str, where: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise files.refuse(where, f"{name} is {text[:80]!r}, expected numbers with commas between them") from error
