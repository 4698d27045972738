"""Sets of traces: order, merging, grouping, splitting, repeats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from easyteacache.errors import InvalidTrace, NotEnoughTraces
from easyteacache.records.bucket import Bucket
from easyteacache.records.sampler import SamplerRecord
from easyteacache.records.trace_set import TraceSet, common_model, one_model


@pytest.fixture
def runs(make_trace):
    return [make_trace(seed + 10 * length, sequence_length=length) for length in (64, 144) for seed in range(6)]


def test_merged_shards_give_the_very_file_of_one_recording(runs, tmp_path):
    whole = TraceSet(runs).save(tmp_path / "whole.safetensors")
    for shard in range(3):
        TraceSet(runs[shard::3]).save(tmp_path / f"shard-{shard}.safetensors")
    shards = [TraceSet.load(tmp_path / f"shard-{shard}.safetensors") for shard in (2, 0, 1)]
    merged = TraceSet.merge(*shards).save(tmp_path / "merged.safetensors")
    assert merged.sha256 == whole.sha256


def test_merging_is_idempotent(runs):
    once = TraceSet(runs)
    assert [run.run_id for run in TraceSet.merge(once, once[:3], once[2:9])] == [run.run_id for run in once]


def test_loading_the_same_run_from_two_files_is_refused(runs, tmp_path):
    TraceSet(runs).save(tmp_path / "a.safetensors")
    TraceSet(runs[:1]).save(tmp_path / "b.safetensors")
    with pytest.raises(InvalidTrace) as caught:
        TraceSet.load(tmp_path)
    assert caught.value.rule == "trace.duplicate"


def test_a_run_repeated_under_another_label_is_refused(runs):
    copy = dataclasses.replace(runs[0], header=runs[0].header.model_copy(update={"seed": 999, "prompt": "4"}))
    with pytest.raises(InvalidTrace) as caught:
        TraceSet.merge(TraceSet(runs), TraceSet([copy]))
    assert caught.value.rule == "trace.duplicate"


def test_a_repeat_disguised_by_tiny_changes_is_reported(runs):
    residuals = {branch: values * (1 + 1e-6) for branch, values in runs[4].residual_distances.items()}
    disguised = dataclasses.replace(runs[4], residual_distances=residuals)
    assert TraceSet(runs).near_duplicates() == ()
    pairs = TraceSet([*runs, disguised]).near_duplicates()
    assert [{pair[0].run_id, pair[1].run_id} for pair in pairs] == [{runs[4].run_id, disguised.run_id}]


def test_groups_are_chosen_by_length_steps_and_shift(runs, make_trace):
    traces = TraceSet([*runs, make_trace(99, steps=5, shift=None)])
    assert traces.settings() == ((64, 5, 0.0), (64, 8, 3.0), (144, 8, 3.0))
    assert len(traces.group(64)) == 7
    assert len(traces.group(64, 8, 3.0)) == 6
    assert len(traces.group(shift=0.0)) == 1
    assert len(traces.group(4096)) == 0


def test_runs_of_several_samplers_are_groups_of_their_own(runs, make_trace):
    euler, unipc = (
        SamplerRecord(name=name, calls=8, signature=(last,) * 9) for name, last in (("Euler", 1.0), ("UniPC", 2.0))
    )
    here = [make_trace(seed, sampler=euler) for seed in range(4)]
    there = [make_trace(seed, sampler=unipc) for seed in range(20, 24)]
    traces = TraceSet([*here, *there, *runs[6:]])
    assert traces.settings() == ((64, 8, 3.0, "Euler"), (64, 8, 3.0, "UniPC"), (144, 8, 3.0))
    assert [run.header.seed for run in traces.group(64, 8, 3.0, "UniPC")] == [20, 21, 22, 23]
    assert len(traces.group(64, 8, 3.0)) == 8
    calibration, heldout = traces.split_heldout()
    assert calibration.settings() == heldout.settings() == traces.settings()
    bucket = Bucket(sequence_length=64, num_steps=8, shift=3.0, coefficients=(1.0, 0.0), sampler=unipc)
    assert traces.setting_of(bucket) == (64, 8, 3.0, "UniPC")
    assert TraceSet(there).setting_of(bucket) == (64, 8, 3.0)
    one_model(traces)


def test_experts_are_kept_apart(make_trace):
    traces = TraceSet([make_trace(0, part="high-noise"), make_trace(1, part="low-noise"), make_trace(2)])
    assert [run.header.seed for run in traces.part("low-noise")] == [1]
    assert [run.header.seed for run in traces.part(None)] == [2]


def test_the_split_covers_every_run_once_and_every_setting_on_both_sides(runs):
    calibration, heldout = TraceSet(runs).split_heldout(0.3)
    assert {run.run_id for run in calibration} | {run.run_id for run in heldout} == {run.run_id for run in runs}
    assert (len(calibration), len(heldout)) == (8, 4)
    assert calibration.settings() == heldout.settings()


def test_the_split_does_not_change_with_labels_or_order(runs):
    relabelled = [dataclasses.replace(run, header=run.header.model_copy(update={"seed": 7})) for run in runs]
    splits = [TraceSet(list_).split_heldout()[1] for list_ in (runs, relabelled[::-1])]
    assert {run.content_id for run in splits[0]} == {run.content_id for run in splits[1]}


def test_a_setting_with_one_run_cannot_be_split(runs):
    with pytest.raises(NotEnoughTraces, match="record 1 more"):
        TraceSet(runs[:1]).split_heldout()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, np.nan])
def test_the_held_out_share_must_be_a_share(runs, fraction):
    with pytest.raises(ValueError, match="fraction"):
        TraceSet(runs).split_heldout(fraction)


def test_an_empty_folder_is_refused_with_advice(tmp_path):
    with pytest.raises(InvalidTrace, match="record traces first"):
        TraceSet.load(tmp_path)


def test_a_set_is_a_sequence(runs):
    traces = TraceSet(runs)
    assert len(traces[2:5]) == 3
    assert traces[0].run_id in {run.run_id for run in runs}
    assert "12 runs" in repr(traces)


def _of(run, **model):
    from easyteacache.records.model_identity import ModelIdentity

    header = run.header.model_copy(update={"model": ModelIdentity(**model)})
    return dataclasses.replace(run, header=header)


def test_runs_of_one_file_of_weights_have_the_class_that_any_of_them_names(runs):
    weights = "family/model@sha256:" + "0" * 64
    older, newer = (
        _of(runs[0], checkpoint=weights),
        _of(runs[1], checkpoint=weights, class_name="WanTransformer3DModel"),
    )
    assert common_model(TraceSet([older, newer])).class_name == "WanTransformer3DModel"


def test_a_checkpoint_that_may_have_changed_says_nothing_of_a_class(runs):
    older, newer = _of(runs[0], checkpoint="a/b"), _of(runs[1], checkpoint="a/b", class_name="WanTransformer3DModel")
    assert common_model(TraceSet([older, newer])).class_name is None
