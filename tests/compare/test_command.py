"""`easyteacache compare`: what it prints, its JSON, its exit codes."""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from easyteacache.cli.compare import compare as command
from easyteacache.cli.main import main as program

from .conftest import changed, noise, write_folder, write_image

Program = Callable[..., Result]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Four frames; the second is identical, the third is the worst with 14 dB."""
    frames = noise(4)
    return write_folder(tmp_path / "a", frames), write_folder(tmp_path / "b", changed(frames, [5, 0, 51, 5]))


def test_people_see_mean_and_worst(run_compare: Program, folders: tuple[Path, Path]) -> None:
    result = run_compare(*folders)
    assert result.exit_code == 0
    assert re.search(r"PSNR +27\.43 dB +13\.98 dB +2", result.stdout)
    assert "4 frames compared, 1 identical; the mean PSNR is that of the other 3." in result.stdout


def test_every_frame_is_printed_when_asked_for(run_compare: Program, folders: tuple[Path, Path]) -> None:
    lines = run_compare(*folders, "--per-frame").stdout.splitlines()
    assert lines[0].split() == ["FRAME", "NAME", "PSNR", "SSIM"]
    assert lines[2].split() == ["1", "frame1.png", "identical", "1.0000"]


def test_json_has_the_documented_keys_and_no_infinity(run_compare: Program, folders: tuple[Path, Path]) -> None:
    content = json.loads(run_compare(*folders, "--json").stdout, parse_constant=lambda name: pytest.fail(name))
    documented = set(re.findall(r"[a-z_0-9]+", inspect.cleandoc(command.help or "").partition("JSON:")[2]))
    (pair,) = content["pairs"]
    for part in (content, pair, pair["a"], pair["frames"][0], content["limits"]):
        assert set(part) <= documented
    measures = {"psnr", "ssim", "lpips", "relative_l2", "cosine"}
    assert set(content["summary"]) == {
        *("frames", "identical_frames", "identical", "psnr_mean", "psnr_of_mean_mse"),
        *(f"{name}_mean" for name in measures),
        *(f"{name}_worst" for name in measures),
        *(f"{name}_worst_frame" for name in measures),
    }
    assert [frame["identical"] for frame in pair["frames"]] == [False, True, False, False]
    assert pair["frames"][1]["psnr"] is None
    assert pair["frames"][2]["psnr"] == pytest.approx(20 * math.log10(5))
    assert pair["a"] | {"path": ""} == {
        "path": "",
        "kind": "folder",
        "frames": 4,
        "width": 32,
        "height": 24,
        "channels": 3,
        "alpha": False,
        "bits": 8,
    }


def test_json_of_identical_results(run_compare: Program, folders: tuple[Path, Path]) -> None:
    summary = json.loads(run_compare(folders[0], folders[0], "--json", "--min-psnr", "99").stdout)["summary"]
    assert summary["identical"] is True
    assert summary["psnr_mean"] is None
    assert summary["psnr_of_mean_mse"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--min-psnr", "27"], 0, ""),
        (["--min-psnr", "28"], 1, "Too far apart: PSNR (mean) is 27.4274, at least 28 was asked for."),
        (["--min-psnr", "27", "--judge", "worst"], 1, "Too far apart: PSNR of frame 2 is 13.9794, at least 27"),
        (["--min-ssim", "0.9999"], 1, "Too far apart: SSIM (mean) is"),
        (["--min-psnr", "13", "--min-ssim", "0.1", "--judge", "worst"], 0, ""),
    ],
)
def test_limits_decide_the_exit_code(
    run_compare: Program, folders: tuple[Path, Path], arguments: list[str], code: int, message: str
) -> None:
    result = run_compare(*folders, *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    content = json.loads(run_compare(*folders, *arguments, "--json").stdout)
    assert content["limits"]["passed"] is (code == 0)
    assert len(content["limits"]["failures"]) == code


def test_each_pair_is_judged_and_named(run_compare: Program, folders: tuple[Path, Path]) -> None:
    result = run_compare(*folders, "--pairs", "--min-psnr", "20")
    assert result.exit_code == 1
    assert result.stderr == "Too far apart: frame2: PSNR is 13.9794, at least 20 was asked for.\n"
    assert "4 frames in 4 pairs compared" in result.stdout


def test_a_limit_without_its_figure_is_wrong_usage(run_compare: Program, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    result = run_compare(tmp_path / "a.npy", tmp_path / "a.npy", "--min-psnr", "10")
    assert result.exit_code == 2
    assert "--data-range" in result.stderr


def test_latents_are_shown_with_their_figures(run_compare: Program, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([3.0, 0.0]))
    np.save(tmp_path / "b.npy", np.array([3.0, 4.0]))
    out = run_compare(tmp_path / "a.npy", tmp_path / "b.npy").stdout
    assert re.search(r"relative L2 +1\.3333", out)
    assert re.search(r"cosine +0\.6000", out)
    assert "1 array compared." in out


def test_a_mismatch_is_one_line_with_both_names(run_compare: Program, folders: tuple[Path, Path]) -> None:
    (folders[1] / "frame3.png").unlink()
    result = run_compare(*folders)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert str(folders[0]) in result.stderr
    assert str(folders[1]) in result.stderr
    assert result.stderr.count("\n") == 1
    assert run_compare(*folders, "--frames", "first").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [["--picture", "x.jpg"], ["--data-range", "0"], ["--frames", "last"], ["--min-ssim", "2"]]
)
def test_wrong_usage(run_compare: Program, folders: tuple[Path, Path], arguments: list[str]) -> None:
    assert run_compare(*folders, *arguments).exit_code == 2


@pytest.mark.parametrize("option", [("--tensor", "x"), ("--layout", "FHWC"), ("--data-range", "2")])
def test_an_option_for_arrays_is_not_ignored_for_pictures(
    run_compare: Program, folders: tuple[Path, Path], option: tuple[str, str]
) -> None:
    result = run_compare(*folders, *option)
    assert result.exit_code == 2
    assert f"{option[0]} is for arrays" in result.stderr


@pytest.mark.parametrize(("module", "package"), [("PIL", "Pillow"), ("skimage.metrics", "scikit-image")])
def test_without_a_package_pictures_say_so_and_latents_work(
    run_compare: Program,
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    package: str,
) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    monkeypatch.setitem(sys.modules, module, None)
    result = run_compare(*folders)
    assert result.exit_code == 1
    assert f"needs {package}, not found here" in result.stderr
    assert run_compare(tmp_path / "a.npy", tmp_path / "a.npy").exit_code == 0


def test_lpips_without_the_package_says_how_to_get_it(
    run_compare: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    path = write_image(tmp_path / "a.png", noise(1)[0])
    result = run_compare(path, path, "--lpips")
    assert result.exit_code == 1
    assert 'pip install "easyteacache[lpips]"' in result.stderr


def test_its_options_and_choices_complete() -> None:
    def words(arguments: list[str], incomplete: str) -> list[str]:
        found = ShellComplete(program, {}, "p", "_P_COMPLETE").get_completions(arguments, incomplete)
        return [item.value for item in found]

    assert words(["compare", "a", "b"], "--min") == ["--min-psnr", "--min-ssim"]
    assert words(["compare", "--judge"], "w") == ["worst"]
