"""Grouped-query self-attention: the projections, and the `Attend` protocol that computes attention between them.

A layer passes queries, keys and values of packed tokens to an `Attend`, which knows the mask and where keys and values are
kept. The engine's reads a paged cache; `Packed` is plain causal attention for training, scoring and tests.
"""

# N packed tokens, D hidden, H query heads, G key/value heads, K head_dim, B equally long sequences, T their length

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.kernels.attention.score_terms import AlibiBias, ScoreTerms, attend_plainly, cross_attention
from firsthand.nn.architecture import Architecture
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.blocks.projections import add_projections
from firsthand.nn.blocks.rope import Rotation, rotate
from firsthand.nn.blocks.short_attention import short_attention, suits
from firsthand.nn.matrices import ATTENTION
from firsthand.nn.sites import TapFunction


class Attend(Protocol):
    """Computes attention under the caller's mask and cache."""

    def __call__(
        self,
        layer: int,
        q_NHK: Tensor,
        k_NGK: Tensor,
        v_NGK: Tensor,
        *,
        scale: float,
        window: int | None,
        terms: ScoreTerms | None = None,
    ) -> Tensor:
        """Returns the attention output, N H K. Tokens are packed, without padding or batch dimension; q and k are rotated.

        `window` is the number of positions a token sees, its own included; None is all before it. `terms` holds all else
        that changes the scores: an implementation computes it or raises, and never ignores it.
        """
        ...


