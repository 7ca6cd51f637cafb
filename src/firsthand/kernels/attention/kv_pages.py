"""The paged KV cache, and the index arrays of a step's packed tokens.

`Pages` is the cache of one layer in float32, float16, bfloat16, or int8 with a scale for each position and kv head.
`Layout` computes all index arrays once a step, for all layers.
"""

# N packed rows, C chunks, G kv heads, K head_dim, L K rounded up to whole vectors, B blocks, S slots of a block

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LANES = 16
T = TypeVar("T")


@dataclass(frozen=True)
class Pages:
    """The cache of one layer."""

    keys: Tensor
    """B G K S"""
    values: Tensor
    """B G S L"""
    key_scales: Tensor
    """B G S, float32, what an int8 key is multiplied by; empty unless the cache is int8."""
    value_scales: Tensor

    @staticmethod
    def empty(
        num_blocks: int, num_kv_heads: int, block_size: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> Pages:
        """Returns memory that is reserved and, on the CPU, not touched: the system commits it as blocks are first written.

        CPU kernels read 16 slots of a key dimension at once, GPU kernels all dimensions of a slot: keys are stored in
        the order that each reads, under the same indices.
        """
        padded = -(-head_dim // LANES) * LANES
        scaled = num_blocks if dtype == torch.int8 else 0
        return Pages(
            torch.empty(num_blocks, num_kv_heads, head_dim, block_size, dtype=dtype, device=device)
            if device.type == "cpu"
            else torch.empty(num_blocks, num_kv_heads, block_size, head_dim, dtype=dtype, device=device).mT,
            torch.empty(num_blocks, num_kv_heads, block_size, padded, dtype=dtype, device=device),
            torch.empty(scaled, num_kv_heads, block_size, device=device),
            torch.empty(scaled, num_kv_heads, block_size, device=device),
        )

    @property
    def is_scaled(self) -> bool:
        """True if the cache is int8."""
        return self.keys.dtype == torch.int8

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor of the cache, each with one entry a block."""
        return [self.keys, self.values, *((self.key_scales, self.value_scales) if self.is_scaled else ())]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one position."""
        return sum(tensor[0].nbytes for tensor in self.tensors) // self.keys.shape[-1]

    def copy(self, source: int, target: int) -> None:
        """Copy a block."""
        for tensor in self.tensors:
            tensor[target] = tensor[source]

    @cached_property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Keys, values and their scales as flat arrays for the compiled kernels, float16 as int16."""
        stored = (x.view(torch.int16) if x.dtype == torch.float16 else x for x in (self.keys, self.values))
        return tuple(x.numpy().reshape(-1) for x in (*stored, self.key_scales, self.value_scales))


def kv_bytes_per_token(num_layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of one position in all layers."""
    return num_layers * Pages.empty(1, num_kv_heads, LANES, head_dim, dtype, torch.device("cpu")).bytes_per_token


@dataclass(frozen=True)
class PackedChunk:
    """Packed tokens at positions `start` to `end` of one sequence, whose blocks are `table`."""

    start: int
    end: int
    table: Sequence[int]
    """Block ids. An `array.array("q")` or a numpy int64 array is read without converting each."""


class AttentionPlan(NamedTuple):
    """The attention work of a step (`work_split.py`)."""

    tasks: NDArray[np.int64]
    """T 6"""
    members: NDArray[np.int64]
    slots: NDArray[np.int64]
    """N"""
    merged: NDArray[np.int64]
    """The packed rows whose records must be merged after attending."""
    cuts: NDArray[np.int64]
    """threads + 1"""
    num_slots: int


@dataclass(frozen=True)
class Layout:
    """The index arrays of a step's packed tokens, computed on first use and kept."""

    chunks: Sequence[PackedChunk]
    block_size: int
    threads: int = 1
    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def spans(self) -> NDArray[np.int64]:
        """First packed row, first position, number of rows and beginning of the table of each chunk: C 4."""
        rows, row, table = [], 0, 0
        for chunk in self.chunks:
            rows.append((row, chunk.start, chunk.end - chunk.start, table))
            row, table = row + chunk.end - chunk.start, table + len(chunk.table)
        return np.array(rows, dtype=np.int64)

    @cached_property
    def tables(self) -> NDArray[np.int64]:
        """The block tables, one after another."""
        joined = array("q")
        for chunk in self.chunks:
            if isinstance(chunk.table, list):
                joined.fromlist(chunk.table)  # several times as fast as numpy's conversion
            else:
                joined.frombytes(np.asarray(chunk.table, dtype=np.int64).tobytes())
        return np.frombuffer(joined, dtype=np.int64)

    @cached_property
    def _located(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        from firsthand.kernels.attention.work_split import locate

        positions, places = locate(self.spans, self.tables, self.block_size)
        return positions, places

    @property
    def positions(self) -> NDArray[np.int64]:
        """The position of each packed row in its sequence: N."""
        return self._located[0]

    @property
    def places(self) -> NDArray[np.int64]:
        """Slot of each packed row, block * block_size + offset: N."""
        return self._located[1]

    def plan(self, group: int, window: int) -> AttentionPlan:
        """The work of layers with `group` query heads per kv head and this window (0 is none)."""
        from firsthand.kernels.attention.work_split import plan

        return self.once(
            (group, window),
            lambda: AttentionPlan(*plan(self.spans, self.tables, self.block_size, group, window, self.threads)),
        )

    def once(self, name: Any, make: Callable[[], T]) -> T:
        """Returns what `make` returned on the first call with this name."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made
