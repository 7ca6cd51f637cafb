"""GGUF files made of a Decoder, of a folder and of another GGUF file: metadata, types, order, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import nn

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.gguf_file import raw_pairs, read_gguf
from firsthand.formats.gguf_output import PlannedTensor, packed_pair, write_tensors
from firsthand.nn import weights
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.gguf_quantizer import Quantised, _file, _folder, quantise_model
from firsthand.nn.gguf_recipes import RecipeShape, _fitting, _of_block, shape_of, tensor_types
from firsthand.nn.gguf_writer import _check, _pairs, _same, _sources, save_gguf, write_decoder
from firsthand.nn.model_config import family_of

A = Architecture(
    "llama", 40, 32, 64, 2, 4, num_kv_heads=2, head_dim=8, max_position=64, norm_eps=1e-5, windows=(None, None),
    ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip
MIXED = replace(A, family="qwen3_moe", experts=ExpertSettings(3, 2, 8, (True, True)), qk_norm=True)


def made(a: Architecture = A) -> Decoder:
    return initialise(Decoder(a), seed=4, std=0.3)


def shapes_of(model: Decoder) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in model.named_parameters()}


def test_the_metadata_begins_with_the_kind_and_ends_with_the_vocabulary() -> None:
    a = replace(A, windows=(7, 7))
    found = _pairs(a, family_of(a), "Q4_K_M", {"tokenizer.ggml.model": "gpt2"})
    own = {
        "vocab_size": 40, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64, "block_count": 2,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 8, "attention.value_length": 8,
        "attention.layer_norm_rms_epsilon": 1e-5, "rope.dimension_count": 8, "rope.freq_base": 10_000.0,
        "attention.sliding_window": 7,
    }  # fmt: skip
    assert list(found)[:3] == ["general.architecture", "general.file_type", "general.quantization_version"]
    assert found == {
        "general.architecture": "llama", "general.file_type": 15,
        "general.quantization_version": gguf.GGML_QUANT_VERSION, "tokenizer.ggml.model": "gpt2",
        **{f"llama.{key}": value for key, value in own.items()},
    }  # fmt: skip
    assert list(found)[-1] == "tokenizer.ggml.model"


def test_each_tensor_comes_from_the_parameters_that_it_holds_in_float32_and_the_file_s_order() -> None:
    model = made().half()
    read = lambda ours: model.get_parameter(ours).detach()  # noqa: E731
    sources = _sources(A, family_of(A), shapes_of(model), read)
    blocks = {
        f"blk.{layer}.{each}.weight" for layer in range(2) for each in (
            "attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"
        )
    }  # fmt: skip
    assert sources.keys() == {"token_embd.weight", "output_norm.weight", "output.weight", *blocks}
    shape, values = sources["blk.1.attn_k.weight"]
    k = read("layers.1.attention.k_proj.weight").float()
    # rotated pairs lie side by side: halves of 4 in each head of 8
    assert shape == (16, 32) and values().dtype == torch.float32
    assert torch.equal(values(), k.reshape(2, 2, 4, 32).transpose(1, 2).reshape(16, 32))
    assert torch.equal(sources["blk.0.ffn_up.weight"][1](), read("layers.0.mlp.up_proj.weight").float())
    mixed = made(MIXED).bfloat16()
    sources = _sources(MIXED, family_of(MIXED), shapes_of(mixed), lambda ours: mixed.get_parameter(ours).detach())
    shape, values = sources["blk.1.ffn_down_exps.weight"]
    experts = mixed.layers[1].mlp.experts
    assert shape == (3, 32, 8) and values().dtype == torch.float32
    assert torch.equal(values(), torch.stack([each.down_proj.weight.float() for each in experts]))


def test_a_decoder_is_written_tensor_by_tensor_with_its_ropes_first(tmp_path: Path) -> None:
    rope = Rope(5e5, "llama3", 8.0, 8192)
    a = replace(A, ropes=(rope, rope), max_position=131_072)
    model = made(a)
    told: list[tuple[int, int]] = []
    path = tmp_path / "m.gguf"
    size = write_decoder(
        a, shapes_of(model), lambda ours: model.get_parameter(ours).detach(), path, dtype="BF16",
        vocabulary={"own.list": [1, -2]}, told=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    file = read_gguf(path)
    assert size == path.stat().st_size == told[-1][0] and {total for _, total in told} == {size}
    assert next(iter(file.tensors)) == "rope_freqs.weight" and len(file.tensors) == len(told) == 2 * 9 + 4
    assert file.shape("rope_freqs.weight") == (4,) and file.metadata["own.list"] == [1, -2]
    assert {name: each.dtype for name, each in file.tensors.items() if each.dtype != "BF16"} == {
        name: "F32" for name in file.tensors if "norm" in name or "rope" in name
    }
    assert file.metadata["general.file_type"] == 32
    up = torch.from_numpy(file.dequantise("blk.1.ffn_up.weight"))
    assert torch.equal(up, model.layers[1].mlp.up_proj.weight.detach().bfloat16().float())


def test_values_that_a_type_cannot_hold_are_named_and_float16_s_largest_is_one_that_it_can(tmp_path: Path) -> None:
    model = made()
    weight = model.layers[0].mlp.up_proj.weight
    path = tmp_path / "m.gguf"
    with torch.no_grad():
        weight[0, 0] = -65504.0
        save_gguf(model, path)
        assert read_gguf(path).dequantise("blk.0.ffn_up.weight")[0, 0] == -65504
        path.unlink()
        weight[0, 0] = -65536.0
        with pytest.raises(ConfigError, match=r"^blk\.0\.ffn_up\.weight holds 65536, and F16 ends at 65504: save F32$"):
            save_gguf(model, str(path), dtype="F16")
        for dtype in ("F32", "BF16"):
            save_gguf(model, path, dtype=dtype)
            assert read_gguf(path).dequantise("blk.0.ffn_up.weight")[0, 0] == -65536
        path.unlink()
        weight[0, 0] = math.inf
        with pytest.raises(ConfigError, match=r"^blk\.0\.ffn_up\.weight holds values that are no finite numbers: the "):
            save_gguf(model, path, dtype="F32")
    with pytest.raises(ConfigError, match=r"^no GGUF file type 'F8'; "):
        save_gguf(model, path, dtype="F8")
    model.layers[0].mlp.up_proj = nn.Linear(32, 64, bias=True)
    with pytest.raises(ConfigError, match=r"^the model's projections were replaced \(quantised, LoRA\): merge or "):
        save_gguf(model, path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_must_describe_the_architecture_that_it_was_made_of(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    save_gguf(made(), path)
    _check(path, replace(A, family="mistral", norm_eps=1e-5 * (1 + 1e-7)))
    for changes, said in (
        ({"max_position": 65}, "its max_position is 65 and would be read as 64"),
        ({"windows": (None, 5)}, "its windows is (None, 5) and would be read as (None, None)"),
        ({"norm_eps": 1.00001e-5}, "its norm_eps is 1.00001e-05 and would be read as 9.999999747378752e-06"),
    ):
        with pytest.raises(ConfigError) as refused:
            _check(path, replace(A, **changes))  # type: ignore[arg-type]
        assert str(refused.value) == f"GGUF cannot express this model, so save safetensors: {said}"
    write_tensors(path, {"general.architecture": packed_pair("llama")}, [], lambda tensor: b"")
    with pytest.raises(
        ConfigError, match=r"^GGUF cannot express this model, so save safetensors: .*m\.gguf has no llama\."
    ):
        _check(path, A)
    assert _same(1.0, 1.0 + 9e-7) and not _same(1.0, 1.0 + 2e-6) and not _same(1, 2) and _same("a", "a")
    assert (
        _same((1.0, (2.0,)), (1.0 + 5e-7, (2.0,)))
        and not _same((1.0,), (1.0, 1.0))
        and not _same((1.0, 2.0), (1.0, 3.0))
    )
    assert _same(Rope(500.0), Rope(500.0 + 1e-5)) and not _same(Rope(500.0), Rope(501.0))
    assert not _same(Rope(), None) and not _same(None, 0.0)


def test_a_gguf_file_of_another_type_keeps_its_pairs_and_what_has_that_type_already(tmp_path: Path) -> None:
    source, path = tmp_path / "f.gguf", tmp_path / "sub" / "q.gguf"
    model = made()
    save_gguf(model, source, dtype="F32", vocabulary={"own.list": [1, -2], "own.word": "é"})
    before = read_gguf(source)
    told: list[tuple[int, int]] = []
    found = quantise_model(source, path, "F16", threads=1, told=lambda done, total: told.append((done, total)))
    after = read_gguf(path)
    size = path.stat().st_size
    source_bytes = sum(each.numel() for each in model.parameters()) * 4
    assert found == Quantised(path, size, source_bytes, {"F16": 2 * 7 + 2, "F32": 2 * 2 + 1}, twice=False)
    assert told[-1] == (size, size) and len(told) == len(after.tensors)
    pairs, kept = raw_pairs(path), raw_pairs(source)
    assert pairs.pop("general.file_type") == packed_pair(1) and kept.pop("general.file_type") == packed_pair(0)
    assert pairs == kept and after.metadata["own.word"] == "é"
    assert np.array_equal(
        after.dequantise("blk.1.ffn_up.weight"), before.dequantise("blk.1.ffn_up.weight").astype(np.float16)
    )
    assert np.array_equal(after.raw("output_norm.weight"), before.raw("output_norm.weight"))
    again = quantise_model(path, tmp_path / "r.GGUF", "F32")
    assert (again.twice, again.source_bytes) == (False, sum(each.nbytes for each in after.tensors.values()))
    with pytest.raises(ConfigError, match=r"q\.gguf exists: give another name, or remove it first$"):
        quantise_model(source, path, "F16")
    with pytest.raises(ConfigError, match=r"q\.bin should end in \.gguf, by which the file is known again$"):
        quantise_model(source, tmp_path / "q.bin", "F16")
    with pytest.raises(ConfigError, match=r"^no GGUF file type 'F8'; "):
        quantise_model(source, tmp_path / "x.gguf", "F8")
    small = quantise_model(source, tmp_path / "q8.gguf", "Q8_0", threads=1)
    assert small.types == {"Q8_0": 16, "F32": 5} and not small.twice
    assert not quantise_model(small.path, tmp_path / "same.gguf", "Q8_0", threads=1).twice
    assert not quantise_model(small.path, tmp_path / "up.gguf", "F16", threads=1).twice
    assert quantise_model(small.path, tmp_path / "twice.gguf", "Q4_0", threads=1).twice
    raw = read_gguf(tmp_path / "same.gguf").raw("blk.1.ffn_up.weight")
    assert np.array_equal(raw, read_gguf(small.path).raw("blk.1.ffn_up.weight"))


def test_one_part_of_a_split_file_is_refused_and_a_value_that_fails_names_its_tensor(tmp_path: Path) -> None:
    def file(values: float = 1.0, **more: Any) -> Path:
        pairs = {"general.architecture": "llama", "general.alignment": 32, "llama.block_count": 1, **more}
        path = tmp_path / "part.gguf"
        write_tensors(
            path,
            {key: packed_pair(value) for key, value in pairs.items()},
            [PlannedTensor("blk.0.ffn_up.weight", (2, 32), "F32")],
            lambda tensor: np.full((2, 32), values, dtype=np.float32),
        )
        return path

    taken = tmp_path / "taken.gguf"
    for make in (taken.mkdir, lambda: (taken.rmdir(), taken.write_text("mine"))):
        make()
        with pytest.raises(ConfigError) as refused:
            quantise_model(file(), taken, "F16", threads=1)
        assert str(refused.value) == f"{taken} exists: give another name, or remove it first"
    assert taken.read_text() == "mine"
    with pytest.raises(ConfigError, match=r"other\.bin should end in \.gguf, by which the file is known again$"):
        quantise_model(file(), tmp_path / "other.bin", "F16", threads=1)
    with pytest.raises(ConfigError, match="F17"):
        quantise_model(file(), taken, "F17", threads=1)
    told: list[tuple[int, int]] = []
    loud = quantise_model(file(), tmp_path / "LOUD.GGUF", "F16", told=lambda *at: told.append(at))
    assert (loud.path, loud.types, loud.source_bytes, loud.twice) == (tmp_path / "LOUD.GGUF", {"F16": 1}, 256, False)
    assert loud.size_bytes == loud.path.stat().st_size and told == [(loud.size_bytes, loud.size_bytes)]
    out = tmp_path / "out.gguf"
    for count in (0, 1):
        made_of = _file(read_gguf(file(**{"split.count": count})), out, "F16", 1, None)
        assert made_of.types == {"F16": 1} and "general.alignment" not in raw_pairs(out)
    with pytest.raises(ModelFileError) as part:
        read_gguf(file(**{"split.count": 2}))
    assert str(part.value) == (
        f"{tmp_path / 'part.gguf'} is one of 2 parts of a model: merge them into one file first "
        "(`llama-gguf-split --merge FIRST_PART OUT`)"
    )
    with pytest.raises(ConfigError, match=r"part\.gguf, blk\.0\.ffn_up\.weight: "):
        _file(read_gguf(file(1e30)), out, "Q8_0", 1, None)


@pytest.mark.slow
@pytest.mark.parametrize("a", [A, MIXED], ids=["llama", "experts"])
def test_a_folder_becomes_a_file_with_the_vocabulary_that_is_read_of_it(a: Architecture, tmp_path: Path) -> None:
    model, folder, path = made(a), tmp_path / "m", tmp_path / "m.gguf"
    weights.save(model, folder)
    asked: list[Path] = []

    def vocabulary(of: Path) -> dict[str, Any]:
        asked.append(of)
        return {"own.word": "é"}

    told: list[tuple[int, int]] = []
    found = quantise_model(
        folder, path, "F16", vocabulary=vocabulary, threads=1, told=lambda done, total: told.append((done, total))
    )
    file = read_gguf(path)
    types = {"llama": {"F16": 16, "F32": 5}, "qwen3_moe": {"F16": 16, "F32": 2 * 5 + 1}}[a.family]
    source_bytes = sum(each.numel() for each in model.parameters()) * 4
    assert found == Quantised(path, path.stat().st_size, source_bytes, types, twice=False)
    assert asked == [folder] and file.metadata["own.word"] == "é" and told[-1] == (found.size_bytes, found.size_bytes)
    for (name, one), (_, other) in zip(weights.load(path).named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(one, other if other.dim() == 1 or "router" in name else other.half().float()), name
    plain = _folder(folder, tmp_path / "n.gguf", "F32", None, 1, None)
    assert "own.word" not in read_gguf(tmp_path / "n.gguf").metadata and set(plain.types) == {"F32"}


def test_a_recipe_asks_for_the_shape_of_the_model_and_gives_each_matrix_its_type() -> None:
    metadata = {
        "general.architecture": "qwen3", "qwen3.block_count": 4, "qwen3.attention.head_count": 8,
        "qwen3.attention.head_count_kv": [0, 2], "qwen3.expert_count": 8, "llama.block_count": 9,
    }  # fmt: skip
    assert shape_of(metadata) == RecipeShape(4, 4, 8, "qwen3")
    assert shape_of({}) == RecipeShape(1, 1, 0, "None")
    assert shape_of({"general.architecture": "a", "a.block_count": -1, "a.attention.head_count": True}).num_layers == 1
    assert [RecipeShape(80, heads, 0, kind).is_70b for heads, kind in ((1, "llama"), (2, "llama"), (2, "qwen3"))] == [
        False, True, False
    ]  # fmt: skip
    eight, plain, grouped = RecipeShape(16, 2, 8), RecipeShape(16, 3), RecipeShape(16, 4)

    def of(name: str, file_type: str, shape: RecipeShape, rank: int = 0, count: int = 16) -> str:
        base = file_type.removesuffix("_M").removesuffix("_S").removesuffix("_L")
        return _of_block(f"blk.{rank}.{name}.weight", file_type, base, shape, rank, count)

    value = [("Q2_K", 0), ("Q3_K_M", 1), ("Q3_K_M", 2), ("Q3_K_L", 9), ("Q4_K_S", 3), ("Q4_K_S", 4), ("Q4_K_M", 1),
             ("Q4_K_M", 2), ("Q4_K_M", 4), ("Q4_K_M", 13), ("Q4_K_M", 14), ("Q5_K_M", 1), ("Q3_K_S", 0)]  # fmt: skip
    assert [of("attn_v", kind, plain, rank) for kind, rank in value] == [
        "Q3_K", "Q5_K", "Q4_K", "Q5_K", "Q5_K", "Q4_K", "Q6_K", "Q4_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q3_K",
    ]  # fmt: skip
    assert (
        of("attn_v", "Q2_K", grouped) == "Q4_K" and of("attn_v", "Q2_K", eight) == of("attn_k", "Q2_K", eight) == "Q8_0"
    )
    big = RecipeShape(80, 8)
    assert [of("attn_v", kind, big, 20, 80) for kind in ("Q2_K", "Q3_K_S", "Q5_K_S", "Q6_K")] == [
        "Q5_K", "Q5_K", "Q5_K", "Q6_K"
    ]  # fmt: skip
    assert of("attn_k", "Q4_K_M", plain) == of("ffn_up", "Q4_K_M", plain) == "Q4_K"
    down = [("Q2_K", 5), ("Q3_K_M", 0), ("Q3_K_M", 1), ("Q3_K_L", 5), ("Q4_K_S", 1), ("Q4_K_S", 2), ("Q4_K_M", 3),
            ("Q4_K_M", 4), ("Q5_K_M", 14), ("Q3_K_S", 0)]  # fmt: skip
    assert [of("ffn_down", kind, plain, rank) for kind, rank in down] == [
        "Q3_K", "Q5_K", "Q4_K", "Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q6_K", "Q6_K", "Q3_K",
    ]  # fmt: skip
    kinds = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_M")
    assert [of("attn_output", kind, plain) for kind in kinds] == [
        "Q3_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q4_K",
        "Q4_K",
        "Q5_K",
    ]
    assert [of("attn_output", kind, eight) for kind in kinds] == [
        "Q5_K",
        "Q5_K",
        "Q5_K",
        "Q3_K",
        "Q5_K",
        "Q5_K",
        "Q5_K",
    ]
    widths = [
        ("Q4_K", 256),
        ("Q4_K", 288),
        ("Q5_K", 32),
        ("Q6_K", 32),
        ("Q3_K", 96),
        ("Q6_K", 33),
        ("Q8_0", 48),
        ("F32", 7),
    ]
    assert [_fitting(kind, width) for kind, width in widths] == [
        "Q4_K", "Q5_0", "Q5_1", "Q8_0", "Q4_0", "F16", "F16", "F32"
    ]  # fmt: skip
    tensors = {"token_embd.weight": (40, 256), "blk.0.attn_norm.weight": (256,), "blk.0.attn_q.bias": (9,),
               "blk.0.ffn_gate_inp.weight": (8, 256), "blk.0.ffn_up.weight": (9, 256),
               "output.weight": (40, 256)}  # fmt: skip
    kept = {"blk.0.ffn_gate_inp.weight": "F16", "token_embd.weight": "F16"}
    assert list(tensor_types(tensors, "Q4_K_M", plain, kept).values()) == ["Q4_K", "F32", "F32", "F16", "Q4_K", "Q6_K"]
    tied = {name: dims for name, dims in tensors.items() if name != "output.weight"}
    assert tensor_types(tied, "Q4_K_M", plain)["token_embd.weight"] == "Q6_K"
    assert tensor_types(tied, "Q8_0", plain)["token_embd.weight"] == "Q8_0"
    assert tensor_types(tied, "BF16", plain) == {
        "token_embd.weight": "BF16", "blk.0.attn_norm.weight": "F32", "blk.0.attn_q.bias": "F32",
        "blk.0.ffn_gate_inp.weight": "F32", "blk.0.ffn_up.weight": "BF16",
    }  # fmt: skip
    odd = {"output.weight": (40, 32), "blk.0.ffn_up.weight": (4, 32)}
    assert tensor_types(odd, "Q4_K_S", plain) == {"output.weight": "Q8_0", "blk.0.ffn_up.weight": "Q5_0"}
