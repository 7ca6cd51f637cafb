"""Rotary position embeddings: the angle of each pair of a head's values, and the rotation of queries and keys.

Pairs are (i, i + K/2), the layout of Hugging Face checkpoints; `llama` un-permutes GGUF files, which interleave.
`dynamic` and `longrope` would turn cached keys stale if their angles followed the length of each text, so they are fixed for
the length that the model is opened with, as vLLM and llama.cpp do: `frequencies` takes it.
"""

# N packed tokens, H heads, K head_dim, P = K/2 pairs

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from firsthand.nn.architecture import Rope


class Rotation(NamedTuple):
    """Cosines and sines of each token's angles, both halves filled: N K each."""

    cos: Tensor
    sin: Tensor


def frequencies(rope: Rope, head_dim: int, *, length: int = 0) -> Tensor:
    """Radians per position of each pair: P, float32, on the CPU.

    `head_dim` counts the rotated values alone. `length` is the longest text in tokens, for `dynamic` and `longrope`; 0 is
    a text within the trained length.
    """
    exponents_P = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    plain_P = 1.0 / (rope.theta**exponents_P)
    if rope.kind == "none":
        return torch.zeros_like(plain_P)
    if rope.kind == "linear":
        return plain_P / rope.factor
    if rope.kind == "ntk":
        return _wider_base(rope, exponents_P, rope.factor)
    if rope.kind == "dynamic":
        trained = rope.original_max_position
        return _wider_base(rope, exponents_P, rope.factor * max(length, trained) / trained - (rope.factor - 1))
    if rope.kind == "llama3":
        return _llama3(plain_P, rope)
    if rope.kind == "longrope":
        divisors = rope.divisors if length > rope.original_max_position else rope.short_divisors
        return plain_P / torch.tensor(divisors, dtype=torch.float32, device="cpu")
    if rope.kind == "yarn":
        return _yarn(plain_P, rope, head_dim)
    if rope.kind == "divided":
        return plain_P / torch.tensor(rope.divisors, dtype=torch.float32, device="cpu")
    return plain_P


def rotation(frequencies_P: Tensor, positions_N: Tensor, *, scale: float = 1.0, dtype: torch.dtype) -> Rotation:
    """Returns cosines and sines for tokens at these positions, times `scale` (YaRN); angles are computed in float32."""
    angles_NP = positions_N[:, None].float() * frequencies_P
    angles_NK = torch.cat((angles_NP, angles_NP), dim=-1)
    return Rotation((angles_NK.cos() * scale).to(dtype), (angles_NK.sin() * scale).to(dtype))


def rotate(x_NHK: Tensor, by: Rotation | None) -> Tensor:
    """Rotates each head's pairs by their token's angles: all of the head, or as many values as there are angles for."""
    if by is None:
        return x_NHK
    if by.cos.shape[-1] < x_NHK.shape[-1]:
        turned = by.cos.shape[-1]
        return torch.cat([rotate(x_NHK[..., :turned], by), x_NHK[..., turned:]], dim=-1)
    first, second = x_NHK.chunk(2, dim=-1)
    turned_NHK = torch.cat((-second, first), dim=-1)
    cos_N1K, sin_N1K = (each[:, None].to(x_NHK.dtype) for each in by)  # under autocast angles are wider than x
    return x_NHK * cos_N1K + turned_NHK * sin_N1K


def _wider_base(rope: Rope, exponents_P: Tensor, factor: float) -> Tensor:
    """The frequencies of a larger base (NTK-aware scaling): the longest wavelength grows, the shortest stays."""
    pairs = len(exponents_P)
    theta = rope.theta * factor ** (pairs / max(pairs - 1, 1))
    return 1.0 / torch.tensor(theta, dtype=torch.float32, device="cpu") ** exponents_P


def _llama3(plain_P: Tensor, rope: Rope) -> Tensor:
    """Divides long wavelengths by `factor`, keeps short ones, and blends between (Llama 3.1)."""
    turns_P = rope.original_max_position * plain_P / (2 * math.pi)
    keep_P = (turns_P - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return torch.lerp(plain_P / rope.factor, plain_P, keep_P.clamp(0, 1))


def _yarn(plain_P: Tensor, rope: Rope, head_dim: int) -> Tensor:
    """As llama3, with the blend linear in the pair's index (Peng et al., 2023)."""

    def pair_turning(times: float) -> float:
        return head_dim * math.log(rope.original_max_position / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_turning(rope.beta_fast), pair_turning(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    index_P = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
    stretch_P = ((index_P - low) / (high - low if high != low else 0.001)).clamp(0, 1)
    return torch.lerp(plain_P, plain_P / rope.factor, stretch_P)
