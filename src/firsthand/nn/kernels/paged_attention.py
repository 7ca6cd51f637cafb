"""Attention over keys and values that lie in scattered blocks: a compiled version for the CPU and a plain torch one.

The compiled version reads blocks in place. Every (token, head) goes through the same arithmetic in the same order, over
its own positions in groups of 16 counted from the start of its sequence; what else is in the batch, how a prompt was cut
into chunks, and which blocks hold it change no bit. Softmax is accumulated online (Milakov and Gimelshein, 2018).
Left out: float16 caches and a compiled CUDA version; both go through the plain one.
"""

# N packed tokens, H query heads, G kv heads, K head_dim, L K rounded up to whole vectors, B blocks, S slots of a block,
# C chunks, I items of work, T positions of one sequence

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

LANES = 16
TILE = 4
"""Queries that share a kv head and are computed together, so that four sums run side by side."""
PARALLEL_FROM = 1 << 25
"""Multiply-adds of one layer from which a second thread pays: below a few ms it loses to torch's threads, which spin."""


@dataclass(frozen=True)
class Pages:
    """The cache of one layer."""

    keys: Tensor
    """B G K S"""
    values: Tensor
    """B G S L"""

    @staticmethod
    def empty(
        num_blocks: int, num_kv_heads: int, block_size: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> Pages:
        """Memory that is reserved but, on the CPU, not touched: the system hands it out as blocks are first written."""
        padded = -(-head_dim // LANES) * LANES
        return Pages(
            torch.empty(num_blocks, num_kv_heads, head_dim, block_size, dtype=dtype, device=device),
            torch.empty(num_blocks, num_kv_heads, block_size, padded, dtype=dtype, device=device),
        )


@dataclass(frozen=True)
class Chunk:
    """Packed tokens at positions `start` to `end` of one sequence, whose memory is `table`."""

    start: int
    end: int
    table: Sequence[int]


@dataclass(frozen=True)
class Layout:
    """Where the packed tokens of a step belong."""

    chunks: Sequence[Chunk]
    block_size: int
    threads: int = 1
    _items: dict[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)

    @property
    def spans(self) -> NDArray[np.int64]:
        """For each chunk its first packed row, its first position, and its number of tokens: C 3."""
        return self._cached(0, 0, self._make_spans)

    @property
    def tables(self) -> NDArray[np.int64]:
        """The block tables, padded with zeros: C rows."""
        return self._cached(0, 1, self._make_tables)

    def items(self, group: int, num_kv_heads: int) -> NDArray[np.int64]:
        """Pieces of work, each for one core: chunk, kv head, and first query of a tile: I 3."""
        return self._cached(group, num_kv_heads + 1, lambda: _items(self.spans, group, num_kv_heads))

    @property
    def num_reads(self) -> int:
        """How many (token, earlier token) pairs the step has, without windows."""
        return sum((chunk.end - chunk.start) * (chunk.start + chunk.end) // 2 for chunk in self.chunks)

    def _cached(self, a: int, b: int, make: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
        if (a, b) not in self._items:
            self._items[a, b] = make()
        return self._items[a, b]

    def _make_spans(self) -> NDArray[np.int64]:
        counts = np.array([chunk.end - chunk.start for chunk in self.chunks])
        starts = np.array([chunk.start for chunk in self.chunks])
        return np.ascontiguousarray(np.stack([counts.cumsum() - counts, starts, counts], axis=1))

    def _make_tables(self) -> NDArray[np.int64]:
        tables = np.zeros((len(self.chunks), max(len(chunk.table) for chunk in self.chunks)), dtype=np.int64)
        for row, chunk in zip(tables, self.chunks, strict=True):
            row[: len(chunk.table)] = chunk.table
        return tables


def attend_pages(
    q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, pages: Pages, layout: Layout, *, scale: float, window: int | None
) -> Tensor:
    """Write the new keys and values, then attend each token to its own sequence up to itself: N H K."""
    attend = compiled_attention if can_compile(pages, layout.block_size) else gather_attention
    return attend(q_NHK, k_NGK, v_NGK, pages, layout, scale=scale, window=window)


def can_compile(pages: Pages, block_size: int) -> bool:
    """Whether the compiled version takes this cache: float32 on the CPU, blocks of a multiple of 16, numba installed."""
    is_plain = pages.keys.dtype == torch.float32 and pages.keys.device.type == "cpu"
    return is_plain and block_size % LANES == 0 and _has_numba()


def gather_attention(
    q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, pages: Pages, layout: Layout, *, scale: float, window: int | None
) -> Tensor:
    """The plain version: gather each sequence's blocks, then torch's attention with a mask."""
    parts, row = [], 0
    device, head_dim = q_NHK.device, q_NHK.shape[-1]
    for chunk in layout.chunks:
        rows = slice(row, row + chunk.end - chunk.start)
        at_Q = torch.arange(chunk.start, chunk.end, device=device)
        table = torch.tensor(chunk.table[: -(-chunk.end // layout.block_size)], device=device)
        blocks_Q, slots_Q = table[at_Q // layout.block_size], at_Q % layout.block_size
        pages.keys[blocks_Q, :, :, slots_Q] = k_NGK[rows]
        pages.values[blocks_Q, :, slots_Q, :head_dim] = v_NGK[rows]
        k_GTK = pages.keys[table].permute(1, 0, 3, 2).flatten(1, 2)[:, : chunk.end]
        v_GTK = pages.values[table].transpose(0, 1).flatten(1, 2)[:, : chunk.end, :head_dim]
        seen_T = torch.arange(chunk.end, device=device)
        mask_QT = seen_T <= at_Q[:, None]
        if window is not None:
            mask_QT &= seen_T > at_Q[:, None] - window
        q_HQK = q_NHK[rows].transpose(0, 1)
        mixed_HQK = functional.scaled_dot_product_attention(
            q_HQK[None], k_GTK[None], v_GTK[None], mask_QT, scale=scale, enable_gqa=len(q_HQK) != len(k_GTK)
        )[0]
        parts.append(mixed_HQK.transpose(0, 1))
        row = rows.stop
    return torch.cat(parts)


def compiled_attention(
    q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, pages: Pages, layout: Layout, *, scale: float, window: int | None
) -> Tensor:
    """The compiled version, for float32 on the CPU and blocks of a multiple of 16."""
    write, attend = _kernels()
    num_heads, num_kv_heads, head_dim = q_NHK.shape[1], k_NGK.shape[1], q_NHK.shape[2]
    keys, values = pages.keys.numpy().reshape(-1), pages.values.numpy().reshape(-1)
    spans, tables, block_size = layout.spans, layout.tables, layout.block_size
    write(k_NGK.contiguous().numpy(), v_NGK.contiguous().numpy(), keys, values, spans, tables, block_size)
    out_NHK = torch.empty(q_NHK.shape, dtype=torch.float32)
    items = layout.items(num_heads // num_kv_heads, num_kv_heads)
    arguments = (
        q_NHK.contiguous().numpy().reshape(-1),
        keys,
        values,
        spans,
        tables,
        block_size,
        num_heads,
        num_kv_heads,
        head_dim,
        np.float32(scale),
        window or 0,
        out_NHK.numpy(),
    )
    work = layout.num_reads * num_heads * head_dim * 2
    threads = layout.threads if work >= PARALLEL_FROM else 1
    # every item does the same whoever runs it; a stride spreads the long rows of a prompt over the threads
    parts = [np.ascontiguousarray(items[i::threads]) for i in range(threads)]
    shares = [_executor(threads - 1).submit(attend, part, *arguments) for part in parts[1:]]
    attend(parts[0], *arguments)
    for share in shares:
        share.result()
    return out_NHK


def _items(spans: NDArray[np.int64], group: int, num_kv_heads: int) -> NDArray[np.int64]:
    tiles = -(-(spans[:, 2] * group) // TILE)
    chunk = np.repeat(np.arange(len(spans)), tiles)
    first = (np.arange(tiles.sum()) - np.repeat(tiles.cumsum() - tiles, tiles)) * TILE
    items = np.stack([np.repeat(x, num_kv_heads) for x in (chunk, chunk, first)], axis=1)
    items[:, 1] = np.tile(np.arange(num_kv_heads), len(chunk))
    return np.ascontiguousarray(items)


@cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="firsthand-attention")


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


@cache
def _kernels() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled functions; numba is imported, and compiles or reads its cache, when they are first needed."""
    from firsthand.nn.kernels.compiled import attend, write

    return write, attend
