"""`easyteacache-hub push`: propose calibrations to a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import json_option
from easyteacache.cli.remote_options import open_remote, remote_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easyteacache.hub.push import Proposal
    from easyteacache.hub.review.check_submission import Submission


@click.command("push")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--traces",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR",
    help="Trace file or folder; may be repeated. Every trace the records name must be there.",
)
@remote_options
@click.option(
    "--force-reason", metavar="TEXT", help="Why a record that is worse than the published one should replace it."
)
@click.option("--dry-run", is_flag=True, help="Judge and show what would be sent; send nothing.")
@json_option
def push(
    files: tuple[Path, ...],
    traces: tuple[Path, ...],
    repo: str | None,
    endpoint: str | None,
    force_reason: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Propose calibrations as one pull request.

    Every FILE is judged as `easyteacache validate` does, compared with what is published, and refused with the rule it breaks.
    What passes is sent with its traces and a page with the validation table. The same content again sends nothing; a changed one
    updates the request that is open. The token is $EASYTEACACHE_TOKEN, or for the public hub the login of `hf auth login`.

    \b
    Examples:
      easyteacache-hub push my-model.json --traces traces --repo team/hub
      easyteacache-hub push my-model.json --traces traces --dry-run

    \b
    JSON: repository, state (opened, updated, unchanged, published, dry-run or
      refused), url, files, published, findings (each rule, where, pointer,
      message, severity)
    """
    from easyteacache.cli.judging import judge_of
    from easyteacache.errors import PushRefused
    from easyteacache.files import strict_json
    from easyteacache.hub.push import prepare, send
    from easyteacache.records import parsing

    remote = open_remote(repo, endpoint)
    if not dry_run:
        # Judging takes a while; that nothing can be sent is better known before.
        remote.whoami()
    records = {str(path): parsing.read_file(path, rules="record", max_bytes=strict_json.MAX_BYTES) for path in files}
    try:
        proposal = prepare(remote, records, traces, judge=judge_of(), force_reason=force_reason)
    except PushRefused as error:
        submissions: Sequence[Submission] = error.report or ()  # type: ignore[assignment]
        if as_json:
            text.echo_json(_content(remote.repository, "refused", None, submissions))
            raise SystemExit(1) from error
        _show_findings(submissions)
        raise
    state, url = "published" if not proposal.submissions else "dry-run", None
    if not as_json:
        _show(proposal)
    if proposal.submissions and not dry_run:
        sent = send(remote, proposal)
        state, url = sent.state, sent.url
    if as_json:
        text.echo_json(_content(remote.repository, state, url, proposal.submissions, proposal))
    else:
        click.echo(_closing(state, url))


def _closing(state: str, url: str | None) -> str:
    return {
        "published": "Everything is published already; nothing was sent.",
        "dry-run": "Nothing was sent (--dry-run).",
        "opened": f"Opened {url}",
        "updated": f"Updated {url}",
        "unchanged": f"Nothing new: {url} holds this content already.",
    }[state]


def _show(proposal: Proposal) -> None:
    for one in proposal.submissions:
        if one.report is not None:
            click.echo(one.report.text())
    for key in proposal.published:
        click.echo(f"{key}: published already with this content")
    if proposal.files:
        click.echo(text.heading(f"Request: {proposal.title}"))
        rows = [(path, len(data)) for path, data in sorted(proposal.files.items())]
        click.echo(text.table([text.Column("FILE"), text.Column("BYTES", align="right")], rows, indent="  "))
    _show_findings(proposal.submissions)


def _show_findings(submissions: Sequence[Submission]) -> None:
    for one in submissions:
        for finding in one.findings:
            bullet = "refused: " if finding.severity == "error" else "warning: "
            click.echo(text.paragraph(str(finding), bullet=bullet), err=True)


def _content(
    repository: str, state: str, url: str | None, submissions: Sequence[Submission], proposal: Proposal | None = None
) -> dict[str, Any]:
    findings = [
        {name: getattr(finding, name) for name in ("rule", "where", "pointer", "message", "severity")}
        for one in submissions
        for finding in one.findings
    ]
    return {
        "repository": repository,
        "state": state,
        "url": url,
        "files": sorted(proposal.files) if proposal else [],
        "published": list(proposal.published) if proposal else [],
        "findings": findings,
    }
