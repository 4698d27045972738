"""`easyteacache doctor`: is this cache right on this model, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli.lazy import INTERRUPTED
from easyteacache.cli.parameters import MODEL_KEY, SIZE, NumberType, loading_options, registry_option
from easyteacache.cli.progress import bar
from easyteacache.cli.record import first_prompt, open_pipeline
from easyteacache.cli.text import echo_json, plain

if TYPE_CHECKING:
    from easyteacache.diagnosis.answers import Diagnosis


@click.command()
@click.argument("model")
@click.option(
    "--key",
    metavar="KEY|FILE",
    type=MODEL_KEY,
    help="Record to check.  [what for_pipeline finds, else the universal plan]",
)
@click.option("--speedup", type=NumberType(min=1), default=2.0, show_default=True, help="Speed-up to ask it for.")
@click.option("--steps", type=click.IntRange(2, 1000), default=50, show_default=True, help="Sampler steps.")
@click.option("--prompt", help="What to sample.  [one that comes with the program]")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Seed of the noise.")
@click.option("--size", type=SIZE, help="WIDTHxHEIGHT in pixels.")
@click.option("--frames", type=click.IntRange(min=1), help="Frames.")
@click.option("--guidance", "guidance_scale", type=click.FloatRange(min=0), help="Guidance scale.")
@click.option("--shift", type=click.FloatRange(min=0, min_open=True), help="Time shift.")
@click.option("--thorough", is_flag=True, help="Also sample with fewer steps, instead of predicting that from the run.")
@loading_options()
@click.option("--revision", help="Branch, tag or commit of the model on the Hub.")
@registry_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: healthy, applied, answers, figures.")
def doctor(model: str, as_json: bool, **options: Any) -> None:
    """Check a cache on MODEL in less than two uncached runs, and say what is right and what is not.

    MODEL is 'reference', a diffusers pipeline on the Hub or in a folder, or a transformer that tools/reference/train.py saved.

    Asked are: can a cache be put on it, are the numbers this model's, does the record hold for this run, will caching help at
    this step count, is a computed step bit for bit the model's own, are guidance branches apart, does a reused step skip the
    blocks and what does it save, how far is the result from the uncached one, and is it nearer than fewer steps.

    Exit code 0 when nothing is bad, 1 when something is.

    \b
    Examples:
      easyteacache doctor reference --key reference/moving-digits
      easyteacache doctor Wan-AI/Wan2.1-T2V-1.3B-Diffusers \\
          --size 832x480 --frames 81 --dtype bfloat16
    """
    try:
        found = _diagnosed(model, options)
    except KeyboardInterrupt:
        click.echo("Stopped; nothing stays attached.", err=True)
        click.get_current_context().exit(INTERRUPTED)
    if as_json:
        echo_json(found.as_data())
    else:
        click.echo(plain(str(found)))
    if not found.healthy:
        click.get_current_context().exit(1)


def _diagnosed(model: str, options: dict[str, Any]) -> Diagnosis:
    from easyteacache.diagnosis.checkup import doctor as examine

    pipe = open_pipeline(model, **{name: options[name] for name in ("dtype", "device", "offload", "revision")})
    width, height = options["size"] or (None, None)
    steps, speedup = options["steps"], options["speedup"]
    runs = 2 + options["thorough"]
    click.echo(f"At most {runs} runs of {steps} steps are sampled.", err=True)
    with bar("step", about="doctor") as shown:
        return examine(
            pipe,
            _cache(options["key"], options["registry"], speedup),
            speedup=speedup,
            prompt=options["prompt"] or first_prompt(model),
            steps=steps,
            seed=options["seed"],
            width=width,
            height=height,
            frames=options["frames"],
            guidance_scale=options["guidance_scale"],
            shift=options["shift"],
            thorough=options["thorough"],
            registry=options["registry"],
            on_step=shown.update,
        )


def _cache(key: str | None, registry: Path | None, speedup: float) -> Any:
    from easyteacache.registry.registry import names_file
    from easyteacache.teacache import TeaCache

    if key is None:
        return None
    if names_file(key):
        return TeaCache.from_file(key, speedup=speedup)
    return TeaCache.from_registry(key, speedup=speedup, registry=registry)
