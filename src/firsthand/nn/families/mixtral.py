"""Mixtral (Mistral AI, 2024): Mistral's block with eight experts in place of the MLP, two for each token."""

from __future__ import annotations

from typing import Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, ExpertSettings
from firsthand.nn.families import llama
from firsthand.nn.families.rope_config import rope_from_config
from firsthand.nn.families.shared_fields import GGUF_EXPERT_ROWS, config_sizes, expert_rows
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values
from firsthand.nn.weight_layout import GGUF_OUTER, OUTER, FileLayout, gguf_rows, interleaved, plain_rows, row

MODEL_TYPES = ("mixtral",)
GGUF_ARCHITECTURES = ()


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    sizes = config_sizes(config, max_position=131_072) | {"norm_eps": config.number("rms_norm_eps", 1e-5)}
    layers = sizes["num_layers"]
    return Architecture(
        windows=(config.integer("sliding_window", 0) or None,) * layers,
        ropes=(rope_from_config(config, theta=1e6),) * layers,
        experts=ExpertSettings(
            num_experts=config.integer("num_local_experts", 8),
            per_token=config.integer("num_experts_per_tok", 2),
            width=sizes["intermediate_size"],
            layers=(True,) * layers,
        ),
        **sizes | {"num_kv_heads": config.integer("num_key_value_heads", 8)},
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    assert a.experts is not None
    return {
        **llama.to_config(a),
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": a.experts.num_experts,
        "num_experts_per_tok": a.experts.per_token,
        "sliding_window": a.windows[0],
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata."""
    return llama.from_gguf(file, fields)


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    assert a.experts is not None
    counts = {"expert_count": a.experts.num_experts, "expert_used_count": a.experts.per_token}
    return {**llama.to_gguf(a), **counts}


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder."""
    return FileLayout(OUTER, (*plain_rows(), *expert_rows("block_sparse_moe", names=("w1", "w3", "w2"))))


def gguf_layout(a: Architecture) -> FileLayout:
    """The tensors of a GGUF file: the experts of a layer are stacked, and rotated pairs lie side by side, as in Llama's."""
    turned = (
        row("attn_q", "attention.q_proj", fold=interleaved(0, a.num_heads)),
        row("attn_k", "attention.k_proj", fold=interleaved(0, a.num_kv_heads)),
    )
    kept = tuple(each for each in gguf_rows() if each.file not in ("attn_q", "attn_k"))
    return FileLayout(GGUF_OUTER, (*turned, *kept, *GGUF_EXPERT_ROWS), layers="blk")
