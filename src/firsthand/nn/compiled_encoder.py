"""An Encoder run by compiled kernels: 16-bit weights, and batch-invariant embeddings.

Twice as fast as float32 in torch on an x86 CPU with AVX-512 VNNI; the numbers of a vector of length 1 differ from those of
float32 by some 5e-5 (docs/embeddings.md). Left out: training, other devices, and shapes that `can_compile` rejects.
"""

# N packed tokens, D hidden, O outputs, K inputs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firsthand.nn.encoder import Encoder, EncoderBlock
from firsthand.nn.families.bert import BertArchitecture

Floats = NDArray[np.float32]
BLOCK = 32
"""Inputs that share a scale, as in `kernels/products/int16_products.py`."""


@dataclass(frozen=True)
class EncoderProduct:
    """The weights of one product."""

    pairs: NDArray[np.int32]
    """Panels of 32 outputs; in each, for every two inputs, 32 pairs of 16-bit numbers."""
    scales: Floats
    """The scale of each output's weights."""
    bias: Floats
    inputs: int
    outputs: int


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
    """True if this machine multiplies 16-bit numbers faster than float32; elsewhere the plain Encoder is faster."""
    if find_spec("llvmlite") is None:
        return False
    from llvmlite import binding  # type: ignore[import-untyped]

    return bool(binding.get_host_cpu_features().get("avx512vnni"))


class CompiledEncoder:
    """A copy of an Encoder, on the CPU. Calls from several threads may run side by side."""

    def __init__(self, encoder: Encoder):
        self.architecture = encoder.architecture
        assert can_compile(self.architecture)
        self.words = _flat(encoder.words.weight)
        types = encoder.types
        self.kind = np.zeros(self.architecture.hidden_size, np.float32) if types is None else _flat(types.weight[0])
        # The kernel adds the first type to every token, so another type is a second table of positions with the difference.
        others = (
            [] if types is None else [encoder.positions.weight + kind - types.weight[0] for kind in types.weight[1:2]]
        )
        self.positions = _flat(torch.cat([encoder.positions.weight, *others]))
        self.norm = _norm(encoder.norm)
        self.layers = [_layer(layer) for layer in encoder.layers if isinstance(layer, EncoderBlock)]

    def forward(
        self, ids_N: NDArray[np.int64], lengths: Sequence[int], types_N: NDArray[np.int64] | None = None
    ) -> Floats:
        """The hidden state of each token after the last layer: N D. Texts are packed one after another.

        Ids must be in the vocabulary, lengths from 1 to the number of positions, and token types 0 or 1; without them
        every token is of type 0.
        """
        from firsthand.kernels.products import int16_products
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
        rows = -(-len(ids_N) // int16_products.ROWS) * int16_products.ROWS
        x, change, mixed = (np.zeros(rows * a.hidden_size, np.float32) for _ in range(3))
        qkv = np.empty(rows * 3 * a.hidden_size, np.float32)
        narrow, narrow_scales = _shorts(rows, a.hidden_size)
        wide, wide_scales = _shorts(rows, a.intermediate_size)
        scale = np.float32(a.head_dim**-0.5)

        def product(
            by: EncoderProduct, rounded: NDArray[np.int16], scales: Floats, out: Floats, aside: int, line: int
        ) -> None:
            pairs = rounded.view(np.int32)
            int16_products.products(
                pairs, scales, by.pairs, by.scales, by.bias, rows, by.inputs, by.outputs, out, aside, line
            )

        def add_norm(norm: Norm) -> None:
            encoder_ops.add_norm(x, change, norm.gain, norm.bias, norm.eps, rows, a.hidden_size, narrow, narrow_scales)

        first = self.norm
        encoder_ops.embed(
            ids_N, places, self.words, self.positions, self.kind, first.gain, first.bias, first.eps, a.hidden_size,
            x, narrow, narrow_scales,
        )  # fmt: skip
        for layer in self.layers:
            product(layer.qkv, narrow, narrow_scales, qkv, 32 * rows, 32)
            encoder_ops.attend(qkv, starts, counts, a.num_heads, a.head_dim, scale, 32 * rows, mixed)
            int16_products.round_rows(mixed, rows, a.hidden_size, narrow, narrow_scales)
            product(layer.out, narrow, narrow_scales, change, 32, a.hidden_size)
            add_norm(layer.attention_norm)
            up = layer.up
            int16_products.gelu_products(
                narrow.view(np.int32), narrow_scales, up.pairs, up.scales, up.bias, rows, up.inputs, up.outputs,
                wide, wide_scales,
            )  # fmt: skip
            product(layer.down, wide, wide_scales, change, 32, a.hidden_size)
            add_norm(layer.mlp_norm)
        return x.reshape(rows, a.hidden_size)[: len(ids_N)]


def pack(weight_OK: Tensor, bias_O: Tensor) -> EncoderProduct:
    """Rounds weights to 16 bits, with one scale per output such that no block of 32 can overflow."""
    outputs, inputs = weight_OK.shape
    weight = weight_OK.detach().double()
    lengths = weight.reshape(outputs, -1, BLOCK).norm(dim=-1).amax(1)
    scales = torch.minimum(46336.0 / lengths.clamp_min(1e-30), 32767.0 / weight.abs().amax(1).clamp_min(1e-30))
    codes = torch.round(weight * scales[:, None]).to(torch.int16)
    panels = codes.reshape(outputs // 32, 32, inputs // 2, 2).transpose(1, 2).contiguous()
    return EncoderProduct(panels.numpy().reshape(-1).view(np.int32), _flat(1 / scales), _flat(bias_O), inputs, outputs)


def _layer(layer: EncoderBlock) -> Layer:
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    return Layer(
        qkv=pack(torch.cat([each.weight for each in projections]), torch.cat([each.bias for each in projections])),
        out=pack(layer.o_proj.weight, layer.o_proj.bias),
        attention_norm=_norm(layer.attention_norm),
        up=pack(layer.up_proj.weight, layer.up_proj.bias),
        down=pack(layer.down_proj.weight, layer.down_proj.bias),
        mlp_norm=_norm(layer.mlp_norm),
    )


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(_flat(norm.weight), _flat(norm.bias), np.float32(norm.eps))


def _flat(values: Tensor) -> Floats:
    flat: Floats = values.detach().float().contiguous().numpy().reshape(-1)
    return flat


def _shorts(rows: int, width: int) -> tuple[NDArray[np.int16], Floats]:
    return np.zeros(rows * width, np.int16), np.zeros(rows * (width // BLOCK), np.float32)
