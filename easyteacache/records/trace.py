"""One run as a trace: everything a calibration can be fitted to, and nothing that shows what was generated.

A trace holds distances and Gram matrices only. With G[i, j] = ⟨r_i, r_j⟩ over the residuals r of one run, the error of
any schedule filled by any linear predictor follows without the model:
‖Σ w_k r_k − r_j‖² = wᵀGw − 2 wᵀG[:, j] + G[j, j].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from easyteacache.errors import InvalidTrace
from easyteacache.records import trace_version_1
from easyteacache.records.sampler import EULER, agree, euler_map, signature_of
from easyteacache.records.trace_header import GUIDED, MAX_STEPS, TRACE_VERSION, SketchInfo, TraceHeader
from easyteacache.records.trace_version_1 import TraceHeader1

__all__ = [
    "CROSS",
    "FEATURE_PREFIX",
    "GUIDED",
    "MAX_STEPS",
    "OUTPUT_PREFIX",
    "TRACE_VERSION",
    "Array",
    "SketchInfo",
    "Trace",
    "TraceHeader",
]

OUTPUT_PREFIX = "output:"
FEATURE_PREFIX = "feature:"
PREFIXES = ("", OUTPUT_PREFIX, FEATURE_PREFIX)
# Between the names of two branches: the inner products of one's rows with the other's.
CROSS = "*"
SAMPLER_MAP = "sampler_map"
# Noise levels of the header are those of the run, up to this share of the largest: samplers keep them in single precision.
SAME_LEVELS = 1e-5
# Relative to the largest entry; wide enough for products that an accelerator summed in single precision.
NEGATIVE_TOLERANCE = 1e-6

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """One full uncached run; S = ``header.num_steps``. A trace that exists is consistent.

    Attributes:
        header: what produced the run.
        timesteps: (S,) noise level handed to the model at each step, in the model's own unit, never rising; some models count up
            towards the image (Lumina, Z-Image), and theirs never fall.
        sigmas: (S + 1,) noise level before each step and after the last, strictly falling, 0 or more; 1 = pure noise.
        signal_distances: [signal][branch] → (S − 1,) relative L1 between steps k and k + 1, mean|a − b| / mean|b|,
            b the earlier one (arXiv 2411.19108), 0 or more.
        output_distances: [branch] → (S − 1,), the same of the block-stack output.
        residual_distances: [branch] → (S − 1,), the same of the residual (block-stack output − input).
        grams: name → (S, S) symmetric positive semi-definite inner products. A branch's name: its residuals;
            ``guided``: the guidance-combined residual; ``output:`` before either: the model's final output instead,
            ``feature:`` the block stack's output before the head. Two branches' names with ``*`` between: G[i, j] = ⟨a_i, b_j⟩ of
            the first one's rows with the second one's, not symmetric.
        sampler_map: (S + 1, S + 1) what the sampler did (see ``records.sampler``); None where nobody measured it.
        version_1: the header as version 1 wrote it, for a run that was recorded in that version.

    Grams are kept in double precision, in the file too, because a squared error norm is a small difference of large
    numbers. Measured on residuals that follow a cubic over 50 steps, one step ahead: a Gram in single precision is wrong by
    5 % (at worst 24 %) in the error norms of linear forecasts, which are 0.1 % of the residual, and useless for quadratic
    ones; double precision is wrong by 2·10⁻⁹ and 7·10⁻⁶. Single precision of the *increments'* Gram would do for linear
    forecasts (4·10⁻⁵) but not for quadratic ones (46 %).

    Raises:
        InvalidTrace: an array breaks one of these rules; ``rule`` says which.
    """

    header: TraceHeader
    timesteps: Array
    sigmas: Array
    signal_distances: Mapping[str, Mapping[str, Array]]
    output_distances: Mapping[str, Array]
    residual_distances: Mapping[str, Array]
    grams: Mapping[str, Array]
    sampler_map: Array | None = None
    version_1: TraceHeader1 | None = None

    def __post_init__(self) -> None:
        for name in ("timesteps", "sigmas"):
            self._set(name, _frozen(getattr(self, name)))
        signals = {name: _frozen_mapping(by_branch) for name, by_branch in self.signal_distances.items()}
        self._set("signal_distances", MappingProxyType(signals))
        for name in ("output_distances", "residual_distances", "grams"):
            self._set(name, _frozen_mapping(getattr(self, name)))
        if self.sampler_map is not None:
            self._set(SAMPLER_MAP, _frozen(self.sampler_map))
        self._check_names()
        self._check_arrays()
        if self.version_1 is not None:
            # Relabelled since it was read, it is labelled so in its own version.
            relabelled = trace_version_1.relabelled(self.version_1, self.header)
            self._set("version_1", relabelled if self._says_no_more(relabelled) else None)

    def _says_no_more(self, recorded: TraceHeader1) -> bool:
        """Whether everything here follows from what version 1 stores."""
        plain = all(not name.startswith(FEATURE_PREFIX) and CROSS not in name for name in self.grams)
        derived = _derived_map(self.header, self.sigmas)
        same_map = self.sampler_map is None if derived is None else np.array_equal(derived, self.sampler_map)  # type: ignore[arg-type]
        return plain and same_map and trace_version_1.upgraded(recorded, tuple(self.sigmas.tolist())) == self.header

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def num_steps(self) -> int:
        """Steps S of the run."""
        return self.header.num_steps

    @property
    def setting(self) -> tuple[int, int, float]:
        """(sequence length, step count, shift or 0): the bucket this run belongs to."""
        return (self.header.sequence_length, self.header.num_steps, self.header.shift or 0.0)

    @property
    def label(self) -> str:
        """The run as an error message names it."""
        head = self.header
        return f"run of {head.model_key} (prompt {(head.prompt or head.prompt_sha256 or '?')[:30]!r}, seed {head.seed})"

    @cached_property
    def content_id(self) -> str:
        """SHA-256 of the numbers alone, in hexadecimal: relabelling a run does not change it.

        Of those that version 1 has, so that a run which is recorded again counts as the same one, and stays on its side of a split.
        """
        return _hashed((name, values) for name, values in self.arrays() if not _new_in_2(name))

    @cached_property
    def run_id(self) -> str:
        """SHA-256 of the header's identity and all numbers, in hexadecimal: equal content, equal id."""
        more = [(name, values) for name, values in self.arrays() if _new_in_2(name)]
        if more:
            numbers = f"{self.content_id}\0{_hashed(more)}"
            return hashlib.sha256(f"{self.recorded.identity()}\0{numbers}".encode()).hexdigest()
        return hashlib.sha256(f"{self.recorded.identity()}\0{self.content_id}".encode()).hexdigest()

    @property
    def recorded(self) -> TraceHeader | TraceHeader1:
        """The header in the version that the run was recorded in: what is hashed and stored."""
        return self.header if self.version_1 is None else self.version_1

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """(name, values) of everything recorded, as a file stores it: flat, of symmetric Grams the (S(S + 1) / 2,) upper triangle.

        Of the sampler map, which uses no later output than there is, the lower triangle.
        """
        yield "timesteps", self.timesteps
        yield "sigmas", self.sigmas
        if self.sampler_map is not None and self.version_1 is None:
            yield SAMPLER_MAP, self.sampler_map[np.tril_indices(self.num_steps + 1)]
        for signal, by_branch in self.signal_distances.items():
            yield from ((f"signal/{signal}/{branch}", values) for branch, values in by_branch.items())
        yield from ((f"output_distance/{branch}", values) for branch, values in self.output_distances.items())
        yield from ((f"residual_distance/{branch}", values) for branch, values in self.residual_distances.items())
        upper = np.triu_indices(self.num_steps)
        yield from (
            (f"gram/{name}", gram.reshape(-1) if CROSS in name else gram[upper]) for name, gram in self.grams.items()
        )

    @classmethod
    def from_arrays(cls, header: TraceHeader | TraceHeader1, arrays: Mapping[str, Array]) -> Trace:
        """The inverse of ``arrays``; a header of version 1 is read as version 2 says the same.

        Raises:
            InvalidTrace: a missing, unknown or wrongly shaped array, or one that breaks a rule of ``Trace``.
        """
        rest, version_1 = dict(arrays), header if isinstance(header, TraceHeader1) else None
        known = ("timesteps", "sigmas") if version_1 else ("timesteps", "sigmas", SAMPLER_MAP)
        flat = {name: rest.pop(name) for name in known if name in rest}
        if not {"timesteps", "sigmas"} <= set(flat):
            raise InvalidTrace(header.model_key, "timesteps or sigmas are missing", rule="trace.shape")
        groups: dict[str, dict[str, Array]] = {"signal": {}, "output_distance": {}, "residual_distance": {}, "gram": {}}
        for name, values in sorted(rest.items()):
            kind, _, key = name.partition("/")
            if kind not in groups or not key:
                raise InvalidTrace(header.model_key, f"an array of the unknown name {name[:80]!r}", rule="trace.shape")
            groups[kind][key] = values
        signals: dict[str, dict[str, Array]] = {}
        for name, values in groups["signal"].items():
            signal, _, branch = name.partition("/")
            signals.setdefault(signal, {})[branch] = values
        steps = header.num_steps
        grams = {
            name: _square(values, steps) if CROSS in name else _unpack(values, steps)
            for name, values in groups["gram"].items()
        }
        if isinstance(header, TraceHeader1):
            if flat["sigmas"].shape != (steps + 1,):
                shape = flat["sigmas"].shape
                raise InvalidTrace(
                    header.model_key, f"sigmas has shape {shape}; expected {(steps + 1,)}", rule="trace.shape"
                )
            header = _newest(header, flat["sigmas"])
        stored = flat.get(SAMPLER_MAP)
        sampler_map = _derived_map(header, flat["sigmas"]) if version_1 else _lower(stored, steps + 1)
        return cls(header, flat["timesteps"], flat["sigmas"], signals, groups["output_distance"],
                   groups["residual_distance"], grams, sampler_map, version_1)  # fmt: skip

    def _check_names(self) -> None:
        branches = set(self.header.branches)
        if set(self.signal_distances) != set(self.header.signals):
            self._refuse(
                f"distances of {sorted(self.signal_distances)}; the header names {sorted(self.header.signals)}"
            )
        named = {f"signal {name}": values for name, values in self.signal_distances.items()}
        named |= {"output distances": self.output_distances, "residual distances": self.residual_distances}
        for name, by_branch in named.items():
            if set(by_branch) != branches:
                self._refuse(f"{name} of branches {sorted(by_branch)}; the header names {sorted(branches)}")
        allowed = {prefix + name for prefix in PREFIXES for name in (*branches, GUIDED)}
        allowed |= {CROSS.join(pair) for pair in self._pairs()}
        if not branches <= set(self.grams) <= allowed:
            self._refuse(f"Gram matrices {sorted(self.grams)}; expected {sorted(branches)}, at most {sorted(allowed)}")

    def _pairs(self) -> list[tuple[str, str]]:
        """Names whose rows may have inner products with each other, each pair in the header's order."""
        pairs = combinations(self.header.branches, 2)
        return [(prefix + a, prefix + b) for a, b in pairs for prefix in PREFIXES]

    def _check_arrays(self) -> None:
        steps = self.num_steps
        self._check_array("timesteps", self.timesteps, (steps,))
        self._check_array("sigmas", self.sigmas, (steps + 1,))
        for name, gram in self.grams.items():
            if CROSS not in name:
                self._check_gram(name, gram)
        for a, b in self._pairs():
            if CROSS.join((a, b)) in self.grams:
                self._check_cross(a, b)
        self._check_sampler()
        turns = np.sign(np.diff(self.timesteps))
        if np.min(turns, initial=0.0) * np.max(turns, initial=0.0) < 0:
            self._refuse("timesteps rise and fall; expected noise to image", rule="trace.timesteps")
        if np.any(np.diff(self.sigmas) >= 0) or self.sigmas[-1] < 0:
            self._refuse("sigmas must fall strictly and end at 0 or above", rule="trace.timesteps")
        for name, values in self.arrays():
            if name.partition("/")[0] in ("signal", "output_distance", "residual_distance"):
                self._check_array(name, values, (steps - 1,))
                if np.any(values < 0):
                    self._refuse(f"{name} holds a negative distance", rule="trace.distance")

    def _check_gram(self, name: str, gram: Array) -> None:
        self._check_array(f"gram/{name}", gram, (self.num_steps, self.num_steps))
        scale = float(np.max(np.abs(gram)))
        if np.max(np.abs(gram - gram.T)) > 0:
            self._refuse(f"gram/{name} is not symmetric; store (G + Gᵀ) / 2", rule="trace.gram")
        if scale and not _is_positive(gram + NEGATIVE_TOLERANCE * scale * np.eye(len(gram))):
            self._refuse(
                f"gram/{name} is not positive semi-definite: no residuals have these products", rule="trace.gram"
            )

    def _check_cross(self, a: str, b: str) -> None:
        name = CROSS.join((a, b))
        self._check_array(f"gram/{name}", self.grams[name], (self.num_steps, self.num_steps))
        if a not in self.grams or b not in self.grams:
            self._refuse(f"gram/{name} without gram/{a} and gram/{b}; it says nothing alone", rule="trace.gram")
        cross = self.grams[name]
        joint = np.block([[self.grams[a], cross], [cross.T, self.grams[b]]])
        scale = float(np.max(np.abs(joint)))
        if scale and not _is_positive(joint + NEGATIVE_TOLERANCE * scale * np.eye(len(joint))):
            self._refuse(
                f"gram/{name} is not positive semi-definite with gram/{a} and gram/{b}: no rows have these products",
                rule="trace.gram",
            )

    def _check_sampler(self) -> None:
        sampler = self.header.sampler
        whole = sampler is not None and sampler.calls == self.num_steps
        if sampler is not None and whole and sampler.levels is not None:
            apart = float(np.max(np.abs(np.array(sampler.levels) - self.sigmas)))
            if apart > SAME_LEVELS * float(np.max(self.sigmas)):
                self._refuse(f"the sampler's levels differ from sigmas by up to {apart:.3g}", rule="trace.sampler")
        if self.sampler_map is None:
            return
        if sampler is None or not whole:
            self._refuse("a sampler map without the sampler of these steps in the header", rule="trace.sampler")
            return
        self._check_array(SAMPLER_MAP, self.sampler_map, (self.num_steps + 1, self.num_steps + 1))
        if np.any(np.triu(self.sampler_map, 1)):
            self._refuse("the sampler map uses outputs before they are computed", rule="trace.sampler")
        if sampler.signature is not None and not agree(sampler.signature, signature_of(self.sampler_map)):
            self._refuse("the sampler map has another signature than the header's sampler", rule="trace.sampler")

    def _check_array(self, name: str, values: Array, shape: tuple[int, ...]) -> None:
        if values.shape != shape:
            self._refuse(f"{name} has shape {values.shape}; expected {shape}", rule="trace.shape")
        if not np.all(np.isfinite(values)):
            self._refuse(f"{name} holds NaN or infinity; record the run again", rule="trace.nan")

    def _refuse(self, reason: str, *, rule: str = "trace.shape") -> None:
        raise InvalidTrace(self.label, reason, rule=rule)


