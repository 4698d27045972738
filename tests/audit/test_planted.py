"""Planted copies of every kind are found, at their line; right ones are not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from easyteacache.audit import scan as audits
from easyteacache.audit.scan import Diagnostic, Standard, audit, audit_text
from easyteacache.records.calibration import Calibration, save
from easyteacache.registry.registry import Layer, Registry

Plant = Callable[[str, str], Path]
ROOT = Path(__file__).resolve().parents[2]

FLUX = "[4.98651651e+02, -2.83781631e+02, 5.58554382e+01, -3.82021401e+00, 2.64230861e-01]"
WAN_I2V_480P = "[2.57151496e+05, -3.54229917e+04, 1.40286849e+03, -1.35890334e+01, 1.32517977e-01]"
WAN_T2V_14B_DEFAULT = "[-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404]"
QWEN = "[-4.50000000e02, 2.80000000e02, -4.50000000e01, 3.20000000e00, -2.00000000e-02]"


def findings(standard: Standard, text: str, filename: str = "engine/coefficients.py") -> list[tuple[str, int]]:
    return [(finding.rule, finding.line) for finding in found(standard, text, filename)]


def found(standard: Standard, text: str, filename: str = "engine/coefficients.py") -> list[Diagnostic]:
    return audit_text(text, standard, filename=filename)[1]


def test_flux_with_wans_coefficients_is_borrowed(standard: Standard) -> None:
    text = f"COEFFICIENTS = {{\n    'wan2.1_i2v_480p': {WAN_I2V_480P},\n    'FluxTransformer2DModel': {WAN_I2V_480P},\n}}\n"
    (finding,) = found(standard, text)
    assert (finding.rule, finding.level, finding.line) == ("borrowed", "error", 3)
    assert "wan2.1/i2v-14b-480p" in finding.message
    assert "FluxTransformer2DModel" in finding.message


def test_a_borrowed_qwen_set_under_three_names_is_found_at_each_of_them(standard: Standard) -> None:
    """As in vLLM-Omni's table: right for Qwen-Image, copied for two others and under a third name."""
    names = (
        "QwenImageTransformer2DModel",
        "ZImageTransformer2DModel",
        "LongCatImageTransformer2DModel",
        "FluxTransformer2DModel",
    )
    text = "_MODEL_COEFFICIENTS = {\n" + "".join(f"    '{name}': {QWEN},\n" for name in names) + "}\n"
    assert findings(standard, text) == [("borrowed", 3), ("borrowed", 4), ("borrowed", 5)]


def test_a_dropped_digit_names_the_coefficient_and_the_right_value(standard: Standard) -> None:
    (finding,) = found(standard, f"flux = {FLUX.replace('5.58554382e+01', '5.5855482e+01')}\n")
    assert (finding.rule, finding.line) == ("mistyped", 1)
    assert "x^2" in finding.message
    assert "55.8554382" in finding.message


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (("5.58554382e+01", "5.58554832e+01"), "mistyped"),
        (("-3.82021401e+00", "3.82021401e+00"), "mistyped"),
        (("2.64230861e-01", "2.64230861e+00"), "mistyped"),
        (("e+", "e+"), None),
    ],
)
def test_one_wrong_coefficient_is_mistyped(wrong: tuple[str, str], rule: str | None, standard: Standard) -> None:
    expected = [] if rule is None else [(rule, 1)]
    assert findings(standard, f"flux_dev = {FLUX.replace(*wrong)}\n") == expected


def test_lost_signs_rounding_and_the_other_order_are_told_apart(standard: Standard) -> None:
    assert findings(standard, f"flux = {FLUX.replace('-2', '2').replace('-3', '3')}\n") == [("signs-lost", 1)]
    assert findings(standard, "flux = [498.65, -283.78, 55.855, -3.8202, 0.26423]\n") == [("rounded", 1)]
    backwards = ", ".join(reversed(FLUX.strip("[]").split(", ")))
    assert findings(standard, f"flux = [{backwards}]\n") == [("lowest-first", 1)]


ABS = """
wan_t2v_14b = {numbers}

def decide(acc, x, threshold):
    rescaled = float(np.poly1d(wan_t2v_14b)(x))
    acc += abs(rescaled)
    return acc < threshold
"""
RAW = ABS.replace("abs(rescaled)", "rescaled")


