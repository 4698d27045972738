"""`easyteacache-hub serve`: a registry for a team without internet access."""

from __future__ import annotations

import re
from pathlib import Path

import click


@click.command("serve")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--tokens",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Who may write. Without it everybody may read and nobody may write.",
)
@click.option(
    "--url", metavar="URL", help="Address that clients use, where a proxy stands in front.  [this server's own]"
)
@click.option("--verbose", is_flag=True, help="Print one line a request.")
def serve(folder: Path, host: str, port: int, tokens: Path | None, url: str | None, verbose: bool) -> None:
    """Serve the dataset repositories in FOLDER, so that pull and push work without internet access.

    Speaks the part of the Hugging Face Hub's interface that pull, push and plain huggingface_hub clients need, over bare git
    repositories in FOLDER/datasets/ORG/NAME.git. It is not a Hub: no TLS (put a proxy in front of it before you leave the
    machine), no web pages, no large-file storage, and only the accounts in FILE:

    \b
      {"users": {"ada": {"token_sha256": "<64 hex digits>", "role": "write"}}}

    Roles are read, contribute (open pull requests) and write (also merge). FILE holds hashes of tokens, never a token. What one
    client may send and hold is bounded, and what is not served is answered with 501 and a sentence: docs/hub.md lists both.

    \b
    Examples:
      easyteacache-hub serve /srv/calibrations
      easyteacache-hub serve /srv/calibrations --tokens tokens.json --port 0
      easyteacache-hub pull --endpoint http://127.0.0.1:8080 --repo team/hub
    """
    from easyteacache.hub.server.http_server import HubServer
    from easyteacache.hub.server.tokens import Tokens

    if url is not None and not re.fullmatch(r"https?://[\x21-\x7e]+", url):
        raise click.BadParameter(
            f"{url!r} is no address; expected https://HOST or http://HOST:PORT", param_hint="--url"
        )
    users = None if tokens is None else Tokens.load(tokens)
    folder.mkdir(parents=True, exist_ok=True)
    log = (lambda line: click.echo(line, err=True)) if verbose else (lambda _: None)
    with HubServer((host, port), folder, tokens=users, url=url, log=log) as server:
        click.echo(f"Serving {folder} at {server.endpoint}; Ctrl-C ends it.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("Ended.")
