"""`easyteacache import`: another engine's file as a draft record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import MODEL_KEY, open_registry, registry_option, text_of
from easyteacache.export.table import ENGINES
from easyteacache.files import console

if TYPE_CHECKING:
    from easyteacache.export import Draft

MODALITIES = ("image", "video", "audio", "video-audio", "multimodal")
READABLE = [name for name, engine in ENGINES.items() if engine.reads]


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--from", "engine", required=True, type=click.Choice(READABLE), metavar="ENGINE", help="Engine whose format it is."
)
@click.option("--key", type=MODEL_KEY, help="Key of the record.  [the one an export left in the file]")
@click.option("--title", help="The model's name as people write it.  [the registry's, or the key]")
@click.option(
    "--modality", type=click.Choice(MODALITIES), help="What the model generates.  [the registry's for this key]"
)
@click.option("--set", "label", metavar="NAME", help="Which set, where the file holds several.  [the active one]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [standard output]")
@registry_option
def import_(
    file: Path,
    engine: str,
    key: str | None,
    title: str | None,
    modality: str | None,
    label: str | None,
    out: Path | None,
    registry: Path | None,
) -> None:
    """Read FILE, in the format of ENGINE, as a draft calibration.

    What the format does not carry is listed on standard error and in the draft's notes. A draft is no published record: judge it
    with `easyteacache validate`, or add its sources by hand.

    \b
    Engines: vllm-omni, sglang, sglang-dpcache, sglang-cache-dit,
      sglang-request, tensorrt-llm, comfyui-teacache, comfyui-lemica,
      lightx2v, diffusers, cache-dit, cache-dit-python, xdit,
      stable-diffusion.cpp, wan2gp, seed, json, python

    \b
    Examples:
      easyteacache import wan.json --from lightx2v --key wan2.1/t2v-14b
      easyteacache import cache.json --from seed --key my/model \\
          --modality video --out my-model.json
      easyteacache import K16.json --from sglang-dpcache \\
          --key qwen-image/2.1/mine --modality image
    """
    from easyteacache import export

    content = text_of(file)
    known = _known(key, content, engine, file, registry)
    drafts = export.read(
        content,
        engine,
        file=str(file),
        model_key=key,
        title=title or (known and known[0]),
        modality=modality or (known[1] if known else "") or _required(file),
    )
    draft = _chosen(drafts, label)
    for sentence in draft.missing:
        click.echo(text.paragraph(console.escaped(sentence)), err=True)
    if out is None:
        click.echo(draft.record.to_json(), nl=False)
        return
    from easyteacache.records import calibration

    calibration.save(draft.record, out)
    click.echo(f"Wrote {out}.", err=True)


def _known(key: str | None, content: str, engine: str, file: Path, folder: Path | None) -> tuple[str, str] | None:
    """Title and modality of the registry's record of this key, None when it has none."""
    from easyteacache.export import read

    if key is None:
        # Only the key is of interest here, so that any modality will do.
        first, *_ = read(content, engine, file=str(file), model_key=None, title=None, modality="video")
        key = first.record.model_key
    record = open_registry(folder).get(key)
    return None if record is None else (record.title, record.modality)


def _required(file: Path) -> str:
    raise click.UsageError(f"The registry does not know the model of {file.name}: pass --modality.")


def _chosen(drafts: list[Draft], label: str | None) -> Draft:
    if label is None:
        others = ", ".join(str(draft.label) for draft in drafts[1:])
        if others:
            click.echo(console.escaped(f"The file holds further sets, see --set: {others}."), err=True)
        return drafts[0]
    found = next((draft for draft in drafts if draft.label == label), None)
    if found is None:
        names = ", ".join(str(draft.label) for draft in drafts)
        raise click.UsageError(console.escaped(f"No set named {label!r} in the file; it holds {names}."))
    return found
