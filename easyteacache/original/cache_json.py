"""The original project's own JSON file (oneflyingfish/EasyTeacache): nested keys → sequence length → ``meta_data``.

Read and written so that both projects understand the same file. Beside the original's fields this project stores the points and
the domain of the fit (the original ignores fields it does not know), so that several processes can add to one fit.
"""

from __future__ import annotations

import dataclasses
import math
import os
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyteacache.errors import InvalidCalibration, UnknownModelKey
from easyteacache.files import atomic_write, strict_json
from easyteacache.policy.curves import Polynomial
from easyteacache.records import model_key, parsing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

META = "meta_data"
# The original keeps 200 points. These are the last twenty runs of a hundred steps, in about 200 KB a length.
MAX_POINTS = 2_000
# A fit whose points are not in the file is replaced once there are this many for each of its coefficients.
POINTS_PER_COEFFICIENT = 4
# Most that the rounding of the written coefficients may change a fitted y, relative to the largest one.
ROUNDING = 1e-6
MAX_BYTES = 64 * 1024 * 1024
# What this project can read again: the file's own levels come on top.
MAX_KEYS = strict_json.MAX_DEPTH - 6

Point = tuple[float, float]


@dataclass(frozen=True)
class TeaCacheConfig:
    """One fit of the original's file.

    Attributes:
        complexity: polynomial order.
        coefficients: highest degree first, ``complexity + 1`` values.
        fit_length: sequence length it was fitted at, tokens.
        calibration_size: points of the fit, −1 when the file does not say.
        points: ``(x, y)`` pairs of the fit, as far as the file holds them.
        domain: ``(x_min, x_max)`` of the fit, None in files of the original.
    """

    complexity: int = 4
    coefficients: tuple[float, ...] = ()
    fit_length: int = 0
    calibration_size: int = -1
    points: tuple[Point, ...] = field(default=(), repr=False)
    domain: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", tuple(float(c) for c in self.coefficients))
        if any(not math.isfinite(c) for c in self.coefficients):
            raise InvalidCalibration("coefficients", f"expected finite numbers, found {list(self.coefficients)}")

    @property
    def curve(self) -> Polynomial:
        """The rescale polynomial: clamped to the domain where there is one, as the original evaluates it otherwise."""
        return Polynomial(self.coefficients, domain=self.domain)

    def to_meta(self) -> dict[str, Any]:
        """The ``meta_data`` object of the file."""
        meta: dict[str, Any] = {
            "complexity": self.complexity,
            "coefficients": list(self.coefficients),
            "fit_length": self.fit_length,
            "calibration_size": self.calibration_size,
        }
        if self.domain is not None:
            meta["domain"] = list(self.domain)
        if self.points:
            meta["points"] = [list(point) for point in self.points]
        return meta


def read(path: str | os.PathLike[str], keys: Sequence[str]) -> tuple[TeaCacheConfig, ...]:
    """Every fit filed under ``keys``, ascending by sequence length.

    Args:
        path: the JSON file.
        keys: nested keys, any strings, any depth.

    Raises:
        InvalidCalibration: there is no file, or it cannot be read or understood; it is never taken as empty.
        UnknownModelKey: the file holds nothing under ``keys``.
    """
    content = _load(Path(path))
    if content is None:
        raise InvalidCalibration(
            os.fspath(path),
            "does not exist; run once with speedup_mode=False to make it, or pass cache_path=",
            rule="seed.missing",
        )
    node: Any = content
    for depth, key in enumerate(keys):
        if not isinstance(node, dict) or key not in node:
            known = [name for name in node if name != META] if isinstance(node, dict) else []
            raise UnknownModelKey(
                "/".join(keys),
                suggestions=["/".join([*keys[:depth], near]) for near in model_key.nearest(key, known)],
                layers=[os.fspath(path)],
            )
        node = node[key]
    where = f"{os.fspath(path)}: {'/'.join(keys)}"
    configs = _configs(node, where)
    if not configs:
        raise UnknownModelKey("/".join(keys), suggestions=_subkeys(node, keys), layers=[os.fspath(path)])
    return tuple(sorted(configs, key=lambda config: config.fit_length))


