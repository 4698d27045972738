from __future__ import annotations

import pytest

from easyteacache.reference import MovingDigitsPipeline, load_pipeline


@pytest.fixture(scope="session")
def loaded_reference() -> MovingDigitsPipeline:
    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def reference(loaded_reference: MovingDigitsPipeline) -> MovingDigitsPipeline:
    """The packaged model with a fresh scheduler, so that no test sees another's."""
    pipeline = MovingDigitsPipeline.from_transformer(loaded_reference.transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