class Packed:
    """An `Attend` without a cache: causal attention inside each of several sequences packed one after another."""

    def __init__(self, lengths: Sequence[int]):
        if not all(length > 0 for length in lengths):
            raise ConfigError(f"lengths are {list(lengths)}: every sequence needs 1 token or more")
        self.runs = [(length, len(list(run))) for length, run in groupby(lengths)]

    def __call__(
        self,
        layer: int,
        q_NHK: Tensor,
        k_NGK: Tensor,
        v_NGK: Tensor,
        *,
        scale: float,
        window: int | None,
        terms: ScoreTerms | None = None,
    ) -> Tensor:
        """Returns the attention output, N H K; adjacent sequences of equal length are computed as one batch."""
        if terms is not None and terms.source_lengths is not None:
            lengths = [length for length, count in self.runs for _ in range(count)]
            return cross_attention(q_NHK, k_NGK, v_NGK, lengths, scale=scale, terms=terms)
        num_tokens = sum(length * count for length, count in self.runs)
        if num_tokens != q_NHK.shape[0]:
            raise ConfigError(f"{q_NHK.shape[0]} tokens came for lengths that sum to {num_tokens}")
        parts, start = [], 0
        for length, count in self.runs:
            rows = slice(start, start + length * count)
            q_BTHK, k_BTGK, v_BTGK = (x[rows].reshape(count, length, *x.shape[1:]) for x in (q_NHK, k_NGK, v_NGK))
            parts.append(_causal(q_BTHK, k_BTGK, v_BTGK, scale, window, terms))
            start = rows.stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class Attention(nn.Module):
    """Self-attention with its projections, for one layer."""

    MATRICES = ATTENTION
    SITES = ("q", "k", "v", "mixed")
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear

    def __init__(self, architecture: Architecture, layer: int):
        super().__init__()
        a = architecture
        self.layer = layer
        self.num_heads, self.num_kv_heads, self.head_dim = a.num_heads, a.num_kv_heads, a.head_dim
        self.scale, self.window = a.attention_scale, a.windows[layer]
        self.softcap, self.slopes, self.clip = a.attention_softcap, a.alibi_slopes, a.clip_qkv
        self.sinks = nn.Parameter(torch.empty(a.num_heads)) if a.has_sinks else None
        self._alibi: AlibiBias | None = None
        add_projections(self, self.MATRICES, a)
        self.norms_heads = a.qk_norm_over == "head"
        self.q_norm = _query_norm(a, a.num_heads)
        self.k_norm = _query_norm(a, a.num_kv_heads)

    @property
    def terms(self) -> ScoreTerms | None:
        """The terms of the scores besides scale and window; None if there are none."""
        if self.softcap is None and self.sinks is None and not self.slopes:
            return None
        return ScoreTerms(softcap=self.softcap, bias=self._slopes_on(self.o_proj), sinks=self.sinks)

    def _slopes_on(self, neighbour: nn.Module) -> AlibiBias | None:
        """ALiBi's slopes on the device of a projection; no buffer, since `model.to(bfloat16)` would round them."""
        if not self.slopes:
            return None
        device = next((each.device for each in neighbour.parameters()), torch.device("cpu"))
        if self._alibi is None or self._alibi.slopes.device != device:
            self._alibi = AlibiBias(torch.tensor(self.slopes, dtype=torch.float32, device=device))
        return self._alibi

    def forward(self, x_ND: Tensor, by: Rotation | None, attend: Attend, tap: TapFunction | None = None) -> Tensor:
        """Returns the attention output of each token: N D."""
        q_ND, k_ND, v_ND = self.q_proj(x_ND), self.k_proj(x_ND), self.v_proj(x_ND)
        if self.clip is not None:
            q_ND, k_ND, v_ND = (each.clamp(-self.clip, self.clip) for each in (q_ND, k_ND, v_ND))
        if self.q_norm is not None and self.k_norm is not None and not self.norms_heads:
            q_ND, k_ND = self.q_norm(q_ND), self.k_norm(k_ND)
        q_NHK = q_ND.unflatten(-1, (self.num_heads, self.head_dim))
        k_NGK = k_ND.unflatten(-1, (self.num_kv_heads, self.head_dim))
        v_NGK = v_ND.unflatten(-1, (self.num_kv_heads, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None and self.norms_heads:
            q_NHK, k_NGK = self.q_norm(q_NHK), self.k_norm(k_NGK)
        q_NHK, k_NGK = rotate(q_NHK, by), rotate(k_NGK, by)
        if tap is not None:
            q_NHK, k_NGK, v_NGK = tap("q", q_NHK), tap("k", k_NGK), tap("v", v_NGK)
        terms = self.terms
        more = {} if terms is None else {"terms": terms}
        mixed_NHK = attend(self.layer, q_NHK, k_NGK, v_NGK, scale=self.scale, window=self.window, **more)
        if tap is not None:
            mixed_NHK = tap("mixed", mixed_NHK)
        out_ND: Tensor = self.o_proj(mixed_NHK.flatten(1))
        return out_ND


def _query_norm(a: Architecture, heads: int) -> RMSNorm | None:
    """The norm of queries or keys: of one head's width, or of all of them."""
    width = a.head_dim if a.qk_norm_over == "head" else heads * a.head_dim
    return RMSNorm(width, a.norm_eps, unit_offset=a.norm_unit_offset) if a.qk_norm else None


def _causal(
    q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, scale: float, window: int | None, terms: ScoreTerms | None
) -> Tensor:
    """Causal attention in each of B sequences, as (B T) H K."""
    length = q_BTHK.shape[1]
    if terms is not None:
        seen_TT = _window_mask(length, window or length, q_BTHK.device)
        places_T = torch.arange(length, device=q_BTHK.device)
        q_BHTK, k_BGTK, v_BGTK = (x.transpose(1, 2) for x in (q_BTHK, k_BTGK, v_BTGK))
        distance_TT = places_T - places_T[:, None]
        mixed_BHTK = attend_plainly(q_BHTK, k_BGTK, v_BGTK, seen_TT, distance_TT, scale=scale, terms=terms)
        return mixed_BHTK.transpose(1, 2).flatten(0, 1)
    is_whole = window is None or window >= length
    if is_whole and suits(q_BTHK):
        return short_attention(q_BTHK, k_BTGK, v_BTGK, scale)
    mask_TT = None if window is None or is_whole else _window_mask(length, window, q_BTHK.device)
    mixed_BHTK = functional.scaled_dot_product_attention(
        q_BTHK.transpose(1, 2),
        k_BTGK.transpose(1, 2),
        v_BTGK.transpose(1, 2),
        attn_mask=mask_TT,
        is_causal=mask_TT is None,
        scale=scale,
        enable_gqa=q_BTHK.shape[2] != k_BTGK.shape[2],
    )
    return mixed_BHTK.transpose(1, 2).flatten(0, 1)


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """True where the row's token sees the column's: itself and the window - 1 before it."""
    ones_TT = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones_TT.tril() & ones_TT.triu(1 - window)
