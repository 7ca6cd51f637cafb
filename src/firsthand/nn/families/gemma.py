"""The Gemma family: Gemma 3, text only.

Norms before and after attention and MLP that multiply by 1 + weight, GeGLU, scaled embeddings, RMSNorm on query and
key heads, and two kinds of layers: sliding-window with a short rope, and every sixth with full attention and a long one.
Left out: Gemma 2, the vision tower, Gemma 3n and 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.families.llama import ACTIVATION_NAMES, ACTIVATIONS, windows_of
from firsthand.nn.families.rope_config import (
    refuse_other_scaling,
    rope_from_gguf,
    rope_from_parameters,
    rope_to_gguf,
    rope_to_parameters,
    shared_gguf,
)

if TYPE_CHECKING:
    from torch import Tensor

MODEL_TYPES = ("gemma3_text",)
GGUF_ARCHITECTURES = ("gemma3",)
LAYERS_IN_27B = 62


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    _refuse(config, "attn_logit_softcapping", "none (Gemma 2's softcap on attention scores is not supported)")
    if config.flag("use_bidirectional_attention", False):
        raise config.error("use_bidirectional_attention", True, "false (this is a causal decoder)")
    num_layers, hidden_size = config.num_layers("num_hidden_layers"), config.integer("hidden_size")
    windows = _windows(config, num_layers)
    near, far = _ropes(config)
    bias = config.flag("attention_bias", False)
    return Architecture(
        family="gemma3",
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size"),
        num_layers=num_layers,
        num_heads=config.integer("num_attention_heads"),
        num_kv_heads=config.integer("num_key_value_heads"),
        head_dim=config.integer("head_dim", 256),
        max_position=config.integer("max_position_embeddings", 131_072),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        windows=windows,
        ropes=tuple(far if window is None else near for window in windows),
        tie_embeddings=config.flag("tie_word_embeddings", True),
        qkv_bias=bias,
        o_bias=bias,
        qk_norm=True,
        activation=config.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        norm_placement="sandwich",
        norm_unit_offset=True,
        embed_scale=hidden_size**0.5 or 1.0,
        attention_scale=max(config.number("query_pre_attn_scalar", 256), 1e-6) ** -0.5,
        logit_softcap=config.number("final_logit_softcapping", 0.0) or None,
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    ropes = dict(zip(a.windows, a.ropes, strict=True))
    windows = [window for window in a.windows if window is not None]
    near = ropes[windows[0]] if windows else Rope()
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "rope_parameters": {
            "full_attention": rope_to_parameters(ropes.get(None, Rope(1e6))),
            "sliding_attention": rope_to_parameters(near),
        },
        "attention_bias": a.qkv_bias,
        "hidden_activation": ACTIVATION_NAMES[a.activation],
        "query_pre_attn_scalar": round(a.attention_scale**-2),  # transformers takes a whole number only
        "sliding_window": windows[0] if windows else 4096,  # transformers needs one, also where no layer has it
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in a.windows],
        "final_logit_softcapping": a.logit_softcap,
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata, with what llama.cpp fixes in code: one layer in six is global."""
    num_layers, num_heads = fields.num_layers("block_count"), fields.integer("attention.head_count")
    hidden_size = fields.integer("embedding_length")
    head_dim = fields.integer("attention.key_length", 256)
    period = fields.integer("attention.sliding_window_pattern", 6)
    window = fields.integer("attention.sliding_window", 0) or None
    windows = tuple(None if period and (layer + 1) % period == 0 else window for layer in range(num_layers))
    far = rope_from_gguf(file, fields, head_dim)
    near = Rope(fields.number("rope.freq_base_swa", 10_000.0))
    per_head = hidden_size // max(num_heads, 1) if num_layers == LAYERS_IN_27B else head_dim
    return Architecture(
        family="gemma3",
        vocab_size=file.shape("token_embd.weight")[0],
        hidden_size=hidden_size,
        intermediate_size=fields.integer("feed_forward_length"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=fields.integer("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        max_position=fields.integer("context_length"),
        norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        windows=windows,
        ropes=tuple(far if (layer + 1) % max(period, 1) == 0 else near for layer in range(num_layers)),
        tie_embeddings="output.weight" not in file.tensors,
        qk_norm=True,
        activation="gelu_tanh",
        norm_placement="sandwich",
        norm_unit_offset=True,
        embed_scale=hidden_size**0.5 or 1.0,
        attention_scale=max(per_head, 1) ** -0.5,
        logit_softcap=fields.number("final_logit_softcapping", 0.0) or None,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    ropes = dict(zip(a.windows, a.ropes, strict=True))
    windows = [window for window in a.windows if window is not None]
    period = a.windows.index(None) + 1 if None in a.windows else 0
    near = {"rope.freq_base_swa": ropes[windows[0]].theta, "attention.sliding_window": windows[0]} if windows else {}
    far = ropes.get(None, Rope(1e6))
    return {
        "general.architecture": "gemma3",
        **shared_gguf(a),
        **rope_to_gguf(far),
        **near,
        "attention.sliding_window_pattern": period,
        **({} if a.logit_softcap is None else {"final_logit_softcapping": a.logit_softcap}),
    }


def to_gguf_values(ours: str, values: Tensor, a: Architecture) -> Tensor:
    """The parameter in GGUF's layout, with 1 added to norms."""
    return values + 1 if ours.endswith("norm.weight") else values


def from_gguf_values(ours: str, values: Tensor, a: Architecture) -> Tensor:
    """The parameter in our layout: GGUF stores norms with the 1 added."""
    return values - 1 if ours.endswith("norm.weight") else values


def _refuse(config: Fields, key: str, expected: str) -> None:
    if config.has(key):
        raise config.error(key, config.values[key], expected)


def _windows(config: Fields, num_layers: int) -> tuple[int | None, ...]:
    types = config.strings("layer_types")
    if types is None:
        period = max(config.integer("sliding_window_pattern", 6), 1)
        kinds = ("full_attention", "sliding_attention")
        types = [kinds[bool((layer + 1) % period)] for layer in range(num_layers)]
    if all(kind == "full_attention" for kind in types):
        return (None,) * len(types)
    return windows_of(types, config.integer("sliding_window", 4096), config)


def _ropes(config: Fields) -> tuple[Rope, Rope]:
    """The ropes of sliding and of global layers, from transformers 5's nested form or the older flat one."""
    near_theta, far_theta = config.number("rope_local_base_freq", 10_000.0), config.number("rope_theta", 1_000_000.0)
    nested = config.section("rope_parameters")
    near = rope_from_parameters(nested.section("sliding_attention"), config, theta=near_theta)
    scaling = config.section("rope_scaling")
    if config.has("rope_parameters"):
        far = nested.section("full_attention")
        refuse_other_scaling(config, far)
    elif scaling.has("type") and not scaling.has("rope_type"):
        raise scaling.error("type", scaling.values["type"], "its newer name rope_type (transformers passes type over)")
    else:
        far = scaling
    return near, rope_from_parameters(far, config, theta=far_theta)
