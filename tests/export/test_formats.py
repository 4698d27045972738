"""What is written, read by the engine's own class where it can be installed, by its documented format otherwise."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from easyteacache.errors import ExportRefused
from easyteacache.export import ENGINES, export, read
from easyteacache.original import cache_json
from easyteacache.policy.request import request_and_run
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Registry

Make = Callable[..., Registry]
Record = Callable[..., Calibration]
FLUX = [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861]
WAN_RETENTION = [-303318.725, 49053.7029, -2655.30556, 58.7365115, -0.315583525]
WAN_DEFAULT = [-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404]


def keywords(text: str, name: str) -> dict[str, Any]:
    """Keyword arguments of the one call of ``name`` in a Python text."""
    (call,) = (
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    )
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}


def test_diffusers_makes_the_magcache_config_and_interpolates_it(bundled: Registry) -> None:
    hooks = pytest.importorskip("diffusers.hooks.mag_cache")
    exported = export(bundled, "flux.1/dev/magcache", "diffusers", *request_and_run(num_steps=50))
    scope: dict[str, Any] = {}
    exec(exported.text, scope)
    config = scope["config"]
    assert isinstance(config, hooks.MagCacheConfig)
    assert (config.threshold, config.max_skip_steps, config.retention_ratio) == (0.24, 5, 0.1)
    assert config.num_inference_steps == len(config.mag_ratios) == 50


def test_diffusers_gets_the_list_that_it_ships_itself(bundled: Registry) -> None:
    hooks = pytest.importorskip("diffusers.hooks.mag_cache")
    written = keywords(export(bundled, "flux.1/dev/magcache", "diffusers").text, "MagCacheConfig")["mag_ratios"]
    assert written == pytest.approx(hooks.FLUX_MAG_RATIOS.tolist())


def test_this_projects_interpolation_is_that_of_diffusers(bundled: Registry) -> None:
    torch = pytest.importorskip("torch")
    hooks = pytest.importorskip("diffusers.hooks.mag_cache")
    own = bundled["wan2.1/t2v-14b/magcache"].buckets[0].magnitude_ratios[0].ratios
    for steps in (1, 2, 7, 25, 49, 50, 51, 100):
        exported = export(bundled, "wan2.1/t2v-14b/magcache", "json", *request_and_run(num_steps=steps))
        written = json.loads(exported.text)["magnitude_ratios"]["cond"]
        assert written == hooks.nearest_interp(torch.tensor(own, dtype=torch.float64), steps).tolist()


def test_diffusers_first_block_cache_takes_a_threshold_without_a_polynomial(
    make_registry: Make, record: Record
) -> None:
    hooks = pytest.importorskip("diffusers.hooks.first_block_cache")
    bucket = {"coefficients": [1.0, 0.0], "domain": None}
    exported = export(
        make_registry(record("any/model", signal="first_block_residual", bucket=bucket)),
        "any/model",
        "diffusers",
        allow={"signal", "window"},
    )
    scope: dict[str, Any] = {}
    exec(exported.text, scope)
    assert isinstance(scope["config"], hooks.FirstBlockCacheConfig)
    assert scope["config"].threshold == 0.3
    assert any("last computed step" in remark for remark in exported.remarks)


@pytest.mark.parametrize(("forecaster", "order"), [("hold", None), ("taylor-2", 2), ("linear", 1)])
def test_cache_dit_loads_the_mask_of_a_schedule(
    forecaster: str, order: int | None, tmp_path: Path, make_registry: Make, record: Record
) -> None:
    cache_dit = pytest.importorskip("cache_dit")
    points = [{"schedule": [0, 1, 4, 9, 19], "evidence": "replayed", "forecaster": forecaster}]
    exported = export(make_registry(record("any/model", bucket={"operating_points": points})), "any/model", "cache-dit")
    file = tmp_path / "cache.yaml"
    file.write_text(exported.text, encoding="utf-8")
    loaded = cache_dit.load_configs(str(file))
    config = loaded["cache_config"]
    mask = [int(step in (0, 1, 4, 9, 19)) for step in range(20)]
    assert (config.steps_computation_mask, config.steps_computation_policy) == (mask, "static")
    assert (config.num_inference_steps, config.Fn_compute_blocks, config.max_warmup_steps) == (20, 1, 1)
    calibrator = loaded["calibrator_config"]
    assert (calibrator is None) == (order is None)
    if order is not None:
        assert calibrator.taylorseer_order == order


def test_vllm_omni_gets_exactly_five_coefficients_and_an_exact_polynomial(make_registry: Make, record: Record) -> None:
    """The keys of ``DiffusionCacheConfig`` and the five of ``TeaCacheConfig.__post_init__``, config.py at 011a7ac670f9."""
    content = json.loads(export(make_registry(record("flux.1/dev")), "flux.1/dev", "vllm-omni").text)
    assert content["coefficients"] == [0.0, 0.0, 0.0, 0.4, 0.01]
    assert content["rel_l1_thresh"] == 0.3
    assert set(content) == {"_easyteacache", "rel_l1_thresh", "coefficients"}


def test_vllm_omni_takes_magcache_under_its_own_keys(bundled: Registry) -> None:
    content = json.loads(export(bundled, "flux.1/dev/magcache", "vllm-omni").text)
    keys = {"mag_threshold", "mag_max_skip_steps", "mag_retention_ratio", "mag_ratios", "num_inference_steps"}
    assert set(content) == {"_easyteacache", *keys}
    assert content["num_inference_steps"] == len(content["mag_ratios"]) == 28


def test_sglang_gets_the_window_and_the_signal_of_wan(bundled: Registry) -> None:
    """``get_skip_step_range`` of configs/sample/teacache.py in release 0.5.23: a negative end counts from the step count."""
    retention = keywords(export(bundled, "wan2.1/t2v-14b", "sglang").text, "TeaCacheParams")
    assert retention["coefficients"] == WAN_RETENTION
    assert (retention["use_ret_steps"], retention["start_skipping"], retention["end_skipping"]) == (True, 5, 1.0)
    default = keywords(export(bundled, "wan2.1/t2v-14b/no-retention", "sglang").text, "TeaCacheParams")
    assert (default["use_ret_steps"], default["start_skipping"], default["end_skipping"]) == (False, 1, -1)


def test_two_experts_go_into_one_file(make_registry: Make, record: Record) -> None:
    names = ("high-noise", "low-noise")
    common = {"signal": "timestep_embedding", "modality": "video"}
    registry = make_registry(
        *(
            record(f"wan2.2/t2v-a14b/{n}", **common, bucket={"coefficients": [0.4 + i, 0.01]})
            for i, n in enumerate(names)
        )
    )
    for key in (f"wan2.2/t2v-a14b/{name}" for name in names):
        section = yaml.safe_load(export(registry, key, "tensorrt-llm").text)["cache_config"]
        assert (section["coefficients"], section["coefficients_2"]) == ([0.4, 0.01], [1.4, 0.01])


def test_one_expert_alone_is_refused(make_registry: Make, record: Record) -> None:
    registry = make_registry(record("wan2.2/t2v-a14b/high-noise", signal="timestep_embedding"))
    with pytest.raises(ExportRefused, match="one of two experts"):
        export(registry, "wan2.2/t2v-a14b/high-noise", "tensorrt-llm")


def test_an_engine_with_one_set_for_both_experts_gets_none(make_registry: Make, record: Record) -> None:
    """``TeaCacheParams`` of SGLang 0.5.23 has no field for an expert's own numbers."""
    registry = make_registry(record("wan2.2/t2v-a14b/high-noise", signal="timestep_embedding"))
    with pytest.raises(ExportRefused, match=r"\[model\]"):
        export(registry, "wan2.2/t2v-a14b/high-noise", "sglang")


