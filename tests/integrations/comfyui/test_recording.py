"""A run in ComfyUI becomes a trace, or says why it does not; its pictures are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from easyteacache.integrations.comfyui.block_stacks import STACKS
from easyteacache.integrations.comfyui.report import RunReport
from easyteacache.integrations.comfyui.run_recorder import recorded_model
from easyteacache.records import trace_file
from easyteacache.records.trace import Trace

from .stand_in import LEVELS, STEPS, Base, CFGGuider, Patcher, Transformer, sample_twice, sampler


class Block(torch.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        return x + self.scale * torch.sin(x) * e


class WanModel(Transformer):
    """Of Wan's name and layout: one list of blocks over (B, L, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(0.1), Block(0.2), Block(0.3)])
        self.extra_tokens = 0

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        control: Any = None,
        transformer_options: Any = None,
    ) -> Any:
        batch, channels, height, width = x.shape
        patches = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        tokens = patches.reshape(batch, -1, channels * 4)
        tokens = torch.cat([tokens, tokens[:, : self.extra_tokens]], dim=1)
        for block in self.blocks:
            tokens = block(tokens, e=context.reshape(batch, 1, 1) + timestep.view(-1, 1, 1))
        tokens = tokens[:, : patches[0, ..., 0, 0, 0].numel()]
        back = tokens.reshape(batch, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return back.reshape(x.shape)


def patcher(transformer: torch.nn.Module | None = None) -> Patcher:
    base = Base()
    base.diffusion_model = transformer or WanModel()  # type: ignore[assignment]
    return Patcher(base)


def recorded(
    folder: Path,
    *,
    model: Patcher | None = None,
    using: Any = None,
    key: str = "toy/model",
    guider: Any = None,
    **changes: Any,
) -> RunReport:
    reports: list[RunReport] = []
    options = {name: changes.pop(name) for name in ("prompt", "publish_prompt") if name in changes}
    wrapped, _ = recorded_model(model or patcher(), model_key=key, folder=str(folder), report=reports.append, **options)
    made = (guider or CFGGuider)(
        wrapped, **{name: changes.pop(name) for name in ("batched", "kinds") if name in changes}
    )
    made.sample(using or sampler(), **changes)
    return reports[-1]


def trace_in(report: RunReport) -> Trace:
    assert report.refusal is None, report.refusal
    assert report.recorded is not None
    [trace] = trace_file.decode(Path(report.recorded).read_bytes(), where=report.recorded)
    return trace


@pytest.mark.parametrize("batched", [True, False])
def test_a_run_is_recorded_whole(tmp_path: Path, batched: bool) -> None:
    trace = trace_in(recorded(tmp_path, batched=batched, seed=3))
    head = trace.header
    assert (head.model_key, head.num_steps, head.sequence_length, head.guidance_scale, head.seed) == (
        "toy/model",
        STEPS,
        9,
        3.0,
        3,
    )
    assert head.branches == ("cond", "uncond")
    assert head.model is not None
    assert head.model.class_name == "WanTransformer3DModel"
    assert head.sampler is not None
    assert head.sampler.name == "comfyui/euler"
    assert head.sampler.signature is not None
    assert trace.sigmas.tolist() == pytest.approx(LEVELS)
    assert trace.sampler_map is not None
    assert {"guided", "output:guided", "feature:guided"} <= set(trace.grams)


def test_the_same_run_gives_the_same_numbers_batched_or_not(tmp_path: Path) -> None:
    one, other = trace_in(recorded(tmp_path / "a", batched=True)), trace_in(recorded(tmp_path / "b", batched=False))
    for name in one.grams:
        assert one.grams[name] == pytest.approx(other.grams[name], rel=1e-6), name


def test_the_numbers_are_those_of_the_blocks(tmp_path: Path) -> None:
    trace = trace_in(recorded(tmp_path, kinds=(0,)))
    torch.manual_seed(0)
    x = torch.randn((1, 4, 6, 6), generator=torch.Generator().manual_seed(0))
    transformer = WanModel()
    seen: list[torch.Tensor] = []
    transformer.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    transformer.blocks[-1].register_forward_hook(lambda _, args, output: seen.append(output))
    transformer(x, torch.ones(1), torch.ones(1, 1, 1, 1))
    residual = (seen[1] - seen[0]).double()
    assert trace.grams["cond"][0, 0] == pytest.approx(float((residual * residual).sum()), rel=1e-5)
    assert trace.grams["feature:cond"][0, 0] == pytest.approx(float(seen[1].double().square().sum()), rel=1e-5)


def test_recording_changes_no_picture(tmp_path: Path) -> None:
    wrapped, _ = recorded_model(patcher(), model_key="toy/model", folder=str(tmp_path))
    assert torch.equal(CFGGuider(wrapped).sample(sampler()), CFGGuider(patcher()).sample(sampler()))


@pytest.mark.parametrize(("publish", "text"), [(False, None), (True, "a fox")])
def test_a_prompt_is_stored_where_that_was_said(tmp_path: Path, publish: bool, text: str | None) -> None:
    head = trace_in(recorded(tmp_path, prompt="a fox", publish_prompt=publish)).header
    assert head.prompt == text
    assert head.prompt_sha256 is not None


def test_hooks_are_gone_after_a_run_and_after_an_interrupt(tmp_path: Path) -> None:
    model = patcher()

    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    def hooks() -> int:
        return sum(
            len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.model.diffusion_model.modules()
        )

    recorded(tmp_path, model=model)
    assert hooks() == 0
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path / "broken", model=model, callback=stop)
    assert hooks() == 0
    assert not list(tmp_path.glob("broken/*"))


