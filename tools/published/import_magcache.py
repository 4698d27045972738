"""Turn the published MagCache ratios into registry records of method ``magcache``.

    python tools/published/import_magcache.py            # write registry/**/*.json
    python tools/published/import_magcache.py --check    # only compare; exit status 1 when a file differs

Interleaved lists become one list a branch, the value that loaders put in front (1) is written out, and lists of one model for
several step counts become buckets of one record. A record that somebody has revised since is never overwritten.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import import_published  # noqa: E402

from easyteacache.errors import InvalidCalibration  # noqa: E402
from easyteacache.policy.methods.magcache import rule_of  # noqa: E402
from easyteacache.records import model_key  # noqa: E402
from easyteacache.records.calibration import SCHEMA_VERSION, BranchRatios, Bucket, Calibration, OperatingPoint  # noqa: E402
from easyteacache.records.evidence import Evidence  # noqa: E402
from easyteacache.records.provenance import Provenance  # noqa: E402
from published import import_plans, magcache, records  # noqa: E402
from published.magcache import Fact, Target  # noqa: E402
from published.plans import magcache as settings  # noqa: E402

FACTS = ROOT / "tools" / "published" / "mag_ratios.json"
AUTHORS = ("Zehong-Ma/MagCache", "kandinskylab/kandinsky-5")
Branches = dict[str, tuple[float, ...]]


def build_all(facts: Sequence[Fact]) -> dict[str, Calibration]:
    """Registry key → record.

    Raises:
        ValueError: a list belongs to no record and has no reason to be left out, or a record has no list.
    """
    built = {target.key: build(target, facts) for target in magcache.TARGETS}
    used = {id(fact) for target in magcache.TARGETS for fact, _ in chosen(target, facts)}
    for fact in facts:
        if id(fact) not in used and magcache.reason_to_leave_out(fact) is None:
            raise ValueError(f"{fact['model_key']}, {fact['num_steps']} steps: no record takes this list")
    return built


def build(target: Target, facts: Sequence[Fact]) -> Calibration:
    """The record of one target."""
    found = list(chosen(target, facts))
    if not found:
        raise ValueError(f"{target.key}: no published list")
    by_steps: dict[int, list[tuple[Fact, str | None]]] = {}
    for fact, branch in found:
        by_steps.setdefault(fact["num_steps"], []).append((fact, branch))
    presets = [fact for fact in import_plans.read_facts() if fact["method"] == "MagCache"]
    mine = [fact for fact in presets if settings.key_of(fact) == target.key]
    lost = [fact["id"] for fact in mine if fact["num_steps"] not in by_steps]
    if lost:
        raise ValueError(f"{target.key}: no ratios of as many steps as {lost}")
    buckets = [_bucket(target, steps, lists, mine) for steps, lists in sorted(by_steps.items())]
    branches = list(dict.fromkeys(entry.branch for bucket in buckets for entry in bucket.magnitude_ratios))
    return Calibration.from_mapping(
        {
            "schema_version": SCHEMA_VERSION,
            "model_key": target.key,
            "revision": 1,
            "status": "published",
            "title": target.title,
            "modality": target.modality,
            "model": _model(target),
            "aliases": [{"kind": "hub_repository", "value": name} for name in target.names],
            "method": "magcache",
            "signal": "none",
            "signal_source": "MagCache takes no signal: its ratios say for each step what to expect.",
            "fitted_output": "block_residual",
            "branches": branches,
            "buckets": [bucket.model_dump() for bucket in buckets],
            "provenance": _provenance([fact for fact, _ in found]).model_dump(),
            "notes": [*target.notes, *_notes(target, [fact for fact, _ in found], mine)],
        },
        where=target.key,
    )


def _model(target: Target) -> dict[str, str] | None:
    known = {"class_name": target.class_name, "checkpoint": target.checkpoint}
    return {name: value for name, value in known.items() if value is not None} or None


def chosen(target: Target, facts: Sequence[Fact]) -> Iterator[tuple[Fact, str | None]]:
    """The facts of a target, each with the one branch it holds where its layout does not say."""
    branches = dict(target.facts)
    for fact in facts:
        printed = {source["repo"] for source in fact["sources"]}
        foreign = target.repository is not None and target.repository not in printed
        if fact["model_key"] in branches and not foreign and magcache.reason_to_leave_out(fact) is None:
            yield fact, branches[fact["model_key"]]


def _bucket(
    target: Target, steps: int, lists: Sequence[tuple[Fact, str | None]], presets: Sequence[settings.Fact]
) -> Bucket:
    ratios: Branches = {}
    for fact, branch in lists:
        for name, values in _branches(fact, branch).items():
            if len(values) != steps:
                raise ValueError(f"{target.key}: {len(values)} ratios for {steps} steps")
            if ratios.setdefault(name, values) != values:
                raise ValueError(f"{target.key}: two different lists for {name}; give one of them a record of its own")
    advice = next(filter(None, (_advice(fact) for fact, _ in lists)), None)
    own = [fact for fact in presets if fact["num_steps"] == steps]
    # Where the settings name one, theirs: a recommendation of a later README is of the same script.
    limits = [limit for limit in (settings.limit_of(own), None if advice is None else advice["K"]) if limit is not None]
    kept = settings.retention_of(own)
    if kept is None and advice is not None:
        kept = advice["retention_ratio"]
    bucket = Bucket(
        num_steps=steps,
        magnitude_ratios=tuple(BranchRatios(branch=name, ratios=values) for name, values in ratios.items()),
        max_consecutive_skips=max(limits, default=None),
        skip_window_fraction=None if kept is None else (kept, 1.0),
        operating_points=() if advice is None else (_operating_point(advice),),
    )
    return bucket.model_copy(update={"operating_points": tuple(settings.points(target.key, bucket, own))})


def _branches(fact: Fact, branch: str | None) -> Branches:
    """The list of every branch, one value a step."""
    names = (branch,) if branch else magcache.LAYOUTS[fact["layout"]]
    printed = [1.0] * fact["prepended_ones"] + [float(value) for value in fact["ratios"]]
    return {name: tuple(printed[offset :: len(names)]) for offset, name in enumerate(names)}


def _advice(fact: Fact) -> Fact | None:
    """What MagCache's authors recommend for this list; for other people's lists they recommend nothing."""
    authors = any(source["repo"].startswith("Zehong-Ma/") for source in fact["sources"])
    advice: Fact | None = fact["recommended"] if authors else None
    return advice


def _operating_point(advice: Fact) -> OperatingPoint:
    return OperatingPoint(
        threshold=float(advice["magcache_thresh"]),
        evidence=(Evidence(kind="published", how="reported", note=_recommended(advice)),),
    )


def _recommended(advice: Fact) -> str:
    return (
        f"Recommended in the README of {advice['source'].removesuffix(' README')}: threshold of the accumulated "
        f"|1 − ratio|, at most {advice['K']} steps in a row, the first {advice['retention_ratio']:.0%} computed"
    )


def _notes(target: Target, facts: Sequence[Fact], presets: Sequence[settings.Fact]) -> Iterator[str]:
    yield (
        "A ratio is ‖residual of the step‖ / ‖residual of the step before‖. For another step count its users take the nearest "
        "ratio of each branch."
    )
    yield from dict.fromkeys(settings.notes(presets))
    if not presets and not any(_advice(fact) for fact in facts):
        yield "The source recommends no threshold, run length or retention for this model."
    if rule_of(target.key).boundary is not None:
        yield "Two experts take turns: the rule begins anew with the second one, at the step where the noise level crosses its boundary."


def _provenance(facts: Sequence[Fact]) -> Provenance:
    printed = {
        (source["repo"], source["path"], source["line"]): records.source_of(source)
        for fact in facts
        for source in fact["sources"]
    }
    # First the original: the method's authors, or the model's own where they measured them themselves.
    sources = sorted(printed.values(), key=lambda source: source.repository not in AUTHORS)
    licences = [source.license for source in sources if source.license]
    return Provenance(
        license=licences[0] if licences and sources[0].license else None,
        sources=tuple(sources),
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, default=FACTS, help="the published ratios (default: %(default)s)")
    parser.add_argument(
        "--registry", type=Path, default=ROOT / "registry", help="where records go (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file differs")
    options = parser.parse_args(arguments)
    built = build_all(json.loads(options.facts.read_text(encoding="utf-8")))
    differing = []
    for key, record in sorted(built.items()):
        try:
            if not import_published.write(record, options.registry, check=options.check):
                differing.append(str(model_key.path_of(key)))
        except (import_published.RefusedOverwrite, InvalidCalibration) as error:
            print(f"refused: {error}", file=sys.stderr)
            return 2
    verb = "differs" if options.check else "written"
    for name in differing:
        print(f"{verb}: {name}")
    print(f"{len(built)} records; {len(differing)} files {'different' if options.check else 'written'}.")
    return 1 if options.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
