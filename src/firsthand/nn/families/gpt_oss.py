"""gpt-oss (OpenAI, 2025): experts with biases and a clamped SwiGLU, attention with sinks, a window in every second layer.

The router takes a softmax over the logits of the chosen experts alone. Left out: folders in MXFP4, which are
refused; GGUF files may have it.
"""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, ExpertSettings
from firsthand.nn.families.llama import windows_of
from firsthand.nn.families.rope_config import (
    rope_from_config,
    rope_from_gguf,
    rope_to_gguf,
    rope_to_parameters,
    shared_gguf,
)
from firsthand.nn.families.shared_fields import (
    GGUF_EXPERT_ROWS,
    config_sizes,
    experts_from_gguf,
    experts_to_gguf,
    gguf_sizes,
)
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values
from firsthand.nn.weight_layout import (
    EXPERT_PAIRS,
    GGUF_OUTER,
    OUTER,
    TRANSPOSED_STACK,
    FileLayout,
    gguf_rows,
    plain_rows,
    row,
)

MODEL_TYPES = ("gpt_oss",)
GGUF_ARCHITECTURES = ("gpt-oss",)
SWITCHES: dict[str, Any] = {"qkv_bias": True, "o_bias": True, "has_sinks": True, "activation": "clamped_silu"}
YARN = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}
_EXPERTS: dict[str, Any] = {"score": "softmax_of_chosen", "has_bias": True}


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    for key, only in (("hidden_act", "silu"), ("attention_bias", True), ("swiglu_alpha", 1.702)):
        if config.has(key) and config.values[key] != only:
            raise config.error(key, config.values[key], str(only).lower())
    sizes = config_sizes(config, max_position=131_072) | {"norm_eps": config.number("rms_norm_eps", 1e-5)}
    layers = sizes["num_layers"]
    kinds = config.strings("layer_types")
    if kinds is None:
        kinds = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(layers)]
    stated = config.has("rope_parameters") or config.has("rope_scaling")
    roped = config if stated else Fields({**config.values, "rope_parameters": YARN}, config.where)
    experts = ExpertSettings(
        num_experts=config.integer("num_local_experts", 128),
        per_token=config.integer("num_experts_per_tok", 4),
        width=sizes["intermediate_size"],
        layers=(True,) * layers,
        **_EXPERTS,
    )
    return Architecture(
        windows=windows_of(kinds, config.integer("sliding_window", 128), config),
        ropes=(rope_from_config(roped, theta=150_000.0),) * layers,
        experts=experts,
        activation_limit=config.number("swiglu_limit", 7.0),
        **sizes | SWITCHES | {"head_dim": config.integer("head_dim", 64)},
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    assert a.experts is not None
    return {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "num_local_experts": a.experts.num_experts,
        "num_experts_per_tok": a.experts.per_token,
        "rope_parameters": rope_to_parameters(a.ropes[0]),
        "swiglu_limit": a.activation_limit,
        "sliding_window": next((window for window in a.windows if window is not None), 128),
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in a.windows],
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata, with what llama.cpp fixes in code; YaRN's bounds are whole pairs there."""
    sizes = gguf_sizes(file, fields)
    layers, window = sizes["num_layers"], fields.integer("attention.sliding_window", 128) or None
    return Architecture(
        family="gpt_oss",
        windows=tuple(None if layer % 2 else window for layer in range(layers)),
        ropes=(rope_from_gguf(file, fields, sizes["head_dim"]),) * layers,
        experts=experts_from_gguf(fields, layers, **_EXPERTS),
        **sizes,
        **SWITCHES,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    assert a.experts is not None
    window = {"attention.sliding_window": next((window for window in a.windows if window is not None), 0)}
    metadata = {**shared_gguf(a), **rope_to_gguf(a.ropes[0]), **experts_to_gguf(a.experts)}
    return {"general.architecture": "gpt-oss", **metadata, **window}


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder: the experts of a layer are stacked, inputs x outputs, gates and ups by turns."""
    bare = ("", "_bias")
    inner = (
        row("self_attn.sinks", "attention.sinks"),
        row("mlp.router", "mlp.router"),
        row("mlp.experts.gate_up_proj", "mlp.experts.{e}.gate_proj", "mlp.experts.{e}.up_proj", fold=EXPERT_PAIRS,
            suffixes=bare),
        row("mlp.experts.down_proj", "mlp.experts.{e}.down_proj", fold=TRANSPOSED_STACK, suffixes=bare),
    )  # fmt: skip
    return FileLayout(OUTER, (*plain_rows(), *inner))


def gguf_layout(a: Architecture) -> FileLayout:
    """The tensors of a GGUF file."""
    inner = (row("attn_sinks.weight", "attention.sinks"), row("post_attention_norm", "mlp_norm"))
    plain = tuple(each for each in gguf_rows() if each.ours != ("mlp_norm",))
    return FileLayout(GGUF_OUTER, (*inner, *plain, *GGUF_EXPERT_ROWS), layers="blk")
