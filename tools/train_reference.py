"""Train a reference model, look at how well it does, and export its weights.

    python tools/train_reference.py --checkpoint runs/wan.pt --export easyteacache/reference/weights

A run can be interrupted (Ctrl-C) at any time and goes on when the command is repeated.
"""

from pathlib import Path

import click
import torch
from tqdm import tqdm

from easyteacache.reference.training import Training, TrainingSettings

SMOOTHING = 0.98


def _save(training: Training, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(training.state_dict(), part)
    part.replace(path)


def _resume(training: Training, path: Path) -> None:
    if path.exists():
        training.load_state_dict(torch.load(path, weights_only=True))


def _train(training: Training, checkpoint: Path, *, save_every: int) -> None:
    """Train to the end, saving on the way and on Ctrl-C."""
    total, smooth = training.settings.steps, None
    progress = tqdm(total=total, initial=training.done, unit="step", mininterval=5)
    try:
        while training.done < total:
            loss = training.step()
            smooth = loss if smooth is None else SMOOTHING * smooth + (1 - SMOOTHING) * loss
            progress.update()
            progress.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            if training.done % save_every == 0:
                _save(training, checkpoint)
    finally:
        _save(training, checkpoint)
        progress.close()


@click.command()
@click.option("--architecture", type=click.Choice(["wan", "flux"]), default="wan")
@click.option("--steps", default=TrainingSettings().steps, show_default=True)
@click.option("--seed", default=0)
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True)
@click.option("--save-every", default=100, show_default=True)
@click.option("--threads", default=0)
def main(architecture, steps, seed, checkpoint, save_every, threads) -> None:
    if threads:
        torch.set_num_threads(threads)
    training = Training(TrainingSettings(architecture=architecture, steps=steps, seed=seed))
    _resume(training, checkpoint)
    _train(training, checkpoint, save_every=save_every)


if __name__ == "__main__":
    main()
