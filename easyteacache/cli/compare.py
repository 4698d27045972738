"""`easyteacache compare`: how close a cached result is to the uncached one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import NumberType, json_option
from easyteacache.cli.progress import bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easyteacache.compare import Comparison, FrameResult, Report, Summary

_RESULT = click.Path(path_type=Path)


@click.command("compare")
@click.argument("a", type=_RESULT)
@click.argument("b", type=_RESULT)
@click.option(
    "--frames",
    type=click.Choice(["all", "first"]),
    default="all",
    show_default=True,
    help="first: compare the common beginning where one has more frames.",
)
@click.option("--pairs", is_flag=True, help="Pair two folders of pictures by name: they are no videos.")
@click.option("--tensor", metavar="NAME", help="Array to take from a file that holds several.")
@click.option("--layout", metavar="AXES", help="Axes of arrays, from B, F, C, H, W; for example FHWC.")
@click.option("--data-range", type=NumberType(min=0, min_open=True), help="Largest minus smallest value of arrays.")
@click.option("--lpips", is_flag=True, help="Measure LPIPS too; needs the extra `lpips`.")
@click.option("--min-psnr", type=NumberType(min=0), metavar="DB", help="Exit with 1 where the PSNR is lower.")
@click.option(
    "--min-ssim", type=NumberType(min=-1, max=1), metavar="VALUE", help="Exit with 1 where the SSIM is lower."
)
@click.option(
    "--judge",
    type=click.Choice(["mean", "worst"]),
    default="mean",
    show_default=True,
    help="What --min-psnr and --min-ssim look at: each pair's mean or its worst frame.",
)
@click.option("--per-frame", is_flag=True, help="Print every frame.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png", help="Draw it.")
@json_option
@click.pass_context
def compare(
    ctx: click.Context,
    a: Path,
    b: Path,
    frames: Literal["all", "first"],
    pairs: bool,
    tensor: str | None,
    layout: str | None,
    data_range: float | None,
    lpips: bool,
    min_psnr: float | None,
    min_ssim: float | None,
    judge: Literal["mean", "worst"],
    per_frame: bool,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Compare the result B with the uncached result A: PSNR, SSIM, LPIPS; for arrays relative L2 and cosine.

    A and B are pictures (PNG, JPEG, WebP, BMP, TIFF), animations (GIF, APNG, WebP), videos (MP4, MOV, WebM, MKV), folders of
    pictures (the frames of one video, frame2 before frame10), or arrays (.npy, .npz, .pt, .pth, .safetensors). In two
    folders of videos, animations, arrays or folders, what has the same name is a pair. Nothing is resized or converted.

    Exit code 0 when they could be compared, 1 when not, or when --min-psnr or --min-ssim is not reached.

    \b
    Examples:
      easyteacache compare uncached.mp4 cached.mp4 --picture compared.png
      easyteacache compare frames-a/ frames-b/ --json
      easyteacache compare a.png b.png --min-psnr 30 --min-ssim 0.95
      easyteacache compare a.safetensors b.safetensors --tensor latents

    \b
    JSON: a, b, summary and pairs (each name, a, b, notes, summary, frames).
      Of a picture or video: path, kind, frames, width, height, channels,
      alpha, bits; of an array: path, kind, frames, tensor, shape, dtype,
      layout. A summary: frames, identical_frames, identical, psnr_mean,
      psnr_of_mean_mse, ssim_mean, lpips_mean, relative_l2_mean,
      cosine_mean, and of each measure NAME_worst and NAME_worst_frame.
      A frame: index, a, b, identical, mse, psnr, ssim, lpips, relative_l2,
      cosine. limits: judge, min_psnr, min_ssim, passed, failures.
      A PSNR of null beside identical true is infinite; otherwise null
      is: not measured.
    """
    if picture is not None and picture.suffix.lower() != ".png":
        raise click.UsageError(f"--picture writes PNG: {picture.name} must end in .png")
    from easyteacache import compare as comparing
    from easyteacache.compare.perceptual import Perceptual

    perceptual = Perceptual() if lpips else None
    with bar("frame") as shown:
        report = comparing.compare(
            a,
            b,
            common_beginning=frames == "first",
            by_name=pairs,
            tensor=tensor,
            layout=layout,
            data_range=data_range,
            perceptual=perceptual,
            progress=shown.update,
        )
    _require_arrays(report, {"--tensor": tensor, "--layout": layout, "--data-range": data_range})
    limits = {"psnr": min_psnr, "ssim": min_ssim}
    failures = [line for pair in report.comparisons for line in _failures(pair, limits, worst=judge == "worst")]
    if picture is not None:
        _draw(report, picture, tensor, layout, data_range, common_beginning=frames == "first")
    if as_json:
        judged = {"judge": judge, "min_psnr": min_psnr, "min_ssim": min_ssim, "passed": not failures}
        text.echo_json({**report.as_data(), "limits": {**judged, "failures": failures}})
    else:
        _print(report, per_frame=per_frame)
    if picture is not None:
        click.echo(f"wrote {picture}", err=as_json)
    for line in failures:
        click.echo(line, err=True)
    ctx.exit(1 if failures else 0)


