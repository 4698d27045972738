"""Text for people on streams that cannot show all of it: ``█`` becomes ``#`` where the code page has no ``█``.

Importing this module registers the error handler ``"plain_marks"`` of ``str.encode`` and ``io.TextIOWrapper.reconfigure``.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

MARKS = {
    "█": "#", "·": ".", "●": "*", "□": "o", "✗": "x", "×": "x", "÷": "/", "−": "-", "–": "-", "—": "-", "…": "...",
    "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≠": "!=", "√": "sqrt", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'",
    "⟨": "<", "⟩": ">", "‖": "||", "∞": "inf", "§": "section ",
}  # fmt: skip
HANDLER = "plain_marks"


def plain(text: str) -> str:
    """``text`` in ASCII: marks by their plain form, letters without their accents, ``?`` for the rest."""
    return "".join(character if character.isascii() else _plain(character) for character in text)


def _plain(character: str) -> str:
    if character in MARKS:
        return MARKS[character]
    # ² → 2, é → e, ᵀ → T
    pieces = [piece for piece in unicodedata.normalize("NFKD", character) if not unicodedata.combining(piece)]
    return "".join(MARKS.get(piece, piece if piece.isascii() else "?") for piece in pieces)


def printable(text: str) -> str:
    """``text`` as standard output can show it; what its code page lacks in plain form."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        return text.encode(encoding, HANDLER).decode(encoding)
    except (LookupError, UnicodeError):
        return text


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error(HANDLER, _replaced)
