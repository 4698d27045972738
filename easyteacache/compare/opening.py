"""From a path to a source of frames, or to pairs of them by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from easyteacache.compare import arrays, images, video
from easyteacache.compare.source import MAX_FRAMES, Frame, Source, check_regular, natural, refuse
from easyteacache.errors import FramesMismatch

RESULT_SUFFIXES = (*images.ANIMATED_SUFFIXES, *video.SUFFIXES, *arrays.SUFFIXES)
SUFFIXES = (*images.SUFFIXES, *RESULT_SUFFIXES)
_MOST_NAMES = 5


@dataclass(frozen=True)
class ArrayOptions:
    """How arrays are to be understood; see ``arrays.open_array``."""

    tensor: str | None = None
    layout: str | None = None
    data_range: float | None = None


class Pair(NamedTuple):
    """Two sources that belong together; ``name`` is what they are called in two folders of results, else None."""

    name: str | None
    a: Path
    b: Path


def pairs_of(a: Path, b: Path, *, by_name: bool = False) -> list[Pair]:
    """What is to be compared with what, in natural order of the names.

    Two files are one pair, and so are two folders of pictures: the frames of one video each. In two folders of anything else
    (videos, animations, arrays, folders), or with ``by_name``, what has the same name without its suffix is a pair.

    Raises:
        UnreadableFrames: a path does not exist, or a folder holds nothing to compare, or pictures beside other results.
        FramesMismatch: a folder of results against something else, or a name that one of two folders lacks.
    """
    for path in (a, b):
        if not path.exists():
            refuse(path, "does not exist")
    several = [path.is_dir() and (by_name or _holds_results(path)) for path in (a, b)]
    if by_name and not all(several):
        raise FramesMismatch(str(a), str(b), "by name only two folders can be compared")
    if several[0] != several[1]:
        many, one = (a, b) if several[0] else (b, a)
        raise FramesMismatch(str(a), str(b), f"{many} holds several results, {one} is one")
    if not several[0]:
        return [Pair(None, a, b)]
    found_a, found_b = _by_name(a), _by_name(b)
    for here, found, there, others in ((a, found_a, b, found_b), (b, found_b, a, found_a)):
        if lacking := [name for name in found if name not in others]:
            listed = ", ".join(lacking[:_MOST_NAMES]) + (" …" if len(lacking) > _MOST_NAMES else "")
            raise FramesMismatch(str(a), str(b), f"{there} lacks {len(lacking)} of the names in {here}: {listed}")
    return [Pair(name, found_a[name], found_b[name]) for name in sorted(found_a, key=natural)]


def open_source(path: Path, options: ArrayOptions) -> Source:
    """The frames of a file, or of a folder of pictures.

    Raises:
        UnreadableFrames: not one of the kinds that are read, damaged, or too large.
        MissingPackage: its decoder is not installed.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_folder(path)
    check_regular(path)
    if suffix in arrays.SUFFIXES:
        return arrays.open_array(path, tensor=options.tensor, layout=options.layout, data_range=options.data_range)
    if suffix in video.SUFFIXES:
        return video.open_video(path)
    if suffix in images.SUFFIXES + images.ANIMATED_SUFFIXES:
        return images.open_image(path)
    return refuse(path, f"the suffix {suffix!r}; what is read ends in {' '.join(SUFFIXES)}, or is a folder")


def _open_folder(path: Path) -> Source:
    files = sorted(
        (entry for entry in _entries(path) if entry.suffix.lower() in images.SUFFIXES),
        key=lambda entry: natural(entry.name),
    )
    if not files:
        refuse(path, "no pictures in this folder")
    if len(files) > MAX_FRAMES:
        refuse(path, f"{len(files)} pictures; at most {MAX_FRAMES} are read")
    for file in files:
        check_regular(file)

    def frames() -> Iterator[Frame]:
        yield from map(images.read_still, files)

    return Source(path, "folder", frames, len(files))


def _entries(folder: Path) -> list[Path]:
    """What counts in a folder: files whose suffix is read, and folders; nothing hidden."""
    return [
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and (entry.is_dir() or entry.suffix.lower() in SUFFIXES)
    ]


def _holds_results(folder: Path) -> bool:
    """Whether a folder holds results that are each to be compared, rather than the frames of one."""
    entries = _entries(folder)
    results = [entry for entry in entries if entry.is_dir() or entry.suffix.lower() in RESULT_SUFFIXES]
    if not entries:
        refuse(folder, f"nothing to compare in this folder; what is read ends in {' '.join(SUFFIXES)}")
    if results and len(results) < len(entries):
        refuse(
            folder,
            f"pictures beside {results[0].name}: are they the frames of one video, or results of their own? "
            "Put them into folders of their own, or compare everything by name with --pairs",
        )
    return bool(results)


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in sorted(_entries(folder)):
        name = entry.name if entry.is_dir() else entry.stem
        if name in found:
            refuse(folder, f"{found[name].name} and {entry.name} have the same name without their suffix")
        found[name] = entry
    if not found:
        refuse(folder, "nothing to compare in this folder")
    return found
