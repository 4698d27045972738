"""The recorder against brute force on tensors that are kept."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from easyteacache.errors import InvalidSignal, InvalidTrace, StepOrderError
from easyteacache.recording.recorder import Recorder
from easyteacache.records.model_identity import ModelIdentity
from easyteacache.records.sampler import SamplerRecord, euler_map
from easyteacache.records.trace_set import Trace
from easyteacache.runtime.tensor_math import relative_l1

STEPS, GUIDANCE = 7, 3.0
SIGNALS = ("timestep_projection", "modulated_input")
SIGMAS = np.linspace(1.0, 0.0, STEPS + 1)


@dataclass
class Forward:
    """What one forward of one branch shows to a recorder."""

    block_input: Tensor
    block_output: Tensor
    signals: dict[str, Tensor]
    output: Tensor

    @property
    def residual(self) -> np.ndarray:
        return (self.block_output - self.block_input).double().flatten().numpy()


def forwards(seed: int, *, tokens: int = 48, channels: int = 24) -> list[Forward]:
    """A smooth run: every tensor moves along a random quadratic."""
    generator = torch.Generator().manual_seed(seed)

    def path(*shape: int) -> list[Tensor]:
        parts = torch.randn(3, *shape, generator=generator)
        return [parts[0] + t * parts[1] + t * t * parts[2] for t in torch.linspace(0, 1, STEPS)]

    streams = [path(1, tokens, channels), path(1, tokens, channels), path(1, 6, channels), path(1, tokens, channels)]
    outputs = path(1, 4, 2, 6, 4)
    return [
        Forward(x, x + r, {"timestep_projection": t, "modulated_input": m}, out)
        for x, r, t, m, out in zip(*streams, outputs, strict=True)
    ]


def record(recorder: Recorder, branches: dict[str, list[Forward]], **fields) -> Trace:
    for step in range(STEPS):
        for branch, run in branches.items():
            one = run[step]
            recorder.observe(
                step,
                branch=branch,
                timestep=1000.0 * SIGMAS[step],
                signals=one.signals,
                block_input=one.block_input,
                block_output=one.block_output,
            )
            recorder.observe_output(step, branch=branch, output=one.output)
    known = {"model_key": "reference/moving-digits", "sigmas": SIGMAS, "guidance_scale": GUIDANCE, **fields}
    return recorder.finish(**known)


@pytest.fixture(scope="module")
def run() -> dict[str, list[Forward]]:
    return {"cond": forwards(1), "uncond": forwards(2)}


@pytest.fixture(scope="module")
def trace(run) -> Trace:
    return record(Recorder(signals=SIGNALS), run, prompt="7 down", seed=5)


def test_branch_grams_equal_brute_force(run, trace):
    for branch, steps in run.items():
        rows = np.stack([one.residual for one in steps])
        np.testing.assert_allclose(trace.grams[branch], rows @ rows.T, rtol=1e-12)


def test_guided_grams_equal_brute_force(run, trace):
    cond, uncond = (np.stack([one.residual for one in run[name]]) for name in ("cond", "uncond"))
    guided = uncond + GUIDANCE * (cond - uncond)
    np.testing.assert_allclose(trace.grams["guided"], guided @ guided.T, rtol=1e-10)
    cond, uncond = (np.stack([one.output.double().flatten() for one in run[name]]) for name in ("cond", "uncond"))
    guided = uncond + GUIDANCE * (cond - uncond)
    np.testing.assert_allclose(trace.grams["output:guided"], guided @ guided.T, rtol=1e-10)


def test_products_across_branches_equal_brute_force(run, trace):
    of_residuals = [np.stack([one.residual for one in run[name]]) for name in ("cond", "uncond")]
    np.testing.assert_allclose(trace.grams["cond*uncond"], of_residuals[0] @ of_residuals[1].T, rtol=1e-10, atol=1e-9)
    of_outputs = [np.stack([one.output.double().flatten() for one in run[name]]) for name in ("cond", "uncond")]
    found = trace.grams["output:cond*output:uncond"]
    np.testing.assert_allclose(found, of_outputs[0] @ of_outputs[1].T, rtol=1e-10, atol=1e-9)


def test_features_are_recorded_where_they_are_asked_for(run, trace):
    assert not any(name.startswith("feature:") for name in trace.grams)
    kept = record(Recorder(signals=SIGNALS, features=True), run)
    rows = {name: np.stack([one.block_output.double().flatten() for one in run[name]]) for name in run}
    guided = rows["uncond"] + GUIDANCE * (rows["cond"] - rows["uncond"])
    for name, expected in {
        "feature:cond": rows["cond"] @ rows["cond"].T,
        "feature:uncond": rows["uncond"] @ rows["uncond"].T,
        "feature:cond*feature:uncond": rows["cond"] @ rows["uncond"].T,
        "feature:guided": guided @ guided.T,
    }.items():
        np.testing.assert_allclose(kept.grams[name], expected, rtol=1e-10, atol=1e-9)
    others = {name: gram for name, gram in kept.grams.items() if not name.startswith("feature:")}
    assert set(others) == set(trace.grams)
    assert all(np.array_equal(gram, trace.grams[name]) for name, gram in others.items())


def test_model_sampler_and_map_are_kept(run):
    sampler, sampler_map = SamplerRecord.euler(tuple(SIGMAS)), euler_map(SIGMAS)
    model = ModelIdentity(class_name="ExampleTransformer3DModel", dtype="bfloat16")
    kept = record(Recorder(signals=SIGNALS), run, model=model, sampler=sampler, sampler_map=sampler_map)
    assert (kept.header.model, kept.header.sampler) == (model, sampler)
    assert np.array_equal(kept.sampler_map, sampler_map)
    unsaid = record(Recorder(signals=SIGNALS), run, model=ModelIdentity(class_name="A"))
    assert unsaid.header.model == ModelIdentity(class_name="A", dtype="float32")
    assert (unsaid.header.sampler, unsaid.sampler_map) == (None, None)


def test_distances_are_those_the_gate_measures(run, trace):
    for branch, steps in run.items():
        for name in SIGNALS:
            pairs = itertools.pairwise(steps)
            expected = [relative_l1(b.signals[name], a.signals[name]) for a, b in pairs]
            assert trace.signal_distances[name][branch].tolist() == expected
        expected = [relative_l1(b.block_output, a.block_output) for a, b in itertools.pairwise(steps)]
        assert trace.output_distances[branch].tolist() == expected


def test_the_header_says_what_was_seen(trace):
    header = trace.header
    assert (header.sequence_length, header.num_steps, header.batch_size) == (48, STEPS, 1)
    assert (header.branches, header.signals, header.model.dtype) == (("cond", "uncond"), SIGNALS, "float32")
    assert (header.prompt, header.seed, header.sketch) == ("7 down", 5, None)


def test_a_prompt_that_may_not_be_published_leaves_only_its_hash(run):
    trace = record(Recorder(signals=SIGNALS), run, prompt="secret", publish_prompt=False)
    assert trace.header.prompt is None
    assert trace.header.prompt_sha256 == "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"


def test_one_branch_has_no_guided_gram(run):
    trace = record(Recorder(signals=SIGNALS), {"cond": run["cond"]})
    assert set(trace.grams) == {"cond", "output:cond"}


def error_norms(gram: np.ndarray) -> np.ndarray:
    """‖r_j − (2 r_{j−1} − r_{j−2})‖: a linear forecast's error at each step, far smaller than r itself."""
    weights = np.zeros((STEPS - 2, STEPS))
    for j in range(2, STEPS):
        weights[j - 2, j - 2 : j + 1] = (1.0, -2.0, 1.0)
    return np.sqrt(np.einsum("ij,jk,ik->i", weights, gram, weights))


