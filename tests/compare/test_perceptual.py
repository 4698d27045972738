"""LPIPS where the package is installed; AlexNet's weights are random ones, put where torchvision keeps the downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from easyteacache.compare import compare
from easyteacache.compare.perceptual import WEIGHTS, Perceptual
from easyteacache.errors import FramesMismatch, MissingPackage

from .conftest import write_image

lpips = pytest.importorskip("lpips", exc_type=(ImportError, RuntimeError))  # type: ignore[arg-type]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from torchvision.models import alexnet

    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), folder / WEIGHTS)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return folder / WEIGHTS


def pictures(folder: Path, channels: int = 3, size: int = 64) -> tuple[Path, Path]:
    values = np.random.default_rng(0).integers(0, 256, (2, size, size, channels), dtype=np.uint8)
    return write_image(folder / "a.png", values[0]), write_image(folder / "b.png", values[1])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_what_the_package_computes(tmp_path: Path, weights: Path, channels: int) -> None:
    a, b = pictures(tmp_path, channels)
    found = compare(a, b, perceptual=Perceptual()).summary.means["lpips"]
    model = lpips.LPIPS(net="alex", verbose=False)
    # im2tensor takes (H, W, 3) of 8 bits and scales it to −1 … 1.
    images = [lpips.im2tensor(np.asarray(Image.open(path).convert("RGB"))) for path in (a, b)]
    with torch.no_grad():
        assert found == pytest.approx(float(model(*images)), abs=1e-5)
    assert compare(a, a, perceptual=Perceptual()).summary.means["lpips"] == 0


def test_frames_that_are_too_small_are_an_error(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(FramesMismatch, match="32 × 32"):
        compare(*pictures(tmp_path, size=16), perceptual=Perceptual())


def test_weights_that_cannot_be_read_say_where_they_belong(weights: Path) -> None:
    weights.write_bytes(b"")
    with pytest.raises(MissingPackage, match=f"{WEIGHTS}.*hub/checkpoints"):
        Perceptual()
