"""The matrices and norms of each kind of block, declared once: place, shape, names in files, order of computation.

Modules build their projections from these tables, and the compiled step, LoRA and the weights' names read them. A new
matrix is one row; the compiled step refuses a block with rows that it has no slot for. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings

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


def _has_in_norms(a: Architecture) -> bool:
    return a.norm_placement != "post"


def _has_out_norms(a: Architecture) -> bool:
    return a.norm_placement != "pre"


def _norm_of(heads: Rule) -> Rule:
    """The width that a norm of queries or keys covers."""
    return lambda a: a.head_dim if a.qk_norm_over == "head" else heads(a)


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
PLAIN_MLP = GATED_MLP[1:]
BLOCK = ATTENTION + GATED_MLP
"""The matrices of a decoder's block with plain attention and a gated MLP: those that adapters and the compiled step know."""
BLOCK_NORMS = (
    NormWeight("attention_norm", _hidden, _has_in_norms, "input_layernorm", "attn_norm"),
    NormWeight("attention_out_norm", _hidden, _has_out_norms, "post_attention_layernorm", "post_attention_norm"),
    NormWeight(
        "mlp_norm",
        _hidden,
        _has_in_norms,
        "post_attention_layernorm",
        "ffn_norm",
        huggingface_sandwich="pre_feedforward_layernorm",
    ),
    NormWeight("mlp_out_norm", _hidden, _has_out_norms, "post_feedforward_layernorm", "post_ffw_norm"),
    NormWeight("attention.q_norm", _norm_of(_query_width), lambda a: a.qk_norm, "self_attn.q_norm", "attn_q_norm"),
    NormWeight("attention.k_norm", _norm_of(_kv_width), lambda a: a.qk_norm, "self_attn.k_norm", "attn_k_norm"),
)
"""The norms of a decoder's block."""


def columns(a: Architecture, matrices: Sequence[Matrix] = BLOCK) -> Iterator[int]:
    """Offset of each matrix's outputs in the row of its product."""
    ends: dict[str, int] = {}
    for matrix in matrices:
        yield ends.get(matrix.product, 0)
        ends[matrix.product] = ends.get(matrix.product, 0) + matrix.outputs(a)


def num_parameters(a: Architecture) -> int:
    """Numbers in the weights; a tied head counts once."""
    return _count(a, is_active=False)


def num_active_parameters(a: Architecture) -> int:
    """Numbers that computing one token reads: all but experts that it is not sent to. Embeddings count whole."""
    return _count(a, is_active=True)


def num_multiplied_parameters(a: Architecture) -> int:
    """Numbers in the matrices that multiply one token: all layers, its own experts alone, and the head, tied or not."""
    attention = _latent_matrices(a, a.latent) if a.latent else _weights(a, ATTENTION)
    whole = a.num_layers * attention + a.vocab_size * a.hidden_size
    for layer in range(a.num_layers):
        if a.experts is not None and a.has_experts(layer):
            whole += _experts(a, replace(a.experts, has_bias=False, has_correction=False), is_active=True)
        else:
            whole += _weights(a, _rows(a))
    return whole


def _weights(a: Architecture, matrices: Sequence[Matrix]) -> int:
    return sum(matrix.outputs(a) * matrix.inputs(a) for matrix in matrices)


def _count(a: Architecture, *, is_active: bool) -> int:
    norm = a.hidden_size * _per_value(a)
    whole = a.vocab_size * a.hidden_size * (1 if a.tie_embeddings else 2)
    whole += a.learned_positions * a.hidden_size + norm * (1 + a.embed_norm)
    attention = _latent(a, a.latent) if a.latent else sum(matrix.num_parameters(a) for matrix in ATTENTION)
    attention += a.num_heads * a.has_sinks
    for each in BLOCK_NORMS:
        if each.exists(a):
            is_inside = each.name.startswith("attention.")
            attention += each.size(a) * (1 if is_inside else _per_value(a))
    for layer in range(a.num_layers):
        experts = a.experts if a.has_experts(layer) else None
        whole += attention + (_experts(a, experts, is_active) if experts else _mlp(a))
    return whole


def _per_value(a: Architecture) -> int:
    return 2 if a.norm == "layer" else 1


def _rows(a: Architecture) -> tuple[Matrix, ...]:
    return GATED_MLP if a.is_gated else PLAIN_MLP


def _mlp(a: Architecture) -> int:
    return sum(matrix.num_parameters(a) for matrix in _rows(a))


def _experts(a: Architecture, e: ExpertSettings, is_active: bool) -> int:
    each = len(_rows(a)) * a.hidden_size * e.width
    each += (2 * e.width + a.hidden_size) * e.has_bias
    router = e.num_experts * (a.hidden_size + e.has_bias + e.has_correction)
    shared = len(_rows(a)) * a.hidden_size * e.shared_width + a.hidden_size * e.has_shared_gate
    return (e.per_token if is_active else e.num_experts) * each + router + shared


def _latent(a: Architecture, m: LatentSettings) -> int:
    return _latent_matrices(a, m) + m.query_rank + m.rank  # two norms


def _latent_matrices(a: Architecture, m: LatentSettings) -> int:
    query = a.num_heads * (m.nope_dim + m.rope_dim)
    width = m.query_rank or a.hidden_size
    queries = query * width + m.query_rank * a.hidden_size
    keys = a.hidden_size * (m.rank + m.rope_dim) + a.num_heads * m.rank * (m.nope_dim + m.value_dim)
    return queries + keys + a.num_heads * m.value_dim * a.hidden_size
