"""Prefixes pinned in the KV cache, such as a live conversation that will have a next turn.

Pinned blocks are never evicted and never taken for running sequences. At most half of the blocks can be pinned: beyond
that the oldest pins are dropped, and also when a sequence that runs alone runs out of blocks. Blocks of a dropped pin
stay cached like any others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, abc

from firsthand.engine.memory.blocks import BlockPool
from firsthand.engine.memory.prefix_cache import Space, adapter_of
from firsthand.engine.memory.window_pool import SlidingWindowPool

MAX_PINNED_PREFIXES = 1 << 16


class PinnedPrefix:
    """A prefix that stays in the KV cache."""

    def __init__(self, num_tokens: int, space: Space = None):
        self.space = space
        self.num_tokens = num_tokens
        """Tokens that were cached and are pinned; 0 if none were."""
        self.is_pinned = True
        """False once it was unpinned, or dropped for lack of blocks or because of new weights."""


class PinnedPrefixes:
    """All pinned prefixes of a pool; at most half of its blocks."""

    def __init__(self, pool: BlockPool | SlidingWindowPool):
        self.pool = pool
        self._tables: OrderedDict[PinnedPrefix, list[int]] = OrderedDict()
        self._counts: list[Counter[int]] = [Counter() for _ in pool.pools]

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def num_blocks(self) -> int:
        """Pinned blocks, each counted once."""
        return sum(map(len, self._counts))

    def add(self, tokens: abc.Sequence[int], space: Space = None) -> PinnedPrefix:
        """Pin the cached prefix of a text. If it is too long, drop the oldest pins, then the end of this one."""
        found = self.pool.find(tokens, space)
        if not self._fits(found.blocks):  # with a window only the end is of use, so it is not cut
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
        """Unpin a prefix; it may have been dropped before."""
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
        """Unpin the oldest prefix; False if there is none."""
        if not self._tables:
            return False
        self.release(next(iter(self._tables)))
        return True

    def drop_adapter(self, adapter: int) -> None:
        """Unpin all prefixes of an adapter."""
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
    """Returns how many blocks of a pool may be pinned."""
    return part.num_usable // 2
