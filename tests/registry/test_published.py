"""The bundled published calibrations against the facts they were imported from."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from easyteacache.policy import policy
from easyteacache.policy.request import RunContext
from easyteacache.records import calibration, model_key
from easyteacache.registry import index

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "published" / "import_published.py"
FACTS: list[dict[str, Any]] = json.loads((ROOT / "tools/published/teacache_coefficients.json").read_text("utf-8"))
# Lumina-Next's list, which the source measured on this model and runs for it, has a record of its own.
MEASURED = "lumina-image-2.0-v1"
OWN = [
    fact
    for fact in FACTS
    if (fact["borrowed_from"] is None or fact["id"] == MEASURED) and "encoded404" not in fact["id"]
]


@pytest.fixture(scope="module")
def sets() -> Any:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import published.sets

        yield published.sets
    finally:
        sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def records(sets: Any) -> dict[str, calibration.Calibration]:
    """Fact id → its bundled record."""
    return {
        fact["id"]: calibration.load(ROOT / "registry" / model_key.path_of(sets.registry_key(fact))) for fact in OWN
    }


def published_files() -> list[Path]:
    records = [(path, calibration.load(path)) for _, path in index.record_paths(ROOT / "registry")]
    return [path for path, record in records if (record.status, record.method) == ("published", "teacache")]


def test_there_are_sixty_seven_and_every_published_file_comes_from_a_fact(records: dict[str, Any]) -> None:
    assert len(OWN) == 67
    found = {str(path.relative_to(ROOT / "registry")) for path in published_files()}
    assert found == {str(model_key.path_of(record.model_key)) for record in records.values()}


@pytest.mark.parametrize("fact", OWN, ids=lambda fact: fact["id"])
def test_every_coefficient_is_reproduced_bit_for_bit(fact: dict[str, Any], records: dict[str, Any]) -> None:
    (bucket,) = records[fact["id"]].buckets
    wanted = [float(value) for value in fact["coefficients"]]
    assert [value.hex() for value in bucket.coefficients] == [value.hex() for value in wanted]
    printed = sorted(float(text) for text in fact["coefficients_text"])
    assert printed == sorted(wanted)
    assert bucket.num_steps == fact["num_inference_steps"]


@pytest.mark.parametrize("fact", OWN, ids=lambda fact: fact["id"])
def test_every_published_threshold_is_an_operating_point_in_ascending_order(
    fact: dict[str, Any], records: dict[str, Any]
) -> None:
    points = records[fact["id"]].buckets[0].operating_points
    printed = [(p["threshold"], p["speedup"], p["latency_s"]) for p in fact["thresholds"]]
    figures = [(p.threshold, one.speedup, one.latency_seconds) for p in points for one in p.evidence]
    assert Counter(figures) == Counter(printed)
    assert [p.threshold for p in points] == sorted(p.threshold for p in points)
    assert {(one.kind, one.how) for p in points for one in p.evidence} <= {("published", "reported")}


@pytest.mark.parametrize("fact", OWN, ids=lambda fact: fact["id"])
def test_the_original_source_comes_first_and_none_is_lost(fact: dict[str, Any], records: dict[str, Any]) -> None:
    sources = records[fact["id"]].provenance.sources
    printed = [(s["repo"], s["path"], s["commit"], s["line"]) for s in fact["sources"]]
    assert [(s.repository, s.path, s.commit, s.line) for s in sources] == printed


@pytest.mark.parametrize(
    ("identity", "window"),
    [
        ("wan2.1-t2v-14b-default", (1, -2)),
        ("wan2.1-t2v-14b-ret", (5, -1)),
        ("flux.1-dev", (1, -2)),
        ("hidream-i1-full", (5, -1)),
        ("ruyi-mini-7b", (3, -2)),
        ("bagel-vllm-omni", (1, -1)),
        ("latte-1", (1, -2)),
    ],
)
def test_windows_are_inclusive_indices(identity: str, window: tuple[int, int], records: dict[str, Any]) -> None:
    bucket = records[identity].buckets[0]
    assert (bucket.min_skip_step, bucket.max_skip_step) == window


def test_windows_given_in_percent_stay_fractions(records: dict[str, Any]) -> None:
    fractions = {name: record.buckets[0].skip_window_fraction for name, record in records.items()}
    for fact in OWN:
        window = fact["skip_window"] or {}
        percent = window.get("comfyui")
        if set(window) == {"comfyui"} and (percent["start_percent"], percent["end_percent"]) != (0, 1):
            assert fractions[fact["id"]] == (percent["start_percent"], percent["end_percent"])


@pytest.mark.parametrize(("num_steps", "window"), [(20, (4, 18)), (28, (6, 25)), (30, (6, 27)), (None, (1, -1))])
def test_a_window_in_fractions_resolves_for_any_step_count(
    num_steps: int | None, window: tuple[int, int], records: dict[str, Any]
) -> None:
    resolved = policy.resolve(records["flux.1-kontext-dev"], run=RunContext(num_steps=num_steps))
    assert (resolved.first_skip_step, resolved.last_skip_step) == window
    assert (num_steps is None) == any("Pass num_steps=" in note for note in resolved.notes)


def test_signals_that_differ_between_two_sets_of_a_checkpoint_are_told_apart(records: dict[str, Any]) -> None:
    for variant in ("t2v-1.3b", "t2v-14b", "i2v-14b-480p", "i2v-14b-720p"):
        assert records[f"wan2.1-{variant}-default"].signal == "timestep_embedding"
        assert records[f"wan2.1-{variant}-ret"].signal == "timestep_projection"
    assert records["lumina-image-2.0-v2"].signal == "modulated_input"
    assert records["lumina-image-2.0-comfy"].signal == "timestep_embedding"


def test_both_lists_of_lumina_image_say_what_their_source_says_of_them(records: dict[str, Any]) -> None:
    first, second = records[MEASURED], records["lumina-image-2.0-v2"]
    assert (first.model_key, second.model_key) == ("lumina-image-2.0/v1", "lumina-image-2.0")
    assert first.buckets[0].coefficients == records["lumina-next-sft"].buckets[0].coefficients
    assert {record.buckets[0].num_steps for record in (first, second)} == {50}
    assert [(p.threshold, p.speedup) for p in first.buckets[0].operating_points] == [
        (0.2, 1.25), (0.3, 1.5625), (0.4, 2.0833), (0.5, 2.5)]  # fmt: skip
    assert any("poor quality at low thresholds" in note for note in first.notes)
    assert any("significant loss of features at high" in note for note in second.notes)
    # The list stands in the page that is cited; in the script it is a comment.
    assert (second.provenance.sources[0].path, second.provenance.sources[0].line) == ("TeaCache4Lumina2/README.md", 9)
    assert "comment" in second.provenance.sources[1].note
    assert (second.revision, records["lumina-image-2.0-comfy"].revision, first.revision) == (2, 2, 1)


def test_what_each_engine_does_to_p_of_x_follows_the_original_author(records: dict[str, Any]) -> None:
    for fact in OWN:
        original = fact["sources"][0]["repo"]
        wanted = {"vllm-project/vllm-omni": "abs", "IonDen/mlx-teacache": "clip", "chinokikiss/AnimaTeaCache": "clip"}
        if original in (*wanted, "ali-vilab/TeaCache", "ModelTC/LightX2V"):
            assert records[fact["id"]].rescale_post == wanted.get(original, "none"), fact["id"]
    assert records["flux.1-kontext-dev"].rescale_post == "abs"
    assert records["lumina-image-2.0-comfy"].rescale_post == "none"


def test_an_mlx_set_keeps_its_range_and_its_limit_of_eight(records: dict[str, Any]) -> None:
    for fact in OWN:
        bucket = records[fact["id"]].buckets[0]
        mlx = fact["sources"][0]["repo"] == "IonDen/mlx-teacache"
        assert bucket.max_consecutive_skips == (8 if mlx else None)
        published = fact.get("extra", {}).get("calibrated_range")
        if published:
            assert list(bucket.domain) == published


def test_no_alias_and_no_key_is_used_twice(records: dict[str, Any]) -> None:
    keys = [record.model_key for record in records.values()]
    names = [alias.value for record in records.values() for alias in record.aliases]
    assert len({*keys, *names}) == len(keys) + len(names)
    for alias in (alias for record in records.values() for alias in record.aliases):
        assert alias.kind != "hub_repository" or alias.value.count("/") == 1


def test_a_bare_key_is_the_recommended_set_and_names_the_others(records: dict[str, Any], sets: Any) -> None:
    for bare, several in sets.SEVERAL.items():
        recommended = records[several.recommended]
        assert recommended.model_key == bare
        explicit = [alias.value for alias in recommended.aliases if alias.kind == "explicit_key"]
        assert explicit == [f"{bare}/{several.suffixes[several.recommended]}"]
        for identity, suffix in several.suffixes.items():
            if identity != several.recommended:
                assert records[identity].model_key == f"{bare}/{suffix}"
                assert any(f"{bare}/{suffix}" in note for note in recommended.notes)
                assert any(bare in note for note in records[identity].notes)
                assert not records[identity].aliases
    by_key = Counter(fact["model_key"] for fact in OWN)
    assert {key for key, count in by_key.items() if count > 1} == set(sets.SEVERAL)


# Tokens counted by hand from frames, pixels, VAE and patch factors, independently of the tool's table.
LENGTHS = {
    "wan2.1-t2v-1.3b-ret": 21 * 30 * 52,
    "wan2.1-t2v-14b-ret": 21 * 45 * 80,
    "wan2.1-i2v-14b-480p-default": 21 * 30 * 52,
    "wan2.2-ti2v-5b-lightx2v": 31 * 22 * 40,
    "hunyuanvideo-t2v": 33 * 45 * 80,
    "cogvideox1.5-5b": 11 * 48 * 85,
    "ltx-video-0.9.1": 21 * 16 * 24,
    "mochi-1-preview": 28 * 30 * 53,
    "open-sora-plan-1.1": 17 * 32 * 32,
    "cosmos-predict2.5": 24 * 44 * 80,
    "qwen-image-mlx": 48 * 48,
    "flux.1-krea-dev": 32 * 32,
}


def test_sequence_lengths_are_those_counted_by_hand(records: dict[str, Any]) -> None:
    for identity, length in LENGTHS.items():
        bucket = records[identity].buckets[0]
        assert bucket.sequence_length == length
        assert f"{length:,} tokens" in bucket.sequence_length_source


def test_a_known_length_comes_from_the_published_shape_and_an_unknown_one_says_why(records: dict[str, Any]) -> None:
    for fact in OWN:
        bucket = records[fact["id"]].buckets[0]
        assert bucket.sequence_length_source
        if bucket.sequence_length is None:
            continue
        digits = "".join(character if character.isdigit() else " " for character in fact["resolution"]).split()
        assert {int(digits[0]), int(digits[1])} == {bucket.height, bucket.width}
        assert bucket.frames == (fact["frames"] or 1)


def test_notes_warn_where_the_polynomial_refunds_or_never_reuses(records: dict[str, Any]) -> None:
    refunds = " ".join(records["wan2.1-t2v-14b-default"].notes)
    assert "negative for x below 0.1296" in refunds
    assert math.isclose(records["wan2.1-t2v-14b-default"].buckets[0].coefficients[-1], -13.02252404)
    assert any(
        "threshold 0.2 reuses no step at all" in note for note in records["stable-audio-open-1.0-vllm-omni"].notes
    )
    assert any("R² = 0.0949" in note for note in records["minimax-h3-fl2va"].notes)
    assert not any("negative" in note for note in records["hunyuanvideo-t2v"].notes)


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False)


def test_the_registry_is_what_the_import_makes() -> None:
    checked = run_tool("--check")
    assert checked.returncode == 0, checked.stdout


def test_check_reports_an_edited_file_and_leaves_it(tmp_path: Path) -> None:
    assert run_tool("--registry", str(tmp_path), "--variants", str(tmp_path / "variants.json")).returncode == 0
    edited = tmp_path / "wan2.1" / "t2v-14b.json"
    text = edited.read_text("utf-8").replace("-303318.725", "-303318.735")
    edited.write_text(text, "utf-8")
    checked = run_tool("--check", "--registry", str(tmp_path), "--variants", str(tmp_path / "variants.json"))
    assert checked.returncode == 1
    assert "differs: wan2.1/t2v-14b.json" in checked.stdout
    assert edited.read_text("utf-8") == text


@pytest.mark.parametrize(
    ("old", "new"), [('"revision": 1', '"revision": 2'), ('"status": "published"', '"status": "draft"')]
)
def test_a_record_somebody_has_worked_on_is_never_overwritten(tmp_path: Path, old: str, new: str) -> None:
    assert run_tool("--registry", str(tmp_path), "--variants", str(tmp_path / "variants.json")).returncode == 0
    path = tmp_path / "latte" / "1.json"
    text = path.read_text("utf-8").replace(old, new)
    path.write_text(text, "utf-8")
    refused = run_tool("--registry", str(tmp_path), "--variants", str(tmp_path / "variants.json"))
    assert refused.returncode == 2
    assert "latte/1.json" in refused.stderr
    assert path.read_text("utf-8") == text
