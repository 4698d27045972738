"""What the Hub has and this server has not: each is answered with 501 and a sentence; docs/hub.md lists them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Unserved(NamedTuple):
    """A part of the Hub's interface that is not served.

    Attributes:
        path: pattern of the addresses.
        what: what it is, for the page.
        instead: what to do, the end of a sentence.
    """

    path: re.Pattern[str]
    what: str
    instead: str


_DATASET = r"/api/datasets/[^/]+/[^/]+"
UNSERVED = tuple(
    Unserved(re.compile(path), what, instead)
    for path, what, instead in (
        (r"/api/(?:models|spaces|kernels)(?:/.*)?", "models and Spaces", "it holds dataset repositories only"),
        (r"/(?:spaces/)?[^/]+/[^/]+/resolve/.*", "files of models and Spaces", "it holds dataset repositories only"),
        (r"/api/repos/delete", "deleting a repository", "whoever runs the server removes its folder"),
        (r"/api/repos/move", "renaming a repository", "whoever runs the server renames its folder"),
        (rf"{_DATASET}/settings", "settings of a repository", "a file `private` or `gated` in its folder hides it"),
        (
            r".*(?:\.git/info/lfs/.*|/lfs-files(?:/.*)?|/xet-(?:read|write)-token/.*)",
            "large-file storage (LFS, Xet)",
            "send files inside the commit, at most 64 MiB each",
        ),
        (
            r"/datasets/[^/]+/[^/]+/(?:git-receive-pack|objects/.*|HEAD)",
            "`git push`, and git's dumb protocol",
            "`git clone` and `git fetch` work; propose with `easyteacache-hub push`",
        ),
        (rf"{_DATASET}/super-squash/.*", "squashing a history", "published commits stay what they are"),
        (
            rf"{_DATASET}/discussions/[0-9]+/(?:title|comment/.*|.*pin.*)",
            "changing titles and comments",
            "write another comment",
        ),
        (r"/api/(?:datasets|(?:trending|collections|papers|daily_papers|buckets|jobs)(?:/.*)?)", "search, collections, jobs", "`easyteacache-hub pull --dry-run` lists a registry"),
        (r"/api/(?:users|organizations|settings|billing)(?:/.*)?", "accounts and organizations", "accounts are the lines of the token file"),
        (r"/(?:login|join|settings|oauth)(?:/.*)?", "web pages and logins", "give a token"),
    )
)  # fmt: skip


def sentence(method: str, path: str) -> str | None:
    """Why a request cannot be answered here, None where it is nothing that the Hub has."""
    for one in UNSERVED:
        if one.path.fullmatch(path):
            return f"this server does not serve {one.what} ({method}): {one.instead}"
    return None