class BasicGuider(CFGGuider):
    """Another guidance: nobody knows how it adds its branches up."""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"using": sampler(noise=0.1)}, "draws noise"),
        ({"using": sampler(sample_twice)}, "more than once a step"),
        ({"key": "auto"}, "write its key into model_key"),
        ({"model": patcher(Transformer())}, "where the blocks of Transformer lie is not known"),
        ({"kinds": (1, 0, 2)}, "several conditionings"),
        ({"guider": BasicGuider}, "another guidance"),
    ],
    ids=["noise", "twice", "no key", "no blocks", "three branches", "guider"],
)
def test_what_cannot_be_recorded_says_why_and_writes_nothing(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    report = recorded(tmp_path, **changes)
    assert reason in (report.refusal or "")
    assert f"Not recorded: {report.refusal}" in report.text
    assert list(tmp_path.iterdir()) == []


def test_reference_tokens_are_no_part_of_a_trace(tmp_path: Path) -> None:
    model = patcher()
    model.model.diffusion_model.extra_tokens = 3
    report = recorded(tmp_path, model=model)
    assert "12 tokens enter the blocks, of which 9 are generated" in (report.refusal or "")


def test_a_folder_that_cannot_be_written_costs_no_picture(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = recorded(tmp_path / "file")
    assert "cannot be written" in (report.refusal or "")


@pytest.mark.parametrize("name", sorted(STACKS))
def test_every_block_stack_finds_what_enters_and_leaves(name: str) -> None:
    stack = STACKS[name]
    module = torch.nn.Module()
    for list_name in stack.lists:
        setattr(module, list_name, torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()]))
    first, last = stack.ends(module)
    assert first is getattr(module, stack.lists[0])[0]
    assert last is getattr(module, stack.lists[-1])[-1]
    stream, text = torch.arange(6.0).view(1, 3, 2), -torch.ones(1, 2, 2)
    assert torch.equal(stack.entering((), {stack.stream: stream}), stream)
    assert torch.equal(stack.entering((stream,), {}), stream)
    left = {
        "whole": stream,
        "first": torch.cat([stream, text], dim=1),
        "last": torch.cat([text, stream], dim=1),
        "second": (text, stream),
    }[stack.leaves]
    assert torch.equal(stack.leaving(left, 3), stream)
