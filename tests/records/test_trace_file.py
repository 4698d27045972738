"""Trace files: whole or refused, each defect under its own rule."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load, save

from easyteacache.errors import InvalidTrace
from easyteacache.records import trace_file
from easyteacache.records.trace_set import TraceSet


@pytest.fixture
def data(make_trace) -> bytes:
    return trace_file.encode([make_trace(seed) for seed in range(3)])


def rule_of(data: bytes) -> str:
    with pytest.raises(InvalidTrace) as caught:
        trace_file.decode(data, where="file")
    return caught.value.rule


def taken_apart(data: bytes):
    """(header of the file's metadata, arrays) to edit and put together again as a valid safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["easyteacache"])
    return metadata, {name: np.array(values) for name, values in load(data).items()}


def put_together(metadata, arrays) -> bytes:
    return save(arrays, metadata={"easyteacache": json.dumps(metadata)})


def test_what_is_written_is_read_back_bit_for_bit(make_trace, tmp_path):
    runs = [make_trace(seed) for seed in range(3)]
    reference = trace_file.write(runs, tmp_path / "runs.safetensors")
    read, found = trace_file.read(tmp_path / "runs.safetensors")
    assert found == reference
    assert reference.runs == 3
    for before, after in zip(runs, read, strict=True):
        assert after.run_id == before.run_id
        assert after.header == before.header
        for name, gram in before.grams.items():
            assert np.array_equal(after.grams[name], gram)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(data, share):
    assert rule_of(data[: int(len(data) * share)]) == "trace.truncated"


def test_a_flipped_bit_anywhere_in_the_numbers_is_refused(data):
    start = 8 + struct.unpack("<Q", data[:8])[0]
    for place in np.random.default_rng(0).integers(start, len(data), size=25):
        changed = bytearray(data)
        changed[place] ^= 1
        assert rule_of(bytes(changed)).startswith("trace.")


def test_a_number_edited_in_a_valid_file_breaks_the_hash(data):
    metadata, arrays = taken_apart(data)
    name = next(name for name in arrays if name.endswith("output_distance/cond"))
    arrays[name][0] *= 1.0 + 1e-12
    assert rule_of(put_together(metadata, arrays)) == "trace.hash"


def test_an_edited_header_breaks_the_hash(data):
    metadata, arrays = taken_apart(data)
    next(iter(metadata["runs"].values()))["seed"] = 77
    assert rule_of(put_together(metadata, arrays)) == "trace.hash"


def test_nan_is_refused_under_its_own_rule(data):
    metadata, arrays = taken_apart(data)
    next(values for name, values in arrays.items() if name.endswith("gram/cond"))[2] = np.nan
    assert rule_of(put_together(metadata, arrays)) == "trace.nan"


def test_wrong_shapes_and_number_types_are_refused(data):
    metadata, arrays = taken_apart(data)
    name = next(name for name in arrays if name.endswith("gram/cond"))
    assert rule_of(put_together(metadata, {**arrays, name: arrays[name][:-1]})) == "trace.shape"
    assert rule_of(put_together(metadata, {**arrays, name: arrays[name][None]})) == "trace.shape"
    assert rule_of(put_together(metadata, {**arrays, name: arrays[name].astype(np.float32)})) == "trace.dtype"
    assert rule_of(put_together(metadata, {**arrays, "0123456789abcdef/sigmas": arrays[name]})) == "trace.shape"
    unknown = {**arrays, name.replace("gram", "activations"): arrays[name]}
    assert rule_of(put_together(metadata, unknown)) == "trace.shape"
    del arrays[name]
    assert rule_of(put_together(metadata, arrays)) == "trace.shape"


def test_another_version_is_refused_before_anything_else_is_read(data):
    metadata, arrays = taken_apart(data)
    for version in (0, 3, True, 2.0, "2", None):
        assert rule_of(put_together({**metadata, "trace_version": version, "runs": "?"}, arrays)) == "trace.version"
    for version in (0, 3, "2", None):
        next(iter(metadata["runs"].values()))["trace_version"] = version
        assert rule_of(put_together(metadata, arrays)) == "trace.version"


def test_an_unknown_header_field_is_refused(data):
    metadata, arrays = taken_apart(data)
    next(iter(metadata["runs"].values()))["activations"] = "x"
    assert rule_of(put_together(metadata, arrays)) == "trace.header"


def test_files_of_another_kind_are_refused(data, tmp_path):
    assert rule_of(save({"x": np.zeros(3)})) == "trace.format"
    assert rule_of(b"PK\x03\x04" + b"\xff" * 200) == "trace.size"
    metadata, _ = taken_apart(data)
    assert rule_of(put_together({**metadata, "runs": {}}, {})) == "trace.empty"
    with pytest.raises(InvalidTrace) as caught:
        trace_file.read(tmp_path / "missing.safetensors")
    assert caught.value.rule == "trace.unreadable"


@pytest.mark.parametrize(
    "name",
    ["my runs.safetensors", "läufe.safetensors", ".hidden.safetensors", "a\x1b[2J.safetensors", "con.safetensors"],
)
def test_a_file_that_no_record_could_name_is_refused_before_it_is_written(name, make_trace, tmp_path):
    with pytest.raises(InvalidTrace) as caught:
        trace_file.write([make_trace(0)], tmp_path / name)
    assert caught.value.rule == "trace.name"
    assert list(tmp_path.iterdir()) == []
    trace_file.write([make_trace(0)], tmp_path / "good.safetensors")
    (tmp_path / "good.safetensors").rename(tmp_path / name)
    with pytest.raises(InvalidTrace, match="rename it") as caught:
        trace_file.read(tmp_path / name)
    assert caught.value.rule == "trace.name"


def test_a_header_that_claims_a_huge_array_allocates_nothing(data):
    metadata, _ = taken_apart(data)
    layout = {
        "__metadata__": {"easyteacache": json.dumps(metadata)},
        "x/sigmas": {"dtype": "F64", "shape": [1 << 50], "data_offsets": [0, 8 << 50]},
    }
    text = json.dumps(layout).encode()
    assert rule_of(struct.pack("<Q", len(text)) + text) == "trace.shape"


def test_a_hundred_runs_of_fifty_steps_fit_into_eight_megabytes(make_trace, tmp_path):
    reference = TraceSet([make_trace(seed, steps=50) for seed in range(100)]).save(tmp_path / "many.safetensors")
    assert (tmp_path / "many.safetensors").stat().st_size < 8_000_000
    assert TraceSet.load(tmp_path).files == (reference,)
