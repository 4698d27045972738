"""LPIPS (Zhang et al. 2018, arXiv 1801.03924) where the package `lpips` and its weights are there."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from easyteacache.compare.source import Frame
from easyteacache.errors import FramesMismatch, MissingPackage

NETWORK = "alex"
SMALLEST = 32
WEIGHTS = "alexnet-owt-7be5be79.pth"


class Perceptual:
    """LPIPS with AlexNet, version 0.1, on the CPU; the linear heads come with the package, AlexNet from torchvision.

    Raises:
        MissingPackage: `lpips` or torchvision is not installed, does not fit torch, or AlexNet's weights cannot be had.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # lpips calls torchvision in a deprecated way.
            warnings.simplefilter("ignore")
            try:
                import lpips
            except (ImportError, RuntimeError) as error:
                # A torchvision that was built for another torch fails with a RuntimeError.
                raise MissingPackage(
                    "lpips",
                    "--lpips",
                    f'pip install "easyteacache[lpips]", with a torchvision for your torch ({error})',
                ) from error
            try:
                self._model: Any = lpips.LPIPS(net=NETWORK, verbose=False).eval()
            except (OSError, RuntimeError, EOFError, ValueError) as error:
                raise MissingPackage(
                    f"torchvision's AlexNet weights ({WEIGHTS})",
                    "--lpips",
                    "torchvision downloads them once; without a network, copy the file to hub/checkpoints below "
                    f"TORCH_HOME (by default ~/.cache/torch). Found: {error}",
                ) from error

    def distance(self, a: Frame, b: Frame) -> float:
        """LPIPS of two aligned frames ``(H, W, C)`` of 32 × 32 pixels or more; grey as three channels, alpha left out.

        Raises:
            FramesMismatch: frames too small, of other channels or of an unknown range.
        """
        import torch

        channels = a.pixels.shape[-1] - a.alpha if a.pixels.ndim == 3 else 0
        if channels not in (1, 3) or a.peak is None or min(a.pixels.shape[:2]) < SMALLEST:
            found = f"shape {tuple(a.pixels.shape)}" + ("" if a.peak is not None else " without a data range")
            raise FramesMismatch(
                "A", "B", f"LPIPS takes grey or RGB frames of {SMALLEST} × {SMALLEST} pixels or more, found {found}"
            )
        tensors = []
        for frame in (a, b):
            scaled = frame.pixels[..., :channels].astype(np.float32) * np.float32(2 / a.peak) - 1
            whole = np.ascontiguousarray(np.broadcast_to(scaled, (*scaled.shape[:2], 3)).transpose(2, 0, 1))
            tensors.append(torch.from_numpy(whole)[None])
        with torch.no_grad():
            return float(self._model(*tensors))
