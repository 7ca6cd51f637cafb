"""StarCoder2 (BigCode, 2024): pre-LayerNorm, RoPE, grouped queries, a window, GELU without a gate, biases everywhere."""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture
from firsthand.nn.families.llama import ACTIVATION_NAMES, ACTIVATIONS
from firsthand.nn.families.rope_config import rope_from_config, rope_from_gguf, rope_to_gguf, rope_to_parameters
from firsthand.nn.families.shared_fields import config_sizes, gguf_sizes, sizes_to_gguf
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values
from firsthand.nn.weight_layout import OUTER, FileLayout, plain_rows, row

MODEL_TYPES = ("starcoder2",)
GGUF_ARCHITECTURES = ("starcoder2",)
SWITCHES: dict[str, Any] = {"norm": "layer", "is_gated": False}


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    sizes, bias = config_sizes(config, max_position=4096), config.flag("use_bias", True)
    layers = sizes["num_layers"]
    own = {
        "num_kv_heads": config.integer("num_key_value_heads", 2),
        "norm_eps": config.number("norm_epsilon", 1e-5),
        "tie_embeddings": config.flag("tie_word_embeddings", True),
        "activation": config.choice("hidden_act", ACTIVATIONS, "gelu_pytorch_tanh"),
    }
    return Architecture(
        windows=(config.integer("sliding_window", 0) or None,) * layers,
        ropes=(rope_from_config(config),) * layers,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bias,
        **sizes | own,
        **SWITCHES,
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    return {
        "architectures": ["Starcoder2ForCausalLM"],
        "model_type": "starcoder2",
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "norm_epsilon": a.norm_eps,
        "rope_parameters": rope_to_parameters(a.ropes[0]),
        "sliding_window": a.windows[0],
        "use_bias": a.mlp_bias,
        "hidden_act": ACTIVATION_NAMES[a.activation],
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata, which has no window: llama.cpp computes none for this family."""
    sizes = gguf_sizes(file, fields, eps="attention.layer_norm_epsilon")
    layers, bias = sizes["num_layers"], "blk.0.ffn_up.bias" in file.tensors
    return Architecture(
        family="starcoder2",
        windows=(None,) * layers,
        ropes=(rope_from_gguf(file, fields, sizes["head_dim"]),) * layers,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bias,
        activation="gelu_tanh",
        **sizes,
        **SWITCHES,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    rope = {**rope_to_gguf(a.ropes[0]), "rope.dimension_count": a.head_dim}
    return {"general.architecture": "starcoder2", **sizes_to_gguf(a), **rope}


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder: Llama's, but for the names of the MLP."""
    kept = tuple(each for each in plain_rows() if not each.file.startswith("mlp."))
    return FileLayout(OUTER, (*kept, row("mlp.c_fc", "mlp.up_proj"), row("mlp.c_proj", "mlp.down_proj")))
