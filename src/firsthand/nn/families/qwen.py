"""The Qwen family: Qwen2 and 2.5 (biases on q, k and v) and Qwen3 (RMSNorm on each query and key head instead).

Left out: the mixtures of experts and the vision models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture
from firsthand.nn.families.llama import ACTIVATION_NAMES, ACTIVATIONS, windows_of
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

MODEL_TYPES = ("qwen2", "qwen3")
GGUF_ARCHITECTURES = ("qwen2", "qwen3")


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    family = config.text("model_type")
    num_layers, num_heads = config.num_layers("num_hidden_layers"), config.integer("num_attention_heads")
    hidden_size = config.integer("hidden_size")
    bias = config.flag("attention_bias", False) if family == "qwen3" else False
    rope = rope_from_config(config)
    return Architecture(
        family=family,
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=config.integer("num_key_value_heads", num_heads),
        head_dim=config.integer("head_dim", 128 if family == "qwen3" else hidden_size // max(num_heads, 1)),
        max_position=longest_text(config, rope, 32_768),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        windows=_windows(config, num_layers),
        ropes=(rope,) * num_layers,
        tie_embeddings=config.flag("tie_word_embeddings", False),
        qkv_bias=bias or family == "qwen2",
        o_bias=bias,
        qk_norm=family == "qwen3",
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    windows = [window for window in a.windows if window is not None]
    return {
        "architectures": ["Qwen3ForCausalLM" if a.family == "qwen3" else "Qwen2ForCausalLM"],
        "model_type": a.family,
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "rope_parameters": rope_to_parameters(a.ropes[0]),
        "hidden_act": ACTIVATION_NAMES[a.activation],
        "use_sliding_window": bool(windows),
        "sliding_window": windows[0] if windows else None,
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in a.windows],
        **config_length(a),
        **({"attention_bias": a.qkv_bias} if a.family == "qwen3" else {}),
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata; the tensors present tell a tied head."""
    family = fields.prefix.rstrip(".")
    num_layers, num_heads = fields.num_layers("block_count"), fields.integer("attention.head_count")
    hidden_size = fields.integer("embedding_length")
    head_dim = fields.integer("attention.key_length", hidden_size // max(num_heads, 1))
    return Architecture(
        family=family,
        vocab_size=file.shape("token_embd.weight")[0],
        hidden_size=hidden_size,
        intermediate_size=fields.integer("feed_forward_length"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=fields.integer("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        max_position=fields.integer("context_length"),
        norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        windows=(None,) * num_layers,
        ropes=(rope_from_gguf(file, fields, head_dim),) * num_layers,
        tie_embeddings="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        o_bias="blk.0.attn_output.bias" in file.tensors,
        qk_norm=family == "qwen3",
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    return {"general.architecture": a.family, **shared_gguf(a), **rope_to_gguf(a.ropes[0])}


def to_gguf_values(ours: str, values: Tensor, a: Architecture) -> Tensor:
    """The parameter in GGUF's layout, which is ours."""
    return values


def from_gguf_values(ours: str, values: Tensor, a: Architecture) -> Tensor:
    """The parameter in our layout, which Qwen's GGUF files have too."""
    return values


def _windows(config: Fields, num_layers: int) -> tuple[int | None, ...]:
    """The window of each layer, if `use_sliding_window` is set."""
    if not config.flag("use_sliding_window", False) or not config.has("sliding_window"):
        return (None,) * num_layers
    window = config.integer("sliding_window")
    types = config.strings("layer_types")
    if types is None:
        first = config.integer("max_window_layers", 28)
        return tuple(window if layer >= first else None for layer in range(num_layers))
    return windows_of(types, window, config)
