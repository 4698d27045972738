"""`easyteacache-hub stale`: what has moved since records were made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import MODEL_KEY, json_option, open_registry, registry_option
from easyteacache.cli.progress import bar

if TYPE_CHECKING:
    from easyteacache.hub.staleness import Standing


@click.command("stale")
@click.argument("keys", nargs=-1, type=MODEL_KEY, metavar="[KEY]...")
@click.option("--hub", metavar="URL", help="Address of the model hub.  [the Hugging Face Hub]")
@click.option("--sources-api", metavar="URL", help="Address of what answers as GitHub's interface does.  [GitHub]")
@click.option("--offline", is_flag=True, help="Ask nobody; say what cannot be known.")
@click.option("--all", "everything", is_flag=True, help="List what is fresh, too.")
@registry_option
@json_option
def stale(
    keys: tuple[str, ...],
    hub: str | None,
    sources_api: str | None,
    offline: bool,
    everything: bool,
    registry: Path | None,
    as_json: bool,
) -> None:
    """Show whose checkpoint or source has moved since the record was made; every record, or only KEYs.

    A checkpoint has moved where the main branch of its repository stands at another commit than the record names, a source where the
    file was changed since the commit that was read. What cannot be known is listed with the reason. Exit code 1 when something moved.

    \b
    Examples:
      easyteacache-hub stale
      easyteacache-hub stale flux.1/dev --all
      easyteacache-hub stale --offline --json

    \b
    JSON: moved, fresh, unknown (how many), places (each key, kind, repository,
      path, commit, state, now, reason)
    """
    from easyteacache.hub import staleness

    found = open_registry(registry)
    records = [found.find(key).calibration for key in keys] if keys else [found[key] for key in found]
    places = [place for record in records for place in staleness.places_of(record)]
    asked = staleness.Staleness(
        hub=hub or staleness.HUB, sources_api=sources_api or staleness.SOURCES_API, offline=offline
    )
    standings = []
    with bar("place", total=len(places), hidden=as_json) as shown:
        for place in places:
            standings.append(asked.standing(place))
            shown.update()
    count = {state: sum(one.state == state for one in standings) for state in ("moved", "fresh", "unknown")}
    if as_json:
        text.echo_json({**count, "places": [_plain(one) for one in standings]})
    else:
        _show([one for one in standings if everything or one.state != "fresh"])
        click.echo(f"{count['moved']} moved, {count['fresh']} fresh, {count['unknown']} not known.")
    raise SystemExit(1 if count["moved"] else 0)


def _plain(one: Standing) -> dict[str, str | None]:
    return {**vars(one.place), "state": one.state, "now": one.now, "reason": one.reason}


def _show(standings: list[Standing]) -> None:
    if not standings:
        return
    columns = [
        text.Column("STATE"),
        text.Column("KEY"),
        text.Column("WHAT", cut=True),
        text.Column("COMMIT"),
        text.Column("NOW OR WHY NOT KNOWN", cut=True),
    ]
    order = ("moved", "unknown", "fresh")
    rows = [
        (
            one.state,
            one.place.key,
            ", ".join(filter(None, (one.place.repository, one.place.path))),
            (one.place.commit or "–")[:12],
            one.reason or (one.now or "")[:12],
        )
        for one in sorted(standings, key=lambda one: order.index(one.state))
    ]
    click.echo(text.table(columns, rows))
