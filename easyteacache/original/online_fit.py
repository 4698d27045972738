"""The original project's two modes on its own JSON file: apply the fits of a file, or record points and write it."""

from __future__ import annotations

import math
import os
import weakref
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easyteacache.errors import InvalidCalibration, InvalidSignal
from easyteacache.original import cache_json
from easyteacache.original.cache_json import Point, TeaCacheConfig
from easyteacache.policy.policy import BucketShare, Policy
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.skip_window import given_window
from easyteacache.runtime.branch_state import expect_order
from easyteacache.runtime.tensor_math import alike, relative_l1

if TYPE_CHECKING:
    import torch

ORDER = 4
# After the first fit the file is written whenever this share of its points is new: a kill loses no more.
NEW_SHARE = 0.1


class SeedPolicies:
    """Policies from the fits of an original file: the nearest sequence length, as the original chooses.

    Args:
        configs: at least one fit.
        keys: the file's keys, for messages.
    """

    def __init__(self, configs: Sequence[TeaCacheConfig], keys: Sequence[str]) -> None:
        self._configs, self._keys = tuple(configs), tuple(keys)

    @property
    def signals(self) -> tuple[str, ...]:
        """The original's, whatever its caller measures."""
        return ("t_mod",)

    def policy(self, request: Request, run: RunContext) -> Policy:
        """The policy of the fit whose length is nearest; the original's files know no time shift."""
        length, notes = run.sequence_length, list[str]()
        config = min(self._configs, key=lambda entry: abs((length or 0) - entry.fit_length))
        if length is not None and length != config.fit_length:
            notes.append(f"Sequence length {length}: the nearest fit, at {config.fit_length}, is used.")
        window = given_window(request, notes, num_steps=run.num_steps)
        return Policy(
            model_key="/".join(self._keys),
            revision=0,
            status="local file",
            layer="file",
            signal="t_mod",
            curve=config.curve,
            threshold=request.threshold or 0.0,
            first_skip_step=window.first,
            last_skip_step=window.last,
            max_consecutive_skips=window.max_consecutive_skips,
            buckets=(BucketShare(config.fit_length, None, None, 1.0),),
            forecaster=request.predictor or "hold",
            sequence_length=length,
            num_steps=run.num_steps,
            shift=run.shift,
            notes=tuple(notes),
        )


class SeedSource:
    """What the original's constructor arguments name; the file is read when its fit is first needed.

    Args:
        configs: fits to use instead of the file's.
        model_keys: nested keys in the file; one text means one key.
        path: the file.
    """

    def __init__(
        self,
        configs: TeaCacheConfig | Sequence[TeaCacheConfig] | None,
        model_keys: str | Sequence[str] | None,
        path: str | os.PathLike[str],
    ) -> None:
        self.keys = [model_keys] if isinstance(model_keys, str) else list(model_keys or [])
        self.path = Path(path)
        self._configs = [configs] if isinstance(configs, TeaCacheConfig) else configs

    def load(self) -> SeedPolicies:
        """The fits.

        Raises:
            InvalidCalibration: the file is missing, unreadable or malformed, or a fit has no coefficients.
            UnknownModelKey: the file holds nothing under the keys.
        """
        if self._configs is not None:
            if not self._configs or not all(config.coefficients for config in self._configs):
                raise InvalidCalibration(
                    "configs", "expected at least one fit, each with coefficients", rule="seed.schema"
                )
            return SeedPolicies(self._configs, self.keys)
        cache_json.check_keys(self.keys, "speed mode needs model_keys= (or configs=) to find its fit")
        return SeedPolicies(cache_json.read(self.path, self.keys), self.keys)


class _Points:
    """Points that are not in the file yet, and how to write them; outlives the solver until they are."""

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path, self.keys = path, tuple(keys)
        self.new: dict[int, list[Point]] = defaultdict(list)
        self.written: dict[int, int] = {}
        self._process = os.getpid()

    def add(self, length: int, point: Point) -> None:
        self.new[length].append(point)
        count, written = len(self.new[length]), self.written.get(length, 0)
        if count > ORDER and count >= NEW_SHARE * written:
            self.save()

    def save(self) -> None:
        """Write what makes or improves a fit; raises as ``cache_json.merge`` does, losing none."""
        ready = {
            length: points
            for length, points in self.new.items()
            if points and (length in self.written or len(points) > ORDER)
        }
        if not ready:
            return
        cache_json.merge(self.path, self.keys, ready, order=ORDER)
        for length, points in ready.items():
            self.written[length] = self.written.get(length, 0) + len(points)
            del self.new[length]

    def finish(self) -> None:
        """The solver is gone. A forked process inherits points that are its parent's to write."""
        if os.getpid() == self._process:
            self.save()


class SeedSolver:
    """Solve mode: records ``(x, y)`` of consecutive steps and writes the file as soon as a fit is possible.

    x is the relative change of the *gate's own* signal (the original recorded the block input, but gated on ``t_mod``), y that of
    the block-stack output. Branches are kept apart; their points go into one fit. What is left is written at the end of a
    run, with ``clear_cache``, and when the solver or the interpreter goes away.

    Args:
        path: the file to add to.
        keys: nested keys, at least one.

    Raises:
        InvalidCalibration: there is a file that cannot be read or added to, or no file can be made there; better now than
            after a long run.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        cache_json.check_keys(keys, "solve mode needs model_keys= to know where to file the fit")
        cache_json.check_writable(path, keys)
        self._previous: dict[str, tuple[int, int, torch.Tensor, torch.Tensor]] = {}
        self._points = _Points(path, keys)
        weakref.finalize(self, self._points.finish)

    def __reduce__(self) -> tuple[type[SeedSolver], tuple[Path, tuple[str, ...]]]:
        # A copy records for itself: points of one run must not be written twice.
        return SeedSolver, (self._points.path, self._points.keys)

    def observe(self, step: int, signal: torch.Tensor, output: torch.Tensor, *, length: int, branch: str) -> None:
        """One computed step: signal of any shape, block-stack output ``(B, L, D)``.

        Raises:
            StepOrderError: the same step twice on one branch, or a step before the last one.
            InvalidSignal: a distance is not a number.
        """
        previous = self._previous.get(branch)
        if previous is not None and step == 0:
            self.end_run()
            previous = None
        expect_order(step, -1 if previous is None else previous[0], branch)
        # Clones: the sampler goes on to change its tensors in place.
        self._previous[branch] = (step, length, signal.detach().clone(), output.detach().clone())
        if previous is None or previous[0] + 1 != step or previous[1] != length:
            return
        if not (alike(previous[2], signal) and alike(previous[3], output)):
            return
        x, y = relative_l1(signal, previous[2]), relative_l1(output, previous[3])
        if math.isnan(x) or math.isnan(y):
            raise InvalidSignal("t_mod" if math.isnan(x) else "output_latent", f"holds NaN at step {step}")
        # A change from all zeros has no relative size; there is nothing to learn from it.
        if math.isfinite(x) and math.isfinite(y):
            self._points.add(length, (x, y))

    def end_run(self) -> None:
        """A run is over: write what is there and forget the last tensors."""
        self._previous.clear()
        self._points.save()
