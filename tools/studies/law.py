"""Study: does length act like shift, and what have models in common over matched noise? (docs/transfer.md)

    python tools/reference/train.py --architecture flux --steps 1300 --checkpoint runs/flux.pt --export study/flux
    python tools/studies/scenes.py --steps 1600 --checkpoint runs/scenes.pt --export study/scenes
    python tools/studies/law.py --folder study profile lengths carried universal samplers published picture

Every run is kept in the folder, so a stage that was stopped goes on; on one core all of them take some hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import law_exact
import law_picture
import law_published
import numpy as np
from law_models import Models, Setting
from law_profile import (
    KNOTS,
    Profile,
    distance,
    fit,
    offset_of,
    plan_of_gram,
    plan_of_profile,
    quantile,
    settled,
    travelled,
)
from law_runs import Recorded, Runs
from numpy.typing import NDArray

from easyteacache.policy.matched_noise import EXPONENT
from easyteacache.policy.uncalibrated import even_plan

Array = NDArray[np.float64]
#: What profiles are fitted to, model by model.
FITTED: Mapping[str, tuple[Setting, ...]] = {
    "digits": (
        *(Setting("digits", 1, 16, shift) for shift in (0.25, 0.5, 1.0, 3.0)),
        *(Setting("digits", 4, 16, shift) for shift in (0.35, 1.0, 3.0)),
    ),
    "flux": tuple(Setting("flux", 1, pixels, shift) for pixels in (16, 24) for shift in (0.25, 0.5, 1.0, 3.0)),
    "scenes": tuple(Setting("scenes", 1, pixels, shift) for pixels in (16, 24) for shift in (0.25, 0.5, 1.0, 3.0)),
}
ANSWERED = tuple(Setting(model, 1, 16, shift) for model in FITTED for shift in (0.5, 3.0))
ANSWER_KNOTS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
#: LeMiCa's printed plans of Wan2.1-T2V-14B, 50 steps (arXiv 2511.00090), by the steps they compute.
LEMICA = {
    25: (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 18, 21, 25, 29, 34, 38, 42, 45, 47, 48, 49),
    20: (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 18, 23, 29, 36, 42, 46, 48, 49),
    17: (0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 22, 29, 36, 43, 47, 49),
}
#: Settings that differ in their length alone.
CHAINS: Mapping[str, tuple[Setting, ...]] = {
    "digits, frames": tuple(Setting("digits", frames, 16, 1.0) for frames in (1, 2, 4)),
    "digits, frames of 32×32": tuple(Setting("digits", frames, 32, 1.0) for frames in (1, 2, 4, 8)),
    "digits, canvas": tuple(Setting("digits", 4, pixels, 1.0) for pixels in (16, 24, 32)),
    "FLUX-class digits, canvas": tuple(Setting("flux", 1, pixels, 1.0) for pixels in (16, 24, 32)),
    "scenes, resolution": tuple(Setting("scenes", 1, pixels, 1.0) for pixels in (16, 24, 32, 48)),
    "scenes, resolution, no guidance": tuple(
        Setting("scenes", 1, pixels, 1.0, guidance=1.0) for pixels in (16, 24, 32)
    ),
}
#: Fitted over all chains by ``lengths``; stated in the page.
FITTED_EXPONENT = 0.05
#: Held-out lengths of ``carried``: target, shorter and longer neighbour; sources are recorded at shift 1, 50 Euler steps.
CARRIED: tuple[tuple[tuple[str, int, int], tuple[str, int, int], tuple[str, int, int]], ...] = (
    (("digits", 4, 16), ("digits", 1, 16), ("digits", 4, 24)),
    (("flux", 1, 24), ("flux", 1, 16), ("flux", 1, 32)),
    (("scenes", 1, 24), ("scenes", 1, 16), ("scenes", 1, 48)),
    (("scenes", 1, 32), ("scenes", 1, 16), ("scenes", 1, 48)),
)

#: What they are carried to: shift, sampler, and computed steps of how many.
CARRIED_TO: tuple[tuple[float, str, tuple[int, ...], int], ...] = (
    (0.5, "euler", (25, 17), 50),
    (3.0, "euler", (25, 17), 50),
    (8.0, "euler", (25, 17), 50),
    (3.0, "unipc", (25, 17), 50),
    (3.0, "euler", (12, 8), 25),
)


class Study:
    """The stages; each prints its table."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, Runs(folder, Models(folder))

    def fitted(self, settings: Sequence[Setting], *, offset: bool = True) -> tuple[Profile, float]:
        """The profile of ``settings``, placed by the law across models or as it lies."""
        runs = [self.runs.recorded(setting) for setting in settings]
        return fit(runs, [offset_of(setting) if offset else 0.0 for setting in settings])

    def profile(self) -> None:
        """Change profiles of every model and of all, and how much of an error stays."""
        every = [setting for settings in FITTED.values() for setting in settings]
        columns = {name: self.fitted(settings) for name, settings in FITTED.items()} | {"all": self.fitted(every)}
        click.echo("matched noise | " + " | ".join(f"{n} (misfit {misfit:.2f})" for n, (_, misfit) in columns.items()))
        for knot, *weights in zip(KNOTS, *(p.weights / p.weights.sum() for p, _ in columns.values()), strict=True):
            click.echo(f"{knot:g} | " + " | ".join(f"{weight:.2g}" for weight in weights))
        answers = {setting.name: self.runs.response(setting) for setting in ANSWERED}
        moved = [
            np.interp(ANSWER_KNOTS, answers[s.name][::-1, 0] - offset_of(s), np.log(answers[s.name][::-1, 1]))
            for s in ANSWERED
        ]
        for name, row in zip(answers, moved, strict=True):
            click.echo(f"{name} | " + " | ".join(f"{value:.2f}" for value in np.exp(row)))
        click.echo("all | " + " | ".join(f"{value:.2f}" for value in np.exp(np.mean(moved, axis=0))))

    def lengths(self) -> None:
        """How a profile moves with the length, and how far it is from the next length's by each way of carrying."""
        for name, settings in CHAINS.items():
            runs = [self.runs.recorded(setting) for setting in settings]
            for setting, run in zip(settings, runs, strict=True):
                click.echo(f"{name} {setting.tokens} | " + " | ".join(f"{value:.2f}" for value in _quantiles(run)))
            _exponent(name, runs, ratio=float(np.log(settings[-1].tokens / settings[0].tokens)))

    def exact(self) -> None:
        """The same for an exact denoiser of finitely many scenes."""
        sizes = (16, 24, 32, 48, 64)
        runs = [law_exact.recorded(pixels) for pixels in sizes]
        for pixels, run in zip(sizes, runs, strict=True):
            click.echo(f"exact {pixels * pixels // 4} | " + " | ".join(f"{value:.2f}" for value in _quantiles(run)))
        _exponent("exact", runs, ratio=2.0 * float(np.log(sizes[-1] / sizes[0])))

    def carried(self) -> None:
        """Decibels of the final sample by plans carried to another length, shift, sampler and step count."""
        gains: dict[str, list[float]] = {}
        for target, shorter, longer in CARRIED:
            low, high = Setting(*shorter, shift=1.0), Setting(*longer, shift=1.0)
            near, far = (self.fitted([setting], offset=False)[0] for setting in (low, high))
            for shift, sampler, counts, steps in CARRIED_TO:
                setting = Setting(*target, shift, steps, sampler)
                run, there = self.runs.recorded(setting), self.runs.recorded(replace(low, steps=steps))
                ratio = float(np.log(setting.tokens / low.tokens))
                share = ratio / float(np.log(high.tokens / low.tokens))
                between = Profile(near.weights ** (1.0 - share) * far.weights**share)
                for computed in counts:
                    plans = {
                        "own": plan_of_gram(run, computed, offset=offset_of(setting)),
                        "nothing": plan_of_profile(near, there.levels, computed),
                        "noise level": plan_of_profile(near, run.levels, computed),
                        "interpolated": plan_of_profile(between, run.levels, computed),
                        "law": plan_of_profile(near, run.levels, computed, offset=EXPONENT * ratio),
                        "fitted": plan_of_profile(near, run.levels, computed, offset=FITTED_EXPONENT * ratio),
                        "even": even_plan(steps, computed),
                    }
                    self._judge(setting, computed, plans, gains)
        _means(gains)

    def universal(self) -> None:
        """The universal plan on each model, from the profiles of the other two."""
        gains: dict[str, list[float]] = {}
        for model in FITTED:
            others = [setting for name, settings in FITTED.items() if name != model for setting in settings]
            profile, _ = self.fitted(others)
            for frames, pixels in ((1, 16), (4, 16) if model == "digits" else (1, 32)):
                for shift in (0.25, 0.5, 3.0):
                    setting = Setting(model, frames, pixels, shift)
                    self._against_others(setting, profile, gains)
        _means(gains)

    def samplers(self) -> None:
        """The same with UniPC and with 25 steps, which no profile was fitted to."""
        gains: dict[str, list[float]] = {}
        for model in FITTED:
            others = [setting for name, settings in FITTED.items() if name != model for setting in settings]
            profile, _ = self.fitted(others)
            for steps, sampler in ((50, "unipc"), (25, "euler")):
                for shift in (0.25, 3.0):
                    self._against_others(Setting(model, 1, 16, shift, steps, sampler), profile, gains)
        _means(gains)

    def _against_others(self, setting: Setting, profile: Profile, gains: dict[str, list[float]]) -> None:
        run = self.runs.recorded(setting)
        for speedup in (2.0, 2.5, 3.0):
            computed = round(setting.steps / speedup)
            offset = offset_of(setting)
            plans = {
                "universal": plan_of_profile(profile, run.levels, computed, offset=offset),
                "own": plan_of_gram(run, computed, offset=offset),
                "even": even_plan(setting.steps, computed),
            }
            if setting.steps == 50:
                plans["LeMiCa's"] = LEMICA[computed]
            self._judge(setting, computed, plans, gains)

    def _judge(
        self,
        setting: Setting,
        computed: int,
        plans: Mapping[str, tuple[int, ...]],
        gains: dict[str, list[float]],
    ) -> None:
        found = {name: self.runs.decibels(setting, plan) for name, plan in plans.items()}
        row = " | ".join(f"{name} {values.mean():.1f} / {values.min():.1f}" for name, values in found.items())
        click.echo(f"{setting.name} {computed} | {row}")
        for name, values in found.items():
            run = f"shift {setting.shift:g}, {setting.steps} {setting.sampler} steps"
            gains.setdefault(f"{run}, {name}", []).append(float(values.mean()))

    def published(self) -> None:
        """Published plans and ratios of real models."""
        law_published.plans()
        law_published.ratios()

    def picture(self) -> None:
        """The figure of the page."""
        found = Setting("digits", 4, 16, 0.1)
        run = self.runs.recorded(found)
        law_picture.draw(self.folder / "matched-noise.png", run, plan_of_gram(run, 25, offset=0.0))


