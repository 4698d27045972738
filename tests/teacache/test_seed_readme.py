"""Every code block of the original project's README, executed as it stands, in both modes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "seed_readme.md"
BLOCKS = re.findall(r"```python\n(.*?)```", FIXTURE.read_text("utf-8"), re.DOTALL)
MARK = re.compile(r"# in transformer\.forward.*\n")
STEPS, DIM, TOKENS = 50, 16, 24


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(DIM, DIM)

    def forward(
        self, hidden_states: Any, encoder_hidden_states: Any, timestep_proj: Any, rotary_emb: Any, mask: Any
    ) -> torch.Tensor:
        scale, shift, gate = timestep_proj[:, 0:1], timestep_proj[:, 1:2], timestep_proj[:, 2:3]
        return hidden_states + gate * torch.tanh(self.mix(hidden_states * (1 + scale) + shift))


class Transformer(nn.Module):
    """Three small blocks; ``forward`` is the README's text."""

    def __init__(self, snippet: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.project = nn.Linear(8, 6 * DIM)
        self.code = compile(snippet, "<README>", "exec")
        self.computed: list[int] = []

    def forward(self, hidden_states: torch.Tensor, step: int, teacache: Any) -> torch.Tensor:
        time = 1.0 - step / STEPS
        waves = torch.tensor([f(time * 2.0**k) for k in range(4) for f in (math.sin, math.cos)])
        before = len(self.computed)
        names = {
            "self": self,
            "teacache": teacache,
            "time_stemp_index": step,
            "timestep_proj": 0.3 * self.project(waves).view(1, 6, DIM),
            "hidden_states": hidden_states,
            "encoder_hidden_states": None,
            "rotary_emb": None,
            "encoder_hidden_states_mask": None,
        }
        hook = self.blocks[0].register_forward_hook(lambda *_: self.computed.append(step))
        exec(self.code, names)
        hook.remove()
        assert names["skip_blocks"] is (len(self.computed) == before)
        return names["hidden_states"]


def build(block: str) -> tuple[Any, Transformer]:
    """The cache and the transformer of one README block."""
    constructor, snippet = MARK.split(block)
    names: dict[str, Any] = {}
    exec(compile(constructor, "<README>", "exec"), names)
    torch.manual_seed(0)
    return names["cache"], Transformer(snippet)


@torch.inference_mode()
def sample(model: Transformer, cache: Any, *, seed: int = 0, tokens: int = TOKENS) -> torch.Tensor:
    latent = torch.randn(1, tokens, DIM, generator=torch.Generator().manual_seed(seed))
    for step in range(STEPS):
        latent = latent - model(latent, step, cache) / STEPS
    return latent


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_fixture_holds_the_two_blocks_of_the_readme() -> None:
    assert len(BLOCKS) == 2
    assert [("speedup_mode=False" in block) for block in BLOCKS] == [False, True]
    assert all(
        block.startswith("from EasyTeaCache import TeaCache\n") and len(MARK.split(block)) == 2 for block in BLOCKS
    )


def test_solve_mode_computes_everything_and_files_one_fit_for_the_length() -> None:
    cache, model = build(BLOCKS[1])
    expected = sample(model, None)
    model.computed.clear()
    assert torch.equal(sample(model, cache), expected)
    assert model.computed == list(range(STEPS))
    cache.clear_cache()
    content = json.loads(Path("config/teacache/cache.json").read_text())
    meta = content["mymodel"]["function"][str(TOKENS)]["meta_data"]
    assert (meta["complexity"], meta["fit_length"], meta["calibration_size"]) == (4, TOKENS, STEPS - 1)
    assert len(meta["coefficients"]) == 5


def test_speed_mode_applies_what_solve_mode_filed() -> None:
    solver, model = build(BLOCKS[1])
    for seed in (1, 2):
        sample(model, solver, seed=seed)
    solver.clear_cache()
    cache, model = build(BLOCKS[0])
    exact = sample(model, None)
    model.computed.clear()
    approximate = sample(model, cache)
    reused = sorted(set(range(STEPS)) - set(model.computed))
    assert reused, "nothing was reused"
    assert set(reused) <= set(range(2, 49))
    runs = "".join("r" if step in reused else "c" for step in range(STEPS)).split("c")
    assert max(map(len, runs)) <= 2
    assert cache.current_speedup_rate() == STEPS / len(model.computed) > 1.2
    assert (approximate - exact).norm() < 0.02 * exact.norm()


def test_speed_mode_runs_again_on_the_same_cache_and_decides_the_same() -> None:
    solver, model = build(BLOCKS[1])
    sample(model, solver)
    solver.clear_cache()
    cache, model = build(BLOCKS[0])
    first = sample(model, cache)
    once = list(model.computed)
    assert torch.equal(sample(model, cache), first)
    assert model.computed == once * 2


def test_speed_mode_without_a_file_says_how_to_make_one() -> None:
    with pytest.raises(ValueError, match="speedup_mode=False"):
        build(BLOCKS[0])


@pytest.mark.parametrize("block", BLOCKS, ids=["speed", "solve"])
def test_the_readme_s_forward_runs_without_a_cache(block: str) -> None:
    torch.manual_seed(0)
    model = Transformer(MARK.split(block)[1])
    sample(model, None)
    assert model.computed == list(range(STEPS))
