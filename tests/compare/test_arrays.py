"""Latents from every kind of file, and the figures on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.metrics import structural_similarity

from easyteacache.compare import compare
from easyteacache.errors import FramesMismatch, UnreadableFrames

A = np.random.default_rng(0).normal(size=(1, 4, 3, 8, 10)).astype(np.float32)
B = (A + 0.1 * np.random.default_rng(1).normal(size=A.shape)).astype(np.float32)


def write(path: Path, values: np.ndarray) -> Path:
    tensor = torch.from_numpy(values)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, latents=values)
    elif path.suffix == ".safetensors":
        save_file({"latents": tensor}, path)
    else:
        torch.save({"latents": tensor, "step": 3} if path.suffix == ".pth" else tensor, path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".pth", ".safetensors"])
def test_latents_of_every_kind_give_the_same_figures(tmp_path: Path, suffix: str) -> None:
    report = compare(write(tmp_path / f"a{suffix}", A), write(tmp_path / f"b{suffix}", B))
    ((found,),) = (comparison.frames for comparison in report.comparisons)
    a, b = A.astype(np.float64).ravel(), B.astype(np.float64).ravel()
    assert found.figures.relative_l2 == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))
    assert found.figures.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert found.figures.psnr is None
    assert "--data-range" in report.comparisons[0].notes[0]


def test_hand_computed_figures(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([3.0, 0.0]))
    np.save(tmp_path / "b.npy", np.array([3.0, 4.0]))
    figures = compare(tmp_path / "a.npy", tmp_path / "b.npy", data_range=8.0).comparisons[0].frames[0].figures
    assert figures.relative_l2 == pytest.approx(4 / 3)
    assert figures.cosine == pytest.approx(3 / 5)
    assert figures.psnr == pytest.approx(10 * math.log10(64 / 8))


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 8e307])
def test_values_whose_squares_no_number_holds_are_compared_as_any_others(tmp_path: Path, scale: float) -> None:
    """The squares of the small ones are 0, which was called identical; those of the large ones ended the command."""
    a, b = np.array([1.0, 2.0]) * scale, np.array([1.0, 1.0]) * scale
    report = compare(write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b))
    ((found,),) = (comparison.frames for comparison in report.comparisons)
    assert not found.figures.identical
    assert found.figures.relative_l2 == pytest.approx(1 / math.sqrt(5), rel=1e-3)
    assert found.figures.cosine == pytest.approx(3 / math.sqrt(10), rel=1e-3)


def test_equal_latents_and_zeros(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "zero.npy", np.zeros_like(A))
    same = compare(tmp_path / "a.npy", tmp_path / "a.npy").comparisons[0].frames[0].figures
    assert (same.identical, same.relative_l2, same.cosine) == (True, 0.0, 1.0)
    none = compare(tmp_path / "zero.npy", tmp_path / "a.npy").comparisons[0].frames[0].figures
    assert (none.relative_l2, none.cosine) == (None, None)


def test_a_layout_gives_frames_with_psnr_and_ssim(tmp_path: Path) -> None:
    report = compare(write(tmp_path / "a.npy", A), write(tmp_path / "b.npy", B), layout="BCFHW", data_range=6.0)
    frames = report.comparisons[0].frames
    assert len(frames) == 3
    for place, frame in enumerate(frames):
        a, b = (np.moveaxis(v[0, :, place], 0, -1).astype(np.float64) for v in (A, B))
        expected = structural_similarity(a, b, data_range=6.0, channel_axis=-1)
        assert frame.figures.ssim == pytest.approx(expected)
        assert frame.figures.psnr == pytest.approx(10 * math.log10(36 / np.mean((a - b) ** 2)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_number_types_that_numpy_lacks_are_widened(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    narrow = torch.from_numpy(A).to(dtype)
    for name, values in (("narrow", narrow), ("wide", narrow.float())):
        path = tmp_path / f"{name}{suffix}"
        torch.save(values, path) if suffix == ".pt" else save_file({"x": values}, path)
    assert compare(tmp_path / f"narrow{suffix}", tmp_path / f"wide{suffix}").summary.identical


def test_one_of_several_arrays_is_chosen_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=A, y=B)
    torch.save({"deep": [torch.from_numpy(A), torch.from_numpy(B)]}, tmp_path / "b.pt")
    with pytest.raises(UnreadableFrames, match=r"2 arrays \(x, y\); choose one with --tensor"):
        compare(tmp_path / "a.npz", tmp_path / "a.npz")
    with pytest.raises(UnreadableFrames, match=r"no array named 'z'; it holds x, y"):
        compare(tmp_path / "a.npz", tmp_path / "a.npz", tensor="z")
    assert compare(tmp_path / "a.npz", tmp_path / "a.npz", tensor="y").summary.identical
    assert compare(tmp_path / "b.pt", tmp_path / "b.pt", tensor="deep.1").comparisons[0].a["shape"] == list(A.shape)


def test_unsigned_integers_have_the_range_of_their_type(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
    np.save(tmp_path / "b.npy", np.full((4, 4), 51, np.uint8))
    assert compare(tmp_path / "a.npy", tmp_path / "b.npy").summary.psnr_mean == pytest.approx(20 * math.log10(5))


@pytest.mark.parametrize("layout", ["HW", "FHWX", "FHHW", "FCBW", "fhwc"])
def test_a_layout_that_does_not_fit_is_an_error(tmp_path: Path, layout: str) -> None:
    np.save(tmp_path / "a.npy", A[0])
    with pytest.raises(UnreadableFrames, match="expected one letter of B, F, C, H, W for each of the 4 axes"):
        compare(tmp_path / "a.npy", tmp_path / "a.npy", layout=layout)


@pytest.mark.parametrize(
    "values",
    [np.array([1.0, np.nan]), np.array([1.0, np.inf]), np.array(["a", "b"]), np.array([1j, 2]), np.zeros((0, 3))],
    ids=["nan", "inf", "text", "complex", "empty"],
)
def test_what_is_no_result_is_an_error(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UnreadableFrames, match=r"expected real numbers|NaN or infinity|holds nothing"):
        compare(tmp_path / "a.npy", tmp_path / "a.npy")


def test_the_one_with_nan_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    np.save(tmp_path / "b.npy", np.array([1.0, np.nan, 1.0]))
    with pytest.raises(UnreadableFrames) as raised:
        compare(tmp_path / "a.npy", tmp_path / "b.npy")
    assert raised.value.where.endswith("b.npy")


def test_other_shapes_are_a_mismatch_that_names_both(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "b.npy", A[..., 1:])
    with pytest.raises(FramesMismatch, match=r"a\.npy.*b\.npy.*\(1, 4, 3, 8, 10\).*\(1, 4, 3, 8, 9\)"):
        compare(tmp_path / "a.npy", tmp_path / "b.npy")


def test_a_mapped_array_and_a_large_one_are_summed_in_pieces(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 1 << 19)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", np.asfortranarray(values * 2))
    figures: Any = compare(tmp_path / "a.npy", tmp_path / "b.npy").comparisons[0].frames[0].figures
    assert figures.relative_l2 == pytest.approx(1.0)
    assert figures.cosine == pytest.approx(1.0)
