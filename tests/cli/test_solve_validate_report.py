from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from easyteacache.cli.report import report
from easyteacache.cli.solve import solve
from easyteacache.cli.validate import validate
from easyteacache.records import calibration
from easyteacache.records.trace_set import TraceSet

MakeSet = Callable[..., TraceSet]


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(make_set: MakeSet, shared: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder with traces of two buckets in two files and the record solved from them."""

    def make(base: Path) -> None:
        make_set(8, steps=16).save(base / "traces" / "a.safetensors")
        make_set(8, steps=12).save(base / "traces" / "b.safetensors")
        assert run(solve, base / "traces", "--out", base / "c.json", "--license", "CC0-1.0").exit_code == 0

    return shared("two-buckets", make)


def test_solve_writes_a_record_and_says_what_comes_next(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "c.json"
    result = run(solve, folder / "traces", "--out", out, "--title", "Smooth", "--note", "Made up.")
    assert result.exit_code == 0
    assert f"easyteacache validate {out}" in result.output.replace("\n", " ")
    record = calibration.load(out)
    assert (record.status, record.title, record.notes) == ("draft", "Smooth", ("Made up.",))
    assert {reference.file for reference in record.provenance.traces} == {"a.safetensors", "b.safetensors"}


def test_solving_again_gives_the_same_bytes_and_revision(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    first = (folder / "c.json").read_bytes()
    out.write_bytes(first)
    run(solve, folder / "traces", "--out", out, "--license", "CC0-1.0")
    assert out.read_bytes() == first


def test_other_numbers_are_the_next_revision(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    out.write_bytes((folder / "c.json").read_bytes())
    run(solve, folder / "traces", "--out", out, "--license", "CC0-1.0", "--method", "teacache")
    assert calibration.load(out).revision == 2


def test_an_unreadable_file_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    out.write_text("{", encoding="utf-8")
    with pytest.raises(calibration.InvalidCalibration):
        run(solve, folder / "traces", "--out", out)
    assert out.read_text(encoding="utf-8") == "{"


def test_solve_prints_json_for_programs(folder: Path, tmp_path: Path) -> None:
    result = run(solve, folder / "traces", "--out", tmp_path / "c.json", "--json")
    content = json.loads(result.stdout)
    assert content["explains"] is True
    assert {"bucket", "signal", "order", "r2", "heldout_r2", "ceiling"} == set(content["signals"][0])


def test_solve_says_when_the_signal_is_no_use(folder: Path, tmp_path: Path) -> None:
    result = run(solve, folder / "traces", "--out", tmp_path / "c.json", "--signal", "hidden_states")
    assert "no use" in result.stderr


def test_an_expert_nobody_recorded_is_a_usage_error(folder: Path, tmp_path: Path) -> None:
    result = run(solve, folder / "traces", "--out", tmp_path / "c.json", "--part", "low-noise")
    assert result.exit_code == 2
    assert "low-noise" in result.output


def test_validate_passes_an_honest_record_and_leaves_the_file_alone(folder: Path) -> None:
    before = (folder / "c.json").read_bytes()
    result = run(validate, folder / "c.json", "--traces", folder / "traces")
    assert result.exit_code == 0
    assert result.output.startswith("test/smooth: passed")
    assert (folder / "c.json").read_bytes() == before


def test_validate_write_stores_the_verdict(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.json"
    target.write_bytes((folder / "c.json").read_bytes())
    assert run(validate, target, "--traces", folder / "traces", "--write").exit_code == 0
    record = calibration.load(target)
    assert record.status == "validated"
    assert record.model_copy(update={"status": "draft"}) == calibration.load(folder / "c.json")


def test_validate_refuses_with_exit_code_one_and_the_rule(folder: Path, tmp_path: Path) -> None:
    record = calibration.load(folder / "c.json")
    broken = record.buckets[0].model_copy(update={"coefficients": (1.0, 0.0)})
    calibration.save(record.model_copy(update={"buckets": (broken, *record.buckets[1:])}), tmp_path / "c.json")
    result = run(validate, tmp_path / "c.json", "--traces", folder / "traces", "--json", "--write")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert {f["rule"] for f in content["findings"] if not f["passed"]} == {"fit.not-reproduced"}
    assert calibration.load(tmp_path / "c.json").status == "draft"


def test_validate_names_a_missing_trace_file(folder: Path) -> None:
    result = run(validate, folder / "c.json", "--traces", folder / "traces" / "a.safetensors")
    assert result.exit_code == 1
    assert "traces.files" in result.output


def test_report_is_one_page_with_every_picture_inside(folder: Path, tmp_path: Path) -> None:
    result = run(report, folder / "c.json", "--traces", folder / "traces", "--out", tmp_path / "report")
    assert result.exit_code == 0
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    pictures = sorted((tmp_path / "report").glob("*.png"))
    assert len(pictures) == 2 * 4 + 1
    assert page.count("data:image/png;base64,") == len(pictures)
    assert 'src="http' not in page
    assert '<strong class="passed">passed</strong>' in page
    assert re.search(r"Use <code>speedup=[0-9.]+</code>", page)
    assert re.search(r"[0-9.]+ times nearer</strong> than", page)
    assert re.search(r"TeaCache\.from_file\(&#34;c\.json&#34;, speedup=[0-9.]+\)\.attach\(pipe\)", page)
    # What is advised comes before every chart and table.
    assert page.index('id="advice"') < page.index('class="chart') < page.index("<table")
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_report_of_foreign_traces_draws_nothing_and_says_why(folder: Path, tmp_path: Path, make_set: MakeSet) -> None:
    make_set(8, key="test/other").save(tmp_path / "other.safetensors")
    result = run(report, folder / "c.json", "--traces", tmp_path / "other.safetensors", "--out", tmp_path / "report")
    assert "traces.model-key" in result.stderr
    assert not list((tmp_path / "report").glob("*.png"))


def test_the_report_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(report, folder / "c.json", "--traces", folder / "traces", "--out", tmp_path / name)
    assert (tmp_path / "one" / "report.html").read_bytes() == (tmp_path / "two" / "report.html").read_bytes()
