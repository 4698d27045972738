"""docs/compare.md tells the truth: its commands and its code run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from easyteacache.compare import opening, source

from .conftest import changed, noise, write_folder, write_image, write_video

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")


def write_everything(folder: Path) -> None:
    a = noise(3)
    for name, frames in (("uncached", a), ("cached", changed(a, [10, 12, 14]))):
        images = [Image.fromarray(frame) for frame in frames]
        write_image(folder / f"{name}.png", frames[0])
        write_video(folder / f"{name}.mp4", frames)
        write_folder(folder / f"{name}-frames", frames)
        write_folder(folder / f"{name}-pictures", frames, "{}.png")
        (folder / f"{name}-videos").mkdir()
        write_video(folder / f"{name}-videos" / "cat.mp4", frames)
        images[0].save(folder / f"{name}.gif", save_all=True, append_images=images[1:])
        save_file({"latents": torch.from_numpy(np.stack(frames)).float()}, folder / f"{name}.safetensors")
        np.save(folder / f"{name}.npy", np.stack(frames) / 255)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_its_commands_work(tmp_path: Path) -> None:
    write_everything(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^easyteacache compare", "".join(blocks), re.MULTILINE)
    script = "set -e\n" + "".join(blocks).replace("easyteacache compare", "program compare")
    program = f'program() {{ {sys.executable} -m easyteacache.cli.main "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sh", "-c", program + script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^\d+ (?:frame|array).* compared\b", done.stdout, re.MULTILINE)) == len(commands) - 1
    assert json.loads((tmp_path / "compared.json").read_text())["limits"]["passed"] is True
    with Image.open(tmp_path / "compared.png") as picture:
        assert picture.format == "PNG"


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_everything(tmp_path)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/compare.md", "exec"), {})
    psnr, ssim = map(float, capsys.readouterr().out.split())
    assert psnr == pytest.approx(20 * np.log10(25.5))
    assert 0.9 < ssim < 1


def test_it_names_every_suffix_and_the_bounds() -> None:
    table = PAGE.lower().partition("## what is read")[2].partition("## what is measured")[0]
    names = {"jpg": "jpeg", "tif": "tiff", "apng": "apng"}
    for suffix in opening.SUFFIXES:
        assert names.get(suffix[1:], suffix[1:]) in table, suffix
    assert source.MAX_ITEMS == 2**30
    assert source.MAX_PIXELS == 2**26
    assert f"{source.MAX_FRAMES:,} frames" in table


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
