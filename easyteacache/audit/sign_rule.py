"""How Python code accumulates a rescale polynomial: p(x) as it is, or |p(x)|."""

from __future__ import annotations

import ast
import bisect
import functools
import re
from collections.abc import Iterator
from typing import Literal

from easyteacache.files import python_source
from easyteacache.policy.curves import USUAL_DISTANCES, Polynomial, RescalePost
from easyteacache.records.calibration import Calibration

Treatment = Literal["none", "abs"]

# What code calls the polynomial, or a value of it.
_POLYNOMIAL = re.compile(r"rescal|poly")
# Places of a domain at which two treatments are compared.
SAMPLES = 601


class SourceTreatments:
    """What a Python source does to p(x) before it accumulates it; parsed once, however many lists it holds.

    Args:
        text: Python source; of anything else nothing is said.
    """

    def __init__(self, text: str) -> None:
        try:
            self._body = python_source.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self._body = []
        self._starts = [node.lineno for node in self._body]
        self._compared: dict[tuple[str, tuple[float, ...], Treatment], float | None] = {}

    def conflict(
        self, record: Calibration, coefficients: tuple[float, ...], line: int
    ) -> tuple[Treatment, float] | None:
        """What the code around ``line`` does other than the record means, and where that differs most; None when it does not."""
        code = self.near(line)
        if code is None:
            return None
        asked = (record.model_key, coefficients, code)
        if asked not in self._compared:
            self._compared[asked] = differs(record, coefficients, code)
        where = self._compared[asked]
        return None if where is None else (code, where)

    def near(self, line: int) -> Treatment | None:
        """What the code around ``line`` (from 1) does, where some coefficients stand.

        Inside a function or class that accumulates, only that counts; otherwise the whole file.

        Returns:
            None when no code accumulates a polynomial, when some does the one and some the other, or when it is no Python.
        """
        around = bisect.bisect_right(self._starts, line) - 1
        node = self._body[around] if around >= 0 else None
        inside = node is not None and line <= (node.end_lineno or node.lineno)
        for found in (self._kinds[around] if inside else frozenset(), self._all):
            if found:
                return next(iter(found)) if len(found) == 1 else None
        return None

    @functools.cached_property
    def _kinds(self) -> list[frozenset[Treatment]]:
        """The treatments within each statement of the file."""
        return [frozenset(kind for part in ast.walk(node) for kind in _accumulated(part)) for node in self._body]

    @functools.cached_property
    def _all(self) -> frozenset[Treatment]:
        return frozenset().union(*self._kinds)


def differs(record: Calibration, coefficients: tuple[float, ...], code: Treatment) -> float | None:
    """Where p(x) is not what the record means, when code treats it as ``code``; None when that makes no difference."""
    bucket = next((bucket for bucket in record.buckets if bucket.coefficients == coefficients), record.buckets[0])
    if record.rescale_post == code:
        return None
    meant: RescalePost = record.rescale_post
    low, high = bucket.domain or USUAL_DISTANCES
    ours, theirs = Polynomial(coefficients, post=meant), Polynomial(coefficients, post=code)
    places = [low + (high - low) * i / (SAMPLES - 1) for i in range(SAMPLES)]
    worst = max(places, key=lambda x: abs(ours(x) - theirs(x)))
    return worst if abs(ours(worst) - theirs(worst)) > 1e-9 * max(abs(ours(x)) for x in places) else None


def _accumulated(node: ast.AST) -> Iterator[Treatment]:
    """Treatments of the polynomial in ``acc += …`` and ``acc = acc + …``."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        kind = _treatment(node.value)
    elif isinstance(node, ast.Assign):
        kind = _of_sum(node.value)
    else:
        return
    if kind is not None:
        yield kind


def _of_sum(value: ast.expr) -> Treatment | None:
    """The treatment inside ``acc + p(x)``, or inside the arguments of a call such as ``min(acc + p(x), limit)``."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _treatment(value.left) or _treatment(value.right)
    if isinstance(value, ast.Call):
        return next((kind for kind in map(_of_sum, value.args) if kind is not None), None)
    return None


def _treatment(value: ast.expr) -> Treatment | None:
    if isinstance(value, (ast.Name, ast.Attribute)):
        return "none" if _POLYNOMIAL.search(_name(value)) else None
    if not isinstance(value, ast.Call):
        return None
    called = _name(value.func)
    if called in ("abs", "fabs", "absolute"):
        # abs(p), np.abs(p), torch.abs(p), p.abs()
        inside = value.args[0] if value.args else value.func.value if isinstance(value.func, ast.Attribute) else None
        return "abs" if inside is not None and _treatment(inside) is not None else None
    if called in ("float", "item", "cpu") and (value.args or isinstance(value.func, ast.Attribute)):
        return _treatment(value.args[0] if value.args else value.func.value)  # type: ignore[attr-defined]
    if isinstance(value.func, ast.Call):
        # np.poly1d(coefficients)(x)
        return _treatment(value.func)
    return "none" if _POLYNOMIAL.search(called) else None


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
