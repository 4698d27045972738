"""What a node or a plug-in asks for: where the plan comes from, for which model, how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from easyteacache.errors import InvalidCalibration
from easyteacache.policy.model_choice import ModelResolver
from easyteacache.policy.quality import Quality
from easyteacache.policy.record_free import EVEN, UNIVERSAL, OrUniversal
from easyteacache.policy.request import Request, RunContext
from easyteacache.policy.source import PolicySource, Resolver
from easyteacache.registry.registry import Registry
from easyteacache.runtime.session import Session

#: ``registry``: records of the model; ``registry or uncalibrated``: the universal plan where they offer nothing; ``uncalibrated``,
#: ``even``: plans without a record; ``exact``: every step is computed.
PlanSource = Literal["registry", "registry or uncalibrated", "uncalibrated", "even", "exact"]
SOURCES: tuple[PlanSource, ...] = ("registry", "registry or uncalibrated", "uncalibrated", "even", "exact")


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        source: where the plan comes from.
        key: the model's key or an exact alias; needed for ``registry``.
        speedup: steps divided by computed steps to reach, at least 1; 1 computes every step.
        unknown: why there is no key, a sentence; None where there is one.
        quality: a level of ``policy/quality.py`` in place of the speed-up, which only records can meet; None: the speed-up.
    """

    source: PlanSource = "registry"
    key: str | None = None
    speedup: float = 2.0
    unknown: str | None = None
    quality: Quality | None = None

    @property
    def exact(self) -> bool:
        """Every step is computed, and outputs are those without the cache bit for bit."""
        return self.source == "exact" or self.quality == "exact" or (self.quality is None and self.speedup <= 1.0)

    @property
    def request(self) -> Request:
        """The same as a session takes it."""
        return Request(speedup=self.speedup) if self.quality is None else Request(quality=self.quality)

    def session(self, run: RunContext) -> Session:
        """The session of one run.

        Raises:
            UnknownModelKey: no layer of the registry holds the key.
            UnreachableTarget: no operating point reaches the speed-up.
            InvalidCalibration: there is no key, or the record is damaged.
        """
        return Session(self._source(), self.request, run)

    def _source(self) -> PolicySource:
        if self.source == "even":
            return EVEN
        if self.source == "uncalibrated":
            return UNIVERSAL
        fallback = self.source == "registry or uncalibrated"
        if self.key is None:
            why = self.unknown or "no model key is given"
            if fallback:
                return UNIVERSAL.because(why)
            raise InvalidCalibration("model_key", why)
        try:
            found = Registry.default().meant_by(self.key)
        except LookupError as error:
            if not fallback:
                raise
            return UNIVERSAL.because(f"No record holds: {error}")
        source: PolicySource = Resolver(found[0]) if len(found) == 1 else ModelResolver(found)
        return OrUniversal(source) if fallback else source
