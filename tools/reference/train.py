"""Train a reference model, look at how well it does, and export its weights.

    python tools/reference/train.py --checkpoint runs/wan.pt --evaluate --export runs/wan

A run may be interrupted (Ctrl-C) at any time; repeating the command goes on from where it stopped. Sampling data,
initial weights and order of batches follow from --seed; bits also depend on the torch release and thread count.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

import click
import torch
from safetensors.torch import save
from tqdm import tqdm

from easyteacache.files.atomic_write import write_bytes
from easyteacache.reference import evaluation
from easyteacache.reference.architectures import ArchitectureName, Transformer, architecture_of
from easyteacache.reference.classifier import (
    CLASSIFIER_WEIGHTS,
    held_out_accuracy,
    load_classifier,
    train_classifier,
)
from easyteacache.reference.pipeline import MovingDigitsPipeline, load_pipeline
from easyteacache.reference.training import Training, TrainingSettings

SMOOTHING = 0.98


def save_checkpoint(training: Training, path: Path) -> None:
    """Replace the checkpoint file by the run's present state."""
    buffer = io.BytesIO()
    torch.save(training.state_dict(), buffer)
    write_bytes(path, buffer.getvalue())


def resume(training: Training, path: Path) -> None:
    """Continue from the checkpoint file where there is one."""
    if path.exists():
        training.load_state_dict(torch.load(path, weights_only=True))
        click.echo(f"{path}: {training.done} of {training.settings.steps} steps done")


def trained_pipeline(settings: TrainingSettings, checkpoint: Path, *, save_every: int | None) -> MovingDigitsPipeline:
    """Finish the run of the checkpoint (or take it as it is where `save_every` is None) and wrap its average."""
    training = Training(settings)
    resume(training, checkpoint)
    started = time.perf_counter()
    if save_every is not None:
        train(training, checkpoint, save_every=save_every)
        click.echo(f"trained for {(time.perf_counter() - started) / 60:.1f} minutes in this call")
    return MovingDigitsPipeline.from_transformer(training.ema)


def train(training: Training, checkpoint: Path, *, save_every: int) -> None:
    """Train to the end, saving on the way and when interrupted."""
    smooth: float | None = None
    progress = tqdm(total=training.settings.steps, initial=training.done, unit="step", mininterval=2)
    try:
        while training.done < training.settings.steps:
            loss = training.step()
            smooth = loss if smooth is None else SMOOTHING * smooth + (1 - SMOOTHING) * loss
            progress.update()
            progress.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            if training.done % save_every == 0:
                save_checkpoint(training, checkpoint)
    finally:
        progress.close()
        save_checkpoint(training, checkpoint)


