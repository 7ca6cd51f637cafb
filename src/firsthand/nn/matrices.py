"""The matrices and norms of each kind of block, declared once: place, shape, names in files, order of computation.

Modules build their projections from these tables, and the compiled step, LoRA and the weights' names read them. A new
matrix is one row; the compiled step refuses a block with rows that it has no slot for. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from firsthand.nn.architecture import Architecture

Rule = Callable[[Architecture], int]


@dataclass(frozen=True)
class Matrix:
    """One projection of a block."""

    name: str
    """Its place in the block's module, such as `attention.q_proj`."""
    outputs: Rule
    inputs: Rule
    has_bias: Callable[[Architecture], bool]
    huggingface: str
    """Its name in a Hugging Face layer."""
    gguf: str
    """Its name in a GGUF block."""
    product: str
    """Matrices of one product multiply the same rows, and their outputs lie side by side in the order of the table."""
    writes_residual: bool = False
    """Its outputs are added to the residual stream."""

    @property
    def leaf(self) -> str:
        """The attribute's own name, such as `q_proj`."""
        return self.name.rpartition(".")[2]

    def shape(self, a: Architecture) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.outputs(a), self.inputs(a)

    def num_parameters(self, a: Architecture) -> int:
        """Weights and bias."""
        return self.outputs(a) * (self.inputs(a) + self.has_bias(a))


@dataclass(frozen=True)
class NormWeight:
    """The weight vector of one norm of a block."""

    name: str
    """Its place in the block's module."""
    size: Rule
    exists: Callable[[Architecture], bool]
    huggingface: str
    gguf: str
    huggingface_sandwich: str = ""
    """Its Hugging Face name where norms stand on both sides of a sublayer, if that is another."""


def _query_width(a: Architecture) -> int:
    return a.num_heads * a.head_dim


def _kv_width(a: Architecture) -> int:
    return a.num_kv_heads * a.head_dim


def _hidden(a: Architecture) -> int:
    return a.hidden_size


def _inner(a: Architecture) -> int:
    return a.intermediate_size


def _qkv_bias(a: Architecture) -> bool:
    return a.qkv_bias


def _mlp_bias(a: Architecture) -> bool:
    return a.mlp_bias


def _always(a: Architecture) -> bool:
    return True


def _is_sandwich(a: Architecture) -> bool:
    return a.norm_placement == "sandwich"


ATTENTION = (
    Matrix("attention.q_proj", _query_width, _hidden, _qkv_bias, "self_attn.q_proj", "attn_q", "qkv"),
    Matrix("attention.k_proj", _kv_width, _hidden, _qkv_bias, "self_attn.k_proj", "attn_k", "qkv"),
    Matrix("attention.v_proj", _kv_width, _hidden, _qkv_bias, "self_attn.v_proj", "attn_v", "qkv"),
    Matrix(
        "attention.o_proj", _hidden, _query_width, lambda a: a.o_bias, "self_attn.o_proj", "attn_output", "o",
        writes_residual=True,
    ),
)  # fmt: skip
GATED_MLP = (
    Matrix("mlp.gate_proj", _inner, _hidden, _mlp_bias, "mlp.gate_proj", "ffn_gate", "gate_up"),
    Matrix("mlp.up_proj", _inner, _hidden, _mlp_bias, "mlp.up_proj", "ffn_up", "gate_up"),
    Matrix("mlp.down_proj", _hidden, _inner, _mlp_bias, "mlp.down_proj", "ffn_down", "down", writes_residual=True),
)
BLOCK = ATTENTION + GATED_MLP
"""The matrices of a decoder's block."""
BLOCK_NORMS = (
    NormWeight("attention_norm", _hidden, _always, "input_layernorm", "attn_norm"),
    NormWeight("attention_out_norm", _hidden, _is_sandwich, "post_attention_layernorm", "post_attention_norm"),
    NormWeight(
        "mlp_norm",
        _hidden,
        _always,
        "post_attention_layernorm",
        "ffn_norm",
        huggingface_sandwich="pre_feedforward_layernorm",
    ),
    NormWeight("mlp_out_norm", _hidden, _is_sandwich, "post_feedforward_layernorm", "post_ffw_norm"),
    NormWeight("attention.q_norm", lambda a: a.head_dim, lambda a: a.qk_norm, "self_attn.q_norm", "attn_q_norm"),
    NormWeight("attention.k_norm", lambda a: a.head_dim, lambda a: a.qk_norm, "self_attn.k_norm", "attn_k_norm"),
)
"""The norms of a decoder's block."""


def columns(a: Architecture, matrices: Sequence[Matrix] = BLOCK) -> Iterator[int]:
    """Offset of each matrix's outputs in the row of its product."""
    ends: dict[str, int] = {}
    for matrix in matrices:
        yield ends.get(matrix.product, 0)
        ends[matrix.product] = ends.get(matrix.product, 0) + matrix.outputs(a)


def num_parameters(a: Architecture) -> int:
    """Numbers in the weights of a model of plain decoder blocks; a tied head counts once."""
    block = sum(matrix.num_parameters(a) for matrix in BLOCK)
    block += sum(norm.size(a) for norm in BLOCK_NORMS if norm.exists(a))
    embeddings = a.vocab_size * a.hidden_size * (1 if a.tie_embeddings else 2)
    return a.num_layers * block + embeddings + a.hidden_size
