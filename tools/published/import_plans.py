"""Turn published plans and presets into registry records of method ``plan`` and ``preset``.

    python tools/published/import_plans.py            # write registry/**/*.json and registry/index.json
    python tools/published/import_plans.py --check    # only compare; exit status 1 when a file differs

One record a model and method, one bucket a setting. A record that somebody has revised since is never overwritten. MagCache's settings go
into the records of its ratios (``import_magcache.py``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from easyteacache.errors import InvalidCalibration  # noqa: E402
from easyteacache.records import model_key  # noqa: E402
from easyteacache.records.calibration import Calibration  # noqa: E402
from published import import_published  # noqa: E402
from published.plans import cachedit, dpcache, l2p, lemica, meancache, presets, smoothcache, spectrum, taylorseer  # noqa: E402
from published.plans.build import build_record  # noqa: E402
from published.plans.method import Fact, Method  # noqa: E402

FACTS = ROOT / "tools" / "published" / "published_plans.json"
PLANS = (
    lemica.METHOD,
    meancache.METHOD,
    l2p.METHOD,
    dpcache.METHOD,
    spectrum.METHOD,
    taylorseer.TAYLORSEER,
    taylorseer.HUNYUAN_OWN,
    smoothcache.METHOD,
    cachedit.INTERVAL,
    cachedit.MASK,
)
#: Presets whose importer is that of the method's plans.
_WITH_PLANS = ("cache-dit SCM",)
#: Facts that become thresholds of other records.
_ELSEWHERE = ("MagCache",)
write = import_published.write


def read_facts(path: Path = FACTS) -> list[Fact]:
    """The published facts, ids unique."""
    facts: list[Fact] = json.loads(path.read_text(encoding="utf-8"))["plans"]
    names = [fact["id"] for fact in facts]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"{path}: ids appear twice: {', '.join(sorted(repeated))}")
    return facts


def method_of(fact: Fact) -> Method | None:
    """The importer of one fact; None for those that other records take.

    Raises:
        ValueError: no importer takes it.
    """
    if fact["method"] in _ELSEWHERE:
        return None
    if fact["kind"] == "preset" and fact["method"] not in _WITH_PLANS:
        return presets.METHOD
    found = next((method for method in PLANS if fact["method"] in method.takes), None)
    if found is None:
        raise ValueError(f"{fact['id']}: no importer takes {fact['method']!r}")
    return found


def left_out(facts: Sequence[Fact]) -> dict[str, str]:
    """Fact → why it is no record's."""
    return {
        fact["id"]: method.left_out(fact)
        for fact in facts
        if (method := method_of(fact)) is not None and method.setting(fact) is None
    }


def build_all(facts: Sequence[Fact], shared: dict[str, Any], bare: set[str]) -> dict[str, Calibration]:
    """Registry key → record.

    Args:
        facts: what was published.
        shared: noise levels that several facts name.
        bare: keys of models that have a record of their own; it carries their Hub repositories.
    """
    groups: dict[tuple[str, str], tuple[Method, list[Fact]]] = {}
    for fact in facts:
        method = method_of(fact)
        if method is None or method.setting(fact) is None:
            continue
        place = (fact["model_key_suggestion"], method.part(fact))
        # A preset of a method that also has plans for the model: two kinds of record.
        if fact["kind"] == "preset" and place in groups and groups[place][0] is not method:
            place = (place[0], f"preset-{place[1]}")
            method = presets.renamed(place[1])
        groups.setdefault(place, (method, []))[1].append(fact)
    named: set[str] = set()
    built = {}
    for (key, _), (method, members) in groups.items():
        # One record of a model without one of its own carries its names; the others are found beside it.
        first = key not in bare and key not in named
        named.add(key)
        record = build_record(key, method, members, shared=shared, hub_alias=first)
        built[record.model_key] = record
    return built


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, default=FACTS, help="the published plans (default: %(default)s)")
    parser.add_argument(
        "--registry", type=Path, default=ROOT / "registry", help="where records go (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file differs")
    options = parser.parse_args(arguments)
    facts = read_facts(options.facts)
    shared = json.loads(options.facts.read_text(encoding="utf-8"))["shared"]
    built = build_all(facts, shared, bare_keys(options.registry))
    differing = []
    for key, record in sorted(built.items()):
        try:
            if not write(record, options.registry, check=options.check):
                differing.append(str(model_key.path_of(key)))
        except (import_published.RefusedOverwrite, InvalidCalibration) as error:
            print(f"refused: {error}", file=sys.stderr)
            return 2
    verb = "differs" if options.check else "written"
    for name in differing:
        print(f"{verb}: {name}")
    for name, why in sorted(left_out(facts).items()):
        print(f"left out: {name}: {why}")
    print(f"{len(built)} records; {len(differing)} files {'different' if options.check else 'written'}.")
    return 1 if options.check and differing else 0


def bare_keys(registry: Path) -> set[str]:
    """Keys of models with a record of their own, which carries their Hub repositories."""
    from easyteacache.registry import index
    from easyteacache.registry.family import names_method

    return {key for key, _ in index.record_paths(registry) if not names_method(key)}


if __name__ == "__main__":
    sys.exit(main())
