"""Paged attention: dispatches to the compiled CPU kernels or to plain torch.

The compiled version (`paged_cpu.py`, `work_split.py`) reads blocks in place, and shared blocks once for all sequences. It
is batch- invariant: every (token, head) is computed by the same arithmetic in the same order, whatever else is in the
batch, however a prompt was chunked, and whichever blocks hold it. Other devices and dtypes gather blocks (`gather.py`), or
decode by a kernel that the caller gives (`paged_triton.py`).
"""

# N packed tokens, H query heads, G kv heads, K head_dim

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firsthand.kernels.attention.attention_tables import Heads, KeyValues, RowView, Work
from firsthand.kernels.attention.gather import Decode, gather_attention
from firsthand.kernels.attention.kv_pages import LANES, Layout, PackedChunk, Pages, kv_bytes_per_token
from firsthand.kernels.attention.score_terms import ScoreTerms

__all__ = [
    "Layout",
    "PackedChunk",
    "Pages",
    "attend_pages",
    "can_compile",
    "compiled_attention",
    "gather_attention",
    "kv_bytes_per_token",
]
COMPILED = (torch.float32, torch.float16, torch.int8)
PARALLEL_FROM = 1 << 20
"""Units of work of one layer (a query and a position) from which a second Python thread is faster."""


def attend_pages(
    q_NHK: Tensor,
    k_NGK: Tensor,
    v_NGK: Tensor,
    pages: Pages,
    layout: Layout,
    *,
    scale: float,
    window: int | None,
    terms: ScoreTerms | None = None,
    decode: Decode | None = None,
) -> Tensor:
    """Writes the new keys and values, then computes causal attention of each token over its own sequence: N H K.

    The compiled version takes float32 queries and no `terms`; all else is gathered.
    """
    if terms is None and can_compile(pages, layout.block_size) and q_NHK.dtype == torch.float32:
        return compiled_attention(q_NHK, k_NGK, v_NGK, pages, layout, scale=scale, window=window)
    return gather_attention(
        q_NHK, k_NGK, v_NGK, pages, layout, scale=scale, window=window, terms=terms, decode_by=decode
    )


def can_compile(pages: Pages, block_size: int) -> bool:
    """True if the compiled version supports this cache: CPU, not bfloat16, blocks of a multiple of 16, numba installed."""
    is_plain = pages.keys.dtype in COMPILED and pages.keys.device.type == "cpu"
    return is_plain and block_size % LANES == 0 and _has_numba()


def compiled_attention(
    q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, pages: Pages, layout: Layout, *, scale: float, window: int | None
) -> Tensor:
    """Runs the compiled version: float32 queries on the CPU, blocks of a multiple of 16."""
    from firsthand.kernels.attention.paged_cpu import attend, merge, write  # importing numba takes a while

    (num_rows, num_heads, head_dim), num_kv_heads = q_NHK.shape, k_NGK.shape[1]
    assert len(layout.positions) == num_rows == len(k_NGK), "the kernels would read beyond the rows"
    heads, cache = Heads(num_heads, num_kv_heads, head_dim, layout.block_size), KeyValues(*pages.arrays)
    padded = -(-head_dim // LANES) * LANES
    seen = window or 0
    q, k, v = (RowView(x.contiguous().numpy().reshape(-1), 0, x.shape[1] * head_dim) for x in (q_NHK, k_NGK, v_NGK))
    write(0, num_rows, k, v, layout.places, cache, heads)
    plan = layout.plan(num_heads // num_kv_heads, seen)
    work = Work(layout.tables, plan.tasks, plan.members, layout.positions, plan.slots)
    out_NHK = torch.empty(q_NHK.shape, dtype=torch.float32)
    out = out_NHK.numpy().reshape(-1)
    partials = np.empty(plan.num_slots * num_heads * (padded + LANES), dtype=np.float32)
    arguments: tuple[Any, ...] = (q, cache, work, heads, np.float32(scale), seen, partials, out)
    cuts = plan.cuts * num_kv_heads
    if layout.threads > 1 and num_heads * int(layout.positions.sum()) >= PARALLEL_FROM:
        others = _executor(layout.threads - 1)
        shares = [others.submit(attend, cuts[i], cuts[i + 1], *arguments) for i in range(1, layout.threads)]
        attend(0, cuts[1], *arguments)
        for share in shares:
            share.result()
    else:
        attend(0, cuts[-1], *arguments)
    if len(plan.merged):
        merge(0, len(plan.merged) * num_heads, plan.merged, work, heads, seen, partials, out)
    return out_NHK


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="firsthand-attention")


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None
