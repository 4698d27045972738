"""Another engine's presets under the names of the engine that is to run them.

A preset is a method of some engine with the settings that it is run with. It can be written for every engine that runs that very
method: cache-dit's DBCache runs inside SGLang and vLLM-Omni, too, which call its settings otherwise and have defaults of their own,
so that every setting is written out. What no rule here names is another method, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from easyteacache.files import strict_json
from easyteacache.records.preset import Parameter, Preset

#: Where cache-dit's DBCache runs: the engines whose presets mean the same.
DBCACHE = ("cache-dit", "SGLang", "vLLM-Omni")
#: What a preset says where it takes the coefficients that TeaCache's authors published for its model.
OFFICIAL = "in the file; the official TeaCache quartics"
_UNLIMITED = "unlimited"
#: The settings that are text, and what they may say. Everything else is a number, true or false: a text of somebody's record would
#: otherwise be a command in a file that shells read, or another key in YAML.
TEXTS: Mapping[str, tuple[str, ...]] = MappingProxyType({"steps_computation_policy": ("static", "dynamic")})


class Unwritable(ValueError):
    """A preset cannot be written for an engine; the message says why, one sentence."""


@dataclass(frozen=True)
class PresetRule:
    """How one method's presets are written for one engine.

    Attributes:
        engine: name of its entry in the table.
        made_for: engines, as records name them, whose presets of this method mean the same; the engine's own first.
        methods: what records call the method.
        names: a record's name of a setting → the engine's.
        needed: settings, under the engine's names, that must be there, because engines' defaults differ.
        constant: what is written beside them.
        without: settings that the engine does not have → the one value at which it does the same without.
        sets: it takes a checkpoint's two published sets of TeaCache's coefficients beside the settings.
        call: what the settings belong to in the engine: a function or class, or the value of its key; empty where nothing is.
    """

    engine: str
    made_for: tuple[str, ...]
    methods: tuple[str, ...]
    names: Mapping[str, str]
    needed: tuple[str, ...] = ()
    constant: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, Any] = field(default_factory=dict)
    call: str = ""
    sets: bool = False

    def takes(self, preset: Preset) -> bool:
        """Whether this is the rule of a preset."""
        return preset.engine in self.made_for and preset.method in self.methods


_DB_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "Fn": "Fn_compute_blocks",
        "Bn": "Bn_compute_blocks",
        "Fn_compute_blocks": "Fn_compute_blocks",
        "Bn_compute_blocks": "Bn_compute_blocks",
        "max_warmup_steps": "max_warmup_steps",
        "warmup_interval": "warmup_interval",
        "max_continuous_cached_steps": "max_continuous_cached_steps",
        "residual_diff_threshold": "residual_diff_threshold",
        "taylorseer": "enable_taylorseer",
        "enable_taylorseer": "enable_taylorseer",
        "taylorseer_order": "taylorseer_order",
    }
)
_DB_NEEDED = ("Fn_compute_blocks", "Bn_compute_blocks", "max_warmup_steps", "residual_diff_threshold")
_MASKED: Mapping[str, str] = MappingProxyType(
    {
        "Fn_compute_blocks": "Fn_compute_blocks",
        "Bn_compute_blocks": "Bn_compute_blocks",
        "max_warmup_steps": "max_warmup_steps",
        "residual_diff_threshold": "residual_diff_threshold",
        "steps_computation_mask": "steps_computation_mask",
        "steps_computation_policy": "steps_computation_policy",
    }
)


def _dbcache(engine: str, *, interval: bool) -> Iterator[PresetRule]:
    """DBCache with and without TaylorSeer; ``interval``: the engine hands ``warmup_interval`` on."""
    left_out = {} if interval else {"warmup_interval": 1}
    names = {ours: theirs for ours, theirs in _DB_NAMES.items() if ours not in left_out}
    for method, constant in (("DBCache", {}), ("DBCache + TaylorSeer", {"enable_taylorseer": True})):
        yield PresetRule(engine, DBCACHE, (method,), names, _DB_NEEDED, constant, left_out)


_LIGHTX2V = {name: name for name in ("residual_diff_threshold", "downsample_factor")}
_RULES: tuple[PresetRule, ...] = (
    *_dbcache("cache-dit", interval=True),
    PresetRule("cache-dit", ("cache-dit",), ("DBCache with a step mask",), _MASKED, ("steps_computation_mask",)),
    *_dbcache("sglang-cache-dit", interval=False),
    *_dbcache("sglang-request", interval=False),
    *_dbcache("vllm-omni", interval=False),
    PresetRule(
        "vllm-omni",
        ("vLLM-Omni",),
        ("SeaCache",),
        {name: name for name in ("sea_threshold", "sea_residual_order", "sea_max_consecutive_cached", "sea_power_exp")},
        ("sea_threshold", "sea_residual_order", "sea_max_consecutive_cached", "sea_power_exp"),
    ),
    PresetRule(
        "diffusers",
        ("diffusers", "ParaAttention"),
        ("FirstBlockCache",),
        {"threshold": "threshold", "residual_diff_threshold": "threshold"},
        ("threshold",),
        call="FirstBlockCacheConfig",
    ),
    PresetRule(
        "diffusers",
        ("diffusers",),
        ("TaylorSeer",),
        {name: name for name in ("cache_interval", "disable_cache_before_step", "max_order")},
        ("cache_interval", "max_order"),
        call="TaylorSeerCacheConfig",
    ),
    PresetRule(
        "nunchaku",
        ("nunchaku",),
        ("FirstBlockCache",),
        {"residual_diff_threshold": "residual_diff_threshold"},
        ("residual_diff_threshold",),
        call="apply_cache_on_pipe",
    ),
    PresetRule(
        "nunchaku",
        ("nunchaku",),
        ("Double FirstBlockCache",),
        {name: name for name in ("residual_diff_threshold_multi", "residual_diff_threshold_single")},
        ("residual_diff_threshold_multi", "residual_diff_threshold_single"),
        {"use_double_fb_cache": True},
        call="apply_cache_on_pipe",
    ),
    PresetRule(
        "xdit",
        ("xDiT",),
        ("FirstBlockCache",),
        {"rel_l1_thresh": "rel_l1_thresh"},
        ("rel_l1_thresh",),
        {"use_cache": "Fb"},
        call="apply_cache_on_transformer",
    ),
    PresetRule(
        "lightx2v",
        ("LightX2V",),
        ("Custom",),
        {name: name for name in ("teacache_thresh", "use_ret_steps")},
        ("teacache_thresh", "use_ret_steps"),
        without={"coefficients": OFFICIAL},
        call="Custom",
        sets=True,
    ),
    PresetRule("lightx2v", ("LightX2V",), ("FirstBlockCache",), _LIGHTX2V, tuple(_LIGHTX2V), call="FirstBlock"),
    PresetRule("lightx2v", ("LightX2V",), ("DualBlockCache",), _LIGHTX2V, tuple(_LIGHTX2V), call="DualBlock"),
    PresetRule("lightx2v", ("LightX2V",), ("DynamicBlockCache",), _LIGHTX2V, tuple(_LIGHTX2V), call="DynamicBlock"),
)


def rule_for(engine: str, preset: Preset) -> PresetRule | None:
    """The rule by which ``engine``, an entry of the table, can be given a preset; None where it does not run that method."""
    return next((rule for rule in _RULES if rule.engine == engine and rule.takes(preset)), None)


def engines_for(preset: Preset) -> tuple[str, ...]:
    """The entries of the table that a preset can be written for, the plain formats aside."""
    return tuple(dict.fromkeys(rule.engine for rule in _RULES if rule.takes(preset)))


def rule_called(engine: str, call: object) -> PresetRule | None:
    """The rule of what an engine's file names; None where it names something else."""
    return next((rule for rule in _RULES if rule.engine == engine and rule.call and rule.call == call), None)