def _new_in_2(name: str) -> bool:
    """Whether version 1 has no array of this name."""
    return name == SAMPLER_MAP or CROSS in name or name.startswith(f"gram/{FEATURE_PREFIX}")


def _hashed(arrays: Iterable[tuple[str, Array]]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(arrays, key=lambda item: item[0]):
        digest.update(f"{name}\0{values.size}\0".encode())
        digest.update(values.astype("<f8").tobytes())
    return digest.hexdigest()


def _frozen(values: Array) -> Array:
    # A copy, so that nobody who still holds the original can change a trace after it was checked and hashed.
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


def _frozen_mapping(values: Mapping[str, Array]) -> Mapping[str, Array]:
    return MappingProxyType({name: _frozen(array) for name, array in values.items()})


def _unpack(upper: Array, size: int) -> Array:
    if upper.shape != (size * (size + 1) // 2,):
        return upper  # the shape check names it
    gram = np.zeros((size, size))
    gram[np.triu_indices(size)] = upper
    gram += np.triu(gram, 1).T
    return gram


def _square(flat: Array, size: int) -> Array:
    return flat.reshape(size, size) if flat.shape == (size * size,) else flat


def _lower(flat: Array | None, size: int) -> Array | None:
    if flat is None or flat.shape != (size * (size + 1) // 2,):
        return flat
    rows = np.zeros((size, size))
    rows[np.tril_indices(size)] = flat
    return rows


def _newest(header: TraceHeader1, sigmas: Array) -> TraceHeader:
    try:
        return trace_version_1.upgraded(header, tuple(sigmas.tolist()))
    except ValidationError as error:
        # Noise levels that no sampler has: the checks of arrays say the same of them.
        reason = f"sigmas: {error.errors(include_url=False)[0]['msg']}"
        raise InvalidTrace(header.model_key, reason, rule="trace.timesteps") from error


def _derived_map(header: TraceHeader, sigmas: Array) -> Array | None:
    """Euler's map over these levels, where that is the sampler; None where nobody knows."""
    sampler = header.sampler
    if sampler is None or sampler.name != EULER or sampler.calls != header.num_steps:
        return None
    return euler_map(sigmas)


def _is_positive(matrix: Array) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
