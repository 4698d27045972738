"""Export, import: the same numbers, and a list of what the format does not carry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from easyteacache.errors import EasyTeaCacheError, InvalidCalibration
from easyteacache.export import ENGINES, Draft, Exported, export, presets, read
from easyteacache.export.numbers import strip
from easyteacache.policy.request import request_and_run
from easyteacache.records.calibration import Calibration
from easyteacache.records.preset import Preset
from easyteacache.registry.registry import Registry

Make = Callable[..., Registry]
Record = Callable[..., Calibration]


def back(text: str, engine: str, key: str | None = None) -> list[Draft]:
    return read(text, engine, file="some/file", model_key=key, title=None, modality="video")


def published(bundled: Registry, engine: str) -> list[tuple[str, Exported]]:
    """(key, export) of every bundled record that the engine takes, whatever it does with the sign, the window and masks."""
    found = []
    for key in bundled:
        try:
            allow = {"abs", "window", "signal", "mask"}
            found.append((key, export(bundled, key, engine, *request_and_run(num_steps=None), allow=allow)))
        except EasyTeaCacheError:
            continue
    return found


@pytest.mark.parametrize("engine", [name for name, each in ENGINES.items() if each.reads and not each.server])
def test_every_published_record_that_an_engine_takes_comes_back_with_its_numbers(
    engine: str, bundled: Registry
) -> None:
    files = published(bundled, engine)
    assert files
    for key, exported in files:
        record, numbers = bundled[key], exported.numbers
        first = back(exported.text, engine)[0].record
        (bucket,) = first.buckets
        assert (first.model_key, first.status) == (key, "draft")
        if engine == "lightx2v" and numbers.preset is not None and numbers.preset.method == "Custom":
            # TeaCache's gate with the published coefficients, which go into the file.
            assert (first.method, bucket.operating_points[0].predictor) == ("teacache", "linear")
        elif numbers.preset is not None:
            assert_same_settings(bucket.operating_points[0].preset, numbers.preset, engine)
        elif numbers.schedule is not None:
            (point,) = bucket.operating_points
            assert first.method == ("plan" if numbers.coefficients is None else record.method)
            assert point.plan is not None
            assert (point.plan.computed, bucket.num_steps) == (numbers.schedule, numbers.num_steps)
            assert (point.forecaster, point.applied_to) == (numbers.forecaster, numbers.applied_to)
        elif record.method == "magcache":
            kept = {entry.branch: entry.ratios for entry in bucket.magnitude_ratios}
            originals = [{e.branch: e.ratios for e in bucket.magnitude_ratios} for bucket in record.buckets]
            assert any(kept.items() <= original.items() for original in originals)
        else:
            # Zeros of powers that do not occur may be printed or not.
            assert bucket.coefficients in {strip(bucket.coefficients or ()) for bucket in record.buckets}


def assert_same_settings(found: Preset | None, original: Preset, engine: str) -> None:
    """The settings of two presets, under whichever names; settings that change nothing may be left out."""
    assert found is not None
    if engine in ("json", "python"):
        assert found == original
        return
    assert presets.settings(engine, found) == presets.settings(engine, original)


@pytest.mark.parametrize("engine", ["json", "python"])
def test_the_plain_formats_lose_nothing_that_was_resolved(engine: str, make_registry: Make, record: Record) -> None:
    original = record("any/model", rescale_post="clip", bucket={"max_consecutive_skips": 4})
    (draft,) = back(export(make_registry(original), "any/model", engine).text, engine)
    (ours,), (theirs,) = original.buckets, draft.record.buckets
    for name in ("sequence_length", "num_steps", "shift", "coefficients", "domain", "min_skip_step", "max_skip_step"):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert theirs.max_consecutive_skips == 4
    assert theirs.operating_points[0].threshold == 0.3
    assert (draft.record.signal, draft.record.rescale_post) == (original.signal, "clip")
    again = export(make_registry(draft.record), "any/model", "json").numbers
    assert again.curve == export(make_registry(original), "any/model", "json").numbers.curve


def test_a_format_without_numbers_cannot_be_imported() -> None:
    with pytest.raises(InvalidCalibration, match="hold no numbers"):
        back("TEACACHE = {}", "nunchaku", "any/model")


def test_lightx2v_gives_its_active_set_first_and_names_the_other(bundled: Registry) -> None:
    active, other = back(export(bundled, "wan2.1/t2v-14b/no-retention", "lightx2v").text, "lightx2v")
    assert (active.label, other.label) == ("no-retention", "retention")
    assert (active.record.signal, other.record.signal) == ("timestep_embedding", "timestep_projection")
    assert active.record.buckets[0].operating_points[0].threshold == 0.14
    assert other.record.buckets[0].operating_points == ()


def test_a_draft_says_what_is_missing(bundled: Registry) -> None:
    (draft,) = back(export(bundled, "flux.1/dev", "vllm-omni", *request_and_run(num_steps=28)).text, "vllm-omni")
    assert draft.record.signal == "modulated_input"  # The engine measures nothing else for this model.
    assert [each.partition(":")[0] for each in draft.missing] == ["Missing"] * len(draft.missing)
    for part in ("domain", "step count", "sequence length", "skip window", "provenance"):
        assert any(part in each for each in draft.missing), part
    assert set(draft.missing) < set(draft.record.notes)


def test_a_file_as_an_engine_ships_it_is_read(tmp_path: Path) -> None:
    """The keys of configs/hunyuan_video_15/cache of LightX2V, and of a model file of Wan2GP, with numbers of these tests."""
    shipped = {
        "infer_steps": 50,
        "feature_caching": "Tea",
        "coefficients": [1.5, 0.2],
        "teacache_thresh": 0.15,
        "fps": 24,
    }
    (draft,) = back(json.dumps(shipped), "lightx2v", "hunyuanvideo-1.5/i2v-480p")
    assert draft.record.signal == "modulated_input"
    assert draft.record.buckets[0].num_steps == 50
    model = {"model": {"name": "x", "architecture": "multitalk", "teacache_coefficients": [1.5, 0.2]}}
    (draft,) = back(json.dumps(model), "wan2gp", "my/model")
    assert draft.record.buckets[0].coefficients == (1.5, 0.2)


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ("vllm-omni", "[]"),
        ("vllm-omni", '{"coefficients": "498"}'),
        ("vllm-omni", '{"coefficients": [NaN, 1]}'),
        ("lightx2v", '{"coefficients": [[1.0], [2.0], [3.0]]}'),
        ("sglang", "TeaCacheParams(coefficients=open('x').read())"),
        ("sglang", "import os"),
        ("diffusers", "config = MagCacheConfig(mag_ratios=FLUX)"),
        ("tensorrt-llm", "a: &a [*a]"),
        ("tensorrt-llm", "cache: [1"),
        ("tensorrt-llm", "a: 1"),
        ("comfyui-teacache", "x = ["),
        ("xdit", "coef = [1.0]"),
        ("wan2gp", '{"model": {}}'),
        ("seed", '{"a": {"b": 1}}'),
        ("json", '{"coefficients": [1.0, 2.0], "signal": "t_mod"}'),
        ("python", "COEFFICIENTS = 5"),
    ],
)
def test_what_is_not_in_the_format_is_an_error_that_names_the_file(engine: str, text: str) -> None:
    with pytest.raises(InvalidCalibration, match="some/file"):
        back(text, engine, "any/model")


def test_a_file_that_names_no_model_needs_a_key() -> None:
    with pytest.raises(InvalidCalibration, match="--key"):
        back('{"rel_l1_thresh": 0.2, "coefficients": [1.0, 0.5]}', "vllm-omni")


def test_reading_python_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    text = f"import pathlib\npathlib.Path({str(trap)!r}).touch()\nflux_coef = [1.0, 0.5]\n"
    back(text, "xdit", "flux.1/dev")
    assert not trap.exists()
