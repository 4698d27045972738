"""What a predictor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from typing_extensions import Self

Axis = Literal["step", "timestep", "sigma"]
Place = Literal["residual", "feature", "output"]

#: The record's own choice for its operating point: what validation found best there.
AUTO = "auto"
#: Rows that an operating point holds, step by step.
FITTED = "fitted"


class Predictor(ABC):
    """Predicts what a reused step would give from earlier computed steps.

    A subclass that is registered (``registry.register_predictor``) is found by its names everywhere. The first line of its docstring is
    its entry in the documentation.

    Attributes:
        names: what it is called in records and arguments, simplest first; at least one.
        pattern: a regular expression of further names, which carry parameters; empty: none.
        spelling: how such names are spelled, for people.
        axes: what it may run along; the solver tries each.
        places: what it may be applied to.
        candidates: the names among which the solver searches; None: all of ``names``.
        sampled: those that a search which samples plans with the model tries as well.
        needs_levels: the weights depend on the noise levels of the run (``over``).
    """

    __slots__ = ()

    names: ClassVar[tuple[str, ...]]
    pattern: ClassVar[str] = ""
    spelling: ClassVar[str] = ""
    axes: ClassVar[tuple[Axis, ...]] = ("step", "timestep", "sigma")
    places: ClassVar[tuple[Place, ...]] = ("residual", "feature", "output")
    candidates: ClassVar[tuple[str, ...] | None] = None
    sampled: ClassVar[tuple[str, ...]] = ()
    needs_levels: ClassVar[bool] = False

    #: The name it is stored under in records.
    name: str
    #: Most computed steps it looks at, 1 or more.
    history: int

    @classmethod
    def named(cls, name: str) -> Self:
        """The predictor of this family that ``name``, one of its names, means."""
        return cls()

    @classmethod
    def searched(cls) -> tuple[str, ...]:
        """The names among which the solver searches."""
        return cls.names if cls.candidates is None else cls.candidates

    def over(self, levels: Sequence[float]) -> Predictor:
        """The same predictor for a run over these noise levels, (S + 1,) with the sample's last; itself where they do not matter."""
        return self

    @abstractmethod
    def weights(self, anchors: Sequence[float], at: float, *, reused: Sequence[float] = ()) -> tuple[float, ...]:
        """One weight per anchor.

        Args:
            anchors: coordinates (step, timestep or sigma) of the last computed steps, oldest first, at least one and at
                most ``history``; no coordinate twice.
            at: coordinate of the step to predict, beyond the last anchor.
            reused: coordinates of the reused steps since the first anchor, in order; only recursive predictors look.
        """

    def rows(
        self, computed: Sequence[int], num_steps: int, *, places: Sequence[float] | None = None
    ) -> tuple[tuple[float, ...], ...]:
        """The normal form for one schedule: per step the weights of the last computed steps up to and including it, oldest first.

        Args:
            computed: the computed steps, ascending, the first of them 0.
            num_steps: S.
            places: (S,) coordinate of every step; None: its index.
        """
        at = [float(step) for step in range(num_steps)] if places is None else list(places)
        rows: list[tuple[float, ...]] = []
        anchors: list[int] = []
        chosen = set(computed)
        for step in range(num_steps):
            if step in chosen:
                anchors = [*anchors, step][-self.history :]
                rows.append((1.0,))
                continue
            reused = [at[k] for k in range(anchors[0], step) if k not in anchors]
            rows.append(self.weights([at[k] for k in anchors], at[step], reused=reused))
        return tuple(rows)
