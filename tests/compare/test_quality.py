from __future__ import annotations

import math

import numpy as np
import pytest

from easyteacache.compare.quality import psnr, ssim


def noisy(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def test_equal_arrays_have_infinite_psnr_and_an_ssim_of_one() -> None:
    frames = noisy((3, 16, 20, 1))
    assert psnr(frames, frames) == math.inf
    assert ssim(frames, frames) == pytest.approx(1.0)


def test_psnr_follows_its_definition() -> None:
    a = np.zeros((2, 8, 8, 1))
    assert psnr(a, a + 0.1) == pytest.approx(20.0)
    assert psnr(a, a + 25.5, data_range=255.0) == pytest.approx(20.0)


def test_psnr_agrees_with_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio

    a, b = noisy((2, 16, 16, 3)), noisy((2, 16, 16, 3), 1)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0))


def test_ssim_is_the_mean_over_frames() -> None:
    a, b = noisy((2, 16, 16, 1)), noisy((2, 16, 16, 1), 1)
    assert ssim(a, b) == pytest.approx((ssim(a[:1], b[:1]) + ssim(a[1:], b[1:])) / 2)
    assert ssim(a, b) < 0.5 < ssim(a, 0.99 * a)


def test_single_images_batches_and_colours_are_frames_too() -> None:
    image = noisy((12, 10, 3))
    assert ssim(image, image) == pytest.approx(ssim(image[None, None], image[None, None]))


@pytest.mark.parametrize("size", [3, 4, 5, 6, 7, 8])
def test_frames_smaller_than_the_window_have_an_ssim(size: int) -> None:
    a, b = noisy((1, size, 16, 1)), noisy((1, size, 16, 1), 1)
    assert -1.0 <= ssim(a, b) <= 1.0


def test_half_precision_is_compared_in_full() -> None:
    a = np.full((1, 8, 8, 1), 0.5, np.float16)
    assert psnr(a, a + np.float16(0.25)) == pytest.approx(10 * math.log10(16))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((1, 8, 8, 1)), np.zeros((1, 8, 9, 1))),
        (np.zeros((0, 8, 8, 1)), np.zeros((0, 8, 8, 1))),
        (np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), np.nan)),
        (np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), np.inf)),
    ],
)
def test_what_cannot_be_compared_is_an_error(a: np.ndarray, b: np.ndarray) -> None:
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match="expected"):
            measure(a, b)


@pytest.mark.parametrize("shape", [(8, 8), (1, 2, 8, 1)])
def test_ssim_refuses_what_is_no_frame(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 3 × 3"):
        ssim(np.zeros(shape), np.zeros(shape))
