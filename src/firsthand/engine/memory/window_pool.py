"""Memory for models in which some layers see everything and others a window: two pools, so that each keeps what it needs.

Layers that see everything have their blocks in `far`, the windowed ones in `near`, which gives back what lies before the
widest window. A `BlockTable` is the list of blocks in `far`, with the other list beside it. The beginning of a text is known if
both pools know it. Otherwise a `SlidingWindowPool` is used as a `BlockPool` is.
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.memory.blocks import BlockCopy, BlockPool, PrefixMatch
from firsthand.engine.memory.prefix_cache import Space
from firsthand.errors import ConfigError

FULL_PER_WINDOW_BLOCK = 4
"""Blocks for windows are one for so many others, where that is enough: conversations of four windows use both alike."""


class BlockTable(list[int]):
    """A block table of the layers that see everything, and the one of the others."""

    def __init__(self, full_blocks: abc.Sequence[int] = (), window_blocks: abc.Sequence[int] = ()):
        super().__init__(full_blocks)
        self.window_blocks = list(window_blocks)


def window_blocks_of(table: list[int]) -> list[int]:
    """The blocks of the windowed layers."""
    assert isinstance(table, BlockTable)
    return table.window_blocks


@dataclass
class SlidingWindowPool:
    """The two pools as one."""

    full_pool: BlockPool
    window_pool: BlockPool

    @property
    def pools(self) -> tuple[BlockPool, ...]:
        """The pools that hold blocks."""
        return (self.full_pool, self.window_pool)

    @property
    def block_size(self) -> int:
        """Positions of a block."""
        return self.full_pool.block_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the layers that see everything, by which positions are counted."""
        return self.full_pool.num_blocks

    @property
    def num_usable(self) -> int:
        """Blocks of both that can hold text."""
        return sum(part.num_usable for part in self.pools)

    @property
    def num_available(self) -> int:
        """Blocks that can be had now in each pool."""
        return min(part.num_available for part in self.pools)

    @property
    def num_cached(self) -> int:
        """Blocks of both that nobody uses but that still hold known text."""
        return sum(part.num_cached for part in self.pools)

    @property
    def num_used(self) -> int:
        """Blocks of both that somebody uses."""
        return sum(part.num_used for part in self.pools)

    def split(self, table: abc.Sequence[int]) -> list[tuple[BlockPool, list[int]]]:
        """Each pool with its blocks of a table."""
        assert isinstance(table, BlockTable)
        return [(self.full_pool, table), (self.window_pool, table.window_blocks)]

    def find(self, tokens: abc.Sequence[int], space: Space = None) -> PrefixMatch:
        """The max_position prefix of `tokens` that both pools know; see `BlockPool.find`."""
        full = self.full_pool.find(tokens, space)
        window = self.window_pool.find(tokens[: full.num_tokens], space)
        if window.num_tokens < full.num_tokens:
            full = self.full_pool.find(tokens[: window.num_tokens], space)
        assert full.num_tokens == window.num_tokens, "the full pool caches every prefix of what it caches"
        return PrefixMatch(BlockTable(full.blocks, window.blocks), full.num_tokens, full.note)

    def take(self, blocks: abc.Sequence[int]) -> BlockTable:
        """A new table that shares `blocks`."""
        (full, full_blocks), (window, window_blocks) = self.split(blocks)
        return BlockTable(full.take(full_blocks), window.take(window_blocks))

    def fork(self, table: abc.Sequence[int]) -> BlockTable:
        """A second table over the same memory; whoever writes first to a shared block gets a copy of it."""
        return self.take(table)

    def needed(self, table: abc.Sequence[int], start: int, end: int) -> int:
        """Blocks that making positions writable takes of the pool that must give most."""
        return max(part.needed(blocks, start, end) for part, blocks in self.split(table))

    def extend(self, table: list[int], start: int, end: int) -> list[BlockCopy] | None:
        """Make positions writable in both; None, and nothing is changed, if one has too few blocks."""
        parts = self.split(table)
        if any(part.needed(blocks, start, end) > part.num_available for part, blocks in parts):
            return None
        copies: list[BlockCopy] = []
        for part, blocks in parts:
            made = part.extend(blocks, start, end)
            assert made is not None
            copies += [copy._replace(is_window=part is self.window_pool) for copy in made]
        return copies

    def commit(
        self, tokens: abc.Sequence[int], table: list[int], first: int, num_computed: int, space: Space = None
    ) -> int:
        """Enter the full blocks of a table into both trees."""
        return max(part.commit(tokens, blocks, first, num_computed, space) for part, blocks in self.split(table))

    def keep(
        self,
        tokens: abc.Sequence[int],
        table: abc.Sequence[int],
        num_computed: int,
        note: int | None = None,
        space: Space = None,
    ) -> None:
        """Enter the unfinished last block into both trees."""
        for part, blocks in self.split(table):
            part.keep(tokens, blocks, num_computed, note, space)

    def trim(self, table: list[int], num_computed: int) -> None:
        """Give back the blocks that the window has left behind."""
        for part, blocks in self.split(table):
            part.trim(blocks, num_computed)

    def release(self, table: abc.Sequence[int]) -> None:
        """Give up a table."""
        for part, blocks in self.split(table):
            part.release(blocks)

    def forget_adapter(self, adapter: int) -> None:
        """Forget what was computed with an adapter in both trees."""
        for part in self.pools:
            part.forget_adapter(adapter)

    def forget(self) -> None:
        """Empty both trees."""
        for part in self.pools:
            part.forget()

    def check(self) -> None:
        """Assert that both pools are whole."""
        for part in self.pools:
            part.check()


