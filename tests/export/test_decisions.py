"""Fed with 100 random runs, every engine computes the steps that this project's gate computes, or the export was refused."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import engine_rules as rules
import pytest

from easyteacache.errors import ExportRefused
from easyteacache.export import ENGINES, Exported, export
from easyteacache.export.deviations import engine_window
from easyteacache.export.magcache_rule import engine_plan, magcache_plan, retained_steps
from easyteacache.export.numbers import Numbers
from easyteacache.policy.curves import USUAL_DISTANCES
from easyteacache.policy.policy import resolve
from easyteacache.policy.request import request_and_run
from easyteacache.records.calibration import Calibration
from easyteacache.registry.registry import Registry
from easyteacache.runtime.gate import Gate

Make = Callable[..., Registry]
Record = Callable[..., Calibration]
RUNS = 100
KONTEXT = (-1046.55119, 312.563399, -16.9500694, 0.410995971, 0.0374537863)
FLUX = (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for released wheels, downloaded once a session."""
    return tmp_path_factory.mktemp("wheels")


def gate_decides(numbers: Numbers, distances: Sequence[float], window: tuple[int, int | None]) -> list[int]:
    """Computed steps of this project's gate on one run."""
    first, last = window
    last = len(distances) + last if last is not None and last < 0 else last
    gate = Gate(threshold=numbers.threshold or 0.0, first=first, last=last, max_consecutive_skips=numbers.limit)
    computed = []
    for step, x in enumerate(distances):
        if gate.admits(step, lambda x=x: numbers.curve(x)):  # type: ignore[misc]
            gate.reused(step)
        else:
            gate.computed(step)
            computed.append(step)
    return computed


