"""The plain version of paged attention: gather blocks, then torch's attention with a mask. Any device, any dtype.

All chunks of one token, which is what a decode step is, go through one gather and one call, padded to the longest; prompts
go one by one. `store` and `decode` take tensors and nothing else, ask no value back and have no shape that depends on one,
so with tables padded to a fixed size they can be captured in a CUDA graph. Written for CUDA but tested on the CPU only: its
speed on a GPU is not measured.
"""

# N packed tokens, C chunks, H query heads, G kv heads, K head_dim, B blocks of a table, S slots of a block, T B * S

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.nn.kernels.pages import Layout, Pages


class Indices(NamedTuple):
    """The index tensors of a step on its device."""

    blocks: Tensor
    """N"""
    slots: Tensor
    """N"""
    single: Tensor
    """The packed rows of the chunks of one token: C."""
    positions: Tensor
    """C"""
    tables: Tensor
    """Their block tables, cut after the last block in use and padded with zeros to the longest: C B."""


def gather_attention(
    q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, pages: Pages, layout: Layout, *, scale: float, window: int | None
) -> Tensor:
    """Write the new keys and values, then attend each token to its own sequence up to itself: N H K."""
    device = q_NHK.device
    indices = layout.once(("indices", device), lambda: _indices(layout, device))
    store(k_NGK, v_NGK, pages, indices.blocks, indices.slots)
    out_NHK = torch.empty_like(q_NHK)
    if len(indices.single):
        out_NHK[indices.single] = decode(
            q_NHK[indices.single], pages, indices.tables, indices.positions, scale=scale, window=window
        )
    row = 0
    for chunk in layout.chunks:
        rows = slice(row, row + chunk.end - chunk.start)
        row = rows.stop
        if chunk.end - chunk.start > 1:
            table_B = torch.tensor(list(chunk.table[: -(-chunk.end // layout.block_size)]), device=device)
            at_Q = torch.arange(chunk.start, chunk.end, device=device)
            out_NHK[rows] = _prompt(q_NHK[rows], pages, table_B, at_Q, chunk.end, scale=scale, window=window)
    return out_NHK


def store(k_NGK: Tensor, v_NGK: Tensor, pages: Pages, blocks_N: Tensor, slots_N: Tensor) -> None:
    """Write keys and values into their slots, in int8 with a scale for each position and head."""
    head_dim = k_NGK.shape[-1]
    if pages.is_scaled:
        k_NGK, pages.key_scales[blocks_N, :, slots_N] = quantise(k_NGK)
        v_NGK, pages.value_scales[blocks_N, :, slots_N] = quantise(v_NGK)
    pages.keys[blocks_N, :, :, slots_N] = k_NGK.to(pages.keys.dtype)
    pages.values[blocks_N, :, slots_N, :head_dim] = v_NGK.to(pages.values.dtype)


def quantise(x_NGK: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers from -127 to 127 as int8, and for each N G the float32 that brings them back.

    A vector with a number that is not finite gets zeros and the scale NaN, so that it does not pass for a sound one.
    """
    top_NG = x_NGK.float().abs().amax(-1)
    inverse_NG = torch.where(top_NG > 0, 127.0 / top_NG, 0.0)
    is_finite_NG = torch.isfinite(top_NG)
    whole_NGK = torch.where(is_finite_NG[..., None], (x_NGK.float() * inverse_NG[..., None]).round(), 0.0)
    return whole_NGK.to(torch.int8), torch.where(is_finite_NG, top_NG / 127.0, torch.nan)


def decode(
    q_CHK: Tensor, pages: Pages, tables_CB: Tensor, positions_C: Tensor, *, scale: float, window: int | None
) -> Tensor:
    """Attention of one token of each sequence over blocks tables_CB up to its position: C H K."""
    k_CGTK, v_CGTK = _gather(pages, tables_CB, q_CHK)
    seen_T = torch.arange(k_CGTK.shape[2], device=q_CHK.device)
    mask_CT = seen_T <= positions_C[:, None]
    if window is not None:
        mask_CT &= seen_T > positions_C[:, None] - window
    # what is masked may be memory that was never written: a weight of 0 times NaN would still be NaN
    hidden_C1T1 = ~mask_CT[:, None, :, None]
    k_CGTK, v_CGTK = k_CGTK.masked_fill(hidden_C1T1, 0), v_CGTK.masked_fill(hidden_C1T1, 0)
    is_grouped = q_CHK.shape[1] != k_CGTK.shape[1]
    mixed_CH1K = functional.scaled_dot_product_attention(
        q_CHK[:, :, None], k_CGTK, v_CGTK, mask_CT[:, None, None], scale=scale, enable_gqa=is_grouped
    )
    return mixed_CH1K[:, :, 0]


def _prompt(
    q_QHK: Tensor, pages: Pages, table_B: Tensor, at_Q: Tensor, end: int, *, scale: float, window: int | None
) -> Tensor:
    """Attention of consecutive tokens of one sequence: Q H K."""
    k_1GTK, v_1GTK = (x[:, :, :end] for x in _gather(pages, table_B[None], q_QHK))
    seen_T = torch.arange(end, device=q_QHK.device)
    mask_QT = seen_T <= at_Q[:, None]
    if window is not None:
        mask_QT &= seen_T > at_Q[:, None] - window
    mixed_1HQK = functional.scaled_dot_product_attention(
        q_QHK.transpose(0, 1)[None], k_1GTK, v_1GTK, mask_QT, scale=scale, enable_gqa=q_QHK.shape[1] != k_1GTK.shape[1]
    )
    return mixed_1HQK[0].transpose(0, 1)


def _gather(pages: Pages, tables_CB: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and values of each table as contiguous positions, in the dtype of the queries: C G T K each."""
    head_dim = like.shape[-1]
    k_CBGKS, v_CBGSK = pages.keys[tables_CB].to(like.dtype), pages.values[tables_CB][..., :head_dim].to(like.dtype)
    if pages.is_scaled:
        k_CBGKS = k_CBGKS * pages.key_scales[tables_CB][..., None, :].to(like.dtype)
        v_CBGSK = v_CBGSK * pages.value_scales[tables_CB][..., None].to(like.dtype)
    return k_CBGKS.permute(0, 2, 1, 4, 3).flatten(2, 3), v_CBGSK.transpose(1, 2).flatten(2, 3)


def _indices(layout: Layout, device: torch.device) -> Indices:
    spans, size = layout.spans, layout.block_size
    single = [c for c, chunk in enumerate(layout.chunks) if chunk.end - chunk.start == 1]
    tables = [list(layout.chunks[c].table[: layout.chunks[c].start // size + 1]) for c in single]
    longest = max((len(table) for table in tables), default=0)
    padded = [table + [0] * (longest - len(table)) for table in tables]
    blocks, slots = zip(
        *[(chunk.table[at // size], at % size) for chunk in layout.chunks for at in range(chunk.start, chunk.end)],
        strict=True,
    )
    return Indices(
        torch.tensor(blocks, device=device),
        torch.tensor(slots, device=device),
        torch.tensor(spans[single, 0], dtype=torch.long, device=device),
        torch.tensor(spans[single, 1], dtype=torch.long, device=device),
        torch.tensor(padded, dtype=torch.long, device=device).reshape(len(single), longest),
    )
