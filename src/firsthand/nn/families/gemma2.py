"""Gemma 1 and 2: Llama's block with norms that multiply by 1 + weight, GeGLU, and scaled embeddings.

Gemma 2 adds norms after attention and MLP, softcaps on scores and logits, and a sliding window in every second layer.
"""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Activation, Architecture
from firsthand.nn.families.gemma import from_gguf_values as from_gguf_values
from firsthand.nn.families.gemma import to_gguf_values as to_gguf_values
from firsthand.nn.families.llama import ACTIVATION_NAMES, ACTIVATIONS, windows_of
from firsthand.nn.families.rope_config import (
    rope_from_config,
    rope_from_gguf,
    rope_to_gguf,
    rope_to_parameters,
    shared_gguf,
)
from firsthand.nn.families.shared_fields import config_sizes, gguf_sizes

MODEL_TYPES = ("gemma", "gemma2")
TANH = "gelu_pytorch_tanh"
GGUF_ARCHITECTURES = ("gemma", "gemma2")
LAYERS_IN_27B = 46


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    is_second = config.text("model_type") == "gemma2"
    if config.values.get("use_bidirectional_attention"):  # a flag, or "all" and "vision"
        raise config.error(
            "use_bidirectional_attention",
            config.values["use_bidirectional_attention"],
            "false (this is a causal decoder)",
        )
    kept = Fields({key: each for key, each in config.values.items() if key != "hidden_act"}, config.where)
    sizes = config_sizes(kept, max_position=8192)
    bias, layers = config.flag("attention_bias", False), sizes["num_layers"]
    activation = (
        config.choice("hidden_activation" if config.has("hidden_activation") else "hidden_act", ACTIVATIONS, TANH)
        if is_second
        else _first_activation(config)
    )
    of_gemma: dict[str, Any] = {
        "head_dim": config.integer("head_dim", 256),
        "tie_embeddings": config.flag("tie_word_embeddings", True),
        "activation": activation,
        "embed_scale": sizes["hidden_size"] ** 0.5 or 1.0,
    }
    windows: tuple[int | None, ...] = (None,) * layers
    if is_second:
        kinds = config.strings("layer_types")
        if kinds is None:
            kinds = ["sliding_attention" if (layer + 1) % 2 else "full_attention" for layer in range(layers)]
        windows = windows_of(kinds, config.integer("sliding_window", 4096), config)
        of_gemma |= {
            "attention_scale": max(config.number("query_pre_attn_scalar", 256), 1e-6) ** -0.5,
            "attention_softcap": config.number("attn_logit_softcapping", 50.0) or None,
            "logit_softcap": config.number("final_logit_softcapping", 30.0) or None,
            "norm_placement": "sandwich",
        }
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if key in config.values and config.values[key] is None:  # null is no cap, a missing key is Gemma 2's
                of_gemma["attention_softcap" if key.startswith("attn") else "logit_softcap"] = None
    return Architecture(
        windows=windows,
        ropes=(rope_from_config(config),) * layers,
        qkv_bias=bias,
        o_bias=bias,
        norm_unit_offset=True,
        **sizes | of_gemma,
    )


def _first_activation(config: Fields) -> Activation:
    """Gemma 1's, in hidden_act. ModelFileError for another hidden_activation, which some versions of transformers prefer."""
    stated: Activation = config.choice("hidden_act", ACTIVATIONS, TANH)
    # Google's first files of Gemma 1 say gelu and were trained with its approximation
    chosen: Activation = "gelu_tanh" if stated == "gelu" else stated
    if config.choice("hidden_activation", ACTIVATIONS, ACTIVATION_NAMES[chosen]) not in (stated, chosen):
        expected = f"{ACTIVATION_NAMES[chosen]}, as hidden_act says (transformers 5 reads that one alone)"
        raise config.error("hidden_activation", config.values["hidden_activation"], expected)
    return chosen


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    second = {
        "query_pre_attn_scalar": round(a.attention_scale**-2),
        "sliding_window": next((window for window in a.windows if window is not None), 4096),
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in a.windows],
        "attn_logit_softcapping": a.attention_softcap,
        "final_logit_softcapping": a.logit_softcap,
    }
    return {
        "architectures": ["Gemma2ForCausalLM" if a.family == "gemma2" else "GemmaForCausalLM"],
        "model_type": a.family,
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "rope_parameters": rope_to_parameters(a.ropes[0]),
        "attention_bias": a.qkv_bias,
        "hidden_act": ACTIVATION_NAMES[a.activation],
        "hidden_activation": ACTIVATION_NAMES[a.activation],
        **(second if a.family == "gemma2" else {}),
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata, with what llama.cpp fixes in code: every second layer has the window."""
    family, sizes = fields.prefix.rstrip("."), gguf_sizes(file, fields)
    layers, width, heads = sizes["num_layers"], sizes["hidden_size"], max(sizes["num_heads"], 1)
    second: dict[str, Any] = {"windows": (None,) * layers}
    if family == "gemma2":
        window = fields.integer("attention.sliding_window", 4096) or None
        per_head = width // heads if layers == LAYERS_IN_27B else sizes["head_dim"]
        second = {
            "windows": tuple(None if layer % 2 else window for layer in range(layers)),
            "attention_scale": max(per_head, 1) ** -0.5,
            "attention_softcap": fields.number("attn_logit_softcapping", 50.0) or None,
            "logit_softcap": fields.number("final_logit_softcapping", 30.0) or None,
            "norm_placement": "sandwich",
        }
    return Architecture(
        family=family,
        ropes=(rope_from_gguf(file, fields, sizes["head_dim"]),) * layers,
        activation="gelu_tanh",
        norm_unit_offset=True,
        embed_scale=width**0.5 or 1.0,
        **sizes,
        **second,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    window = next((window for window in a.windows if window is not None), None)
    second: dict[str, Any] = {} if window is None else {"attention.sliding_window": window}
    if a.family == "gemma2":
        second |= {
            "attn_logit_softcapping": a.attention_softcap or 0.0,
            "final_logit_softcapping": a.logit_softcap or 0.0,
        }
    return {"general.architecture": a.family, **shared_gguf(a), **rope_to_gguf(a.ropes[0]), **second}
