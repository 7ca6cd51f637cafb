"""KV cache for models that mix full attention and sliding windows: two pools, so that each layer keeps what it needs.

Layers with full attention have their blocks in `full_pool`, windowed ones in `window_pool`, which releases blocks
behind the widest window. A `BlockTable` is the list of full-attention blocks, plus `window_blocks`. A prefix is cached
if both pools have it. Otherwise a `SlidingWindowPool` is used like a `BlockPool`.
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.memory.blocks import BlockCopy, BlockPool, PrefixMatch
from firsthand.engine.memory.prefix_cache import Space
from firsthand.errors import ConfigError

FULL_PER_WINDOW_BLOCK = 4
"""Full-attention blocks for each window block: conversations of four windows use both pools alike."""


class BlockTable(list[int]):
    """The block table of full-attention layers, and `window_blocks`, that of windowed layers."""

    def __init__(self, full_blocks: abc.Sequence[int] = (), window_blocks: abc.Sequence[int] = ()):
        super().__init__(full_blocks)
        self.window_blocks = list(window_blocks)


def window_blocks_of(table: list[int]) -> list[int]:
    """Returns the block table of the windowed layers."""
    assert isinstance(table, BlockTable)
    return table.window_blocks


@dataclass
class SlidingWindowPool:
    """Two BlockPools with the interface of one."""

    full_pool: BlockPool
    window_pool: BlockPool

    @property
    def pools(self) -> tuple[BlockPool, ...]:
        """The pools that hold blocks."""
        return (self.full_pool, self.window_pool)

    @property
    def block_size(self) -> int:
        """Positions in a block."""
        return self.full_pool.block_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the full-attention layers, by which positions are counted."""
        return self.full_pool.num_blocks

    @property
    def num_usable(self) -> int:
        """Blocks of both pools that can hold tokens."""
        return sum(part.num_usable for part in self.pools)

    @property
    def num_available(self) -> int:
        """Blocks that can be allocated in each pool."""
        return min(part.num_available for part in self.pools)

    @property
    def num_cached(self) -> int:
        """Unreferenced blocks in the prefix cache, of both pools."""
        return sum(part.num_cached for part in self.pools)

    @property
    def num_used(self) -> int:
        """Referenced blocks of both pools."""
        return sum(part.num_used for part in self.pools)

    def split(self, table: abc.Sequence[int]) -> list[tuple[BlockPool, list[int]]]:
        """Returns each pool with its blocks of a table."""
        assert isinstance(table, BlockTable)
        return [(self.full_pool, table), (self.window_pool, table.window_blocks)]

    def find(self, tokens: abc.Sequence[int], space: Space = None) -> PrefixMatch:
        """Returns the longest prefix of `tokens` that both pools have cached; see `BlockPool.find`."""
        full = self.full_pool.find(tokens, space)
        window = self.window_pool.find(tokens[: full.num_tokens], space)
        if window.num_tokens < full.num_tokens:
            full = self.full_pool.find(tokens[: window.num_tokens], space)
        assert full.num_tokens == window.num_tokens, "the full pool caches every prefix of what it caches"
        return PrefixMatch(BlockTable(full.blocks, window.blocks), full.num_tokens, full.note)

    def take(self, blocks: abc.Sequence[int]) -> BlockTable:
        """Returns a new table that references `blocks`."""
        (full, full_blocks), (window, window_blocks) = self.split(blocks)
        return BlockTable(full.take(full_blocks), window.take(window_blocks))

    def fork(self, table: abc.Sequence[int]) -> BlockTable:
        """Returns a second table over the same blocks; writing to a shared block copies it."""
        return self.take(table)

    def needed(self, table: abc.Sequence[int], start: int, end: int) -> int:
        """Returns how many blocks it takes to make positions writable, in the pool that needs most."""
        return max(part.needed(blocks, start, end) for part, blocks in self.split(table))

    def extend(self, table: list[int], start: int, end: int) -> list[BlockCopy] | None:
        """Make positions writable in both pools; None, and nothing changes, if one has too few blocks."""
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
        """Enter the full blocks of a table into both prefix caches; returns the number of full blocks."""
        for part, blocks in self.split(table):
            part.commit(tokens, blocks, first, num_computed, space)
        return num_computed // self.block_size

    def keep(
        self,
        tokens: abc.Sequence[int],
        table: abc.Sequence[int],
        num_computed: int,
        note: int | None = None,
        space: Space = None,
    ) -> None:
        """Enter the last partial block into both prefix caches."""
        for part, blocks in self.split(table):
            part.keep(tokens, blocks, num_computed, note, space)

    def trim(self, table: list[int], num_computed: int) -> None:
        """Release the blocks behind the window."""
        for part, blocks in self.split(table):
            part.trim(blocks, num_computed)

    def release(self, table: abc.Sequence[int]) -> None:
        """Drop a table's references."""
        for part, blocks in self.split(table):
            part.release(blocks)

    def forget_adapter(self, adapter: int) -> None:
        """Drop the cached prefixes of an adapter in both pools."""
        for part in self.pools:
            part.forget_adapter(adapter)

    def forget(self) -> None:
        """Empty both prefix caches."""
        for part in self.pools:
            part.forget()

    def check(self) -> None:
        """Assert that both pools are consistent."""
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
    """Returns the pool for layers with these windows (None: full attention).

    A block takes `layer_bytes` in each layer, plus `extra_bytes`. A window of `max_position` or more counts as none.
    `free_bytes` is the free memory, if known. Raises ConfigError if two blocks do not fit, or if less than
    `memory_bytes` is free.
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
            f"kv_memory_bytes is {memory_bytes:,} and {free_bytes:,} bytes of memory are free once the model is loaded: "
            "give less, or leave it out"
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
    """Returns how many blocks of `full_bytes` and of `window_bytes` to make of `memory_bytes`.

    `alone` is how many window blocks one sequence needs when it runs alone, `useful` how many can be of use.
    """
    full = memory_bytes * FULL_PER_WINDOW_BLOCK // (full_bytes * FULL_PER_WINDOW_BLOCK + window_bytes)
    window = min(max(full // FULL_PER_WINDOW_BLOCK, alone), useful, memory_bytes // (full_bytes + window_bytes))
    return (memory_bytes - window * window_bytes) // full_bytes, window
