"""MPT (MosaicML, 2023): GPT-2's block without biases, ALiBi in place of positions, clamped queries, keys and values."""

from __future__ import annotations

import math
from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture
from firsthand.nn.families import gpt2
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import gguf_sizes, sizes_to_gguf, without_rope
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values
from firsthand.nn.weight_layout import QKV, FileLayout, row

MODEL_TYPES = ("mpt",)
GGUF_ARCHITECTURES = ("mpt",)
SWITCHES: dict[str, Any] = {"norm": "layer_no_bias", "is_gated": False, "activation": "gelu"}
_ONLY = {"attn_type": "multihead_attention", "qk_ln": False, "prefix_lm": False, "alibi": True}
"""The one value that is read of each setting of `attn_config`."""
MAX_HEADS = 4096


def alibi_slopes(num_heads: int, largest: float) -> tuple[float, ...]:
    """2 ** (-largest i / n); other numbers of heads take odd slopes of the next power, then even ones."""
    heads = min(max(num_heads, 1), MAX_HEADS)
    count = 2 ** math.ceil(math.log2(heads))
    slopes = [2.0 ** (-largest * (head + 1) / count) for head in range(count)]
    return tuple(slopes if count == heads else (slopes[1::2] + slopes[::2])[:heads])


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    attention = config.section("attn_config")
    for key, only in _ONLY.items():
        if attention.has(key) and attention.values[key] != only:
            raise attention.error(key, attention.values[key], str(only).lower())
    if config.number("expansion_ratio", 4) != 4:
        raise config.error("expansion_ratio", config.values["expansion_ratio"], "4, which is what MPT's MLP has")
    if config.has("logit_scale") and config.values["logit_scale"] != 1:
        raise config.error("logit_scale", config.values["logit_scale"], "null (scaled logits are not supported)")
    if not config.flag("no_bias", True):
        raise config.error("no_bias", False, "true")
    num_layers, num_heads, width = config.num_layers("n_layers"), config.integer("n_heads"), config.integer("d_model")
    largest = attention.number("alibi_bias_max", 8)
    if not 0 < largest <= 64:
        raise attention.error("alibi_bias_max", largest, "above 0, and 64 at most")
    return Architecture(
        family="mpt",
        vocab_size=config.integer("vocab_size"),
        hidden_size=width,
        intermediate_size=4 * width,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=width // max(num_heads, 1),
        max_position=config.integer("max_seq_len", 2048),
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        windows=(None,) * num_layers,
        ropes=without_rope(num_layers),
        tie_embeddings=config.flag("tie_word_embeddings", True),
        attention_scale=attention.number("softmax_scale", 0.0),
        clip_qkv=attention.number("clip_qkv", 0.0) or None,
        alibi_slopes=alibi_slopes(num_heads, largest),
        **SWITCHES,
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    largest = round(_largest(a), 9)
    attention: dict[str, Any] = {"clip_qkv": a.clip_qkv, "softmax_scale": a.attention_scale, "alibi": True}
    return {
        "architectures": ["MptForCausalLM"],
        "model_type": "mpt",
        "d_model": a.hidden_size,
        "n_layers": a.num_layers,
        "n_heads": a.num_heads,
        "max_seq_len": a.max_position,
        "expansion_ratio": 4,
        "layer_norm_epsilon": a.norm_eps,
        "attn_config": attention | {"alibi_bias_max": int(largest) if largest == int(largest) else largest},
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata."""
    sizes = gguf_sizes(file, fields, eps="attention.layer_norm_epsilon")
    layers, largest = sizes["num_layers"], fields.number("attention.max_alibi_bias", 8.0)
    if not 0 < largest <= 64:
        raise fields.error("attention.max_alibi_bias", largest, "above 0, and 64 at most")
    return Architecture(
        family="mpt",
        windows=(None,) * layers,
        ropes=without_rope(layers),
        clip_qkv=fields.number("attention.clamp_kqv", 0.0) or None,
        alibi_slopes=alibi_slopes(sizes["num_heads"], largest),
        **sizes,
        **SWITCHES,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    clamp = {} if a.clip_qkv is None else {"attention.clamp_kqv": a.clip_qkv}
    return {"general.architecture": "mpt", **sizes_to_gguf(a), "attention.max_alibi_bias": _largest(a), **clamp}


def _largest(a: Architecture) -> float:
    """The exponent of the smallest slope of a power of two of heads."""
    return -math.log2(min(a.alibi_slopes)) if a.alibi_slopes else 8.0


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder."""
    return FileLayout(
        outer=(row("transformer.wte", "embed"), row("transformer.norm_f", "norm"), row("lm_head", "lm_head")),
        inner=(
            row("norm_1", "attention_norm"),
            row("attn.Wqkv", *QKV),
            row("attn.out_proj", "attention.o_proj"),
            row("norm_2", "mlp_norm"),
            row("ffn.up_proj", "mlp.up_proj"),
            row("ffn.down_proj", "mlp.down_proj"),
        ),
        layers="transformer.blocks",
        prefix="transformer.",
    )


gguf_layout = gpt2.gguf_layout
