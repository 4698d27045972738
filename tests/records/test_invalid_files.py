"""Every file of `fixtures/records/invalid` has one defect, its name; both ways in refuse it by the same rule."""

from pathlib import Path

import pytest

from easyteacache.errors import InvalidCalibration
from easyteacache.hub.review.check_record import MEANINGS, check_record
from easyteacache.records.calibration import Calibration, load

FOLDER = Path(__file__).parent.parent / "fixtures" / "records" / "invalid"
# Versions 1 and 2, judged by their own rules.
OLD_FOLDER = FOLDER.with_name("invalid-v2")

# The defect, the rule that refuses it, and a phrase of the message or of the place it names.
EXPECTED = {
    "alias-class-without-hash": ("record.invariant", "'Class@' and 64 hexadecimal digits"),
    "alias-climbs": ("record.schema", "aliases"),
    "alias-cyrillic": ("record.schema", "aliases"),
    "alias-former-key-climbs": ("record.invariant", "is not a model key"),
    "alias-hub-repository-climbs": ("record.invariant", "expected 'owner/name'"),
    "alias-hub-repository-without-owner": ("record.invariant", "expected 'owner/name'"),
    "alias-is-the-key": ("record.invariant", "repeats the record's own model_key"),
    "alias-twice": ("record.invariant", "the same alias is listed twice"),
    "alias-without-kind": ("record.schema", "kind"),
    "array-at-top": ("record.json", "expected a JSON object, found list"),
    "bool-as-integer": ("record.schema", "True"),
    "bool-as-number": ("record.schema", "True"),
    "branch-twice": ("record.invariant", "branches lists a name twice"),
    "branch-upper-case": ("record.schema", "'Cond'"),
    "branches-empty": ("record.schema", "branches"),
    "bucket-twice": ("record.invariant", "two buckets hold for the same"),
    "buckets-unsorted": ("record.invariant", "buckets must ascend"),
    "buckets-unsorted-steps": ("record.invariant", "buckets must ascend"),
    "coefficients-all-zero": ("record.invariant", "every coefficient is 0"),
    "coefficients-as-object": ("record.schema", "coefficients"),
    "coefficients-empty": ("record.schema", "coefficients"),
    "coefficients-of-order-33": ("record.schema", "coefficients"),
    "coefficients-overflow": ("record.invariant", "the polynomial overflows"),
    "comment": ("record.json", "line 1, column 1"),
    "computed-steps-above-step-count": ("record.invariant", "more than num_steps = 20"),
    "computed-steps-contradict-plan": ("record.invariant", "the plan computes 20"),
    "curve-negative": ("record.curve-never-computes", "predicts at most -1 for signal distances of 0 to 1"),
    "curve-negative-over-its-domain": (
        "record.curve-never-computes",
        "predicts at most -0.075 for signal distances of 0.01 to 0.3",
    ),
    "curve-of-almost-nothing": ("record.curve-never-computes", "predicts at most 1e-300"),
    "date-29-february-2026": ("record.invariant", "no such date"),
    "date-31-february": ("record.invariant", "no such date"),
    "date-arabic-digits": ("record.schema", "a date YYYY-MM-DD"),
    "date-day-first": ("record.schema", "a date YYYY-MM-DD"),
    "deeply-nested": ("record.json", "nested deeper than 32"),
    "deprecated-without-retirement": ("record.invariant", "retirement must say why"),
    "domain-negative": ("record.invariant", "expected 0 ≤ x_min < x_max"),
    "domain-of-one-point": ("record.invariant", "expected 0 ≤ x_min < x_max"),
    "domain-of-three-numbers": ("record.schema", "domain"),
    "domain-reversed": ("record.invariant", "expected 0 ≤ x_min < x_max"),
    "domain-without-coefficients": ("record.invariant", "a domain without coefficients"),
    "duplicate-key": ("record.json", "the key 'revision' appears twice"),
    "duplicate-key-deep": ("record.json", "the key 'num_steps' appears twice"),
    "empty": ("record.json", "empty"),
    "evidence-as-one-word": ("record.schema", "evidence"),
    "evidence-figure-without-metric": ("record.invariant", "p90 without a metric"),
    "evidence-metric-without-figure": ("record.invariant", "metric is 'psnr' without a figure"),
    "evidence-of-a-negative-error": ("record.invariant", "is 0 or more"),
    "evidence-of-others-by-the-submitter": ("record.invariant", "belong to verified evidence"),
    "evidence-published-with-metric": ("record.invariant", "such a figure is 'reported'"),
    "evidence-quantiles-fall": ("record.invariant", "must not fall"),
    "evidence-replayed-by-a-source": ("record.invariant", "expected 'reported'"),
    "evidence-reported-without-metric": ("record.invariant", "without one it is 'published'"),
    "evidence-speedup-zero": ("record.schema", "speedup"),
    "evidence-submitted-as-reported": ("record.invariant", "expected 'replayed' or 'measured'"),
    "evidence-verified-by-nobody": ("record.invariant", "by missing; verified evidence says"),
    "float-overflow-1e400": ("record.json", "1e400 is too large"),
    "fraction-as-step-count": ("record.schema", "20.0"),
    "half-surrogate": ("record.json", "half a surrogate pair (U+D83C)"),
    "half-surrogate-key": ("record.json", "half a surrogate pair (U+DC00)"),
    "hexadecimal-number": ("record.json", "not complete, valid JSON"),
    "huge-integer": ("record.json", "an integer of 5001 digits"),
    "infinity-threshold": ("record.json", "Infinity is not a number JSON has"),
    "key-absolute": ("record.schema", "a model key"),
    "key-backslash": ("record.schema", "a model key"),
    "key-cyrillic-a": ("record.schema", "a model key"),
    "key-drive-letter": ("record.schema", "a model key"),
    "key-empty": ("record.schema", "a model key"),
    "key-empty-name": ("record.schema", "a model key"),
    "key-ending-in-json": ("record.invariant", "registry's own file names"),
    "key-full-width-slash": ("record.schema", "a model key"),
    "key-is-a-number": ("record.schema", "model_key"),
    "key-named-index": ("record.invariant", "registry's own file names"),
    "key-nul-character": ("record.schema", "a model key"),
    "key-of-six-names": ("record.schema", "a model key"),
    "key-parent-folder": ("record.schema", "a model key"),
    "key-too-long": ("record.schema", "model_key"),
    "key-trailing-dot": ("record.schema", "a model key"),
    "key-trailing-line-break": ("record.schema", "a model key"),
    "key-two-dots": ("record.invariant", "contains '..'"),
    "key-upper-case": ("record.schema", "a model key"),
    "key-windows-device": ("record.invariant", "reserved file name on Windows"),
    "key-windows-device-with-ending": ("record.invariant", "reserved file name on Windows"),
    "leading-zero-number": ("record.json", "not complete, valid JSON"),
    "line-break-in-text": ("record.json", "control character"),
    "magcache-threshold-beyond-reach": (
        "record.threshold-never-computes",
        "all 4 steps together predict at most 1.0204",
    ),
    "magcache-with-coefficients": ("record.invariant", "has coefficients; method magcache"),
    "magcache-without-ratios": ("record.invariant", "has no magnitude_ratios"),
    "method-unknown": ("record.schema", "'TeaCache'"),
    "minus-infinity": ("record.json", "-Infinity is not a number JSON has"),
    "missing-buckets": ("record.schema", "buckets"),
    "missing-provenance": ("record.schema", "provenance"),
    "missing-title": ("record.schema", "title"),
    "model-class-with-a-space": ("record.schema", "class_name"),
    "model-that-says-nothing": ("record.invariant", "leave it out"),
    "more-distinct-distances-than-points": ("record.invariant", "more than points = 456"),
    "nan-coefficient": ("record.json", "NaN is not a number JSON has"),
    "neither-plan-nor-threshold": ("record.invariant", "exactly one of them; found none"),
    "no-bucket": ("record.schema", "buckets"),
    "not-utf8": ("record.json", "not UTF-8"),
    "note-with-control-character": ("record.schema", "without control characters"),
    "nul-bytes": ("record.json", "not complete, valid JSON"),
    "null-at-top": ("record.json", "expected a JSON object, found NoneType"),
    "null-title": ("record.schema", "title"),
    "number-as-boolean": ("record.schema", "1"),
    "number-as-text": ("record.schema", "'1.75'"),
    "only-spaces": ("record.json", "empty"),
    "pickle": ("record.json", "not UTF-8"),
    "plan-and-threshold": ("record.invariant", "exactly one of them; found threshold and plan"),
    "plan-beyond-last-step": ("record.invariant", "the last of 20 steps is 19"),
    "plan-combined-of-the-residual": ("record.invariant", "guidance combines outputs"),
    "plan-corrected-without-rows": ("record.invariant", "corrected is true without rows"),
    "plan-empty": ("record.schema", "computed"),
    "plan-levels-of-another-sampler": ("record.invariant", "not those of the bucket's sampler"),
    "plan-levels-of-wrong-length": ("record.invariant", "3 levels for 8 rows"),
    "plan-levels-rise": ("record.invariant", "levels must be strictly descending"),
    "plan-levels-without-rows": ("record.invariant", "levels without rows"),
    "plan-not-ascending": ("record.invariant", "strictly ascending"),
    "plan-of-step-0-alone": ("record.plan-never-computes", "expected more than the first of 20 steps"),
    "plan-of-step-0-alone-of-unknown-steps": (
        "record.plan-never-computes",
        "expected more than the first of many steps",
    ),
    "plan-predictor-called-fitted": ("record.invariant", "give rows alone"),
    "plan-reuses-outside-window": ("record.invariant", "the skip window allows 1 to 18"),
    "plan-reuses-too-many-in-a-row": (
        "record.invariant",
        "reuses 4 steps in a row after step 2; max_consecutive_skips is 3",
    ),
    "plan-step-twice": ("record.invariant", "strictly ascending"),
    "plan-that-fills-with-nothing": ("record.invariant", "neither a predictor nor rows"),
    "plan-with-a-threshold": ("record.invariant", "operating_points[0] is no plan"),
    "plan-with-coefficients": ("record.invariant", "has coefficients; method plan"),
    "plan-with-two-fillings": ("record.invariant", "both fill reused steps"),
    "plan-without-computed": ("record.schema", "computed"),
    "plan-without-points": ("record.invariant", "has no operating_points"),
    "plan-without-step-0": ("record.invariant", "begins with step 1; expected 0"),
    "point-with-threshold-and-preset": ("record.invariant", "found threshold and preset"),
    "predictor-beside-a-plan": ("record.invariant", "predictor beside a plan"),
    "predictor-fitted-beside-a-threshold": ("record.invariant", "only a plan has rows"),
    "predictor-with-space": ("record.schema", "'taylor 2'"),
    "preset-beside-coefficients": ("record.invariant", "operating_points[0] is a preset"),
    "preset-parameter-of-a-parameter": ("record.schema", "parameters"),
    "preset-with-a-plan": ("record.invariant", "operating_points[0] is no preset"),
    "preset-without-points": ("record.invariant", "has no operating_points"),
    "profile-begins-above-zero": ("record.invariant", "expected 0 at the first sigma"),
    "profile-distances-fall": ("record.invariant", "must never decrease"),
    "profile-of-unequal-lengths": ("record.invariant", "3 sigmas but 2 distances"),
    "profile-sigma-twice": ("record.invariant", "strictly descending"),
    "profile-sigmas-rise": ("record.invariant", "strictly descending"),
    "profile-spread-of-one-point": ("record.schema", "spread"),
    "profile-spread-of-wrong-length": ("record.invariant", "3 sigmas but 2 spreads"),
    "published-without-sources": ("record.invariant", "provenance.sources must name where"),
    "r2-above-one": ("record.schema", "1.01"),
    "rank-correlation-below-minus-one": ("record.schema", "-1.5"),
    "ratios-name-a-branch-twice": ("record.invariant", "names a branch twice"),
    "ratios-of-unknown-branch": ("record.invariant", "['image'], which branches does not list"),
    "ratios-of-wrong-length": ("record.invariant", "expected num_steps = 3"),
    "replacement-is-no-key": ("record.invariant", "is not a model key"),
    "replacement-is-the-record-itself": ("record.invariant", "names the record itself"),
    "reported-fit-that-says-nothing": ("record.invariant", "leave it out"),
    "retirement-of-a-draft": ("record.invariant", "retirement must be absent"),
    "revision-of-19-digits": ("record.schema", "9999999999999999999"),
    "revision-zero": ("record.schema", "0"),
    "rows-above-1000": ("record.schema", "1000.5"),
    "rows-beyond-the-last-computed": ("record.invariant", "the last of 8 rows is 7"),
    "rows-empty": ("record.schema", "rows"),
    "rows-fill-step-0": ("record.invariant", "the row of step 0 is [0.99]; expected [1]"),
    "rows-not-finite": ("record.json", "NaN"),
    "rows-of-101-weights": ("record.schema", "rows"),
    "rows-of-a-computed-step": ("record.invariant", "the row of step 4 is [0.0, 0.0, 0.9]; expected [1]"),
    "rows-of-outputs-not-computed-yet": (
        "record.invariant",
        "step 3 has 3 weights; up to it 2 of the steps are computed",
    ),
    "rows-of-too-few-steps": ("record.invariant", "the last of 7 rows is 6"),
    "rows-of-too-many-steps": ("record.invariant", "9 rows; expected one a step, num_steps = 8"),
    "rows-over-sigma": ("record.invariant", "expected 'step'"),
    "rows-that-correct-the-residual": ("record.invariant", "expected 'output'"),
    "rows-with-a-number": ("record.schema", "rows"),
    "rows-with-an-empty-one": ("record.schema", "rows"),
    "rows-without-step-count": ("record.invariant", "rows in a bucket without num_steps"),
    "sampler-of-fewer-calls": ("record.invariant", "expected at least num_steps = 20"),
    "sampler-signature-of-wrong-length": ("record.invariant", "expected calls + 1 = 21"),
    "schema-address-no-text": ("record.schema", "$schema"),
    "schema-version-99": ("record.schema-version", "schema_version is 99, this release reads 1, 2, 3"),
    "schema-version-as-text": ("record.schema-version", "schema_version is '1'"),
    "schema-version-fraction": ("record.schema-version", "schema_version is 1.0"),
    "schema-version-missing": ("record.schema-version", "schema_version is missing"),
    "schema-version-true": ("record.schema-version", "schema_version is True"),
    "sequence-length-negative": ("record.schema", "-1560"),
    "sequence-length-zero": ("record.schema", "0"),
    "sha256-too-short": ("record.schema", "64 lower-case hexadecimal digits"),
    "sha256-upper-case": ("record.schema", "64 lower-case hexadecimal digits"),
    "shift-zero": ("record.schema", "shift"),
    "signal-unknown": ("record.schema", "'t_mod'"),
    "single-quotes": ("record.json", "line 2, column 3"),
    "source-without-repository": ("record.invariant", "must say in its note"),
    "status-unknown": ("record.schema", "'approved'"),
    "step-count-zero": ("record.schema", "0"),
    "teacache-with-ratios": ("record.invariant", "has magnitude_ratios; method teacache"),
    "teacache-without-coefficients": ("record.invariant", "has no coefficients"),
    "teacache-without-signal": ("record.invariant", "signal is 'none'"),
    "threshold-above-what-all-steps-predict": (
        "record.threshold-never-computes",
        "all 20 steps together predict at most 5.9375",
    ),
    "threshold-beyond-reach": ("record.threshold-never-computes", "threshold is 1e+308"),
    "threshold-zero": ("record.schema", "threshold"),
    "title-blank": ("record.schema", "one line"),
    "title-of-100000-characters": ("record.schema", "title"),
    "title-that-colours-the-terminal": ("record.schema", "without control characters"),
    "title-that-reverses-direction": ("record.schema", "without control characters"),
    "title-too-long": ("record.schema", "title"),
    "title-with-line-break": ("record.schema", "one line"),
    "trace-file-climbs": ("record.schema", "without folders"),
    "trace-file-hidden": ("record.schema", "without folders"),
    "trace-file-windows-device": ("record.invariant", "reserved file name on Windows"),
    "trace-runs-zero": ("record.schema", "runs"),
    "trace-twice-under-two-names": ("record.invariant", "two traces have the same sha256"),
    "traces-of-one-name": ("record.invariant", "two traces have the same file"),
    "trailing-comma": ("record.json", "not complete, valid JSON"),
    "truncated": ("record.json", "not complete, valid JSON"),
    "truncated-in-number": ("record.json", "not complete, valid JSON"),
    "two-records": ("record.json", "Extra data"),
    "two-samplers-that-nothing-tells-apart": ("record.invariant", "no two samplers that their signatures tell apart"),
    "unknown-field": ("record.schema", "coeficients"),
    "unknown-field-in-bucket": ("record.schema", "threshold"),
    "unknown-field-that-moves-the-cursor": ("record.schema", "'\\x1b[2J\\x1b[1;31mx'"),
    "utf16": ("record.json", "not UTF-8"),
    "utf8-bom": ("record.json", "byte order mark"),
    "validated-without-traces": ("record.invariant", "provenance.traces must name the traces"),
    "version-2-fields-in-version-3": ("record.schema", "forecaster"),
    "window-beyond-last-step": ("record.invariant", "the last of 20 steps is 19"),
    "window-empty": ("record.invariant", "the skip window is empty"),
    "window-empty-from-the-end": ("record.invariant", "the skip window is empty"),
    "window-fraction-in-percent": ("record.invariant", "expected 0 ≤ first ≤ last ≤ 1"),
    "window-fraction-reversed": ("record.invariant", "expected 0 ≤ first ≤ last ≤ 1"),
}

