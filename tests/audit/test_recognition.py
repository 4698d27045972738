"""Recognising copied coefficients, and whose name they were copied under."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from easyteacache.audit.recognition import Known, Match, find_literals, identify, identify_path, identify_text
from easyteacache.records import calibration
from easyteacache.registry import index

ROOT = Path(__file__).resolve().parents[2]
# Another record's list, which its source measured on this model.
COPIED = "lumina-image-2.0/v1"
RECORDS = [
    record
    for _, path in index.record_paths(ROOT / "registry")
    for record in [calibration.load(path)]
    if (record.status, record.method) == ("published", "teacache")
]
OWNERS = [record for record in RECORDS if record.model_key != COPIED]
FLUX = (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861)
WAN_480P = (257151.496, -35422.9917, 1402.86849, -13.5890334, 0.132517977)


@pytest.fixture(scope="module")
def known() -> Known:
    return Known.from_calibrations(RECORDS)


def only(matches: list[Match]) -> Match:
    assert len(matches) == 1, [str(match) for match in matches]
    return matches[0]


def owned_by(model_key: str, matches: list[Match]) -> Match:
    """Of the owners that one list has, the record ``model_key``; any other holds the very same numbers."""
    numbers = {match.known.coefficients for match in matches}
    assert len(numbers) == 1, [str(match) for match in matches]
    return next(match for match in matches if match.known.model_key == model_key)


def in_python(name: str, numbers: tuple[float, ...]) -> str:
    lines = ",  # printed\n        ".join(f"{value:.17e}" for value in numbers)
    return f"import numpy as np\n\nTABLE = {{\n    {name!r}: np.poly1d([\n        {lines},\n    ]),\n}}\n"


def in_json(name: str, numbers: tuple[float, ...]) -> str:
    return json.dumps({"other": [1, 2, 3], name: {"teacache": [[], list(numbers)]}}, indent=2)


def in_yaml(name: str, numbers: tuple[float, ...]) -> str:
    return f"{name!r}:\n  teacache:\n" + "".join(f"  - {value!r}\n" for value in numbers) + "steps: 50\n"


def in_toml(name: str, numbers: tuple[float, ...]) -> str:
    return f'["{name}"]\ncoefficients = [\n  {", ".join(map(repr, numbers))}\n]\n'


def in_cpp(name: str, numbers: tuple[float, ...]) -> str:
    return f'static const Table kTable = {{\n  {{"{name}", {{{"f, ".join(map(repr, numbers))}f}}}},\n}};\n'


WRITERS = {".py": in_python, ".json": in_json, ".yaml": in_yaml, ".toml": in_toml, ".cpp": in_cpp}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_published_list_is_found_in_every_language_under_its_own_name(suffix: str, known: Known) -> None:
    for record in OWNERS:
        text = WRITERS[suffix](record.model_key, record.buckets[0].coefficients or ())
        match = owned_by(record.model_key, identify_text(text, known, filename=f"table{suffix}"))
        assert (match.kind, match.lowest_first) == ("exact", False)
        assert not match.misfiled, str(match)


def test_a_list_that_two_models_have_records_with_has_one_owner(known: Known) -> None:
    (record,) = (record for record in RECORDS if record.model_key == COPIED)
    match = only(identify(record.buckets[0].coefficients or (), known))
    assert match.known.model_key == "lumina-next/sft"
    named = only(identify_text(in_json(COPIED, record.buckets[0].coefficients or ()), known, filename="a.json"))
    assert named.misfiled
    assert "Lumina-Image-2.0" in str(named.documented)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_neutral_name_raises_no_alarm(suffix: str, known: Known) -> None:
    for record in OWNERS:
        text = WRITERS[suffix]("coefficients", record.buckets[0].coefficients or ())
        matches = identify_text(text, known, filename=f"settings{suffix}")
        assert owned_by(record.model_key, matches).filing == "unnamed"


TENSORRT = """
# Source: the FLUX script
FLUX_TEACACHE_COEFFICIENTS = {
    "dev": {
        "ret_steps": [2.57151496e05, -3.54229917e04, 1.40286849e03, -1.35890334e01, 1.32517977e-01],
        "standard": [2.57151496e05, -3.54229917e04, 1.40286849e03, -1.35890334e01, 1.32517977e-01],
    },
    "schnell": {"ret_steps": [1.0, 0.0]},
}
"""


def test_flux_shipped_with_wan_numbers_is_caught(known: Known) -> None:
    matches = identify_text(TENSORRT, known, filename="models/flux/pipeline_flux.py")
    assert [match.found.line for match in matches] == [5, 6]
    for match in matches:
        assert match.known.model_key == "wan2.1/i2v-14b-480p"
        assert match.misfiled
        assert match.filing == "other model"
        assert match.filed_under == "FLUX_TEACACHE_COEFFICIENTS"
        assert "TensorRT-LLM" in str(match.documented)
        assert "a different model" in str(match)


def test_the_file_name_alone_tells_whose_numbers_are_expected(known: Known) -> None:
    text = f"COEFFICIENTS = {list(WAN_480P)}"
    assert only(identify_text(text, known, filename="models/flux/pipeline.py")).filing == "other model"
    assert only(identify_text(text, known, filename="models/wan/pipeline.py")).filing == "same"
    assert only(identify_text(text, known, filename="cache/pipeline.py")).filing == "unnamed"


@pytest.mark.parametrize(
    ("name", "filing"),
    [
        ("Wan2.1-I2V-14B-480P", "same"),
        ("wan2.1_i2v_480p_14B", "same"),
        ("WanTransformer3DModel", "same"),
        ("wan_i2v", "same"),
        ("Wan2.1-T2V-14B", "other variant"),
        ("WanI2V720P", "other variant"),
        ("wan22", "other variant"),
        ("hunyuan_video", "other model"),
        ("TangoFlux", "other model"),
        ("unwanted_wanderer", "unnamed"),
        ("animate", "unnamed"),
    ],
)
def test_names_are_compared_by_family_and_by_variant(name: str, filing: str, known: Known) -> None:
    match = only(identify_text(in_json(name, WAN_480P), known, filename="a.json"))
    assert match.filing == filing, str(match)
    assert (match.filed_under == name) == (filing != "unnamed")


# How engines name these models in their own tables → the record, and what to say about the pairing.
ENGINE_NAMES = [
    ("flux", "flux.1/dev", "same"),
    ("flux-kontext", "flux.1/kontext-dev", "same"),
    ("flux-kontext", "flux.1/dev", "other variant"),
    ("FluxTransformer2DModel", "flux.1/dev", "same"),
    ("Flux2Klein", "flux.1/dev", "other variant"),
    ("FLUX.2-klein-base-4B", "flux.2/klein-base-4b", "same"),
    ("ltxv", "ltx-video/0.9.1", "same"),
    ("LTXVideoTransformer3DModel", "ltx-video/0.9.1", "same"),
    ("ltx2", "ltx-video/0.9.1", "other model"),
    ("lumina_2", "lumina-image-2.0/timestep-embedding", "same"),
    ("lumina_2", "lumina-next/sft", "other model"),
    ("lumina_next", "lumina-next/sft", "same"),
    ("hunyuan_video", "hunyuanvideo/t2v", "same"),
    ("HunyuanVideo15Transformer3DModel", "hunyuanvideo/t2v", "other variant"),
    ("HunyuanImage3ForCausalMM", "hunyuan-image/3.0", "same"),
    ("hidream_i1_full", "hidream-i1/full", "same"),
    ("hidream_i1_dev", "hidream-i1/fast", "other variant"),
    ("wan2.1_t2v_1.3B_ret_mode", "wan2.1/t2v-1.3b", "same"),
    ("wan2.1_i2v_720p_14B", "wan2.1/i2v-14b-720p/no-retention", "same"),
    ("WanT2V_1_3B_Config", "wan2.1/t2v-1.3b", "same"),
    ("Wan2.2-TI2V-5B", "wan2.2/ti2v-5b", "same"),
    ("CogVideoX-5b", "cogvideox/5b", "same"),
    ("CogVideoX1.5-5B-I2V", "cogvideox/5b", "other variant"),
    ("CogVideoXTransformer3DModel", "cogvideox1.5/5b", "same"),
    ("QwenImageTransformer2DModel", "qwen-image/hand-set", "same"),
    ("ZImageTransformer2DModel", "qwen-image/hand-set", "other model"),
    ("OmniGen2", "omnigen2", "same"),
    ("boogu_image", "omnigen2", "other model"),
    ("StableAudioDiTModel", "stable-audio-open/1.0", "same"),
    ("LongCatImageTransformer2DModel", "longcat-image", "same"),
    ("Bagel", "bagel/7b-mot", "same"),
    ("CosmosTransformer3DModel", "cosmos-1.0/diffusion-7b", "same"),
    ("OpenSoraPlan", "open-sora-plan/v1.1.0-65x512x512", "same"),
    ("FramePack", "hunyuanvideo/t2v", "other model"),
    ("ConsisID", "cogvideox/5b", "other model"),
]


@pytest.mark.parametrize(("name", "model_key", "filing"), ENGINE_NAMES)
def test_names_that_engines_use_are_understood(name: str, model_key: str, filing: str, known: Known) -> None:
    record = next(record for record in RECORDS if record.model_key == model_key)
    match = only(identify_text(in_json(name, record.buckets[0].coefficients or ()), known, filename="a.json"))
    assert match.filing == filing, str(match)


def test_a_model_whose_family_is_not_known_is_compared_with_no_name() -> None:
    own = RECORDS[0].model_copy(update={"model_key": "my-lab/own-model", "aliases": ()})
    alone = Known.from_calibrations([own], variants=None)
    match = only(identify_text(in_json("flux", own.buckets[0].coefficients or ()), alone, filename="a.json"))
    assert (match.known.model_key, match.filing) == ("my-lab/own-model", "unnamed")


UPSTREAM = """
class Cache:
    def prepare(self, args):
        if args.use_ret_steps:
            if '1.3B' in args.ckpt_dir:
                self.coefficients = [-5.21862437e+04, 9.23041404e+03, -5.28275948e+02, 1.36987616e+01, -4.99875664e-02]
            if '14B' in args.ckpt_dir:
                self.coefficients = [-5.21862437e+04, 9.23041404e+03, -5.28275948e+02, 1.36987616e+01, -4.99875664e-02]
