"""The tutorial's code runs as it is printed, on a tiny Wan pipeline with Wan's own sampler."""

from __future__ import annotations

import functools
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from easyteacache.errors import EasyTeaCacheWarning

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"


@pytest.fixture
def tiny_wan(monkeypatch: pytest.MonkeyPatch) -> None:
    """``WanPipeline.from_pretrained`` gives a tiny pipeline, which samples small videos whatever is asked for."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "integrations" / "diffusers"))
    import tiny_pipelines

    def from_pretrained(name: str, **options: Any) -> Any:
        assert options == {"torch_dtype": torch.bfloat16}
        pipe = tiny_pipelines.wan()
        pipe.scheduler = diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
        monkeypatch.setattr(pipe, "to", lambda device: pipe)
        return pipe

    plain = diffusers.WanPipeline.__call__

    @functools.wraps(plain)
    def small(self: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(self, *args, **{**kwargs, "height": 16, "width": 16, "num_frames": 5})

    monkeypatch.setattr(diffusers.WanPipeline, "__call__", small)
    monkeypatch.setattr(diffusers.WanPipeline, "from_pretrained", from_pretrained)
    yield
    sys.modules.pop("tiny_pipelines", None)


@pytest.mark.slow
def test_the_tutorial_runs_as_it_is_printed(tiny_wan: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EASYTEACACHE_HOME", str(tmp_path))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    said: list[str] = []
    names["print"] = lambda text: said.append(str(text))
    with warnings.catch_warnings():
        warnings.simplefilter("always", EasyTeaCacheWarning)
        for block in blocks:
            if "doctor" in block:
                names["cache"].detach()
            exec(compile(block, str(PAGE), "exec"), names)
    assert "wan2.1/t2v-1.3b" in said[0]
    # Six runs were recorded; the one after them follows their record.
    assert names["after"] is not None
    assert "reused" in said[1]
    assert "submitted" in said[1], said[1]
    assert "speed-up 2.0" in said[1], said[1]
    assert "Is it nearer than sampling with fewer steps?" in said[2]
    assert names["cache"].policy.layer == "local"
