"""Prefixes that stay in memory for as long as somebody wants them, as a live conversation wants what its next turn needs.

Held blocks are never evicted and never taken for running sequences. So that they cannot stop the engine, at most a part
of the memory may be held: beyond it the oldest holds are dropped, and when a sequence that runs alone finds no memory, they
are too. What was held by a dropped one stays known as long as any other text that nobody uses.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, abc

from firsthand._moved import old_names
from firsthand.engine.memory.blocks import BlockPool
from firsthand.engine.memory.prefix_cache import Space, adapter_of
from firsthand.engine.memory.window_pool import SlidingWindowPool

MAX_PINNED_PREFIXES = 1 << 16


class PinnedPrefix:
    """A prefix that is kept in memory."""

    def __init__(self, num_tokens: int, space: Space = None):
        self.space = space
        self.num_tokens = num_tokens
        """How much of the text was known, and is held: 0 if nothing was."""
        self.is_pinned = True
        """False once it was released, or dropped for lack of memory or by new weights."""


class PinnedPrefixes:
    """All holds on a pool; at most half of its blocks."""

    def __init__(self, pool: BlockPool | SlidingWindowPool):
        self.pool = pool
        self._tables: OrderedDict[PinnedPrefix, list[int]] = OrderedDict()
        self._counts: list[Counter[int]] = [Counter() for _ in pool.pools]

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def num_blocks(self) -> int:
        """Blocks that are held, each counted once."""
        return sum(map(len, self._counts))

    def add(self, tokens: abc.Sequence[int], space: Space = None) -> PinnedPrefix:
        """Hold what is known of a text. If it is too much, the oldest others are dropped, and then the end of this one."""
        found = self.pool.find(tokens, space)
        if not self._fits(found.blocks):  # behind a window the end is what counts, and half of it is of no use
            whole = self.pool.pools[0]
            found = self.pool.find(
                tokens[: max_pinned_blocks(whole) * whole.block_size if whole.window is None else 0], space
            )
        if not self._fits(found.blocks):
            found = self.pool.find((), space)
        prefix = PinnedPrefix(found.num_tokens, space)
        self._tables[prefix] = self.pool.take(found.blocks)
        for counts, (part, blocks) in zip(self._counts, self.pool.split(found.blocks), strict=True):
            counts.update(block for block in blocks if block != part.null_block)
        while self._is_full() or len(self._tables) > MAX_PINNED_PREFIXES:
            self.drop_oldest()
        return prefix

    def release(self, prefix: PinnedPrefix) -> None:
        """Let go of a prefix; the prefix may have been dropped before."""
        table = self._tables.pop(prefix, None)
        if table is not None:
            self.pool.release(table)
            for counts, (_, blocks) in zip(self._counts, self.pool.split(table), strict=True):
                for block in blocks:
                    counts[block] -= 1
                    if counts[block] <= 0:
                        del counts[block]
        prefix.is_pinned = False

    def drop_oldest(self) -> bool:
        """Release the oldest hold; False if there is none."""
        if not self._tables:
            return False
        self.release(next(iter(self._tables)))
        return True

    def drop_adapter(self, adapter: int) -> None:
        """Release all holds on texts that were computed with an adapter."""
        for prefix in [prefix for prefix in self._tables if adapter_of(prefix.space) == adapter]:
            self.release(prefix)

    def _fits(self, blocks: abc.Sequence[int]) -> bool:
        return all(
            sum(b != part.null_block for b in own) <= max_pinned_blocks(part) for part, own in self.pool.split(blocks)
        )

    def _is_full(self) -> bool:
        return any(
            len(counts) > max_pinned_blocks(part) for counts, part in zip(self._counts, self.pool.pools, strict=True)
        )


def max_pinned_blocks(part: BlockPool) -> int:
    """How many blocks of a pool may be held."""
    return part.num_usable // 2


__getattr__ = old_names(__name__, {"Hold": "PinnedPrefix"})