def read_by(rule: PresetRule, given: Mapping[str, Any], refuse: Callable[[str], Exception]) -> dict[str, Any]:
    """A preset out of an engine's file, as a record holds it: the settings that a rule names, under its first names for them.

    Args:
        rule: of the method that the file names.
        given: the file's settings, under the engine's names; others are not looked at.
        refuse: makes the error for a wrong or missing value.
    """
    ours = {theirs: name for name, theirs in reversed([*rule.names.items()])}
    parameters: dict[str, Any] = {}
    for theirs, name in ours.items():
        value = given.get(theirs)
        if value is None and theirs in rule.needed:
            raise refuse(f"{theirs} is missing")
        if value is None:
            continue
        if not isinstance(value, (bool, int, float)):
            raise refuse(f"{theirs} is {strict_json.shown(value)}, expected a number, true or false")
        parameters[name] = value
    return {"engine": rule.made_for[0], "method": rule.methods[0], "parameters": parameters}


def settings(engine: str, preset: Preset) -> dict[str, Any]:
    """A preset's settings as ``engine`` calls them, in the order of its rule.

    Raises:
        Unwritable: the engine does not run the method, or a setting has no place or no value there.
    """
    rule = rule_for(engine, preset)
    if rule is None:
        raise Unwritable(f"{preset.engine}'s {preset.method} does not run there.")
    given: dict[str, Any] = {}
    for name, value in preset.parameters.items():
        if name in rule.without:
            if value != rule.without[name]:
                raise Unwritable(f"It has no {name}, which is {value!r} here and {rule.without[name]!r} without it.")
        elif name in rule.names:
            given[rule.names[name]] = _value(name, rule.names[name], value)
        else:
            raise Unwritable(f"It has no setting {name}.")
    missing = [name for name in rule.needed if name not in given]
    if missing:
        raise Unwritable(f"The preset does not say {', '.join(missing)}, and engines' defaults differ.")
    ordered = {theirs: given[theirs] for theirs in dict.fromkeys(rule.names.values()) if theirs in given}
    return {**ordered, **rule.constant}


