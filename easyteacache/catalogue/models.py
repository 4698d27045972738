"""The models of a registry with all their records, as pages show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from easyteacache.audit.known_coefficients import Known
from easyteacache.catalogue.exports import Exporting, Refusal
from easyteacache.catalogue.setting import Setting, settings_of
from easyteacache.catalogue.usage import Asking
from easyteacache.errors import EasyTeaCacheError
from easyteacache.pages.chart import Chart, Dot, quality_chart, tier_chart
from easyteacache.pages.tiers import Tier, tier_named
from easyteacache.policy.figures import METRICS
from easyteacache.policy.model_choice import applicable
from easyteacache.records.calibration import Calibration
from easyteacache.registry.family import model_of, names_method
from easyteacache.registry.registry import Found, Registry

#: What people ask for first.
USUAL_SPEED = 2.0
_X_LABEL = "speed-up: as measured or stated, else steps ÷ computed steps"
_TITLES: Mapping[str, tuple[str, str]] = {
    "relative-l2": ("Error of the sample", "nearer to the uncached sample (relative L2)"),
    "lpips": ("LPIPS", "nearer to the uncached picture (LPIPS)"),
    "psnr": ("PSNR", "nearer to the uncached picture (PSNR, dB)"),
    "ssim": ("SSIM", "nearer to the uncached picture (SSIM)"),
    "imagereward": ("ImageReward", "better (ImageReward)"),
    "vbench": ("VBench", "better (VBench)"),
    "clip-score": ("CLIP score", "better (CLIP score)"),
    "fid": ("FID", "better (FID)"),
}


@dataclass(frozen=True)
class RecordShown:
    """One record of a model.

    Attributes:
        calibration: the record.
        layer: where it was found.
        settings: its operating points.
        refused: engines that have no use for it, whatever the setting.
        borrowings: uses of its numbers for other models, one sentence each.
    """

    calibration: Calibration
    layer: str
    settings: tuple[Setting, ...]
    refused: tuple[Refusal, ...]
    borrowings: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its model key."""
        return self.calibration.model_key

    @cached_property
    def stored(self) -> str:
        """Its text in canonical spelling."""
        return self.calibration.to_json()

    @property
    def path(self) -> str:
        """Its file below ``records/``."""
        return f"{self.key}.json"

    @property
    def tier(self) -> Tier:
        """Of its strongest evidence."""
        return max((one.tier for one in self.settings), key=lambda tier: tier.rank, default=tier_named(None))

    @property
    def speed(self) -> float | None:
        """Its largest speed-up."""
        return max((one.speed for one in self.settings if one.speed is not None), default=None)

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """Who can run one of its settings, sorted."""
        return tuple(sorted({engine for one in self.settings for engine in one.engines}, key=str.lower))

    @property
    def names(self) -> str:
        """Its other names, for the search."""
        found = [alias.value.partition("@")[0] for alias in self.calibration.aliases]
        model = self.calibration.model
        found += [] if model is None else [model.class_name or "", model.checkpoint or ""]
        return " ".join(dict.fromkeys(filter(None, found)))


