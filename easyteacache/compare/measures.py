"""The figures of one pair of frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from easyteacache.compare.quality import decibels, ssim
from easyteacache.compare.source import EIGHT_BITS, SIXTEEN_BITS, Frame
from easyteacache.errors import MissingPackage

if TYPE_CHECKING:
    from easyteacache.compare.perceptual import Perceptual

SMALLEST_FOR_SSIM = 3
# Values that are widened to float64 at a time.
_CHUNK = 1 << 20


class Figures(NamedTuple):
    """How far apart two frames are.

    Attributes:
        identical: every value is the same.
        mse: mean squared error of values scaled to a range of 1; None where the range is not known.
        psnr: decibels, infinity when identical; None where the range is not known.
        ssim: −1 to 1; None for arrays without a layout, without a range, and for frames under 3 × 3 pixels.
        lpips: from 0 up; None where it was not asked for.
        relative_l2: ‖b − a‖ / ‖a‖ of arrays; None for pictures, and where a is zero and b is not.
        cosine: −1 to 1, of arrays; None for pictures, and where one of them is zero.
    """

    identical: bool
    mse: float | None
    psnr: float | None
    ssim: float | None
    lpips: float | None
    relative_l2: float | None
    cosine: float | None


class NotFinite(ValueError):
    """NaN or infinity among the values; ``second`` when the first array has none."""

    def __init__(self, *, second: bool) -> None:
        self.second = second
        super().__init__("NaN or infinity among the values")


def aligned(a: Frame, b: Frame) -> tuple[Frame, Frame]:
    """Both frames on one scale, as they look: colours times opacity, and no alpha where nothing shows through.

    Raises:
        ValueError: shapes differ, or something shows through one of them while the other has no alpha; says what both have.
    """
    opaque = [bool((frame.pixels[..., -1] == frame.peak).all()) if frame.alpha else True for frame in (a, b)]
    if all(opaque) or not (a.alpha and b.alpha):
        a, b = (_without_alpha(f) if o and f.alpha else f for f, o in zip((a, b), opaque, strict=True))
    if a.pixels.shape != b.pixels.shape:
        raise ValueError(f"the first has {shape_text(a)}, the second {shape_text(b)}")
    if a.peak != b.peak and {a.peak, b.peak} == {EIGHT_BITS, SIXTEEN_BITS}:
        a, b = _sixteen_bits(a), _sixteen_bits(b)
    return _seen(a), _seen(b)


def shape_text(frame: Frame) -> str:
    """Its size and channels in words."""
    if frame.pixels.ndim != 3:
        return f"shape {tuple(frame.pixels.shape)}"
    height, width, channels = frame.pixels.shape
    names = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"} if frame.alpha or channels in (1, 3) else {}
    return f"{width} × {height} pixels, {names.get(channels, f'{channels} channels')}"


def figures(a: Frame, b: Frame, *, pictures: bool, array: bool, perceptual: Perceptual | None) -> Figures:
    """Compare two aligned frames of one shape.

    Args:
        a: the uncached frame.
        b: the cached one.
        pictures: whether they are ``(H, W, C)``, so that SSIM has a meaning.
        array: whether relative L2 and cosine are wanted.
        perceptual: measures LPIPS where it was asked for.

    Raises:
        NotFinite: NaN or infinity in one of them.
        MissingPackage: scikit-image is not installed.
    """
    sums, identical, scale = np.zeros(4), True, _scale(a.pixels, b.pixels)
    for part_a, part_b in _chunks(a.pixels, b.pixels):
        identical = identical and np.array_equal(part_a, part_b)
        part_a, part_b = part_a / scale, part_b / scale
        sums += (np.sum((part_b - part_a) ** 2), part_a @ part_a, part_b @ part_b, part_a @ part_b)
    squared, norm_a, norm_b, inner = map(float, sums)
    mse = None if a.peak is None else squared / a.pixels.size * (scale / a.peak) * (scale / a.peak)
    mse = None if mse is None or not math.isfinite(mse) else mse
    similar = None
    if pictures and a.peak is not None and min(a.pixels.shape[:2]) >= SMALLEST_FOR_SSIM:
        similar = 1.0 if identical else _ssim(a, b)
    return Figures(
        identical=identical,
        mse=mse,
        psnr=None if mse is None else decibels(mse),
        ssim=similar,
        lpips=None if perceptual is None else perceptual.distance(a, b),
        relative_l2=_ratio(squared, norm_a) if array else None,
        cosine=_cosine(inner, norm_a, norm_b, identical) if array else None,
    )


def _ssim(a: Frame, b: Frame) -> float:
    assert a.peak is not None
    try:
        return ssim(a.pixels, b.pixels, data_range=a.peak)
    except ImportError as error:
        raise MissingPackage("scikit-image", "SSIM", 'pip install "easyteacache[compare]"') from error


def _ratio(squared: float, norm: float) -> float | None:
    if squared == 0.0:
        return 0.0
    return math.sqrt(squared / norm) if norm > 0.0 else None


def _cosine(inner: float, norm_a: float, norm_b: float, identical: bool) -> float | None:
    if norm_a == 0.0 or norm_b == 0.0:
        return None
    return 1.0 if identical else max(-1.0, min(1.0, inner / (math.sqrt(norm_a) * math.sqrt(norm_b))))


def _scale(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    """What values are divided by so that their squares neither overflow nor vanish: a power of two, which changes no digit; mostly 1.

    Raises:
        NotFinite: NaN or infinity in one of them.
    """
    largest = 0.0
    for parts in _chunks(a, b):
        for second, part in enumerate(parts):
            if not np.isfinite(part).all():
                raise NotFinite(second=bool(second))
            largest = max(largest, float(np.abs(part).max(initial=0.0)))
    return 1.0 if largest == 0.0 or 1e-100 < largest < 1e100 else math.ldexp(1.0, math.frexp(largest)[1] - 1)


def _chunks(
    a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    for start in range(0, flat_a.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        yield flat_a[part].astype(np.float64), flat_b[part].astype(np.float64)


def _without_alpha(frame: Frame) -> Frame:
    return frame._replace(pixels=frame.pixels[..., :-1], alpha=False)


def _sixteen_bits(frame: Frame) -> Frame:
    if frame.peak == SIXTEEN_BITS:
        return frame
    # 255 · 257 = 65535: exact, so that a picture and its 16-bit copy are identical.
    return frame._replace(pixels=frame.pixels.astype(np.uint16) * np.uint16(257), peak=SIXTEEN_BITS)


def _seen(frame: Frame) -> Frame:
    if not frame.alpha or frame.peak is None:
        return frame
    pixels = frame.pixels.astype(np.float64)
    pixels[..., :-1] *= pixels[..., -1:] / frame.peak
    return frame._replace(pixels=pixels)
