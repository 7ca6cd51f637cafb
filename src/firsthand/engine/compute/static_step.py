"""Decode steps of fixed shapes: padded numbers of sequences and blocks, in buffers that keep their address.

On CUDA such a step is captured in a CUDA graph on first use and then replayed: one launch instead of some twenty a
layer. Elsewhere a replay is a plain call of the same function, so all but the capture is tested. Padding rows compute
token 0 at position 0, and their keys and values go to a padding block that belongs to no sequence.

Steps are looked up by sequences and blocks, each rounded up to a power of two. Larger steps, and steps with chunks of
prompts, run without buffers (`module_runner.py`).
"""

# N rows, W blocks of a table, T kinds of layers with tables of their own, H query heads, G kv heads, K head_dim, D hidden

from __future__ import annotations

from collections import abc
from collections.abc import Callable

import torch
from torch import Tensor

from firsthand.engine.core.sequence import SequenceChunk
from firsthand.engine.memory.window_pool import window_blocks_of
from firsthand.errors import ConfigError
from firsthand.kernels.attention.gather import Decode, decode_with, is_pinned, store
from firsthand.kernels.attention.score_terms import ScoreTerms
from firsthand.nn.compiled_decoder import Cache
from firsthand.nn.decoder import Decoder

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a step."""
MIN_BLOCKS = 16
"""Width of the narrowest table; wider ones double."""


class StaticAttend:
    """The `Attend` of a decode step over whole tensors: no lists, no host values, no shape that depends on a value."""

    def __init__(self, cache: Cache, tables_TNW: Tensor, positions_N: Tensor, block_size: int, decode: Decode):
        self.cache = cache
        self.tables_TNW, self.positions_N = tables_TNW, positions_N
        self.decode = decode
        self.blocks_TN = tables_TNW.gather(2, (positions_N // block_size).expand(len(tables_TNW), -1)[..., None])[
            ..., 0
        ]
        self.slots_N = positions_N % block_size

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
        """Write each row's key and value, then attend to its sequence; shape (N, H, K)."""
        if terms is not None and terms.source_lengths is not None:
            raise ConfigError("cross-attention has no fixed shape: run such a model with graphs='off'")
        pages, kind = self.cache.pages[layer], int(self.cache.spans[layer, 0])
        store(k_NGK, v_NGK, pages, self.blocks_TN[kind], self.slots_N)
        tables_NW = self.tables_TNW[kind]
        return decode_with(
            self.decode, q_NHK, pages, tables_NW, self.positions_N, scale=scale, window=window, terms=terms
        )


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
        """`padding_blocks`: for each kind of layers the block that padding writes to."""
        self.model, self.cache, self.decode = model, cache, decode
        self.rows, self.width, self.padding_blocks, self.block_size = rows, width, tuple(padding_blocks), block_size
        device = model.embed.weight.device
        size = rows * (2 + len(self.padding_blocks) * width)
        self._host = torch.zeros(size, dtype=torch.long, pin_memory=is_pinned(device))
        self._inputs = torch.zeros(size, dtype=torch.long, device=device)
        self._arrived = torch.cuda.Event() if is_pinned(device) else None  # type: ignore[no-untyped-call]

    def fill(self, chunks: abc.Sequence[SequenceChunk]) -> None:
        """Put chunks of one token each into the buffers, with one copy to the device."""
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
        """Returns the hidden states of all rows for what the buffers hold, shape (N, D)."""
        ids_N, positions_N, tables_TNW = self._views(self._inputs)
        attend = StaticAttend(self.cache, tables_TNW, positions_N, self.block_size, self.decode)
        hidden_ND: Tensor = self.model(ids_N, positions_N, attend)
        return hidden_ND

    def _views(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the ids (N), positions (N) and tables (T, N, W) in a buffer."""
        ids_N, positions_N, tables = flat[: self.rows], flat[self.rows : 2 * self.rows], flat[2 * self.rows :]
        return ids_N, positions_N, tables.view(len(self.padding_blocks), self.rows, self.width)


Replay = Callable[[], Tensor]
"""Computes a step again from its buffers; the result is overwritten by the next call."""


class GraphCapture:
    """Captures steps in CUDA graphs that share one memory pool, since only one of them runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Replay) -> Replay:
        """Run a step twice, so that kernels are compiled and handles exist, then capture it. Fill its buffers first."""
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
    """Returns the step itself, where nothing is captured."""
    return compute


class StaticSteps:
    """The steps made so far, each on first use."""

    def __init__(self, make: Callable[[int, int], StaticStep], capture: Callable[[Replay], Replay]):
        """`make` returns a step of given rows and blocks, `capture` a function that replays it."""
        self._make, self._capture = make, capture
        self._steps: dict[tuple[int, int], tuple[StaticStep, Replay]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def hidden(self, chunks: abc.Sequence[SequenceChunk], block_size: int) -> Tensor:
        """Returns the hidden states of chunks of one token each, in order, shape (rows, D); overwritten by the next
        call."""
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
        """Drop every step, since the model's modules changed."""
        self._steps.clear()


def is_static(chunks: abc.Sequence[SequenceChunk]) -> bool:
    """True if these chunks are a decode step of a supported size."""
    return 0 < len(chunks) <= SIZES[-1] and all(chunk.end - chunk.start == 1 for chunk in chunks)


def _table_width(blocks: int) -> int:
    """Returns the table width for a number of blocks."""
    return max(MIN_BLOCKS, 1 << (blocks - 1).bit_length())
