"""The tables of a family's tensors, each with the parameters that it holds; and what Gemma 3 reads and refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from firsthand.errors import ModelFileError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Architecture, LatentSettings, Rope
from firsthand.nn.families import bloom, deepseek, gemma, gpt2, gpt_oss, mixtral, mpt, phi3
from firsthand.nn.layout_reader import LayoutReader
from firsthand.nn.weight_layout import FileLayout, LayoutRow, file_tensors, row

A = Architecture(
    "llama", 70, 48, 90, 3, 6, num_kv_heads=2, head_dim=12, max_position=300, norm_eps=0.01, windows=(7, None, 9),
    ropes=(Rope(500.0), Rope(600.0), Rope(700.0)), tie_embeddings=True,
)  # fmt: skip


def table(layout: FileLayout) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    return {each.file: each.ours for each in layout.outer}, {each.file: each.ours for each in layout.inner}


def test_files_that_join_queries_keys_and_values_name_them_their_own_way() -> None:
    qkv = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
    outer = {"embed": "wte", "norm": "norm_f"}
    inner = {
        "norm_1": ("attention_norm",), "attn.Wqkv": qkv, "attn.out_proj": ("attention.o_proj",), "norm_2": ("mlp_norm",),
        "ffn.up_proj": ("mlp.up_proj",), "ffn.down_proj": ("mlp.down_proj",),
    }  # fmt: skip
    found = mpt.huggingface_layout(A)
    assert table(found) == (
        {**{f"transformer.{theirs}": (ours,) for ours, theirs in outer.items()}, "lm_head": ("lm_head",)},
        inner,
    )
    assert (found.layers, found.prefix, found.ignored) == ("transformer.blocks", "transformer.", ())
    found = gpt2.huggingface_layout(A)
    outer = {"embed": "wte", "positions": "wpe", "norm": "ln_f"}
    inner = {
        "ln_1": ("attention_norm",), "attn.c_attn": qkv, "attn.c_proj": ("attention.o_proj",), "ln_2": ("mlp_norm",),
        "mlp.c_fc": ("mlp.up_proj",), "mlp.c_proj": ("mlp.down_proj",),
    }  # fmt: skip
    assert table(found) == (
        {**{f"transformer.{theirs}": (ours,) for ours, theirs in outer.items()}, "lm_head": ("lm_head",)},
        inner,
    )
    assert (found.layers, found.prefix) == ("transformer.h", "transformer.")
    reader = LayoutReader(found, {}, lambda name: torch.zeros(0))
    for ignored in ("h.11.attn.bias", "transformer.h.0.attn.masked_bias", "transformer.h.0.attn.bias"):
        assert reader.is_ignored(ignored), "the causal mask, which older files hold"
    for loaded in ("h.0.attn.c_attn.bias", "h.attn.bias", "h.0.attn.bias.bias", "x.h.0.attn.bias", "h.0.mlp.bias"):
        assert not reader.is_ignored(loaded)
    found = bloom.huggingface_layout(A)
    outer = {"embed": "word_embeddings", "embed_norm": "word_embeddings_layernorm", "norm": "ln_f"}
    inner = {
        "input_layernorm": ("attention_norm",), "self_attention.query_key_value": qkv,
        "self_attention.dense": ("attention.o_proj",), "post_attention_layernorm": ("mlp_norm",),
        "mlp.dense_h_to_4h": ("mlp.up_proj",), "mlp.dense_4h_to_h": ("mlp.down_proj",),
    }  # fmt: skip
    assert table(found) == (
        {**{f"transformer.{theirs}": (ours,) for ours, theirs in outer.items()}, "lm_head": ("lm_head",)},
        inner,
    )
    assert (found.layers, found.prefix) == ("transformer.h", "transformer.")
    gates = ("mlp.gate_proj", "mlp.up_proj")
    outer_of_llama = {"model.embed_tokens": ("embed",), "model.norm": ("norm",), "lm_head": ("lm_head",)}
    assert table(phi3.huggingface_layout(A)) == (outer_of_llama, {
        "input_layernorm": ("attention_norm",), "self_attn.qkv_proj": qkv, "self_attn.o_proj": ("attention.o_proj",),
        "post_attention_layernorm": ("mlp_norm",), "mlp.gate_up_proj": gates, "mlp.down_proj": ("mlp.down_proj",),
    })  # fmt: skip
    outer_of_gguf = {
        "token_embd": ("embed",), "output_norm": ("norm",), "output": ("lm_head",), "position_embd": ("positions",),
        "token_embd_norm": ("embed_norm",),
    }  # fmt: skip
    kept = {
        "attn_norm": ("attention_norm",), "attn_qkv": qkv, "attn_output": ("attention.o_proj",), "ffn_norm": ("mlp_norm",),
        "ffn_down": ("mlp.down_proj",),
    }  # fmt: skip
    assert table(phi3.gguf_layout(A)) == (outer_of_gguf, kept | {"ffn_up": gates})
    assert table(gpt2.gguf_layout(A)) == (outer_of_gguf, kept | {"ffn_up": ("mlp.up_proj",)})
    assert phi3.gguf_layout(A).layers == gpt2.gguf_layout(A).layers == "blk"
    assert mpt.gguf_layout is bloom.gguf_layout is gpt2.gguf_layout
    llama_s = table(mixtral.huggingface_layout(A))[1]
    assert {theirs: ours for theirs, ours in llama_s.items() if "moe" in theirs} == {
        "block_sparse_moe.gate": ("mlp.router",), "block_sparse_moe.experts.{e}.w1": ("mlp.experts.{e}.gate_proj",),
        "block_sparse_moe.experts.{e}.w3": ("mlp.experts.{e}.up_proj",),
        "block_sparse_moe.experts.{e}.w2": ("mlp.experts.{e}.down_proj",),
    }  # fmt: skip


def test_queries_and_keys_of_mixtral_lie_in_a_gguf_file_as_llama_cpp_turns_them() -> None:
    found = {each.file: each for each in mixtral.gguf_layout(A).inner}
    for name, heads in (("attn_q", 6), ("attn_k", 2)):
        ours = torch.arange(heads * 12 * 5.0).reshape(heads * 12, 5)
        turned = ours.reshape(heads, 2, 6, 5).swapaxes(1, 2).reshape(ours.shape)  # `permute` of convert_hf_to_gguf.py
        assert torch.equal(found[name].fold.join([ours]), turned) and not torch.equal(ours, turned)
    for name in ("attn_v", "attn_output"):
        ours = torch.arange(6.0).reshape(2, 3)
        assert torch.equal(found[name].fold.join([ours]), ours)


def test_the_layouts_of_latents_and_of_sinks_name_their_own_tensors_beside_llama_s() -> None:
    plain = {
        "self_attn.k_proj": ("attention.k_proj",), "self_attn.v_proj": ("attention.v_proj",),
        "self_attn.o_proj": ("attention.o_proj",), "mlp.gate_proj": ("mlp.gate_proj",), "mlp.up_proj": ("mlp.up_proj",),
        "mlp.down_proj": ("mlp.down_proj",), "input_layernorm": ("attention_norm",),
        "post_attention_layernorm": ("mlp_norm",),
    }  # fmt: skip
    latent = replace(A, num_kv_heads=1, head_dim=28, rotary_dim=4, latent=LatentSettings(24, 12, 4, 10, 40))
    found = deepseek.huggingface_layout(latent)
    inner = table(found)[1]
    assert plain.items() <= inner.items()
    own = {
        "self_attn.q_b_proj": ("attention.q_proj",), "self_attn.q_a_proj": ("attention.q_down",),
        "self_attn.q_a_layernorm": ("attention.q_latent_norm",),
        "self_attn.kv_a_proj_with_mqa": ("attention.kv_down",), "self_attn.kv_a_layernorm": ("attention.latent_norm",),
        "self_attn.kv_b_proj.weight": ("attention.k_up", "attention.v_up"),
        "mlp.gate.e_score_correction_bias": ("mlp.router.correction",),
    }  # fmt: skip
    assert own.items() <= inner.items() and "self_attn.q_proj" not in inner
    assert inner["mlp.shared_experts.up_proj"] == ("mlp.shared.up_proj",) and "mlp.gate" in inner
    assert found.ignored == (r"model\.layers\.(3|4|5|6)\..*",)
    direct = replace(latent, latent=LatentSettings(24, 12, 4, 10))
    assert table(deepseek.huggingface_layout(direct))[1]["self_attn.q_proj"] == ("attention.q_proj",)
    gguf = table(deepseek.gguf_layout(latent))[1]
    own = {
        "attn_q_b": ("attention.q_proj",), "attn_q_a": ("attention.q_down",),
        "attn_q_a_norm": ("attention.q_latent_norm",), "attn_kv_a_mqa": ("attention.kv_down",),
        "attn_kv_a_norm": ("attention.latent_norm",), "attn_k_b.weight": ("attention.k_up",),
        "attn_v_b.weight": ("attention.v_up",), "exp_probs_b.bias": ("mlp.router.correction",),
    }  # fmt: skip
    assert own.items() <= gguf.items() and "attn_q" not in gguf and "ffn_down_exps" in gguf and "ffn_norm" in gguf
    assert table(deepseek.gguf_layout(direct))[1]["attn_q"] == ("attention.q_proj",)
    sinks = table(gpt_oss.gguf_layout(A))[1]
    second = [each.ours for each in gpt_oss.gguf_layout(A).inner if each.file == "post_attention_norm"]
    assert sinks["attn_sinks.weight"] == ("attention.sinks",) and second == [("mlp_norm",), ("attention_out_norm",)]
    assert "ffn_norm" not in sinks and "ffn_up_exps" in sinks and "attn_norm" in sinks
    folder = gpt_oss.huggingface_layout(A).inner
    experts = {
        each.file: (each.ours, each.suffixes) for each in folder if "experts" in each.file or "sinks" in each.file
    }
    assert experts == {
        "self_attn.sinks": (("attention.sinks",), (".weight", ".bias")),
        "mlp.experts.gate_up_proj": (("mlp.experts.{e}.gate_proj", "mlp.experts.{e}.up_proj"), ("", "_bias")),
        "mlp.experts.down_proj": (("mlp.experts.{e}.down_proj",), ("", "_bias")),
    }  # fmt: skip


def test_gemma_refuses_the_softcaps_of_its_second_and_reads_the_types_of_layers_or_a_period() -> None:
    least = {"num_hidden_layers": 5, "hidden_size": 48, "vocab_size": 70, "intermediate_size": 90,
             "num_attention_heads": 6, "num_key_value_heads": 3}  # fmt: skip

    def read(**more: Any) -> Architecture:
        return gemma.from_config(Fields({**least, **more}, "config.json"))

    a = read(sliding_window_pattern=2, sliding_window=7, rope_local_base_freq=20.0, rope_theta=500.0)
    assert a.windows == (7, None, 7, None, 7)
    assert [rope.theta for rope in a.ropes] == [20.0, 500.0, 20.0, 500.0, 20.0]
    assert read().windows == (4096,) * 5 and read(sliding_window_pattern=0).windows == (None,) * 5
    nested = {"full_attention": {"rope_theta": 77.0}, "sliding_attention": {"rope_theta": 88.0}}
    kinds = ["full_attention", *["sliding_attention"] * 4]
    a = read(rope_parameters=nested, layer_types=kinds, sliding_window=9)
    assert (a.windows, a.ropes) == ((None, 9, 9, 9, 9), (Rope(77.0), *[Rope(88.0)] * 4))
    linear = {"type": "linear", "factor": 3.0}
    with pytest.raises(
        ModelFileError,
        match=r"^config\.json: rope_scaling is \"\{'type': 'linear'\}\": expected all that rope_parameters states, and no",
    ):
        read(rope_parameters=nested, rope_scaling=linear)
    both = nested | {"full_attention": {"rope_theta": 77.0, "rope_type": "linear", "factor": 3.0}}
    a = read(rope_parameters=both, layer_types=kinds, sliding_window=9, rope_scaling=linear)
    assert a.ropes == (Rope(77.0, "linear", 3.0), *[Rope(88.0)] * 4), "what both state alike is one"
    with pytest.raises(ModelFileError) as refused:
        read(rope_scaling=linear, sliding_window_pattern=5)
    assert str(refused.value) == (
        "config.json: rope_scaling: type is 'linear': expected its newer name rope_type (transformers passes type over)"
    )
    a = read(rope_scaling={"rope_type": "linear", "factor": 3.0}, sliding_window_pattern=5)
    assert a.ropes == (*[Rope(10_000.0)] * 4, Rope(1e6, "linear", 3.0))
    whole = replace(
        A, family="gemma3", num_layers=5, num_kv_heads=3, head_dim=10, max_position=200, norm_eps=0.02, windows=(None,) * 5,
        ropes=(Rope(1e6),) * 5, tie_embeddings=False, qkv_bias=True, o_bias=True, qk_norm=True, activation="silu",
        norm_placement="sandwich", norm_unit_offset=True, embed_scale=48**0.5, attention_scale=0.25, logit_softcap=3.0,
    )  # fmt: skip
    given = {
        "head_dim": 10, "max_position_embeddings": 200, "rms_norm_eps": 0.02, "tie_word_embeddings": False,
        "attention_bias": True, "hidden_activation": "silu", "query_pre_attn_scalar": 16, "final_logit_softcapping": 3.0,
        "layer_types": ["full_attention"] * 5, "attn_logit_softcapping": None,
    }  # fmt: skip
    assert read(**given) == whole
    least_of = replace(
        whole, head_dim=256, max_position=131_072, norm_eps=1e-6, tie_embeddings=True, qkv_bias=False, o_bias=False,
        activation="gelu_tanh", attention_scale=1 / 16, logit_softcap=None,
    )  # fmt: skip
    assert read(layer_types=["full_attention"] * 5, final_logit_softcapping=0.0) == least_of
    assert read(head_dim=16).attention_scale == 1 / 16 == read(head_dim=16, query_pre_attn_scalar=256).attention_scale
    assert read(query_pre_attn_scalar=64).attention_scale == 1 / 8
    for key, value, said in (
        ("attn_logit_softcapping", 50.0, r"'50\.0': expected none \(Gemma 2's softcap on attention scores"),
        ("use_bidirectional_attention", True, "'True': expected false"),
        ("layer_types", ["chunked_attention"] * 5, "'chunked_attention': expected full_attention or sliding_attention"),
    ):
        with pytest.raises(ModelFileError, match=rf"^config\.json: {key} is {said}"):
            read(**{key: value})


def test_a_tensor_of_all_experts_holds_the_modules_of_each_expert_in_turn() -> None:
    gate, up, down = (f"mlp.experts.{{e}}.{name}_proj" for name in ("gate", "up", "down"))
    parameters = {
        f"layers.0.{name}.weight".replace("{e}", str(expert)): (2, 2)
        for name in (gate, up, down)
        for expert in range(3)
    }

    def found(*rows: LayoutRow) -> list[tuple[str, tuple[str, ...]]]:
        return [(each.name, each.ours) for each in file_tensors(FileLayout((), rows), parameters)]

    def ours(*parts: str) -> tuple[str, ...]:
        return tuple(f"layers.0.mlp.experts.{part}_proj.weight" for part in parts)

    assert found(row("mlp.gate_up", gate, up), row("mlp.down", down)) == [
        ("model.layers.0.mlp.gate_up.weight", ours("0.gate", "0.up", "1.gate", "1.up", "2.gate", "2.up")),
        ("model.layers.0.mlp.down.weight", ours("0.down", "1.down", "2.down")),
    ]
    assert found(row("mlp.{e}.up_gate", up, gate), row("mlp.down", down))[:3] == [
        (f"model.layers.0.mlp.{expert}.up_gate.weight", ours(f"{expert}.up", f"{expert}.gate")) for expert in range(3)
    ]
