"""Version 1 of traces is read as version 2 says the same, and stays what it is; version 2's arrays survive a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from easyteacache.errors import InvalidTrace
from easyteacache.records import trace_file
from easyteacache.records.model_identity import ActiveAdapter, ModelIdentity
from easyteacache.records.sampler import EULER, SamplerRecord, euler_map, signature_of
from easyteacache.records.trace_set import TraceSet, common_model, one_model

REFERENCE = Path(__file__).parent.parent / "fixtures" / "traces" / "reference"
# The first and the last run's id as the recorder wrote them, in the files' order.
RUN_IDS = {
    name: tuple(json.loads(json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]["easyteacache"])["runs"])
    for name in ("steps-25.safetensors", "steps-50.safetensors")
    for data in [(REFERENCE / name).read_bytes()]
}  # fmt: skip
ADAPTERS = (ActiveAdapter(name="example/lora", scale=0.5),)


@pytest.fixture(params=sorted(RUN_IDS))
def old(request):
    return REFERENCE / request.param


def test_runs_of_version_1_keep_their_ids_and_their_bytes(old):
    runs, reference = trace_file.read(old)
    assert tuple(run.run_id for run in runs) == RUN_IDS[old.name]
    assert reference.sha256 == hashlib.sha256(old.read_bytes()).hexdigest()
    assert trace_file.encode(runs) == old.read_bytes()
    assert TraceSet.merge(TraceSet.load(old), TraceSet.load(old))[0].run_id in RUN_IDS[old.name]


def test_version_1_is_read_as_version_2_says_the_same(old):
    run = trace_file.read(old)[0][0]
    head, recorded = run.header, run.recorded
    assert (recorded.trace_version, head.trace_version) == (1, 2)
    assert head.model == ModelIdentity(checkpoint=recorded.checkpoint, dtype=recorded.dtype)
    assert (head.sampler.name, head.prediction) == (recorded.sampler, recorded.prediction) == (EULER, "velocity")
    assert head.sampler.levels == tuple(run.sigmas)
    assert np.array_equal(run.sampler_map, euler_map(run.sigmas))
    assert head.sampler.signature == signature_of(run.sampler_map)
    assert (head.prompt, head.seed, head.shift, head.num_steps) == (
        recorded.prompt, recorded.seed, recorded.shift, recorded.num_steps)  # fmt: skip


def test_a_run_of_version_1_is_relabelled_in_its_own_version(old, tmp_path):
    run = trace_file.read(old)[0][0]
    relabelled = dataclasses.replace(run, header=run.header.model_copy(update={"seed": 99}))
    # As a release that knows version 1 alone gives it its id.
    told = run.version_1.model_copy(update={"seed": 99})
    by_hand = hashlib.sha256(f"{told.identity()}\0{run.content_id}".encode()).hexdigest()
    assert (relabelled.version_1, relabelled.run_id) == (told, by_hand)
    trace_file.write([relabelled], tmp_path / "new.safetensors")
    (read,) = trace_file.read(tmp_path / "new.safetensors")[0]
    assert (read.run_id, read.header.seed, read.recorded.trace_version) == (by_hand, 99, 1)


@pytest.mark.parametrize("what", ["model", "map", "gram"])
def test_a_run_of_version_1_that_says_more_than_it_can_hold_becomes_one_of_version_2(old, what, tmp_path):
    run = trace_file.read(old)[0][0]
    model = run.header.model.model_copy(update={"class_name": "ExampleTransformer3DModel"})
    changed = {
        "model": {"header": run.header.model_copy(update={"model": model})},
        "map": {"sampler_map": None},
        "gram": {"grams": {**run.grams, "feature:cond": run.grams["cond"]}},
    }[what]
    more = dataclasses.replace(run, **changed)
    assert more.version_1 is None
    assert more.run_id != run.run_id
    trace_file.write([more], tmp_path / "new.safetensors")
    (read,) = trace_file.read(tmp_path / "new.safetensors")[0]
    assert (read.run_id, read.header, read.recorded.trace_version) == (more.run_id, more.header, 2)


def test_old_and_new_runs_share_a_file_and_keep_their_versions(old, make_trace, tmp_path):
    known = trace_file.read(old)[0][:2]
    fresh = make_trace(model_key="reference/moving-digits")
    TraceSet([*known, fresh]).save(tmp_path / "all.safetensors")
    found = {run.run_id: run.recorded.trace_version for run in TraceSet.load(tmp_path / "all.safetensors")}
    assert found == {known[0].run_id: 1, known[1].run_id: 1, fresh.run_id: 2}


def test_a_file_of_version_1_holds_no_run_of_version_2(make_trace):
    data = trace_file.encode([make_trace()])
    metadata = json.loads(json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]["easyteacache"])
    arrays = load(data)
    with pytest.raises(InvalidTrace) as refused:
        trace_file.decode(
            save(arrays, metadata={"easyteacache": json.dumps(metadata | {"trace_version": 1})}), where="x"
        )
    assert refused.value.rule == "trace.version"


@pytest.fixture
def complete(make_trace):
    """A run with everything that version 2 may hold: rows of two branches, three kinds of them, and the sampler's map."""
    trace = make_trace(steps=6)
    random = np.random.default_rng(5)
    grams = {}
    for prefix in ("", "output:", "feature:"):
        rows = {branch: random.normal(size=(6, 9)) for branch in ("cond", "uncond")}
        grams |= {prefix + branch: one @ one.T for branch, one in rows.items()}
        grams[f"{prefix}cond*{prefix}uncond"] = rows["cond"] @ rows["uncond"].T
    grams = {name: gram if "*" in name else (gram + gram.T) / 2 for name, gram in grams.items()}
    sampler = SamplerRecord.euler(tuple(trace.sigmas))
    model = ModelIdentity(class_name="ExampleTransformer3DModel", adapters=ADAPTERS, dtype="bfloat16")
    header = trace.header.model_copy(update={"sampler": sampler, "model": model})
    return dataclasses.replace(trace, header=header, grams=grams, sampler_map=euler_map(trace.sigmas))


