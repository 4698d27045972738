"""The bundled MagCache ratios against the facts they were imported from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "published" / "import_magcache.py"
FACTS: list[dict[str, Any]] = json.loads((ROOT / "tools/published/mag_ratios.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def records() -> dict[str, Calibration]:
    """Key → bundled record of method magcache."""
    registry = Registry.from_folder(ROOT / "registry")
    keys = [key for key, _, entry in registry.entries() if entry.method == "magcache"]
    return {key: registry[key] for key in keys}


def lists(record: Calibration, num_steps: int) -> dict[str, tuple[float, ...]]:
    (bucket,) = (bucket for bucket in record.buckets if bucket.num_steps == num_steps)
    return {entry.branch: entry.ratios for entry in bucket.magnitude_ratios}


def fact(model_key: str, num_steps: int, layout: str = "cond/uncond interleaved") -> list[float]:
    (found,) = (
        f["ratios"]
        for f in FACTS
        if (f["model_key"], f["num_steps"], f["layout"]) == (model_key, num_steps, layout)
        and not f["sources"][0]["path"].startswith("eval/")
    )
    return list(found)


def test_there_are_thirty_four_records_and_each_key_ends_in_an_explicit_suffix(records: dict[str, Calibration]) -> None:
    assert len(records) == 34
    assert all(key.rpartition("/")[2].startswith("magcache") for key in records)


@pytest.mark.parametrize(
    ("key", "model_key", "steps"),
    [
        ("wan2.1/t2v-1.3b/magcache", "wan2.1/t2v-1.3b", 50),
        ("wan2.1/i2v-14b-720p/magcache", "wan2.1/i2v-14b-720p", 40),
        ("qwen-image/magcache", "qwen-image", 40),
        ("qwen-image/magcache", "qwen-image", 50),
        ("chroma/magcache", "chroma", 26),
        ("wan2.2/ti2v-5b/magcache-i2v", "wan2.2/ti2v-5b-i2v", 50),
    ],
)
def test_an_interleaved_list_is_taken_apart_into_its_branches_without_a_change(
    key: str, model_key: str, steps: int, records: dict[str, Calibration]
) -> None:
    printed = fact(model_key, steps)
    branches = lists(records[key], steps)
    assert list(branches) == ["cond", "uncond"]
    together = [value for pair in zip(branches["cond"], branches["uncond"], strict=True) for value in pair]
    assert together == [1.0, 1.0, *printed]


def test_two_projects_that_print_one_list_differently_give_one_record(records: dict[str, Calibration]) -> None:
    record = records["wan2.1/t2v-1.3b/magcache"]
    assert lists(record, 50)["cond"] == tuple(fact("wan2.1/t2v-1.3b", 50, "cond only"))
    repositories = [source.repository for source in record.provenance.sources]
    assert repositories[0] == "Zehong-Ma/MagCache"
    assert {"ModelTC/LightX2V", "Zehong-Ma/ComfyUI-MagCache"} < set(repositories)


def test_conflicting_lists_of_one_model_are_separate_records(records: dict[str, Calibration]) -> None:
    one, other = (lists(records[f"flux.1/dev/{name}"], 28)["cond"] for name in ("magcache", "magcache-vllm-omni"))
    assert one != other
    assert one[1] == 1.21094
    assert other[1] == 1.07313
    assert not records["flux.1/dev/magcache-vllm-omni"].buckets[0].operating_points


def test_several_step_counts_are_buckets_of_one_record(records: dict[str, Calibration]) -> None:
    assert [bucket.num_steps for bucket in records["flux.1/kontext-dev/magcache"].buckets] == [20, 28]
    assert [bucket.num_steps for bucket in records["hunyuanvideo-1.5/magcache"].buckets] == [20, 40]


def test_what_the_authors_recommend_is_an_operating_point(records: dict[str, Calibration]) -> None:
    (bucket,) = records["flux.1/dev/magcache"].buckets
    assert bucket.operating_points[0].threshold == 0.24
    assert bucket.max_consecutive_skips == 5
    assert bucket.skip_window_fraction == (0.1, 1.0)
    assert bucket.operating_points[0].computed_steps == 9
    assert bucket.operating_points[0].strongest == "published"
    assert bucket.operating_points[0].speedup == 2.82


def test_three_branches_have_three_lists(records: dict[str, Calibration]) -> None:
    record = records["omnigen2/magcache-edit"]
    assert record.branches == ("cond", "uncond", "ref")
    assert lists(record, 50)["ref"][:2] == (1.0, 1.02344)


def test_every_list_is_used_or_has_a_reason(records: dict[str, Calibration]) -> None:
    printed = {
        tuple(entry.ratios)
        for record in records.values()
        for bucket in record.buckets
        for entry in bucket.magnitude_ratios
    }
    left_out = 0
    for found in FACTS:
        names = 2 if "interleaved" in found["layout"] else 1
        whole = [1.0] * found["prepended_ones"] + found["ratios"]
        used = [tuple(whole[offset::names]) in printed for offset in range(names)]
        assert all(used) or not any(used), found["model_key"]
        left_out += not any(used)
    assert left_out == 4


def test_no_bare_key_of_a_teacache_record_was_taken(records: dict[str, Calibration]) -> None:
    registry = Registry.from_folder(ROOT / "registry")
    assert registry["wan2.1/t2v-1.3b"].method == "teacache"
    assert registry["flux.1/dev"].method == "teacache"
    # Only what is its model's one record carries the model's names.
    named = {key for key, record in records.items() if record.aliases}
    assert all(len(registry.of_model(key)) == 1 for key in named)
    assert len(named) == 3


def test_the_bundled_files_are_what_the_tool_writes(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    missing = subprocess.run(
        [sys.executable, TOOL, "--check", "--registry", tmp_path], capture_output=True, text=True, check=False
    )
    assert (missing.returncode, list(tmp_path.iterdir())) == (1, [])
