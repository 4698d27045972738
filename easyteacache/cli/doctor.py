"""`easyteacache doctor`: is this cache right on this model, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli.lazy import INTERRUPTED
from easyteacache.cli.parameters import MODEL_KEY, SIZE, NumberType, json_option, loading_options, registry_option
from easyteacache.cli.progress import bar
from easyteacache.cli.record import first_prompt, open_pipeline
from easyteacache.cli.text import echo_json, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easyteacache.diagnosis.answers import Diagnosis


@click.command()
@click.argument("model", required=False)
@click.option(
    "--engine",
    metavar="NAME",
    help="Instead of a model: is this package at work inside comfyui, sglang or vllm-omni, and what did it do there last?",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="With --engine comfyui: where ComfyUI lies.",
)
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
@click.option("--guidance", "guidance_scale", type=NumberType(min=0), help="Guidance scale.")
@click.option("--shift", type=NumberType(min=0, min_open=True), help="Time shift.")
@click.option("--thorough", is_flag=True, help="Also sample with fewer steps, instead of predicting that from the run.")
@loading_options()
@click.option("--revision", help="Branch, tag or commit of the model on the Hub.")
@registry_option
@json_option
def doctor(model: str | None, engine: str | None, folder: Path | None, as_json: bool, **options: Any) -> None:
    """Check a cache on MODEL in less than two uncached runs, and say what is right and what is not.

    MODEL is 'reference', a diffusers pipeline on the Hub or in a folder, or a transformer that tools/reference/train.py saved.

    Asked are: can a cache be put on it, are the numbers this model's, does the record hold for this run, will caching help at
    this step count, is a computed step bit for bit the model's own, are guidance branches apart, does a reused step skip the
    blocks and what does it save, how far is the result from the uncached one, and is it nearer than fewer steps.

    With --engine it says whether an engine on this machine loads the plug-in, which record held in its last request, and what was
    reused there. Exit code 0 when nothing is bad, 1 when something is.

    \b
    Examples:
      easyteacache doctor reference --key reference/moving-digits
      easyteacache doctor Wan-AI/Wan2.1-T2V-1.3B-Diffusers \\
          --size 832x480 --frames 81 --dtype bfloat16
      easyteacache doctor --engine comfyui --folder ~/ComfyUI

    \b
    JSON: healthy, applied, answers (each question, asked, verdict, text, fix),
      figures; with --engine: engine, loaded, why, last (record, evidence,
      refusal, warnings, pattern, speedup; null where there was no request)
    """
    if (model is None) == (engine is None):
        raise click.UsageError("name a MODEL to check, or an engine with --engine")
    if engine is not None:
        _of_engine(engine, folder, as_json=as_json)
        return
    assert model is not None
    if folder is not None:
        raise click.UsageError("--folder belongs to --engine comfyui")
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


def _of_engine(engine: str, folder: Path | None, *, as_json: bool) -> None:
    import dataclasses

    from easyteacache.integrations.engine_status import ENGINES, engine_status

    if engine not in ENGINES:
        raise click.UsageError(f"{engine!r} has no plug-in here; expected one of {', '.join(ENGINES)}")
    found = engine_status(engine, folder)
    if as_json:
        echo_json(dataclasses.asdict(found))
    else:
        mark = "note" if found.loaded is None else "good" if found.loaded else "bad"
        click.echo(plain(f"{mark:<4}  {engine}: {found.why}"))
        for line in _last_request(found.last):
            click.echo(plain(f"      {line}"))
    if found.loaded is False:
        click.get_current_context().exit(1)


def _last_request(last: dict[str, Any] | None) -> Iterator[str]:
    if last is None:
        yield "No request of it was seen on this machine."
        return
    yield f"Last request: {last.get('record') or 'no record'} ({last.get('evidence') or 'no'} evidence), {last.get('speedup') or 1:.2f}x"
    for branch, pattern in (last.get("pattern") or {}).items():
        yield f"  {branch}: {pattern}"
    if last.get("refusal"):
        yield f"Every step was computed: {last['refusal']}"
    yield from (f"Warning: {text}" for text in last.get("warnings") or ())


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