def read_shape(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> list[evaluation.Shape]:
    """Read `4x16x24` as frames, height and width."""
    try:
        shapes = [tuple(map(int, text.split("x"))) for text in texts]
    except ValueError:
        shapes = [()]
    if any(len(shape) != 3 for shape in shapes):
        raise click.BadParameter(f"expected FRAMESxHEIGHTxWIDTH such as 4x16x24, found {' '.join(texts)}")
    return cast(list[evaluation.Shape], shapes)


def evaluate(
    pipeline: MovingDigitsPipeline, shapes: Sequence[evaluation.Shape], *, samples: int, num_inference_steps: int
) -> None:
    """Print the held-out loss and how often samples of each shape are read as asked for."""
    click.echo(f"held-out loss {evaluation.held_out_loss(pipeline.transformer):.4f}")
    classifier = load_classifier()
    for size in evaluation.SIZES:
        click.echo(f"classifier on held-out digits, {size} px: {held_out_accuracy(classifier, size=size):.3f}")
    click.echo("frames  height  width  tokens  class accuracy")
    for agreement in evaluation.measure_agreement(
        pipeline, classifier, shapes, samples=samples, num_inference_steps=num_inference_steps
    ):
        frames, height, width = agreement.shape
        tokens = pipeline.sequence_length(frames, height, width)
        result = f"{agreement.share:.3f} ({agreement.right}/{agreement.total})"
        click.echo(f"{frames:6d}  {height:6d}  {width:5d}  {tokens:6d}  {result}")


def export(pipeline: MovingDigitsPipeline, folder: Path) -> None:
    """Write `folder/transformer` (config and fp16 weights) and the picture `folder/samples.png`."""
    transformer: Transformer = pipeline.transformer
    half = {name: tensor.half().contiguous() for name, tensor in transformer.state_dict().items()}
    target = folder / "transformer"
    write_bytes(target / "diffusion_pytorch_model.safetensors", save(half, metadata={"format": "pt"}))
    write_bytes(target / "config.json", transformer.to_json_string().encode())
    buffer = io.BytesIO()
    evaluation.picture(pipeline).save(buffer, format="PNG", optimize=True)
    write_bytes(folder / "samples.png", buffer.getvalue())


def export_classifier(path: Path) -> None:
    """Train the digit classifier from scratch (about a minute) and write its fp16 weights."""
    classifier = train_classifier(progress=tqdm)
    write_bytes(path, save({name: tensor.half() for name, tensor in classifier.state_dict().items()}))


@click.command(epilog="The packaged model: --checkpoint runs/wan.pt --threads 2")
@click.option("--architecture", type=click.Choice(get_args(ArchitectureName)), default="wan", show_default=True)
@click.option("--steps", default=TrainingSettings().steps, show_default=True, help="Training steps in total.")
@click.option("--seed", default=0, show_default=True, help="Of the initial weights and all data.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="File to resume from and save to.")
@click.option("--save-every", default=100, show_default=True, help="Steps between saves.")
@click.option("--threads", default=0, help="CPU threads; 0 leaves the choice to torch.")
@click.option("--no-train", is_flag=True, help="Take the checkpoint as it is.")
@click.option("--evaluate", "wants_evaluation", is_flag=True, help="Print loss and class accuracy per shape.")
@click.option("--shape", "shapes", multiple=True, callback=read_shape, help="FxHxW to evaluate; default: many.")
@click.option("--samples", default=50, show_default=True, help="Samples per shape for --evaluate.")
@click.option("--sampling-steps", default=50, show_default=True, help="Sampler steps for --evaluate.")
@click.option("--export", "folder", type=click.Path(path_type=Path), help="Folder for weights and a picture.")
@click.option("--classifier", is_flag=True, help="Train the packaged digit classifier instead.")
def main(
    *,
    architecture: str,
    steps: int,
    seed: int,
    checkpoint: Path | None,
    save_every: int,
    threads: int,
    no_train: bool,
    wants_evaluation: bool,
    shapes: list[evaluation.Shape],
    samples: int,
    sampling_steps: int,
    folder: Path | None,
    classifier: bool,
) -> None:
    """Train, evaluate and export a reference model.

    The averaged (EMA) weights are what is evaluated and exported. With --evaluate and no --checkpoint, the model that
    travels with the package is evaluated.
    """
    if threads:
        torch.set_num_threads(threads)
    if classifier:
        export_classifier(CLASSIFIER_WEIGHTS)
        return
    if checkpoint is None and not wants_evaluation:
        raise click.UsageError("--checkpoint FILE is needed, to save the run to and to resume it from")
    if checkpoint is None:
        pipeline = load_pipeline()
    else:
        settings = TrainingSettings(architecture=cast(ArchitectureName, architecture), steps=steps, seed=seed)
        pipeline = trained_pipeline(settings, checkpoint, save_every=None if no_train else save_every)
    pipeline.set_progress_bar_config(leave=False, desc="sampling")
    if folder is not None:
        export(pipeline, folder)
    if wants_evaluation:
        chosen = shapes or evaluation.evaluation_shapes(architecture_of(pipeline.transformer))
        evaluate(pipeline, chosen, samples=samples, num_inference_steps=sampling_steps)


if __name__ == "__main__":
    main()