def test_tensorrt_llm_gets_only_the_fields_of_its_strict_model(bundled: Registry) -> None:
    """``VisualGenArgs`` and ``TeaCacheConfig`` of tensorrt_llm/visual_gen/args.py at 01dc259f130c forbid every other key."""
    document = yaml.safe_load(export(bundled, "wan2.1/t2v-14b", "tensorrt-llm", allow={"abs"}).text)
    assert set(document) == {"cache_config"}
    section = document["cache_config"]
    assert set(section) == {"cache_backend", "teacache_thresh", "use_ret_steps", "coefficients"}
    assert section["coefficients"] == WAN_RETENTION
    assert section["use_ret_steps"] is True


@pytest.mark.parametrize("name", ["cache_config", "cache"])
def test_tensorrt_llms_section_is_read_under_its_name_and_under_the_one_written_before(name: str) -> None:
    text = f"{name}:\n  cache_backend: teacache\n  teacache_thresh: 0.2\n  coefficients: [1.5, 0.25]\n"
    (draft,) = read(text, "tensorrt-llm", file="f.yaml", model_key="flux.1/own", title=None, modality="image")
    assert draft.record.buckets[0].coefficients == (1.5, 0.25)


def test_lightx2v_gets_both_sets_in_its_order_whichever_is_asked_for(bundled: Registry) -> None:
    """``coefficients[0]`` with retention steps, ``coefficients[1]`` without: transformer_infer.py at 07c557c60972."""
    for key, uses in (
        ("wan2.1/t2v-14b", True),
        ("wan2.1/t2v-14b/retention", True),
        ("wan2.1/t2v-14b/no-retention", False),
    ):
        content = json.loads(export(bundled, key, "lightx2v").text)
        assert content["coefficients"] == [WAN_RETENTION, WAN_DEFAULT]
        assert (content["feature_caching"], content["use_ret_steps"]) == ("Tea", uses)
        assert (content["infer_steps"], content["target_video_length"]) == (50, 81)