def test_a_count_sketch_keeps_forecast_errors_within_its_stated_error(run):
    grams = record(Recorder(signals=SIGNALS), run).grams
    exact = {name: error_norms(gram) for name, gram in grams.items() if "*" not in name}
    wrong = []
    for seed in range(40):
        trace = record(Recorder(signals=SIGNALS, sketch="count", dimension=256, seed=seed), run)
        stated = trace.header.sketch.relative_error
        wrong += [
            (error_norms(trace.grams[name]) / norms - 1).mean() for name, norms in exact.items() if ":" not in name
        ]
    assert stated == pytest.approx((1 / 512) ** 0.5)
    assert np.sqrt(np.mean(np.square(wrong))) < 1.2 * stated
    assert abs(np.mean(wrong)) < 0.3 * stated


def test_a_sketch_no_shorter_than_the_residual_is_exact(run, trace):
    sketched = record(Recorder(signals=SIGNALS, sketch="count", dimension=48 * 24), run)
    assert sketched.header.sketch.relative_error == 0.0
    for name, gram in trace.grams.items():
        np.testing.assert_allclose(sketched.grams[name], gram, rtol=1e-5)


def test_a_token_sample_states_an_error_that_holds(run):
    exact = error_norms(record(Recorder(signals=SIGNALS), run).grams["cond"])
    wrong, stated = [], []
    for seed in range(40):
        trace = record(Recorder(signals=SIGNALS, sketch="tokens", dimension=12 * 24, seed=seed), run)
        wrong.append((error_norms(trace.grams["cond"]) / exact - 1).mean())
        stated.append(trace.header.sketch.relative_error)
    assert np.sqrt(np.mean(np.square(wrong))) < 1.5 * np.mean(stated)


def test_sampled_distances_come_close_to_whole_ones(run, trace):
    sampled = record(Recorder(signals=SIGNALS, sketch="count", sample=400), run)
    whole = trace.signal_distances["timestep_projection"]["cond"]
    assert np.array_equal(sampled.signal_distances["timestep_projection"]["cond"], whole)
    for name in ("output_distances", "residual_distances"):
        np.testing.assert_allclose(getattr(sampled, name)["cond"], getattr(trace, name)["cond"], rtol=0.1)


