"""Attention over keys and values that lie in scattered blocks: the door to a compiled version for the CPU and the others.

The compiled version (`attention.py`, `plan.py`) reads blocks in place, and those that sequences share once for all. Every
(token, head) goes through the same arithmetic in the same order over its own positions; what else is in the batch, how a
prompt was cut into chunks, which blocks hold it and who shares them change no bit. Other devices and dtypes gather blocks
(`gather.py`), or decode by a kernel that the caller gives (`paged_triton.py`).
"""

# N packed tokens, H query heads, G kv heads, K head_dim

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from firsthand.kernels.attention.gather import Decode, gather_attention
from firsthand.kernels.attention.kv_pages import LANES, Chunk, Layout, Pages, kv_bytes_per_token
from firsthand.kernels.attention.score_terms import ScoreTerms

__all__ = [
    "Chunk",
    "Layout",
    "Pages",
    "attend_pages",
    "can_compile",
    "compiled_attention",
    "gather_attention",
    "kv_bytes_per_token",
]
COMPILED = (torch.float32, torch.float16, torch.int8)
PARALLEL_FROM = 1 << 20
"""Units of work of one layer (a query and a position) from which a second thread of Python pays."""


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
    """Write the new keys and values, then attend each token to its own sequence up to itself: N H K.

    The compiled version takes float32 queries and no `terms`; all else is gathered.
    """
    if terms is None and can_compile(pages, layout.block_size) and q_NHK.dtype == torch.float32:
        return compiled_attention(q_NHK, k_NGK, v_NGK, pages, layout, scale=scale, window=window)
    return gather_attention(
        q_NHK, k_NGK, v_NGK, pages, layout, scale=scale, window=window, terms=terms, decode_by=decode
    )


def can_compile(pages: Pages, block_size: int) -> bool:
    """Whether the compiled version takes this cache: on the CPU, not bfloat16, blocks of a multiple of 16, numba there."""
    is_plain = pages.keys.dtype in COMPILED and pages.keys.device.type == "cpu"
    return is_plain and block_size % LANES == 0 and _has_numba()


def compiled_attention(
    q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, pages: Pages, layout: Layout, *, scale: float, window: int | None
) -> Tensor:
    """The compiled version, for float32 queries on the CPU and blocks of a multiple of 16."""
    from firsthand.kernels.attention.paged_cpu import attend, merge, write  # importing numba takes a while

    (num_rows, num_heads, head_dim), num_kv_heads = q_NHK.shape, k_NGK.shape[1]
    padded = -(-head_dim // LANES) * LANES
    seen = window or 0
    q, k, v = (x.contiguous().numpy().reshape(-1) for x in (q_NHK, k_NGK, v_NGK))
    kv_stride = num_kv_heads * head_dim
    write(
        0, num_rows, k, 0, kv_stride, v, 0, kv_stride, layout.places, *pages.arrays, num_kv_heads, head_dim,
        layout.block_size,
    )  # fmt: skip
    plan = layout.plan(num_heads // num_kv_heads, seen)
    out_NHK = torch.empty(q_NHK.shape, dtype=torch.float32)
    out = out_NHK.numpy().reshape(-1)
    partials = np.empty(plan.num_slots * num_heads * (padded + LANES), dtype=np.float32)
    arguments = (
        q, 0, num_heads * head_dim, *pages.arrays, layout.tables, plan.tasks, plan.members, layout.positions, plan.slots,
        num_heads, num_kv_heads, head_dim, layout.block_size, np.float32(scale), seen, partials, out,
    )  # fmt: skip
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
        merge(
            0, len(plan.merged) * num_heads, plan.merged, layout.positions, plan.slots, num_heads, head_dim, seen,
            partials, out,
        )  # fmt: skip
    return out_NHK


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="firsthand-attention")


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None
