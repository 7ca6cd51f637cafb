"""Qwen2-MoE and Qwen3-MoE: Qwen's blocks with many small experts in place of the MLP.

Qwen2-MoE (2024) adds an expert that computes every token, with a gate of its own, and does not renormalise the weights.
"""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, ExpertSettings
from firsthand.nn.families import qwen
from firsthand.nn.families.rope_config import rope_from_config, rope_from_gguf
from firsthand.nn.families.shared_fields import (
    GGUF_EXPERT_ROWS,
    config_sizes,
    expert_rows,
    experts_from_gguf,
    experts_to_gguf,
    gguf_sizes,
    shared_rows,
)
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values
from firsthand.nn.weight_layout import AS_ROW, GGUF_OUTER, OUTER, FileLayout, gguf_rows, plain_rows, row

MODEL_TYPES = ("qwen2_moe", "qwen3_moe")
GGUF_ARCHITECTURES = ("qwen2moe", "qwen3moe")


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    sizes, is_second = config_sizes(config, max_position=32_768), config.text("model_type") == "qwen2_moe"
    layers, bias = sizes["num_layers"], config.flag("attention_bias", False)
    step, dense = max(config.integer("decoder_sparse_step", 1), 1), config.numbers("mlp_only_layers") or []
    experts = ExpertSettings(
        num_experts=config.integer("num_experts", config.integer("num_local_experts", 60 if is_second else 128)),
        per_token=config.integer("num_experts_per_tok", 4 if is_second else 8),
        width=config.integer("moe_intermediate_size", 1408 if is_second else 768),
        layers=tuple(layer not in dense and (layer + 1) % step == 0 for layer in range(layers)),
        renormalise=config.flag("norm_topk_prob", False),
        shared_width=config.integer("shared_expert_intermediate_size", 5632) if is_second else 0,
        has_shared_gate=is_second,
    )
    has_window = config.flag("use_sliding_window", False) and config.has("sliding_window")
    if has_window and is_second:
        raise config.error("use_sliding_window", True, "false (no released model of the family has a window)")
    return Architecture(
        windows=(config.integer("sliding_window") if has_window else None,) * layers,
        ropes=(rope_from_config(config),) * layers,
        qkv_bias=config.flag("qkv_bias", True) if is_second else bias,
        o_bias=False if is_second else bias,
        qk_norm=not is_second,
        experts=experts,
        **sizes,
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    e = a.experts
    assert e is not None
    is_second = a.family == "qwen2_moe"
    own: dict[str, Any] = {"qkv_bias": a.qkv_bias, "shared_expert_intermediate_size": e.shared_width}
    return {
        **qwen.to_config(a),
        "architectures": ["Qwen2MoeForCausalLM" if is_second else "Qwen3MoeForCausalLM"],
        "model_type": a.family,
        "num_experts": e.num_experts,
        "num_experts_per_tok": e.per_token,
        "moe_intermediate_size": e.width,
        "mlp_only_layers": [layer for layer, has in enumerate(e.layers) if not has],
        "decoder_sparse_step": 1,
        "norm_topk_prob": e.renormalise,
        **(own if is_second else {"attention_bias": a.qkv_bias}),
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata, with what llama.cpp fixes in code: Qwen3 renormalises, Qwen2 does not."""
    sizes, is_second = gguf_sizes(file, fields), fields.prefix == "qwen2moe."
    layers = sizes["num_layers"]
    shared = fields.integer("expert_shared_feed_forward_length", 0) if is_second else 0
    return Architecture(
        family="qwen2_moe" if is_second else "qwen3_moe",
        windows=(None,) * layers,
        ropes=(rope_from_gguf(file, fields, sizes["head_dim"]),) * layers,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        o_bias="blk.0.attn_output.bias" in file.tensors,
        qk_norm=not is_second,
        experts=experts_from_gguf(
            fields, layers, renormalise=not is_second, shared_width=shared, has_shared_gate=is_second
        ),
        **sizes,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    e = a.experts
    assert e is not None
    shared = {"expert_shared_feed_forward_length": e.shared_width} if e.shared_width else {}
    kind = {"general.architecture": a.family.replace("_", "")}
    return {**qwen.to_gguf(a), **kind, **experts_to_gguf(e), **shared}


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder."""
    gate = row("mlp.shared_expert_gate", "mlp.shared_gate")
    return FileLayout(OUTER, (*plain_rows(), *expert_rows("mlp"), *shared_rows("mlp.shared_expert"), gate))


def gguf_layout(a: Architecture) -> FileLayout:
    """The tensors of a GGUF file: the experts of a layer are stacked."""
    gate = row("ffn_gate_inp_shexp", "mlp.shared_gate", fold=AS_ROW)
    return FileLayout(GGUF_OUTER, (*gguf_rows(), *GGUF_EXPERT_ROWS, gate), layers="blk")
