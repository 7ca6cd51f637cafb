"""Memory for models in which some layers see everything and others a window: two pools, so that each keeps what it needs.

Layers that see everything have their blocks in `far`, the windowed ones in `near`, which gives back what lies before the
widest window. A `Table` is the list of blocks in `far`, with the other list beside it. The beginning of a text is known if
both pools know it. Otherwise a `MixedPool` is used as a `BlockPool` is.
"""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.memory.blocks import BlockPool, Copy, Found
from firsthand.engine.memory.prefix_cache import Space
from firsthand.errors import ConfigError

NEAR_SHARE = 4
"""Blocks for windows are one for so many others, where that is enough: conversations of four windows use both alike."""


class Table(list[int]):
    """A block table of the layers that see everything, and the one of the others."""

    def __init__(self, far: Row[int] = (), near: Row[int] = ()):
        super().__init__(far)
        self.near = list(near)


def near_table(table: list[int]) -> list[int]:
    """The blocks of the windowed layers."""
    assert isinstance(table, Table)
    return table.near


@dataclass
class MixedPool:
    """The two pools as one."""

    far: BlockPool
    near: BlockPool

    @property
    def parts(self) -> tuple[BlockPool, ...]:
        """The pools that hold blocks."""
        return (self.far, self.near)

    @property
    def block_size(self) -> int:
        """Positions of a block."""
        return self.far.block_size

    @property
    def num_blocks(self) -> int:
        """Blocks of the layers that see everything, by which positions are counted."""
        return self.far.num_blocks

    @property
    def num_usable(self) -> int:
        """Blocks of both that can hold text."""
        return sum(part.num_usable for part in self.parts)

    @property
    def num_available(self) -> int:
        """Blocks that can be had now in each pool."""
        return min(part.num_available for part in self.parts)

    @property
    def num_cached(self) -> int:
        """Blocks of both that nobody uses but that still hold known text."""
        return sum(part.num_cached for part in self.parts)

    @property
    def num_used(self) -> int:
        """Blocks of both that somebody uses."""
        return sum(part.num_used for part in self.parts)

    def split(self, table: Row[int]) -> list[tuple[BlockPool, list[int]]]:
        """Each pool with its blocks of a table."""
        assert isinstance(table, Table)
        return [(self.far, table), (self.near, table.near)]

    def find(self, tokens: Row[int], space: Space = None) -> Found:
        """The longest prefix of `tokens` that both pools know; see `BlockPool.find`."""
        whole = self.far.find(tokens, space)
        near = self.near.find(tokens[: whole.num_tokens], space)
        far = whole if near.num_tokens == whole.num_tokens else self.far.find(tokens[: near.num_tokens], space)
        assert far.num_tokens == near.num_tokens, "what sees everything knows each beginning of what it knows"
        return Found(Table(far.blocks, near.blocks), far.num_tokens, far.note)

    def take(self, blocks: Row[int]) -> Table:
        """A new table that shares `blocks`."""
        (far, far_blocks), (near, near_blocks) = self.split(blocks)
        return Table(far.take(far_blocks), near.take(near_blocks))

    def fork(self, table: Row[int]) -> Table:
        """A second table over the same memory; whoever writes first to a shared block gets a copy of it."""
        return self.take(table)

    def needed(self, table: Row[int], start: int, end: int) -> int:
        """Blocks that making positions writable takes of the pool that must give most."""
        return max(part.needed(blocks, start, end) for part, blocks in self.split(table))

    def extend(self, table: list[int], start: int, end: int) -> list[Copy] | None:
        """Make positions writable in both; None, and nothing is changed, if one has too few blocks."""
        parts = self.split(table)
        if any(part.needed(blocks, start, end) > part.num_available for part, blocks in parts):
            return None
        copies: list[Copy] = []
        for part, blocks in parts:
            made = part.extend(blocks, start, end)
            assert made is not None
            copies += [copy._replace(is_near=part is self.near) for copy in made]
        return copies

    def commit(self, tokens: Row[int], table: list[int], first: int, num_computed: int, space: Space = None) -> int:
        """Enter the full blocks of a table into both trees."""
        return max(part.commit(tokens, blocks, first, num_computed, space) for part, blocks in self.split(table))

    def keep(
        self, tokens: Row[int], table: Row[int], num_computed: int, note: int | None = None, space: Space = None
    ) -> None:
        """Enter the unfinished last block into both trees."""
        for part, blocks in self.split(table):
            part.keep(tokens, blocks, num_computed, note, space)

    def trim(self, table: list[int], num_computed: int) -> None:
        """Give back the blocks that the window has left behind."""
        for part, blocks in self.split(table):
            part.trim(blocks, num_computed)

    def release(self, table: Row[int]) -> None:
        """Give up a table."""
        for part, blocks in self.split(table):
            part.release(blocks)

    def forget_adapter(self, adapter: int) -> None:
        """Forget what was computed with an adapter in both trees."""
        for part in self.parts:
            part.forget_adapter(adapter)

    def forget(self) -> None:
        """Empty both trees."""
        for part in self.parts:
            part.forget()

    def check(self) -> None:
        """Assert that both pools are whole."""
        for part in self.parts:
            part.check()


def open_pool(
    windows: Row[int | None],
    config: EngineConfig,
    *,
    memory_bytes: int,
    layer_bytes: int,
    more_bytes: int,
    longest: int,
    free_bytes: int | None = None,
) -> BlockPool | MixedPool:
    """The pool for layers with such windows. A block of a layer takes `layer_bytes`, and every block `more_bytes` besides.

    `longest` is how many positions a sequence may have: a window that wide is none. `free_bytes` is what there is, where
    that is known. ConfigError if not even two blocks fit, or if there is less than `memory_bytes`.
    """
    size, seen = config.block_size, [w for w in windows if w is not None and w < longest]
    block_bytes = len(windows) * layer_bytes + more_bytes
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
    near_bytes = len(seen) * layer_bytes
    far, near = divide(
        memory_bytes,
        block_bytes - near_bytes,
        near_bytes,
        one=-(-(max(seen) + config.max_batch_tokens) // size) + 3,
        most=2 * config.max_sequences * (-(-max(seen) // size) + 2) + -(-config.max_batch_tokens // size),
    )
    return MixedPool(BlockPool(far, size), BlockPool(near, size, window=max(seen)))


def divide(memory_bytes: int, far_bytes: int, near_bytes: int, *, one: int, most: int) -> tuple[int, int]:
    """How many blocks of `far_bytes` and of `near_bytes` to make of some memory.

    `one` is how many near blocks a sequence takes at most when it runs alone, `most` how many are of use.
    """
    far = memory_bytes * NEAR_SHARE // (far_bytes * NEAR_SHARE + near_bytes)
    near = min(max(far // NEAR_SHARE, one), most, memory_bytes // (far_bytes + near_bytes))
    return (memory_bytes - near * near_bytes) // far_bytes, near
