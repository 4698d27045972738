"""What a file of another engine says, before it is a record."""

from __future__ import annotations

import ast
import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from easyteacache.errors import InvalidCalibration
from easyteacache.export.numbers import Ratios
from easyteacache.export.spelling import ORIGIN, origin_of_comments
from easyteacache.files import console, python_source, strict_json

MAX_BYTES = strict_json.MAX_BYTES
# The library takes some ten seconds for each million characters; engines' files have a few hundred.
MAX_YAML_CHARACTERS = 256 * 1024
MAX_SCALAR = 4096
LONGEST_REASON = 600


@dataclass(frozen=True)
class Parsed:
    """One set of numbers in another engine's file; None where the format does not say.

    Attributes:
        label: which of several sets of the file this is, None where there is one.
        coefficients: highest degree first.
        ratios: MagCache's ratios, branch → one a step.
        threshold: accumulated predicted distance at which a step is computed.
        schedule: the computed steps instead.
        forecaster: what fills a reused step of a schedule, and ``applied_to`` what it repeats or continues.
        first, last: inclusive window; last negative counts from the end.
        fraction: the window as shares of the run.
        retention: share of the run computed first, for ratios.
        limit: most steps reused in a row.
        num_steps, sequence_length, frames, height, width, shift: the setting.
        domain: ``(x_min, x_max)`` the fit saw.
        rows: per step the weights of the computed steps, in place of a forecaster, or beside one where ``corrected``.
        corrected, combined, coordinate: of a plan, as a record's ``Plan`` has them.
        plan_levels: the noise levels that the rows hold over.
        preset: another engine's settings, as a record's ``Preset`` has them.
        levels, sampler: the run's noise levels, one more than steps, and the sampler's class.
        guidance_scale, checkpoint_commit, dtype, branches: what else held.
        post: what the engine does to p(x).
        signal: what the engine measures.
        model_key: the record the file was exported from.
    """

    label: str | None = None
    coefficients: tuple[float, ...] | None = None
    ratios: Ratios = field(default_factory=dict)
    threshold: float | None = None
    schedule: tuple[int, ...] | None = None
    forecaster: str = "hold"
    applied_to: str = "residual"
    rows: tuple[tuple[float, ...], ...] | None = None
    plan_levels: tuple[float, ...] | None = None
    corrected: bool = False
    combined: bool = False
    coordinate: str = "step"
    preset: Mapping[str, Any] | None = None
    levels: tuple[float, ...] | None = None
    sampler: str | None = None
    guidance_scale: float | None = None
    checkpoint_commit: str | None = None
    dtype: str | None = None
    branches: tuple[str, ...] = ()
    first: int | None = None
    last: int | None = None
    fraction: tuple[float, float] | None = None
    retention: float | None = None
    limit: int | None = None
    num_steps: int | None = None
    sequence_length: int | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    shift: float | None = None
    domain: tuple[float, float] | None = None
    post: str | None = None
    signal: str | None = None
    model_key: str | None = None


def refuse(where: str, reason: str) -> InvalidCalibration:
    """The error for a file that is not in the engine's format; a parser's own words may quote the file, at any length."""
    shown = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
    return InvalidCalibration(where, console.escaped(shown), rule="import.format")


def json_object(text: str, where: str) -> dict[str, Any]:
    """The JSON object in ``text``."""
    try:
        content = strict_json.parse(text)
    except strict_json.JSONTextError as error:
        raise refuse(where, str(error)) from error
    if not isinstance(content, dict):
        raise refuse(where, f"expected a JSON object, found {strict_json.shown(content)}")
    return content


def yaml_object(text: str, where: str) -> dict[str, Any]:
    """The YAML mapping in ``text``.

    Refused is what costs more than its size: aliases, a few lines of which make gigabytes; depth, which the parser takes the square of;
    long scalars, because numbers to the base of 60 are added up digit by digit.
    """
    import yaml

    if len(text) > MAX_YAML_CHARACTERS:
        raise refuse(where, f"{len(text)} characters, at most {MAX_YAML_CHARACTERS} of YAML are read")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise refuse(where, "YAML aliases are not read")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR:
                raise refuse(where, f"a YAML value of {len(event.value)} characters, at most {MAX_SCALAR} are read")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > strict_json.MAX_DEPTH:
                raise refuse(where, f"nested deeper than {strict_json.MAX_DEPTH} levels")
        content = yaml.safe_load(text)
    except InvalidCalibration:
        raise
    except (yaml.YAMLError, RecursionError) as error:
        raise refuse(where, f"not valid YAML: {' '.join(str(error).split())[:300]}") from error
    # The library leaves the date 2001-99-99, and what a tag does not fit, to whatever error of Python's comes of it.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise refuse(where, f"a YAML value is not what its form or tag says: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise refuse(where, f"expected a YAML mapping, found {strict_json.shown(content)}")
    return content


def python_values(text: str, where: str) -> dict[str, Any]:
    """Assignments and keyword arguments of a Python text, read without running it: name → value.

    Calls give their keyword arguments under the called name; what is no literal is left out.
    """
    if len(text) > python_source.MAX_CHARACTERS:
        raise refuse(where, f"{len(text)} characters, at most {python_source.MAX_CHARACTERS} of Python are read")
    try:
        tree = python_source.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise refuse(where, f"not valid Python: {error}") from error
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            _take(found, node.targets[0].id, node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            _take(found, node.target.id, node.value)
        elif isinstance(node, ast.Expr):
            _take(found, "", node.value)
    return found


def _take(found: dict[str, Any], name: str, value: ast.expr) -> None:
    if isinstance(value, ast.Call):
        # Not ast.unparse, which a long chain of names or calls drives out of the stack.
        named = value.func
        called = named.id if isinstance(named, ast.Name) else named.attr if isinstance(named, ast.Attribute) else ""
        arguments: dict[str, Any] = {}
        for keyword in value.keywords:
            if keyword.arg is not None:
                _take(arguments, keyword.arg, keyword.value)
        found[called] = arguments
        return
    try:
        found[name] = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return


def key_of_origin(content: Mapping[str, Any]) -> str | None:
    """The model key that an exporter left in a JSON object."""
    found = content.get(ORIGIN)
    key = found.get("model_key") if isinstance(found, dict) else None
    return key if isinstance(key, str) else None


def key_in(text: str) -> str | None:
    """The model key in an exported text's comments."""
    return origin_of_comments(text).get("model_key")


def number(content: Mapping[str, Any], name: str, where: str) -> float | None:
    """An optional finite number."""
    value = content.get(name)
    if value is None:
        return None
    real = math.nan
    # YAML and Python have integers that no float can hold.
    with contextlib.suppress(OverflowError):
        real = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not math.isfinite(real):
        raise refuse(where, f"{name} is {strict_json.shown(value)}, expected a finite number")
    return real


def whole(content: Mapping[str, Any], name: str, where: str) -> int | None:
    """An optional integer."""
    value = content.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(where, f"{name} is {strict_json.shown(value)}, expected an integer")
    return value


def numbers(value: Any, name: str, where: str) -> tuple[float, ...]:
    """A list of finite numbers, at least one."""
    if not isinstance(value, (list, tuple)) or not value:
        raise refuse(where, f"{name} is {strict_json.shown(value)}, expected a list of numbers")
    return tuple(number({name: item}, name, where) or 0.0 for item in value)


def pair(value: Any, name: str, where: str) -> tuple[float, float]:
    """Two finite numbers."""
    found = numbers(value, name, where)
    if len(found) != 2:
        raise refuse(where, f"{name} is expected to hold two numbers, it holds {len(found)}")
    return found[0], found[1]
