"""Families beyond Llama's against transformers, in both directions, and through GGUF files of our own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from families import FAMILIES, NO_GGUF, config_of, logprobs, reference, reference_logprobs, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from firsthand.errors import ModelFileError
from firsthand.formats.gguf_file import GGUF, read_gguf
from firsthand.hub.inspection import inspect
from firsthand.nn import weight_layout
from firsthand.nn.blocks.rope import frequencies
from firsthand.nn.decoder import Decoder
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.layout_reader import gguf_layout
from firsthand.nn.matrices import num_active_parameters, num_parameters
from firsthand.nn.model_config import config_architecture
from firsthand.nn.quant import BlockLinear
from firsthand.nn.weight_layout import file_tensors
from firsthand.nn.weight_names import gguf_name
from firsthand.nn.weights import architecture_of, load, save

torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_transformers_in_both_directions_and_in_gguf(name: str, tmp_path: Path) -> None:
    theirs, ids = reference(name), text(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    a = ours.architecture
    assert sum(p.numel() for p in ours.parameters()) == num_parameters(a) >= num_active_parameters(a)
    expected = reference_logprobs(theirs, ids)
    assert expected.std() > 0.3, "the model says something"
    torch.testing.assert_close(logprobs(ours, ids), expected, atol=1e-4, rtol=0)

    save(ours, tmp_path / "ours")
    assert architecture_of(tmp_path / "ours") == a
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    assert type(back) is type(theirs)
    torch.testing.assert_close(reference_logprobs(back, ids), expected, atol=1e-4, rtol=0)

    if name not in NO_GGUF:
        save_gguf(ours, tmp_path / "ours.gguf", dtype="F32")
        torch.testing.assert_close(logprobs(load(tmp_path / "ours.gguf"), ids), expected, atol=1e-4, rtol=0)


def rewritten(name: str, folder: Path, change: dict[str, Any]) -> Path:
    reference(name).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("mixtral", {"num_local_experts": 5}, "missing: .*experts.4.w1"),
        ("mixtral", {"num_local_experts": 3}, "surplus: .*experts.3.w1"),
        ("mixtral", {"num_local_experts": 4000}, "parameters with all experts, and its tensors hold"),
        ("mixtral", {"num_local_experts": 0}, "num_experts is 0"),
        ("mixtral", {"num_experts_per_tok": 5}, "per_token is 5: expected 1 to num_experts"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 0}, "surplus"),
        ("qwen3_moe", {"mlp_only_layers": [0, 1]}, "expected a layer that has experts"),
        ("qwen3_moe", {"mlp_only_layers": "all"}, "a list of at most"),
        ("deepseek_v3", {"n_group": 3}, "a divisor of num_experts"),
        ("deepseek_v3", {"topk_group": 5}, "groups_per_token is 5"),
        ("deepseek_v3", {"n_group": 8, "topk_group": 1}, "hold|max where"),
        ("deepseek_v3", {"kv_lora_rank": 22}, "misshapen"),
        ("deepseek_v3", {"qk_rope_head_dim": 0}, "rope_dim is 0"),
        ("deepseek_v2", {"attention_bias": True}, "attention_bias"),
        ("gpt_oss", {"swiglu_alpha": 1.5}, "swiglu_alpha"),
        ("gpt_oss", {"num_local_experts": 3}, "misshapen"),
        ("gpt_oss", {"layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention"),
        ("gpt2", {"n_positions": 64}, "misshapen"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_head": 3}, "head_dim is 21"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "qk_ln"),
        ("mpt", {"attn_config": {"alibi_bias_max": 0}}, "alibi_bias_max"),
        ("mpt", {"expansion_ratio": 3}, "expansion_ratio"),
        (
            "phi3",
            {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.0] * 8}},
            "short_divisors",
        ),
        (
            "phi3",
            {"rope_parameters": {"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}},
            "8 divisors",
        ),
        ("phi3", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.5}}, "partial_rotary_factor"),
        ("phi3", {"rope_parameters": {"rope_type": "spiral"}}, "spiral"),
        ("gemma2", {"attn_logit_softcapping": -1.0}, "attention_softcap"),
        ("olmo2", {"rope_parameters": {"rope_type": "dynamic", "factor": -2}}, "factor"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm"),
        ("stablelm", {"use_parallel_residual": True}, "use_parallel_residual"),
        ("starcoder2", {"use_bias": False}, "surplus"),
    ],
)
def test_configs_that_contradict_themselves_or_their_tensors_say_so_in_one_sentence(
    name: str, change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match=sentence) as caught:
        load(rewritten(name, tmp_path, change))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_router_of_the_wrong_shape_and_a_missing_expert_are_named(tmp_path: Path) -> None:
    reference("qwen3_moe").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    state["model.layers.1.mlp.gate.weight"] = torch.zeros(7, 64)
    del state["model.layers.0.mlp.experts.5.up_proj.weight"]
    save_file(state, file)
    with pytest.raises(ModelFileError) as caught:
        load(tmp_path)
    assert "1 missing: model.layers.0.mlp.experts.5.up_proj.weight" in str(caught.value)
    assert "model.layers.1.mlp.gate.weight (7, 64) where (6, 64) was expected" in str(caught.value)


def test_older_names_and_left_over_tensors_are_understood(tmp_path: Path) -> None:
    theirs = reference("gpt2")
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = {name.removeprefix("transformer."): values for name, values in load_file(file).items()}
    state["h.0.attn.bias"] = torch.ones(1, 1, 128, 128)
    state.pop("lm_head.weight", None)
    save_file(state, file)
    ids = text("gpt2")
    torch.testing.assert_close(logprobs(load(tmp_path), ids), reference_logprobs(theirs, ids), atol=1e-4, rtol=0)


FOLDS: dict[str, tuple[weight_layout.Fold, list[tuple[int, ...]]]] = {
    "rows": (weight_layout.ROWS, [(4, 3), (2, 3)]),
    "columns": (weight_layout.COLUMNS, [(4, 3), (2, 3)]),
    "columns of biases": (weight_layout.COLUMNS, [(4,), (2,)]),
    "stack": (weight_layout.STACK, [(4, 3)] * 2),
    "turns": (weight_layout.ALTERNATING, [(4, 3)] * 2),
    "pairs of experts": (weight_layout.EXPERT_PAIRS, [(4, 3)] * 6),
    "transposed stack": (weight_layout.TRANSPOSED_STACK, [(4, 3)] * 3),
    "by head": (weight_layout.by_head(2), [(4, 3)] * 3),
    "interleaved": (weight_layout.interleaved(2, 2), [(12, 5)]),
    "heads beside": (weight_layout.heads_beside(2), [(2, 3, 4), (2, 5, 4)]),
    "row": (weight_layout.AS_ROW, [(1, 4)]),
    "swapped": (weight_layout.SWAPPED, [(2, 3, 4)]),
}


@pytest.mark.parametrize("name", FOLDS)
def test_every_fold_splits_what_it_joined(name: str) -> None:
    fold, shapes = FOLDS[name]
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, generator=generator) for shape in shapes]
    back = fold.split(fold.join(parts), shapes)
    assert all(torch.equal(one, other) for one, other in zip(parts, back, strict=True))


def test_each_tensor_of_a_file_is_read_once_whatever_number_of_experts_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference("qwen3_moe").save_pretrained(tmp_path / "theirs")
    save_gguf(load(tmp_path / "theirs"), tmp_path / "m.gguf", dtype="F16")
    read: list[str] = []
    whole = GGUF.dequantise
    monkeypatch.setattr(GGUF, "dequantise", lambda file, name: (read.append(name), whole(file, name))[1])
    load(tmp_path / "m.gguf")
    assert len(read) == len(set(read)) == len(read_gguf(tmp_path / "m.gguf").tensors)


@pytest.mark.parametrize("name", ["qwen3_moe", "phi3"])
def test_quantised_blocks_of_stacked_and_fused_tensors_are_kept(name: str, tmp_path: Path) -> None:
    reference(name).save_pretrained(tmp_path / "theirs")
    save_gguf(load(tmp_path / "theirs"), tmp_path / "q.gguf", dtype="Q8_0")
    plain, kept = load(tmp_path / "q.gguf"), load(tmp_path / "q.gguf", keep_blocks=True)
    blocks = {place: each for place, each in kept.named_modules() if isinstance(each, BlockLinear)}
    assert len(blocks) == sum(isinstance(each, torch.nn.Linear) for each in plain.modules())
    for place, each in blocks.items():
        torch.testing.assert_close(each.weight, plain.get_submodule(place).weight, atol=0, rtol=0)


@pytest.mark.parametrize(
    "family",
    [
        "gpt2",
        "phi3",
        "olmo2",
        "bloom",
        "mpt",
        "mixtral",
        "qwen2_moe",
        "deepseek_v2",
        "gpt_oss",
        "stablelm",
        "starcoder2",
    ],
)
def test_names_in_gguf_are_those_of_llama_cpps_converter(family: str) -> None:
    kinds = {"mixtral": "LLAMA", "qwen2_moe": "QWEN2MOE", "deepseek_v2": "DEEPSEEK2", "gpt_oss": "GPT_OSS"}
    known = gguf.MODEL_TENSORS[getattr(gguf.MODEL_ARCH, kinds.get(family, family.upper()))]
    names = {gguf.TENSOR_NAMES[each] for each in known}
    name = next(each for each in FAMILIES if each.startswith(family))
    a = config_architecture(reference(name).config.to_dict(), Path("config.json"))
    layout = gguf_layout(a)
    with torch.device("meta"):
        shapes = {key: tuple(each.shape) for key, each in Decoder(a).named_parameters()}
    ours = {each.name for each in file_tensors(layout, shapes)} if layout else {gguf_name(each) for each in shapes}
    assert ours
    for each in ours:
        stem = re.sub(r"^blk\.\d+\.", "blk.{bid}.", each)
        assert stem.removesuffix(".weight").removesuffix(".bias") in names, each


@pytest.mark.parametrize("name", ["gpt2", "bloom", "mpt", "qwen2_moe", "deepseek_v3", "gpt_oss"])
def test_inspect_knows_the_family_from_its_header(name: str, tmp_path: Path) -> None:
    reference(name).save_pretrained(tmp_path)
    facts, a = inspect(tmp_path), architecture_of(tmp_path)
    assert (facts.architecture, facts.vocabulary, facts.context) == (a.family, 97, a.max_position)
    assert facts.parameters == num_parameters(a) and facts.active_parameters == num_active_parameters(a)
    assert (facts.active_parameters < facts.parameters) is (a.experts is not None)
    assert facts.kv_bytes_per_token == a.num_layers * 2 * a.num_kv_heads * a.head_dim * 2
    table = 0 if a.tie_embeddings else 97 * a.hidden_size
    assert facts.decode_parameters == num_active_parameters(a) - table


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 40), st.integers(), st.floats(), st.text(max_size=4),
    st.lists(st.integers(-1, 9), max_size=4), st.lists(st.floats(), max_size=4),
    st.sampled_from(["yarn", "longrope", "dynamic", "gelu", "sliding_attention", "group_limited_greedy"]),
    st.dictionaries(st.sampled_from(["rope_type", "factor", "long_factor", "short_factor", "rope_theta", "clip_qkv", "alibi",
        "original_max_position_embeddings", "partial_rotary_factor", "alibi_bias_max", "mscale_all_dim"]),
        st.one_of(st.integers(-2, 40), st.floats(), st.sampled_from(["longrope", "dynamic", "yarn"]),
            st.lists(st.floats(0.5, 9), max_size=9)), max_size=6),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.data())
def test_any_config_gives_an_architecture_or_a_model_file_error(name: str, data: st.DataObject) -> None:
    config = config_of(name).to_dict()
    model_type = config["model_type"]
    config |= data.draw(st.dictionaries(st.sampled_from(sorted(config)), VALUES, max_size=4))
    config["model_type"] = model_type
    try:
        a = config_architecture(config, Path("config.json"))
    except ModelFileError as error:
        assert "config.json" in str(error)
    else:
        assert num_parameters(a) >= num_active_parameters(a) > 0
        for rope in set(a.ropes):
            assert len(frequencies(rope, a.rotated, length=a.max_position)) == a.rotated // 2


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["qwen2_moe", "deepseek_v3", "phi3_long", "mpt", "mixtral"]), st.data())
def test_any_flipped_gguf_gives_a_model_or_a_model_file_error(tmp_path: Path, name: str, data: st.DataObject) -> None:
    path = tmp_path / f"{name}.gguf"
    if not path.exists():
        reference(name).save_pretrained(tmp_path / name)
        save_gguf(load(tmp_path / name), path, dtype="F32")
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 1800))] = data.draw(st.integers(0, 255))
    (tmp_path / "flipped.gguf").write_bytes(raw)
    try:
        load(tmp_path / "flipped.gguf")
    except ModelFileError as error:
        assert "flipped.gguf" in str(error)