"""


def test_conditions_around_an_assignment_count_as_names(known: Known) -> None:
    right, wrong = identify_text(UPSTREAM, known, filename="TeaCache4Wan2.1/generate.py")
    assert (right.filing, right.found.line) == ("same", 6)
    assert (wrong.filing, wrong.filed_under) == ("other variant", "14B")


def test_a_file_that_does_not_parse_is_read_all_the_same(known: Known) -> None:
    broken = TENSORRT + "\ndef broken(:\n"
    assert [match.filed_under for match in identify_text(broken, known, filename="a.py")] == [
        "FLUX_TEACACHE_COEFFICIENTS"
    ] * 2


def test_a_list_in_a_comment_is_found_over_several_lines(known: Known) -> None:
    text = "class Flux:\n    # old = [498.651651, -283.781631, 55.8554382,\n    #        -3.82021401, 0.264230861]\n    x = 1\n"
    match = only(identify_text(text, known, filename="a.py"))
    assert (match.found.line, match.found.names) == (2, ("old", "Flux"))


def test_rounded_numbers_are_recognised_and_called_rounded(known: Known) -> None:
    assert only(identify([498.65, -283.78, 55.855, -3.8202, 0.26423], known)).kind == "rounded"
    assert only(identify([498.6516512440, -283.781631, 55.8554382, -3.82021401, 0.264230861], known)).kind == "exact"


def test_a_published_transcription_is_told_from_the_original(known: Known) -> None:
    match = only(identify([122.842302, -104.088754, 26.2981677, -0.306001, 0.037121322], known))
    assert (match.kind, match.known.origin, match.known.model_key) == ("exact", "transcription", "cogvideox1.5/5b-i2v")


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (2, 55.8554381, "one digit differs"),
        (0, 49.8651651, "another power of ten"),
        (3, -3.8221401, "digits are missing"),
        (4, -0.264230861, "the sign differs"),
        (1, 7.0, "another value"),
    ],
)
def test_one_wrong_coefficient_is_named_with_what_it_should_be(
    place: int, value: float, says: str, known: Known
) -> None:
    numbers = list(FLUX)
    numbers[place] = value
    match = only(identify(numbers, known))
    assert (match.kind, match.known.model_key) == ("near", "flux.1/dev")
    assert says in str(match.difference)
    assert f"{FLUX[place]!r}" in str(match.difference)
    assert f"x^{4 - place} " in str(match.difference)


def test_every_published_list_survives_one_wrong_digit_and_reversal(known: Known) -> None:
    for record in OWNERS:
        wanted = record.buckets[0].coefficients or ()
        assert owned_by(record.model_key, identify(wanted[::-1], known)).lowest_first
        printed = [f"{value:.8e}" for value in wanted]
        place = max(range(len(wanted)), key=lambda i: abs(wanted[i]))
        printed[place] = printed[place][:4] + str((int(printed[place][4]) + 5) % 10) + printed[place][5:]
        if sum(value != 0 for value in wanted) > 2 and record.model_key != "qwen-image/hand-set":
            assert owned_by(record.model_key, identify(list(map(float, printed)), known)).kind == "near"


def test_lost_signs_are_recognised(known: Known) -> None:
    match = only(identify([abs(value) for value in FLUX], known))
    assert (match.kind, match.difference) == ("unsigned", "2 of 5 signs differ")


def test_leading_zeros_do_not_hide_a_polynomial_of_lower_degree(known: Known) -> None:
    assert (
        only(identify([0.0, 0.0, 5.32030879, -0.940726208, 0.0764571376], known)).known.model_key
        == "anima/euler-normal"
    )
    assert only(identify([4.11423217, 0.36885889], known)).known.model_key == "newbie"


def test_bare_numbers_from_a_command_line_are_read(known: Known) -> None:
    for text in ("498.651651 -283.781631 55.8554382 -3.82021401 0.264230861", ", ".join(map(str, FLUX))):
        assert only(identify_text(text, known)).known.model_key == "flux.1/dev"


def test_random_lists_and_ordinary_numbers_match_nothing(known: Known) -> None:
    random.seed(20240607)
    for _ in range(20_000):
        numbers = [random.uniform(-1, 1) * 10 ** random.randint(-2, 5) for _ in range(random.randint(2, 7))]
        assert not identify([float(f"{value:.3g}") for value in numbers], known)
    for numbers in ([1.0, 0.0], [0.229, 0.224, 0.225], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [float("nan")] * 5, [1.0]):
        assert not identify(numbers, known)


def test_part_of_the_installed_diffusers_package_raises_no_alarm(known: Known) -> None:
    found = importlib.util.find_spec("diffusers")
    if found is None or found.origin is None:
        pytest.skip("diffusers is not installed")
    folder = Path(found.origin).parent
    for part in ("hooks", "schedulers", "pipelines/flux", "pipelines/wan"):
        assert [str(match) for match in identify_path(folder / part, known)] == []


def test_a_folder_is_searched_in_order_and_unreadable_files_are_reported(tmp_path: Path, known: Known) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "b" / "flux.json").write_text(in_json("dev", FLUX))
    (tmp_path / "a.py").write_text(in_python("flux", WAN_480P))
    (tmp_path / ".hidden" / "c.py").write_text(in_python("flux", FLUX))
    (tmp_path / "image.txt").write_bytes(b"\x00\x01[498.651651, -283.781631]")
    (tmp_path / "picture.png").write_text(in_python("flux", FLUX))
    skipped: list[str] = []
    found = list(identify_path(tmp_path, known, skipped=lambda file, reason: skipped.append(f"{file}: {reason}")))
    assert [(Path(str(match.file)).name, match.misfiled) for match in found] == [("a.py", True), ("flux.json", False)]
    assert len(skipped) == 1
    assert "not a text file" in skipped[0]


def test_a_named_file_that_cannot_be_read_is_an_error(tmp_path: Path, known: Known) -> None:
    (tmp_path / "data.bin").write_bytes(b"\0" * 10)
    with pytest.raises(ValueError, match="not a text file"):
        list(identify_path(tmp_path / "data.bin", known))
    with pytest.raises(FileNotFoundError):
        list(identify_path(tmp_path / "missing.py", known))


def test_a_match_is_plain_data_for_json(known: Known) -> None:
    match = only(
        identify_text(TENSORRT.replace("standard", "s").split("\n\n")[0].split('"s"')[0], known, filename="f.py")
    )
    data = json.loads(json.dumps(match.to_dict()))
    assert data["model_key"] == "wan2.1/i2v-14b-480p"
    assert data["misfiled"] is True
    assert data["numbers"] == list(WAN_480P)


@pytest.mark.parametrize(
    "text",
    [
        "[1," * 300_000,
        "[" * 900_000,
        "1" * 900_000,
        "[1,#" * 200_000,
        "- 1\n" * 200_000,
        "[1,/*" * 20_000,
        "1 " * 400_000,
    ],
)
@pytest.mark.parametrize("suffix", [".py", ".yaml", ".txt", ""])
def test_no_text_makes_the_search_backtrack(text: str, suffix: str, known: Known) -> None:
    # With quadratic behaviour none of these would end within the hour.
    assert identify_text(text, known, filename=f"x{suffix}" if suffix else None) == []


def test_searching_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from easyteacache.audit import recognition; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'diffusers', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_stand_nearest_first_in_every_language() -> None:
    cases: list[tuple[str, str, Any]] = [
        (".py", "T = {'flux': {'dev': f([1.5, 2])}}", ("dev", "flux", "T")),
        (".py", "def wan(x):\n    if x == '480P':\n        return (1.5, 2)", ("x", "480P", "wan")),
        (".json", '{"a": [[1, 2.5]], "flux": {"dev": [1.5, 2]}}', ("dev", "flux")),
        (".yaml", "flux:\n  dev:\n    - 1.5\n    - 2\n", ("dev", "flux")),
        (".yaml", "flux:\n  dev: [1.5, 2]\n", ("dev", "flux")),
        (".toml", "[cache.flux]\ndev = [1.5, 2]\n", ("dev", "cache.flux")),
        (".js", "const T = { flux: { dev: [1.5, 2] } };", ("dev", "flux", "T")),
        (".cpp", 'std::map<int> T = {{"flux", {1.5f, 2.f}}};', ("flux", "T")),
        (".md", "| FLUX | [1.5, 2] |", ("FLUX",)),
    ]
    for suffix, text, names in cases:
        assert find_literals(text, suffix=suffix)[-1].names == names, text
