"""StableLM 2 (Stability AI, 2024): Llama's block with LayerNorm, and RoPE on a quarter of each head.

Left out: the variants whose MLP is beside the attention, or whose heads have norms of their own (StableLM 2 12B).
"""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture
from firsthand.nn.families.llama import ACTIVATION_NAMES
from firsthand.nn.families.rope_config import (
    rope_from_config,
    rope_from_gguf,
    rope_to_gguf,
    rope_to_parameters,
    rotated_values,
)
from firsthand.nn.families.shared_fields import config_sizes, gguf_sizes, sizes_to_gguf
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values

MODEL_TYPES = ("stablelm",)
GGUF_ARCHITECTURES = ("stablelm",)
SHARE = 0.25


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    for key in ("use_parallel_residual", "qk_layernorm"):
        if config.flag(key, False):
            raise config.error(key, True, "false (the variants with it are not supported)")
    sizes = config_sizes(config, max_position=4096) | {"norm_eps": config.number("layer_norm_eps", 1e-5)}
    rotated = rotated_values(config, sizes["head_dim"], SHARE)
    return Architecture(
        windows=(None,) * sizes["num_layers"],
        ropes=(rope_from_config(config, may_be_partial=True),) * sizes["num_layers"],
        rotary_dim=0 if rotated == sizes["head_dim"] else rotated,
        qkv_bias=config.flag("use_qkv_bias", False),
        norm="layer",
        **sizes,
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    return {
        "architectures": ["StableLmForCausalLM"],
        "model_type": "stablelm",
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "layer_norm_eps": a.norm_eps,
        "rope_parameters": rope_to_parameters(a.ropes[0]) | {"partial_rotary_factor": a.rotated / a.head_dim},
        "use_qkv_bias": a.qkv_bias,
        "hidden_act": ACTIVATION_NAMES[a.activation],
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata."""
    if fields.flag("use_parallel_residual", False) or "blk.0.attn_q_norm.weight" in file.tensors:
        raise fields.error("use_parallel_residual", True, "false, and heads without norms of their own")
    sizes = gguf_sizes(file, fields, eps="attention.layer_norm_epsilon")
    rotated = fields.integer("rope.dimension_count", sizes["head_dim"])
    rope = rope_from_gguf(file, fields, sizes["head_dim"], may_be_partial=True)
    return Architecture(
        family="stablelm",
        windows=(None,) * sizes["num_layers"],
        ropes=(rope,) * sizes["num_layers"],
        rotary_dim=0 if rotated == sizes["head_dim"] else rotated,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        norm="layer",
        **sizes,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    rope = {**rope_to_gguf(a.ropes[0]), "rope.dimension_count": a.rotated}
    kind = {"general.architecture": "stablelm", "use_parallel_residual": False}
    return {**kind, **sizes_to_gguf(a), **rope}
