"""What released engines ship: download their wheels, audit them, and write docs/engines-audit.md and docs/engines-audit.json.

python tools/audit_engines.py                      # the newest release of every package that tools/engines/audited.json lists
python tools/audit_engines.py vllm-omni==0.30.0    # these releases alone, printed and not written
python tools/audit_engines.py --check              # exit 1 when the page is not what the JSON says; downloads nothing

Wheels are unpacked, never installed or run. The date of the page is that of its last change.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import click

from easyteacache.audit.recognition import SUFFIXES, Match
from easyteacache.audit.scan import Diagnostic, TreeAudit, audit
from easyteacache.files import atomic_write, console, strict_json
from easyteacache.registry import bundled
from easyteacache.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
FACTS = ROOT / "tools" / "engines" / "audited.json"
PAGE, DATA = ROOT / "docs" / "engines-audit.md", ROOT / "docs" / "engines-audit.json"
# More than any engine's sources; an archive that unfolds to more is passed over.
MAX_UNPACKED = 1 << 30
MAX_MEMBERS = 100_000
_WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)-.+\.whl")


class NoWheel(Exception):
    """The package index has no wheel of this release for this platform."""


class Facts(NamedTuple):
    """What is known beforehand: which packages are looked at, and what was checked by hand.

    Attributes:
        packages: name on the package index → the engine's name as people write it.
        notes: package → what no audit can see, one sentence each.
        checked: fingerprint of a finding → what a look at the code around it gave.
    """

    packages: Mapping[str, str]
    notes: Mapping[str, Sequence[str]]
    checked: Mapping[str, str]

    @classmethod
    def load(cls) -> Facts:
        """Read ``tools/engines/audited.json``."""
        return cls(**strict_json.parse(FACTS.read_bytes()))


@click.command(help=__doc__)
@click.argument("releases", nargs=-1, metavar="[NAME[==VERSION]]...")
@click.option("--check", is_flag=True, help="Exit 1 when the page is not what the JSON says; write nothing.")
@click.option(
    "--wheels", type=click.Path(path_type=Path, file_okay=False), help="Keep wheels here, and take them from here."
)
def main(releases: tuple[str, ...], check: bool, wheels: Path | None) -> None:
    """Entry point."""
    facts = Facts.load()
    if check:
        if PAGE.read_text(encoding="utf-8") != page(json.loads(DATA.read_text(encoding="utf-8")), facts):
            click.echo(f"docs/{PAGE.name} is stale: run python tools/audit_engines.py", err=True)
            sys.exit(1)
        return
    with contextlib.ExitStack() as stack:
        folder = wheels or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = [_looked_at(release, folder, facts) for release in releases or facts.packages]
    if releases:
        click.echo(strict_json.spell(found), nl=False)
        return
    click.echo("changed" if _update(found, facts) else "nothing changed")


def _update(packages: list[dict[str, Any]], facts: Facts) -> bool:
    """Write both files where something but the date changed."""
    before = json.loads(DATA.read_text(encoding="utf-8")) if DATA.is_file() else {}
    same = before.get("packages") == json.loads(strict_json.spell(packages))
    date = before["date"] if same else datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    content = {"date": date, "packages": packages}
    for file, text in ((DATA, strict_json.spell(content)), (PAGE, page(content, facts))):
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            atomic_write.write_text(file, text)
            same = False
    return not same


def _looked_at(release: str, folder: Path, facts: Facts) -> dict[str, Any]:
    """One package: its version, and what it ships."""
    name = release.partition("==")[0]
    title = facts.packages.get(name, name)
    try:
        wheel = download(release, folder)
        with tempfile.TemporaryDirectory() as unpacked, _inside(unpack(wheel, Path(unpacked))):
            report = audit(Path(), Registry.from_folder(bundled.registry()), skipped=lambda file, reason: None)
    except NoWheel as error:
        click.echo(f"{name}: {error}", err=True)
        return {"package": name, "title": title, "version": None, "lists": [], "findings": []}
    match = _WHEEL.fullmatch(wheel.name)
    assert match is not None
    click.echo(f"{name} {match['version']}: {len(report.recognised)} lists, {len(report.findings)} findings", err=True)
    return {"package": name, "title": title, "version": match["version"], **shipped(report)}


def download(release: str, folder: Path) -> Path:
    """The wheel of a release, by pip: nothing of it is run, which building an sdist would do.

    Raises:
        NoWheel: there is none.
    """
    name, _, version = release.partition("==")
    folder.mkdir(parents=True, exist_ok=True)
    if not (version and _wheels_of(name, version, folder)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", str(folder), release], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise NoWheel(console.escaped((lines or ["no wheel"])[-1]))
    return max(_wheels_of(name, version, folder), key=lambda wheel: wheel.stat().st_mtime_ns)


def _wheels_of(name: str, version: str, folder: Path) -> list[Path]:
    """Wheels of a package in a folder; names are compared as PEP 503 says."""
    found = []
    for wheel in folder.glob("*.whl"):
        match = _WHEEL.fullmatch(wheel.name)
        same = match is not None and _normal(match["name"]) == _normal(name)
        if same and match is not None and version in ("", match["version"]):
            found.append(wheel)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unpack(wheel: Path, folder: Path) -> Path:
    """The sources and configurations of a wheel, with every name below ``folder``.

    Raises:
        NoWheel: it holds more than any engine's sources.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [member for member in archive.infolist() if PurePosixPath(member.filename).suffix.lower() in SUFFIXES]
        if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_UNPACKED:
            raise NoWheel(f"{wheel.name} unfolds to more than is looked at")
        # zipfile takes drives, leading slashes and ".." out of names.
        archive.extractall(folder, members)
    return folder


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in ``folder``, so that findings name files as the wheel does and keep their fingerprints."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def shipped(report: TreeAudit) -> dict[str, Any]:
    """Every list that was recognised, and every finding, as plain data."""
    return {
        "lists": [_list(match) for match in report.recognised],
        "findings": [_finding(finding) for finding in report.findings],
    }


