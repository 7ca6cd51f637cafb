"""The fields that most families' files have in common: sizes in config.json and in GGUF metadata, and plain GGUF values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.families.llama import ACTIVATIONS
from firsthand.nn.weight_layout import STACK, LayoutRow, row

if TYPE_CHECKING:
    from torch import Tensor

EXPERT_PARTS = ("gate_proj", "up_proj", "down_proj")


def config_sizes(config: Fields, *, max_position: int = 2048) -> dict[str, Any]:
    """Arguments of `Architecture` that Llama-like config.json files share."""
    num_heads, hidden_size = config.integer("num_attention_heads"), config.integer("hidden_size")
    return {
        "family": config.text("model_type"),
        "vocab_size": config.integer("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": config.integer("intermediate_size"),
        "num_layers": config.num_layers("num_hidden_layers"),
        "num_heads": num_heads,
        "num_kv_heads": config.integer("num_key_value_heads", num_heads),
        "head_dim": config.integer("head_dim", hidden_size // max(num_heads, 1)),
        "max_position": config.integer("max_position_embeddings", max_position),
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "tie_embeddings": config.flag("tie_word_embeddings", False),
        "activation": config.choice("hidden_act", ACTIVATIONS, "silu"),
    }


def gguf_sizes(file: GGUF, fields: Fields, *, eps: str = "attention.layer_norm_rms_epsilon") -> dict[str, Any]:
    """Arguments of `Architecture` that GGUF files share; the tensors present tell biases and a tied head."""
    num_heads, hidden_size = fields.integer("attention.head_count"), fields.integer("embedding_length")
    return {
        "vocab_size": file.shape("token_embd.weight")[0],
        "hidden_size": hidden_size,
        "intermediate_size": fields.integer("feed_forward_length"),
        "num_layers": fields.num_layers("block_count"),
        "num_heads": num_heads,
        "num_kv_heads": fields.integer("attention.head_count_kv", num_heads),
        "head_dim": fields.integer("attention.key_length", hidden_size // max(num_heads, 1)),
        "max_position": fields.integer("context_length"),
        "norm_eps": fields.number(eps),
        "tie_embeddings": "output.weight" not in file.tensors,
    }


def sizes_to_gguf(a: Architecture) -> dict[str, Any]:
    """The metadata that all families have."""
    eps = "attention.layer_norm_rms_epsilon" if a.norm == "rms" else "attention.layer_norm_epsilon"
    is_own = a.head_dim * a.num_heads != a.hidden_size
    widths = {"attention.key_length": a.head_dim, "attention.value_length": a.head_dim} if is_own else {}
    return {
        "vocab_size": a.vocab_size,
        "context_length": a.max_position,
        "embedding_length": a.hidden_size,
        "feed_forward_length": a.intermediate_size,
        "block_count": a.num_layers,
        "attention.head_count": a.num_heads,
        "attention.head_count_kv": a.num_kv_heads,
        eps: a.norm_eps,
        **widths,
    }


def experts_from_gguf(fields: Fields, num_layers: int, **more: Any) -> ExpertSettings:
    """The experts in GGUF metadata; the first layers may have none."""
    dense = fields.integer("leading_dense_block_count", 0)
    settings: dict[str, Any] = {"width": fields.integer("expert_feed_forward_length", 0)} | more
    return ExpertSettings(
        num_experts=fields.integer("expert_count"),
        per_token=fields.integer("expert_used_count"),
        layers=tuple(layer >= dense for layer in range(num_layers)),
        **settings,
    )


def experts_to_gguf(e: ExpertSettings) -> dict[str, Any]:
    """The metadata that `experts_from_gguf` reads back."""
    return {
        "expert_count": e.num_experts,
        "expert_used_count": e.per_token,
        "expert_feed_forward_length": e.width,
        "leading_dense_block_count": e.layers.index(True),
    }


def without_rope(num_layers: int) -> tuple[Rope, ...]:
    """The ropes of a model whose positions are no rotations."""
    return (Rope(kind="none"),) * num_layers


def expert_rows(module: str, *, names: tuple[str, str, str] = EXPERT_PARTS) -> tuple[LayoutRow, ...]:
    """Rows of a folder's experts, a tensor for each matrix of each expert, below a module such as `mlp`."""
    parts = zip(names, EXPERT_PARTS, strict=True)
    return (
        row(f"{module}.gate", "mlp.router"),
        *(row(f"{module}.experts.{{e}}.{theirs}", f"mlp.experts.{{e}}.{ours}") for theirs, ours in parts),
    )


def shared_rows(module: str) -> tuple[LayoutRow, ...]:
    """Rows of the expert that computes every token."""
    return tuple(row(f"{module}.{part}", f"mlp.shared.{part}") for part in EXPERT_PARTS)


GGUF_EXPERT_ROWS = (
    row("ffn_gate_inp", "mlp.router"),
    row("ffn_gate_exps", "mlp.experts.{e}.gate_proj", fold=STACK),
    row("ffn_up_exps", "mlp.experts.{e}.up_proj", fold=STACK),
    row("ffn_down_exps", "mlp.experts.{e}.down_proj", fold=STACK),
    row("ffn_gate_shexp", "mlp.shared.gate_proj"),
    row("ffn_up_shexp", "mlp.shared.up_proj"),
    row("ffn_down_shexp", "mlp.shared.down_proj"),
)


def to_gguf_values(ours: str, values: Tensor, a: Architecture) -> Tensor:
    """The parameter as it is: the family's `gguf_layout` says how it lies in the file."""
    return values


def from_gguf_values(ours: str, values: Tensor, a: Architecture) -> Tensor:
    """The parameter as it is: the family's `gguf_layout` says how it lies in the file."""
    return values