def test_every_array_of_version_2_survives_a_file(complete, tmp_path):
    trace_file.write([complete], tmp_path / "new.safetensors")
    (read,) = trace_file.read(tmp_path / "new.safetensors")[0]
    assert read.header == complete.header
    assert read.run_id == complete.run_id
    assert read.content_id == complete.content_id
    assert np.array_equal(read.sampler_map, complete.sampler_map)
    assert set(read.grams) == set(complete.grams)
    for name, gram in complete.grams.items():
        assert np.array_equal(read.grams[name], gram), name


def test_what_version_2_adds_changes_a_runs_id_and_not_its_side_of_a_split(complete, old):
    known = trace_file.read(old)[0][0]
    again = dataclasses.replace(known, header=known.header.model_copy(update={"tool_version": "9"}), version_1=None)
    assert again.content_id == known.content_id
    with pytest.raises(InvalidTrace) as refused:
        TraceSet([known, again])
    assert refused.value.rule == "trace.duplicate"
    for name in ("cond*uncond", "feature:cond", "output:cond*output:uncond"):
        changed = (
            dataclasses.replace(complete, grams={**complete.grams, name: 0.5 * complete.grams[name]})
            if "*" in name
            else dataclasses.replace(complete, grams={**complete.grams, name: 2.0 * complete.grams[name]})
        )
        assert changed.content_id == complete.content_id
        assert changed.run_id != complete.run_id
    without = dataclasses.replace(complete, sampler_map=None)
    assert (without.content_id, without.run_id == complete.run_id) == (complete.content_id, False)


def test_an_edited_sampler_map_breaks_the_hash(complete):
    data = trace_file.encode([complete])
    length = struct.unpack("<Q", data[:8])[0]
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    arrays = {name: np.array(values) for name, values in load(data).items()}
    (name,) = (name for name in arrays if name.endswith("/sampler_map"))
    arrays[name][1] *= 1.0 + 1e-9
    with pytest.raises(InvalidTrace) as refused:
        trace_file.decode(save(arrays, metadata=metadata), where="x")
    assert refused.value.rule == "trace.hash"


def test_cross_products_say_what_the_branches_combine_to(complete):
    """⟨a + b, a + b⟩ = ⟨a, a⟩ + ⟨a, b⟩ + ⟨b, a⟩ + ⟨b, b⟩ of rows that only the test knows."""
    random = np.random.default_rng(5)
    rows = {branch: random.normal(size=(6, 9)) for branch in ("cond", "uncond")}
    together = rows["cond"] + rows["uncond"]
    cross = complete.grams["cond*uncond"]
    combined = complete.grams["cond"] + cross + cross.T + complete.grams["uncond"]
    assert np.allclose(combined, together @ together.T)


def _refused(trace, **changes):
    with pytest.raises(InvalidTrace) as caught:
        dataclasses.replace(trace, **changes)
    return caught.value