def open_pool(
    windows: abc.Sequence[int | None],
    config: EngineConfig,
    *,
    memory_bytes: int,
    layer_bytes: int,
    extra_bytes: int,
    max_position: int,
    free_bytes: int | None = None,
) -> BlockPool | SlidingWindowPool:
    """The pool for layers with such windows. A block of a layer takes `layer_bytes`, and every block `extra_bytes` besides.

    `max_position` is how many positions a sequence may have: a window that wide is none. `free_bytes` is what there is, where
    that is known. ConfigError if not even two blocks fit, or if there is less than `memory_bytes`.
    """
    size, seen = config.block_size, [w for w in windows if w is not None and w < max_position]
    block_bytes = len(windows) * layer_bytes + extra_bytes
    if memory_bytes < 2 * block_bytes:
        raise ConfigError(
            f"kv_memory_bytes is {config.kv_memory_bytes}: a block of {size} tokens takes {block_bytes} bytes, and the "
            "engine needs two or more"
        )
    if free_bytes is not None and memory_bytes > free_bytes:
        raise ConfigError(
            f"kv_memory_bytes is {memory_bytes:,} and {free_bytes:,} bytes of memory are free, the model being there: give "
            "less, or leave it out"
        )
    if not seen or len(seen) == len(windows):
        return BlockPool(memory_bytes // block_bytes, size, window=max(seen, default=None))
    window_bytes = len(seen) * layer_bytes
    num_full, num_window = divide(
        memory_bytes,
        block_bytes - window_bytes,
        window_bytes,
        alone=-(-(max(seen) + config.max_batch_tokens) // size) + 3,
        useful=2 * config.max_sequences * (-(-max(seen) // size) + 2) + -(-config.max_batch_tokens // size),
    )
    return SlidingWindowPool(BlockPool(num_full, size), BlockPool(num_window, size, window=max(seen)))


def divide(memory_bytes: int, full_bytes: int, window_bytes: int, *, alone: int, useful: int) -> tuple[int, int]:
    """How many blocks of `full_bytes` and of `window_bytes` to make of some memory.

    `one` is how many near blocks a sequence takes at most when it runs alone, `most` how many are of use.
    """
    full = memory_bytes * FULL_PER_WINDOW_BLOCK // (full_bytes * FULL_PER_WINDOW_BLOCK + window_bytes)
    window = min(max(full // FULL_PER_WINDOW_BLOCK, alone), useful, memory_bytes // (full_bytes + window_bytes))
    return (memory_bytes - window * window_bytes) // full_bytes, window
