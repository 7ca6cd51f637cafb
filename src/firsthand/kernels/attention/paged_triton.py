"""Decode attention on a GPU: a Triton kernel that reads scattered blocks in place.

A token's past is cut into SPLITS pieces whose bounds depend on its length alone, so a long one uses many of the GPU's
processors, and the pieces are merged in order: rows are batch-invariant. Query heads that share keys are computed together.
Shapes depend on the input shapes only, so a CUDA graph can capture a call. Positions after a token's own or before its
window are never read.

Importing this file imports triton, which torch's CUDA builds bring along. Its interpreter (TRITON_INTERPRET=1) runs the
kernel on a CPU, and its compiler makes code for a GPU that is not there: so it was tested (`tests/test_cuda.py`). No GPU has
run it yet.
"""

# C sequences, H query heads, G kv heads, R H/G, K head_dim, B blocks, S slots of a block, W blocks of a table, P pieces
# mypy: disallow-untyped-decorators=False, disallow-incomplete-defs=False, disallow-untyped-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from firsthand.kernels.attention.kv_pages import Pages

SPLITS = 16
TILE = 64
"""Positions that are read together."""
_LEAST = 16
"""The smallest side of a matrix that a GPU's matrix units take."""


def decode(
    q_CHK: Tensor, pages: Pages, tables_CB: Tensor, positions_C: Tensor, *, scale: float, window: int | None
) -> Tensor:
    """Attention of one token of each sequence over blocks tables_CB up to its position: C H K."""
    num_rows, num_heads, head_dim = q_CHK.shape
    num_kv_heads = pages.keys.shape[1]
    group = num_heads // num_kv_heads
    q_CGRK = q_CHK.contiguous().view(num_rows, num_kv_heads, group, head_dim)
    pieces = (num_rows, num_kv_heads, SPLITS, group)
    sums = torch.empty(*pieces, head_dim, dtype=torch.float32, device=q_CHK.device)
    tops, weights = (torch.empty(pieces, dtype=torch.float32, device=q_CHK.device) for _ in range(2))
    scales = (pages.key_scales, pages.value_scales) if pages.is_scaled else (sums, sums)
    _piece[(num_rows, num_kv_heads, SPLITS)](
        q_CGRK, pages.keys, pages.values, *scales, tables_CB, positions_C, sums, tops, weights, scale,
        *q_CGRK.stride()[:3], *pages.keys.stride(), *pages.values.stride(), *scales[0].stride()[:3], tables_CB.stride(0),
        num_kv_heads, window or 0, pages.keys.shape[3], group, head_dim, max(triton.next_power_of_2(group), _LEAST),
        max(triton.next_power_of_2(head_dim), _LEAST), pages.is_scaled, SPLITS, TILE,
    )  # fmt: skip
    return _merge(sums, tops, weights).reshape(num_rows, num_heads, head_dim).to(q_CHK.dtype)


def _merge(sums: Tensor, tops: Tensor, weights: Tensor) -> Tensor:
    """Merges the pieces of each row: sums C G P R K over tops and weights C G P R give C G R K."""
    share = (tops - tops.amax(2, keepdim=True)).exp()  # 0 for a piece without positions, whose top is -inf
    return (sums * share[..., None]).sum(2) / (weights * share).sum(2)[..., None]


@triton.jit
def _piece(
    q, keys, values, key_scales, value_scales, tables, positions, sums, tops, weights, scale,
    q_c, q_g, q_r, k_b, k_g, k_k, k_s, v_b, v_g, v_s, v_k, scale_b, scale_g, scale_s, table_c,
    num_kv_heads: tl.constexpr, window: tl.constexpr, block_size: tl.constexpr, group: tl.constexpr,
    head_dim: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, is_scaled: tl.constexpr, SPLITS: tl.constexpr,
    TILE: tl.constexpr,
) -> Any:  # fmt: skip
    """One piece of one sequence's past for one kv head: the weighted values, their weights' sum, and the largest score."""
    row, head, piece = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    first = 0
    if window > 0:
        first = tl.maximum(position - window + 1, 0)
    tiles = tl.cdiv(position + 1 - first, TILE)
    tiles_each = tl.cdiv(tiles, SPLITS)
    start = first + piece * tiles_each * TILE
    end = tl.minimum(start + tiles_each * TILE, position + 1)
    r, d = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    is_query = (r[:, None] < group) & (d[None, :] < head_dim)
    query = tl.load(q + row * q_c + head * q_g + r[:, None] * q_r + d[None, :], mask=is_query, other=0.0)
    total = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    weight = tl.zeros([ROWS], dtype=tl.float32)
    top = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    for at in range(start, end, TILE):
        seen = at + tl.arange(0, TILE)
        is_seen = seen < end
        block = tl.load(tables + row * table_c + seen // block_size, mask=is_seen, other=0)
        slot = seen % block_size
        places = keys + block[None, :] * k_b + head * k_g + d[:, None] * k_k + slot[None, :] * k_s
        key = tl.load(places, mask=is_seen[None, :] & (d[:, None] < head_dim), other=0.0)
        places = values + block[:, None] * v_b + head * v_g + slot[:, None] * v_s + d[None, :] * v_k
        value = tl.load(places, mask=is_seen[:, None] & (d[None, :] < head_dim), other=0.0)
        if is_scaled:
            place = block * scale_b + head * scale_g + slot * scale_s
            key = key.to(tl.float32) * tl.load(key_scales + place, mask=is_seen, other=0.0)[None, :]
            value = value.to(tl.float32) * tl.load(value_scales + place, mask=is_seen, other=0.0)[:, None]
        scores = tl.dot(query, key.to(query.dtype), input_precision="ieee") * scale
        scores = tl.where(is_seen[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp(top - higher)
        shares = tl.exp(scores - higher[:, None])
        weight = weight * shrink + tl.sum(shares, 1)
        total = total * shrink[:, None]
        total += tl.dot(shares.to(query.dtype), value.to(query.dtype), input_precision="ieee")
        top = higher
    place = ((row * num_kv_heads + head) * SPLITS + piece) * group + r
    tl.store(sums + place[:, None] * head_dim + d[None, :], total, mask=is_query)
    tl.store(tops + place, top, mask=r < group)
    tl.store(weights + place, weight, mask=r < group)
