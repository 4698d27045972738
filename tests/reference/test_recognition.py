from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from easyteacache.errors import ReferenceModelError
from easyteacache.reference import load_classifier
from easyteacache.reference.architectures import FLUX, WAN, build_transformer
from easyteacache.reference.classifier import held_out_accuracy, train_classifier
from easyteacache.reference.evaluation import (
    class_agreement,
    evaluation_shapes,
    held_out_loss,
    measure_agreement,
    picture,
)


@pytest.mark.parametrize("size", [16, 32])
def test_classifier_reads_held_out_handwriting(size: int) -> None:
    assert held_out_accuracy(load_classifier(), size=size) >= 0.95


def test_classifier_averages_over_frames() -> None:
    classifier, videos = load_classifier(), torch.randn(2, 1, 3, 16, 16).tanh()
    single = torch.stack([classifier(videos[:, :, frame : frame + 1]) for frame in range(3)])
    torch.testing.assert_close(classifier(videos), single.mean(0), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_classifier_training_learns_and_repeats() -> None:
    steps: list[int] = []
    first = train_classifier(steps=60, progress=lambda items: (steps.append(i) or i for i in items))
    assert steps == list(range(60))
    assert held_out_accuracy(first, size=16) > 0.3
    assert torch.equal(first.head.weight, train_classifier(steps=60).head.weight)


def test_missing_classifier_is_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("easyteacache.reference.classifier.CLASSIFIER_WEIGHTS", tmp_path / "none")
    with pytest.raises(ReferenceModelError, match="reinstall easyteacache"):
        load_classifier()


def test_samples_show_the_digit_asked_for(reference) -> None:
    agreement = class_agreement(reference, load_classifier(), (2, 16, 16), samples=20, num_inference_steps=12)
    assert agreement.total == 20
    assert agreement.share >= 0.9


def test_agreement_falls_to_chance_when_prompts_are_mixed_up(reference, monkeypatch) -> None:
    encode = reference.encode_prompt
    monkeypatch.setattr(reference, "encode_prompt", lambda asked: encode([(digit + 1) % 10 for digit in asked]))
    (agreement,) = measure_agreement(reference, load_classifier(), [(1, 16, 16)], samples=10, num_inference_steps=8)
    assert agreement.share <= 0.3


def test_trained_model_has_a_far_lower_loss_than_an_untrained_one(reference) -> None:
    assert held_out_loss(reference.transformer, batches=2) < 0.3 * held_out_loss(build_transformer(WAN), batches=2)


def test_picture_is_small_and_not_blank(reference, monkeypatch) -> None:
    monkeypatch.setattr("easyteacache.reference.evaluation.PICTURE_SHAPES", ((2, 16, 16),))
    image = picture(reference, num_inference_steps=2)
    assert image.size == (2 * 10 * 17, 2 * (2 * 17 + 3))
    assert len(np.unique(np.asarray(image))) > 10


def test_flux_is_evaluated_on_still_images_only() -> None:
    assert {frames for frames, _, _ in evaluation_shapes(FLUX)} == {1}
    assert (8, 32, 32) in evaluation_shapes(WAN)
