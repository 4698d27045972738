"""Build hook: the package's description is the README with links that work away from the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = "https://github.com/easyteacache/easyteacache/blob/main/"
FILES = "https://raw.githubusercontent.com/easyteacache/easyteacache/main/"


class Readme(MetadataHookInterface):
    """Fills in ``readme``, which pyproject.toml leaves to this hook."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Read the README and make its links absolute."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text)}


def absolute(text: str) -> str:
    """Markdown whose relative links and pictures lead to the repository's main branch."""
    relative = r"(?!\w+:|#|//)([^)\s]+)"
    text = re.sub(rf"(!\[[^\]]*\]\(){relative}", rf"\g<1>{FILES}\g<2>", text)
    return re.sub(rf"((?<!\!)\[[^\]]*\]\(){relative}", rf"\g<1>{PAGES}\g<2>", text)
