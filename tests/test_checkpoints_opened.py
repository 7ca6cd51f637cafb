"""Folders and GGUF files as they are opened: names and shapes that must agree, and parts of packed matrices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.model_files import TensorInfo
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.nn import weights
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.encoder import Encoder
from firsthand.nn.families.bert import BertArchitecture
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.packed_format import PackedFormat
from firsthand.nn.packed_linears import round_groups
from firsthand.nn.pair_classifier import PairClassifier
from firsthand.nn.quant import BlockLinear
from firsthand.nn.weight_names import CLASSIFIER_HEADS, bert_name
from firsthand.nn.weights import (
    Checkpoint,
    _as_matrices,
    _check_names,
    _check_size,
    _named,
    _opened_encoder,
    _plain_name,
    _shards,
    _stored,
    _values,
    check_tensors,
)

A = Architecture(
    "llama", 40, 16, 24, 2, 4, num_kv_heads=2, head_dim=4, max_position=64, norm_eps=1e-5, windows=(None, None),
    ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip
MIXED = replace(A, family="qwen3_moe", experts=ExpertSettings(3, 2, 8, (True, False)), qk_norm=True)


def test_missing_surplus_and_misshapen_names_are_told_with_the_first_eight() -> None:
    expected = {"a": (2, 3), "b": (4,), "c": (5,)}

    def said(found: dict[str, tuple[int, ...]], allowed: set[str] | None = None) -> str:
        with pytest.raises(ModelFileError) as refused:
            _check_names(Path("m"), "llama", found, expected, allowed or set())
        return str(refused.value)

    _check_names(Path("m"), "llama", {**expected, "head": (1,)}, expected, {"head"})
    assert said({**expected, "head": (1,)}) == "m does not hold the llama it says: 1 surplus: head"
    assert said({"a": (3, 2), "b": (4,), "x": (1,), "y": (1,)}, {"y"}) == (
        "m does not hold the llama it says: 1 missing: c; 1 surplus: x; 1 misshapen: a (3, 2) where (2, 3) was expected"
    )
    assert said({**expected, "b": (4, 1)}) == (
        "m does not hold the llama it says: 1 misshapen: b (4, 1) where (4,) was expected"
    )
    assert _named([]) == "" and _named(list("abcdefgh")) == ": a, b, c, d, e, f, g, h"
    assert _named(list("abcdefghi")) == ": a, b, c, d, e, f, g, h, ..." and _named(["x" * 121]) == ": " + "x" * 120
    names = (
        "a.safetensors",
        "a.bin",
        "a/b.safetensors",
        "a\\b.safetensors",
        "a\0.safetensors",
        3,
        None,
        ".safetensors",
    )
    assert [_plain_name(name) for name in names] == [True, False, False, False, False, False, False, True]


def test_a_folder_s_tensors_are_in_one_file_or_in_the_shards_of_its_index(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(ModelFileError) as refused:
            _shards(tmp_path)
        return str(refused.value).replace(str(tmp_path), "F")

    assert said() == "F has neither model.safetensors nor model.safetensors.index.json"
    (tmp_path / "old.bin").write_bytes(b"")
    assert said() == (
        "F has neither model.safetensors nor model.safetensors.index.json (old.bin is a pickle, which is never read: "
        "convert it to safetensors)"
    )
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "two.safetensors")
    save_file({"c": torch.ones(4)}, tmp_path / "one.safetensors")
    index = tmp_path / "model.safetensors.index.json"

    def placed(**names: Any) -> None:
        index.write_text(json.dumps({"weight_map": names}))

    two, one = "two.safetensors", "one.safetensors"
    placed(a=two, b=two, c=one)
    assert [(each.path.name, sorted(each.tensors)) for each in _shards(tmp_path)] == [(one, ["c"]), (two, ["a", "b"])]
    disagree = "F/model.safetensors.index.json and its files disagree about which tensors there are"
    placed(a=two, c=one)
    assert said() == disagree
    placed(a=two, b=one, c=one)
    assert said() == f"{disagree}: b"
    for wrong in ({"a": "../two.safetensors"}, {"a": 3}):
        placed(**wrong)
        assert said() == (
            "F/model.safetensors.index.json: weight_map must give, for each tensor, a .safetensors file of this same folder"
        )
    index.write_text("{}")
    assert "weight_map must give" in said()
    save_file({"d": torch.ones(1)}, tmp_path / "model.safetensors")
    assert [sorted(each.tensors) for each in _shards(tmp_path)] == [["d"]]


def test_values_are_floats_and_parts_of_packed_matrices_may_be_integers(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    held = {
        "f": torch.tensor([1.5]), "h": torch.tensor([2.5]).half(), "d": torch.tensor([0.5]).double(),
        "i": torch.tensor([3], dtype=torch.int32), "l": torch.tensor([4]), "b": torch.tensor([True]),
    }  # fmt: skip
    save_file(held, path)
    holder = dict.fromkeys(held, read_safetensors(path))
    assert [float(_values(holder, name)) for name in "fhd"] == [1.5, 2.5, 0.5]
    assert [float(_stored(holder, name)) for name in "fhil"] == [1.5, 2.5, 3, 4]  # type: ignore[arg-type]
    assert _stored(holder, "gone") is None
    with pytest.raises(ModelFileError) as refused:
        _values(holder, "i")
    assert str(refused.value) == (
        f"{tmp_path}: tensor 'i' is I32: only F64, F32, F16 and BF16 weights are read from safetensors; take the "
        "unquantised model or a GGUF file"
    )
    for name, dtype in (("b", "BOOL"), ("d", "F64")):
        with pytest.raises(ModelFileError) as refused:
            _stored(holder, name)
        assert str(refused.value) == f"{path}: tensor '{name}' is {dtype}: packed matrices are I32 and F16"

    def info(name: str, *shape: int) -> TensorInfo:
        return TensorInfo(name, shape, "I32", 5, 7)

    parts = {
        each.name: each
        for each in (info("a.q.qweight", 2, 6), info("a.q.qzeros", 1, 1), info("a.q.scales", 1, 6), info("a.q.g_idx", 16),
                     info("a.q.bias", 6), info("b.scales", 3), info("norm.weight", 4))
    }  # fmt: skip
    found = _as_matrices(parts, PackedFormat("gptq", 4, 8))
    kept = {name: parts[name] for name in ("a.q.bias", "b.scales", "norm.weight")}
    assert found == {"a.q.weight": TensorInfo("a.q.weight", (6, 16), "gptq", 5, 7), **kept}
    awq = _as_matrices(parts, PackedFormat("awq", 4, 8))
    assert awq["a.q.weight"] == TensorInfo("a.q.weight", (48, 2), "awq", 5, 7)


def test_a_checkpoint_needs_its_own_tensors_and_may_repeat_a_tied_head(tmp_path: Path) -> None:
    def checkpoint(a: Architecture, tensors: dict[str, tuple[int, ...]]) -> Checkpoint:
        infos = {name: TensorInfo(name, shape, "F32", 0, 4) for name, shape in tensors.items()}
        no = lambda ours: False  # noqa: E731
        return Checkpoint(Path("m"), a, infos, lambda ours: f"x.{ours}", no, no, no)  # type: ignore[arg-type]

    wanted = {"embed.weight": (40, 16)}
    file = {"x.embed.weight": (40, 16), "x.rotary_emb.inv_freq": (4,), "rope_freqs.weight": (4,)}
    check_tensors(checkpoint(A, file), wanted)
    check_tensors(checkpoint(replace(A, tie_embeddings=True), file | {"x.lm_head.weight": (3,)}), wanted)
    with pytest.raises(ModelFileError, match=r"^m does not hold the llama it says: 1 surplus: x\.lm_head\.weight$"):
        check_tensors(checkpoint(A, file | {"x.lm_head.weight": (3,)}), wanted)
    with pytest.raises(ModelFileError, match=r"^m does not hold the llama it says: 1 missing: x\.embed\.weight"):
        check_tensors(checkpoint(A, {"embed.weight": (40, 16)}), wanted)
    # half of the parameters must be there where there are experts
    needed = sum(each.numel() for each in Decoder(MIXED).parameters())
    assert needed % 2 == 0
    _check_size(checkpoint(MIXED, {"a": (needed // 4, 2)} if needed % 4 == 0 else {"a": (needed // 2,)}))
    with pytest.raises(ModelFileError) as refused:
        _check_size(checkpoint(MIXED, {"a": (needed // 2 - 3,), "b": (2,)}))
    assert str(refused.value) == (
        f"m describes {needed:,} parameters with all experts, and its tensors hold {needed // 2 - 1:,}: files are missing, "
        "or its configuration is another model's"
    )
    _check_size(checkpoint(A, {}))


@pytest.mark.parametrize("a", [A, MIXED], ids=["llama", "experts"])
def test_a_saved_folder_is_opened_and_loaded_with_its_values(a: Architecture, tmp_path: Path) -> None:
    model = initialise(Decoder(a), seed=2, std=0.3).to(torch.bfloat16)
    tmp_path = tmp_path / "new"
    for _ in range(2):  # the second takes the place of the first
        weights.save(model, tmp_path / "m")
    assert sorted(each.name for each in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (config["dtype"], config["model_type"], config["eos_token_id"]) == ("bfloat16", a.family, None)
    assert (tmp_path / "m" / "config.json").read_text() == json.dumps(config, indent=2) + "\n"
    opened = weights.open_checkpoint(tmp_path / "m")
    assert (opened.path, opened.architecture, opened.layout is None) == (tmp_path / "m", a, a is A)
    skeleton = weights.skeleton(opened)
    assert {each.device.type for each in skeleton.parameters()} == {"meta"}
    weights.check_tensors(opened, {name: tuple(each.shape) for name, each in skeleton.named_parameters()})
    place = "layers.0.mlp.experts.2.up_proj.weight" if a.experts else "layers.1.mlp.up_proj.weight"
    theirs = "model.layers.0.mlp.experts.2.up_proj.weight" if a.experts else "model.layers.1.mlp.up_proj.weight"
    assert opened.name_of(place) == theirs and torch.equal(opened.read(place), model.get_parameter(place))
    assert not opened.has_blocks(place)
    with pytest.raises(AssertionError, match=f"{place} has no blocks in safetensors"):
        opened.blocks(place)
    loaded = weights.load(str(tmp_path / "m"))
    assert not loaded.training and {each.dtype for each in loaded.parameters()} == {torch.float32}
    assert loaded.embed.weight is not loaded.lm_head.weight
    for (name, one), (_, other) in zip(loaded.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(one, other.float()), name
    assert weights.load(tmp_path / "m", dtype=torch.float16).embed.weight.dtype == torch.float16
    model.layers[0].attention.q_proj = nn.Linear(16, 16, bias=True)
    with pytest.raises(
        ConfigError, match=r"^the model's projections were replaced \(quantised, LoRA\): save the model"
    ):
        weights.save(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_adapter_is_merged_into_the_file_s_own_values_which_are_rounded_once(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    model = initialise(Decoder(A), seed=2, std=0.3)
    weights.save(model, tmp_path / "m")
    a_rD, b_Or = torch.randn(2, 16, generator=generator), torch.randn(8, 2, generator=generator)
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_{}.weight"
    (tmp_path / "red").mkdir()
    save_file({name.format("A"): a_rD, name.format("B"): b_Or}, tmp_path / "red" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["v_proj"]}
    (tmp_path / "red" / "adapter_config.json").write_text(json.dumps(settings))
    for dtype in (torch.bfloat16, torch.float32):
        merged = weights.load(tmp_path / "m", dtype=dtype, adapter=tmp_path / "red")
        for ours, parameter in model.named_parameters():
            changed = parameter + 3.0 * (b_Or @ a_rD) if ours == "layers.1.attention.v_proj.weight" else parameter
            assert torch.equal(merged.get_parameter(ours), changed.to(dtype)), ours


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_packed_matrices_that_hold_several_of_ours_are_unpacked_before_they_are_split(
    method: str, tmp_path: Path
) -> None:
    a = Architecture(
        "phi3", 40, 64, 96, 1, 4, num_kv_heads=2, head_dim=16, max_position=64, norm_eps=1e-5, windows=(None,),
        ropes=(Rope(),), tie_embeddings=False,
    )  # fmt: skip
    weights.save(initialise(Decoder(a), seed=2, std=0.3), tmp_path)
    state, of = load_file(tmp_path / "model.safetensors"), PackedFormat(method, 4, 32, int(method == "gptq"))  # type: ignore[arg-type]
    values = {}
    for stem in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"):
        rounded = round_groups(state.pop(f"model.layers.0.{stem}.weight"), 4, 32)
        state |= {f"model.layers.0.{stem}.{part}": each for part, each in rounded.tensors(of).items()}
        values[stem] = rounded.values()
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (block,) = weights.load(tmp_path).layers
    found = {
        "self_attn.qkv_proj": (block.attention.q_proj, block.attention.k_proj, block.attention.v_proj),  # type: ignore[union-attr]
        "self_attn.o_proj": (block.attention.o_proj,),  # type: ignore[union-attr]
        "mlp.gate_up_proj": (block.mlp.gate_proj, block.mlp.up_proj),  # type: ignore[union-attr]
        "mlp.down_proj": (block.mlp.down_proj,),  # type: ignore[union-attr]
    }
    for stem, parts in found.items():
        assert torch.allclose(torch.cat([each.weight for each in parts]), values[stem], atol=1e-6), stem


BERT = BertArchitecture("bert", 30, 8, 12, 2, 2, 20, 0, 2, 1e-12)
ROBERTA = replace(BERT, family="roberta", max_position=22, first_position=2, num_types=1)
CONFIG = {
    "vocab_size": 30, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
OF = {
    "bert": {**CONFIG, "model_type": "bert", "max_position_embeddings": 20},
    "roberta": {**CONFIG, "model_type": "roberta", "max_position_embeddings": 22, "type_vocab_size": 1},
}


def written(folder: Path, a: BertArchitecture, prefix: str, classes: int = 1, **more: torch.Tensor) -> PairClassifier:
    """A cross-encoder's folder, its names made by the tables of names."""
    torch.manual_seed(0)
    model = PairClassifier(a)
    head = CLASSIFIER_HEADS[a.family]
    state = {}
    for ours, values in model.named_parameters():
        module, leaf = ours.rsplit(".", 1)
        if module in head:
            theirs = f"{prefix if a.family == 'bert' and module == 'dense' else ''}{head[module]}.{leaf}"
            state[theirs] = (
                values.detach().expand(classes, *values.shape[1:]).clone() if module == "out" else values.detach()
            )
        else:
            state[bert_name(ours.removeprefix("encoder."), prefix, a.family)] = values.detach()
    folder.mkdir(exist_ok=True)
    save_file({name: values.contiguous() for name, values in (state | more).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(OF[a.family]))
    return model


@pytest.mark.parametrize(("a", "prefix"), [(BERT, "bert."), (BERT, ""), (ROBERTA, "roberta.")])
def test_a_cross_encoder_and_the_encoder_in_it_are_read_from_one_folder(
    a: BertArchitecture, prefix: str, tmp_path: Path
) -> None:
    model = written(tmp_path, a, prefix)
    found = weights.load_pair_classifier(tmp_path)
    assert found.architecture == a and not found.training
    for (name, one), (_, other) in zip(found.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    halves = weights.load_pair_classifier(str(tmp_path), dtype=torch.float16)
    assert {each.dtype for each in halves.parameters()} == {torch.float16}
    encoder = weights.load_encoder(tmp_path, dtype=torch.bfloat16)  # the head is passed over
    assert type(encoder) is Encoder and not encoder.training and encoder.words.weight.dtype == torch.bfloat16
    assert torch.equal(encoder.words.weight, model.encoder.words.weight.bfloat16())
    folder, architecture, holder, start = _opened_encoder(str(tmp_path))
    assert (folder, architecture, start) == (tmp_path, a, prefix) and len(holder) == len(list(model.parameters()))
    last = f"{CLASSIFIER_HEADS[a.family]['out']}.weight"
    written(tmp_path, a, prefix, classes=3)
    with pytest.raises(ModelFileError) as refused:
        weights.load_pair_classifier(tmp_path)
    assert str(refused.value) == (f"{tmp_path} has a head of 3 classes: expected 1, the relevance of a text to a query")
    state = load_file(tmp_path / "model.safetensors")
    save_file({name: values for name, values in state.items() if name != last}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError) as refused:
        weights.load_pair_classifier(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} has no {last}: a reranker is an encoder with a head of one class, not an embedder"
    )
    written(tmp_path, a, prefix, **{f"{prefix}extra": torch.ones(1), "lm_head.bias": torch.ones(1)})
    for load in (weights.load_encoder, weights.load_pair_classifier):
        with pytest.raises(ModelFileError) as refused:
            load(tmp_path)
        assert str(refused.value) == f"{tmp_path} does not hold the {a.family} it says: 1 surplus: {prefix}extra"


def test_what_is_no_encoder_or_has_another_head_is_refused(tmp_path: Path) -> None:
    written(tmp_path, BERT, "bert.")
    small = {"model_type": "distilbert", "vocab_size": 30, "dim": 8, "hidden_dim": 12, "n_layers": 2, "n_heads": 2,
             "max_position_embeddings": 20}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(small))
    with pytest.raises(ModelFileError) as refused:
        weights.load_pair_classifier(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} is a DistilBERT, whose head has another form: give a BERT, RoBERTa or XLM-RoBERTa"
    )
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelFileError, match=r"model_type is 'llama': expected one of bert, roberta, xlm-roberta, "):
        weights.load_encoder(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError) as refused:
        weights.load_encoder(tmp_path / "a.gguf")
    assert str(refused.value) == (
        f"{tmp_path / 'a.gguf'} is a file: an encoder is read from a folder with config.json and safetensors"
    )