def check_keys(keys: Sequence[str], missing: str) -> None:
    """Refuse keys that a file cannot hold.

    Args:
        keys: nested keys.
        missing: the error's reason when there are none.

    Raises:
        InvalidCalibration: there are none or too many, or one is no text or the name of the file's own fields.
    """
    if not keys:
        raise InvalidCalibration("model_keys", missing, rule="seed.schema")
    if len(keys) > MAX_KEYS:
        raise InvalidCalibration("model_keys", f"{len(keys)} keys, at most {MAX_KEYS} are read", rule="seed.schema")
    for key in keys:
        if not isinstance(key, str) or key == META:
            raise InvalidCalibration(
                "model_keys", f"{key!r} is no key; expected any text but {META!r}", rule="seed.schema"
            )


def check_writable(path: str | os.PathLike[str], keys: Sequence[str] = ()) -> None:
    """Fail before a long run, not after it.

    Args:
        path: the JSON file to come, or to add to.
        keys: nested keys under which fits will be filed.

    Raises:
        InvalidCalibration: a file is there that this project cannot read (it would have to be overwritten), what it holds
            under ``keys`` are no fits to add to, or its folder cannot be written to or has no file locks.
    """
    target = Path(path)
    node = _load(target) or {}
    for key in keys:
        node = _child(node, key, target)
    _configs(node, f"{os.fspath(path)}: {'/'.join(keys)}")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        raise InvalidCalibration(
            os.fspath(path), f"cannot be written: no permission to write in {folder}", rule="seed.unwritable"
        )
    _check_locks(path, folder)


