"""The names of weights in files: ours, Hugging Face's, GGUF's, those of each kind of encoder, and where a matrix lies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.layout_reader import LayoutReader, huggingface_layout, laid_out, tensors_of
from firsthand.nn.weight_names import bert_name, gguf_name, huggingface_name

PLAIN = Architecture(
    "llama", 70, 16, 24, 2, 4, num_kv_heads=2, head_dim=4, max_position=64, norm_eps=1e-6, windows=(None,) * 2,
    ropes=(Rope(),) * 2, tie_embeddings=False,
)  # fmt: skip


def test_a_parameter_has_its_name_in_each_kind_of_file() -> None:
    names = {
        "embed.weight": ("model.embed_tokens.weight", "token_embd.weight"),
        "norm.weight": ("model.norm.weight", "output_norm.weight"), "lm_head.weight": ("lm_head.weight", "output.weight"),
        "layers.12.attention.q_proj.bias": ("model.layers.12.self_attn.q_proj.bias", "blk.12.attn_q.bias"),
        "layers.0.attention.k_proj.weight": ("model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight"),
        "layers.0.attention.v_proj.weight": ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        "layers.0.attention.o_proj.weight": ("model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight"),
        "layers.0.mlp.gate_proj.weight": ("model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"),
        "layers.0.mlp.up_proj.weight": ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"),
        "layers.0.mlp.down_proj.weight": ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        "layers.0.attention_norm.weight": ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
        "layers.0.mlp_norm.weight": ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
    }  # fmt: skip
    assert {ours: (huggingface_name(ours, PLAIN), gguf_name(ours)) for ours in names} == names
    sandwich = replace(PLAIN, norm_placement="sandwich")
    assert huggingface_name("layers.1.mlp_norm.weight", sandwich) == "model.layers.1.pre_feedforward_layernorm.weight"
    assert huggingface_name("layers.1.attention_norm.weight", sandwich) == "model.layers.1.input_layernorm.weight"


def test_each_kind_of_encoder_names_its_layers_its_own_way() -> None:
    told = {
        family: [bert_name(ours, "p.", family) for ours in ("words.weight", "layers.3.q_proj.bias", "layers.3.o_proj.weight",
                                                            "layers.3.attention_norm.weight", "layers.3.down_proj.weight")]
        for family in ("bert", "distilbert", "mpnet", "other")
    }  # fmt: skip
    bert = [
        "p.embeddings.word_embeddings.weight", "p.encoder.layer.3.attention.self.query.bias",
        "p.encoder.layer.3.attention.output.dense.weight", "p.encoder.layer.3.attention.output.LayerNorm.weight",
        "p.encoder.layer.3.output.dense.weight",
    ]  # fmt: skip
    assert told == {
        "bert": bert, "other": bert,
        "distilbert": ["p.embeddings.word_embeddings.weight", "p.transformer.layer.3.attention.q_lin.bias",
                       "p.transformer.layer.3.attention.out_lin.weight", "p.transformer.layer.3.sa_layer_norm.weight",
                       "p.transformer.layer.3.ffn.lin2.weight"],
        "mpnet": ["p.embeddings.word_embeddings.weight", "p.encoder.layer.3.attention.attn.q.bias",
                  "p.encoder.layer.3.attention.attn.o.weight", "p.encoder.layer.3.attention.LayerNorm.weight",
                  "p.encoder.layer.3.output.dense.weight"],
    }  # fmt: skip
    assert bert_name("types.weight") == "embeddings.token_type_embeddings.weight"
    assert bert_name("buckets.weight", family="mpnet") == "encoder.relative_attention_bias.weight"


def test_joined_matrices_are_read_apart_and_a_file_may_leave_its_prefix_out() -> None:
    a = replace(PLAIN, family="phi3")
    layout = huggingface_layout(a)
    assert layout is not None and huggingface_layout(PLAIN) is None
    shapes = {
        "layers.0.attention.q_proj.weight": (16, 16), "layers.0.attention.k_proj.weight": (8, 16),
        "layers.0.attention.v_proj.weight": (8, 16), "layers.0.attention.o_proj.weight": (16, 16),
        "layers.0.mlp.gate_proj.weight": (24, 16), "layers.0.mlp.up_proj.weight": (24, 16),
        "norm.weight": (16,),
    }  # fmt: skip
    values: dict[str, Any] = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    stored = dict(laid_out(layout, values))
    whole = {name: tuple(each.shape) for name, each in stored.items()}
    assert whole == {
        "model.layers.0.self_attn.qkv_proj.weight": (32, 16), "model.layers.0.self_attn.o_proj.weight": (16, 16),
        "model.layers.0.mlp.gate_up_proj.weight": (48, 16), "model.norm.weight": (16,),
    }  # fmt: skip
    asked: list[str] = []

    def read(name: str) -> torch.Tensor:
        asked.append(name)
        return stored[name]

    reader = LayoutReader(layout, stored, read)
    assert reader.needed(shapes) == whole
    for name in shapes:
        assert torch.equal(reader.read(name), values[name].detach()), name
    assert len(asked) == len(set(asked)) == 4, "a tensor is read once for its parts"
    joined = "model.layers.0.self_attn.qkv_proj.weight"
    assert [reader.rows(f"layers.0.attention.{part}_proj.weight") for part in "qkv"] == [
        (joined, 0, 16), (joined, 16, 24), (joined, 24, 32),
    ]  # fmt: skip
    assert reader.name_of("layers.0.mlp.up_proj.weight") == "model.layers.0.mlp.gate_up_proj.weight"
    assert not reader.is_ignored(joined)
    reader.read("layers.0.mlp.up_proj.weight").zero_()
    assert stored["model.layers.0.mlp.gate_up_proj.weight"].abs().min() > 0  # a part is a copy
    bloom = huggingface_layout(replace(PLAIN, family="bloom"))
    assert bloom is not None
    embed = {"embed.weight": (70, 16)}
    for prefix in ("transformer.", ""):
        reader = LayoutReader(bloom, {f"{prefix}word_embeddings.weight": 0}, lambda name: torch.ones(70, 16))
        assert reader.needed(embed) == {f"{prefix}word_embeddings.weight": (70, 16)}
        assert reader.name_of("embed.weight") == f"{prefix}word_embeddings.weight"
        assert reader.rows("embed.weight") == (f"{prefix}word_embeddings.weight", 0, 70)
    with pytest.raises(ConfigError, match="files of this family cannot hold this model"):
        tensors_of(layout, {"layers.0.mlp.router.weight": (3, 16)})
    with pytest.raises(ModelFileError, match="files of this family cannot hold this model"):
        LayoutReader(layout, {}, lambda name: torch.zeros(1)).needed({"layers.0.mlp.router.weight": (3, 16)})
