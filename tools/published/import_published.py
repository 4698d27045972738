"""Turn the published TeaCache coefficients into registry records.

    python tools/published/import_published.py            # write registry/**/*.json and easyteacache/audit/known_variants.json
    python tools/published/import_published.py --check    # only compare; exit status 1 when a file differs

A record that somebody has revised since (a higher revision or another status) is never overwritten.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tools"))

from easyteacache.errors import InvalidCalibration  # noqa: E402
from easyteacache.files import atomic_write, strict_json  # noqa: E402
from easyteacache.records import calibration, model_key  # noqa: E402
from published import records, sets, variants  # noqa: E402

FACTS = ROOT / "tools" / "published" / "teacache_coefficients.json"
VARIANTS = ROOT / "easyteacache" / "audit" / "known_variants.json"


class RefusedOverwrite(Exception):
    """The registry holds a newer or differently judged record of this key."""


def read_facts(path: Path) -> list[records.Fact]:
    """The published facts, ids unique.

    Raises:
        ValueError: an id appears twice.
    """
    facts: list[records.Fact] = json.loads(path.read_text(encoding="utf-8"))
    identities = [fact["id"] for fact in facts]
    repeated = {name for name in identities if identities.count(name) > 1}
    if repeated:
        raise ValueError(f"{path}: ids appear twice: {', '.join(sorted(repeated))}")
    return facts


def build_all(facts: list[records.Fact]) -> dict[str, calibration.Calibration]:
    """Registry key → record, for every own calibration among the facts.

    Raises:
        ValueError: two calibrations would share a key or an alias.
    """
    built: dict[str, calibration.Calibration] = {}
    owners: dict[tuple[str, str], str] = {}
    for fact in filter(sets.is_calibration, facts):
        record = records.build(fact, facts)
        if record.model_key in built:
            raise ValueError(f"{fact['id']}: its key {record.model_key!r} is taken; give it a suffix in sets.SEVERAL")
        built[record.model_key] = record
        for alias in record.aliases:
            owner = owners.setdefault((alias.kind, alias.value), record.model_key)
            if owner != record.model_key:
                raise ValueError(f"the alias {alias.value!r} belongs to both {owner!r} and {record.model_key!r}")
    return built


def write(record: calibration.Calibration, registry: Path, *, check: bool) -> bool:
    """Write one record; with ``check`` only compare.

    Returns:
        True when the file already had this content.

    Raises:
        RefusedOverwrite: the file holds a higher revision or another status.
    """
    path = registry / model_key.path_of(record.model_key)
    wanted = record.to_json()
    if path.exists():
        if path.read_text(encoding="utf-8") == wanted:
            return True
        found = calibration.load(path)
        if found.revision > record.revision or found.status != record.status:
            raise RefusedOverwrite(
                f"{path}: revision {found.revision}, {found.status}; the import would write revision {record.revision}, "
                f"{record.status}. Remove the fact from the import or the file from the registry."
            )
    if not check:
        calibration.save(record, path)
    return False


def write_variants(facts: list[records.Fact], path: Path, *, check: bool) -> bool:
    """Write the lists that are no records; True when the file already had this content."""
    wanted = strict_json.spell(variants.build(facts))
    if path.exists() and path.read_text(encoding="utf-8") == wanted:
        return True
    if not check:
        atomic_write.write_text(path, wanted)
    return False


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, default=FACTS, help="the published coefficients (default: %(default)s)")
    parser.add_argument(
        "--registry", type=Path, default=ROOT / "registry", help="where records go (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file differs")
    parser.add_argument(
        "--variants", type=Path, default=VARIANTS, help="where other known lists go (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    facts = read_facts(options.facts)
    built = build_all(facts)
    differing = [] if write_variants(facts, options.variants, check=options.check) else [options.variants.name]
    for key, record in sorted(built.items()):
        try:
            if not write(record, options.registry, check=options.check):
                differing.append(str(model_key.path_of(key)))
        except (RefusedOverwrite, InvalidCalibration) as error:
            print(f"refused: {error}", file=sys.stderr)
            return 2
    verb = "differs" if options.check else "written"
    for name in differing:
        print(f"{verb}: {name}")
    print(f"{len(built)} records; {len(differing)} files {'different' if options.check else 'written'}.")
    return 1 if options.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
