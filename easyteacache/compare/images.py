"""Pictures and animations through Pillow, 16-bit ones whole: what Pillow would cut to 8 bits goes another way."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from easyteacache.compare.source import EIGHT_BITS, MAX_FRAMES, SIXTEEN_BITS, Frame, Source, check_size, reading, refuse
from easyteacache.errors import MissingPackage

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ANIMATED_SUFFIXES = (".gif",)
# Pillow decides by content; other formats it knows (PostScript, FITS …) are nothing to open unasked.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
# The others (CMYK, YCbCr, 32 bits …) have no range or no one meaning.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
_BITS_PER_SAMPLE = 258


def open_image(path: Path) -> Source:
    """A source over one picture file: a still, or the frames of an animation or the pages of a TIFF.

    Raises:
        UnreadableFrames: damaged, too large, or of a mode that is not read.
        MissingPackage: Pillow is not installed.
    """
    with reading(path, "a picture"), _opened(path) as image:
        # Pillow calls an APNG's still for other programs a frame; it is none of the animation.
        first = 1 if image.info.get("default_image") and _length(image) > 1 else 0
        count = _length(image) - first
        if count > MAX_FRAMES:
            refuse(path, f"{count} frames; at most {MAX_FRAMES} are read")
        kind = "animation" if count > 1 or image.format == "GIF" else "image"
    return Source(path, "animation" if kind == "animation" else "image", lambda: _frames(path, first, count), count)


def read_still(path: Path) -> Frame:
    """The one picture of a file in a folder of frames, labelled with the file's name.

    Raises:
        UnreadableFrames: as ``open_image``, or it is an animation.
    """
    source = open_image(path)
    if source.count != 1:
        refuse(path, f"{source.count} frames in a folder of pictures, where each file is one frame")
    return next(source.frames())._replace(label=path.name)


def _frames(path: Path, first: int, count: int) -> Iterator[Frame]:
    with reading(path, "a picture"), _opened(path) as image:
        for number in range(first, first + count):
            image.seek(number)
            check_size(path, *image.size)
            yield _frame(path, image, number)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackage("Pillow", f"reading {path}", 'pip install "easyteacache[compare]"') from error
    with path.open("rb") as file:
        with warnings.catch_warnings():
            # Its own limit lies above MAX_PIXELS: past it nothing is opened at all, below it check_size speaks.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                image = Image.open(file, formats=FORMATS)
            except (Image.DecompressionBombError, Image.DecompressionBombWarning):
                refuse(
                    path, "so many pixels that it would fill the memory: a decompression bomb, or not meant for this"
                )
        check_size(path, *image.size)
        yield image


def _length(image: Image) -> int:
    # The further pictures of a camera's MPO (a JPEG) are other views, not other times.
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _frame(path: Path, image: Image, number: int) -> Frame:
    deep = _deep(path, image, number)
    if deep is not None:
        return deep
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = np.asarray(image).astype(np.uint16)
        return Frame(grey[..., None], SIXTEEN_BITS)
    if image.mode not in _MODES:
        refuse(path, f"the colour mode {image.mode}; save it as grey or RGB with 8 or 16 bits, numbers as .npy")
    # Also one colour of a picture without alpha may stand for "nothing here".
    opaque = "L" if image.mode in ("1", "L") else "RGB"
    mode = "LA" if image.mode == "LA" else "RGBA" if image.has_transparency_data else opaque
    pixels = np.asarray(image.convert(mode))
    return Frame(pixels if pixels.ndim == 3 else pixels[..., None], EIGHT_BITS, alpha=mode.endswith("A"))


def _deep(path: Path, image: Image, number: int) -> Frame | None:
    """A colour picture of 16 bits a channel, which Pillow would give with 8."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return None
    if image.format == "PNG" and number == 0 and "16B" in str(image.tile):
        from easyteacache.compare.video import read_deep_png

        return read_deep_png(path)
    if image.format == "TIFF" and max(np.atleast_1d(image.tag_v2.get(_BITS_PER_SAMPLE, 8))) > 8:  # type: ignore[attr-defined]
        return _deep_tiff(path, number)
    return None


def _deep_tiff(path: Path, number: int) -> Frame:
    try:
        import tifffile
    except ImportError as error:
        raise MissingPackage("tifffile", f"reading 16 bits from {path}", "pip install tifffile") from error
    with tifffile.TiffFile(path) as file:
        page = file.pages[number]
        axes, pixels = page.axes, page.asarray()
    if pixels.dtype != np.uint16 or axes not in ("YXS", "SYX") or pixels.shape[axes.index("S")] not in (3, 4):
        refuse(path, f"a TIFF of {pixels.dtype} with axes {axes}; grey, RGB and RGBA with 8 or 16 bits are read")
    pixels = np.moveaxis(pixels, axes.index("S"), -1)
    return Frame(pixels, SIXTEEN_BITS, alpha=pixels.shape[-1] == 4)
