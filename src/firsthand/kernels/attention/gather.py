"""The plain version of paged attention: gather blocks, then torch's attention with a mask. Any device, any dtype.

All chunks of one token (a decode step) go through one gather and one call, padded to the longest, or through a kernel that
reads blocks in place if one is given (`paged_triton`); prompts go one by one. Index arrays are copied to the device once a
step. `store` and `decode` take tensors only, read no value back and have no data-dependent shapes, so with tables padded to
a fixed size a CUDA graph can capture them.
"""

# N packed tokens, C chunks, H query heads, G kv heads, K head_dim, B blocks of a table, S slots of a block, T B * S

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.kernels.attention.kv_pages import Layout, Pages
from firsthand.kernels.attention.score_terms import ScoreTerms, attend_plainly, cross_attention


class Decode(Protocol):
    """Attention of one token of each sequence over blocks tables_CB up to its position: C H K."""

    def __call__(
        self,
        q_CHK: Tensor,
        pages: Pages,
        tables_CB: Tensor,
        positions_C: Tensor,
        *,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """See the class."""
        ...


class Prompt(NamedTuple):
    """A chunk of several tokens."""

    rows: slice
    """Its packed rows."""
    end: int
    table: Tensor
    """Its blocks, on the device: B."""
    positions: Tensor
    """Q"""


class Indices(NamedTuple):
    """The index tensors of a step, on its device."""

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
    prompts: list[Prompt]
    """The other chunks."""


def gather_attention(
    q_NHK: Tensor,
    k_NGK: Tensor,
    v_NGK: Tensor,
    pages: Pages,
    layout: Layout,
    *,
    scale: float,
    window: int | None,
    terms: ScoreTerms | None = None,
    decode_by: Decode | None = None,
) -> Tensor:
    """Writes the new keys and values, then computes causal attention of each token over its own sequence: N H K.

    `decode_by` does not support `terms`, so with any `decode` is called instead.
    """
    device = q_NHK.device
    if terms is not None and terms.source_lengths is not None:
        lengths = [chunk.end - chunk.start for chunk in layout.chunks]
        return cross_attention(q_NHK, k_NGK, v_NGK, lengths, scale=scale, terms=terms)
    indices = layout.once(("indices", device), lambda: _indices(layout, device))
    store(k_NGK, v_NGK, pages, indices.blocks, indices.slots)
    out_NHK = torch.empty_like(q_NHK)
    if len(indices.single):
        out_NHK[indices.single] = decode_with(
            decode_by, q_NHK[indices.single], pages, indices.tables, indices.positions, scale=scale, window=window,
            terms=terms,
        )  # fmt: skip
    for rows, end, table_B, at_Q in indices.prompts:
        out_NHK[rows] = _prompt(q_NHK[rows], pages, table_B, at_Q, end, scale=scale, window=window, terms=terms)
    return out_NHK


def to_device(parts: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
    """Copies lists of integers to the device as int64 tensors, in one asynchronous copy."""
    flat = torch.tensor(list(chain.from_iterable(parts)), dtype=torch.long, pin_memory=is_pinned(device))
    return list(torch.split(flat.to(device, non_blocking=True), [len(part) for part in parts]))


def is_pinned(device: torch.device) -> bool:
    """True if host memory copied to this device should be pinned, so that copies are asynchronous."""
    return device.type == "cuda" and torch.cuda.is_available()


def store(k_NGK: Tensor, v_NGK: Tensor, pages: Pages, blocks_N: Tensor, slots_N: Tensor) -> None:
    """Write keys and values into their slots, in int8 with a scale for each position and head."""
    head_dim = k_NGK.shape[-1]
    if pages.is_scaled:
        k_NGK, pages.key_scales[blocks_N, :, slots_N] = quantise(k_NGK)
        v_NGK, pages.value_scales[blocks_N, :, slots_N] = quantise(v_NGK)
    pages.keys[blocks_N, :, :, slots_N] = k_NGK.to(pages.keys.dtype)
    pages.values[blocks_N, :, slots_N, :head_dim] = v_NGK.to(pages.values.dtype)


def quantise(x_NGK: Tensor) -> tuple[Tensor, Tensor]:
    """Returns int8 codes from -127 to 127, and the float32 scale of each N G.

    A vector with a non-finite number gets zeros and the scale NaN.
    """
    top_NG = x_NGK.float().abs().amax(-1)
    inverse_NG = torch.where(top_NG > 0, 127.0 / top_NG, 0.0)
    is_finite_NG = torch.isfinite(top_NG)
    whole_NGK = torch.where(is_finite_NG[..., None], (x_NGK.float() * inverse_NG[..., None]).round(), 0.0)
    return whole_NGK.to(torch.int8), torch.where(is_finite_NG, top_NG / 127.0, torch.nan)


def decode_with(
    by: Decode | None,
    q_CHK: Tensor,
    pages: Pages,
    tables_CB: Tensor,
    positions_C: Tensor,
    *,
    scale: float,
    window: int | None,
    terms: ScoreTerms | None,
) -> Tensor:
    """Decodes by a kernel if one is given and there are no `terms`, else by `decode`."""
    if terms is None:
        return (by or decode)(q_CHK, pages, tables_CB, positions_C, scale=scale, window=window)
    return decode(q_CHK, pages, tables_CB, positions_C, scale=scale, window=window, terms=terms)


def decode(
    q_CHK: Tensor,
    pages: Pages,
    tables_CB: Tensor,
    positions_C: Tensor,
    *,
    scale: float,
    window: int | None,
    terms: ScoreTerms | None = None,
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
    if terms is not None:
        distance_C1T = (seen_T - positions_C[:, None])[:, None]
        mixed_CH1K = attend_plainly(
            q_CHK[:, :, None], k_CGTK, v_CGTK, mask_CT[:, None], distance_C1T, scale=scale, terms=terms
        )
        return mixed_CH1K[:, :, 0]
    is_grouped = q_CHK.shape[1] != k_CGTK.shape[1]
    mixed_CH1K = functional.scaled_dot_product_attention(
        q_CHK[:, :, None], k_CGTK, v_CGTK, mask_CT[:, None, None], scale=scale, enable_gqa=is_grouped
    )
    return mixed_CH1K[:, :, 0]


def _prompt(
    q_QHK: Tensor,
    pages: Pages,
    table_B: Tensor,
    at_Q: Tensor,
    end: int,
    *,
    scale: float,
    window: int | None,
    terms: ScoreTerms | None,
) -> Tensor:
    """Attention of consecutive tokens of one sequence: Q H K."""
    k_1GTK, v_1GTK = (x[:, :, :end] for x in _gather(pages, table_B[None], q_QHK))
    seen_T = torch.arange(end, device=q_QHK.device)
    mask_QT = seen_T <= at_Q[:, None]
    if window is not None:
        mask_QT &= seen_T > at_Q[:, None] - window
    if terms is not None:
        q_1HQK, distance_QT = q_QHK.transpose(0, 1)[None], seen_T - at_Q[:, None]
        mixed_1HQK = attend_plainly(q_1HQK, k_1GTK, v_1GTK, mask_QT, distance_QT, scale=scale, terms=terms)
        return mixed_1HQK[0].transpose(0, 1)
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
    size, chunks = layout.block_size, layout.chunks
    starts = list(accumulate((chunk.end - chunk.start for chunk in chunks), initial=0))
    single = [c for c, chunk in enumerate(chunks) if chunk.end - chunk.start == 1]
    many = [c for c, chunk in enumerate(chunks) if chunk.end - chunk.start > 1]
    tables = [list(chunks[c].table[: chunks[c].start // size + 1]) for c in single]
    longest = max(map(len, tables), default=0)
    blocks_N, slots_N, single_C, positions_C, tables_CB, *prompts = to_device(
        [
            [chunk.table[at // size] for chunk in chunks for at in range(chunk.start, chunk.end)],
            [at % size for chunk in chunks for at in range(chunk.start, chunk.end)],
            [starts[c] for c in single],
            [chunks[c].start for c in single],
            [block for table in tables for block in table + [0] * (longest - len(table))],
            *(list(chunks[c].table[: -(-chunks[c].end // size)]) for c in many),
            *(range(chunks[c].start, chunks[c].end) for c in many),
        ],
        device,
    )
    rows = [slice(starts[c], starts[c + 1]) for c in many]
    ends = [chunks[c].end for c in many]
    return Indices(
        blocks_N,
        slots_N,
        single_C,
        positions_C,
        tables_CB.reshape(len(single), longest),
        [Prompt(*each) for each in zip(rows, ends, prompts[: len(many)], prompts[len(many) :], strict=True)],
    )