@dataclass(frozen=True)
class Model:
    """A model with all its records, its own first.

    Attributes:
        key: the model's key.
        records: one at least.
    """

    key: str
    records: tuple[RecordShown, ...]

    @property
    def title(self) -> str:
        """Its name as people write it: its own record's title, else what stands before the comma of a method's."""
        first = self.records[0].calibration
        return first.title if first.model_key == self.key else first.title.partition(", ")[0]

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """Every setting of every record."""
        return tuple(one for record in self.records for one in record.settings)

    @cached_property
    def tier(self) -> Tier:
        """Of its strongest evidence."""
        return max((record.tier for record in self.records), key=lambda tier: tier.rank)

    @property
    def speed(self) -> float | None:
        """Its largest speed-up."""
        return max((one.speed for one in self.settings if one.speed is not None), default=None)

    @property
    def methods(self) -> tuple[str, ...]:
        """Its records' methods, each once."""
        return tuple(dict.fromkeys(record.calibration.method for record in self.records))

    @property
    def engines(self) -> tuple[str, ...]:
        """Who can run one of its settings, sorted."""
        return tuple(sorted({name for record in self.records for name in record.engines}, key=str.lower))

    @cached_property
    def charts(self) -> tuple[Chart, ...]:
        """Speed against quality, one a metric; last the settings whose quality nobody states, by tier."""
        found: list[Chart] = []
        for metric, more in METRICS.items():
            dots = _dots(self.settings, metric)
            if dots:
                title, label = _TITLES[metric]
                found.append(
                    quality_chart(
                        dots,
                        metric=metric,
                        title=title,
                        y_label=label,
                        x_label=_X_LABEL,
                        more=more,
                        shares=metric == "relative-l2",
                    )
                )
        # What most settings state is shown first.
        found.sort(key=lambda chart: -len(chart.dots))
        silent = [one for one in self.settings if not METRICS.keys() & one.figures.keys()]
        dots = _dots(silent, None)
        if dots:
            found.append(tier_chart(dots, title="Speed-ups without a quality figure", x_label=_X_LABEL))
        return tuple(found)

    @cached_property
    def start(self) -> Setting | None:
        """The setting to begin with: of those with the strongest evidence that can be used here, the one nearest to twice as fast."""
        usable = [one for one in self.settings if one.usage.code is not None and one.speed is not None]
        return min(usable, key=lambda one: (-one.tier.rank, abs((one.speed or 1) - USUAL_SPEED)), default=None)

    @property
    def uncharted(self) -> int:
        """Settings that no chart shows, because nobody states a speed-up or computed steps."""
        shown = {one.dot.target for chart in self.charts for one in chart.dots}
        return sum(one.name not in shown for one in self.settings)


def _dots(settings: Sequence[Setting], metric: str | None) -> list[Dot]:
    return [dot for one in settings if (dot := one.dot(metric)) is not None]


@dataclass(frozen=True)
class Damage:
    """A record that could not be shown, and why."""

    key: str
    reason: str


def models_of(registry: Registry, *, damaged: list[Damage]) -> Iterator[Model]:
    """Every model of a registry, sorted by key; what cannot be read is added to ``damaged``."""
    borrowed = _borrowings()
    groups: dict[str, list[str]] = {}
    for key, _, _ in registry.entries():
        groups.setdefault(model_of(key), []).append(key)
    for model in sorted(groups):
        found = []
        for key in sorted(groups[model], key=lambda key: (key != model, key)):
            try:
                found.append(registry.find(key))
            except EasyTeaCacheError as error:
                damaged.append(Damage(key, str(error)))
        if found:
            yield Model(model, tuple(_records(found, registry, borrowed)))


def _records(
    family: Sequence[Found], registry: Registry, borrowed: Mapping[str, Sequence[str]]
) -> Iterator[RecordShown]:
    first = 1
    for found in family:
        record = found.calibration
        usable = [one for one in family if applicable(one) and one.calibration.status != "yanked"]
        meant = [found] if names_method(record.model_key) else usable
        exporting = Exporting(found, registry)
        settings = tuple(settings_of(record, Asking(found, meant), exporting, first=first))
        first += len(settings)
        told = [
            f"{alias.value} ({alias.kind.replace('_', ' ')}) resolves to this record, whose numbers were fitted to another model."
            for alias in record.aliases
            if alias.borrowed
        ]
        told += borrowed.get(record.model_key, ())
        yield RecordShown(record, found.layer, settings, exporting.refused, tuple(told))


def _borrowings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in Known.from_calibrations(()).borrowings:
        found.setdefault(one.model_key, []).append(f"{one.repository} uses these numbers for {one.title}.")
    return found