def _list(match: Match) -> dict[str, Any]:
    return {
        "file": match.file,
        "line": match.found.line,
        "stands_under": match.filed_under or (match.found.names or ("",))[0],
        "model_key": match.known.model_key,
        "title": match.known.title,
        "kind": match.kind,
    }


def _finding(finding: Diagnostic) -> dict[str, Any]:
    names = ("rule", "level", "file", "line", "message", "model_key", "fingerprint")
    return {name: value for name, value in finding.to_dict().items() if name in names}


# The page --------------------------------------------------------------------------------------------------------------------


def page(content: Mapping[str, Any], facts: Facts) -> str:
    """The whole page for what ``docs/engines-audit.json`` holds."""
    packages = content["packages"]
    parts = [
        "# What released engines ship",
        "Generated by `python tools/audit_engines.py` from [engines-audit.json](engines-audit.json); do not edit. Wheels of the "
        "package index are unpacked and [audited](engines.md#audit): which TeaCache coefficients they hold, whose they are, and what is "
        f"wrong with them. Last change: {content['date']}.",
        _overview(packages),
        *(_section(package, facts) for package in packages if package["lists"] or facts.notes.get(package["package"])),
    ]
    return "\n\n".join(parts) + "\n"


def _overview(packages: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| engine | package | release | lists | findings |", "|---|---|---|---|---|"]
    for package in packages:
        name = f"[{package['title']}](#{anchor(package['title'])})" if package["lists"] else package["title"]
        release = package["version"] or "no wheel"
        levels = [finding["level"] for finding in package["findings"]]
        counted = ", ".join(
            f"{levels.count(level)} {level}" for level in ("error", "warning", "note") if level in levels
        )
        rows.append(
            f"| {name} | `{package['package']}` | {release} | {len(package['lists']) or '–'} | {counted or '–'} |"
        )
    return "\n".join(rows)


def _section(package: Mapping[str, Any], facts: Facts) -> str:
    version = package["version"]
    release = f"Release {version} of `{package['package']}`." if version else "No wheel on the index."
    parts = [f"## {package['title']}", release]
    if package["lists"]:
        rows = ["| place | stands under | whose numbers | printed |", "|---|---|---|---|"]
        for one in package["lists"]:
            cells = (
                _code(f"{one['file']}:{one['line']}"),
                _code(one["stands_under"]),
                _code(one["model_key"]),
                one["kind"],
            )
            rows.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(rows))
    if package["findings"]:
        parts.append("\n".join(_told(finding, facts) for finding in package["findings"]))
    parts += [f"By hand: {note}" for note in facts.notes.get(package["package"], ())]
    return "\n\n".join(parts)


def _told(finding: Mapping[str, Any], facts: Facts) -> str:
    checked = facts.checked.get(finding["fingerprint"])
    seen = f"Checked by hand: {checked}" if checked else "Not yet checked by hand."
    message = _plain(finding["message"])
    return f"- **{finding['level']}**, `{finding['rule']}`, {_code(finding['file'])} line {finding['line']}: {message} {seen}"


def _code(text: str) -> str:
    return f"`{_plain(text).replace('`', chr(39))}`"


def _plain(text: str) -> str:
    """Text of others for a table of Markdown: no line, no column, no markup of its own."""
    return console.escaped(text).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def anchor(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    kept = "".join(character for character in title.lower() if character.isalnum() or character in " -_")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    main()
