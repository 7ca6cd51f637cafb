"""OLMo 2 (Allen AI, 2024): Llama's block with norms after attention and MLP alone, and RMSNorm over whole queries and keys.

Left out: OLMo 3, which adds sliding windows.
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
    shared_gguf,
)
from firsthand.nn.families.shared_fields import config_sizes, gguf_sizes
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values

MODEL_TYPES = ("olmo2",)
GGUF_ARCHITECTURES = ("olmo2",)
SWITCHES: dict[str, Any] = {"norm_placement": "post", "qk_norm": True, "qk_norm_over": "projection"}


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    sizes, bias = config_sizes(config), config.flag("attention_bias", False)
    layers = sizes["num_layers"]
    return Architecture(
        windows=(None,) * layers,
        ropes=(rope_from_config(config),) * layers,
        qkv_bias=bias,
        o_bias=bias,
        **sizes | {"norm_eps": config.number("rms_norm_eps", 1e-5)},
        **SWITCHES,
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    return {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "rope_parameters": rope_to_parameters(a.ropes[0]),
        "attention_bias": a.qkv_bias,
        "hidden_act": ACTIVATION_NAMES[a.activation],
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata."""
    sizes = gguf_sizes(file, fields)
    rope = rope_from_gguf(file, fields, sizes["head_dim"])
    layers = sizes["num_layers"]
    return Architecture(family="olmo2", windows=(None,) * layers, ropes=(rope,) * layers, **sizes, **SWITCHES)


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    return {"general.architecture": "olmo2", **shared_gguf(a), **rope_to_gguf(a.ropes[0])}
