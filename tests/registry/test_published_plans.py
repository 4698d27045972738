"""Published plans and presets in the bundled registry: every fact is somewhere, and nothing is there that no fact says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from easyteacache.records.calibration import Calibration
from easyteacache.registry.family import model_of
from easyteacache.registry.registry import Registry
from easyteacache.runtime.predictors import predictor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from published import import_plans  # noqa: E402
from published.plans import l2p, magcache  # noqa: E402
from published.plans.build import shape_of  # noqa: E402
from published.plans.evidence import evidence_of, unclaimed  # noqa: E402

FACTS = import_plans.read_facts()
BUNDLED = Registry.from_folder(ROOT / "registry")
RECORDS = dict(BUNDLED.items())


def record_of(fact: dict[str, Any]) -> Calibration:
    """The record that a fact went into."""
    if fact["method"] == "MagCache":
        return RECORDS[magcache.key_of(fact)]
    part = import_plans.method_of(fact).part(fact)
    key = fact["model_key_suggestion"]
    found = [RECORDS[name] for name in (f"{key}/{part}", f"{key}/preset-{part}") if name in RECORDS]
    kind = "preset" if fact["kind"] == "preset" or fact["method"] == "L2P" else "plan"
    return next(record for record in found if record.method == kind)


TAKEN = [fact for fact in FACTS if fact["id"] not in import_plans.left_out(FACTS)]


@pytest.mark.parametrize("script", ["import_plans.py", "import_magcache.py"])
def test_the_bundled_records_are_what_the_importers_write(script: str) -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "published" / script), "--check"], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert " 0 files different." in run.stdout


def test_there_are_over_a_hundred_and_ten_plans_of_over_twenty_five_models() -> None:
    plans = [
        (model_of(key), point.plan)
        for key, record in RECORDS.items()
        for bucket in record.buckets
        for point in bucket.operating_points
        if (record.method == "plan" and point.plan) or (record.method == "magcache" and point.speedup)
    ]
    assert len(plans) >= 110
    assert len({key for key, _ in plans}) >= 25


def test_every_fact_is_taken_or_left_out_for_a_reason() -> None:
    assert len(FACTS) == 237
    reasons = import_plans.left_out(FACTS)
    assert Counter(reasons.values()) == {
        "an engine's default for every model alike, no model's own": 5,
        "one block is recomputed at reused steps, so that no single feature is held": 1,
        "every layer has a mask of its own: no plan over steps": 1,
        "its denoiser is a U-Net, which no adapter of this project runs": 1,
    }
    assert all(record_of(fact) for fact in TAKEN)


@pytest.mark.parametrize(
    "fact", [f for f in TAKEN if f["kind"] != "preset" and f["method"] != "L2P"], ids=lambda f: f["id"]
)
def test_a_plan_computes_exactly_what_its_source_lists(fact: dict[str, Any]) -> None:
    record = record_of(fact)
    computed = tuple(fact["extra"].get("effective_computed_steps") or fact["computed_steps"])
    buckets = [bucket for bucket in record.buckets if bucket.num_steps == fact["num_steps"]]
    listed = [point.schedule for bucket in buckets for point in bucket.operating_points]
    counted = [point.computed_steps for bucket in buckets for point in bucket.operating_points if point.threshold]
    assert computed in listed or (record.method == "magcache" and len(computed) in counted)
    repositories = {source.repository for source in record.provenance.sources}
    assert fact["source"]["repository"] in repositories or record.method == "magcache"


def test_every_predictor_that_a_record_names_exists_and_fits_its_target() -> None:
    for record in RECORDS.values():
        for bucket in record.buckets:
            for point in bucket.operating_points:
                if point.plan is not None and point.plan.rows is None:
                    named = predictor(point.predictor)
                    assert point.applied_to in named.places
                    assert point.coordinate in named.axes or point.coordinate == "step"


def test_nothing_of_another_engine_is_applied_here() -> None:
    for key, record in RECORDS.items():
        for bucket in record.buckets:
            for point in bucket.operating_points:
                assert (point.preset is not None) == (record.method == "preset"), key


def test_reported_figures_stand_where_the_source_gives_them() -> None:
    (bucket,) = RECORDS["qwen-image/2.1/dpcache"].buckets
    point = next(p for p in bucket.operating_points if p.schedule and len(p.schedule) == 12 and 6 in p.schedule)
    figures = {(one.metric, one.value, one.worst, one.speedup, one.runs) for one in point.evidence}
    assert ("lpips", 0.08, 0.3809, 3.05, 20) in figures
    assert ("psnr", 27.6, 14.1, 3.05, 20) in figures
    assert ("lpips", 0.0848, 0.22, 3.21, 20) in figures
    assert {one.kind for one in point.evidence} == {"reported"}
    assert point.speedup == 3.05


def test_figures_of_another_form_are_told_and_not_claimed() -> None:
    fact = next(fact for fact in FACTS if fact["id"] == "taylorseer/flux.1-dev/N6-O1")
    assert evidence_of(fact, full_claim=False) == ()
    assert unclaimed(fact) == (
        "The source reports 3.53× of its own form (README headline; that it is this default is inferred (50/10 = 5))."
    )
    record = RECORDS["flux.1/dev/taylorseer"]
    assert all(not point.evidence for bucket in record.buckets for point in bucket.operating_points)
    assert any("10 of 50 steps: The source reports 3.53×" in note for note in record.notes)
    quantised = RECORDS["qwen-image/2.1/dpcache-fp8"]
    assert quantised.model is not None
    assert quantised.model.quantization == "fp8"
    assert all(point.speedup is None for bucket in quantised.buckets for point in bucket.operating_points)


def test_an_unknown_licence_is_said() -> None:
    record = RECORDS["hunyuan-image/2.1/taylorseer-lite"]
    assert record.provenance.license is None
    assert any("licence of the source is not stated" in note for note in record.notes)
    assert RECORDS["wan2.1/t2v-14b/lemica"].provenance.license == "Apache-2.0"


def test_no_name_leads_to_two_models() -> None:
    owners: dict[str, set[str]] = {}
    for key, record in RECORDS.items():
        for alias in record.aliases:
            owners.setdefault(alias.value, set()).add(model_of(key))
    assert {name: models for name, models in owners.items() if len(models) > 1} == {}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Qwen/Qwen-Image-2.1", ["qwen-image/2.1/dbcache", "qwen-image/2.1/dpcache", "qwen-image/2.1/dpcache-fp8"]),
        ("black-forest-labs/FLUX.2-dev", None),
        ("Tongyi-MAI/Z-Image-Turbo", None),
        ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", None),
        ("Qwen/Qwen-Image-Edit", ["qwen-image/edit/magcache"]),
    ],
)
def test_the_hub_repository_of_a_model_without_a_bare_record_leads_to_its_methods(
    name: str, keys: list[str] | None
) -> None:
    found = [one.calibration.model_key for one in BUNDLED.of_model(name)]
    assert len({model_of(key) for key in found}) == 1
    assert keys is None or found == keys


def test_a_resolution_is_width_times_height_and_a_named_size_its_numbers() -> None:
    assert shape_of({"resolution": "1664x928 (MeanCache script default)", "frames": 1}) == (1, 928, 1664)
    assert shape_of({"resolution": "720p 16:9", "frames": 121}) == (121, 720, 1280)
    assert shape_of({"resolution": "480p", "frames": None}) == (None, None, None)
    length = {bucket.sequence_length for bucket in RECORDS["qwen-image/2512/meancache"].buckets}
    assert length == {928 // 16 * 1664 // 16}


def test_noise_levels_that_a_source_prints_name_its_sampler() -> None:
    (bucket,) = RECORDS["qwen-image/2.1/dpcache"].buckets
    assert bucket.sampler is not None
    assert bucket.sampler.levels is not None
    printed = json.loads(import_plans.FACTS.read_text("utf-8"))["shared"]["sigmas_qwen_image_2_1_40"]
    assert list(bucket.sampler.levels) == printed
    assert bucket.sampler.signature is not None


# The matrix of L2P ---------------------------------------------------------------------------------------------------


def test_who_has_the_matrix_of_l2p_gets_its_plans(tmp_path: Path) -> None:
    fact = next(fact for fact in FACTS if fact["id"] == "l2p/flux.1-dev/interval16")
    matrix = [[(0.9 if k == j else 0.1 / (j + 1)) if k <= j else 0.0 for k in range(50)] for j in range(50)]
    entries = l2p.known_entries(fact)
    assert entries[1, 1] == 0.8737428784370422
    for (row, column), value in entries.items():
        matrix[row][column] = value
    path = tmp_path / "weight.txt"
    path.write_text(json.dumps(matrix), "utf-8")
    plan = l2p.plan_with(fact, l2p.read_matrix(path))
    assert plan.computed == tuple(fact["computed_steps"])
    assert plan.rows is not None
    assert len(plan.rows) == 50
    assert plan.rows[3] == pytest.approx([*matrix[2][:3]], rel=1e-8)
    assert l2p.main([str(path), str(tmp_path / "mine")]) == 0
    mine = Registry.from_folder(tmp_path / "mine")
    assert mine["flux.1/dev/l2p"].method == "plan"
    matrix[0][0] += 0.01
    with pytest.raises(ValueError, match=r"the published matrix has"):
        l2p.plan_with(fact, matrix)


def test_the_matrix_is_read_as_numbers_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "weight.txt"
    path.write_text("__import__('os').system('true')", "utf-8")
    with pytest.raises(ValueError):
        l2p.read_matrix(path)
