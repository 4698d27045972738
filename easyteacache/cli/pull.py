"""`easyteacache-hub pull`: bring calibrations from a hub to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import MODEL_KEY, json_option
from easyteacache.cli.remote_options import open_remote, remote_options, rollback_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easyteacache.hub.pull import Pulled
    from easyteacache.hub.remote import Remote
    from easyteacache.registry.lock_file import LockedRecord

COLOURS = {"new": "green", "changed": "yellow", "mended": "yellow", "refused": "red"}


@click.command("pull")
@click.argument("keys", nargs=-1, type=MODEL_KEY, metavar="[KEY]...")
@remote_options
@click.option("--revision", metavar="REV", help="Branch, tag or commit.  [main]")
@click.option("--locked", is_flag=True, help="Bring exactly what easyteacache.lock names.")
@click.option("--offline", is_flag=True, help="Use what was downloaded before; ask no hub.  [$HF_HUB_OFFLINE]")
@rollback_option
@click.option("--dry-run", is_flag=True, help="Show what would happen; install nothing.")
@json_option
def pull(
    keys: tuple[str, ...],
    repo: str | None,
    endpoint: str | None,
    revision: str | None,
    locked: bool,
    offline: bool,
    allow_rollback: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bring calibrations from a hub to this machine, where every lookup then finds them.

    KEY is a model key, an exact alias or a glob such as 'wan2.1/*'; without one, everything is brought. What arrives belongs to one
    commit, and every file is checked against the index, the format and its invariants before it can be seen. A file that fails is
    kept aside and reported while the others land; exit code 1 then. What was damaged on this machine since the last pull is mended.
    A commit that does not follow the newest one seen of this hub is refused.

    \b
    Examples:
      easyteacache-hub pull wan2.1/t2v-14b --repo team/calibrations
      easyteacache-hub pull --repo team/calibrations --dry-run
      easyteacache-hub pull --locked --offline

    \b
    JSON: {"pulls": [...]}; each with repository, commit, dry_run, records (each
      key, state: new | changed | mended | unchanged | refused, before, after,
      findings)
    """
    if locked and (keys or revision or repo):
        raise click.UsageError("--locked takes keys, repository and commits from the lock.")
    with _bar(hidden=as_json) as progress:
        if locked:
            pulls = _locked(endpoint, offline, dry_run, progress)
        else:
            from easyteacache.hub.pull import pull as pull_records

            remote = open_remote(repo, endpoint, offline=offline)
            options = {"revision": revision, "dry_run": dry_run, "allow_rollback": allow_rollback}
            pulls = [pull_records(remote, keys, **options, progress=progress)]  # type: ignore[arg-type]
    if as_json:
        text.echo_json({"pulls": [_content(one, dry_run) for one in pulls]})
    else:
        for one in pulls:
            _show(one, dry_run)
    if any(one.refused for one in pulls):
        raise SystemExit(1)


def _locked(endpoint: str | None, offline: bool, dry_run: bool, progress: Callable[[int, int], object]) -> list[Pulled]:
    from huggingface_hub import constants

    from easyteacache.hub.pull import pull_locked
    from easyteacache.registry import lock_file

    path = lock_file.in_force()
    if path is None:
        raise click.UsageError(f"there is no {lock_file.FILE_NAME} here: write one with `easyteacache-hub lock`.")
    lock = lock_file.read(path)

    def remote_of(one: LockedRecord) -> Remote:
        # A lock comes with a project. It may say where records are, not where this person's token is sent.
        own = endpoint is not None or one.endpoint in (None, constants.ENDPOINT.rstrip("/"))
        return open_remote(one.repository, endpoint or one.endpoint, offline=offline, anonymous=not own)

    return pull_locked(remote_of, lock, dry_run=dry_run, progress=progress)


class _bar:  # noqa: N801 - used like a function
    """A progress bar on stderr over the records that are fetched."""

    def __init__(self, *, hidden: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="record", disable=True if hidden else None, leave=False)

    def __enter__(self) -> Callable[[int, int], object]:
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _tell(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)


def _content(pulled: Pulled, dry_run: bool) -> dict[str, Any]:
    records = [
        {
            "key": one.key,
            "state": one.state,
            "before": one.before,
            "after": one.after,
            "findings": [str(finding) for finding in one.findings],
        }
        for one in pulled.outcomes
    ]
    return {"repository": pulled.repository, "commit": pulled.commit, "dry_run": dry_run, "records": records}


def _show(pulled: Pulled, dry_run: bool) -> None:
    shown = [one for one in pulled.outcomes if one.state != "unchanged"]
    at = f" at {pulled.commit[:12]}" if pulled.commit else ", as the lock says"
    click.echo(f"{pulled.repository}{at}: {_counts([one.state for one in pulled.outcomes])}")
    if shown:
        columns = [
            text.Column("KEY"),
            text.Column("REVISION", align="right"),
            text.Column("STATE", style=lambda state: {"fg": COLOURS[state]} if state in COLOURS else {}),
        ]
        rows = [(one.key, f"{one.before} → {one.after}" if one.before else one.after, one.state) for one in shown]
        click.echo(text.table(columns, rows, indent="  "))
    for one in pulled.refused:
        for finding in one.findings:
            click.echo(text.paragraph(str(finding), indent="  ", bullet="refused: "), err=True)
    if dry_run:
        click.echo("Nothing was installed (--dry-run).")
    elif pulled.refused:
        from easyteacache.hub.store import Store

        folder: Path = Store().quarantine
        click.echo(f"Refused files are kept in {folder}; the others were installed.", err=True)


def _counts(states: Sequence[str]) -> str:
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states))) or "no records"