def test_lightx2v_gets_one_list_of_ratios_a_branch(bundled: Registry) -> None:
    content = json.loads(export(bundled, "wan2.1/t2v-1.3b/magcache", "lightx2v").text)
    assert content["feature_caching"] == "Mag"
    assert (content["magcache_K"], content["magcache_thresh"], content["magcache_retention_ratio"]) == (4, 0.12, 0.2)
    assert [branch[:3] for branch in content["magcache_ratios"]] == [[1.0, 1.0124, 1.00166], [1.0, 1.02213, 1.0041]]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("flux.1/dev", "flux"),
        ("flux.1/kontext-dev", "flux-kontext"),
        ("wan2.1/t2v-14b", "wan2.1_t2v_14B_ret_mode"),
        ("wan2.1/i2v-14b-480p/no-retention", "wan2.1_i2v_480p_14B"),
        ("hidream-i1/full", "hidream_i1_full"),
    ],
)
def test_comfyui_gets_an_entry_under_its_own_name(key: str, name: str, bundled: Registry) -> None:
    tree = ast.parse(export(bundled, key, "comfyui-teacache", *request_and_run(num_steps=50), allow={"window"}).text)
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body}  # type: ignore[attr-defined]
    assert values["SUPPORTED_MODELS_COEFFICIENTS"] == {name: list(bundled[key].buckets[0].coefficients or ())}
    assert values["TEACACHE_NODE"]["model_type"] == name


def test_xdit_gets_the_buffer_that_its_name_selects(bundled: Registry) -> None:
    tree = ast.parse(export(bundled, "flux.1/dev", "xdit", *request_and_run(num_steps=28)).text)
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body}  # type: ignore[attr-defined]
    assert values["flux_coef"] == FLUX
    assert values["TEACACHED_BLOCKS"] == {"name": "flux", "rel_l1_thresh": 0.25, "num_steps": 28}


def test_nunchaku_gets_only_what_it_takes(bundled: Registry) -> None:
    """``skip_steps`` above 0 makes it add None: nunchaku/caching/teacache.py at 3a3cc3d0649a, lines 225 to 240."""
    text = export(bundled, "flux.1/kontext-dev", "nunchaku", *request_and_run(num_steps=28), allow={"window"}).text
    (node,) = ast.parse(text).body
    arguments = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    assert arguments == {
        "model_name": "flux-kontext",
        "num_steps": 28,
        "rel_l1_thresh": 0.22,
        "skip_steps": 0,
        "enabled": True,
    }


def test_wan2gp_gets_the_override_of_a_model_file(bundled: Registry) -> None:
    text = export(bundled, "wan2.1/t2v-14b/no-retention", "wan2gp", allow={"abs"}).text
    assert json.loads(text)["model"]["teacache_coefficients"] == WAN_DEFAULT
    assert set(json.loads(text)) == {"model"}


def test_the_seed_file_is_read_by_this_projects_own_reader(tmp_path: Path, bundled: Registry) -> None:
    file = tmp_path / "cache.json"
    file.write_text(export(bundled, "wan2.1/t2v-14b", "seed").text, encoding="utf-8")
    (config,) = cache_json.read(file, ["wan2.1", "t2v-14b"])
    assert (config.coefficients, config.fit_length) == (tuple(WAN_RETENTION), 75600)


@pytest.mark.parametrize("engine", [name for name, each in ENGINES.items() if not each.server])
def test_every_file_names_record_revision_and_version_and_is_the_same_twice(
    engine: str, make_registry: Make, record: Record
) -> None:
    from easyteacache import __version__

    key, changes = _suitable(engine)
    registry = make_registry(record(key, **changes))
    first, second = (export(registry, key, engine, allow={"window", "signal", "mask"}).text for _ in range(2))
    assert first == second
    for part in (key, __version__, "revision"):
        assert part in first
    assert first.endswith("\n")


def _suitable(engine: str) -> tuple[str, dict[str, Any]]:
    """A record that the engine takes."""
    if ENGINES[engine].plan == "schedule":
        point = {"schedule": [0, 1, 2, 4, 9, 19], "evidence": "replayed"}
        return "wan2.1/t2v-14b", {"bucket": {"operating_points": [point]}}
    if engine == "diffusers":
        return "any/model", {"signal": "first_block_residual", "bucket": {"coefficients": [1.0, 0.0], "domain": None}}
    if engine == "nunchaku":
        return "flux.1/dev", {"bucket": {"coefficients": FLUX, "domain": None}}
    wan = engine in ("sglang", "tensorrt-llm", "lightx2v", "wan2gp")
    if engine == "seed":
        return "wan2.1/t2v-14b", {"signal": "timestep_projection"}
    return ("wan2.1/t2v-14b", {"signal": "timestep_embedding"}) if wan else ("flux.1/dev", {})


def test_small_numbers_survive_yaml_1_1(make_registry: Make, record: Record) -> None:
    bucket = {"coefficients": [1e-05, 2e22, 0.5], "domain": None}
    registry = make_registry(record("wan2.1/t2v-14b", signal="timestep_embedding", bucket=bucket))
    section = yaml.safe_load(export(registry, "wan2.1/t2v-14b", "tensorrt-llm").text)["cache_config"]
    assert section["coefficients"] == [1e-05, 2e22, 0.5]
