"""What the node Compare shows: how far apart two batches of pictures are, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from easyteacache.compare.measures import figures
from easyteacache.compare.source import EIGHT_BITS, Frame


@dataclass(frozen=True)
class ComparedImages:
    """Two batches of B pictures.

    Attributes:
        psnr: (B,) decibels, infinite where they are identical.
        ssim: (B,), −1 to 1; None for pictures under 3 × 3.
        difference: (B, H, W, C) in [0, 1], absolute differences times ``gain``.
        gain: what differences were multiplied by.
    """

    psnr: tuple[float, ...]
    ssim: tuple[float | None, ...]
    difference: torch.Tensor
    gain: float

    @property
    def text(self) -> str:
        """A line for one picture; the mean and the worst of several."""
        if all(np.isinf(value) for value in self.psnr):
            return f"Identical ({len(self.psnr)} pictures)." if len(self.psnr) > 1 else "Identical."
        known = [value for value in self.ssim if value is not None]
        if len(self.psnr) == 1:
            return f"PSNR {self.psnr[0]:.2f} dB{f', SSIM {known[0]:.4f}' if known else ''}; differences shown {self.gain:g} times."
        finite = [value for value in self.psnr if np.isfinite(value)]
        likeness = f", SSIM {np.mean(known):.4f} mean, {min(known):.4f} worst" if known else ""
        same = len(self.psnr) - len(finite)
        identical = f" ({same} of {len(self.psnr)} pictures identical)" if same else ""
        return f"PSNR {np.mean(finite):.2f} dB mean, {min(finite):.2f} worst{likeness}{identical}; differences shown {self.gain:g} times."


def compared(reference: torch.Tensor, other: torch.Tensor, *, gain: float = 4.0) -> ComparedImages:
    """Compare pictures as they are saved: rounded to 8 bits.

    Args:
        reference: (B, H, W, C) in [0, 1].
        other: the same shape.
        gain: above 0, multiplies the differences that are shown.

    Raises:
        ValueError: the shapes differ.
        MissingPackage: scikit-image is not installed.
    """
    if reference.shape != other.shape:
        raise ValueError(f"pictures of shape {tuple(reference.shape)} and {tuple(other.shape)}; expected one shape")
    found = [
        figures(_frame(a), _frame(b), pictures=True, array=False, perceptual=None)
        for a, b in zip(reference, other, strict=True)
    ]
    return ComparedImages(
        tuple(float("nan") if one.psnr is None else one.psnr for one in found),
        tuple(one.ssim for one in found),
        ((reference.float() - other.float().to(reference.device)).abs() * gain).clamp(0.0, 1.0).cpu(),
        gain,
    )


def _frame(picture: torch.Tensor) -> Frame:
    return Frame((picture.float().cpu().clamp(0.0, 1.0) * 255.0).round().numpy().astype(np.uint8), EIGHT_BITS)
