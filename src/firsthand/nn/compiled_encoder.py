"""An Encoder run by compiled kernels, with batch-invariant embeddings.

On an x86 CPU with matrix tiles (AMX) numbers are split into two bfloat16 ones, nearly float32's accuracy; with AVX-512 VNNI
alone they are rounded to 16-bit integers, and the numbers of a vector of length 1 differ from those of float32 by some 5e-5
(docs/embeddings.md). Left out: training, other devices, and shapes that `can_compile` rejects.
"""

# N packed tokens, D hidden, O outputs, K inputs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from firsthand.nn.encoder import Encoder, EncoderBlock
from firsthand.nn.encoder_arithmetic import Arithmetic, EncoderProduct, Floats, Precision, Shorts, Tiles, aligned, flat
from firsthand.nn.families.bert import BertArchitecture


@dataclass(frozen=True)
class Norm:
    """A LayerNorm's numbers."""

    gain: Floats
    bias: Floats
    eps: np.float32


@dataclass(frozen=True)
class Layer:
    """One layer."""

    qkv: EncoderProduct
    out: EncoderProduct
    attention_norm: Norm
    up: EncoderProduct
    down: EncoderProduct
    mlp_norm: Norm


def can_compile(architecture: BertArchitecture) -> bool:
    """True if the kernels support this shape and numba is installed."""
    a = architecture
    fits = a.hidden_size % 32 == 0 and a.intermediate_size % 32 == 0 and a.head_dim % 32 == 0 and a.activation == "gelu"
    fits = fits and a.num_buckets == 0
    return fits and find_spec("numba") is not None


def is_fast_here() -> bool:
    """True if this machine has the kernels' instructions; elsewhere the plain Encoder is faster."""
    if find_spec("llvmlite") is None:
        return False
    from llvmlite import binding  # type: ignore[import-untyped]

    return bool(binding.get_host_cpu_features().get("avx512vnni"))


def arithmetic_here(precision: Precision = "float32") -> Arithmetic:
    """Returns the fastest arithmetic of this machine; without tiles, 16-bit integers at either precision."""
    from firsthand.kernels.products.amx_products import has_tiles

    if not has_tiles():
        return Shorts()
    return Tiles(parts=1 if precision == "bfloat16" else 2)


class CompiledEncoder:
    """A copy of an Encoder, on the CPU. Calls from several threads may run side by side."""

    def __init__(self, encoder: Encoder, arithmetic: Arithmetic | None = None):
        """`arithmetic`: how products are computed; the faster one of this machine if None."""
        self.arithmetic = arithmetic or arithmetic_here()
        self.architecture = encoder.architecture
        assert can_compile(self.architecture)
        self.words = flat(encoder.words.weight)
        types = encoder.types
        self.kind = np.zeros(self.architecture.hidden_size, np.float32) if types is None else flat(types.weight[0])
        # The kernel adds the first type to every token, so another type is a second table of positions with the difference.
        others = (
            [] if types is None else [encoder.positions.weight + kind - types.weight[0] for kind in types.weight[1:2]]
        )
        self.positions = flat(torch.cat([encoder.positions.weight, *others]))
        self.norm = _norm(encoder.norm)
        self.layers = [_layer(layer, self.arithmetic) for layer in encoder.layers if isinstance(layer, EncoderBlock)]

    def forward(
        self, ids_N: NDArray[np.int64], lengths: Sequence[int], types_N: NDArray[np.int64] | None = None
    ) -> Floats:
        """The hidden state of each token after the last layer: N D. Texts are packed one after another.

        Ids must be in the vocabulary, lengths from 1 to the number of positions, and token types 0 or 1; without them
        every token is of type 0.
        """
        from firsthand.kernels.step import encoder_ops

        a = self.architecture
        counts = np.asarray(lengths, np.int64)
        starts = counts.cumsum() - counts
        assert len(ids_N) == counts.sum() and counts.min() > 0 and counts.max() <= a.max_tokens
        assert ids_N.min() >= 0 and ids_N.max() < a.vocab_size
        places = np.arange(len(ids_N)) - np.repeat(starts, counts) + a.first_position
        if types_N is not None:
            assert len(types_N) == len(ids_N) and types_N.min() >= 0 and types_N.max() < min(2, a.num_types)
            places += types_N * a.max_position
        by = self.arithmetic
        rows = -(-len(ids_N) // by.rows) * by.rows
        x, change = (aligned(rows * a.hidden_size, np.float32) for _ in range(2))
        inputs, mixed = by.empty(rows, a.hidden_size), by.empty(rows, a.hidden_size)

        def add_norm(norm: Norm) -> None:
            encoder_ops.add_norm(x, change, norm.gain, norm.bias, norm.eps, rows, a.hidden_size)
            by.round(x, rows, a.hidden_size, inputs)

        first = self.norm
        encoder_ops.embed(
            ids_N, places, self.words, self.positions, self.kind, first.gain, first.bias, first.eps, a.hidden_size, x
        )
        by.round(x, rows, a.hidden_size, inputs)
        for layer in self.layers:
            by.attend(inputs, layer.qkv, starts, counts, a.num_heads, rows, mixed)
            by.multiply(mixed, layer.out, rows, change)
            add_norm(layer.attention_norm)
            by.mlp(inputs, layer.up, layer.down, rows, change)
            add_norm(layer.mlp_norm)
        return x.reshape(rows, a.hidden_size)[: len(ids_N)]


def _layer(layer: EncoderBlock, by: Arithmetic) -> Layer:
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    return Layer(
        qkv=by.pack(torch.cat([each.weight for each in projections]), torch.cat([each.bias for each in projections])),
        out=by.pack(layer.o_proj.weight, layer.o_proj.bias),
        attention_norm=_norm(layer.attention_norm),
        up=by.pack(layer.up_proj.weight, layer.up_proj.bias),
        down=by.pack(layer.down_proj.weight, layer.down_proj.bias),
        mlp_norm=_norm(layer.mlp_norm),
    )


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(flat(norm.weight), flat(norm.bias), np.float32(norm.eps))
