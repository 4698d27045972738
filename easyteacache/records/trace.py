"""One run as a trace: everything a calibration can be fitted to, and nothing that shows what was generated.

A trace holds distances and Gram matrices only. With G[i, j] = ⟨r_i, r_j⟩ over the residuals r of one run, the error of
any schedule filled by any linear forecaster follows without the model:
‖Σ w_k r_k − r_j‖² = wᵀGw − 2 wᵀG[:, j] + G[j, j].
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from easyteacache.errors import InvalidModelKey, InvalidTrace
from easyteacache.records import model_key as model_keys
from easyteacache.records.calibration import Branch, Signal
from easyteacache.records.provenance import Count, IsoDate, LongText, ModelKey, Record, Sha256, ShortText

TRACE_VERSION = 1
MAX_STEPS = 1000
GUIDED = "guided"
OUTPUT_PREFIX = "output:"
# Relative to the largest entry; wide enough for products that an accelerator summed in single precision.
NEGATIVE_TOLERANCE = 1e-6

Array = NDArray[np.float64]


class SketchInfo(Record):
    """How residuals too large to keep were reduced before their inner products were taken."""

    kind: Literal["count", "tokens"] = Field(
        description="`count`: seeded linear count-sketch; `tokens`: a seeded sample of the tokens."
    )
    dimension: Count = Field(description="Numbers kept of each residual, at least 1.")
    seed: Annotated[int, Field(ge=0)] = Field(description="Seed of the random signs and positions, 0 or more.")
    relative_error: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Expected relative error (one standard deviation) of an error norm, 0 or more; 0.01 = 1 %.",
    )


class TraceHeader(Record):
    """What produced one run; together with the numbers it is what the run's hash is taken over."""

    trace_version: Literal[1] = Field(default=1, description="Version of the trace format.")
    model_key: ModelKey = Field(description="Hierarchical name of the model, `family/variant[/part]`.")
    checkpoint: ShortText | None = Field(default=None, description="Checkpoint that ran, as Hub repository id or hash.")
    signals: tuple[Signal, ...] = Field(description="Signals whose distances were recorded.")
    branches: Annotated[tuple[Branch, ...], Field(min_length=1, max_length=8)] = Field(
        description="Streams of forwards recorded separately, for example `cond` and `uncond`."
    )
    part: Branch | None = Field(default=None, description="Expert that ran these steps, for example `high-noise`.")
    num_steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] = Field(description="Steps S of the run, 2 to 1000.")
    total_steps: Annotated[int, Field(ge=2, le=MAX_STEPS)] | None = Field(
        default=None, description="Steps of the whole run where `part` ran some of them, 2 to 1000; null: `num_steps`."
    )
    sequence_length: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        description="Tokens of the generated stream entering the blocks, at least 1."
    )
    frames: Count | None = Field(default=None, description="Generated frames, at least 1; 1 for images.")
    height: Count | None = Field(default=None, description="Generated height, pixels, at least 1.")
    width: Count | None = Field(default=None, description="Generated width, pixels, at least 1.")
    batch_size: Count = Field(default=1, description="Samples that ran together, at least 1.")
    sampler: ShortText | None = Field(default=None, description="Sampler or scheduler class.")
    shift: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Flow-matching time shift, dimensionless, above 0; null where the sampler has none."
    )
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Guidance the run was sampled with, dimensionless, 0 or more: g of v_uncond + g (v_cond − v_uncond) "
        "where both branches ran, else what the model itself was told; null without guidance.",
    )
    prediction: Literal["velocity", "epsilon", "x0", "unknown"] = Field(
        default="unknown", description="What the model's output is."
    )
    dtype: ShortText = Field(default="float32", description="Number type the model ran in, for example `bfloat16`.")
    prompt: LongText | None = Field(default=None, description="Prompt of the run, where it may be published.")
    prompt_sha256: Sha256 | None = Field(default=None, description="SHA-256 of the prompt's UTF-8 text.")
    seed: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Seed of the initial noise, 0 or more.")
    sketch: SketchInfo | None = Field(default=None, description="Null where the inner products are exact.")
    tool_version: ShortText | None = Field(default=None, description="Release of this package that recorded the run.")
    recorded_at: IsoDate | None = Field(default=None, description="Date of the recording, YYYY-MM-DD.")

    @model_validator(mode="after")
    def _consistent(self) -> TraceHeader:
        try:
            model_keys.parse(self.model_key)
        except InvalidModelKey as error:
            raise ValueError(str(error)) from error
        for name in ("signals", "branches"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} lists a name twice")
        if GUIDED in self.branches:
            raise ValueError(f"a branch may not be called {GUIDED!r}: that is the combination of the branches")
        return self

    @property
    def moves(self) -> bool:
        """Whether it sampled a video, and not an image."""
        return (self.frames or 1) > 1

    def identity(self) -> str:
        """What the run's hash covers, as JSON: every field but the release and the date that recorded it."""
        # Absent fields are left out, so that a field added to the format later does not change old runs' ids.
        content = self.model_dump(mode="json", exclude={"tool_version", "recorded_at"}, exclude_none=True)
        return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, eq=False)
