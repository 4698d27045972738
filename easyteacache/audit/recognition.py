"""Whose coefficients are these? Recognise published lists in any text and say when they are filed under another model.

Engines copy coefficients by hand, and a wrong list fails silently: TensorRT-LLM shipped FLUX with Wan2.1 I2V-14B-480P's numbers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from easyteacache.audit import number_lists
from easyteacache.audit.known_coefficients import Kind, Known, KnownList, agree, strip_leading_zeros
from easyteacache.audit.model_names import ModelName, families_in, variants_in
from easyteacache.audit.number_lists import NumberList, find_literals
from easyteacache.files import regular_files

__all__ = ["Known", "Match", "NumberList", "find_literals", "identify", "identify_path", "identify_text"]

MAX_FILE_BYTES = 64 * 1024 * 1024
SUFFIXES = frozenset(
    {
        *(".py", ".pyi", ".ipynb", ".json", ".jsonc", ".json5", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf"),
        *(".txt", ".md", ".rst", ".sh", ".js", ".mjs", ".ts", ".tsx", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h"),
        *(".hh", ".hpp", ".m", ".mm", ".metal", ".swift", ".rs", ".go", ".java", ".kt", ".cs", ".lua", ".jl"),
    }
)
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})

Filing = Literal["same", "other variant", "other model", "unnamed"]


@dataclass(frozen=True)
class Match:
    """One list of numbers that is, or nearly is, a known list.

    Attributes:
        kind: ``exact`` bit for bit; ``rounded`` to the digits printed; ``near``: one coefficient differs; ``unsigned``: the
            absolute values agree but signs are lost.
        lowest_first: True when the numbers stand in the other order, lowest degree first.
        known: the list it is.
        difference: for ``near`` and ``unsigned``, what differs, in words.
        found: the numbers, their line and the names around them.
        file: the file they were found in, as given.
        filing: what the nearest name that speaks of a model says: the same model, another variant of it, another model, or
            nothing.
        filed_under: that name, None when no name speaks of a model.
        documented: a known publication of these numbers for that other model, None when there is none.
    """

    kind: Kind
    lowest_first: bool
    known: KnownList
    difference: str | None
    found: NumberList
    file: str | None = None
    filing: Filing = "unnamed"
    filed_under: str | None = None
    documented: str | None = None

    @property
    def misfiled(self) -> bool:
        """True when the numbers stand under the name of a model, or of a variant, that they were not fitted to."""
        return self.filing in ("other model", "other variant")

    def to_dict(self) -> dict[str, object]:
        """Plain data for ``--json``."""
        return {
            "file": self.file,
            **self.found.to_dict(),
            "kind": self.kind,
            "lowest_first": self.lowest_first,
            "model_key": self.known.model_key,
            "title": self.known.title,
            "origin": self.known.origin,
            "note": self.known.note,
            "difference": self.difference,
            "filing": self.filing,
            "filed_under": self.filed_under,
            "misfiled": self.misfiled,
            "documented": self.documented,
        }

    def __str__(self) -> str:
        place = f"{self.file}:{self.found.line}" if self.file else f"line {self.found.line}"
        owner = f"{self.known.model_key} ({self.known.title})"
        how = {"exact": "is", "rounded": "is, rounded,", "near": "is almost", "unsigned": "is, without its signs,"}[
            self.kind
        ]
        order = ", lowest degree first" if self.lowest_first else ""
        text = f"{place}: this {how} {owner}{order}"
        if self.difference:
            text += f": {self.difference}"
        if self.misfiled:
            what = "a different model" if self.filing == "other model" else "another variant"
            text += f"; it is filed under {self.filed_under!r}, {what}"
            text += f" (documented: {self.documented})" if self.documented else ""
        return text + (f". {self.known.note}" if self.known.note else ".")


def identify(numbers: Sequence[float] | NumberList, known: Known, *, file: str | None = None) -> list[Match]:
    """Which known lists ``numbers`` are; best first, at most one per model key and none when nothing agrees.

    Args:
        numbers: 2 or more coefficients in either order, with or without the names they were found under.
        known: the lists to recognise.
        file: where they were found; its name and folders count as names, after the list's own.
    """
    found = numbers if isinstance(numbers, NumberList) else NumberList(tuple(map(float, numbers)), 1)
    if len(found.numbers) < 2 or not all(map(math.isfinite, found.numbers)):
        return []
    matches = [match for one in known.candidates(found.numbers) for match in _compare(found, one)]
    matches.sort(key=lambda match: (_RANK[match.kind], match.lowest_first, match.known.origin != "registry"))
    # An exact find needs no second opinion: a transcription of it, or a record it nearly is, would only confuse.
    best = [match for match in matches if _RANK[match.kind] == _RANK[matches[0].kind]]
    unique = {match.known.model_key: match for match in reversed(best)}
    filed = [_filed(match, known, file) for match in best if unique[match.known.model_key] is match]
    # The same numbers may be published for two models; under the name of one of them they are that one's.
    return [match for match in filed if match.filing == "same"] or filed


def identify_text(text: str, known: Known, *, filename: str | None = None) -> list[Match]:
    """Known lists in a text, in the order of their lines.

    Args:
        text: source code, configuration, or just numbers.
        known: the lists to recognise.
        filename: the file's name or path: its ending chooses how to read it, its words count as names.
    """
    suffix = Path(filename).suffix if filename else ""
    likely = [span for span in number_lists.spans(text, suffix=suffix) if known.candidates(span.numbers)]
    lists = number_lists.with_names(text, likely, suffix=suffix)
    return [match for found in lists for match in identify(found, known, file=filename)]


def identify_path(
    path: str | os.PathLike[str], known: Known, *, skipped: Callable[[str, str], None] | None = None
) -> Iterator[Match]:
    """Known lists in a file, or in every source and configuration file below a folder, sorted by path.

    Args:
        path: a file, read whatever its ending, or a folder; hidden folders and links are not followed.
        known: the lists to recognise.
        skipped: told (file, reason) for every file below a folder that could not be read.

    Raises:
        OSError: ``path`` cannot be read, is too large, is no regular file, or does not exist.
        ValueError: ``path`` is not text.
    """
    root = Path(path)
    if not root.is_dir():
        yield from identify_text(read_source(root), known, filename=name_of(root))
        return
    for file in source_files(root):
        try:
            text = read_source(file)
        except (OSError, ValueError) as error:
            if skipped is not None:
                skipped(name_of(file), reason_of(error))
            continue
        yield from identify_text(text, known, filename=name_of(file))


def reason_of(error: OSError | ValueError) -> str:
    """Why a file was not read, without its name."""
    return str((isinstance(error, OSError) and error.strerror) or error)


def source_files(root: Path) -> Iterator[Path]:
    """Every source and configuration file below a folder, sorted; hidden folders and links are not followed."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        for name in sorted(names):
            file = Path(folder, name)
            if file.suffix.lower() in SUFFIXES and not file.is_symlink():
                yield file