def random_runs(numbers: Numbers, steps: int, seed: int = 0) -> list[list[float]]:
    """Distances that occur: over the record's domain, or where published models' lie, with p at or above 0."""
    chosen = random.Random(seed)
    low, high = numbers.domain or USUAL_DISTANCES
    places = [low + (high - low) * i / 2000 for i in range(2001)]
    places = [x for x in places if numbers.curve(x) >= 0]
    # Steps near the smallest p reuse long, steps anywhere compute often: both kinds of run.
    places.sort(key=numbers.curve)
    calm = places[: max(len(places) // 8, 1)]
    return [[0.0, *(chosen.choice(calm if run % 2 else places) for _ in range(steps - 1))] for run in range(RUNS)]


def agree(exported: Exported, engine: str, decide: rules.Decide, *, steps: int) -> None:
    """The engine, fed with the exported file, decides as the gate with the window that the export told of."""
    numbers = exported.numbers
    window = engine_window(ENGINES[engine], numbers)
    assert numbers.num_steps in (steps, None)
    reused = 0
    for distances in random_runs(numbers, steps):
        expected = gate_decides(numbers, distances, window)
        assert decide(exported.text, distances) == expected
        reused += steps - len(expected)
    assert reused
    own = (numbers.first, numbers.last)
    if _range(window, steps) != _range(own, steps):
        assert any("allows reuse in steps" in remark for remark in exported.remarks), "another window, and no remark"


def _range(window: tuple[int, int | None], steps: int) -> range:
    first, last = window
    return range(max(first, 1), steps if last is None else (steps + last if last < 0 else last) + 1)


def taken(bundled: Registry, engine: str, method: str = "teacache") -> list[tuple[str, Exported]]:
    """(key, file) of every bundled record whose decisions the engine says it can make."""
    found = []
    for key in bundled:
        if bundled[key].method != method or bundled[key].status == "yanked":
            continue
        steps = bundled[key].buckets[0].num_steps or 30
        for threshold in {point.threshold for point in bundled[key].buckets[0].operating_points} - {None}:
            try:
                found.append(
                    (key, export(bundled, key, engine, *request_and_run(num_steps=steps, threshold=threshold)))
                )
            except ExportRefused:
                continue
    return found


def test_a_threshold_that_reuses_nothing_would_prove_nothing(make_registry: Make, record: Record) -> None:
    numbers = export(make_registry(record("flux.1/dev")), "flux.1/dev", "json").numbers
    shares = {len(gate_decides(numbers, run, (1, None))) for run in random_runs(numbers, 20)}
    assert len(shares) > 3


@pytest.mark.parametrize("engine", ["tensorrt-llm", "comfyui-teacache", "lightx2v"])
def test_every_record_that_is_written_is_decided_alike_by_the_cited_rule(engine: str, bundled: Registry) -> None:
    decide = {"tensorrt-llm": rules.tensorrt_llm, "comfyui-teacache": rules.comfyui, "lightx2v": rules.lightx2v}[engine]
    files = taken(bundled, engine)
    assert files
    for _, exported in files:
        agree(exported, engine, decide, steps=exported.numbers.num_steps or 30)


@pytest.mark.slow
def test_every_record_that_is_written_for_sglang_is_decided_alike_by_its_release(
    bundled: Registry, wheels: Path
) -> None:
    decide = rules.sglang(wheels)
    files = taken(bundled, "sglang")
    assert {key.split("/")[0] for key, _ in files} == {"wan2.1", "wan2.2"}
    for _, exported in files:
        agree(exported, "sglang", decide, steps=exported.numbers.num_steps or 30)


@pytest.mark.slow
def test_every_record_that_is_written_for_vllm_omni_is_decided_alike_by_its_release(
    bundled: Registry, wheels: Path
) -> None:
    decide = rules.vllm_omni(wheels, "FluxTransformer2DModel")
    files = taken(bundled, "vllm-omni")
    assert len(files) > 5
    for key, exported in files:
        if key == "stable-audio-open/1.0":  # Its own threshold reuses nothing, as its notes say.
            continue
        agree(exported, "vllm-omni", decide, steps=exported.numbers.num_steps or 30)


@pytest.mark.slow
def test_every_record_that_is_written_for_xdit_is_decided_alike_by_its_release(bundled: Registry, wheels: Path) -> None:
    decide = rules.xdit(wheels)
    files = taken(bundled, "xdit")
    assert files
    for _, exported in files:
        agree(exported, "xdit", decide, steps=exported.numbers.num_steps or 30)
        assert any("computes 1 of them always, at the start" in remark for remark in exported.remarks)


@pytest.mark.parametrize("steps", range(8, 51))
@pytest.mark.parametrize("decimals", [6, 2])
def test_comfyuis_shares_mean_the_records_window_at_every_step_count(
    steps: int, decimals: int, make_registry: Make, record: Record
) -> None:
    """``start <= k / N <= end``, also after the node's widget rounded to two decimals."""
    for first, last in ((1, -2), (1, -1), (1, -4)):
        window = {"min_skip_step": first, "max_skip_step": last, "num_steps": steps}
        exported = export(make_registry(record("flux.1/dev", bucket=window)), "flux.1/dev", "comfyui-teacache")
        node = rules.assigned(exported.text)["TEACACHE_NODE"]
        low, high = round(node["start_percent"], decimals), round(node["end_percent"], decimals)
        assert [k for k in range(steps) if low <= k / steps <= high] == [*range(first, steps + last + 1)]
        assert node["start_percent"] == pytest.approx((first - 0.5) / steps, abs=1e-6)
        assert node["end_percent"] == pytest.approx((steps + last + 0.5) / steps, abs=1e-6)


def test_comfyui_is_refused_a_window_that_forces_more_than_the_first_step(
    make_registry: Make, record: Record, bundled: Registry
) -> None:
    """Its sum runs on through forced steps, so that even with the right shares it decides otherwise."""
    registry = make_registry(record("flux.1/dev", bucket={"min_skip_step": 4}))
    with pytest.raises(ExportRefused, match="does not reset") as caught:
        export(registry, "flux.1/dev", "comfyui-teacache")
    assert caught.value.rules == ("window",)
    exported = export(registry, "flux.1/dev", "comfyui-teacache", allow={"window"})
    runs = random_runs(exported.numbers, 20)
    window = (exported.numbers.first, exported.numbers.last)
    assert any(rules.comfyui(exported.text, run) != gate_decides(exported.numbers, run, window) for run in runs)


@pytest.mark.parametrize("first", [0, 1])
def test_nunchaku_never_adds_a_residual_that_it_has_not_kept(first: int, make_registry: Make, record: Record) -> None:
    bucket = {"coefficients": FLUX, "domain": None, "min_skip_step": first}
    exported = export(make_registry(record("flux.1/dev", bucket=bucket)), "flux.1/dev", "nunchaku")
    decide = lambda text, run: rules.nunchaku(text, run, coefficients=FLUX)  # noqa: E731
    agree(exported, "nunchaku", decide, steps=20)
    crashing = exported.text.replace("'skip_steps': 0", "'skip_steps': 1")
    with pytest.raises(TypeError):
        [rules.nunchaku(crashing, run, coefficients=FLUX) for run in random_runs(exported.numbers, 20)]
    assert any("deprecated" in remark for remark in exported.remarks)


@pytest.mark.parametrize("first", [2, 3, 6])
def test_nunchaku_is_refused_a_window_that_begins_later(first: int, make_registry: Make, record: Record) -> None:
    bucket = {"coefficients": KONTEXT, "domain": None, "min_skip_step": first}
    registry = make_registry(record("flux.1/kontext-dev", rescale_post="abs", bucket=bucket))
    with pytest.raises(ExportRefused) as caught:
        export(registry, "flux.1/kontext-dev", "nunchaku")
    assert caught.value.rules == ("window",)


@pytest.mark.parametrize(("key", "absolute"), [("wan2.1/t2v-14b/own", True), ("hunyuanvideo/own", False)])
def test_wan2gp_decides_alike_at_the_threshold_and_start_that_it_searches_itself(
    key: str, absolute: bool, make_registry: Make, record: Record
) -> None:
    signal = "timestep_embedding" if absolute else "modulated_input"
    exported = export(make_registry(record(key, signal=signal)), key, "wan2gp")
    numbers = exported.numbers
    for run in random_runs(numbers, 20):
        ours = gate_decides(numbers, run, (numbers.first, -2))
        start = numbers.first - 1
        assert rules.wan2gp(exported.text, run, threshold=0.3, start_step=start, absolute=absolute) == ours


@pytest.mark.parametrize("limit", [None, 3])
def test_the_original_decides_alike_with_the_arguments_that_the_remarks_name(
    limit: int | None, make_registry: Make, record: Record
) -> None:
    bucket = {"max_consecutive_skips": limit}
    exported = export(
        make_registry(record("my/model", signal="timestep_projection", bucket=bucket)), "my/model", "seed"
    )
    numbers = exported.numbers
    told = " ".join(exported.remarks)
    assert "threshold outside this file: 0.3" in told
    assert "from step 1 to 18 of 20" in told
    assert f"max_consecutive_skip outside this file: {limit or 'as many'}" in told
    for run in random_runs(numbers, 20):
        ours = gate_decides(numbers, run, (numbers.first, numbers.last))
        assert rules.seed(exported.text, run, threshold=0.3, first=1, last=18, limit=limit or 20) == ours


def test_an_engine_without_a_limit_is_refused_where_the_limit_would_bind(make_registry: Make, record: Record) -> None:
    free = make_registry(record("flux.1/dev", bucket={"max_consecutive_skips": 8}))
    assert not any("in a row" in remark for remark in export(free, "flux.1/dev", "vllm-omni").remarks)
    bound = make_registry(record("flux.1/dev", bucket={"max_consecutive_skips": 2}))
    with pytest.raises(ExportRefused, match="at most 2 steps in a row") as caught:
        export(bound, "flux.1/dev", "vllm-omni")
    assert caught.value.rules == ("window",)


def test_first_block_cache_is_refused_because_it_measures_otherwise(make_registry: Make, record: Record) -> None:
    bucket = {"coefficients": [1.0, 0.0], "domain": None}
    registry = make_registry(record("any/model", signal="first_block_residual", bucket=bucket))
    with pytest.raises(ExportRefused, match="last computed step") as caught:
        export(registry, "any/model", "diffusers")
    assert "signal" in caught.value.rules


# MagCache -----------------------------------------------------------------------------------------------------------------


def ratios_of(steps: int, seed: int) -> list[float]:
    """Ratios that wander as published ones do: near 1, falling at the end."""
    chosen = random.Random(seed)
    return [1.0, *(round(1 + chosen.uniform(-0.06, 0.03), 5) for _ in range(steps - 1))]


def magcache(record: Record, key: str, seed: int, branches: int = 1, **changes: Any) -> Calibration:
    steps = 12 + seed % 39
    listed = ratios_of(steps, seed)
    bucket = {
        "num_steps": steps,
        "coefficients": None,
        "domain": None,
        "max_skip_step": -1,
        "max_consecutive_skips": 1 + seed % 6,
        "skip_window_fraction": [(seed % 7) / 20, 1.0],
        "magnitude_ratios": [{"branch": name, "ratios": listed} for name in ("cond", "uncond")[:branches]],
        "operating_points": [{"threshold": 0.03 + 0.02 * (seed % 9), "evidence": "reported"}],
    }
    return record(key, method="magcache", signal="unknown", bucket=bucket | changes)


@pytest.mark.slow
def test_vllm_omnis_release_decides_as_magcache_does(make_registry: Make, record: Record, wheels: Path) -> None:
    decide = rules.vllm_omni_magcache(wheels)
    for seed in range(RUNS):
        exported = export(make_registry(magcache(record, "flux.1/dev/own", seed)), "flux.1/dev/own", "vllm-omni")
        assert decide(exported.text, exported.numbers.num_steps or 0) == list(
            magcache_plan(exported.numbers, "cond") or ()
        )


def test_lightx2v_decides_as_magcache_does(make_registry: Make, record: Record) -> None:
    for seed in range(RUNS):
        registry = make_registry(magcache(record, "wan2.1/own", seed, branches=2))
        exported = export(registry, "wan2.1/own", "lightx2v")
        for number, branch in enumerate(("cond", "uncond")):
            decided = rules.lightx2v_magcache(exported.text, number)
            ratios = exported.numbers.ratios[branch]
            assert decided == list(engine_plan(exported.numbers, ratios, within=False) or ())
            same = decided == list(magcache_plan(exported.numbers, branch) or ())
            assert same or any("authors' rule" in remark for remark in exported.remarks)


@pytest.mark.parametrize("engine", ["diffusers", "vllm-omni", "lightx2v"])
def test_every_bundled_list_of_ratios_is_decided_as_this_runtime_does_or_the_file_names_the_steps(
    engine: str, bundled: Registry
) -> None:
    """The rules as restated in ``engine_rules``; the runtime's by ``policy.resolve``, at step counts that nobody measured, too."""
    compared = differing = 0
    for key in (key for key in bundled if bundled[key].method == "magcache"):
        thresholds = {p.threshold for bucket in bundled[key].buckets for p in bucket.operating_points} - {None}
        for threshold, steps in itertools.product(thresholds, (8, 13, 17, 20, 25, 28, 31, 50)):
            request, run = request_and_run(num_steps=steps, threshold=threshold)
            try:
                exported = export(bundled, key, engine, request, run)
            except ExportRefused:
                continue
            if exported.numbers.limit is None or exported.numbers.retention is None:
                continue
            for position, branch in enumerate(exported.numbers.ratios):
                ours = resolve(bundled.find(key), request, run).schedule_of(branch)
                if engine == "lightx2v":
                    theirs = rules.lightx2v_magcache(exported.text, position)
                else:
                    theirs = rules.magcache_hook(exported.text, engine)
                compared += 1
                if theirs != list(ours or ()):
                    differing += 1
                    assert any(
                        f"{len(theirs)} of {steps} in all, not {len(ours or ())}" in each for each in exported.remarks
                    )
    assert compared > differing > 0


def test_fluxs_script_computes_its_first_three_of_28_steps_and_so_do_the_engines(bundled: Registry) -> None:
    """``int(retention_ratio * num_steps + 0.5)`` in MagCache4FLUX/magcache_flux.py:327; step 11 is its own, and told."""
    for engine in ("diffusers", "vllm-omni"):
        exported = export(bundled, "flux.1/dev/magcache", engine)
        assert rules.magcache_hook(exported.text, engine)[:4] == [0, 1, 2, 5]
        (told,) = (remark for remark in exported.remarks if "authors' rule" in remark)
        assert "computes steps 11, 17, 23" in told
        assert "steps 15, 21 instead: 8 of 28 in all, not 9" in told


def test_lightx2v_is_refused_ratios_without_the_parameters_that_it_has_no_default_for(
    make_registry: Make, record: Record
) -> None:
    registry = make_registry(magcache(record, "wan2.1/own", 1, branches=2, max_consecutive_skips=None))
    with pytest.raises(ExportRefused, match="run length and retention") as caught:
        export(registry, "wan2.1/own", "lightx2v")
    assert caught.value.rules == ("threshold",)


@pytest.mark.parametrize(("engine", "name"), [("diffusers", "retention_ratio"), ("vllm-omni", "mag_retention_ratio")])
def test_a_retention_that_an_engine_rounds_is_written_so_that_it_means_the_authors_floor(
    engine: str, name: str, make_registry: Make, record: Record
) -> None:
    """``int(ratio * N + 0.5)`` in both, where most of the authors' scripts round down: 0.1 of 28 steps is 2 then, and not 3."""
    for retention in (0.0, 0.1, 0.2, 0.25, 0.3, 0.99):
        for steps in range(8, 51):
            changes = {"skip_window_fraction": [retention, 1.0]}
            registry = make_registry(magcache(record, "flux.1/dev/own", 5, **changes))
            exported = export(registry, "flux.1/dev/own", engine, *request_and_run(num_steps=steps))
            text = exported.text
            assert retained_steps(exported.numbers, steps) == math.floor(retention * steps)
            content = rules.call(text, "MagCacheConfig") if engine == "diffusers" else rules.json.loads(text)
            assert int(content[name] * steps + 0.5) == math.floor(retention * steps)
            if engine == "vllm-omni":  # Its configuration refuses 0.
                assert 0 < content[name] < 1
