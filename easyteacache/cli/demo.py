"""`easyteacache demo`: see caching work on a small trained model, with numbers and pictures."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.extras import require
from easyteacache.cli.parameters import SIZE, one_target, operating_options, registry_option
from easyteacache.cli.progress import bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easyteacache.demo.comparison import Row
    from easyteacache.demo.sampling import DemoSettings, Sample
    from easyteacache.policy.policy import Policy

USUAL_SPEEDUP = 2.0
FILES = {"png": "easyteacache-demo.png", "gif": "easyteacache-demo.gif", "json": "easyteacache-demo.json"}


@click.command("demo")
@click.option("--steps", type=click.IntRange(2, 1000), default=50, show_default=True, help="Sampler steps.")
@click.option("--frames", type=click.IntRange(1, 8), default=4, show_default=True, help="Frames of each video.")
@click.option("--size", type=SIZE, metavar="WxH", default="24x24", show_default=True, help="Pixels, even, from 16 up.")
@click.option("--samples", type=click.IntRange(1, 1000), default=4, show_default=True, help="Videos to sample.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Seed of the first video.")
@operating_options
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="CPU threads; one is steadiest."
)
@click.option(
    "--key",
    metavar="KEY|FILE",
    default="reference/moving-digits",
    show_default=True,
    help="Calibration to apply.",
)
@click.option("--model-path", type=click.Path(path_type=Path), help="Transformer saved by tools/reference/train.py.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo-out",
    show_default=True,
    help="Output folder.",
)
@registry_option
@click.option("--json", "as_json", is_flag=True, help="Print the JSON file instead of the table.")
def demo(
    steps: int,
    frames: int,
    size: tuple[int, int],
    samples: int,
    seed: int,
    threshold: float | None,
    speedup: float | None,
    max_error: float | None,
    quality: str | None,
    threads: int,
    key: str,
    model_path: Path | None,
    out: Path,
    registry: Path | None,
    as_json: bool,
) -> None:
    """Sample the small reference model with and without caching and compare.

    Every video is sampled three times from the same noise: in full, cached, and in full with only as many steps as the cached
    run computed. PSNR and SSIM compare with the full run; "digits" counts the videos in which a classifier reads the digit
    asked for. Without --threshold, --speedup, --max-error or --quality a speed-up of 2 is aimed at.

    Writes easyteacache-demo.png, .gif and .json into the output folder, nothing else.

    \b
    Examples:
      easyteacache demo
      easyteacache demo --speedup 3 --samples 8 --out demo-3x
      easyteacache demo --steps 30 --frames 8 --size 32x16 --threshold 0.2

    \b
    JSON: settings, policy (model_key, revision, layer, threshold, schedule,
      forecaster, notes), rows (each variant, steps, computed, seconds,
      speedup, psnr, worst_psnr, ssim, digits_read; psnr null: equal),
      samples (each prompt, seed, patterns), files
    """
    one_target(threshold, speedup, max_error, quality)
    require("the demo", "diffusers", "matplotlib", "PIL", "skimage")
    from easyteacache.demo import comparison, picture, sampling

    if threshold is None and max_error is None and quality is None:
        speedup = USUAL_SPEEDUP if speedup is None else speedup
    width, height = size
    settings = sampling.DemoSettings(
        key=key,
        steps=steps,
        frames=frames,
        width=width,
        height=height,
        samples=samples,
        seed=seed,
        threshold=threshold,
        speedup=speedup,
        max_error=max_error,
        quality=quality,
    )
    pipe = sampling.load(model_path)
    pipe.check_inputs(num_frames=frames, height=height, width=width)
    cache = sampling.open_cache(pipe, settings, registry)
    files = {kind: out / name for kind, name in FILES.items()}
    out.mkdir(parents=True, exist_ok=True)
    runs = samples * len(sampling.VARIANTS) + 1
    with bar("run", total=runs) as shown:
        if shown.disable:
            click.echo(f"Sampling {runs - 1} videos …", err=True)

        begun = itertools.count()

        def started(what: str) -> None:
            shown.update(min(next(begun), 1))  # the one before is done
            shown.set_description(what)

        found = sampling.sample_all(pipe, cache, settings, threads=threads, started=started)
    rows = comparison.compare(found)
    picture.save(found, title=_title(cache.policy, rows), png=files["png"], gif=files["gif"])
    _report(settings, cache.policy, rows, found, files=files, as_json=as_json)


def _gate(policy: Policy) -> str:
    if policy.refusal is not None:
        return "nothing can be reused at this setting"
    if policy.schedule is not None:
        return f"a schedule of {len(policy.schedule)} computed steps"
    return f"threshold {policy.threshold:.4g}"


def _title(policy: Policy, rows: Sequence[Row]) -> str:
    cached = rows[1]
    return (
        f"{policy.model_key}, {_gate(policy)}, fill {policy.forecaster}\n"
        f"{cached.computed:.3g} of {cached.steps:.0f} steps computed, speed-up {cached.speedup:.2f}x, "
        f"PSNR {_decibels(cached.psnr)}"
    )


def _report(
    settings: DemoSettings,
    policy: Policy,
    rows: Sequence[Row],
    samples: Sequence[Sample],
    *,
    files: dict[str, Path],
    as_json: bool,
) -> None:
    from easyteacache.demo.comparison import as_data
    from easyteacache.files import atomic_write, strict_json

    content = strict_json.spell(as_data(settings, policy, rows, samples, files=files))
    atomic_write.write_text(files["json"], content)
    if as_json:
        click.echo(content, nl=False)
        return
    click.echo(f"{policy.model_key} revision {policy.revision} (layer {policy.layer}): {_gate(policy)}, ", nl=False)
    click.echo(f"fill {policy.forecaster}")
    click.echo()
    click.echo(_table(rows, len(samples)))
    click.echo()
    for note in policy.notes:
        click.echo(text.paragraph(note, bullet="note: "))
    for path in files.values():
        click.echo(f"wrote {path}")


def _table(rows: Sequence[Row], samples: int) -> str:
    columns = [
        text.Column("VARIANT"),
        text.Column("COMPUTED", align="right"),
        text.Column("TIME", align="right"),
        text.Column("SPEED-UP", align="right"),
        text.Column("PSNR (WORST)", align="right"),
        text.Column("SSIM", align="right"),
        text.Column("DIGITS", align="right"),
    ]
    cells = [
        (
            row.variant,
            f"{row.computed:.4g} of {row.steps:.4g}",
            f"{row.seconds:.2f} s",
            f"{row.speedup:.2f}x",
            None if row.psnr is None else f"{_decibels(row.psnr)} ({_decibels(row.worst_psnr)})",
            None if row.ssim is None else f"{row.ssim:.4f}",
            f"{row.digits_read}/{samples}",
        )
        for row in rows
    ]
    return text.table(columns, cells)


def _decibels(value: float | None) -> str:
    return "equal" if value is None or math.isinf(value) else f"{value:.1f} dB"