# Files of versions 1 and 2: the same defects, where that version tells of them in other words, and those it alone can have.
OF_VERSIONS_1_AND_2 = {
    "computed-steps-contradict-schedule": ("record.invariant", "the schedule lists 20"),
    "evidence-missing": ("record.schema", "evidence"),
    "forecaster-with-space": ("record.schema", "'taylor 2'"),
    "neither-schedule-nor-threshold": ("record.invariant", "exactly one of them"),
    "schedule-and-threshold": ("record.invariant", "exactly one of them"),
    "schedule-beyond-last-step": ("record.invariant", "the last of 20 steps is 19"),
    "schedule-empty": ("record.schema", "schedule"),
    "schedule-not-ascending": ("record.invariant", "strictly ascending"),
    "schedule-reuses-outside-window": ("record.invariant", "the skip window allows 1 to 18"),
    "schedule-reuses-too-many-in-a-row": (
        "record.invariant",
        "reuses 4 steps in a row after step 2; max_consecutive_skips is 3",
    ),
    "schedule-step-twice": ("record.invariant", "strictly ascending"),
    "schedule-without-step-0": ("record.invariant", "begins with step 0"),
    "speedup-below-one": ("record.schema", "0.9"),
    "weights-above-1000": ("record.schema", "1000.5"),
    "weights-empty": ("record.schema", "weights"),
    "weights-forecast-step-0": ("record.invariant", "the weights of step 0 are [0.99]; expected [1]"),
    "weights-in-version-1": ("record.schema", "weights"),
    "weights-missing": ("record.invariant", "weights must be given"),
    "weights-null-in-version-1": ("record.schema", "weights"),
    "weights-of-a-threshold": ("record.invariant", "weights without a schedule"),
    "weights-of-outputs-not-computed-yet": (
        "record.invariant",
        "step 3 has 3 weights; up to it the schedule computes 2",
    ),
    "weights-of-the-residual": ("record.invariant", "weights are of model outputs, expected 'output'"),
    "weights-of-too-few-steps": ("record.invariant", "7 rows of weights; expected one a step, num_steps = 8"),
    "weights-of-too-many-steps": ("record.invariant", "9 rows of weights; expected one a step, num_steps = 8"),
    "weights-over-sigma": ("record.invariant", "weights are given per step, expected 'step'"),
    "weights-row-empty": ("record.schema", "weights"),
    "weights-row-no-list": ("record.schema", "weights"),
    "weights-row-of-17": ("record.schema", "weights"),
    "weights-without-step-count": ("record.invariant", "weights in a bucket without num_steps"),
}