def test_cross_products_must_be_possible_together_with_their_branches(complete):
    grams = dict(complete.grams)
    assert _refused(complete, grams={**grams, "cond*uncond": 3.0 * grams["cond*uncond"]}).rule == "trace.gram"
    lone = {name: gram for name, gram in grams.items() if name != "output:cond"}
    error = _refused(complete, grams=lone)
    assert (error.rule, "without gram/output:cond" in error.reason) == ("trace.gram", True)
    assert _refused(complete, grams={**grams, "cond*uncond": grams["cond*uncond"][:-1]}).rule == "trace.shape"
    nan = np.array(grams["cond*uncond"])
    nan[0, 0] = np.nan
    assert _refused(complete, grams={**grams, "cond*uncond": nan}).rule == "trace.nan"


@pytest.mark.parametrize(
    "name", ["uncond*cond", "cond*cond", "cond*other", "cond*output:uncond", "feature:guided*cond"]
)
def test_only_pairs_of_branches_in_their_order_have_cross_products(complete, name):
    assert _refused(complete, grams={**complete.grams, name: complete.grams["cond*uncond"]}).rule == "trace.shape"


def test_a_sampler_map_uses_no_output_that_is_not_there_yet(complete):
    ahead = np.array(complete.sampler_map)
    ahead[2, 4] = 0.1
    assert _refused(complete, sampler_map=ahead).rule == "trace.sampler"
    nan = np.array(complete.sampler_map)
    nan[3, 1] = np.nan
    assert _refused(complete, sampler_map=nan).rule == "trace.nan"
    assert _refused(complete, sampler_map=complete.sampler_map[1:, 1:]).rule == "trace.shape"


def test_a_sampler_map_and_the_header_must_agree(complete):
    other = euler_map(np.linspace(1.0, 0.0, 7) ** 2)
    assert _refused(complete, sampler_map=other).rule == "trace.sampler"
    head = complete.header
    without = head.model_copy(update={"sampler": None})
    assert _refused(complete, header=without).rule == "trace.sampler"
    shifted = SamplerRecord.euler(tuple(np.linspace(1.0, 0.0, 7) ** 2))
    assert (
        _refused(complete, header=head.model_copy(update={"sampler": shifted}), sampler_map=None).rule
        == "trace.sampler"
    )


def test_a_sampler_of_another_number_of_calls_is_refused(complete):
    fields = complete.header.model_dump()
    fields["sampler"] = {"name": "X", "calls": 5}
    with pytest.raises(ValueError, match="expected as often as there are steps, 6"):
        type(complete.header)(**fields)
    fields["total_steps"] = 12
    fields["sampler"] = {"name": "X", "calls": 12}
    assert type(complete.header)(**fields).sampler.calls == 12


def test_runs_of_different_models_or_samplers_are_not_solved_together(make_trace, complete):
    def with_model(seed, **model):
        run = make_trace(seed, steps=6)
        return dataclasses.replace(run, header=run.header.model_copy(update={"model": ModelIdentity(**model)}))

    one_model(TraceSet([with_model(1, class_name="A"), with_model(2, class_name="A"), make_trace(3, steps=6)]))
    for field, values in {"class_name": ("A", "B"), "configuration_sha256": ("1" * 64, "2" * 64),
                          "adapters": (ADAPTERS, (ActiveAdapter(name="other"),))}.items():  # fmt: skip
        with pytest.raises(InvalidTrace, match=f"differ in {field}") as refused:
            one_model(TraceSet([with_model(seed, **{field: value}) for seed, value in enumerate(values)]))
        assert refused.value.rule == "traces.model"
    sampled = [
        dataclasses.replace(run, header=run.header.model_copy(update={"sampler": sampler}))
        for run, sampler in zip(
            [make_trace(seed, steps=6) for seed in range(2)],
            [SamplerRecord.euler(tuple(complete.sigmas)), SamplerRecord(name="UniPCMultistepScheduler", calls=6)],
            strict=True,
        )
    ]
    with pytest.raises(InvalidTrace, match="sampled differently, by FlowMatchEuler") as refused:
        one_model(TraceSet(sampled))
    assert refused.value.rule == "traces.sampler"


def test_what_all_runs_say_of_the_model_is_what_a_record_says(make_trace):
    def with_model(seed, **model):
        run = make_trace(seed)
        return dataclasses.replace(run, header=run.header.model_copy(update={"model": ModelIdentity(**model)}))

    runs = [
        with_model(1, class_name="A", checkpoint="x", dtype="bfloat16"),
        with_model(2, class_name="A", checkpoint="x", dtype="float32"),
    ]
    assert common_model(TraceSet(runs)) == ModelIdentity(class_name="A", checkpoint="x")
    assert common_model(TraceSet([make_trace(1), make_trace(2)])) is None
    assert common_model(TraceSet([make_trace(1, part="high-noise")])) == ModelIdentity(part="high-noise")
