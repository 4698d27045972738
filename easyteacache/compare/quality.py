"""How close a cached result is to the uncached one: PSNR and SSIM on arrays of frames.

Both compare with the *uncached sample of the same seed*, so they measure what caching changed, not how good either looks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.floating[Any]]

# The window of Wang et al. 2004 as scikit-image implements it; smaller frames get the largest odd window that fits.
SSIM_WINDOW = 7


def psnr(reference: Frames, result: Frames, *, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio, 10·log10(data_range² / MSE), over every frame and channel at once.

    Args:
        reference: uncached frames, any shape, for example ``(F, H, W, C)``.
        result: cached frames, same shape.
        data_range: difference between the brightest and the darkest possible value.

    Returns:
        Decibels; infinity when the arrays are equal.

    Raises:
        ValueError: the shapes differ, or there is nothing or a value that is not finite in them.
    """
    a, b = _comparable(reference, result)
    return decibels(float(np.mean((a - b) ** 2)) / data_range**2)


def decibels(error: float) -> float:
    """The PSNR of a mean squared error between values whose range is 1; infinity when it is 0."""
    return math.inf if error == 0.0 else -10.0 * math.log10(error)


def ssim(reference: Frames, result: Frames, *, data_range: float = 1.0) -> float:
    """Structural similarity (Wang et al. 2004), the mean over frames; scikit-image's implementation.

    Args:
        reference: uncached frames ``(..., H, W, C)``, height and width at least 3.
        result: cached frames, same shape.
        data_range: difference between the brightest and the darkest possible value.

    Returns:
        −1 to 1; 1 when the arrays are equal.

    Raises:
        ValueError: the shapes differ or are no frames, or a value is not finite.
        ImportError: scikit-image is not installed.
    """
    from skimage.metrics import structural_similarity

    a, b = _comparable(reference, result)
    if a.ndim < 3 or min(a.shape[-3:-1]) < 3:
        raise ValueError(f"expected frames (..., H, W, C) of at least 3 × 3 pixels, found shape {a.shape}")
    frames_a, frames_b = a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:])
    smallest = min(a.shape[-3:-1])
    window = min(SSIM_WINDOW, smallest - (smallest + 1) % 2)
    values = [
        structural_similarity(one, other, data_range=data_range, channel_axis=-1, win_size=window)
        for one, other in zip(frames_a, frames_b, strict=True)
    ]
    return float(np.mean(values))


def _comparable(reference: Frames, result: Frames) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    a, b = np.asarray(reference, np.float64), np.asarray(result, np.float64)
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"expected two arrays of one shape, found {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("expected finite values, found NaN or infinity: the result is not an image")
    return a, b
