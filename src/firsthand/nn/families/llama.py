"""The Llama family: Llama 2 and 3, SmolLM2, Mistral, and others of the model types `llama` and `mistral`.

Pre-norm, SwiGLU, grouped-query attention, plain or llama3-stretched rope; Mistral adds a sliding window. GGUF files call
Mixtral `llama` too (`mixtral.py` has its folders).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Activation, Architecture, ExpertSettings
from firsthand.nn.families.rope_config import (
    config_length,
    longest_text,
    rope_from_config,
    rope_from_gguf,
    rope_to_gguf,
    rope_to_parameters,
    shared_gguf,
)

if TYPE_CHECKING:
    from torch import Tensor

MODEL_TYPES = ("llama", "mistral")
GGUF_ARCHITECTURES = ("llama",)
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
ACTIVATION_NAMES = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    family = config.text("model_type")
    num_layers, num_heads = config.num_layers("num_hidden_layers"), config.integer("num_attention_heads")
    hidden_size = config.integer("hidden_size")
    bias, rope = config.flag("attention_bias", False), rope_from_config(config)
    return Architecture(
        family=family,
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=config.integer("num_key_value_heads", 8 if family == "mistral" else num_heads),
        head_dim=config.integer("head_dim", hidden_size // max(num_heads, 1)),
        max_position=longest_text(config, rope, 131_072 if family == "mistral" else 2048),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        windows=_windows(config, num_layers) if family == "mistral" else (None,) * num_layers,
        ropes=(rope,) * num_layers,
        tie_embeddings=config.flag("tie_word_embeddings", False),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=config.flag("mlp_bias", False),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    window: dict[str, Any] = {"sliding_window": max((each or 0 for each in a.windows), default=0) or None}
    if len(set(a.windows)) > 1:
        window["layer_types"] = ["full_attention" if each is None else "sliding_attention" for each in a.windows]
    return {
        "architectures": ["MistralForCausalLM" if a.family == "mistral" else "LlamaForCausalLM"],
        "model_type": a.family,
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "rope_parameters": rope_to_parameters(a.ropes[0]),
        "attention_bias": a.qkv_bias,
        "mlp_bias": a.mlp_bias,
        "hidden_act": ACTIVATION_NAMES[a.activation],
        **config_length(a),
        **(window if a.family == "mistral" else {}),
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata; the tensors present tell biases and a tied head."""
    num_layers, num_heads = fields.num_layers("block_count"), fields.integer("attention.head_count")
    hidden_size = fields.integer("embedding_length")
    head_dim = fields.integer("attention.key_length", hidden_size // max(num_heads, 1))
    experts = None
    if fields.integer("expert_count", 0):
        width = fields.integer("feed_forward_length")
        experts = ExpertSettings(
            fields.integer("expert_count"), fields.integer("expert_used_count"), width, (True,) * num_layers
        )
    return Architecture(
        family="mixtral" if experts else "llama",
        vocab_size=file.shape("token_embd.weight")[0],
        hidden_size=hidden_size,
        intermediate_size=fields.integer("feed_forward_length"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=fields.integer("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        max_position=fields.integer("context_length"),
        norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        windows=(fields.integer("attention.sliding_window", 0) or None,) * num_layers,
        ropes=(rope_from_gguf(file, fields, head_dim),) * num_layers,
        tie_embeddings="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        o_bias="blk.0.attn_output.bias" in file.tensors,
        mlp_bias="blk.0.ffn_down.bias" in file.tensors,
        experts=experts,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    window = {} if a.windows[0] is None else {"attention.sliding_window": a.windows[0]}
    return {"general.architecture": "llama", **shared_gguf(a), **rope_to_gguf(a.ropes[0]), **window}


def from_gguf_values(ours: str, values: Tensor, a: Architecture) -> Tensor:
    """The parameter in our layout: GGUF interleaves the rotary pairs of q and k, ours keeps the halves apart."""
    if ".attention.q_proj." in ours:
        return _unpermute(values, a.num_heads)
    if ".attention.k_proj." in ours:
        return _unpermute(values, a.num_kv_heads)
    return values


def to_gguf_values(ours: str, values: Tensor, a: Architecture) -> Tensor:
    """The parameter in GGUF's layout."""
    if ".attention.q_proj." in ours:
        return _permute(values, a.num_heads)
    if ".attention.k_proj." in ours:
        return _permute(values, a.num_kv_heads)
    return values


def _permute(values: Tensor, heads: int) -> Tensor:
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _unpermute(values: Tensor, heads: int) -> Tensor:
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _windows(config: Fields, num_layers: int) -> tuple[int | None, ...]:
    """Mistral's sliding windows, in all layers or in those that `layer_types` names (Ministral): null is none, and an
    absent key means transformers' default of 4096."""
    stated = "sliding_window" not in config.values or config.has("sliding_window")
    window = config.integer("sliding_window", 4096) if stated else None
    types = config.strings("layer_types")
    if types is None or window is None:
        return (window,) * num_layers
    return windows_of(types, window, config)


def windows_of(layer_types: list[str], window: int, config: Fields) -> tuple[int | None, ...]:
    """The window of each layer from its type."""
    for kind in layer_types:
        if kind not in ("full_attention", "sliding_attention"):
            raise config.error("layer_types", kind, "full_attention or sliding_attention for each layer")
    return tuple(window if kind == "sliding_attention" else None for kind in layer_types)