def test_abs_beside_coefficients_whose_authors_take_p_as_it_is(standard: Standard) -> None:
    (finding,) = found(standard, ABS.format(numbers=WAN_T2V_14B_DEFAULT))
    assert (finding.rule, finding.level, finding.line) == ("sign-treatment", "warning", 2)
    assert "accumulates |p(x)|" in finding.message
    assert findings(standard, RAW.format(numbers=WAN_T2V_14B_DEFAULT)) == []


def test_p_as_it_is_beside_coefficients_whose_authors_take_abs(standard: Standard) -> None:
    kontext = "[-1.04655119e+03, 3.12563399e+02, -1.69500694e+01, 4.10995971e-01, 3.74537863e-02]"
    text = RAW.replace("wan_t2v_14b", "flux_kontext")
    assert findings(standard, text.format(numbers=kontext)) == [("sign-treatment", 2)]
    assert findings(standard, text.replace("+= rescaled", "+= abs(rescaled)").format(numbers=kontext)) == []


def test_abs_is_no_finding_where_p_stays_positive_or_code_does_both(standard: Standard) -> None:
    assert findings(standard, ABS.replace("wan_t2v_14b", "flux").format(numbers=FLUX)) == []
    both = ABS + "\ndef other(acc, x):\n    acc += rescale_func(x)\n    return acc\n"
    assert findings(standard, both.format(numbers=WAN_T2V_14B_DEFAULT)) == []


@pytest.mark.parametrize(
    "line",
    [
        "acc += abs(rescale_func(x))",
        "acc = acc + np.abs(self.rescale_func(x))",
        "acc = min(acc + abs(rescaled), 2 * threshold)",
        "acc += poly1d(coefficients, x).abs()",
        "acc += abs(float(np.polyval(coefficients, x)))",
        "self.acc += abs(np.poly1d(coefficients)(x))",
    ],
)
def test_every_usual_way_to_write_abs_is_read(line: str, standard: Standard) -> None:
    text = f"wan_t2v_14b = {WAN_T2V_14B_DEFAULT}\n\ndef step(self, acc, x):\n    {line}\n    return acc\n"
    assert findings(standard, text) == [("sign-treatment", 1)]


def test_the_function_around_the_list_decides_over_the_rest_of_the_file(standard: Standard) -> None:
    text = (
        f"def wan(acc, x):\n    coefficients = {WAN_T2V_14B_DEFAULT}\n    acc += abs(np.polyval(coefficients, x))\n    return acc\n\n"
        "def flux(acc, x):\n    acc += np.polyval(coefficients, x)\n    return acc\n"
    )
    assert findings(standard, text) == [("sign-treatment", 2)]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("flux.json", f'{{\n  "flux": {{\n    "coefficients": {WAN_I2V_480P}\n  }}\n}}\n', 3),
        ("models.yaml", f"flux:\n  thresh: 0.2\n  coefficients: {WAN_I2V_480P}\n", 3),
        ("models.toml", f"[flux]\nthresh = 0.2\ncoefficients = {WAN_I2V_480P}\n", 3),
    ],
)
def test_configurations_are_read_like_code(name: str, text: str, line: int, standard: Standard) -> None:
    assert findings(standard, text, f"conf/{name}") == [("borrowed", line)]


def test_another_variant_of_the_same_model_is_a_warning(standard: Standard) -> None:
    (finding,) = found(standard, f"coefficients = {{'wan2.1_t2v_1.3B': {WAN_T2V_14B_DEFAULT}}}\n")
    assert (finding.rule, finding.level) == ("other-variant", "warning")


def test_numbers_that_only_look_like_coefficients_are_nothing(standard: Standard) -> None:
    assert findings(standard, "flux = [1.0, 2.0, 3.0, 4.0, 5.0]\nmean = [0.485, 0.456, 0.406]\n") == []


