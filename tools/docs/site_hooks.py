"""Hooks of the documentation site (mkdocs.yml): the pages are written for the repository, and stay so."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

_LINK = re.compile(r"\]\((\.\./[^)\s]*)\)")
# ```sh norun``` says to this project's tests that nobody runs it; a highlighter knows the language alone.
_FENCE = re.compile(r"^(```\w+) [\w ]+$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, **_: Any) -> str:
    """The page with links that leave the folder of pages pointing into the repository, and fences of one word."""

    def to_repository(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), found[1]))
        return f"]({config.repo_url}/blob/main/{path})"

    return _FENCE.sub(r"\1", _LINK.sub(to_repository, markdown))
