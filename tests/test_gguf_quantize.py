"""Quantised files: blocks equal to `gguf`'s or better than ggml's, llama.cpp's mixture of types, and whole files or none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_tiny import tiny_model
from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.formats.gguf_file import raw_pairs, read_gguf
from firsthand.formats.gguf_output import PlannedTensor, packed_pair, write_tensors
from firsthand.kernels.products.block_rounding import K_TYPES, PLAIN, WRITABLE, dequantise, quantise
from firsthand.kernels.products.blockwise import GGUF_TYPES, from_gguf
from firsthand.nn import weights
from firsthand.nn.gguf_quantizer import quantise_model
from firsthand.nn.gguf_recipes import FILE_TYPES, RecipeShape, shape_of, tensor_types
from firsthand.nn.gguf_writer import save_gguf
from firsthand.tokens.pretrained import load as load_tokenizer
from tiny import write_model

GGML_ERRORS = {
    "Q2_K": {"normal": 0.0871587, "laplace": 9.81869e-05, "shifted": 0.0921276},
    "Q3_K": {"normal": 0.0222609, "laplace": 2.50115e-05, "shifted": 0.0721416},
    "Q4_K": {"normal": 0.00514573, "laplace": 5.77108e-06, "shifted": 0.00464692},
    "Q5_K": {"normal": 0.00129411, "laplace": 1.48487e-06, "shifted": 0.00118693},
    "Q6_K": {"normal": 0.000307931, "laplace": 3.74018e-07, "shifted": 0.000931105},
}
"""Mean squared errors of ggml's `ggml_quantize_chunk` (llama-cpp-py-sync 0.11739) on `samples`."""


def samples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20)
    return {
        "normal": rng.standard_normal((16, 512)).astype(np.float32),
        "laplace": (rng.laplace(size=(16, 512)) * 0.02).astype(np.float32),
        "shifted": (rng.random((16, 512)) + 3).astype(np.float32),
    }


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_blocks_of_32_are_those_of_the_gguf_package(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(PLAIN)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    values = (rng.standard_normal((3, 64)) * 10.0 ** data.draw(st.integers(-6, 4))).astype(np.float32)
    values[rng.random(values.shape) < data.draw(st.sampled_from([0.0, 0.5, 0.98]))] = 0
    if data.draw(st.booleans()):
        values[0, :32] = np.abs(values[0, :32])
        values[1, 3], values[1, 9] = np.abs(values[1]).max() + 1, -np.abs(values[1]).max() - 1  # a tie of magnitudes
    values = np.clip(values, -6e4, 6e4) + np.float32(0)
    expected = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]).view(np.uint8)
    assert np.array_equal(quantise(values, kind), expected), kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", K_TYPES)
def test_k_types_have_less_error_than_ggml_s(kind: str) -> None:
    for name, values in samples().items():
        error = ((dequantise(quantise(values, kind), kind).astype(np.float64) - values) ** 2).mean()
        assert error <= GGML_ERRORS[kind][name] * 1.00001, name


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", *K_TYPES])
def test_threads_tails_and_order_change_no_bit(kind: str) -> None:
    values = samples()["normal"]
    whole = quantise(values, kind)
    assert np.array_equal(quantise(values[::-1], kind)[::-1], whole)
    assert np.array_equal(quantise(values[5:6, :256], kind), whole[5:6, : whole.shape[1] // 2])
    assert np.array_equal(quantise(np.tile(values, (9, 1)), kind, threads=3), np.tile(whole, (9, 1)))
    if kind in GGUF_TYPES:
        assert np.allclose(from_gguf(kind, whole, values.shape).values(), dequantise(whole, kind), atol=1e-6)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", *K_TYPES])
def test_zeros_constants_and_tiny_values_stay_what_they_are(kind: str) -> None:
    for value in (0.0, 0.5, -0.5, 1e-30, -3.0, 6e4):
        back = dequantise(quantise(np.full((1, 256), value, np.float32), kind), kind)
        assert np.abs(back - value).max() <= abs(value) * 0.02 + 1e-8, value


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (np.zeros((2, 100), np.float32), "Q4_0", "rows have 100 values: Q4_0 needs a multiple of 32"),
        (np.zeros((2, 128), np.float32), "Q4_K", "Q4_K needs a multiple of 256"),
        (np.full((2, 256), np.nan, np.float32), "Q4_K", "no finite numbers"),
        (np.full((2, 256), 7e4, np.float32), "Q8_0", "float16, which ends at 65504"),
        (np.zeros((2, 256), np.float32), "IQ4_XS", "cannot be written; these can"),
        (np.zeros((0, 256), np.float32), "Q8_0", "has no rows"),
    ],
)
def test_what_no_block_can_hold_is_told(values: np.ndarray, kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quantise(values, kind)


def smollm2() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (49152, 576), "output_norm.weight": (576,)}
    for layer in range(30):
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (576,), "attn_q": (576, 576), "attn_k": (192, 576), "attn_v": (192, 576),
                "attn_output": (576, 576), "ffn_norm": (576,), "ffn_gate": (1536, 576), "ffn_up": (1536, 576),
                "ffn_down": (576, 1536),
            }.items()
        }  # fmt: skip
    return shapes