def own(revision: int, coefficients: list[float], **changes: object) -> Calibration:
    content = {
        "schema_version": 2,
        "model_key": "flux.1/own",
        "revision": revision,
        "status": "draft",
        "title": "Own",
        "modality": "image",
        "method": "teacache",
        "signal": "modulated_input",
        "buckets": [{"coefficients": coefficients}],
        "provenance": {},
    }
    return Calibration.from_mapping(content | changes)


def test_numbers_of_a_superseded_revision_are_stale_where_a_layer_still_holds_it(tmp_path: Path) -> None:
    old, new = [101.23456, -7.654321, 0.1234567], [55.66778, -3.321321, 0.2222345]
    for layer, record in (("pulled", own(2, new)), ("bundled", own(1, old))):
        save(record, tmp_path / layer / "flux.1" / "own.json")
    registry = Registry([Layer(name, tmp_path / name) for name in ("pulled", "bundled")])
    standard = Standard.of(registry)
    (finding,) = found(standard, f"flux = {old}\n")
    assert finding.rule == "stale"
    assert "superseded by revision 2" in finding.message
    assert findings(standard, f"flux = {new}\n") == []


def test_numbers_of_a_retired_record_are_stale_and_name_what_to_use(tmp_path: Path) -> None:
    retirement = {"date": "2026-01-02", "reason": "Fitted to the wrong signal.", "replacement": "flux.1/dev"}
    save(
        own(1, [101.23456, -7.654321, 0.1234567], status="deprecated", retirement=retirement),
        tmp_path / "flux.1" / "own.json",
    )
    (finding,) = found(Standard.of(Registry.from_folder(tmp_path)), "flux = [101.23456, -7.654321, 0.1234567]\n")
    assert finding.rule == "stale"
    assert "Use flux.1/dev instead" in finding.message


def test_a_finding_keeps_its_fingerprint_when_it_moves(standard: Standard) -> None:
    text = f"flux = {WAN_I2V_480P}\n"
    (before,), (after,) = found(standard, text), found(standard, "\n\n" + text)
    assert (before.line, after.line) == (1, 3)
    assert before.fingerprint == after.fingerprint


def test_a_tree_is_audited_without_hidden_folders_and_links(plant: Plant, bundled: Registry) -> None:
    tree = plant("src/flux.py", f"COEFFICIENTS = {WAN_I2V_480P}\n")
    plant(".cache/flux.py", f"COEFFICIENTS = {WAN_I2V_480P}\n")
    if os.name != "nt":
        (tree / "link.py").symlink_to(tree / "src" / "flux.py")
    report = audit(tree, bundled)
    assert [(finding.rule, Path(finding.file).name) for finding in report.findings] == [("borrowed", "flux.py")]
    assert (report.files, report.ignored, report.worst()) == (1, 0, "error")


def test_this_repository_has_no_finding(bundled: Registry) -> None:
    report = audit(ROOT, bundled, skipped=lambda file, reason: None)
    assert report.findings == ()
    assert report.ignored >= 5
    assert len(report.recognised) >= 66


def test_the_deliberate_copies_in_this_repository_would_be_found(
    bundled: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits.IgnoreFile, "covers", lambda self, file: False)
    places = {Path(f.file).relative_to(ROOT).parts[0] for f in audit(ROOT / "easyteacache", bundled).findings}
    assert places == {"easyteacache"}
    assert any(Path(f.file).name == "known_variants.json" for f in audit(ROOT / "easyteacache", bundled).findings)


@pytest.mark.parametrize("package", ["diffusers", "cache_dit"])
def test_an_installed_package_without_coefficients_has_no_finding(package: str, bundled: Registry) -> None:
    """Found without importing it, which would cost seconds."""
    folders = [Path(entry) / package for entry in sys.path if (Path(entry) / package / "__init__.py").is_file()]
    if not folders:
        pytest.skip(f"{package} is not installed")
    report = audit(folders[0], bundled, skipped=lambda file, reason: None)
    assert report.findings == ()
    assert report.files > 50


def test_the_same_list_under_two_names_of_one_file_is_two_findings(standard: Standard) -> None:
    text = f"TABLE = {{\n    'ZImageTransformer2DModel': {QWEN},\n    'FluxTransformer2DModel': {QWEN},\n}}\n"
    first, second = found(standard, text)
    assert first.fingerprint != second.fingerprint