def _value(name: str, theirs: str, value: Parameter) -> Any:
    """A setting's value; an unlimited number of steps is −1 everywhere."""
    if isinstance(value, str) and value.startswith(_UNLIMITED):
        return -1
    texts = [one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, str)]
    if texts and value not in TEXTS.get(theirs, ()):
        expected = " or ".join(map(repr, TEXTS.get(theirs, ()))) or "a number, true or false"
        raise Unwritable(f"{name} is {strict_json.shown(texts[0])}, expected {expected}.")
    return list(value) if isinstance(value, tuple) else value


def read_dbcache(engine: str, given: Mapping[str, Any], refuse: Callable[[str], Exception]) -> dict[str, Any]:
    """DBCache's settings out of an engine's file, under cache-dit's names, as a record holds them.

    Args:
        engine: as records name it: cache-dit, SGLang or vLLM-Omni.
        given: the settings, under cache-dit's names; others are not looked at.
        refuse: makes the error for a wrong value.
    """
    known = ("max_cached_steps", "steps_computation_policy", *dict.fromkeys(_DB_NAMES.values()))
    parameters: dict[str, Any] = {}
    for name in known:
        value = given.get(name)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float)) and value not in TEXTS.get(name, ()):
            raise refuse(f"{name} is {strict_json.shown(value)}, expected a number, true or false")
        parameters[name] = value
    if not parameters:
        raise refuse("holds no settings of DBCache and no mask of steps")
    taylor = parameters.get("enable_taylorseer") is True
    return {"engine": engine, "method": "DBCache + TaylorSeer" if taylor else "DBCache", "parameters": parameters}
