"""Phi-3 and Phi-4-mini: Llama's block, in files with one matrix for queries, keys and values, and one for gate and up.

LongRoPE's angles are fixed for the context that config.json states (`blocks/rope.py`), as vLLM and llama.cpp have them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from firsthand.errors import ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.families.llama import ACTIVATION_NAMES
from firsthand.nn.families.rope_config import rope_from_config, rope_to_parameters, rotated_values
from firsthand.nn.families.shared_fields import config_sizes, gguf_sizes, sizes_to_gguf
from firsthand.nn.families.shared_fields import from_gguf_values as from_gguf_values
from firsthand.nn.families.shared_fields import to_gguf_values as to_gguf_values
from firsthand.nn.weight_layout import GATE_UP, GGUF_OUTER, OUTER, QKV, FileLayout, row

MODEL_TYPES = ("phi3",)
GGUF_ARCHITECTURES = ("phi3",)


def from_config(config: Fields) -> Architecture:
    """The architecture in a Hugging Face config.json."""
    config = replace(
        config, values={"original_max_position_embeddings": 4096, **config.values}
    )  # whatever the rope's says
    sizes = config_sizes(config, max_position=4096) | {"norm_eps": config.number("rms_norm_eps", 1e-5)}
    rotated, layers = rotated_values(config, sizes["head_dim"]), sizes["num_layers"]
    return Architecture(
        windows=(config.integer("sliding_window", 0) or None,) * layers,
        ropes=(rope_from_config(config, may_be_partial=True),) * layers,
        rotary_dim=0 if rotated == sizes["head_dim"] else rotated,
        **sizes,
    )


def to_config(a: Architecture) -> dict[str, Any]:
    """The config.json that transformers reads back as this architecture."""
    rope = rope_to_parameters(a.ropes[0]) | {"partial_rotary_factor": a.rotated / a.head_dim}
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "rope_parameters": rope,
        "original_max_position_embeddings": a.ropes[0].original_max_position or a.max_position,
        "hidden_act": ACTIVATION_NAMES[a.activation],
        "sliding_window": a.windows[0],
    }


def from_gguf(file: GGUF, fields: Fields) -> Architecture:
    """The architecture in GGUF metadata."""
    sizes = gguf_sizes(file, fields)
    rotated, theta = (
        fields.integer("rope.dimension_count", sizes["head_dim"]),
        fields.number("rope.freq_base", 10_000.0),
    )
    rope = Rope(theta)
    if "rope_factors_long.weight" in file.tensors:
        for name in ("rope_factors_long.weight", "rope_factors_short.weight"):
            if file.shape(name) != (rotated // 2,):  # asked before reading: the file chose its size
                raise ModelFileError(f"{file.path}: {name} needs {rotated // 2} values, one for each pair")
        trained = fields.integer("rope.scaling.original_context_length", sizes["max_position"])
        rope = Rope(
            theta,
            "longrope",
            max(sizes["max_position"], 1) / max(trained, 1),
            trained,
            attention_factor=fields.number("rope.scaling.attn_factor", 1.0),
            divisors=tuple(file.dequantise("rope_factors_long.weight").tolist()),
            short_divisors=tuple(file.dequantise("rope_factors_short.weight").tolist()),
        )
    return Architecture(
        family="phi3",
        windows=(fields.integer("attention.sliding_window", 0) or None,) * sizes["num_layers"],
        ropes=(rope,) * sizes["num_layers"],
        rotary_dim=0 if rotated == sizes["head_dim"] else rotated,
        **sizes,
    )


def to_gguf(a: Architecture) -> dict[str, Any]:
    """The GGUF metadata that `from_gguf` reads back as this architecture; keys without the architecture's prefix."""
    rope = {"rope.freq_base": a.ropes[0].theta, "rope.dimension_count": a.rotated}
    if a.ropes[0].kind == "longrope":
        rope["rope.scaling.original_context_length"] = a.ropes[0].original_max_position
        rope["rope.scaling.attn_factor"] = a.ropes[0].attention_factor
    window = {} if a.windows[0] is None else {"attention.sliding_window": a.windows[0]}
    return {"general.architecture": "phi3", **sizes_to_gguf(a), **rope, **window}


def huggingface_layout(a: Architecture) -> FileLayout:
    """The tensors of a folder."""
    inner = (
        row("input_layernorm", "attention_norm"),
        row("self_attn.qkv_proj", *QKV),
        row("self_attn.o_proj", "attention.o_proj"),
        row("post_attention_layernorm", "mlp_norm"),
        row("mlp.gate_up_proj", *GATE_UP),
        row("mlp.down_proj", "mlp.down_proj"),
    )
    return FileLayout(OUTER, inner)


def gguf_layout(a: Architecture) -> FileLayout:
    """The tensors of a GGUF file."""
    inner = (
        row("attn_norm", "attention_norm"), row("attn_qkv", *QKV), row("attn_output", "attention.o_proj"),
        row("ffn_norm", "mlp_norm"), row("ffn_up", *GATE_UP), row("ffn_down", "mlp.down_proj"),
    )  # fmt: skip
    return FileLayout(GGUF_OUTER, inner, layers="blk", ignored=(r"rope_factors_(long|short)\.weight",))