def _require_arrays(report: Report, options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given and all(pair.a["kind"] != "array" for pair in report.comparisons):
        found = report.comparisons[0].a["kind"]
        raise click.UsageError(f"{' and '.join(given)} is for arrays; {report.a} is read as {found}")


def _failures(pair: Comparison, limits: dict[str, float | None], *, worst: bool) -> Iterator[str]:
    summary = pair.summary
    for name, least in limits.items():
        if least is None:
            continue
        value = summary.value(name, worst=worst)
        if value is None:
            raise click.UsageError(f"--min-{name} has nothing to look at: {'; '.join(pair.notes) or 'not measured'}")
        if not value >= least:
            place = f" of frame {summary.worst_frame[name]}" if worst else " (mean)" if summary.frames > 1 else ""
            named = "" if pair.name is None else f"{text.plain(pair.name)}: "
            yield f"Too far apart: {named}{name.upper()}{place} is {value:.4f}, at least {least:g} was asked for."


def _draw(
    report: Report,
    path: Path,
    tensor: str | None,
    layout: str | None,
    data_range: float | None,
    *,
    common_beginning: bool,
) -> None:
    from easyteacache.compare.opening import ArrayOptions
    from easyteacache.compare.picture import save

    def rank(pair: Comparison) -> float:
        value = pair.summary.psnr_mean
        return float("inf") if value is None else value

    # Of several pairs the worst one.
    worst = min(report.comparisons, key=rank)
    save(worst, path, ArrayOptions(tensor, layout, data_range), common_beginning=common_beginning)


def _print(report: Report, *, per_frame: bool) -> None:
    several = len(report.comparisons) > 1
    for pair in report.comparisons:
        if per_frame:
            if pair.name is not None:
                click.echo(text.heading(text.plain(pair.name)))
            click.echo(_frame_table(pair.frames))
            click.echo()
    if several or report.comparisons[0].name is not None:
        click.echo(_pair_table(report.comparisons))
        click.echo()
    click.echo(_summary_table(report.summary))
    click.echo()
    click.echo(_closing(report))
    for note in dict.fromkeys(note for pair in report.comparisons for note in pair.notes):
        click.echo(text.paragraph(note, bullet="note: "))


def _closing(report: Report) -> str:
    summary = report.summary
    pairs = f" in {len(report.comparisons)} pairs" if len(report.comparisons) > 1 else ""
    thing = (
        "array" if all(pair.a["kind"] == "array" and not pair.a["layout"] for pair in report.comparisons) else "frame"
    )
    count = f"{summary.frames} {thing}{'s' * (summary.frames != 1)}{pairs}"
    if summary.identical:
        return f"{count} compared: identical."
    if not summary.identical_frames:
        return f"{count} compared."
    rest = summary.frames - summary.identical_frames
    over = f"; the mean PSNR is that of the other {rest}" if summary.psnr_mean is not None else ""
    return f"{count} compared, {summary.identical_frames} identical{over}."


def _frame_table(frames: Sequence[FrameResult]) -> str:
    columns = [text.Column("FRAME", align="right"), text.Column("NAME", cut=True), *_measures()]
    rows = [
        (
            frame.index,
            None if frame.a is None else text.plain(frame.a),
            _decibels(frame.figures.psnr),
            *map(_value, (frame.figures.ssim, frame.figures.lpips, frame.figures.relative_l2, frame.figures.cosine)),
        )
        for frame in frames
    ]
    return text.table(columns, rows)


def _pair_table(pairs: Sequence[Comparison]) -> str:
    columns = [text.Column("NAME", cut=True), text.Column("FRAMES", align="right"), *_measures()]
    rows = []
    for pair in pairs:
        found = pair.summary
        means = [_value(found.means[name]) for name in ("ssim", "lpips", "relative_l2", "cosine")]
        rows.append((text.plain(pair.name or ""), found.frames, _decibels(found.psnr_mean), *means))
    return text.table(columns, rows)


def _measures() -> list[text.Column]:
    return [text.Column(name, align="right") for name in ("PSNR", "SSIM", "LPIPS", "RELATIVE L2", "COSINE")]


def _summary_table(found: Summary) -> str:
    columns = [text.Column(name, align="left" if name == "MEASURE" else "right") for name in ("MEASURE", "MEAN")]
    columns += [text.Column(name, align="right") for name in ("WORST", "AT FRAME")]
    rows: list[tuple[object, ...]] = []
    if found.psnr_mean is not None:
        rows.append(("PSNR", _decibels(found.psnr_mean), _decibels(found.worst["psnr"]), found.worst_frame["psnr"]))
        rows.append(("PSNR of the mean error", _decibels(found.psnr_of_mean_mse), None, None))
    for name, title in (("ssim", "SSIM"), ("lpips", "LPIPS"), ("relative_l2", "relative L2"), ("cosine", "cosine")):
        if found.worst[name] is not None:
            rows.append((title, _value(found.means[name]), _value(found.worst[name]), found.worst_frame[name]))
    if found.frames == 1:
        columns, rows = (
            [columns[0], text.Column("VALUE", align="right")],
            [row[:2] for row in rows if row[2] is not None],
        )
    return text.table(columns, rows)


def _decibels(value: float | None) -> str | None:
    return None if value is None else "identical" if value == float("inf") else f"{value:.2f} dB"


def _value(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}" if abs(value) >= 0.001 or value == 0 else f"{value:.2e}"
