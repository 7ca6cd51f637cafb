"""GPT-2 (Radford et al., 2019): pre-LayerNorm, learned positions, GELU without a gate, biases."""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture
from firsthand.nn.families.llama import ACTIVATIONS
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import gguf_sizes, sizes_to_gguf, without_rope
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values
from firsthand.nn.weight_layout import COLUMNS, GGUF_OUTER, QKV, FileLayout, row

MODEL_TYPES = ("gpt2",)
GGUF_ARCHITECTURES = ("gpt2",)
SWITCHES: dict[str, Any] = {
    "qkv_bias": True, "o_bias": True, "mlp_bias": True, "norm": "layer", "is_gated": False, "activation": "gelu_tanh",
}  # fmt: skip


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    for key, expected in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if config.flag(key, expected) is not expected:
            raise config.error(key, not expected, str(expected).lower())
    num_layers, num_heads, width = config.num_layers("n_layer"), config.integer("n_head"), config.integer("n_embd")
    positions = config.integer("n_positions", 1024)
    return Architecture(
        family="gpt2",
        vocab_size=config.integer("vocab_size"),
        hidden_size=width,
        intermediate_size=config.integer("n_inner", 4 * width),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=width // max(num_heads, 1),
        max_position=positions,
        learned_positions=positions,
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        windows=(None,) * num_layers,
        ropes=without_rope(num_layers),
        tie_embeddings=config.flag("tie_word_embeddings", True),
        **SWITCHES | {"activation": config.choice("activation_function", ACTIVATIONS, "gelu_new")},
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": a.hidden_size,
        "n_layer": a.num_layers,
        "n_head": a.num_heads,
        "n_positions": a.max_position,
        "n_inner": a.intermediate_size,
        "layer_norm_epsilon": a.norm_eps,
        "activation_function": "gelu_new" if a.activation == "gelu_tanh" else a.activation,
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata."""
    sizes = gguf_sizes(file, fields, eps="attention.layer_norm_epsilon")
    positions = file.shape("position_embd.weight")[0]
    layers = sizes["num_layers"]
    more = {"windows": (None,) * layers, "ropes": without_rope(layers), "learned_positions": positions}
    return Architecture(family="gpt2", **sizes, **more, **SWITCHES)


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    return {"general.architecture": "gpt2", **sizes_to_gguf(a)}


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder: matrices are inputs x outputs, and one holds queries, keys and values."""
    return FileLayout(
        outer=(
            row("transformer.wte", "embed"), row("transformer.wpe", "positions"), row("transformer.ln_f", "norm"),
            row("lm_head", "lm_head"),
        ),
        inner=(
            row("ln_1", "attention_norm"),
            row("attn.c_attn", *QKV, fold=COLUMNS),
            row("attn.c_proj", "attention.o_proj", fold=COLUMNS),
            row("ln_2", "mlp_norm"),
            row("mlp.c_fc", "mlp.up_proj", fold=COLUMNS),
            row("mlp.c_proj", "mlp.down_proj", fold=COLUMNS),
        ),
        layers="transformer.h",
        prefix="transformer.",
        ignored=(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",),
    )  # fmt: skip


def gguf_layout(a: Architecture) -> FileLayout:
    """The tensors of a GGUF file."""
    inner = (
        row("attn_norm", "attention_norm"), row("attn_qkv", *QKV), row("attn_output", "attention.o_proj"),
        row("ffn_norm", "mlp_norm"), row("ffn_up", "mlp.up_proj"), row("ffn_down", "mlp.down_proj"),
    )  # fmt: skip
    return FileLayout(GGUF_OUTER, inner, layers="blk")