def name_of(file: Path) -> str:
    """A file's path as text that can be written: bytes that are no UTF-8 as escapes."""
    return str(file).encode("utf-8", "backslashreplace").decode("utf-8")


def read_source(file: Path) -> str:
    """A file as text, whatever its encoding.

    Raises:
        OSError: it cannot be read, is too large, or is no regular file.
        ValueError: it is not text.
    """
    data = regular_files.read_bytes(file, max_bytes=MAX_FILE_BYTES)
    if b"\0" in data[:8192]:
        raise ValueError("not a text file")
    return data.decode("utf-8", errors="replace")


_RANK: dict[str, int] = {"exact": 0, "rounded": 1, "near": 2, "unsigned": 3}


def _compare(found: NumberList, known: KnownList) -> Iterable[Match]:
    for lowest_first in (False, True):
        numbers = found.numbers[::-1] if lowest_first else found.numbers
        agreement = agree(strip_leading_zeros(numbers), known.coefficients)
        if agreement is not None:
            kind, difference = agreement
            return [Match(kind, lowest_first, known, difference, found)]
    return []


def _filed(match: Match, known: Known, file: str | None) -> Match:
    filing, name = _filing(match.known, [*match.found.names, *_names_of(file)])
    documented = None
    if filing in ("other model", "other variant") and name is not None:
        documented = _documented(match.known, known, name)
    return Match(
        match.kind, match.lowest_first, match.known, match.difference, match.found, file, filing, name, documented
    )


def _names_of(file: str | None) -> list[str]:
    """A file's stem and its two nearest folders: further up stands where somebody keeps things."""
    if file is None:
        return []
    path = Path(file)
    return [name for name in (path.stem, path.parent.name, path.parent.parent.name) if name not in ("", ".", "..")]


def _filing(known: KnownList, names: Sequence[str]) -> tuple[Filing, str | None]:
    """Compare the owner with the nearest name that speaks of a model, and with what nearer names say of the variant.

    A record of a family that ``model_names`` does not know is compared with nothing, rather than with everything in vain.
    """
    if not known.model.families:
        return "unnamed", None
    for position, name in enumerate(names):
        families = families_in(name)
        if not families:
            continue
        if not families & known.model.families:
            return "other model", name
        for nearer in names[: position + 1]:
            if _conflicts(nearer, families & known.model.families, known.model):
                return "other variant", nearer
        return "same", name
    return "unnamed", None


def _conflicts(name: str, families: Iterable[str], model: ModelName) -> bool:
    """True when the name states a variant of one of the families that the model cannot be."""
    said = [item for family in families for item in variants_in(name, family).items()]
    return any(not values & model.variant.get(dimension, values) for dimension, values in said)


def _documented(known: KnownList, all_known: Known, name: str) -> str | None:
    families = families_in(name) or known.model.families
    for case in all_known.borrowings:
        shared = case.model.families & families
        if case.model_key == known.model_key and shared and not _conflicts(name, shared, case.model):
            return f"{case.title}, {case.repository}"
    return None
