"""Reading model files that nobody vouches for: right on good ones, a ModelFileError on everything else."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand.errors import ModelFileError
from firsthand.formats import gguf_file, safetensors_file
from firsthand.formats.fields import MAX_LAYERS, Fields
from firsthand.formats.gguf_file import READABLE, read_gguf
from firsthand.formats.model_files import read_json, refuse_pickle
from firsthand.formats.safetensors_file import read_safetensors

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A small file with a value of every type and a tensor of every writable quantisation."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -100)
    writer.add_uint16("t.u16", 60_000)
    writer.add_int16("t.i16", -30_000)
    writer.add_uint32("t.u32", 4_000_000_000)
    writer.add_int32("t.i32", -2_000_000_000)
    writer.add_uint64("t.u64", 1 << 63)
    writer.add_int64("t.i64", -(1 << 62))
    writer.add_float32("t.f32", 0.1)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.yes", True)
    writer.add_string("t.text", "naïve Ġ 東京")
    writer.add_array("t.ints", [1, 2, 3])
    writer.add_array("t.floats", [0.5, -1.5])
    writer.add_array("t.words", ["a", "", "東京", "Ġthe"])
    writer.add_array("t.bools", [True, False])
    random = np.random.default_rng(0)
    values = {}
    for kind in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"):
        dtype = gguf.GGMLQuantizationType[kind]
        raw = gguf.quants.quantize(random.standard_normal((3, 2, 256), dtype=np.float32), dtype)
        writer.add_tensor(f"x.{kind}", raw, raw_dtype=dtype)
        values[f"x.{kind}"] = gguf.quants.dequantize(raw, dtype).reshape(3, 2, 256)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def assert_equals_the_gguf_package(path: Path) -> None:
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == fields
    assert {key: type(value) for key, value in ours.metadata.items()} == {k: type(v) for k, v in fields.items()}
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        info = ours.tensors[tensor.name]
        assert info.shape == tuple(int(size) for size in tensor.shape[::-1])
        assert (info.dtype, info.offset, info.nbytes) == (
            tensor.tensor_type.name,
            tensor.data_offset,
            int(tensor.n_bytes),
        )
        np.testing.assert_array_equal(ours.raw(tensor.name), tensor.data.view(np.uint8).reshape(*info.shape[:-1], -1))


def test_gguf_is_read_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    values = write_gguf(tmp_path / "a.gguf")
    assert_equals_the_gguf_package(tmp_path / "a.gguf")
    file = read_gguf(tmp_path / "a.gguf")
    assert file.metadata["t.words"] == ["a", "", "東京", "Ġthe"]
    for name, expected in values.items():
        found = file.dequantise(name)
        assert found.dtype == np.float32 and found.flags.writeable
        np.testing.assert_array_equal(found, expected)


@pytest.mark.weights
def test_the_real_file_is_read_as_the_gguf_package_reads_it(smollm2: Path) -> None:
    assert_equals_the_gguf_package(smollm2)


@pytest.mark.parametrize("kind", READABLE)
def test_every_type_we_call_readable_is(kind: str, tmp_path: Path) -> None:
    dtype = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[dtype]
    raw = np.random.default_rng(0).integers(0, 256, 4 * size * (256 // values), dtype=np.uint8).tobytes()
    path = tmp_path / "a.gguf"
    path.write_bytes(container([], [tensor("x", (256, 4), dtype.value, 0)], raw))
    file = read_gguf(path)
    assert file.shape("x") == (4, 256)
    assert file.dequantise("x").shape == (4, 256)


def test_types_without_a_reading_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(container([], [tensor("x", (4,), gguf.GGMLQuantizationType.I32.value, 0)], bytes(16)))
    file = read_gguf(path)
    with pytest.raises(ModelFileError, match="I32, which cannot be read; these can: F32, F16, BF16"):
        file.dequantise("x")
    with pytest.raises(ModelFileError, match="no tensor 'y'"):
        file.dequantise("y")


# Hostile GGUF, byte by byte


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def tensor(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def container(pairs: list[bytes], tensors: list[bytes], data: bytes = b"", *, version: int = 3, **counts: int) -> bytes:
    num_tensors, num_pairs = counts.get("num_tensors", len(tensors)), counts.get("num_pairs", len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_pairs)
    head += b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def array(kind: int, count: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + payload


def nested(depth: int) -> bytes:
    return array(9, 1) * depth + array(0, 1, b"\x07")


HUGE = (1 << 64) - 1
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "magic": (b"GGML" + bytes(40), "expected b'GGUF'"),
    "pickle": (b"PK\x03\x04" + bytes(40), "pickle"),
    "version": (container([], [], version=1), "version 1"),
    "big_endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "pair_count": (container([], [], num_pairs=HUGE), "metadata pairs"),
    "tensor_count": (container([], [], num_tensors=HUGE), "tensors"),
    "tensor_count_near": (container([], [], bytes(32), num_tensors=2), "tensors"),
    "string_length": (container([pair("k", 8, struct.pack("<Q", HUGE))], []), "string"),
    "string_past_end": (container([pair("k", 8, struct.pack("<Q", 4000) + b"x")], []), "bytes"),
    "key_length": (container([struct.pack("<Q", 1 << 40) + bytes(64)], []), "string"),
    "not_utf8": (container([pair(b"\xff\xfe", 0, b"\1")], []), "UTF-8"),
    "value_type": (container([pair("k", 13, bytes(16))], []), "value type 13"),
    "array_count": (container([pair("k", 9, array(0, HUGE))], []), "arrays hold"),
    "array_count_wraps": (container([pair("k", 9, array(10, 1 << 61, bytes(64)))], []), "arrays hold"),
    "array_past_end": (container([pair("k", 9, array(4, 1000, bytes(64)))], []), "bytes"),
    "string_array_past_end": (container([pair("k", 9, array(8, 1000, bytes(64)))], []), "array values"),
    "array_of_nothing": (container([pair("k", 9, array(77, 3, bytes(64)))], []), "value type 77"),
    "nested": (container([pair("k", 9, nested(5))], []), "nested deeper"),
    "nested_wide": (container([pair("k", 9, array(9, 4_000_000, bytes(64)))], []), "array values"),
    "twice": (container([pair("k", 0, b"\1"), pair("k", 0, b"\1")], []), "'k' comes twice"),
    "alignment_zero": (container([pair("general.alignment", 4, struct.pack("<I", 0))], []), "power of two"),
    "alignment_odd": (container([pair("general.alignment", 4, struct.pack("<I", 48))], []), "power of two"),
    "alignment_text": (container([pair("general.alignment", 8, text("32"))], []), "power of two"),
    "no_dims": (container([], [tensor("x", (), 0, 0) + bytes(64)]), "0 dimensions"),
    "five_dims": (container([], [tensor("x", (1,) * 5, 0, 0)]), "5 dimensions"),
    "zero_dim": (container([], [tensor("x", (4, 0), 0, 0)], bytes(64)), "sizes of 1 or more"),
    "dims_wrap": (container([], [tensor("x", (1 << 32, 1 << 32), 0, 0)], bytes(64)), "below 2\\*\\*63"),
    "dims_wrap_once_in_bytes": (container([], [tensor("x", (1 << 31, 1 << 31), 0, 0)], bytes(64)), "ends at byte"),
    "type": (container([], [tensor("x", (4,), 5, 0)], bytes(64)), "type number 5"),
    "type_huge": (container([], [tensor("x", (4,), 0xFFFFFFFF, 0)], bytes(64)), "type number"),
    "block": (container([], [tensor("x", (48,), 2, 0)], bytes(64)), "multiple of 32"),
    "offset": (container([], [tensor("x", (4,), 0, HUGE - 31)], bytes(64)), "ends at byte"),
    "offset_near": (container([], [tensor("x", (16,), 0, 32)], bytes(64)), "ends at byte"),
    "tensor_twice": (container([], [tensor("x", (4,), 0, 0)] * 2, bytes(64)), "'x'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_lies_is_caught(name: str, tmp_path: Path) -> None:
    raw, sentence = HOSTILE[name]
    (tmp_path / "a.gguf").write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=sentence):
        read_gguf(tmp_path / "a.gguf")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20_000_000


def test_nesting_up_to_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(container([pair("k", 9, nested(3))], []))
    assert read_gguf(tmp_path / "a.gguf").metadata == {"k": [[[[7]]]]}


@pytest.mark.slow
def test_every_truncation_is_caught(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    raw = (tmp_path / "a.gguf").read_bytes()
    header = min(tensor.offset for tensor in read_gguf(tmp_path / "a.gguf").tensors.values())
    for length in [*range(0, header, 3), header, (header + len(raw)) // 2, len(raw) - 64]:
        (tmp_path / "b.gguf").write_bytes(raw[:length])
        with pytest.raises(ModelFileError):
            read_gguf(tmp_path / "b.gguf")


def only_model_file_errors(read: Callable[[Path], Any], path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    try:
        read(path)
    except ModelFileError as error:
        assert str(path) in str(error)


def read_gguf_and_its_tensors(path: Path) -> None:
    file = read_gguf(path)
    for name, info in file.tensors.items():
        assert info.offset + info.nbytes <= path.stat().st_size
        if info.dtype in READABLE:
            assert file.dequantise(name).shape == info.shape


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_flipped_bytes_give_a_model_file_error_or_a_sound_file(tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "a.gguf").exists():
        write_gguf(tmp_path / "a.gguf")
    raw = bytearray((tmp_path / "a.gguf").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    only_model_file_errors(read_gguf_and_its_tensors, tmp_path / "b.gguf", bytes(raw))


@pytest.mark.slow
@FUZZ
@given(
    st.lists(st.tuples(st.binary(max_size=9), st.integers(0, 13), st.binary(max_size=40)), max_size=4),
    st.lists(
        st.tuples(
            st.text(max_size=4),
            st.lists(st.integers(0, 64) | st.integers(0, HUGE), max_size=5),
            st.integers(0, 45),
            st.integers(0, 128) | st.integers(0, HUGE),
        ),
        max_size=4,
    ),
    st.binary(max_size=300),
)
def test_any_header_gives_a_model_file_error_or_a_sound_file(
    tmp_path: Path, pairs: list[Any], tensors: list[Any], data: bytes
) -> None:
    raw = container(
        [pair(*args) for args in pairs], [tensor(name, tuple(dims), *rest) for name, dims, *rest in tensors], data
    )
    only_model_file_errors(read_gguf_and_its_tensors, tmp_path / "a.gguf", raw)


@pytest.mark.slow
def test_a_vocabulary_of_a_quarter_million_is_quick(tmp_path: Path) -> None:
    words = [f"token{i}" for i in range(262_144)]
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "gemma3")
    writer.add_array("tokenizer.ggml.tokens", words)
    writer.add_array("tokenizer.ggml.scores", [0.0] * len(words))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with at_most_cpu_s(10):
        assert read_gguf(tmp_path / "a.gguf").metadata["tokenizer.ggml.tokens"] == words


# safetensors


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_safetensors_headers_agree_with_the_package(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((), np.float16), "c": np.zeros((0, 4))}
    save_file(arrays, tmp_path / "a.safetensors", metadata={"format": "pt"})
    file = read_safetensors(tmp_path / "a.safetensors")
    assert file.metadata == {"format": "pt"}
    raw = (tmp_path / "a.safetensors").read_bytes()
    with safe_open(tmp_path / "a.safetensors", "numpy") as package:
        assert set(package.keys()) == set(file.tensors)
        for name, info in file.tensors.items():
            assert package.get_slice(name).get_shape() == list(info.shape)
            assert package.get_slice(name).get_dtype() == info.dtype
            assert raw[info.offset : info.offset + info.nbytes] == arrays[name].tobytes()


HOSTILE_SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "short": (b"\1\0", "bytes"),
    "header_huge": (safetensors({}, length=HUGE), "header has"),
    "header_past_end": (safetensors({}, length=4000), "bytes"),
    "pickle": (b"PK\x03\x04" + b"\xff" * 40, "pickle"),
    "not_json": (safetensors(b"{nope"), "JSON"),
    "not_utf8": (safetensors(b'{"\xff": 1}'), "JSON"),
    "list": (safetensors([1, 2]), "expected an object"),
    "deep": (safetensors(b"[" * 100_000), "JSON"),
    "deep_objects": (safetensors(b'{"a":' * 100_000), "JSON"),
    "long_number": (safetensors(b'{"a": ' + b"9" * 100_000 + b"}"), "JSON"),
    "twice": (safetensors(b'{"a": {}, "a": {}}'), "'a' comes twice"),
    "metadata": (safetensors({"__metadata__": {"a": 1}}), "object of strings"),
    "entry": (safetensors({"a": 3}), "dtype"),
    "dtype": (safetensors({"a": entry("Q4")}, bytes(8)), "'Q4'"),
    "dtype_list": (safetensors({"a": entry(["F32"])}, bytes(8)), "dtype"),
    "shape_negative": (safetensors({"a": entry(shape=[-2])}, bytes(8)), "whole numbers"),
    "shape_float": (safetensors({"a": entry(shape=[2.0])}, bytes(8)), "whole numbers"),
    "shape_true": (safetensors({"a": entry(shape=[True, 2])}, bytes(8)), "whole numbers"),
    "shape_wraps": (safetensors({"a": entry(shape=[1 << 62, 4])}, bytes(8)), "takes"),
    "shape_long": (safetensors({"a": entry(shape=[1] * 99)}, bytes(8)), "whole numbers"),
    "offsets_three": (safetensors({"a": entry(offsets=[0, 8, 8])}, bytes(8)), "data_offsets"),
    "offsets_one": (safetensors({"a": entry(offsets=[0])}, bytes(8)), "two data_offsets of whole numbers"),
    "offsets_wide": (safetensors({"a": entry(offsets=[0, 9])}, bytes(9)), "has 9 bytes, but F32 of shape .2. takes 8"),
    "offsets_narrow": (
        safetensors({"a": entry(offsets=[0, 7])}, bytes(7)),
        "has 7 bytes, but F32 of shape .2. takes 8",
    ),
    "offsets_backwards": (safetensors({"a": entry(offsets=[8, 0])}, bytes(8)), "takes"),
    "offsets_past_end": (safetensors({"a": entry(shape=[4], offsets=[0, 16])}, bytes(8)), "accounts for"),
    "overlap": (safetensors({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)), "begins at byte"),
    "gap": (safetensors({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)), "begins at byte"),
    "tail": (safetensors({"a": entry()}, bytes(9)), "accounts for"),
}


@pytest.mark.parametrize("name", HOSTILE_SAFETENSORS)
def test_a_safetensors_header_that_lies_is_caught(name: str, tmp_path: Path) -> None:
    raw, sentence = HOSTILE_SAFETENSORS[name]
    (tmp_path / "a.safetensors").write_bytes(raw)
    with pytest.raises(ModelFileError, match=sentence):
        read_safetensors(tmp_path / "a.safetensors")


@pytest.mark.slow
@FUZZ
@given(st.data())
def test_flipped_safetensors_bytes_give_a_model_file_error_or_a_file_the_package_opens(
    tmp_path: Path, data: st.DataObject
) -> None:
    from safetensors import safe_open

    raw = bytearray(
        safetensors({"__metadata__": {"format": "pt"}, "a": entry(), "b": entry("F16", [2, 2], [8, 16])}, bytes(16))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 17))] = data.draw(st.integers(0, 255))

    def read_both(path: Path) -> None:
        names = set(read_safetensors(path).tensors)
        with safe_open(path, "numpy") as package:
            assert set(package.keys()) == names

    only_model_file_errors(read_both, tmp_path / "a.safetensors", bytes(raw))


def test_a_safetensors_file_may_end_with_its_header_and_a_shape_may_have_16_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({}, b""))
    assert read_safetensors(path).tensors == {}
    length = len(path.read_bytes()) - 8
    monkeypatch.setattr(safetensors_file, "MAX_JSON_BYTES", length)
    assert read_safetensors(path).metadata == {}
    monkeypatch.setattr(safetensors_file, "MAX_JSON_BYTES", length - 1)
    with pytest.raises(ModelFileError, match=f"header has {length} bytes: expected at most {length - 1}"):
        read_safetensors(path)
    monkeypatch.undo()
    for sizes, is_read in ((16, True), (17, False)):
        path.write_bytes(safetensors({"a": entry(shape=[1] * sizes, offsets=[0, 4])}, bytes(4)))
        if is_read:
            assert read_safetensors(path).tensors["a"].shape == (1,) * 16
        else:
            with pytest.raises(ModelFileError, match="needs a shape"):
                read_safetensors(path)


@pytest.mark.parametrize(("name", "length"), [("_MAX_KEY_BYTES", 7), ("_MAX_STRING_BYTES", 11)])
def test_a_string_may_have_the_most_bytes(
    name: str, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 7) + b"general"
    (tmp_path / "a.gguf").write_bytes(head + struct.pack("<IQ", 8, 11) + b"eleven byte")
    limits = gguf_file.HeaderReader.string.__defaults__
    monkeypatch.setattr(gguf_file, name, length)
    if name == "_MAX_STRING_BYTES":
        monkeypatch.setattr(gguf_file.HeaderReader.string, "__defaults__", (length,))
    assert read_gguf(tmp_path / "a.gguf").metadata == {"general": "eleven byte"} and limits == (1 << 24,)
    monkeypatch.setattr(gguf_file, name, length - 1)
    if name == "_MAX_STRING_BYTES":
        monkeypatch.setattr(gguf_file.HeaderReader.string, "__defaults__", (length - 1,))
    with pytest.raises(ModelFileError, match=f"a string has {length} bytes: expected at most {length - 1}"):
        read_gguf(tmp_path / "a.gguf")


# fields

FIELDS = Fields(
    {
        "x.int": 7, "x.zero": 0, "x.top": 2**31 - 1, "x.over": 2**31, "x.minus": -1, "x.yes": True, "x.half": 0.5,
        "x.huge": 1e30, "x.large": -9.9e29, "x.nan": math.nan, "x.inf": -math.inf, "x.text": "a", "x.null": None,
        "x.names": ["a"] * MAX_LAYERS, "x.more": ["a"] * (MAX_LAYERS + 1), "x.mixed": ["a", 1],
        "x.layers": MAX_LAYERS, "x.deep": MAX_LAYERS + 1, "x.inner": {"b": 3}, "bare": 1,
    },
    "config.json", "x.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (lambda f: f.integer("int"), 7), (lambda f: f.integer("zero"), 0), (lambda f: f.integer("top"), 2**31 - 1),
        (lambda f: f.integer("null", 3), 3), (lambda f: f.integer("absent", 3), 3),
        (lambda f: f.number("int"), 7.0), (lambda f: f.number("half"), 0.5), (lambda f: f.number("large"), -9.9e29),
        (lambda f: f.number("over"), 2.0**31), (lambda f: f.number("null", 1.5), 1.5),
        (lambda f: f.flag("yes", False), True), (lambda f: f.flag("absent", True), True),
        (lambda f: f.flag("null", False), False),
        (lambda f: f.text("text"), "a"), (lambda f: f.choice("text", {"b": 1, "a": 2}), 2),
        (lambda f: f.choice("absent", {"b": 1, "a": 2}, "b"), 1),
        (lambda f: f.strings("names"), ["a"] * MAX_LAYERS), (lambda f: f.strings("absent"), None),
        (lambda f: f.strings("null"), None),
        (lambda f: f.num_layers("layers"), MAX_LAYERS),
        (lambda f: f.section("inner").integer("b"), 3), (lambda f: dict(f.section("null").values), {}),
        (lambda f: [f.has(key) for key in ("int", "zero", "null", "absent", "bare")], [True, True, False, False, False]),
    ],
)  # fmt: skip
def test_a_field_is_taken_up_to_its_bounds_and_null_is_absent(ask: Callable[[Fields], Any], found: Any) -> None:
    assert ask(FIELDS) == found and type(ask(FIELDS)) is type(found)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda f: f.integer("over"), "x.over is '2147483648'"), (lambda f: f.integer("minus"), "x.minus is '-1'"),
        (lambda f: f.integer("yes"), "x.yes is 'True'"), (lambda f: f.integer("half"), "x.half is '0.5'"),
        (lambda f: f.integer("null"), "has no x.null"), (lambda f: f.integer("bare"), "has no x.bare"),
        (lambda f: f.number("yes"), "x.yes is 'True'"), (lambda f: f.number("huge"), "x.huge is '1e\\+30'"),
        (lambda f: f.number("nan"), "x.nan is 'nan'"), (lambda f: f.number("inf"), "x.inf is '-inf'"),
        (lambda f: f.number("text"), "x.text is 'a'"), (lambda f: f.flag("int", False), "x.int is '7'"),
        (lambda f: f.flag("zero", False), "x.zero is '0'"), (lambda f: f.text("int"), "x.int is '7'"),
        (lambda f: f.choice("text", {"b": 1}), "x.text is 'a': expected one of b"),
        (lambda f: f.strings("more"), "x.more is"), (lambda f: f.strings("mixed"), "x.mixed is"),
        (lambda f: f.strings("text"), "x.text is 'a'"), (lambda f: f.num_layers("zero"), "x.zero is '0'"),
        (lambda f: f.num_layers("deep"), "x.deep is '1025'"), (lambda f: f.section("int"), "x.int is '7'"),
        (lambda f: f.section("inner").integer("c"), "config.json: x.inner has no c"),
    ],
)  # fmt: skip
def test_a_field_beyond_them_is_a_sentence_with_its_name(ask: Callable[[Fields], Any], told: str) -> None:
    with pytest.raises(ModelFileError, match=told) as caught:
        ask(FIELDS)
    assert "config.json" in str(caught.value) and len(str(caught.value)) < 250


# JSON, pickles, paths


def test_json_is_an_object_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}
    assert read_json(path, max_bytes=8) == {"a": 1}, "eight bytes"
    with pytest.raises(ModelFileError, match="larger than 7 bytes"):
        read_json(path, max_bytes=7)
    path.write_text("[]")
    with pytest.raises(ModelFileError, match="expected an object"):
        read_json(path)


@FUZZ
@given(st.binary(max_size=60))
def test_any_bytes_as_json_give_an_object_or_a_model_file_error(tmp_path: Path, raw: bytes) -> None:
    only_model_file_errors(read_json, tmp_path / "a.json", raw)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".PT", ".ckpt", ".pkl"])
def test_pickles_are_refused_by_name(suffix: str) -> None:
    with pytest.raises(ModelFileError, match="runs the code inside it"):
        refuse_pickle(f"model{suffix}")
    refuse_pickle("model.safetensors")


@pytest.mark.parametrize("read", [read_gguf, read_safetensors, read_json])
def test_paths_that_are_no_files_are_told(read: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        read(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match="directory"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening one waits for a writer
    with pytest.raises(ModelFileError, match="no ordinary file"):
        read(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="no ordinary file"):
        read(Path("/dev/zero"))


def test_a_file_cut_short_after_its_header_was_read_is_told(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    file = read_gguf(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match="changed while it was read"):
        file.dequantise("x.Q8_0")


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys, firsthand.formats.gguf_file, firsthand.formats.safetensors_file\n"
        "print([m for m in ('torch', 'numpy', 'gguf') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
