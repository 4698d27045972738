"""The original project's two modes on its own JSON file: apply the fits of a file, or record points and write it."""

from __future__ import annotations

import atexit
import os
import weakref
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easyteacache import seed_file
from easyteacache.distance import relative_l1
from easyteacache.errors import InvalidCalibration
from easyteacache.policy import NO_STEP, BucketShare, Policy, Setting, from_end
from easyteacache.seed_file import Point, TeaCacheConfig

if TYPE_CHECKING:
    import torch

ORDER = 4
# After the first file a write every so many points bounds what a kill can lose.
WRITE_EVERY = 50


class SeedPolicies:
    """Policies from the fits of an original file: the nearest sequence length, as the original chooses.

    Args:
        configs: at least one fit.
        keys: the file's keys, for messages.
        setting: window, threshold and forecaster.
    """

    def __init__(self, configs: Sequence[TeaCacheConfig], keys: Sequence[str], setting: Setting) -> None:
        self._configs, self._keys, self._setting = tuple(configs), tuple(keys), setting

    def policy(self, *, sequence_length: int | None, num_steps: int | None) -> Policy:
        """The policy of the fit whose length is nearest."""
        config = min(self._configs, key=lambda entry: abs((sequence_length or 0) - entry.fit_length))
        setting, notes = self._setting, []
        if sequence_length is not None and sequence_length != config.fit_length:
            notes.append(f"Sequence length {sequence_length}: the nearest fit, at {config.fit_length}, is used.")
        last = from_end(-1 if setting.max_skip_step is None else setting.max_skip_step, num_steps)
        if last == NO_STEP:
            notes.append(
                "The window ends before the last step, but the step count is not known: every step is computed. Pass num_steps=."
            )
        return Policy(
            model_key="/".join(self._keys),
            revision=0,
            status="local file",
            layer="file",
            signal="t_mod",
            curve=config.curve,
            threshold=setting.threshold or 0.0,
            first_skip_step=setting.min_skip_step or 0,
            last_skip_step=last,
            max_consecutive_skips=setting.max_consecutive_skips,
            buckets=(BucketShare(config.fit_length, None, None, 1.0),),
            forecaster=setting.forecaster or "hold",
            sequence_length=sequence_length,
            num_steps=num_steps,
            notes=tuple(notes),
        )

    def with_setting(self, setting: Setting) -> SeedPolicies:
        """The same fits with another window or threshold."""
        return SeedPolicies(self._configs, self._keys, setting)


def policies_of(
    configs: TeaCacheConfig | Sequence[TeaCacheConfig] | None,
    keys: Sequence[str],
    path: str | os.PathLike[str],
    setting: Setting,
    *,
    needed: bool,
) -> SeedPolicies | None:
    """What the original's constructor arguments name; None when there is nothing and nothing is needed.

    Raises:
        InvalidCalibration: the file is missing, unreadable or malformed, or a fit has no coefficients.
        UnknownModelKey: the file holds nothing under ``keys``.
    """
    if configs is not None:
        given = (configs,) if isinstance(configs, TeaCacheConfig) else tuple(configs)
        if not given or not all(config.coefficients for config in given):
            raise InvalidCalibration("configs", "expected at least one fit, each with coefficients", rule="seed.schema")
        return SeedPolicies(given, keys, setting)
    if not needed:
        return None
    if not keys:
        raise InvalidCalibration(
            "model_keys", "speed mode needs model_keys= (or configs=) to find its fit", rule="seed.schema"
        )
    return SeedPolicies(seed_file.read(path, keys), keys, setting)


class SeedSolver:
    """Solve mode: records ``(x, y)`` of consecutive steps and writes the file as soon as a fit is possible.

    x is the relative change of the *gate's own* signal (the original recorded the block input, but gated on ``t_mod``), y that of
    the block-stack output. Branches are kept apart; their points go into one fit.

    Args:
        path: the file to add to.
        keys: nested keys, at least one.

    Raises:
        InvalidCalibration: there is a file that cannot be read; better now than after a long run.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        if not keys:
            raise InvalidCalibration(
                "model_keys", "solve mode needs model_keys= to know where to file the fit", rule="seed.schema"
            )
        seed_file.check_writable(path)
        self._path, self._keys = path, tuple(keys)
        self._previous: dict[str, tuple[int, int, torch.Tensor, torch.Tensor]] = {}
        self._points: dict[int, list[Point]] = defaultdict(list)
        self._written: set[int] = set()
        # A reference that does not keep the solver alive; the last points are written when the interpreter ends.
        atexit.register(_save_if_alive, weakref.ref(self))

    def observe(self, step: int, signal: torch.Tensor, output: torch.Tensor, *, length: int, branch: str) -> None:
        """One computed step: signal of any shape, block-stack output ``(B, L, D)``."""
        previous = self._previous.get(branch)
        # Clones: the sampler goes on to change its tensors in place.
        self._previous[branch] = (step, length, signal.detach().clone(), output.detach().clone())
        if step == 0 and previous is not None and branch == next(iter(self._previous)):
            self.save()
        if previous is None or previous[0] + 1 != step or previous[1] != length:
            return
        if previous[2].shape != signal.shape or previous[3].shape != output.shape:
            return
        self._points[length].append((relative_l1(signal, previous[2]), relative_l1(output, previous[3])))
        count = len(self._points[length])
        if (length not in self._written and count > ORDER) or count >= WRITE_EVERY:
            self.save()

    def end_run(self) -> None:
        """A run is over: write what is there and forget the last tensors."""
        self.save()
        self._previous.clear()

    def save(self) -> None:
        """Write the points that are not in the file yet; raises as ``seed_file.merge`` does, losing none."""
        ready = {
            length: points
            for length, points in self._points.items()
            if points and (length in self._written or len(points) > ORDER)
        }
        if not ready:
            return
        seed_file.merge(self._path, self._keys, ready, order=ORDER)
        for length in ready:
            self._written.add(length)
            del self._points[length]


def _save_if_alive(reference: weakref.ref[SeedSolver]) -> None:
    solver = reference()
    if solver is not None:
        solver.save()
