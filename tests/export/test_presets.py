"""Presets: settings of another engine's method go to the engines that run that method, whole, and to nobody else."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from easyteacache.errors import ExportRefused, InvalidCalibration
from easyteacache.export import ENGINES, export, presets, read, write
from easyteacache.policy.request import RunContext, request_and_run
from easyteacache.records.calibration import Calibration
from easyteacache.records.preset import Preset
from easyteacache.registry.registry import Found, Registry

Run = Callable[..., Result]
DBCACHE = {"cache-dit", "sglang-cache-dit", "sglang-request", "vllm-omni"}
#: Who runs which method; every other pair is refused.
RUNS = {
    ("cache-dit", "DBCache"): DBCACHE,
    ("SGLang", "DBCache"): DBCACHE,
    ("vLLM-Omni", "DBCache"): DBCACHE,
    ("cache-dit", "DBCache + TaylorSeer"): DBCACHE,
    ("vLLM-Omni", "DBCache + TaylorSeer"): DBCACHE,
    ("cache-dit", "DBCache with a step mask"): {"cache-dit"},
    ("diffusers", "FirstBlockCache"): {"diffusers"},
    ("ParaAttention", "FirstBlockCache"): {"diffusers"},
    ("diffusers", "TaylorSeer"): {"diffusers"},
    ("nunchaku", "FirstBlockCache"): {"nunchaku"},
    ("nunchaku", "Double FirstBlockCache"): {"nunchaku"},
    ("xDiT", "FirstBlockCache"): {"xdit"},
    ("LightX2V", "Custom"): {"lightx2v"},
    ("LightX2V", "FirstBlockCache"): {"lightx2v"},
    ("LightX2V", "DualBlockCache"): {"lightx2v"},
    ("LightX2V", "DynamicBlockCache"): {"lightx2v"},
    ("vLLM-Omni", "SeaCache"): {"vllm-omni"},
}


def record_of(*offered: Preset, steps: int | None = 20, speedups: tuple[float | None, ...] = ()) -> Calibration:
    points = []
    for place, preset in enumerate(offered):
        evidence = {"kind": "published", "how": "reported", "speedup": (speedups or (None,) * len(offered))[place]}
        points.append({"preset": preset.model_dump(mode="json"), "evidence": [evidence]})
    content = {
        "schema_version": 3,
        "model_key": "flux.1/dev/mine",
        "revision": 1,
        "status": "draft",
        "title": "Made for tests",
        "modality": "image",
        "method": "preset",
        "signal": "none",
        "buckets": [{"operating_points": points} | ({} if steps is None else {"num_steps": steps})],
        "provenance": {},
    }
    return Calibration.from_mapping(content)


def written(record: Calibration, engine: str, *asked: Any) -> Any:
    return write(Found(record, "given", record.model_key), ENGINES[engine], *asked)


def refused(record: Calibration, engine: str, *asked: Any) -> ExportRefused:
    with pytest.raises(ExportRefused) as caught:
        written(record, engine, *asked)
    return caught.value


def dbcache(engine: str = "cache-dit", **changes: Any) -> Preset:
    told = {"Fn": 4, "Bn": 2, "max_warmup_steps": 3, "max_continuous_cached_steps": 5, "residual_diff_threshold": 0.2}
    return Preset(engine=engine, method="DBCache", parameters=told | changes)


def test_every_published_preset_goes_to_who_runs_it_and_to_nobody_else(bundled: Registry) -> None:
    seen = set()
    for key in bundled:
        for bucket in bundled[key].buckets:
            for preset in (point.preset for point in bucket.operating_points if point.preset is not None):
                expected = RUNS.get((preset.engine, preset.method), set())
                assert set(presets.engines_for(preset)) == expected, (key, preset)
                seen.add((preset.engine, preset.method))
                for engine in ENGINES:
                    if engine not in expected and engine not in ("json", "python"):
                        with pytest.raises(presets.Unwritable):
                            presets.settings(engine, preset)
    # What SGLang and vLLM-Omni call SeaCache has settings of the reference's that they spell otherwise.
    assert set(RUNS) - {("LightX2V", "Custom")} <= seen | {("LightX2V", "Custom")}


def test_cache_dit_loads_the_settings_of_a_preset(bundled: Registry, tmp_path: Path) -> None:
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
    cache_dit = pytest.importorskip("cache_dit")
    for key in (key for key in bundled if bundled[key].method == "preset"):
        try:
            exported = export(bundled, key, "cache-dit")
        except ExportRefused:
            continue
        file = tmp_path / "cache.yaml"
        file.write_text(exported.text, encoding="utf-8")
        config = cache_dit.load_configs(str(file))["cache_config"]
        told = yaml.safe_load(exported.text)["cache_config"]
        for name in ("Fn_compute_blocks", "Bn_compute_blocks", "max_warmup_steps", "residual_diff_threshold"):
            if name in told:
                assert getattr(config, name) == told[name], (key, name)
        mask = told.get("steps_computation_mask")
        assert mask is None or (config.steps_computation_mask, config.steps_computation_policy) == (mask, "dynamic")


def test_diffusers_makes_the_configuration_of_a_preset(bundled: Registry) -> None:
    hooks = pytest.importorskip("diffusers.hooks")
    made = {}
    for key in ("flux.1/dev/firstblockcache", "qwen-image/firstblockcache", "flux.1/dev/taylorseer-modules"):
        scope: dict[str, Any] = {}
        exec(export(bundled, key, "diffusers").text, scope)
        made[key] = scope["config"]
    assert isinstance(made["flux.1/dev/firstblockcache"], hooks.FirstBlockCacheConfig)
    assert (
        made["flux.1/dev/firstblockcache"].threshold == 0.06
    )  # ParaAttention's, the one of its method that diffusers runs.
    assert made["qwen-image/firstblockcache"].threshold == 0.2
    taylor = made["flux.1/dev/taylorseer-modules"]
    assert isinstance(taylor, hooks.TaylorSeerCacheConfig)
    assert (taylor.cache_interval, taylor.max_order, taylor.disable_cache_before_step) == (5, 1, 10)


def test_a_class_whose_blocks_diffusers_does_not_register_gets_no_preset(bundled: Registry) -> None:
    content = bundled["flux.1/dev/firstblockcache"].model_dump(mode="json") | {
        "model_key": "chroma/mine",
        "aliases": [],
    }
    record = Calibration.from_mapping(content)
    assert refused(record, "diffusers").rules == ("model",)


def test_the_call_for_nunchaku_and_xdit_has_the_published_numbers(bundled: Registry) -> None:
    expected = {
        ("flux.1/dev/firstblockcache", "nunchaku"): {"residual_diff_threshold": 0.12},
        ("flux.1/dev/firstblockcache-double", "nunchaku"): {
            "use_double_fb_cache": True,
            "residual_diff_threshold_multi": 0.09,
            "residual_diff_threshold_single": 0.12,
        },
        ("flux.1/dev/firstblockcache", "xdit"): {"use_cache": "Fb", "rel_l1_thresh": 0.12},
    }
    for (key, engine), told in expected.items():
        tree = ast.parse(export(bundled, key, engine).text)
        (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        assert {word.arg: ast.literal_eval(word.value) for word in call.keywords} == told


def test_every_engine_of_dbcache_gets_every_setting_under_its_own_names() -> None:
    record = record_of(dbcache("vLLM-Omni", enable_taylorseer=True))
    variables = written(record, "sglang-cache-dit").text.splitlines()
    assert {
        "SGLANG_CACHE_DIT_ENABLED=true",
        "SGLANG_CACHE_DIT_FN=4",
        "SGLANG_CACHE_DIT_BN=2",
        "SGLANG_CACHE_DIT_WARMUP=3",
        "SGLANG_CACHE_DIT_MC=5",
        "SGLANG_CACHE_DIT_RDT=0.2",
        "SGLANG_CACHE_DIT_TAYLORSEER=true",
    } == {line for line in variables if not line.startswith("#")}
    told = {
        "Fn_compute_blocks": 4,
        "Bn_compute_blocks": 2,
        "max_warmup_steps": 3,
        "max_continuous_cached_steps": 5,
        "residual_diff_threshold": 0.2,
        "enable_taylorseer": True,
    }
    request = json.loads(written(record, "sglang-request").text)
    assert (request["enable_cache_dit"], request["cache_dit_params"]) == (True, told)
    config = json.loads(written(record, "vllm-omni").text)
    assert {name: value for name, value in config.items() if name != "_easyteacache"} == told
    section = yaml.safe_load(written(record, "cache-dit").text)["cache_config"]
    assert section == {"num_inference_steps": 20} | told


def test_what_an_engine_cannot_be_told_is_refused() -> None:
    for engine in ("sglang-cache-dit", "sglang-request", "vllm-omni"):
        assert "warmup_interval" in str(refused(record_of(dbcache(warmup_interval=2)), engine))
        assert "warmup_interval" not in written(record_of(dbcache(warmup_interval=1)), engine).text
    assert "warmup_interval: 2" in written(record_of(dbcache(warmup_interval=2)), "cache-dit").text
    incomplete = Preset(engine="cache-dit", method="DBCache", parameters={"Fn": 8, "Bn": 0})
    error = refused(record_of(incomplete), "vllm-omni")
    assert error.rules == ("method",)
    assert "does not say max_warmup_steps, residual_diff_threshold" in str(error)
    assert "no setting odd" in str(refused(record_of(dbcache(odd=1)), "cache-dit"))


@pytest.mark.parametrize("engine", sorted(DBCACHE))
@pytest.mark.parametrize("value", ["$(touch owned)", "8; touch owned", "1, x: {a: b}", "8", (1, "$(touch owned)")])
def test_a_text_where_a_number_belongs_reaches_no_file(engine: str, value: Any) -> None:
    error = refused(record_of(dbcache(Fn=value)), engine)
    assert error.rules == ("method",)
    assert "Fn is" in str(error)
    assert "expected a number, true or false" in str(error)


def test_the_policy_of_a_mask_is_one_of_two_words() -> None:
    def masked(policy: str) -> Calibration:
        parameters = {**dbcache().parameters, "steps_computation_mask": (1, 0), "steps_computation_policy": policy}
        kept = {
            name: parameters[name]
            for name in presets.rule_for("cache-dit", with_mask(parameters)).names
            if name in parameters
        }  # type: ignore[union-attr]
        return record_of(with_mask(kept | {"Fn_compute_blocks": 8, "Bn_compute_blocks": 0}))

    def with_mask(parameters: dict[str, Any]) -> Preset:
        return Preset(engine="cache-dit", method="DBCache with a step mask", parameters=parameters)

    assert "steps_computation_policy: dynamic" in written(masked("dynamic"), "cache-dit").text
    assert "expected 'static' or 'dynamic'" in str(refused(masked("static # x: y"), "cache-dit"))


def test_a_files_text_where_a_number_belongs_makes_no_preset() -> None:
    text = 'cache_config: {Fn_compute_blocks: "$(touch owned)", Bn_compute_blocks: 0}\n'
    with pytest.raises(InvalidCalibration, match=r"Fn_compute_blocks is .*expected a number, true or false"):
        read(text, "cache-dit", file="f", model_key="flux.1/dev/mine", title=None, modality="image")


def test_an_unlimited_run_is_minus_one_everywhere() -> None:
    preset = dbcache(max_continuous_cached_steps="unlimited (0 as printed)")
    for engine in DBCACHE:
        assert presets.settings(engine, preset)["max_continuous_cached_steps"] == -1


def test_of_several_presets_the_engines_own_goes_first_and_a_speedup_chooses() -> None:
    record = record_of(
        dbcache("cache-dit", Fn=8), dbcache("SGLang", Fn=1), dbcache("vLLM-Omni", Fn=2), speedups=(2.0, 1.5, 3.0)
    )
    assert written(record, "cache-dit").numbers.preset.engine == "cache-dit"
    fast = written(record, "vllm-omni", *request_and_run(speedup=1.8)).numbers
    assert (fast.preset.parameters["Fn"], fast.speedup) == (8, 2.0)
    assert refused(record, "vllm-omni", *request_and_run(speedup=9.0)).rules == ("threshold",)
    assert "1.5, 2, 3" in str(refused(record, "vllm-omni", *request_and_run(speedup=9.0)))
    assert refused(record, "vllm-omni", *request_and_run(threshold=0.1)).rules == ("threshold",)
    assert refused(record, "vllm-omni", *request_and_run(num_steps=28)).rules == ("steps",)
    assert (
        written(record_of(dbcache(), steps=None), "cache-dit", *request_and_run(num_steps=28)).numbers.num_steps == 28
    )


def test_a_preset_published_for_another_engine_says_for_which(bundled: Registry) -> None:
    remarks = export(bundled, "qwen-image/2.1/dbcache", "vllm-omni").remarks
    assert any("published for SGLang, which runs the same method" in remark for remark in remarks)
    assert not any("published for" in remark for remark in export(bundled, "flux.1/dev/dbcache", "cache-dit").remarks)


@pytest.mark.parametrize("engine", sorted(DBCACHE))
@pytest.mark.parametrize("taylor", [False, True])
def test_dbcache_comes_back_from_every_engines_file(engine: str, taylor: bool) -> None:
    preset = (
        dbcache(taylorseer=taylor) if not taylor else dbcache().model_copy(update={"method": "DBCache + TaylorSeer"})
    )
    text = written(record_of(preset), engine).text
    (draft,) = read(text, engine, file="f", model_key="flux.1/dev/mine", title=None, modality="image")
    (point,) = draft.record.buckets[0].operating_points
    assert draft.record.method == "preset"
    assert point.preset is not None
    assert point.preset.method == ("DBCache + TaylorSeer" if taylor else "DBCache")
    assert presets.settings(engine, point.preset) == presets.settings(engine, preset)


def test_lightx2v_continues_linearly_where_the_point_was_judged_so(
    make_registry: Callable[..., Registry], record: Callable[..., Calibration]
) -> None:
    points = [{"threshold": 0.26, "evidence": "replayed", "forecaster": "linear"}]
    wan = record("wan2.1/t2v-14b", signal="timestep_embedding", bucket={"operating_points": points})
    exported = export(make_registry(wan), "wan2.1/t2v-14b", "lightx2v")
    assert json.loads(exported.text)["feature_caching"] == "Custom"
    assert not any("forecaster" in remark for remark in exported.remarks)
    draft = read(exported.text, "lightx2v", file="f", model_key=None, title=None, modality="video")[0]
    assert draft.record.buckets[0].operating_points[0].predictor == "linear"
    other = [{"threshold": 0.26, "evidence": "replayed", "forecaster": "quadratic"}]
    kept = export(
        make_registry(record("wan2.1/t2v-14b", signal="timestep_embedding", bucket={"operating_points": other})),
        "wan2.1/t2v-14b",
        "lightx2v",
    )
    assert json.loads(kept.text)["feature_caching"] == "Tea"
    assert any("forecaster quadratic" in remark for remark in kept.remarks)


def test_custom_presets_take_the_authors_two_lists_from_the_registry(
    bundled: Registry, make_registry: Callable[..., Registry]
) -> None:
    content = json.loads(export(bundled, "wan2.1/t2v-1.3b/teacache-taylor", "lightx2v").text)
    lists = [bundled[key].buckets[0].coefficients for key in ("wan2.1/t2v-1.3b", "wan2.1/t2v-1.3b/no-retention")]
    assert [tuple(each) for each in content["coefficients"]] == lists
    assert (content["feature_caching"], content["teacache_thresh"], content["use_ret_steps"]) == ("Custom", 0.26, False)
    alone = make_registry(bundled["wan2.1/t2v-1.3b/teacache-taylor"])
    with pytest.raises(ExportRefused) as caught:
        export(alone, "wan2.1/t2v-1.3b/teacache-taylor", "lightx2v")
    assert caught.value.rules == ("expert",)


def test_the_commands_write_and_read_plans_and_presets(run: Run, tmp_path: Path) -> None:
    server = tmp_path / "server.json"
    server.write_text(
        json.dumps(
            {
                "pipeline": "QwenImage21PipelineConfig",
                "do_classifier_free_guidance": False,
                "guidance_scale": 1.0,
                "quality": "lossless",
                "attention_backend": "torch_sdpa",
                "scheduler_config_sha256": "a" * 64,
            }
        ),
        encoding="utf-8",
    )
    file = tmp_path / "K.json"
    done = run(
        "export", "qwen-image/2.1/dpcache", "--to", "sglang-dpcache", "--speedup", 3, "--server", server, "--out", file
    )
    assert done.exit_code == 0, done.stderr
    back = run("import", file, "--from", "sglang-dpcache")
    draft = Calibration.from_json(back.stdout)
    assert (draft.model_key, draft.method) == ("qwen-image/2.1/dpcache", "plan")
    assert draft.buckets[0].operating_points[0].schedule == tuple(json.loads(file.read_text("utf-8"))["full_steps"])
    assert draft.buckets[0].sampler is not None
    assert run("export", "qwen-image/2.1/dpcache", "--to", "sglang-dpcache").exit_code == 1
    environment = tmp_path / "server.env"
    assert run("export", "flux.1/dev/dbcache", "--to", "sglang-cache-dit", "--out", environment).exit_code == 0
    again = Calibration.from_json(run("import", environment, "--from", "sglang-cache-dit").stdout)
    assert again.method == "preset"
    masked = run("export", "wan2.1/t2v-14b/lemica", "--to", "stable-diffusion.cpp")
    assert (masked.exit_code, "--allow mask" in masked.stderr) == (1, True)
    assert run("export", "wan2.1/t2v-14b/lemica", "--to", "stable-diffusion.cpp", "--allow", "mask").exit_code == 0


def test_a_preset_is_never_carried_to_steps_that_it_was_not_published_for(bundled: Registry) -> None:
    error = refused(bundled["flux.1/dev/scm-dynamic"], "cache-dit", None, RunContext(num_steps=50))
    assert error.rules == ("steps",)
