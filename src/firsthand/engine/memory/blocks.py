"""Block allocation for the paged KV cache, with prefix caching and copy-on-write.

Keys and values are stored in blocks of `block_size` positions (Kwon et al., 2023), and a sequence has a block table.
The tokens of full blocks, and of the last partial block of a sequence, are entered into a `PrefixTree`. An unreferenced
block stays cached until its memory is needed; the least recently used one is evicted first.

If every layer has a sliding window, `window` is the widest: blocks behind it are released while the sequence runs, and
block 0, the null block, stands in the table for them. It is never written.

No tensor is moved here: `extend` returns the block copies that the runner must make.
"""

from __future__ import annotations

from collections import OrderedDict, abc
from typing import NamedTuple

from firsthand.engine.memory.prefix_cache import PrefixNode, PrefixTree, Space

NO_BLOCK = -1
"""The null block of a pool without a window: no block has this number."""


class BlockCopy(NamedTuple):
    """A block to copy before a step."""

    source: int
    target: int
    is_window: bool = False
    """True if the block belongs to the windowed layers (`window_pool.py`)."""


class PrefixMatch(NamedTuple):
    """A cached prefix: its `num_tokens` are in `blocks`, the last of which may hold more tokens."""

    blocks: list[int]
    num_tokens: int
    note: int | None = None
    """The note kept with this text, if the match is a whole text that was kept."""


