"""`easyteacache-hub lock`: write down which calibrations a project runs with."""

from __future__ import annotations

from pathlib import Path

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import MODEL_KEY, json_option


@click.command("lock")
@click.argument("keys", nargs=-1, type=MODEL_KEY, metavar="[KEY]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("easyteacache.lock"),
    show_default=True,
    help="Lock to write; records it already lists are kept.",
)
@click.option(
    "--check", is_flag=True, help="Write nothing; exit 1 when a lookup here would not find what the lock lists."
)
@json_option
def lock(keys: tuple[str, ...], out: Path, check: bool, as_json: bool) -> None:
    """Write which content of which calibrations this project runs with.

    Locks KEYs as a lookup finds them now, without KEYs everything in the pulled layer. From then on every lookup in this folder
    (TeaCache.from_registry too) finds exactly that content or fails; `pull --locked` brings it to another machine. Set
    EASYTEACACHE_LOCK to use a lock elsewhere, or to nothing to do without.

    \b
    Examples:
      easyteacache-hub lock wan2.1/t2v-14b
      easyteacache-hub lock --check
      easyteacache-hub pull --locked

    \b
    JSON: lock, records (each key, revision, sha256, repository, commit,
      endpoint), problems
    """
    from easyteacache.hub import locking
    from easyteacache.registry import lock_file

    if check:
        found, problems = lock_file.read(out), locking.problems(out)
    else:
        found, problems = locking.add(out, keys), []
    if as_json:
        records = [{"key": key, **one.model_dump(mode="json")} for key, one in found.records.items()]
        text.echo_json({"lock": str(out), "records": records, "problems": problems})
    else:
        for problem in problems:
            click.echo(text.paragraph(problem, bullet="problem: "), err=True)
        count = f"{len(found.records)} record{'' if len(found.records) == 1 else 's'}"
        click.echo(f"{out}: {count}" + (f", {len(problems)} not to be had here" if problems else ""))
    if problems:
        raise SystemExit(1)