CASES = [(FOLDER, defect, expected) for defect, expected in EXPECTED.items()] + [
    (OLD_FOLDER, path.stem, OF_VERSIONS_1_AND_2.get(path.stem) or EXPECTED[path.stem])
    for path in sorted(OLD_FOLDER.iterdir())
]
each_case = pytest.mark.parametrize(
    ("folder", "defect", "expected"), CASES, ids=[f"{folder.name}/{defect}" for folder, defect, _ in CASES]
)


def test_every_file_is_listed_and_every_listed_file_exists():
    assert {path.stem for path in FOLDER.iterdir()} == set(EXPECTED)
    assert set(OF_VERSIONS_1_AND_2) <= {path.stem for path in OLD_FOLDER.iterdir()}
    assert len(list(OLD_FOLDER.iterdir())) > 140


@each_case
def test_reading_refuses_the_file_by_its_rule(folder, defect, expected):
    rule, phrase = expected
    path = folder / f"{defect}.json"
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_json(path.read_bytes(), where=path.name)
    assert refused.value.rule == rule
    assert phrase in str(refused.value)
    assert str(refused.value).startswith(path.name)
    with pytest.raises(InvalidCalibration) as refused:
        load(path)
    assert refused.value.rule == rule


@each_case
def test_checking_finds_exactly_the_one_defect(folder, defect, expected):
    rule, phrase = expected
    (finding,) = check_record((folder / f"{defect}.json").read_bytes(), where="file.json")
    assert finding.rule == rule
    assert finding.severity == "error"
    assert phrase in finding.message or phrase in finding.pointer
    assert str(finding).endswith(f"[{rule}]")


@each_case
def test_no_message_is_long_or_acts_on_a_terminal(folder, defect, expected):
    data = (folder / f"{defect}.json").read_bytes()
    with pytest.raises(InvalidCalibration) as refused:
        Calibration.from_json(data)
    for text in (str(refused.value), *map(str, check_record(data))):
        assert text.isprintable()
        assert len(text) < 600


def test_every_rule_that_a_file_can_break_is_explained():
    assert {rule for _, _, (rule, _) in CASES} <= set(MEANINGS)


@pytest.mark.parametrize(
    ("defect", "pointer"),
    [
        ("curve-negative", "/buckets/0/coefficients"),
        ("threshold-beyond-reach", "/buckets/0/operating_points/0/threshold"),
        ("plan-of-step-0-alone", "/buckets/0/operating_points/0/plan/computed"),
    ],
)
def test_a_record_that_can_only_reuse_is_refused_at_the_number_that_says_so(defect, pointer):
    (finding,) = check_record((FOLDER / f"{defect}.json").read_bytes())
    assert finding.pointer == pointer