def _quantiles(run: Recorded) -> list[float]:
    """Where x̂ has come a quarter, half and three quarters of its way, and of its path."""
    return [quantile(share, run, at) for share in (settled(run), travelled(run)) for at in (0.25, 0.5, 0.75)]


def _exponent(name: str, runs: Sequence[Recorded], *, ratio: float) -> None:
    """Distance of the longest length's path from the shortest one's: as it is, by the law, and by the best exponent."""
    best = min(np.linspace(-0.2, 0.8, 101), key=lambda e: distance(runs[0], runs[-1], move=float(e * ratio)))
    found = [distance(runs[0], runs[-1], move=float(e * ratio)) for e in (0.0, EXPONENT, best)]
    click.echo(f"{name} | nothing {found[0]:.4f} | law {found[1]:.4f} | exponent {best:.2f} {found[2]:.4f}")


def _means(gains: Mapping[str, Sequence[float]]) -> None:
    for name, values in gains.items():
        click.echo(f"mean | {name} | {np.mean(values):.1f}")


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Models and runs.")
@click.argument("stages", nargs=-1, required=True)
def main(folder: Path, stages: tuple[str, ...]) -> None:
    """Run stages of the study."""
    study = Study(folder)
    for stage in stages:
        run: Callable[[], None] = getattr(study, stage)
        run()


if __name__ == "__main__":
    main()
