"""Readers and writers of model files byte by byte: small files made by hand, their whole contents and whole errors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats import gguf_file
from firsthand.formats.fields import MAX_LAYERS, MAX_NUMBERS, Fields
from firsthand.formats.gguf_file import raw_pairs, read_gguf
from firsthand.formats.gguf_output import PlannedTensor, _header, packed_pair, whole_file, write_tensors
from firsthand.formats.model_files import (
    TensorInfo,
    first_repeated,
    json_object,
    map_file,
    pickle_hint,
    read_json,
    refuse_pickle,
)
from firsthand.formats.safetensors_file import _safetensor, read_safetensors


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(ModelFileError) as found:
        call(*arguments)
    return str(found.value)


# -- fields --


def test_a_field_has_its_type_and_range_and_null_is_absent():
    fields = Fields(
        {"p.zero": 0, "p.most": 2**31 - 1, "p.over": 2**31, "p.minus": -1, "p.true": True, "p.f": 1.5, "p.big": 1e30,
         "p.nan": float("nan"), "p.s": "text", "p.null": None, "p.d": {"a": 1}, "p.l": ["a", "b"], "p.n": [1, 2.5]},
        "F", "p.",
    )  # fmt: skip
    assert (fields.integer("zero"), fields.integer("most"), fields.integer("null", 7), fields.integer("none", 0)) == (
        0, 2**31 - 1, 7, 0,
    )  # fmt: skip
    for key, said in {"over": "2147483648", "minus": "-1", "true": "True", "f": "1.5", "s": "text"}.items():
        assert refused(fields.integer, key) == f"F: p.{key} is '{said}': expected a whole number from 0 to 2**31"
    assert refused(fields.integer, "none") == "F has no p.none: expected a whole number from 0 to 2**31"
    assert (fields.number("f"), fields.number("zero"), fields.number("null", 2)) == (1.5, 0.0, 2.0)
    assert isinstance(fields.number("zero"), float)
    for key in ("big", "nan", "true", "s"):
        assert refused(fields.number, key).endswith(": expected a finite number")
    assert fields.flag("true", False) and not fields.flag("null", False) and fields.flag("none", True)
    assert refused(fields.flag, "zero", True) == "F: p.zero is '0': expected true or false"
    assert fields.text("s") == "text" and fields.text("null", "d") == "d"
    assert refused(fields.text, "zero") == "F: p.zero is '0': expected a string"
    assert fields.choice("s", {"other": 1, "text": 2}) == 2 and fields.choice("null", {"d": 3}, "d") == 3
    for getter, (key, default, kind) in {
        fields.integer: ("s", 7, "a whole number from 0 to 2**31"), fields.number: ("true", 0.5, "a finite number"),
        fields.flag: ("zero", False, "true or false"), fields.text: ("zero", "d", "a string"),
    }.items():  # fmt: skip
        assert refused(getter, key, default) == f"F: p.{key} is {str(fields.values['p.' + key])!r}: expected {kind}"
        assert refused(getter, "none", None) == f"F has no p.none: expected {kind}"
    assert refused(fields.choice, "zero", {"0": 1}, "0") == "F: p.zero is '0': expected a string"
    assert refused(fields.choice, "s", {"a": 1, "b": 2}, "a") == "F: p.s is 'text': expected one of a, b"
    assert refused(fields.choice, "null", {"a": 1}, "b") == "F: p.null is 'b': expected one of a"
    assert refused(fields.choice, "s", {"a": 1, "b": 2}) == "F: p.s is 'text': expected one of a, b"
    assert fields.section("d") == Fields({"a": 1}, "F: p.d") and fields.section("null") == Fields({}, "F: p.null")
    assert refused(fields.section, "l") == "F: p.l is \"['a', 'b']\": expected an object"
    assert fields.strings("l") == ["a", "b"] and fields.strings("null") is None and fields.numbers("none") is None
    assert fields.numbers("n") == [1.0, 2.5] and all(type(each) is float for each in fields.numbers("n") or ())
    assert fields.has("zero") and not fields.has("null") and not fields.has("p.zero") and not fields.has("none")


def test_lists_and_layers_have_a_limit_that_is_allowed():
    def of(value: Any) -> Fields:
        return Fields({"k": value}, "F")

    assert len(of(["x"] * MAX_LAYERS).strings("k") or ()) == MAX_LAYERS == 1024 and of([]).strings("k") == []
    assert len(of([1] * MAX_NUMBERS).numbers("k") or ()) == MAX_NUMBERS == 4096
    for wrong in (["x"] * 1025, ["x", 1], "x", {"x": 1}):
        assert refused(of(wrong).strings, "k").endswith(": expected a list of at most 1024 strings")
    for wrong in ([1] * 4097, [1, "2"], [True], [-1e30], 3):
        assert refused(of(wrong).numbers, "k").endswith(": expected a list of at most 4096 finite numbers")
    assert (of(1).num_layers("k"), of(1024).num_layers("k")) == (1, 1024)
    for wrong in (0, 1025):
        assert refused(of(wrong).num_layers, "k") == f"F: k is '{wrong}': expected 1 to 1024 layers"
    assert refused(of("x" * 90).integer, "k") == f"F: k is {'x' * 80!r}: expected a whole number from 0 to 2**31"


# -- files --


def test_json_is_read_up_to_its_limit_and_must_be_an_object(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"é": 1}', encoding="utf-8")
    assert read_json(path, max_bytes=9) == {"é": 1} == read_json(str(path))
    assert refused(lambda: read_json(path, max_bytes=8)) == (
        f"{path} is larger than 8 bytes, too large for a configuration"
    )
    assert refused(read_json, tmp_path / "b") == f"{tmp_path / 'b'} cannot be read: No such file or directory"
    assert refused(read_json, tmp_path) == f"{tmp_path} cannot be read: Is a directory"
    assert refused(json_object, path, b"[1]") == f"{path} holds a JSON list: expected an object"
    assert refused(json_object, path, b'{"b": 1, "a": 1, "a": 2, "c": {"b": 1}}') == (
        f"{path} does not hold JSON that can be read: the key 'a' comes twice"
    )
    for text in (b"\xff{}", b"{", b'{"a":' * 100_000):
        assert refused(json_object, path, text).startswith(f"{path} does not hold JSON that can be read: ")
    assert first_repeated(["a", "b", "c", "b"]) == "b" and first_repeated("abab") == "a"


def test_pickles_are_refused_by_name_and_known_by_their_first_bytes(tmp_path: Path):
    for name in ("m.BIN", "m.pt", "m.pth", "m.ckpt", "m.pkl", "m.pickle"):
        assert refused(refuse_pickle, tmp_path / name) == (
            f"{tmp_path / name} is a pickle, and reading a pickle runs the code inside it: convert the model to "
            "safetensors or GGUF"
        )
    refuse_pickle(tmp_path / "pickle.gguf")
    said = "It looks like a pickle, which is never read: convert the model to safetensors."
    assert {pickle_hint(start) for start in (b"PK\3\4", b"PK", b"\x80\2", b"\x80\4\x95", b"\x80\5", b"\x80")} == {said}
    assert {pickle_hint(start) for start in (b"P\x80", b"KP", b"P", b"\x81\2", b"")} == {""}
    (tmp_path / "none").touch()
    assert refused(map_file, tmp_path / "none") == f"{tmp_path / 'none'} is empty"
    assert refused(map_file, tmp_path / "no") == f"{tmp_path / 'no'} cannot be read: No such file or directory"
    (tmp_path / "two").write_bytes(b"ab")
    assert map_file(tmp_path / "two")[:] == b"ab"


# -- safetensors --


def safetensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_of_safetensors_tile_the_file(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    header = {
        "__metadata__": {"format": "pt"}, "b": entry("BF16", [2, 3], 8, 20), "a": entry("F64", [1], 0, 8),
        "none": entry("F32", [0, 4], 8, 8), "s": entry("U8", [], 20, 21),
    }  # fmt: skip
    found = read_safetensors(safetensors(path, header, bytes(21)))
    start = 8 + len(json.dumps(header))
    assert found.path == path and found.metadata == {"format": "pt"} and found.tensors == {
        "b": TensorInfo("b", (2, 3), "BF16", start + 8, 12), "a": TensorInfo("a", (1,), "F64", start, 8),
        "none": TensorInfo("none", (0, 4), "F32", start + 8, 0), "s": TensorInfo("s", (), "U8", start + 20, 1),
    }  # fmt: skip
    assert read_safetensors(safetensors(path, {})).tensors == {}
    for wrong, size, said in (
        ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 3, 5)}, 5, "tensor 'b' begins at byte {5}: expected {4}"),
        ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, 3, "tensor 'b' begins at byte {3}: expected {4}"),
        ({"a": entry("U8", [2], 1, 3)}, 3, "tensor 'a' begins at byte {3}: expected {2}"),
    ):
        begin = 8 + len(json.dumps(wrong)) - 2
        for place in range(2, 6):
            said = said.replace(f"{{{place}}}", str(begin + place))
        assert refused(read_safetensors, safetensors(path, wrong, bytes(size))) == f"{path}: {said}"
    one = {"a": entry("U8", [2], 0, 2)}
    whole = 8 + len(json.dumps(one)) + 2
    for size in (1, 3):
        assert refused(read_safetensors, safetensors(path, one, bytes(size))) == (
            f"{path} has {whole - 2 + size} bytes: its header accounts for {whole}; the file may be cut short"
        )
    for size in (2, 3):  # a span of more bytes than the shape takes is refused whatever the file holds
        assert refused(read_safetensors, safetensors(path, {"a": entry("U8", [2], 0, 3)}, bytes(size))) == (
            f"{path}: tensor 'a' has 3 bytes, but U8 of shape [2] takes 2"
        )
    assert refused(read_safetensors, safetensors(path, b"{}", length=3)) == (
        f"{path} says that its header has 3 bytes, but 2 bytes are left for it"
    )
    for wrong_meta in ([], {"a": 1}):
        assert refused(read_safetensors, safetensors(path, {"__metadata__": wrong_meta})) == (
            f"{path}: __metadata__ must be an object of strings"
        )
    path.write_bytes(b"1234567")
    assert refused(read_safetensors, path).startswith(f"{path} has 7 bytes: a safetensors file begins")
    path.write_bytes(b"PK\3\4" + bytes([0, 1, 0, 0]))
    assert refused(read_safetensors, path).endswith(f"expected at most {1 << 24}. {pickle_hint(b'PK')}")
    path.write_bytes(struct.pack("<Q", (1 << 24) + 1))
    assert refused(read_safetensors, path) == (
        f"{path} says that its header has {(1 << 24) + 1} bytes: expected at most {1 << 24}."
    )
    path.write_bytes(struct.pack("<Q", 1 << 24))
    assert "but 0 bytes are left" in refused(read_safetensors, path)


def test_an_entry_of_safetensors_agrees_with_itself():
    path = Path("f")
    assert refused(_safetensor, path, "a", entry("U8", [3], 4, 6), 0) == (
        "f: tensor 'a' has 2 bytes, but U8 of shape [3] takes 3"
    )
    assert refused(_safetensor, path, "a", 3, 0).startswith(
        "f: tensor 'a' has dtype 'None'; these can be read: BOOL, U8"
    )
    assert "has dtype 'Q4'" in refused(_safetensor, path, "a", entry("Q4", [3], 0, 3), 0)
    needs = "f: tensor 'a' needs a shape and two data_offsets of whole numbers"
    for wrong in ([-1], [True], [1.0], [1 << 63], [1] * 17, "1", None):
        assert refused(_safetensor, path, "a", {**entry("U8", [1], 0, 1), "shape": wrong}, 0) == needs
    for wrong in ([0], [0, 1, 1], [0, "1"], None):
        assert refused(_safetensor, path, "a", {**entry("U8", [1], 0, 1), "data_offsets": wrong}, 0) == needs
    most = (1 << 63) - 1
    assert _safetensor(path, "a", entry("U8", [most], 0, most), 9) == TensorInfo("a", (most,), "U8", 9, most)


# -- gguf --


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_bytes(pairs: dict[str, bytes], tensors: list[tuple[str, list[int], int, int]] = [], version: int = 3) -> bytes:  # noqa: B006
    """A GGUF file up to its data; a tensor is name, dimensions innermost first, type and offset."""
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(pairs))]
    parts += [text(key) + value for key, value in pairs.items()]
    parts += [
        text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        for name, dims, kind, offset in tensors
    ]
    return b"".join(parts)


def test_gguf_values_of_every_type_are_read_and_their_bytes_kept(tmp_path: Path):
    path = tmp_path / "m.gguf"
    pairs = {
        "u8": struct.pack("<IB", 0, 200), "i8": struct.pack("<Ib", 1, -2), "u16": struct.pack("<IH", 2, 60000),
        "i16": struct.pack("<Ih", 3, -300), "u32": struct.pack("<II", 4, 2**32 - 1), "i32": struct.pack("<Ii", 5, -5),
        "f": struct.pack("<If", 6, 0.5), "b": struct.pack("<I?", 7, True), "s": struct.pack("<I", 8) + text("né"),
        "a": struct.pack("<IIQ3h", 9, 3, 3, 1, -2, 3), "u64": struct.pack("<IQ", 10, 2**64 - 1),
        "i64": struct.pack("<Iq", 11, -(2**40)), "d": struct.pack("<Id", 12, 0.1),
        "deep": struct.pack("<IIQ", 9, 9, 2) + struct.pack("<IQ", 8, 1) + text("x") + struct.pack("<IQ", 0, 0),
    }  # fmt: skip
    for version in (2, 3):
        path.write_bytes(gguf_bytes(pairs, version=version))
        assert read_gguf(path).metadata == {
            "u8": 200, "i8": -2, "u16": 60000, "i16": -300, "u32": 2**32 - 1, "i32": -5, "f": 0.5, "b": True, "s": "né",
            "a": [1, -2, 3], "u64": 2**64 - 1, "i64": -(2**40), "d": 0.1, "deep": [["x"], []],
        }  # fmt: skip
    assert raw_pairs(path) == pairs and raw_pairs(str(path)) == pairs
    path.write_bytes(gguf_bytes({"": struct.pack("<IB", 0, 7)}))  # the shortest pair
    assert read_gguf(path).metadata == {"": 7}
    path.write_bytes(gguf_bytes(pairs, [("t", [1, 1, 1, 2], 0, 0)]) + bytes(100))
    assert read_gguf(path).shape("t") == (2, 1, 1, 1)
    path.write_bytes(gguf_bytes(pairs, [("t", [9, 9, 9], 0, 0)]))
    assert "it may be cut short" in refused(raw_pairs, path), "all is checked before anything is copied"


def test_gguf_tensors_have_their_place_after_the_aligned_header(tmp_path: Path):
    path = tmp_path / "m.gguf"
    q8 = int(gguf.GGMLQuantizationType.Q8_0)
    for alignment in (32, 64, 1):
        head = gguf_bytes(
            {"general.alignment": struct.pack("<II", 4, alignment)}, [("q", [64, 3], q8, 128), ("f", [2, 5, 3], 0, 0)]
        )
        start = -(-len(head) // alignment) * alignment
        path.write_bytes(head.ljust(start, b"\0") + np.arange(30, dtype="<f4").tobytes() + bytes(8) + bytes(range(204)))
        found = read_gguf(path)
        assert found.tensors == {
            "q": TensorInfo("q", (3, 64), "Q8_0", start + 128, 204),
            "f": TensorInfo("f", (3, 5, 2), "F32", start, 120),
        }
        assert found.shape("f") == (3, 5, 2) and found.raw("q").shape == (3, 68) and found.raw("f").shape == (3, 5, 8)
        assert found.raw("q").tobytes() == bytes(range(204)) and not found.raw("q").flags.writeable
        assert found.dequantise("f").tolist() == np.arange(30.0).reshape(3, 5, 2).tolist()
        assert found.dequantise("q").shape == (3, 64) and found.dequantise("q").dtype == np.float32
    assert refused(found.shape, "x") == f"{path} has no tensor 'x'"
    path.write_bytes(path.read_bytes()[:-1])
    size = path.stat().st_size
    assert refused(read_gguf, path) == (
        f"{path}: tensor 'q' ends at byte {size + 1}, but the file has {size}; it may be cut short"
    )
    assert refused(found.raw, "q").startswith(f"{path} changed while it was read: ")
    path.write_bytes(gguf_bytes({}, [("i", [2], 24, 0)]).ljust(96, b"\0"))
    assert refused(read_gguf(path).dequantise, "i").startswith(
        f"{path}: tensor 'i' is I8, which cannot be read; these can: F32, F16, BF16, "
    )


def test_what_a_gguf_header_may_not_say_is_told_with_the_byte(tmp_path: Path):
    path = tmp_path / "m.gguf"

    def said(content: bytes) -> str:
        path.write_bytes(content)
        return refused(read_gguf, path).removeprefix(f"{path}: ").removeprefix(f"{path} ")

    def tensor(dims: list[int], kind: int = 0, name: str = "t") -> str:
        return said(gguf_bytes({}, [(name, dims, kind, 0)]) + bytes(64)).rpartition(" (at byte")[0]

    assert said(b"GGML" + bytes(20)) == "starts with b'GGML': expected b'GGUF'."
    assert said(b"PK\3\4" + bytes(20)).endswith(f"expected b'GGUF'. {pickle_hint(b'PK')}")
    assert said(gguf_bytes({}, version=1)) == "is GGUF version 1: expected 2 or 3"
    assert said(gguf_bytes({}, version=4)) == "is GGUF version 4: expected 2 or 3"
    big = "is GGUF version 50331648 (it may be big-endian, which is not supported): expected 2 or 3"
    assert said(gguf_bytes({}, version=3 << 24)) == big
    assert said(gguf_bytes({})[:-1]) == "the header promises 8 bytes, but 7 bytes are left for it (at byte 16)"
    assert said(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + bytes(25)).startswith(
        "the header promises 2 metadata pairs, but 25 bytes are left for it (at byte 24)"
    )
    assert said(b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + bytes(65)).startswith("the header promises 2 tensors, but 65")
    one = struct.pack("<IB", 0, 1)
    assert said(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + (text("kk") + one) * 2) == (
        "metadata key 'kk' comes twice (at byte 49)"
    )
    assert said(gguf_bytes({"kk": struct.pack("<I", 13) + bytes(4)})) == "value type 13 is unknown (at byte 38)"
    assert said(gguf_bytes({"k": struct.pack("<IQ", 8, 1) + b"\xff"})) == "a string is not UTF-8 (at byte 46)"
    assert "a string has 65537 bytes: expected at most 65536" in said(gguf_bytes({"k" * 65537: one}))
    path.write_bytes(gguf_bytes({"k" * 65536: one}))
    assert list(read_gguf(path).metadata) == ["k" * 65536]
    for alignment in (0, 3, 48):
        assert said(gguf_bytes({"general.alignment": struct.pack("<II", 4, alignment)})).startswith(
            f"general.alignment is {alignment}: expected a power of two"
        )
    assert tensor([]) == "tensor 't' has 0 dimensions: expected 1 to 4"
    assert tensor([1] * 5) == "tensor 't' has 5 dimensions: expected 1 to 4"
    sizes = "expected sizes of 1 or more with a product below 2**63"
    assert tensor([3, 0]) == f"tensor 't' has shape (0, 3): {sizes}"
    assert tensor([1 << 32, 1 << 31]) == f"tensor 't' has shape ({1 << 31}, {1 << 32}): {sizes}"
    assert tensor([1], 999) == "tensor 't' is of type number 999, which is unknown"
    assert tensor([16, 2], 8) == "tensor 't' has rows of 16 values: Q8_0 needs a multiple of 32"
    twice = gguf_bytes({}, [("a", [1], 0, 0), ("t", [1], 0, 0), ("t", [1], 0, 0)])
    assert said(twice + bytes(64)) == "names a tensor twice: 't'"


def test_arrays_are_bounded_together_and_in_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m.gguf"
    monkeypatch.setattr(gguf_file, "_MAX_ARRAY_VALUES", 5)
    array = struct.pack("<IIQ3B", 9, 0, 3, 1, 2, 3)
    path.write_bytes(gguf_bytes({"a": array, "b": struct.pack("<IIQ2B", 9, 0, 2, 4, 5)}))
    assert read_gguf(path).metadata == {"a": [1, 2, 3], "b": [4, 5]}
    path.write_bytes(gguf_bytes({"a": array, "b": array}))
    assert "arrays hold 6 values: expected at most 5" in refused(read_gguf, path)
    for depth in (4, 5):
        nested = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * (depth - 1) + struct.pack("<IQB", 0, 1, 7)
        path.write_bytes(gguf_bytes({"a": nested}))
        if depth == 4:
            assert read_gguf(path).metadata == {"a": [[[[7]]]]}
    assert "arrays are nested deeper than 4" in refused(read_gguf, path)
    path.write_bytes(gguf_bytes({"a": struct.pack("<IIQ", 9, 8, 2) + bytes(15)}))
    assert "the header promises 2 array values, but 15 bytes are left" in refused(read_gguf, path)


def test_a_value_is_packed_with_its_type():
    for value, wanted in (
        (True, struct.pack("<I?", 7, True)), (0, struct.pack("<II", 4, 0)),
        (3_000_000_000, struct.pack("<II", 4, 3_000_000_000)),
        (-1, struct.pack("<Ii", 5, -1)), (0.5, struct.pack("<If", 6, 0.5)), ("né", struct.pack("<I", 8) + text("né")),
        ([True, False], struct.pack("<IIQ??", 9, 7, 2, True, False)), ((1, -2, 3), struct.pack("<IIQ3i", 9, 5, 3, 1, -2, 3)),
        ([1, 0.5], struct.pack("<IIQ2f", 9, 6, 2, 1, 0.5)), 
        (["a", "né"], struct.pack("<IIQ", 9, 8, 2) + text("a") + text("né")),
        ([True, 2], struct.pack("<IIQ2i", 9, 5, 2, 1, 2)),
    ):  # fmt: skip
        assert packed_pair(value) == wanted, value
    for wrong in ([], None, {"a": 1}):
        with pytest.raises(ConfigError) as found:
            packed_pair(wrong)
        assert str(found.value) == (
            f"GGUF metadata holds {wrong!r}: expected numbers, texts, true or false, or lists of them"
        )


def test_a_file_is_written_whole_with_each_tensor_in_its_place(tmp_path: Path):
    tensors = [PlannedTensor("a", (2, 5), "F32"), PlannedTensor("q", (3, 32), "Q8_0"), PlannedTensor("z", (8,), "F32")]
    assert [each.nbytes for each in tensors] == [40, 102, 32]
    pairs = {"k": packed_pair(1)}
    head = _header(pairs, iter(tensors))
    made = gguf_bytes(pairs, [("a", [5, 2], 0, 0), ("q", [32, 3], 8, 64), ("z", [8], 0, 64 + 128)])
    assert head == made.ljust(-(-len(made) // 32) * 32, b"\0")
    path, seen, told = tmp_path / "deep" / "m.gguf", [], []

    def check(file: Path) -> None:
        seen.append(read_gguf(file).tensors.keys())
        assert not path.exists()

    size = write_tensors(
        path,
        pairs,
        tensors,
        lambda each: each.name.encode() * each.nbytes,
        told=lambda *now: told.append(now),
        check=check,
    )
    total = len(head) + 64 + 128 + 32
    assert size == total and told == [(len(head) + done, total) for done in (64, 192, 224)] and len(seen) == 1
    assert path.read_bytes() == head + b"a" * 40 + bytes(24) + b"q" * 102 + bytes(26) + b"z" * 32
    with pytest.raises(ConfigError, match=r"^tensor 'a' has 39 bytes: 40 were planned$"):
        write_tensors(path, pairs, tensors, lambda each: bytes(39))
    assert path.stat().st_size == total and list(path.parent.iterdir()) == [path]


def test_a_file_gets_its_name_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), whole_file(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
    with whole_file(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after" and list(tmp_path.iterdir()) == [path]