def test_smollm2_gets_llama_cpp_s_types() -> None:
    found = Counter(tensor_types(smollm2(), "Q4_K_M", RecipeShape(30, 3)).values())
    assert found == {"Q8_0": 15, "F32": 61, "Q6_K": 14, "Q5_0": 166, "Q4_K": 16}  # as llama-quantize writes it


def even(layers: int = 16, tied: bool = False) -> dict[str, tuple[int, ...]]:
    """Shapes of a model whose rows all divide into super-blocks."""
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (512, 256)}
    shapes |= {} if tied else {"output.weight": (512, 256)}
    return shapes | {f"blk.{layer}.{name}.weight": (256, 256) for layer in range(layers) for name in names}


@pytest.mark.parametrize(
    ("file_type", "shape", "expected"),
    [
        ("Q2_K", RecipeShape(16, 4), {"Q2_K": 65, "Q3_K": 32, "Q4_K": 16, "Q6_K": 1}),
        ("Q2_K", RecipeShape(16, 1), {"Q2_K": 65, "Q3_K": 48, "Q6_K": 1}),
        ("Q3_K_M", RecipeShape(16, 4), {"Q3_K": 65, "Q4_K": 45, "Q5_K": 3, "Q6_K": 1}),
        ("Q3_K_L", RecipeShape(16, 4), {"Q3_K": 65, "Q5_K": 48, "Q6_K": 1}),
        ("Q4_K_S", RecipeShape(16, 4), {"Q4_K": 107, "Q5_K": 6, "Q6_K": 1}),
        ("Q4_K_M", RecipeShape(16, 4), {"Q4_K": 97, "Q6_K": 17}),
        ("Q5_K_M", RecipeShape(16, 4), {"Q5_K": 97, "Q6_K": 17}),
        ("Q6_K", RecipeShape(16, 4), {"Q6_K": 114}),
        ("Q4_0", RecipeShape(16, 4), {"Q4_0": 113, "Q6_K": 1}),
        ("Q8_0", RecipeShape(16, 4), {"Q8_0": 114}),
        ("Q4_K_M", RecipeShape(16, 4, num_experts=8), {"Q4_K": 57, "Q8_0": 32, "Q5_K": 16, "Q6_K": 9}),
    ],
)
def test_each_mixture_is_llama_cpp_s(file_type: str, shape: RecipeShape, expected: dict[str, int]) -> None:
    assert Counter(tensor_types(even(), file_type, shape).values()) == expected


def test_more_bits_go_to_the_first_and_last_eighth_and_every_third_layer() -> None:
    found = tensor_types(even(), "Q4_K_M", RecipeShape(16, 4))
    raised = [layer for layer in range(16) if found[f"blk.{layer}.ffn_down.weight"] == "Q6_K"]
    assert raised == [0, 1, 4, 7, 10, 13, 14, 15]
    assert tensor_types(even(tied=True), "Q4_0", RecipeShape(16))["token_embd.weight"] == "Q6_K"
    assert tensor_types(even(80), "Q3_K_S", RecipeShape(80, 8))["blk.3.attn_v.weight"] == "Q5_K"  # Llama of 70B
    odd = {"blk.0.ffn_up.weight": (8, 40), "blk.0.ffn_gate_inp.weight": (8, 256), "blk.0.attn_norm.weight": (256,)}
    assert list(tensor_types(odd, "Q4_K_M", RecipeShape(1)).values()) == ["F16", "F32", "F32"]
    with pytest.raises(ConfigError, match="no GGUF file type 'q4_k_m'; did you mean Q4_K_M"):
        tensor_types(odd, "q4_k_m", RecipeShape(1))


