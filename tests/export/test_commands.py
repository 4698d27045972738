"""The commands `export` and `import`: streams, exit codes, files, refitting."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from easyteacache.policy.curves import Polynomial
from easyteacache.records import calibration
from easyteacache.records.calibration import Calibration

from ..smooth_runs import build_set

Run = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of eight runs of ``test/smooth`` at 20 steps, made as the solver's tests make theirs."""
    path = tmp_path_factory.mktemp("traces") / "runs.safetensors"
    build_set(8).save(path)
    return path


def test_the_file_goes_to_standard_output_and_what_to_know_to_standard_error(run: Run) -> None:
    result = run("export", "flux.1/dev", "--to", "vllm-omni", "--steps", 28)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["rel_l1_thresh"] == 0.25
    assert "1 step outside" in " ".join(result.stderr.split())


def test_a_refusal_is_one_line_with_its_rule_and_exit_code_1(run: Run) -> None:
    result = run("export", "flux.1/dev", "--to", "tensorrt-llm", "--steps", 28)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: not exported to TensorRT-LLM VisualGen: [signal] ")
    assert result.stderr.rstrip().endswith("--allow signal.")
    assert run("export", "flux.1/dev", "--to", "tensorrt-llm", "--steps", 28, "--allow", "signal").exit_code == 0


def test_out_writes_the_file_and_nothing_to_standard_output(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "wan.json"
    result = run("export", "wan2.1/t2v-14b", "--to", "lightx2v", "--out", out)
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(out.read_text("utf-8"))["use_ret_steps"] is True


def test_a_calibration_file_is_exported_as_it_is(run: Run, tmp_path: Path, record: Callable[..., Calibration]) -> None:
    file = tmp_path / "own.json"
    calibration.save(record("my/model"), file)
    content = json.loads(run("export", file, "--to", "json").stdout)
    assert (content["coefficients"], content["_easyteacache"]["model_key"]) == ([0.4, 0.01], "my/model")


def test_an_unknown_engine_and_two_targets_are_wrong_usage(run: Run) -> None:
    assert run("export", "flux.1/dev", "--to", "no-engine").exit_code == 2
    assert run("export", "flux.1/dev", "--to", "json", "--speedup", 2, "--threshold", 0.1).exit_code == 2
    assert run("export", "flux.1/dev", "--to", "json", "--refit").exit_code == 2


def test_import_prints_a_draft_and_lists_what_is_missing(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "wan.json"
    file.write_text(run("export", "wan2.1/t2v-14b", "--to", "lightx2v").stdout, encoding="utf-8")
    result = run("import", file, "--from", "lightx2v")
    draft = Calibration.from_json(result.stdout)
    assert (draft.model_key, draft.status, draft.modality) == ("wan2.1/t2v-14b", "draft", "video")
    assert draft.title == "Wan2.1 T2V 14B, retention steps"
    assert "further sets" in result.stderr
    assert "Missing: the domain" in result.stderr
    other = Calibration.from_json(run("import", file, "--from", "lightx2v", "--set", "no-retention").stdout)
    assert other.signal == "timestep_embedding"
    assert run("import", file, "--from", "lightx2v", "--set", "nothing").exit_code == 2


def test_import_of_an_unknown_model_asks_for_what_it_cannot_know(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"rel_l1_thresh": 0.2, "coefficients": [1.0, 0.5]}', encoding="utf-8")
    assert "--key" in run("import", file, "--from", "vllm-omni").stderr
    unknown = run("import", file, "--from", "vllm-omni", "--key", "my/model")
    assert (unknown.exit_code, "--modality" in unknown.stderr) == (2, True)
    out = tmp_path / "draft.json"
    done = run("import", file, "--from", "vllm-omni", "--key", "my/model", "--modality", "image", "--out", out)
    assert (done.exit_code, done.stdout) == (0, "")
    assert calibration.load(out).buckets[0].coefficients == (1.0, 0.5)


def test_a_file_without_a_key_is_named_in_the_error(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"coefficients": [1, 2, 3, 4, 5]}')
    result = run("import", file, "--from", "json")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {file}: names no model")


def test_a_file_that_is_no_text_is_one_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "binary.json"
    file.write_bytes(b"\xff\xfe\x00")
    result = run("import", file, "--from", "json", "--key", "a/b")
    assert (result.exit_code, "not UTF-8" in result.stderr) == (1, True)


def test_refit_makes_a_polynomial_that_a_refusing_engine_can_evaluate(
    run: Run, tmp_path: Path, traces: Path, record: Callable[..., Calibration]
) -> None:
    """The record's own curve has order 5 and goes negative; the refit has order 4 and does not."""
    file = tmp_path / "own.json"
    bucket = {"coefficients": [9.0, 0.0, 0.0, 0.0, 1.0, -0.2], "sequence_length": 64, "max_skip_step": -1}
    calibration.save(record("test/smooth", signal="timestep_projection", bucket=bucket), file)
    refused = run("export", file, "--to", "vllm-omni", "--allow", "model", "--allow", "signal")
    assert (refused.exit_code, "[order]" in refused.stderr) == (1, True)
    allowed = ("--allow", "model", "--allow", "signal")
    result = run("export", file, "--to", "vllm-omni", *allowed, "--refit", "--traces", traces)
    assert result.exit_code == 0, result.stderr
    coefficients = json.loads(result.stdout)["coefficients"]
    assert len(coefficients) == 5
    p = Polynomial(tuple(coefficients))
    again = run("export", file, "--to", "json", "--refit", "--traces", traces)
    low, high = json.loads(again.stdout)["domain"]
    values = [p(low + (high - low) * i / 200) for i in range(201)]
    assert min(values) >= -1e-9
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(values))
    assert "Refitted with order 4 to 8 runs" in " ".join(result.stderr.split())


def test_refit_takes_only_runs_of_the_same_model(
    run: Run, tmp_path: Path, traces: Path, record: Callable[..., Calibration]
) -> None:
    file = tmp_path / "own.json"
    calibration.save(record("other/model", signal="timestep_projection"), file)
    result = run("export", file, "--to", "json", "--refit", "--traces", traces)
    assert (result.exit_code, "runs of test/smooth" in result.stderr) == (2, True)