class BlockPool:
    """A fixed number of blocks with reference counts, prefix caching, and copy-on-write forks.

    Each block is in exactly one state: free (empty), used (referenced), or cached (unreferenced, in the tree). Tables
    are released from their end, so parents are evicted after their children, and without a window eviction never cuts a
    branch in two.
    """

    def __init__(self, num_blocks: int, block_size: int, *, window: int | None = None):
        assert num_blocks > 0 and block_size > 0 and (window is None or window > 0)
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.window = window
        self.null_block = NO_BLOCK if window is None else 0
        """Stands in tables for blocks behind the window."""
        self._free = list(range(num_blocks - 1, self.null_block, -1))
        self._references = [0] * num_blocks
        """Number of tables that each block is in."""
        self._cached: OrderedDict[int, None] = OrderedDict()
        """Cached blocks in no table, least recently used first."""
        self._tree = PrefixTree()
        self._node: dict[int, PrefixNode] = {}
        """The tree node of each block that is in the tree."""

    @property
    def pools(self) -> tuple[BlockPool, ...]:
        """The pools that hold blocks: this one alone (see `SlidingWindowPool`)."""
        return (self,)

    def split(self, table: abc.Sequence[int]) -> list[tuple[BlockPool, abc.Sequence[int]]]:
        """Returns each pool with its blocks of a table."""
        return [(self, table)]

    @property
    def num_usable(self) -> int:
        """Blocks that can hold tokens."""
        return self.num_blocks - 1 - self.null_block

    @property
    def num_available(self) -> int:
        """Blocks that can be allocated: free and cached."""
        return len(self._free) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Unreferenced blocks in the prefix cache."""
        return len(self._cached)

    @property
    def num_used(self) -> int:
        """Referenced blocks."""
        return self.num_usable - self.num_available

    def blocks_for(self, num_tokens: int) -> int:
        """Returns how many blocks hold this many tokens."""
        return -(-num_tokens // self.block_size)

    def most_blocks_for(self, num_tokens: int, longest_chunk: int) -> int:
        """Returns the most blocks that a sequence of this length has at once, computed in chunks of this size."""
        blocks = self.blocks_for(num_tokens)
        if self.window is None:
            return blocks
        # One more where window and chunk begin inside a block, and one for the last full block, which `trim` leaves.
        return min(blocks, self.blocks_for(self.window + longest_chunk) + 2)

    def match(self, tokens: abc.Sequence[int], space: Space = None) -> list[int]:
        """Returns the blocks of the longest cached prefix of `tokens` in full blocks. Nothing is referenced yet."""
        whole = self.find(tokens, space).num_tokens // self.block_size * self.block_size
        return self.find(tokens[:whole], space).blocks

    def find(self, tokens: abc.Sequence[int], space: Space = None) -> PrefixMatch:
        """Returns the longest cached prefix of `tokens` in a space, to the token. Nothing is referenced yet.

        Taking the blocks and writing after `num_tokens` copies the last block where needed.
        """
        path, size = self._path(tokens, space), self.block_size
        full = len(path)
        parent = path[-1] if path else self._tree.root(space)
        tail, count = parent.longest(tuple(tokens[full * size : (full + 1) * size]))
        num_tokens = full * size + count
        if tail is not None and tail.block is not None and self._has_window(path, num_tokens):
            note = tail.note if count == len(tail.tokens) else None
            return PrefixMatch([*self._blocks(path, num_tokens), tail.block], num_tokens, note)
        while full and not self._has_window(path[:full], full * size):
            full -= 1  # a block of its window was evicted; a shorter prefix may be whole
        return PrefixMatch(self._blocks(path[:full], full * size), full * size, path[full - 1].note if full else None)

    def num_available_without(self, blocks: abc.Sequence[int]) -> int:
        """Returns how many blocks can be allocated once `blocks` are taken from the cache."""
        return self.num_available - sum(block in self._cached for block in blocks)

    def take(self, blocks: abc.Sequence[int]) -> list[int]:
        """Returns a new table that references `blocks`."""
        for block in blocks:
            if block != self.null_block:
                self._cached.pop(block, None)
                self._references[block] += 1
        return list(blocks)

    def fork(self, table: abc.Sequence[int]) -> list[int]:
        """Returns a second table over the same blocks; writing to a shared block copies it."""
        return self.take(table)

    def needed(self, table: abc.Sequence[int], start: int, end: int) -> int:
        """Returns how many blocks it takes to make positions `start` to `end` of a table writable."""
        return len(self._shared(table, start)) + max(self.blocks_for(end) - len(table), 0)

    def extend(self, table: list[int], start: int, end: int) -> list[BlockCopy] | None:
        """Make positions `start` to `end` of a table writable; returns the block copies that this needs.

        Shared blocks are copied, and blocks whose cached tokens would be overwritten. Returns None, and changes
        nothing, if too few blocks are available.
        """
        shared = self._shared(table, start)
        missing = max(self.blocks_for(end) - len(table), 0)
        if len(shared) + missing > self.num_available:
            return None
        copies: list[BlockCopy] = []
        for i in shared:
            old, table[i] = table[i], self._allocate()
            self.release([old])
            copies.append(BlockCopy(old, table[i]))
        table.extend(self._allocate() for _ in range(missing))
        return copies

    def commit(
        self, tokens: abc.Sequence[int], table: list[int], first: int, num_computed: int, space: Space = None
    ) -> int:
        """Enter the full blocks of a table, from index `first` on, into the prefix cache; returns the number of full
        blocks.

        If the same tokens are cached already, the table switches to that block and releases its own.
        """
        full = num_computed // self.block_size
        while 0 < first < full and table[first - 1] not in self._node:
            first -= 1  # a cached block was copied to recompute its last token
        if first >= full or table[first] == self.null_block:
            return full
        parent = self._node[table[first - 1]] if first else self._tree.root(space)
        for i in range(first, full):
            text = tuple(tokens[i * self.block_size : (i + 1) * self.block_size])
            parent = self._cache_block(parent, text, table, i)
        return full

    def keep(
        self,
        tokens: abc.Sequence[int],
        table: abc.Sequence[int],
        num_computed: int,
        note: int | None = None,
        space: Space = None,
    ) -> None:
        """Enter the last partial block of a table into the prefix cache, and leave a note with the end of the text.

        The full blocks must be committed. Further positions of the partial block may still be written.
        """
        full = num_computed // self.block_size
        node = self._node.get(table[full - 1]) if full else self._tree.root(space)
        text = tuple(tokens[full * self.block_size : num_computed])
        if node is None:
            return
        if text:
            node = self._cache_partial_block(node, text, table[full])
        if note is not None and node is not None and not node.is_root:
            node.note = note

    def trim(self, table: list[int], num_computed: int) -> None:
        """Release the blocks behind the window, except the last full block, from which the tree continues."""
        if self.window is None:
            return
        for i in range(self._first_needed(num_computed) - 1, -1, -1):
            if table[i] == self.null_block:
                return
            self.release([table[i]])
            table[i] = self.null_block

    def release(self, table: abc.Sequence[int]) -> None:
        """Drop a table's references. Unreferenced blocks become cached if they are in the tree, else free."""
        for block in reversed(table):
            if block == self.null_block:
                continue
            self._references[block] -= 1
            if self._references[block] == 0:
                if block in self._node:
                    self._cached[block] = None
                else:
                    self._free.append(block)

    def forget_adapter(self, adapter: int) -> None:
        """Drop the cached prefixes of an adapter; blocks in use stay with their sequences, uncached."""
        for block in self._tree.blocks(adapter):
            self._uncache(self._node[block])
            if block in self._cached:
                del self._cached[block]
                self._free.append(block)

    def forget(self) -> None:
        """Empty the prefix cache, as for new weights; blocks in use stay with their sequences, uncached."""
        self._free.extend(self._cached)
        self._cached.clear()
        self._node.clear()
        self._tree = PrefixTree()

    def check(self) -> None:
        """Assert that every block is in exactly one state and that the tree is consistent."""
        used = {block for block, count in enumerate(self._references) if count > 0}
        free, cached = set(self._free), set(self._cached)
        assert len(free) == len(self._free), "a block is free twice"
        assert len(free) + len(cached) + len(used) == self.num_usable, "free + cached + used is not the total"
        assert not (free & cached or free & used or cached & used), "a block is in two states"
        assert self.null_block not in free | cached | used, "the null block is in use"
        assert all(count >= 0 for count in self._references), "a reference count is negative"
        nodes = {node.block: node for node in self._tree.check(self.block_size) if node.block is not None}
        assert nodes == self._node, "the tree and its index differ"
        assert not free & set(nodes), "a free block is in the tree"
        assert cached <= set(nodes), "a cached block is not in the tree"
        if self.window is None:
            for node in nodes.values():
                assert node.parent.is_root or node.parent.block is not None, "a branch has lost its parent"

    def _path(self, tokens: abc.Sequence[int], space: Space) -> list[PrefixNode]:
        """Returns the nodes of the longest cached prefix in full blocks."""
        node, path, size = self._tree.root(space), list[PrefixNode](), self.block_size
        for start in range(0, len(tokens) - size + 1, size):
            child = node.child(tuple(tokens[start : start + size]))
            if child is None:
                break
            path.append(child)
            node = child
        return path

    def _first_needed(self, num_tokens: int) -> int:
        """Returns the index of the first block that a sequence of this length needs to continue.

        It holds the oldest position that the next token attends to, or is the last full block, where the tree
        continues.
        """
        if self.window is None:
            return 0
        first_in_window = (num_tokens - self.window + 1) // self.block_size
        last_full = num_tokens // self.block_size - 1
        return max(min(first_in_window, last_full), 0)

    def _has_window(self, path: abc.Sequence[PrefixNode], num_tokens: int) -> bool:
        """True if all blocks that the next token attends to are cached: those of a window may have been evicted."""
        return self.window is None or all(node.block is not None for node in path[self._first_needed(num_tokens) :])

    def _blocks(self, path: abc.Sequence[PrefixNode], num_tokens: int) -> list[int]:
        """Returns the block table of a cached prefix."""
        first = self._first_needed(num_tokens)
        return [self.null_block if i < first or node.block is None else node.block for i, node in enumerate(path)]

    def _shared(self, table: abc.Sequence[int], start: int) -> list[int]:
        """Returns the indices in a table, from a position on, of blocks to copy before they are written."""
        first, size = start // self.block_size, self.block_size
        return [i for i in range(first, len(table)) if self._is_shared(table[i], max(start - i * size, 0))]

    def _is_shared(self, block: int, slot: int) -> bool:
        """True if writing from a slot on would change what another sequence may read."""
        node = self._node.get(block)
        return self._references[block] > 1 or (node is not None and len(node.tokens) > slot)

    def _cache_block(self, parent: PrefixNode, text: tuple[int, ...], table: list[int], i: int) -> PrefixNode:
        """Returns the node of a full block, new if need be; the table switches to a cached block with the same tokens."""
        block = table[i]
        node = parent.child(text)
        if node is not None and node.block == block:
            return node
        if (own := self._node.get(block)) is not None:
            self._uncache(own)  # its tokens begin this block's
        if node is None:
            node = self._tree.insert(parent, text, block)
        elif node.block is not None:
            self.release([block])
            table[i] = self.take([node.block])[0]
            return node
        node.block = block
        self._node[block] = node
        return node

    def _cache_partial_block(self, parent: PrefixNode, text: tuple[int, ...], block: int) -> PrefixNode | None:
        """Returns the node of a partial block, new if need be; None if its tokens only begin a longer cached text."""
        node, count = parent.longest(text)
        if node is not None and count == len(text):
            return node if node.tokens == text else None
        if (own := self._node.get(block)) is not None:
            self._uncache(own)  # its tokens begin this block's
        self._node[block] = self._tree.insert(parent, text, block)
        return self._node[block]

    def _uncache(self, node: PrefixNode) -> None:
        """Remove a node's block from the tree."""
        assert node.block is not None
        del self._node[node.block]
        node.block = None
        self._tree.prune(node)

    def _allocate(self) -> int:
        """Returns a free block, else evicts the least recently used cached one."""
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            self._uncache(self._node[block])
        self._references[block] = 1
        return block
