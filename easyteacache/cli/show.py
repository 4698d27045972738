"""`easyteacache-hub show`: one record, with everything a person wants to know of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import MODEL_KEY, find, json_option, registry_option

if TYPE_CHECKING:
    from easyteacache.records.calibration import Bucket, Calibration, OperatingPoint
    from easyteacache.records.evidence import Evidence
    from easyteacache.records.model_identity import ActiveAdapter
    from easyteacache.records.provenance import Source
    from easyteacache.registry.registry import Found

SHOWN_COEFFICIENTS = 8
# Streams that cannot show them print # and . (files/plain_marks.py).
COMPUTED, REUSED = "█", "·"
GROUP = 10


@click.command("show")
@click.argument("key", type=MODEL_KEY, metavar="KEY|FILE")
@registry_option
@json_option
def show(key: str, registry: Path | None, as_json: bool) -> None:
    """Show the calibration filed under KEY, a model key or an exact alias such as a Hub repository id, or the one in a file.

    Plans are drawn as strips, one character a step, computed or reused. Speed-ups marked "published" or "reported" are the source's own; "submitted" ones were judged on held-out runs, "verified" ones on
    prompts that the submitter never saw.

    \b
    Examples:
      easyteacache-hub show wan2.1/t2v-14b
      easyteacache-hub show black-forest-labs/FLUX.1-dev
      easyteacache-hub show wan2.1/t2v-14b --json
      easyteacache-hub show my-model.json

    \b
    JSON: {"asked", "layer", "notes", "record"}; the record as it is stored,
      described in docs/registry-format.md
    """
    found = find(key, registry)
    if as_json:
        from easyteacache.files import strict_json

        record = strict_json.parse(found.calibration.to_json())
        text.echo_json({"asked": found.asked, "layer": found.layer, "notes": list(found.notes), "record": record})
    else:
        click.echo("\n".join(_page(found)))


def _page(found: Found) -> Iterator[str]:
    record = found.calibration
    yield click.style(record.model_key, bold=True)
    yield text.paragraph(record.title)
    yield text.fields(_facts(found))
    yield text.heading("Buckets")
    yield _buckets(record)
    yield from _curves(record)
    yield from _operating_points(record)
    yield from _qualities(record)
    notes = [*found.notes, *record.notes]
    if notes:
        yield text.heading("Notes")
        yield from (text.paragraph(note, indent="  ", bullet="- ") for note in notes)
    yield text.heading("Where the numbers come from")
    yield from _origin(record)


def _facts(found: Found) -> Iterator[tuple[str, object]]:
    record = found.calibration
    retirement = record.retirement
    yield "status", f"{record.status}, revision {record.revision}, layer {found.layer}"
    if retirement is not None:
        instead = f" Use {retirement.replacement} instead." if retirement.replacement else ""
        yield record.status, f"{retirement.date}: {retirement.reason}{instead}"
    yield "method", f"{record.method}, for {record.modality}"
    yield "signal", record.signal + (f": {record.signal_source}" if record.signal_source else "")
    yield "predicts", record.fitted_output + (f": {record.fitted_output_source}" if record.fitted_output_source else "")
    if record.method == "teacache":
        yield "applied as", {"none": "p(x)", "abs": "|p(x)|", "clip": "max(p(x), 0)"}[record.rescale_post]
    yield "branches", ", ".join(record.branches)
    yield (
        "also named",
        ", ".join(alias.value + (" (borrowed)" if alias.borrowed else "") for alias in record.aliases) or None,
    )
    for name, value in record.conditions:
        yield name.replace("_", " "), value
    for name, value in record.model or ():
        yield f"model's {name.replace('_', ' ')}", _adapters(value) if name == "adapters" else value


def _adapters(adapters: Sequence[ActiveAdapter]) -> str | None:
    scaled = (adapter.name + ("" if adapter.scale is None else f" × {adapter.scale:g}") for adapter in adapters)
    return ", ".join(scaled) or None


def _buckets(record: Calibration) -> str:
    sampler = _samplers(record)
    columns = [
        text.Column("LENGTH", align="right"),
        text.Column("STEPS", align="right"),
        text.Column("SHIFT", align="right"),
        text.Column("SAMPLER", cut=True),
        text.Column("SIZE", cut=True),
        text.Column("WINDOW"),
        text.Column("IN A ROW", align="right", optional=1),
        text.Column("DOMAIN"),
        text.Column("R²", align="right"),
    ]
    rows = [
        (
            bucket.sequence_length,
            bucket.num_steps,
            None if bucket.shift is None else text.number(bucket.shift),
            sampler(bucket),
            _size(bucket),
            _window(bucket),
            bucket.max_consecutive_skips,
            bucket.domain and f"{bucket.domain[0]:.3g}–{bucket.domain[1]:.3g}",
            _fit(bucket),
        )
        for bucket in record.buckets
    ]
    return text.table(columns, rows, indent="  ")


def _samplers(record: Calibration) -> Callable[[Bucket], str | None]:
    """Names a bucket's sampler where the record has buckets of several; else nothing."""
    names = {None if bucket.sampler is None else bucket.sampler.name for bucket in record.buckets}

    def named(bucket: Bucket) -> str | None:
        if len(names) < 2 or bucket.sampler is None:
            return None
        return re.sub(r"^FlowMatch|(Discrete|Multistep)?Scheduler$", "", bucket.sampler.name)

    return named


