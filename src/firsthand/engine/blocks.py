"""The bookkeeping of paged attention memory: which block belongs to whom, and which text a block already holds.

Keys and values live in blocks of `block_size` positions (Kwon et al., 2023). A sequence owns a table of block ids. Full
blocks are nodes of a prefix tree: a node is found by (parent block, the tokens it holds), and a dictionary compares the
tokens themselves, so a hash collision can never serve another prompt's memory. A full block that nobody uses stays in
the tree until its memory is needed; the one unused for longest goes first.

This file moves no tensor: `extend` says which blocks the runner must copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Row

ROOT = -1
Copy = tuple[int, int]
Key = tuple[int, tuple[int, ...]]


class BlockPool:
    """A fixed number of blocks with reference counts, a prefix tree over the full ones, and copy-on-write forks.

    Each block is in exactly one state: free (holds nothing), used (referenced), or cached (full, unreferenced, kept in
    the tree). Tables are released from their end, so a parent is always younger in the eviction order than its
    children, and evicting the oldest block never cuts a branch in two.
    """

    def __init__(self, num_blocks: int, block_size: int):
        assert num_blocks > 0 and block_size > 0
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks - 1, -1, -1))
        self._references = [0] * num_blocks
        self._key: dict[int, Key] = {}
        self._node: dict[Key, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """Blocks that can be had now: free ones and cached ones."""
        return len(self._free) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Blocks that nobody uses but that still hold known text."""
        return len(self._cached)

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks hold this many tokens."""
        return -(-num_tokens // self.block_size)

    def match(self, tokens: Row[int]) -> list[int]:
        """The blocks that hold the longest known prefix of `tokens`, in order. Nothing is referenced yet."""
        found: list[int] = []
        parent = ROOT
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            block = self._node.get((parent, tuple(tokens[start : start + self.block_size])))
            if block is None:
                break
            found.append(block)
            parent = block
        return found

    def num_available_without(self, blocks: Row[int]) -> int:
        """Blocks that can be had once `blocks` are taken out of the cache."""
        return self.num_available - sum(block in self._cached for block in blocks)

    def take(self, blocks: Row[int]) -> list[int]:
        """A new table that shares `blocks`."""
        for block in blocks:
            self._cached.pop(block, None)
            self._references[block] += 1
        return list(blocks)

    def fork(self, table: Row[int]) -> list[int]:
        """A second table over the same memory; whoever writes first to a shared block gets a copy of it."""
        return self.take(table)

    def extend(self, table: list[int], start: int, end: int) -> list[Copy] | None:
        """Make positions `start` to `end` of a table writable, and return the copies (from, to) that this needs.

        Returns None, and changes nothing, if there are too few blocks.
        """
        first = start // self.block_size
        shared = [i for i in range(first, len(table)) if self._references[table[i]] > 1]
        missing = self.blocks_for(end) - len(table)
        if len(shared) + max(missing, 0) > self.num_available:
            return None
        copies: list[Copy] = []
        for i in shared:
            old, table[i] = table[i], self._allocate()
            self._references[old] -= 1
            copies.append((old, table[i]))
        table.extend(self._allocate() for _ in range(missing))
        return copies

    def commit(self, tokens: Row[int], table: list[int], first: int, num_computed: int) -> int:
        """Enter the full blocks of a table, from index `first` on, into the tree; returns how many are full.

        If the tree already holds the same text, the table switches to that block and gives its own back.
        """
        full = num_computed // self.block_size
        for i in range(first, full):
            parent = table[i - 1] if i else ROOT
            key = (parent, tuple(tokens[i * self.block_size : (i + 1) * self.block_size]))
            known = self._node.get(key)
            if known is None:
                self._node[key] = table[i]
                self._key[table[i]] = key
            elif known != table[i]:
                self.release([table[i]])
                table[i] = self.take([known])[0]
        return full

    def release(self, table: Row[int]) -> None:
        """Give up a table. Blocks that nobody else uses become cached if the tree knows them, else free."""
        for block in reversed(table):
            self._references[block] -= 1
            if self._references[block] == 0:
                if block in self._key:
                    self._cached[block] = None
                else:
                    self._free.append(block)

    def forget(self) -> None:
        """Empty the tree, as when the weights changed. Every table must have been released."""
        assert not any(self._references), "a table in use would keep children whose parents are forgotten"
        self._free.extend(self._cached)
        self._cached.clear()
        self._key.clear()
        self._node.clear()

    def check(self) -> None:
        """Assert that every block is in exactly one state and that the tree is whole."""
        used = {block for block, count in enumerate(self._references) if count > 0}
        free, cached = set(self._free), set(self._cached)
        assert len(free) == len(self._free), "a block is free twice"
        assert len(free) + len(cached) + len(used) == self.num_blocks, "free + cached + used is not the total"
        assert not (free & cached or free & used or cached & used), "a block is in two states"
        assert all(count >= 0 for count in self._references), "a reference count is negative"
        assert len(self._key) == len(self._node), "the tree and its index differ"
        for key, block in self._node.items():
            assert self._key[block] == key, "the tree and its index differ"
            assert key[0] == ROOT or key[0] in self._key, "a branch of the tree has lost its parent"
            assert block not in free, "a free block is in the tree"

    def _allocate(self) -> int:
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            del self._node[self._key.pop(block)]
        self._references[block] = 1
        return block
