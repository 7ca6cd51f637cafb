"""Attention beyond scale and window: a softcap, a bias by distance, sinks, keys and values of other texts; in plain torch.

Order: scores are scaled, capped, biased, masked, and the sinks take their share of the softmax. Compiled and Triton kernels
know none of these: `paged_attention` and `gather` compute them here, in float32.
"""

# B sequences, H query heads, G kv heads, Q queries, T keys, K head_dim, N buckets

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class DistanceBias(Protocol):
    """An additive bias for each head by distance."""

    def __call__(self, distance_QT: Tensor) -> Tensor:
        """The bias for distances (a key's position minus its query's), H Q T; leading dimensions of both are kept."""
        ...


@dataclass(frozen=True, eq=False)
class AlibiBias:
    """Scores fall linearly with distance (ALiBi; Press et al., 2022)."""

    slopes: Tensor
    """H"""

    def __call__(self, distance_QT: Tensor) -> Tensor:
        """See `DistanceBias`."""
        return self.slopes[:, None, None] * distance_QT[..., None, :, :].to(self.slopes.dtype)


@dataclass(frozen=True, eq=False)
class BucketBias:
    """A learned number for each head and bucket of distances (T5; Raffel et al., 2020)."""

    table: Tensor
    """N H"""
    max_distance: int = 128
    """Distances from here on share the last bucket."""
    is_causal: bool = True
    """Past keys alone have buckets; else past and later ones have half of them each."""

    def __call__(self, distance_QT: Tensor) -> Tensor:
        """See `DistanceBias`."""
        return self.table[self.bucket(distance_QT)].movedim(-1, -3)

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance: exact for small ones, logarithmic up to `max_distance`."""
        count = self.table.shape[0]
        first = torch.zeros_like(distance)
        back = (-distance).clamp_min(0)
        if not self.is_causal:
            count //= 2
            first, back = (distance > 0) * count, distance.abs()
        exact = count // 2
        ratio = (back.float() / exact).clamp_min(1).log() / math.log(self.max_distance / exact)
        far = exact + (ratio * (count - exact)).long()
        return first + torch.where(back < exact, back, far.clamp_max(count - 1))


@dataclass(frozen=True, eq=False)
class ScoreTerms:
    """Terms of attention scores besides scale and window."""

    softcap: float | None = None
    """Scaled scores become cap * tanh(score / cap) (Gemma 2)."""
    bias: DistanceBias | None = None
    """Added to the scores."""
    sinks: Tensor | None = None
    """H: a logit for each head that takes part in the softmax and has no value (gpt-oss)."""
    source_lengths: tuple[int, ...] | None = None
    """Cross-attention: keys and values are of other texts, one for each sequence of the step, packed in its order. Each
    query sees all of its sequence's, and nothing is written to the cache."""


def attend_plainly(
    q_BHQK: Tensor,
    k_BGTK: Tensor,
    v_BGTK: Tensor,
    is_seen_QT: Tensor,
    distance_QT: Tensor,
    *,
    scale: float,
    terms: ScoreTerms,
) -> Tensor:
    """Attention written out, in float32: B H Q K in the dtype of the queries.

    `is_seen_QT` and `distance_QT` may have a leading dimension B. Values must be finite even where they are not seen.
    """
    group = q_BHQK.shape[1] // k_BGTK.shape[1]
    k_BHTK, v_BHTK = (x.float().repeat_interleave(group, dim=1) for x in (k_BGTK, v_BGTK))
    scores_BHQT = q_BHQK.float() @ k_BHTK.transpose(-1, -2) * scale
    if terms.softcap is not None:
        scores_BHQT = terms.softcap * torch.tanh(scores_BHQT / terms.softcap)
    if terms.bias is not None:
        scores_BHQT = scores_BHQT + terms.bias(distance_QT).float()
    scores_BHQT = scores_BHQT.masked_fill(~is_seen_QT[..., None, :, :], -torch.inf)
    if terms.sinks is not None:
        sinks_BHQ1 = terms.sinks.float()[:, None, None].expand(*scores_BHQT.shape[:-1], 1)
        shares_BHQT = torch.cat([scores_BHQT, sinks_BHQ1], dim=-1).softmax(-1)[..., :-1]
    else:
        shares_BHQT = scores_BHQT.softmax(-1)
    return (shares_BHQT @ v_BHTK).to(q_BHQK.dtype)


def cross_attention(
    q_NHK: Tensor, k_MGK: Tensor, v_MGK: Tensor, lengths: list[int], *, scale: float, terms: ScoreTerms
) -> Tensor:
    """Attention of packed queries, `lengths` of each sequence, to all keys of `terms.source_lengths`: N H K."""
    assert terms.source_lengths is not None and len(terms.source_lengths) == len(lengths), (
        "one source for each sequence"
    )
    assert terms.bias is None, "distances between two texts mean nothing"
    sources = list(terms.source_lengths)
    parts = []
    parts_of = ((q_NHK, lengths), (k_MGK, sources), (v_MGK, sources))
    pieces = zip(*(torch.split(rows, sizes) for rows, sizes in parts_of), strict=True)
    for q_QHK, k_TGK, v_TGK in pieces:
        seen_QT = torch.ones(len(q_QHK), len(k_TGK), dtype=torch.bool, device=q_NHK.device)
        q_1HQK, k_1GTK, v_1GTK = (x.transpose(0, 1)[None] for x in (q_QHK, k_TGK, v_TGK))
        mixed_1HQK = attend_plainly(q_1HQK, k_1GTK, v_1GTK, seen_QT, seen_QT, scale=scale, terms=terms)
        parts.append(mixed_1HQK[0].transpose(0, 1))
    return torch.cat(parts)