def test_memory_does_not_grow_with_the_model():
    held = []
    for tokens in (256, 4096):
        recorder = Recorder(signals=SIGNALS, sketch="count", dimension=512, sample=1024)
        record(recorder, {name: forwards(seed, tokens=tokens) for seed, name in enumerate(("cond", "uncond"))})
        held.append(recorder.nbytes)
    assert held[0] == held[1] < 2 * (2 * STEPS * 512 + 5 * 1024) * 4


def test_features_cost_one_sketch_more_a_forward(run):
    held = []
    for features in (False, True):
        recorder = Recorder(signals=SIGNALS, sketch="count", dimension=512, sample=256, features=features)
        for step in range(STEPS):
            one = run["cond"][step]
            recorder.observe(step, timestep=1.0, signals=one.signals, block_input=one.block_input,
                             block_output=one.block_output)  # fmt: skip
        held.append(recorder.nbytes)
    assert held[1] - held[0] == STEPS * 512 * 4


def test_nothing_is_held_beside_a_sketch_between_begin_and_end():
    recorder = Recorder(sketch="count", dimension=64, sample=64)
    block_input = torch.randn(1, 4096, 24)
    recorder.begin(0, timestep=1.0, block_input=block_input)
    assert recorder.nbytes <= 2 * 64 * 4
    block_input.zero_()  # a model may reuse the buffer: the recorder has its own copy
    recorder.end(torch.zeros(1, 4096, 24))
    assert recorder._branches["cond"].residual_rows[0].abs().sum() > 0


def test_steps_out_of_order_are_refused(run):
    recorder = Recorder()
    one = run["cond"][0]
    with pytest.raises(StepOrderError, match="no step"):
        recorder.end(one.block_output)
    with pytest.raises(StepOrderError, match="in order"):
        recorder.begin(1, timestep=1.0, block_input=one.block_input)
    recorder.begin(0, timestep=1.0, block_input=one.block_input)
    with pytest.raises(StepOrderError, match="in order"):
        recorder.begin(1, timestep=0.9, block_input=one.block_input)
    with pytest.raises(StepOrderError, match="output"):
        recorder.observe_output(0, output=one.output)


def test_an_interrupted_run_cannot_be_finished(run):
    recorder = Recorder()
    with pytest.raises(StepOrderError, match="nothing"):
        recorder.finish(model_key="a/b", sigmas=SIGMAS)
    one = run["cond"][0]
    for branch in ("cond", "uncond"):
        recorder.observe(
            0, branch=branch, timestep=1.0, signals={}, block_input=one.block_input, block_output=one.block_output
        )
    recorder.begin(1, branch="cond", timestep=0.9, block_input=one.block_input)
    with pytest.raises(StepOrderError, match="interrupted"):
        recorder.finish(model_key="a/b", sigmas=SIGMAS)


def test_signals_are_those_announced_and_all_of_them(run):
    one = run["cond"][0]
    recorder = Recorder(signals=SIGNALS)
    recorder.begin(0, timestep=1.0, block_input=one.block_input)
    with pytest.raises(InvalidSignal, match="not one of the signals"):
        recorder.observe_signal("hidden_states", one.block_input)
    recorder.observe_signal("modulated_input", one.signals["modulated_input"])
    recorder.end(one.block_output)
    with pytest.raises(InvalidSignal, match="0 of 1 steps"):
        recorder.finish(model_key="a/b", sigmas=(1.0, 0.0))


def test_nan_in_a_residual_is_refused(run):
    broken = forwards(3)
    broken[4].block_output[0, 0, 0] = float("nan")
    with pytest.raises(InvalidTrace) as caught:
        record(Recorder(signals=SIGNALS), {"cond": broken})
    assert caught.value.rule == "trace.nan"


def test_a_header_that_breaks_a_rule_is_refused(run):
    with pytest.raises(InvalidTrace, match="shift") as caught:
        record(Recorder(signals=SIGNALS), run, shift=-1.0)
    assert caught.value.rule == "trace.header"


def test_half_precision_residuals_have_exact_products(run):
    steps = [Forward(f.block_input.bfloat16(), f.block_output.bfloat16(), {}, f.output) for f in run["cond"]]
    rows = np.stack([one.residual for one in steps])
    trace = record(Recorder(), {"cond": steps})
    np.testing.assert_allclose(trace.grams["cond"], rows @ rows.T, rtol=1e-12)
    assert trace.header.model.dtype == "bfloat16"


def test_contradictory_arguments_are_refused():
    with pytest.raises(ValueError, match="1 or more"):
        Recorder(dimension=0)
    with pytest.raises(ValueError, match="both reduce and shard"):
        Recorder(reduce=lambda tensor: tensor)
    with pytest.raises(InvalidSignal, match="batch, tokens, channels"):
        Recorder().begin(0, timestep=1.0, block_input=torch.zeros(4, 8))
