"""`easyteacache-hub log`: the history of one record at the hub."""

from __future__ import annotations

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import MODEL_KEY, json_option
from easyteacache.cli.remote_options import open_remote, remote_options


@click.command("log")
@click.argument("key", type=MODEL_KEY)
@remote_options
@click.option("--revision", metavar="REV", help="Branch, tag or commit to begin with.  [main]")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Commits to look through."
)
@json_option
def log(key: str, repo: str | None, endpoint: str | None, revision: str | None, limit: int, as_json: bool) -> None:
    """Show the commits in which one record changed, newest first.

    Any of them can be given to `pull --revision`.

    \b
    Examples:
      easyteacache-hub log wan2.1/t2v-14b --repo team/calibrations
      easyteacache-hub pull wan2.1/t2v-14b --revision COMMIT

    \b
    JSON: key, commits (each commit, date, title, authors, revision, status)
    """
    from easyteacache.hub.history import history

    found = history(open_remote(repo, endpoint), key, revision=revision, limit=limit)
    if as_json:
        commits = [
            {
                "commit": one.commit,
                "date": one.date,
                "title": one.title,
                "authors": list(one.authors),
                "revision": one.revision,
                "status": one.status,
            }
            for one in found
        ]
        text.echo_json({"key": key, "commits": commits})
        return
    columns = [
        text.Column("COMMIT"),
        text.Column("DATE"),
        text.Column("REVISION", align="right"),
        text.Column("STATUS", style=text.status_style),
        text.Column("BY", cut=True),
        text.Column("TITLE", cut=True),
    ]
    rows = [
        (
            one.commit[:12],
            one.date[:10],
            one.revision,
            one.status,
            _line(", ".join(one.authors)),
            _line(one.title),
        )
        for one in found
    ]
    click.echo(text.table(columns, rows))


def _line(words: str) -> str:
    """What others wrote, on one line: a row of its own would look like a commit."""
    return text.plain(" ".join(words.split()))
