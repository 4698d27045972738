"""`easyteacache-hub push`: propose calibrations to a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easyteacache.cli import text
from easyteacache.cli.parameters import MODEL_KEY, json_option
from easyteacache.cli.remote_options import open_remote, remote_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easyteacache.calibrating.sharing import Shareable
    from easyteacache.hub.push import Proposal
    from easyteacache.hub.remote import Remote
    from easyteacache.hub.review.check_submission import Submission


@click.command("push")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--traces",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR",
    help="Trace file or folder; may be repeated. Every trace the records name must be there.",
)
@click.option(
    "--local",
    is_flag=True,
    help="Propose the records that were made on this machine, and say what is missing of those that cannot be sent.",
)
@click.option("--key", "keys", type=MODEL_KEY, multiple=True, help="With --local: this record alone; may be repeated.")
@click.option("--license", metavar="SPDX", help="With --local: licence of records that name none, such as CC0-1.0.")
@click.option("--author", help="With --local: who stands for records that name nobody.")
@click.option(
    "--publish-prompts", is_flag=True, help="With --local: send prompts' texts where traces hold them, not only hashes."
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
    local: bool,
    keys: tuple[str, ...],
    license: str | None,
    author: str | None,
    publish_prompts: bool,
    repo: str | None,
    endpoint: str | None,
    force_reason: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Propose calibrations as one pull request.

    Every FILE is judged as `easyteacache validate` does, compared with what is published, and refused with the rule it breaks.
    What passes is sent with its traces and a page with the validation table. The same content again sends nothing; a changed one
    updates the request that is open. With --local the files are those of the local layer: no text of a prompt is sent unless
    --publish-prompts asks for it. The token is $EASYTEACACHE_TOKEN, or for the public hub the login of `hf auth login`.

    \b
    Examples:
      easyteacache-hub push my-model.json --traces traces --repo team/hub
      easyteacache-hub push my-model.json --traces traces --dry-run
      easyteacache-hub push --local --license CC0-1.0 --author "A. Name"

    \b
    JSON: repository, state (opened, updated, unchanged, published, dry-run,
      refused or nothing), url, files, published, findings (each rule, where,
      pointer, message, severity); with --local unsent (each key, why) and
      prompts (each key, told: what is sent of each run's prompt)
    """
    if local == bool(files):
        raise click.UsageError("name the FILES to propose, or propose this machine's own with --local")
    if not local and (keys or license or author or publish_prompts):
        raise click.UsageError("--key, --license, --author and --publish-prompts belong to --local")
    sending = _Sending(open_remote(repo, endpoint), force_reason, dry_run=dry_run, as_json=as_json)
    if not local:
        from easyteacache.files import strict_json
        from easyteacache.records import parsing

        records = {
            str(path): parsing.read_file(path, rules="record", max_bytes=strict_json.MAX_BYTES) for path in files
        }
        sending.send(records, traces)
        return
    import tempfile

    from easyteacache.calibrating.sharing import shareable

    with tempfile.TemporaryDirectory() as scratch:
        found = shareable(
            Path(scratch),
            license=license,
            author=author,
            publish_prompts=publish_prompts,
            traces=traces,
            keys=keys,
        )
        sending.send_local(found)


class _Sending:
    """One command's push: judge, show, send.

    Args:
        remote: where to.
        force_reason: see ``prepare``.
        dry_run: send nothing.
        as_json: print JSON.
    """

    def __init__(self, remote: Remote, force_reason: str | None, *, dry_run: bool, as_json: bool) -> None:
        self._remote, self._reason, self._dry, self._json = remote, force_reason, dry_run, as_json
        if not dry_run:
            # Judging takes a while; that nothing can be sent is better known before.
            remote.whoami()

    def send(self, records: Mapping[str, bytes], traces: Sequence[Path], more: Mapping[str, Any] | None = None) -> None:
        """Propose ``records``; ``more`` goes into the JSON."""
        from easyteacache.errors import PushRefused
        from easyteacache.hub.push import send

        try:
            proposal = self._prepared(records, traces)
        except PushRefused as error:
            submissions: Sequence[Submission] = error.report or ()  # type: ignore[assignment]
            if self._json:
                text.echo_json(_content(self._remote.repository, "refused", None, submissions) | dict(more or {}))
                raise SystemExit(1) from error
            _show_findings(submissions)
            raise
        state, url = "published" if not proposal.submissions else "dry-run", None
        if not self._json:
            _show(proposal)
        if proposal.submissions and not self._dry:
            sent = send(self._remote, proposal)
            state, url = sent.state, sent.url
        if self._json:
            content = _content(self._remote.repository, state, url, proposal.submissions, proposal)
            text.echo_json(content | dict(more or {}))
        else:
            click.echo(_closing(state, url))

    def send_local(self, found: Sequence[Shareable]) -> None:
        """Propose what can be sent of this machine's own, and say why the rest cannot."""
        from easyteacache.errors import PushRefused

        ready, unsent = {}, {one.key: "; ".join(one.missing) for one in found if one.missing}
        traces: list[Path] = []
        for one in found:
            if one.data is None:
                continue
            try:
                self._prepared({one.key: one.data}, one.traces)
            except PushRefused as error:
                unsent[one.key] = str(error)
                continue
            ready[one.key] = one.data
            traces.extend(one.traces)
        told = {one.key: one.prompts for one in found if one.key in ready}
        more = {
            "unsent": [{"key": key, "why": why} for key, why in sorted(unsent.items())],
            "prompts": [{"key": key, "told": list(prompts)} for key, prompts in told.items()],
        }
        if not self._json:
            _show_local(told, unsent)
        if ready:
            self.send(ready, traces, more)
        elif self._json:
            text.echo_json(_content(self._remote.repository, "nothing", None, ()) | more)
        else:
            click.echo("Nothing can be sent yet." if unsent else "Nothing was made on this machine yet.")

    def _prepared(self, records: Mapping[str, bytes], traces: Sequence[Path]) -> Proposal:
        from easyteacache.cli.judging import judge_of
        from easyteacache.hub.push import prepare

        return prepare(self._remote, records, traces, judge=judge_of(), force_reason=self._reason)


def _show_local(told: Mapping[str, Sequence[str]], unsent: Mapping[str, str]) -> None:
    """Per record what is sent of prompts, and of those that are not sent why."""
    for key, prompts in told.items():
        click.echo(text.heading(f"{key}: what is told of the prompts of its {len(prompts)} runs"))
        for one in dict.fromkeys(prompts):
            count = prompts.count(one)
            click.echo(text.paragraph(one + (f" ({count} runs)" if count > 1 else ""), indent="  ", bullet="- "))
    if unsent:
        click.echo(text.heading("Not sent"))
        for key, why in sorted(unsent.items()):
            click.echo(text.paragraph(why, indent="  ", bullet=f"{key}: "))


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