def _size(bucket: Bucket) -> str | None:
    if bucket.width is None or bucket.height is None:
        return None
    frames = f"×{bucket.frames}" if bucket.frames and bucket.frames > 1 else ""
    return f"{bucket.width}×{bucket.height}{frames}"


def _window(bucket: Bucket) -> str:
    last = bucket.max_skip_step
    steps = f"{bucket.min_skip_step} to {'the end' if last == -1 else last}"
    if bucket.skip_window_fraction is None:
        return steps
    first_share, last_share = bucket.skip_window_fraction
    return f"{steps}, {first_share:.0%}–{last_share:.0%}"


def _fit(bucket: Bucket) -> str | None:
    if bucket.quality is not None:
        return f"{bucket.quality.r2:.3f}"
    if bucket.reported_fit is not None and bucket.reported_fit.r2 is not None:
        return f"{bucket.reported_fit.r2:.3f} (reported)"
    return None


def _name(bucket: Bucket) -> str:
    length = "any length" if bucket.sequence_length is None else str(bucket.sequence_length)
    steps = f", {bucket.num_steps} steps" if bucket.num_steps else ""
    return length + steps + (f", shift {bucket.shift:g}" if bucket.shift else "")


def _curves(record: Calibration) -> Iterator[str]:
    if record.method == "teacache":
        yield text.heading("Coefficients, highest degree first")
        for bucket in record.buckets:
            numbers = ", ".join(map(repr, bucket.coefficients or ()))
            profile = " (and a sigma profile)" if bucket.sigma_profile else ""
            yield text.paragraph(f"[{numbers}]{profile}", indent="  ", bullet=f"{_name(bucket)}: ")
    if record.method != "magcache":
        return
    yield text.heading("Magnitude ratios")
    for bucket in record.buckets:
        for entry in bucket.magnitude_ratios:
            first = ", ".join(f"{ratio:.4g}" for ratio in entry.ratios[:SHOWN_COEFFICIENTS])
            more = ", …" if len(entry.ratios) > SHOWN_COEFFICIENTS else ""
            bullet = f"{_name(bucket)}, {entry.branch}: "
            yield text.paragraph(f"[{first}{more}] ({len(entry.ratios)} steps)", indent="  ", bullet=bullet)


def _operating_points(record: Calibration) -> Iterator[str]:
    points = [(bucket, point) for bucket in record.buckets for point in bucket.operating_points]
    if not points:
        return
    several_shifts = len({bucket.shift for bucket in record.buckets}) > 1
    sampler = _samplers(record)
    yield text.heading("Operating points")
    columns = [
        text.Column("LENGTH", align="right"),
        text.Column("SHIFT", align="right"),
        text.Column("SAMPLER", cut=True),
        text.Column("GATE", align="right"),
        text.Column("FILL", cut=True),
        text.Column("COMPUTED", align="right"),
        text.Column("SPEED-UP", align="right"),
        text.Column("ERROR", align="right"),
        text.Column("EVIDENCE", optional=1),
        text.Column("REMARK", cut=True, optional=2),
    ]
    rows = [
        (
            bucket.sequence_length,
            text.number(bucket.shift) if several_shifts else None,
            sampler(bucket),
            _gate(point),
            None if point.preset is not None else f"{point.forecaster}, {point.applied_to}",
            _computed(bucket, point),
            None if point.speedup is None else f"{point.speedup:.3g}x",
            None if point.error is None else text.number(point.error.mean, 3),
            _evidence(point),
            _remark(point),
        )
        for bucket, point in points
    ]
    yield text.table(columns, rows, indent="  ")
    yield from _strips(record)


def _strips(record: Calibration) -> Iterator[str]:
    """Every plan as a row of steps; thresholds and presets have none."""
    plans = [
        (bucket, point.plan) for bucket in record.buckets for point in bucket.operating_points if point.plan is not None
    ]
    if not plans:
        return
    yield text.heading(f"Steps: {COMPUTED} computed, {REUSED} reused")
    for bucket, plan in plans:
        steps = bucket.num_steps or len(plan.rows or ()) or plan.computed[-1] + 1
        yield from strip(plan.computed, steps)


