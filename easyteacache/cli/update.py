"""`easyteacache-hub update`: what has changed at the hub since the last pull."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.diff import change_content, changes_table
from easyteacache.cli.parameters import MODEL_KEY, json_option
from easyteacache.cli.remote_options import open_remote, remote_options, rollback_option

if TYPE_CHECKING:
    from easyteacache.hub.remote import Remote
    from easyteacache.hub.review.record_diff import Change
    from easyteacache.records.calibration import Calibration


@click.command("update")
@click.argument("keys", nargs=-1, type=MODEL_KEY, metavar="[KEY]...")
@remote_options
@click.option("--revision", metavar="REV", help="Branch, tag or commit to compare with.  [main]")
@click.option("--apply", is_flag=True, help="Pull what changed, once it is shown.")
@rollback_option
@json_option
def update(
    keys: tuple[str, ...],
    repo: str | None,
    endpoint: str | None,
    revision: str | None,
    apply: bool,
    allow_rollback: bool,
    as_json: bool,
) -> None:
    """Show what has changed at the hub since records were pulled; install nothing unless told to.

    For each pulled record (or only KEYs: model keys, exact aliases or globs) whose content differs: fields, coefficients side by
    side, and the effect at every operating point. A threshold that the new record does not judge is replayed on its sigma profile.
    A commit that does not follow the newest one seen of this hub is refused.

    \b
    Examples:
      easyteacache-hub update --repo team/calibrations
      easyteacache-hub update wan2.1/t2v-14b --apply

    \b
    JSON: repository, commit, applied, records (each key, before, after, changes:
      each where, before, after)
    """
    from easyteacache.hub.pull import choose, newest_index, pull
    from easyteacache.hub.store import Store

    remote = open_remote(repo, endpoint)
    here = Store().current()
    advice = "`easyteacache-hub list --source pulled` shows what was pulled."
    wanted = sorted(choose(here.index, keys, place="the pulled layer", advice=advice))
    commit, found = newest_index(remote, revision, allow_rollback=allow_rollback)
    changed = [k for k in wanted if k in found.records and found.records[k].sha256 != here.index.records[k].sha256]
    lines = []
    for key in changed:
        old, new = here.index.records[key], found.records[key]
        lines.append((key, old.revision, new.revision, _changes(key, _published(remote, commit, key, new.sha256))))
    if as_json:
        records = [
            {"key": key, "before": old, "after": new, "changes": [change_content(change) for change in changes]}
            for key, old, new, changes in lines
        ]
        text.echo_json({"repository": remote.repository, "commit": commit, "applied": apply, "records": records})
    else:
        for key, before, after, changes in lines:
            click.echo(text.heading(f"{key}: revision {before} → {after}"))
            click.echo(changes_table(changes) if changes else "  Only the way it is written differs.")
        gone = [key for key in wanted if key not in found.records]
        click.echo(f"\n{len(changed)} of {len(wanted)} pulled records changed at {remote.repository}.")
        if gone:
            click.echo(text.paragraph(f"Not at this hub: {', '.join(gone)}"))
    if apply and changed and pull(remote, changed, revision=commit).refused:
        raise SystemExit(1)


def _published(remote: Remote, commit: str, key: str, sha256: str) -> Calibration:
    """The record as the hub has it, from what was downloaded before where it is there."""
    from easyteacache.hub.downloads import Downloads
    from easyteacache.hub.push import published_record
    from easyteacache.records.calibration import Calibration

    kept = Downloads().get(sha256)
    return published_record(remote, commit, key)[0] if kept is None else Calibration.from_json(kept, where=key)


def _changes(key: str, new: object) -> list[Change]:
    from easyteacache.hub.review.record_diff import compare
    from easyteacache.hub.store import Store
    from easyteacache.records.calibration import Calibration
    from easyteacache.registry.registry import Layer

    folder = Store().current().folder
    assert folder is not None
    assert isinstance(new, Calibration)
    return compare(Layer("pulled", folder).load(key), new)