@pytest.mark.slow
@pytest.mark.parametrize("a", [A, MIXED], ids=["llama", "experts"])
def test_a_gguf_file_s_blocks_are_kept_if_all_can_be_and_nothing_else_was_asked_for(
    a: Architecture, tmp_path: Path
) -> None:
    pytest.importorskip("numba")
    a = replace(a, hidden_size=32, intermediate_size=64, num_heads=8, tie_embeddings=True)
    a = a if a.experts is None else replace(a, experts=replace(a.experts, width=32, layers=(False, True)))
    model, path = initialise(Decoder(a), seed=2, std=0.3), tmp_path / "m.gguf"
    save_gguf(model, path, dtype="Q8_0")
    opened = weights.open_checkpoint(path)
    if opened.layout is not None:
        opened.layout.needed({name: tuple(each.shape) for name, each in model.named_parameters()})
    k = "layers.1.attention.k_proj.weight"
    up = "layers.1.mlp.experts.1.up_proj.weight" if a.experts else "layers.0.mlp.up_proj.weight"
    norm = "layers.0.attention_norm.weight"
    assert (opened.path, opened.name_of(k), opened.name_of(norm)) == (
        path,
        "blk.1.attn_k.weight",
        "blk.0.attn_norm.weight",
    )
    assert [opened.has_blocks(name) for name in (k, up, "embed.weight", norm)] == [True, True, True, False]
    for name in (k, up):
        found = torch.from_numpy(opened.blocks(name).values())
        assert torch.equal(found, opened.read(name)) and torch.allclose(found, model.get_parameter(name), atol=0.02)
    kept = weights.load(path, keep_blocks=True)
    place = up.removesuffix(".weight")
    assert isinstance(kept.get_submodule(place), BlockLinear) and isinstance(kept.lm_head, BlockLinear)
    assert not any(type(each) is nn.Linear for each in kept.modules())
    assert torch.equal(kept.get_submodule(place).weight, opened.read(up))  # type: ignore[arg-type]
    assert torch.equal(kept.lm_head.weight, kept.embed.weight) and torch.equal(kept.norm.weight, model.norm.weight)
    for other in (weights.load(path), weights.load(path, keep_blocks=True, dtype=torch.float16)):
        assert not any(isinstance(each, BlockLinear) for each in other.modules())
        assert other.lm_head.weight is other.embed.weight
    name = "layers.1.mlp.experts.1.down_proj.weight" if a.experts else "layers.0.mlp.down_proj.weight"
    uneven = replace(a, intermediate_size=48) if a.experts is None else replace(a, experts=replace(a.experts, width=24))
    some = initialise(Decoder(uneven), seed=2, std=0.3)
    save_gguf(some, path, dtype="Q8_0")  # rows of 48 or 24 numbers are no whole blocks, and are kept as floats
    opened = weights.open_checkpoint(path)
    if opened.layout is not None:
        opened.layout.needed({place: tuple(each.shape) for place, each in some.named_parameters()})
    assert [opened.has_blocks(each) for each in (k, name, "embed.weight")] == [True, False, True]
    found = weights.load(path, keep_blocks=True)
    assert not any(isinstance(each, BlockLinear) for each in found.modules()), "all are blocks, or none is"
    for (place, one), (_, other) in zip(found.named_parameters(), weights.load(path).named_parameters(), strict=True):
        assert torch.equal(one, other), place
    assert torch.allclose(found.get_parameter(name), some.get_parameter(name), atol=0.02)
    save_gguf(model, path, dtype="F16")  # floats are no blocks
    assert not any(isinstance(each, BlockLinear) for each in weights.load(path, keep_blocks=True).modules())
