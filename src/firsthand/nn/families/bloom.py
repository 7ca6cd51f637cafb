"""BLOOM (2022): GPT-2's block with ALiBi in place of positions, and a LayerNorm after the embeddings."""

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
from firsthand.nn.weight_layout import QKV, FileLayout, by_head, row

MODEL_TYPES = ("bloom",)
GGUF_ARCHITECTURES = ("bloom",)
SWITCHES = gpt2.SWITCHES | {"embed_norm": True}
MAX_HEADS = 4096


def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """2 ** (-8 i / n) for n heads, a power of two; more heads take every second slope of 2n (Press et al., 2022)."""
    count = 2 ** int(math.log2(min(max(num_heads, 1), MAX_HEADS)))
    slopes = [2.0 ** (-8 * (head + 1) / count) for head in range(count)]
    between = [2.0 ** (-4 * (head + 1) / count) for head in range(0, 2 * (min(num_heads, MAX_HEADS) - count), 2)]
    return tuple(slopes + between)


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    if config.flag("apply_residual_connection_post_layernorm", False):
        raise config.error("apply_residual_connection_post_layernorm", True, "false")
    if config.flag("slow_but_exact", False) and config.integer("pretraining_tp", 1) > 1:
        raise config.error(
            "slow_but_exact", True, "false, or a pretraining_tp of 1 (with it transformers drops biases)"
        )
    num_layers, num_heads = config.num_layers("n_layer"), config.integer("n_head")
    width = config.integer("hidden_size", config.integer("n_embed", 0))
    return Architecture(
        family="bloom",
        vocab_size=config.integer("vocab_size"),
        hidden_size=width,
        intermediate_size=4 * width,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=width // max(num_heads, 1),
        max_position=config.integer("seq_length", config.integer("max_position_embeddings", 2048)),
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        windows=(None,) * num_layers,
        ropes=without_rope(num_layers),
        tie_embeddings=config.flag("tie_word_embeddings", True),
        alibi_slopes=alibi_slopes(num_heads),
        **SWITCHES,
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    return {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "n_layer": a.num_layers,
        "n_head": a.num_heads,
        "seq_length": a.max_position,
        "layer_norm_epsilon": a.norm_eps,
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata."""
    sizes = gguf_sizes(file, fields, eps="attention.layer_norm_epsilon")
    layers = sizes["num_layers"]
    more = {
        "windows": (None,) * layers,
        "ropes": without_rope(layers),
        "alibi_slopes": alibi_slopes(sizes["num_heads"]),
    }
    return Architecture(family="bloom", **sizes, **more, **SWITCHES)


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    return {"general.architecture": "bloom", **sizes_to_gguf(a)}


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder: queries, keys and values lie by head."""
    return FileLayout(
        outer=(
            row("transformer.word_embeddings", "embed"), row("transformer.word_embeddings_layernorm", "embed_norm"),
            row("transformer.ln_f", "norm"), row("lm_head", "lm_head"),
        ),
        inner=(
            row("input_layernorm", "attention_norm"),
            row("self_attention.query_key_value", *QKV, fold=by_head(a.num_heads)),
            row("self_attention.dense", "attention.o_proj"),
            row("post_attention_layernorm", "mlp_norm"),
            row("mlp.dense_h_to_4h", "mlp.up_proj"),
            row("mlp.dense_4h_to_h", "mlp.down_proj"),
        ),
        layers="transformer.h",
        prefix="transformer.",
    )  # fmt: skip


gguf_layout = gpt2.gguf_layout
