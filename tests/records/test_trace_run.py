"""One trace: its rules, its identity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from easyteacache.errors import InvalidTrace
from easyteacache.records.trace_set import TraceHeader


def broken(make_trace, **changes):
    with pytest.raises(InvalidTrace) as caught:
        dataclasses.replace(make_trace(), **changes)
    return caught.value


def with_item(values, place, item):
    changed = np.array(values)
    changed[place] = item
    return changed


def test_equal_content_gives_equal_ids_and_arrays_cannot_be_changed_afterwards(make_trace):
    first, second = make_trace(3), make_trace(3)
    assert first.run_id == second.run_id
    with pytest.raises(ValueError, match="read-only"):
        first.grams["cond"][0, 0] = 1.0
    with pytest.raises(TypeError):
        first.grams["cond"] = second.grams["cond"]


def test_a_trace_keeps_its_own_copy_of_what_it_was_given(make_trace):
    trace = make_trace()
    sigmas = np.array(trace.sigmas)
    other = dataclasses.replace(trace, sigmas=sigmas)
    sigmas[0] = 7.0
    assert other.sigmas[0] == 1.0


def test_run_id_covers_the_label_and_content_id_only_the_numbers(make_trace):
    trace = make_trace()
    relabelled = dataclasses.replace(trace, header=trace.header.model_copy(update={"seed": 9}))
    assert relabelled.content_id == trace.content_id
    assert relabelled.run_id != trace.run_id
    smallest_change = np.nextafter(trace.timesteps, 0.0)
    assert dataclasses.replace(trace, timesteps=smallest_change).content_id != trace.content_id


def test_run_id_does_not_depend_on_who_recorded_it_when(make_trace):
    trace = make_trace()
    update = {"tool_version": "9.9.9", "recorded_at": "2031-01-01"}
    assert dataclasses.replace(trace, header=trace.header.model_copy(update=update)).run_id == trace.run_id


def test_nan_is_refused_in_every_kind_of_array(make_trace):
    trace = make_trace()
    nan = with_item(trace.residual_distances["cond"], 2, np.nan)
    assert broken(make_trace, residual_distances={**trace.residual_distances, "cond": nan}).rule == "trace.nan"
    gram = with_item(trace.grams["cond"], (1, 1), np.inf)
    assert broken(make_trace, grams={**trace.grams, "cond": gram}).rule == "trace.nan"
    assert broken(make_trace, timesteps=with_item(trace.timesteps, 0, np.nan)).rule == "trace.nan"


def test_wrong_lengths_and_missing_branches_are_refused(make_trace):
    trace = make_trace()
    assert broken(make_trace, sigmas=trace.sigmas[:-1]).rule == "trace.shape"
    assert broken(make_trace, output_distances={"cond": trace.output_distances["cond"]}).rule == "trace.shape"
    assert broken(make_trace, grams={"cond": trace.grams["cond"]}).rule == "trace.shape"
    assert broken(make_trace, grams={**trace.grams, "other": trace.grams["cond"]}).rule == "trace.shape"
    assert broken(make_trace, signal_distances={}).rule == "trace.shape"


def test_noise_levels_must_fall(make_trace):
    trace = make_trace()
    assert broken(make_trace, sigmas=trace.sigmas[::-1]).rule == "trace.timesteps"
    assert broken(make_trace, timesteps=with_item(trace.timesteps, 3, 999.0)).rule == "trace.timesteps"


def test_negative_distances_are_refused(make_trace):
    values = with_item(make_trace().output_distances["cond"], 0, -1e-9)
    error = broken(make_trace, output_distances={**make_trace().output_distances, "cond": values})
    assert error.rule == "trace.distance"


def test_a_gram_must_be_symmetric_and_positive_semi_definite(make_trace):
    grams = make_trace().grams
    lopsided = with_item(grams["cond"], (0, 1), grams["cond"][0, 1] * (1 + 1e-9))
    assert broken(make_trace, grams={**grams, "cond": lopsided}).rule == "trace.gram"
    impossible = np.array(grams["cond"])
    impossible[0, 0] = 0.0
    assert broken(make_trace, grams={**grams, "cond": impossible}).rule == "trace.gram"


def test_a_header_refuses_repeated_names_and_a_branch_called_guided(make_trace):
    fields = make_trace().header.model_dump()
    for change in ({"branches": ("cond", "cond")}, {"branches": ("guided",)}, {"model_key": "Wan/../x"}):
        with pytest.raises(ValueError, match=r"twice|guided|model_key"):
            TraceHeader(**{**fields, **change})
