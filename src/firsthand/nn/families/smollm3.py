"""SmolLM3 (Hugging Face, 2025): Llama's block, with no positions at all in every fourth layer (NoPE; Yang et al., 2025)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.families import llama
from firsthand.nn.families.llama import from_gguf_values as from_gguf_values
from firsthand.nn.families.llama import to_gguf_values as to_gguf_values
from firsthand.nn.families.rope_config import rope_from_config, rope_from_gguf, rope_to_gguf, shared_gguf
from firsthand.nn.families.shared_fields import config_sizes, gguf_sizes

MODEL_TYPES = ("smollm3",)
GGUF_ARCHITECTURES = ("smollm3",)
INTERVAL = 4
NOWHERE = Rope(kind="none")


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    if config.flag("use_sliding_window", False):
        raise config.error("use_sliding_window", True, "false (no released model of the family has a window)")
    if any(kind != "full_attention" for kind in config.strings("layer_types") or ()):
        raise config.error("layer_types", config.values["layer_types"], "full_attention for each layer")
    sizes, bias = config_sizes(config, max_position=32_768), config.flag("attention_bias", False)
    layers, rope = sizes["num_layers"], rope_from_config(config, theta=2e6)
    interval = max(config.integer("no_rope_layer_interval", INTERVAL), 1)
    turned = config.numbers("no_rope_layers") or [(layer + 1) % interval != 0 for layer in range(layers)]
    return Architecture(
        windows=(None,) * layers,
        ropes=tuple(rope if each else NOWHERE for each in turned),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=config.flag("mlp_bias", False),
        **sizes | {"tie_embeddings": config.flag("tie_word_embeddings", True)},
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    turned = next((rope for rope in a.ropes if rope != NOWHERE), Rope(2e6))
    return {
        **llama.to_config(_with_rope(a, turned)),
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "no_rope_layers": [int(rope != NOWHERE) for rope in a.ropes],
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata, with what llama.cpp fixes in code: every fourth layer has no positions."""
    sizes = gguf_sizes(file, fields)
    layers, rope = sizes["num_layers"], rope_from_gguf(file, fields, sizes["head_dim"])
    return Architecture(
        family="smollm3",
        windows=(None,) * layers,
        ropes=tuple(rope if (layer + 1) % INTERVAL else NOWHERE for layer in range(layers)),
        **sizes,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    turned = next((rope for rope in a.ropes if rope != NOWHERE), Rope(2e6))
    return {"general.architecture": "smollm3", **shared_gguf(a), **rope_to_gguf(turned)}


def _with_rope(a: Architecture, rope: Rope) -> Architecture:
    """The architecture with one rope for all layers, as Llama's config.json has it."""
    return replace(a, ropes=(rope,) * a.num_layers)
