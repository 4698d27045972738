"""The token of the person at this machine: struck out of everything that a hub says, because a hub can repeat what it was sent."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

STRUCK = "***"
# Shorter ones are words: striking them would make a riddle of every message.
SHORTEST = 6
# What the public hub's tokens look like, whoever they belong to.
_PUBLIC = re.compile(r"hf_[A-Za-z0-9]{16,}")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class Secret:
    """One token, or none.

    Args:
        token: the token.
    """

    def __init__(self, token: str | None) -> None:
        forms = []
        if token and len(token) >= SHORTEST:
            # Base64 as it stands in a Basic header is made of the name, too; the token alone is what can be known.
            encoded = base64.b64encode(token.encode()).decode().rstrip("=")
            forms = [re.escape(form) for form in dict.fromkeys((token, quote(token, safe=""), encoded))]
        self._own = re.compile("|".join(forms), re.IGNORECASE) if forms else None

    def struck(self, text: str) -> str:
        """``text`` with every token in it replaced by ``***``."""
        if self._own is not None:
            text = self._own.sub(STRUCK, text)
        return _PUBLIC.sub(STRUCK, text)

    def held_by(self, content: bytes) -> bool:
        """Whether the token stands in an answer, plainly or in the escapes of JSON."""
        if self._own is None:
            return False
        text = content.decode("utf-8", "replace")
        if "\\" in text:
            text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).replace("\\/", "/")
        return self._own.search(text) is not None