def strip(computed: Sequence[int], num_steps: int) -> Iterator[str]:
    """One plan, a character a step in groups of ten; on several lines, each with its first step, where the screen is narrower.

    Args:
        computed: the computed steps, ascending.
        num_steps: steps of the run.
    """
    share = f"{len(computed)}/{num_steps}"
    indent = f"  {share:>9}  "
    groups = max(1, (text.screen_width() - len(indent) + 1) // (GROUP + 1))
    done = set(computed)
    marks = "".join(COMPUTED if step in done else REUSED for step in range(num_steps))
    for start in range(0, num_steps, groups * GROUP):
        line = marks[start : start + groups * GROUP]
        shown = " ".join(line[at : at + GROUP] for at in range(0, len(line), GROUP))
        yield (indent if start == 0 else f"  {f'from {start}':>9}  ") + shown


def _qualities(record: Calibration) -> Iterator[str]:
    """What each level of quality means, and how fast this record is within it; nothing where no errors are stated."""
    from easyteacache.policy.quality import LEVELS

    bounds = [
        (bucket, point.speedup, point.error.bound.value)
        for bucket in record.buckets
        for point in bucket.operating_points
        if point.error is not None and point.speedup is not None and (point.error.worst or point.error.p90) is not None
    ]
    if not bounds:
        return
    yield text.heading("Levels of quality: error of nine of ten runs, and the speed-up within it")
    columns = [
        text.Column("QUALITY"),
        text.Column("ERROR", align="right"),
        text.Column("SPEED-UP", align="right"),
        text.Column("WHY", cut=True),
    ]
    rows = []
    for level in LEVELS:
        fastest: dict[int, float] = {}
        for bucket, speedup, error in bounds:
            if error <= level.most:
                fastest[id(bucket)] = max(speedup, fastest.get(id(bucket), 1.0))
        reached = [fastest.get(id(bucket), 1.0) for bucket in record.buckets]
        low, high = min(reached), max(reached)
        shown = f"{high:.3g}x" if low == high else f"{low:.3g}–{high:.3g}x"
        rows.append((level.name, text.number(level.most, 3), shown, level.why))
    yield text.table(columns, rows, indent="  ")


def _computed(bucket: Bucket, point: OperatingPoint) -> str | None:
    if point.computed_steps is None:
        return None
    return str(point.computed_steps) + (f"/{bucket.num_steps}" if bucket.num_steps else "")


def _gate(point: OperatingPoint) -> str | None:
    if point.preset is not None:
        return f"{point.preset.engine} {point.preset.method}"
    return "schedule" if point.threshold is None else text.number(point.threshold)


def _evidence(point: OperatingPoint) -> str | None:
    """The kinds there are, the strongest first."""
    return ", ".join(dict.fromkeys(one.kind for one in point.by_strength)) or None


def _remark(point: OperatingPoint) -> str | None:
    parts = [_preset(point), _weights(point), *map(_figures, point.by_strength)]
    return "; ".join(dict.fromkeys(part for part in parts if part)) or None


def _figures(evidence: Evidence) -> str | None:
    """What stands in no column of its own."""
    latency = None if evidence.latency_seconds is None else f"{evidence.latency_seconds:g} s"
    metric = None
    if evidence.error is None and evidence.metric is not None:
        figures = {"mean": evidence.value, "median": evidence.p50, "p90": evidence.p90, "worst": evidence.worst}
        metric = f"{evidence.metric} " + ", ".join(
            f"{name} {value:g}" for name, value in figures.items() if value is not None
        )
    parts = [part for part in (metric, latency, evidence.hardware, evidence.source, evidence.note) if part]
    return ", ".join(parts) or None


def _preset(point: OperatingPoint) -> str | None:
    if point.preset is None:
        return None
    return ", ".join(f"{name} = {value}" for name, value in point.preset.parameters.items())


def _weights(point: OperatingPoint) -> str | None:
    if point.weights is None:
        return None
    longest = max(map(len, point.weights))
    return f"weights of {len(point.weights)} steps, up to {longest} a step"


def _origin(record: Calibration) -> Iterator[str]:
    origin = record.provenance
    told = [(name.replace("_", " "), value) for name, value in origin if name not in ("sources", "traces") and value]
    if told:
        yield text.fields(told)
    for source in origin.sources:
        yield text.paragraph(_source(source), indent="  ", bullet="- ")
    for trace in origin.traces:
        yield text.paragraph(f"{trace.file}, {trace.runs} runs, sha256 {trace.sha256}", indent="  ", bullet="- ")


def _source(source: Source) -> str:
    place = source.repository or "unknown repository"
    if source.path:
        place += f", {source.path}" + (f":{source.line}" if source.line else "")
    parts = [place, source.commit and f"commit {source.commit[:12]}", source.license, source.note]
    return "; ".join(part for part in parts if part)
