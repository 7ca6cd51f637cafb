"""Decode steps of fixed shapes: a number of sequences and of blocks, padded, in buffers that stay where they are.

On CUDA such a step is captured in a graph the first time it is wanted, and then replayed: one call instead of some
twenty launches a layer. Elsewhere a replay is a plain call of the same function, by which all but the capture is tested.
Rows that pad compute token 0 at position 0, and their keys and values go to a spare block that belongs to no sequence.

A step is looked up by its sequences and blocks, each rounded up to a power of two. What is larger than the largest, and
steps with pieces of prompts, run without buffers (`modules.py`).
"""

# N rows, W blocks of a table, T kinds of layers with tables of their own, H query heads, G kv heads, K head_dim, D hidden

from __future__ import annotations

from collections import abc
from collections.abc import Callable

import torch
from torch import Tensor

from firsthand.engine.core.sequence import Chunk
from firsthand.engine.memory.window_pool import window_blocks_of
from firsthand.kernels.attention.gather import Decode, is_pinned, store
from firsthand.nn.compiled_decoder import Cache
from firsthand.nn.decoder import Decoder

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a step."""
MIN_BLOCKS = 16
"""The narrowest table; wider ones are twice, four times ... as wide."""


class StaticAttend:
    """The `Attend` of a decode step over whole tensors: no list, no number of the host, no shape that a value decides."""

    def __init__(self, cache: Cache, tables_TNW: Tensor, positions_N: Tensor, block_size: int, decode: Decode):
        self.cache = cache
        self.tables_TNW, self.positions_N = tables_TNW, positions_N
        self.decode = decode
        self.blocks_TN = tables_TNW.gather(2, (positions_N // block_size).expand(len(tables_TNW), -1)[..., None])[
            ..., 0
        ]
        self.slots_N = positions_N % block_size

    def __call__(
        self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """Write each row's key and value, then attend it to its sequence: N H K."""
        pages, kind = self.cache.pages[layer], int(self.cache.spans[layer, 0])
        store(k_NGK, v_NGK, pages, self.blocks_TN[kind], self.slots_N)
        return self.decode(q_NHK, pages, self.tables_TNW[kind], self.positions_N, scale=scale, window=window)


class StaticStep:
    """One decode step of `rows` sequences over tables of `width` blocks."""

    def __init__(
        self,
        model: Decoder,
        cache: Cache,
        *,
        rows: int,
        width: int,
        padding_blocks: abc.Sequence[int],
        block_size: int,
        decode: Decode,
    ):
        """`padding_blocks`: for each kind of layers the block that takes what padding writes."""
        self.model, self.cache, self.decode = model, cache, decode
        self.rows, self.width, self.padding_blocks, self.block_size = rows, width, tuple(padding_blocks), block_size
        device = model.embed.weight.device
        size = rows * (2 + len(self.padding_blocks) * width)
        self._host = torch.zeros(size, dtype=torch.long, pin_memory=is_pinned(device))
        self._inputs = torch.zeros(size, dtype=torch.long, device=device)
        self._arrived = torch.cuda.Event() if is_pinned(device) else None  # type: ignore[no-untyped-call]

    def fill(self, chunks: abc.Sequence[Chunk]) -> None:
        """Put chunks of one token each into the buffers, by one copy."""
        if self._arrived is not None:
            self._arrived.synchronize()  # the copy of an earlier step may still be read from
        ids_N, positions_N, tables_TNW = (view.numpy() for view in self._views(self._host))
        ids_N[:], positions_N[:] = 0, 0
        for kind, spare in enumerate(self.padding_blocks):
            tables_TNW[kind] = spare
        for row, chunk in enumerate(chunks):
            table = chunk.sequence.table
            (ids_N[row],), positions_N[row] = chunk.tokens, chunk.start
            for kind, blocks in enumerate(
                [table] if len(self.padding_blocks) == 1 else [table, window_blocks_of(table)]
            ):
                used = blocks[: chunk.start // self.block_size + 1]
                tables_TNW[kind, row, : len(used)] = used
        self._inputs.copy_(self._host, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def compute(self) -> Tensor:
        """The hidden states of all rows, from what the buffers hold: N D."""
        ids_N, positions_N, tables_TNW = self._views(self._inputs)
        attend = StaticAttend(self.cache, tables_TNW, positions_N, self.block_size, self.decode)
        hidden_ND: Tensor = self.model(ids_N, positions_N, attend)
        return hidden_ND

    def _views(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids N, positions N and tables T N W of a buffer."""
        ids_N, positions_N, tables = flat[: self.rows], flat[self.rows : 2 * self.rows], flat[2 * self.rows :]
        return ids_N, positions_N, tables.view(len(self.padding_blocks), self.rows, self.width)


Replay = Callable[[], Tensor]
"""Computes a step again from what its buffers hold now; the result is overwritten by the next call."""


class GraphCapture:
    """Captures steps in CUDA graphs, which share one pool of memory since only one of them runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Replay) -> Replay:
        """Run a step twice, so that kernels are compiled and handles exist, then capture it. Its buffers must be filled."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()
            compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # other threads (another engine, a trainer) may use the GPU meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result_ND = compute()

        def replay() -> Tensor:
            graph.replay()
            return result_ND

        return replay


def without_capture(compute: Replay) -> Replay:
    """A step where nothing is captured: its replay is a call."""
    return compute


class StaticSteps:
    """The steps made so far, each when it is first wanted."""

    def __init__(self, make: Callable[[int, int], StaticStep], capture: Callable[[Replay], Replay]):
        """`make` gives a step of so many rows and blocks, `capture` what replays it."""
        self._make, self._capture = make, capture
        self._steps: dict[tuple[int, int], tuple[StaticStep, Replay]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def hidden(self, chunks: abc.Sequence[Chunk], block_size: int) -> Tensor:
        """The hidden states of chunks of one token each, in order; overwritten by the next call: D for each."""
        blocks = max(chunk.start for chunk in chunks) // block_size + 1
        key = (next(size for size in SIZES if size >= len(chunks)), _table_width(blocks))
        if key not in self._steps:
            step = self._make(*key)
            step.fill(chunks)
            self._steps[key] = step, self._capture(step.compute)
        step, replay = self._steps[key]
        step.fill(chunks)
        return replay()[: len(chunks)]

    def forget(self) -> None:
        """Drop every step: the model's modules are others now."""
        self._steps.clear()


def is_static(chunks: abc.Sequence[Chunk]) -> bool:
    """Whether these are rows of a decode step, and no more than the largest takes."""
    return 0 < len(chunks) <= SIZES[-1] and all(chunk.end - chunk.start == 1 for chunk in chunks)


def _table_width(blocks: int) -> int:
    """The next width of a table."""
    return max(MIN_BLOCKS, 1 << (blocks - 1).bit_length())
