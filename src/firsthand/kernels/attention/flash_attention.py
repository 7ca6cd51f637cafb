"""FlashAttention in readable torch (Dao et al., 2022; the loop order of FlashAttention-2, 2023), forward and backward.

Plain attention writes a score for every pair of positions: memory grows with the square of the length. Here queries and keys
are taken in tiles, and a tile of queries keeps three things while it passes over the keys: the largest score so far, the sum
of exponentials, and the weighted sum of values. A larger score that comes later rescales the last two (online softmax). What
is kept for the backward pass is the output and one number for each query, log(sum(e ** score)): from it each tile's weights
are computed again. So memory grows with the length alone. It shows the algorithm; SDPA is the one to use for speed.
"""

# B sequences, H query heads, G kv heads, Q queries, T keys, K head_dim; suffix t: of one tile

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from firsthand.errors import ConfigError


def flash_attention(
    q_BHQK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, *, scale: float, is_causal: bool = True, tile: int = 64
) -> Tensor:
    """Returns attention in the dtype of the queries: B H Q K. The last query sees the last key; sums are float32.

    Raises ConfigError for shapes that do not fit each other, or a tile of no positions.
    """
    (heads, queries, width), (kv_heads, keys, key_width) = q_BHQK.shape[1:], k_BGTK.shape[1:]
    if v_BGTK.shape != k_BGTK.shape or width != key_width or len(q_BHQK) != len(k_BGTK) or heads % kv_heads:
        shapes = ", ".join(str(tuple(each.shape)) for each in (q_BHQK, k_BGTK, v_BGTK))
        raise ConfigError(
            f"queries, keys and values are {shapes}: expected B H Q K, B G T K twice, and G a divisor of H"
        )
    if tile < 1 or (is_causal and queries > keys):
        raise ConfigError(
            f"tile is {tile} with {queries} queries of {keys} keys: expected 1 or more, and no fewer keys"
        )
    group = heads // kv_heads
    k_BHTK, v_BHTK = (each.repeat_interleave(group, dim=1) for each in (k_BGTK, v_BGTK))
    out_BHQK: Tensor = _FlashAttention.apply(q_BHQK, k_BHTK, v_BHTK, scale, is_causal, tile)  # type: ignore[no-untyped-call]
    return out_BHQK


class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, is_causal: bool, tile: int) -> Tensor:
        out, normaliser = torch.empty_like(q), torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
        for rows in _tiles(q.shape[2], tile):
            q_t = q[:, :, rows].float()
            top = torch.full((*q_t.shape[:-1], 1), -torch.inf, device=q.device)
            total, mixed = torch.zeros_like(top), torch.zeros_like(q_t)
            for columns in _seen(rows, q.shape[2], k.shape[2], tile, is_causal):
                scores = _scores(q_t, k[:, :, columns].float(), scale, rows, columns, q.shape[2], k.shape[2], is_causal)
                higher = torch.maximum(top, scores.amax(-1, keepdim=True))
                weights, shrink = (scores - higher).exp(), (top - higher).exp()
                total = total * shrink + weights.sum(-1, keepdim=True)
                mixed = mixed * shrink + weights @ v[:, :, columns].float()
                top = higher
            out[:, :, rows] = (mixed / total).to(q.dtype)
            normaliser[:, :, rows] = (top + total.log())[..., 0]
        ctx.save_for_backward(q, k, v, out, normaliser)
        ctx.settings = (scale, is_causal, tile)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v, out, normaliser = ctx.saved_tensors
        scale, is_causal, tile = ctx.settings
        d_q, d_k, d_v = (torch.zeros(each.shape, dtype=torch.float32, device=q.device) for each in (q, k, v))
        share = (d_out.float() * out.float()).sum(-1, keepdim=True)  # each query's weights times their gradients
        for rows in _tiles(q.shape[2], tile):
            q_t, d_out_t = q[:, :, rows].float(), d_out[:, :, rows].float()
            for columns in _seen(rows, q.shape[2], k.shape[2], tile, is_causal):
                k_t, v_t = k[:, :, columns].float(), v[:, :, columns].float()
                scores = _scores(q_t, k_t, scale, rows, columns, q.shape[2], k.shape[2], is_causal)
                weights = (scores - normaliser[:, :, rows, None]).exp()
                d_v[:, :, columns] += weights.transpose(-1, -2) @ d_out_t
                d_scores = weights * (d_out_t @ v_t.transpose(-1, -2) - share[:, :, rows]) * scale
                d_q[:, :, rows] += d_scores @ k_t
                d_k[:, :, columns] += d_scores.transpose(-1, -2) @ q_t
        return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype), None, None, None


def _tiles(length: int, tile: int) -> Iterator[slice]:
    return (slice(start, min(start + tile, length)) for start in range(0, length, tile))


def _seen(rows: slice, queries: int, keys: int, tile: int, is_causal: bool) -> Iterator[slice]:
    """The tiles of keys that a tile of queries sees any of."""
    return _tiles(rows.stop + keys - queries if is_causal else keys, tile)


def _scores(
    q_t: Tensor, k_t: Tensor, scale: float, rows: slice, columns: slice, queries: int, keys: int, is_causal: bool
) -> Tensor:
    """Scores of one tile, minus infinity where a key comes after its query."""
    scores = q_t @ k_t.transpose(-1, -2) * scale
    if not is_causal:
        return scores
    places_Q = torch.arange(rows.start, rows.stop, device=q_t.device) + keys - queries
    is_later = torch.arange(columns.start, columns.stop, device=q_t.device) > places_Q[:, None]
    return scores.masked_fill(is_later, -torch.inf)
