from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMScheduler

from easyteacache.bench.contender import Bed
from easyteacache.bench.diffusers_caches import PyramidAttentionBroadcast
from easyteacache.bench.subject import Case, Pair, ReferenceSubject, Subject, digest_of, load_reference
from easyteacache.bench.trial import Uncached
from easyteacache.errors import BenchError, ReferenceModelError
from easyteacache.integrations.diffusers import scheduler_facts

CASE = Case(1, 16, 16, 4)


@pytest.fixture
def any_pipeline(subjects: dict[str, ReferenceSubject]) -> Subject:
    """The reference pipeline, as one of which nothing else is known."""
    pipe = subjects["wan"].pipe
    return Subject(pipe, name="some pipeline", digest=digest_of(pipe), prompts=["3 up", "4 left"])


def test_any_pipeline_is_sampled_from_the_pairs_noise(
    any_pipeline: Subject, subjects: dict[str, ReferenceSubject]
) -> None:
    pair = Pair("3 up", 7)
    found = any_pipeline.sample(CASE, pair, steps=4)
    assert found.shape == (1, 16, 16, 1)
    assert np.array_equal(found, subjects["wan"].sample(CASE, pair, steps=4))
    assert not np.array_equal(found, any_pipeline.sample(CASE, Pair("3 up", 8), steps=4))
    assert any_pipeline.read(pair, found) is None


def test_prompts_take_turns_and_every_pair_has_its_own_seed(any_pipeline: Subject) -> None:
    assert any_pipeline.pairs(3, first_seed=5) == (("3 up", 5), ("4 left", 6), ("3 up", 7))


def test_an_attention_cache_is_kept_from_branches_it_would_mix_up(any_pipeline: Subject) -> None:
    forwards = Uncached(any_pipeline, CASE).forwards(Pair("3 up", 7))
    assert forwards == 2
    reason = PyramidAttentionBroadcast().inapplicable(Bed(any_pipeline, CASE, forwards, (), (2.0,)))
    assert reason is not None
    assert "keeps one state for both" in reason


def test_a_subject_without_prompts_is_refused(subjects: dict[str, ReferenceSubject]) -> None:
    with pytest.raises(BenchError, match="at least one prompt"):
        Subject(subjects["wan"].pipe, name="x", digest="", prompts=[])


def test_a_saved_transformer_of_either_class_is_loaded(subjects: dict[str, ReferenceSubject], tmp_path: Path) -> None:
    subjects["flux"].pipe.transformer.save_pretrained(tmp_path / "runs" / "transformer")
    loaded = load_reference(tmp_path / "runs")
    assert (loaded.digest, loaded.key) == (subjects["flux"].digest, None)
    (tmp_path / "runs" / "transformer" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ReferenceModelError, match="found UNet2DModel"):
        load_reference(tmp_path / "runs")


def test_what_a_case_is_called() -> None:
    assert [Case(4, 16, 24, 50).name, Case(None, 16, 24, 50).name, Case(None, None, None, 28).name] == [
        "4x16x24@50",
        "16x24@50",
        "default@28",
    ]


@pytest.mark.parametrize("name", ["euler", "unipc"])
def test_a_subject_is_sampled_by_the_sampler_and_shift_it_was_given(name: str) -> None:
    subject = load_reference(None)
    subject.sampled_by(name, 0.35)
    assert subject.sampler == (name, 0.35)
    facts = scheduler_facts.facts_for(subject.pipe.scheduler, 4)
    assert facts is not None
    assert (facts.shift, facts.euler) == (0.35, name == "euler")
    # σ' = s·σ / (1 + (s − 1)·σ); diffusers' Euler ends its four steps just above 0, its UniPC a quarter above.
    plain = {"euler": 2 / 3, "unipc": 3 / 4}[name]
    share = 0.35 * plain / (1 - 0.65 * plain)
    assert facts.levels is not None
    assert facts.levels[1] == pytest.approx(share, abs=2e-3)
    assert not np.array_equal(
        subject.sample(CASE, Pair("3 up", 7), steps=4), load_reference(None).sample(CASE, Pair("3 up", 7), steps=4)
    )


def test_a_part_of_the_sampler_that_is_not_given_stays_the_pipelines_own() -> None:
    subject = load_reference(None)
    subject.sampled_by(None, None)
    assert subject.sampler is None
    subject.sampled_by("unipc", None)
    assert subject.sampler == ("unipc", 3.0)
    subject.sampled_by(None, 0.5)
    assert subject.sampler == ("unipc", 0.5)


def test_no_flow_matching_sampler_is_put_on_a_pipeline_of_another_kind() -> None:
    subject = load_reference(None)
    subject.pipe.scheduler = DDIMScheduler()
    with pytest.raises(BenchError, match="DDIMScheduler is no flow-matching sampler"):
        subject.sampled_by(None, 0.5)