class Trace:
    """One full uncached run; S = ``header.num_steps``. A trace that exists is consistent.

    Attributes:
        header: what produced the run.
        timesteps: (S,) noise level handed to the model at each step, in the model's own unit, never rising.
        sigmas: (S + 1,) noise level before each step and after the last, strictly falling, 0 or more; 1 = pure noise.
        signal_distances: [signal][branch] → (S − 1,) relative L1 between steps k and k + 1, mean|a − b| / mean|b|,
            b the earlier one (arXiv 2411.19108), 0 or more.
        output_distances: [branch] → (S − 1,), the same of the block-stack output.
        residual_distances: [branch] → (S − 1,), the same of the residual (block-stack output − input).
        grams: name → (S, S) symmetric positive semi-definite inner products. A branch's name: its residuals;
            ``guided``: the guidance-combined residual; ``output:`` before either: the model's final output instead.

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

    def __post_init__(self) -> None:
        for name in ("timesteps", "sigmas"):
            self._set(name, _frozen(getattr(self, name)))
        signals = {name: _frozen_mapping(by_branch) for name, by_branch in self.signal_distances.items()}
        self._set("signal_distances", MappingProxyType(signals))
        for name in ("output_distances", "residual_distances", "grams"):
            self._set(name, _frozen_mapping(getattr(self, name)))
        self._check_names()
        self._check_arrays()

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
        """SHA-256 of the numbers alone, in hexadecimal: relabelling a run does not change it."""
        digest = hashlib.sha256()
        for name, values in sorted(self.arrays()):
            digest.update(f"{name}\0{values.size}\0".encode())
            digest.update(values.astype("<f8").tobytes())
        return digest.hexdigest()

    @cached_property
    def run_id(self) -> str:
        """SHA-256 of the header's identity and the numbers, in hexadecimal: equal content, equal id."""
        return hashlib.sha256(f"{self.header.identity()}\0{self.content_id}".encode()).hexdigest()

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """(name, values) of everything recorded, as a file stores it: of a Gram the (S(S + 1) / 2,) upper triangle."""
        yield "timesteps", self.timesteps
        yield "sigmas", self.sigmas
        for signal, by_branch in self.signal_distances.items():
            yield from ((f"signal/{signal}/{branch}", values) for branch, values in by_branch.items())
        yield from ((f"output_distance/{branch}", values) for branch, values in self.output_distances.items())
        yield from ((f"residual_distance/{branch}", values) for branch, values in self.residual_distances.items())
        upper = np.triu_indices(self.num_steps)
        yield from ((f"gram/{name}", gram[upper]) for name, gram in self.grams.items())

    @classmethod
    def from_arrays(cls, header: TraceHeader, arrays: Mapping[str, Array]) -> Trace:
        """The inverse of ``arrays``.

        Raises:
            InvalidTrace: a missing, unknown or wrongly shaped array, or one that breaks a rule of ``Trace``.
        """
        rest = dict(arrays)
        flat = {name: rest.pop(name) for name in ("timesteps", "sigmas") if name in rest}
        if len(flat) < 2:
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
        grams = {name: _unpack(values, header.num_steps) for name, values in groups["gram"].items()}
        return cls(header, flat["timesteps"], flat["sigmas"], signals, groups["output_distance"],
                   groups["residual_distance"], grams)  # fmt: skip

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
        allowed = branches | {GUIDED}
        allowed |= {OUTPUT_PREFIX + name for name in allowed}
        if not branches <= set(self.grams) <= allowed:
            self._refuse(f"Gram matrices {sorted(self.grams)}; expected {sorted(branches)}, at most {sorted(allowed)}")

    def _check_arrays(self) -> None:
        steps = self.num_steps
        self._check_array("timesteps", self.timesteps, (steps,))
        self._check_array("sigmas", self.sigmas, (steps + 1,))
        for name, gram in self.grams.items():
            self._check_gram(name, gram)
        if np.any(np.diff(self.timesteps) > 0):
            self._refuse("timesteps rise; expected noise to image", rule="trace.timesteps")
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

    def _check_array(self, name: str, values: Array, shape: tuple[int, ...]) -> None:
        if values.shape != shape:
            self._refuse(f"{name} has shape {values.shape}; expected {shape}", rule="trace.shape")
        if not np.all(np.isfinite(values)):
            self._refuse(f"{name} holds NaN or infinity; record the run again", rule="trace.nan")

    def _refuse(self, reason: str, *, rule: str = "trace.shape") -> None:
        raise InvalidTrace(self.label, reason, rule=rule)


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


def _is_positive(matrix: Array) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