def float_file(folder: Path) -> Path:
    """A small model as GGUF, with metadata of every width."""
    path = folder / "float.gguf"
    save_gguf(
        tiny_model(), path, dtype="F32", vocabulary={"tokenizer.ggml.tokens": ["a", "b"] * 48, "own.list": [1, -2]}
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize("file_type", ["Q8_0", "Q4_0", "F16", "BF16", "Q4_K_M", "Q2_K"])
def test_a_quantised_file_keeps_its_metadata_and_loads(tmp_path: Path, file_type: str) -> None:
    source, path = float_file(tmp_path), tmp_path / "out.gguf"
    told: list[tuple[int, int]] = []
    made = quantise_model(source, path, file_type, told=lambda done, total: told.append((done, total)))
    before, after = raw_pairs(source), raw_pairs(path)
    assert {key for key in before if before[key] != after[key]} <= {"general.file_type"}
    assert read_gguf(path).metadata["general.file_type"] == FILE_TYPES[file_type]
    assert made.size_bytes == path.stat().st_size == told[-1][0] == told[-1][1] and not made.twice
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    loaded, plain = weights.load(path), weights.load(source)
    for name, parameter in plain.named_parameters():
        other = dict(loaded.named_parameters())[name]
        assert (parameter - other).abs().max() <= 0.35 * parameter.abs().max(), name
        if parameter.dim() == 1:
            assert torch.equal(parameter, other)
    if file_type == "Q8_0":
        again = quantise_model(path, tmp_path / "again.gguf", "Q4_0")
        assert again.twice and dict(again.types)["Q4_0"] > 0


def test_a_folder_becomes_a_file_that_the_engine_can_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write_model(tmp_path / "model"), tmp_path / "model.gguf"
    assert main(["models", "quantize", str(folder), "--to", "Q8_0", "--out", str(out)]) == 0
    assert "Q8_0" in capsys.readouterr().out
    ours, theirs = weights.load(out), weights.load(folder)
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (one - other).abs().max() <= 0.01 * other.abs().max(), name
    text = "What is 12 + 30?"
    assert load_tokenizer(out).encode(text) == load_tokenizer(folder).encode(text)


def test_the_command_writes_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = float_file(tmp_path), tmp_path / "small.gguf"
    arguments = ["models", "quantize", str(source), "--to", "Q4_0", "--out", str(out)]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size_bytes"] == out.stat().st_size < source.stat().st_size
    for extra, message in (
        ([], "exists: give another name"),
        (["--calibration", "x.txt"], "takes no calibration text"),
    ):
        assert main([*arguments, *extra]) == 2
        assert message in capsys.readouterr().err
    assert main(["models", "quantize", str(source), "--to", "Q9", "--out", str(tmp_path / "x.gguf")]) == 2
    assert main(["models", "quantize", str(source), "--to", "Q4_0", "--out", str(tmp_path / "x.bin")]) == 2
    assert main(["models", "quantize", str(source), "--to", "Q4_0"]) == 2
    assert main(["models", "list", "--to", "Q4_0"]) == 2


def test_a_tensor_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def fail(tensor: PlannedTensor) -> bytes:
        if tensor.name == "b":
            raise ConfigError("it failed")
        return bytes(tensor.nbytes)

    tensors = [PlannedTensor("a", (2, 32), "Q8_0"), PlannedTensor("b", (4,), "F32")]
    (tmp_path / "m.gguf").write_bytes(b"old")
    with pytest.raises(ConfigError, match="it failed"):
        write_tensors(tmp_path / "m.gguf", {}, tensors, fail)
    with pytest.raises(ConfigError, match="3 bytes: 68 were planned"):
        write_tensors(tmp_path / "m.gguf", {}, tensors, lambda tensor: b"abc")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert (tmp_path / "m.gguf").read_bytes() == b"old"
    with pytest.raises(ConfigError, match="the disk has less room"):
        write_tensors(tmp_path / "n.gguf", {}, [PlannedTensor("a", (1 << 40, 1 << 10), "F32")], fail)


def test_every_tensor_begins_where_the_header_says(tmp_path: Path) -> None:
    tensors = [PlannedTensor("a", (3,), "F32"), PlannedTensor("b", (2, 32), "Q8_0"), PlannedTensor("c", (1, 5), "F32")]
    write_tensors(tmp_path / "m.gguf", {}, tensors, lambda tensor: tensor.name.encode() * tensor.nbytes)
    file = read_gguf(tmp_path / "m.gguf")
    for tensor in tensors:
        assert bytes(file.raw(tensor.name)) == tensor.name.encode() * tensor.nbytes


def test_pairs_of_every_kind_are_read_back(tmp_path: Path) -> None:
    values = {
        "a": True,
        "b": 7,
        "c": -7,
        "d": 1.5,
        "e": "text ä",
        "f": ["x", "yy"],
        "g": [1, -2],
        "h": [0.5, 2.0],
        "i": [True],
    }
    write_tensors(tmp_path / "m.gguf", {key: packed_pair(value) for key, value in values.items()}, [], lambda _: b"")
    assert read_gguf(tmp_path / "m.gguf").metadata == values
    with pytest.raises(ConfigError, match="expected numbers, texts"):
        packed_pair({})


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_of_the_file(tmp_path: Path) -> None:
    source, out = float_file(tmp_path), tmp_path / "out"
    out.mkdir()
    code = (
        "import sys, time; from pathlib import Path; from firsthand.nn.gguf_quantizer import quantise_model\n"
        "def told(done, total):\n    print('writing', flush=True); time.sleep(60)\n"
        "quantise_model(Path(sys.argv[1]), Path(sys.argv[2]), 'Q8_0', told=told)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out / "m.gguf")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    anonymous = hasattr(os, "O_TMPFILE") and not list(out.iterdir())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (out / "m.gguf").exists()
    if anonymous:
        assert list(out.iterdir()) == []


def test_every_type_that_is_written_is_read() -> None:
    from firsthand.formats.gguf_file import READABLE

    assert set(WRITABLE) <= set(READABLE)
    assert shape_of({"general.architecture": "x", "x.block_count": 4, "x.attention.head_count": 8}) == RecipeShape(
        4, 1, 0, "x"
    )