def _check_locks(path: str | os.PathLike[str], folder: Path) -> None:
    """Some network file systems have no locks; without them, two processes would lose each other's points."""
    from filelock import FileLock

    probe = folder / f".easyteacache-{os.getpid()}-{uuid.uuid4().hex}.lock"
    try:
        with FileLock(probe, timeout=0):
            pass
    except (OSError, NotImplementedError) as error:
        reason = f"cannot be locked: the file system of {folder} has no file locks ({error})"
        raise InvalidCalibration(
            os.fspath(path), f"{reason}; pass cache_path= on another one", rule="seed.locks"
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def merge(
    path: str | os.PathLike[str], keys: Sequence[str], fits: Mapping[int, Iterable[Point]], *, order: int = 4
) -> None:
    """Add points to the fits filed under ``keys``, refit, and write the file whole or not at all.

    A lock file beside it makes concurrent writers wait for each other; what others wrote in the meantime is kept.

    Args:
        fits: sequence length → new ``(x, y)`` points.
        order: polynomial order, lowered when there are too few distinct x.

    Raises:
        InvalidCalibration: the file that is there cannot be read; it is left as it is.
    """
    from filelock import FileLock

    # Writers that come through different links wait for one lock and replace one file.
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        content = _load(target) or {}
        node = content
        for key in keys:
            node = _child(node, key, target)
        for length, points in fits.items():
            entry = _child(node, str(length), target)
            old = _config(entry[META], f"{target}: {length}") if META in entry else None
            config = _extended(old, tuple(points), length=length, order=order)
            if config is not None:
                entry[META] = config.to_meta()
        text = strict_json.spell(content)
        if len(text.encode()) > MAX_BYTES:
            raise InvalidCalibration(
                os.fspath(target), f"would grow beyond {MAX_BYTES} bytes; use another cache_path=", rule="seed.size"
            )
        atomic_write.write_text(target, text)


def _child(node: dict[str, Any], name: str, target: Path) -> dict[str, Any]:
    child = node.setdefault(name, {})
    if not isinstance(child, dict):
        raise InvalidCalibration(
            f"{target}: {name}", f"expected an object, found {type(child).__name__}", rule="seed.schema"
        )
    return child


def _extended(old: TeaCacheConfig | None, new: Sequence[Point], *, length: int, order: int) -> TeaCacheConfig | None:
    """The fit of all points there are.

    The original does not keep its points. A fit of unknown points stays until the new ones are enough for a better one.
    """
    if old is None:
        return fit(new, length=length, order=order)
    points = (*old.points, *new)[-MAX_POINTS:]
    enough = min(old.calibration_size, POINTS_PER_COEFFICIENT * (order + 1))
    if len(points) < enough:
        return dataclasses.replace(old, points=points)
    return fit(points, length=length, order=order) or dataclasses.replace(old, points=points)


def fit(points: Sequence[Point], *, length: int, order: int = 4) -> TeaCacheConfig | None:
    """Least-squares polynomial through the points, as TeaCache fits it, in a scaled basis (the raw one is ill-conditioned).

    Returns:
        The fit, or None when there are fewer than ``order + 1`` points.
    """
    if len(points) <= order:
        return None
    import numpy as np

    x, y = np.array(points, dtype=np.float64).T
    coefficients = _coefficients(x, y, min(order, len(np.unique(x)) - 1))
    domain = (float(x.min()), float(x.max()))
    return TeaCacheConfig(
        complexity=len(coefficients) - 1,
        coefficients=coefficients,
        fit_length=length,
        calibration_size=len(points),
        points=tuple(points),
        domain=domain if domain[0] < domain[1] else None,
    )


def _coefficients(x: Array, y: Array, degree: int) -> tuple[float, ...]:
    """Least squares of at most ``degree``, highest power first.

    The file holds plain powers of x. Over a narrow range those cancel: the degree is lowered until they say what the fit says.
    """
    import numpy as np

    while degree > 0:
        with warnings.catch_warnings():
            # Distances that are nearly the same determine fewer coefficients; least squares then takes the smallest ones.
            warnings.filterwarnings("ignore", "The fit may be poorly conditioned")  # its class has moved with numpy 2
            fitted = np.polynomial.Polynomial.fit(x, y, degree)
        powers = fitted.convert().coef[::-1]
        if np.abs(np.polyval(powers, x) - fitted(x)).max() <= ROUNDING * np.abs(y).max():
            return tuple(powers.tolist())
        degree -= 1
    return (float(y.mean()),)


def _load(path: Path) -> dict[str, Any] | None:
    if not os.path.exists(path):
        return None
    data = parsing.read_file(path, rules="seed", max_bytes=MAX_BYTES)
    try:
        content = strict_json.parse(data, max_bytes=MAX_BYTES)
    except strict_json.JSONTextError as error:
        raise InvalidCalibration(
            os.fspath(path), f"{error}. Repair or move the file; it is not overwritten", rule="seed.unreadable"
        ) from error
    if not isinstance(content, dict):
        raise InvalidCalibration(
            os.fspath(path), f"expected a JSON object, found {type(content).__name__}", rule="seed.schema"
        )
    return content


def _configs(node: Any, where: str) -> list[TeaCacheConfig]:
    if not isinstance(node, dict):
        raise InvalidCalibration(where, f"expected an object, found {type(node).__name__}", rule="seed.schema")
    found = [_config(node[META], where)] if META in node else []
    for name, child in node.items():
        if name != META and isinstance(child, dict) and META in child:
            found.append(_config(child[META], f"{where}/{name}"))
    return found


def _config(meta: Any, where: str) -> TeaCacheConfig:
    if not isinstance(meta, dict):
        raise InvalidCalibration(where, f"{META} is a {type(meta).__name__}, expected an object", rule="seed.schema")
    coefficients = meta.get("coefficients")
    if not isinstance(coefficients, list) or not coefficients or not all(map(_is_number, coefficients)):
        raise InvalidCalibration(where, "coefficients must be a non-empty list of numbers", rule="seed.schema")
    length = meta.get("fit_length", 0)
    if not _is_number(length) or length < 0:
        raise InvalidCalibration(where, f"fit_length is {length!r}, expected a number of 0 or more", rule="seed.schema")
    points = meta.get("points", [])
    if not isinstance(points, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(map(_is_number, p)) for p in points
    ):
        raise InvalidCalibration(where, "points must be a list of [x, y] pairs of numbers", rule="seed.schema")
    domain = meta.get("domain")
    if domain is not None and not (
        isinstance(domain, list) and len(domain) == 2 and all(map(_is_number, domain)) and domain[0] < domain[1]
    ):
        raise InvalidCalibration(where, f"domain is {domain!r}, expected [x_min, x_max]", rule="seed.schema")
    size = meta.get("calibration_size", -1)
    return TeaCacheConfig(
        complexity=len(coefficients) - 1,
        coefficients=tuple(coefficients),
        fit_length=int(length),
        calibration_size=int(size) if _is_number(size) else -1,
        points=tuple((float(x), float(y)) for x, y in points),
        domain=None if domain is None else (float(domain[0]), float(domain[1])),
    )


def _subkeys(node: Any, keys: Sequence[str]) -> list[str]:
    return ["/".join([*keys, name]) for name in node if name != META][:3] if isinstance(node, dict) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
