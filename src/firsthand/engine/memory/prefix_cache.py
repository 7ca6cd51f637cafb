"""Prefix cache: a tree of known texts, in which a node's text continues its parent's, with the KV block of each node.

A node holds up to a block of tokens; only full nodes have children. Tokens themselves are compared, so no hash
collision can serve another prompt's blocks. Children are sorted, so the one that shares most tokens with a text is next
to where the text would be inserted. A node may outlive its block while a descendant has one (sliding windows).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from operator import attrgetter

TokenIds = tuple[int, ...]
Space = Hashable
"""Separates prefixes: the same tokens have other keys and values under another adapter, and salts are kept apart."""
_text = attrgetter("tokens")


def space_of(adapter: int | None, salt: str = "", source: TokenIds = ()) -> Space:
    """Returns the space of an adapter id (None: the base model), a salt, and an encoder-decoder's source text."""
    if source:
        return (adapter, salt, source)
    return (adapter, salt) if salt else adapter


def adapter_of(space: Space) -> Hashable:
    """Returns the adapter id of a space; None for the base model."""
    return space[0] if isinstance(space, tuple) else space


class PrefixNode:
    """Up to a block of tokens after its parent's; a root is its own parent and has none."""

    __slots__ = ("block", "children", "note", "parent", "space", "tokens")

    def __init__(self, parent: PrefixNode | None, tokens: TokenIds, block: int | None, space: Space):
        self.space = space
        self.parent = self if parent is None else parent
        self.tokens = tokens
        self.block = block
        self.children: list[PrefixNode] = []
        self.note: int | None = None

    @property
    def is_root(self) -> bool:
        """True for the root of a space."""
        return self.parent is self

    def child(self, text: TokenIds) -> PrefixNode | None:
        """Returns the child with exactly these tokens, or None."""
        place = bisect_left(self.children, text, key=_text)
        if place < len(self.children) and self.children[place].tokens == text:
            return self.children[place]
        return None

    def longest(self, text: TokenIds) -> tuple[PrefixNode | None, int]:
        """Returns the child that shares most leading tokens with these, and how many; None and 0 if none does."""
        place = bisect_left(self.children, text, key=_text)
        best, best_count = None, 0
        for node in self.children[max(place - 1, 0) : place + 1]:
            if (count := shared(node.tokens, text)) > best_count:
                best, best_count = node, count
        return best, best_count


class PrefixTree:
    """One root for each space that has cached prefixes."""

    def __init__(self) -> None:
        self._roots: dict[Space, PrefixNode] = {}

    def root(self, space: Space) -> PrefixNode:
        """Returns the root of a space. A root is dropped with its last child."""
        return self._roots.get(space) or PrefixNode(None, (), None, space)

    def insert(self, parent: PrefixNode, text: TokenIds, block: int) -> PrefixNode:
        """Returns a new child; there must be none with these tokens."""
        place = bisect_left(parent.children, text, key=_text)
        node = PrefixNode(parent, text, block, parent.space)
        parent.children.insert(place, node)
        if parent.is_root:
            self._roots[parent.space] = parent
        return node

    def prune(self, node: PrefixNode) -> None:
        """Remove a node without block and children, and every ancestor that this leaves without both."""
        while not node.is_root and node.block is None and not node.children:
            siblings = node.parent.children
            place = bisect_left(siblings, node.tokens, key=_text)
            assert siblings[place] is node, "a node was cut off twice"
            del siblings[place]
            node = node.parent
        if node.is_root and not node.children:
            self._roots.pop(node.space, None)

    def blocks(self, adapter: int) -> list[int]:
        """Returns the blocks of all prefixes of an adapter, of any salt."""
        stack = [root for space, root in self._roots.items() if adapter_of(space) == adapter]
        found: list[int] = []
        while stack:
            node = stack.pop()
            found += [] if node.block is None else [node.block]
            stack += node.children
        return found

    def check(self, block_size: int) -> Iterator[PrefixNode]:
        """Yields all nodes but the roots; asserts that the tree is consistent."""
        stack = list(self._roots.values())
        assert all(root.children for root in stack), "a space without texts was kept"
        while stack:
            parent = stack.pop()
            texts = [child.tokens for child in parent.children]
            assert texts == sorted(set(texts)), "children are out of order or twice there"
            assert not texts or parent.is_root or len(parent.tokens) == block_size, "an unfinished node has children"
            for child in parent.children:
                assert child.parent is parent, "a child knows another parent"
                assert child.space == parent.space, "a child is of another space"
                assert 0 < len(child.tokens) <= block_size, "a node's text is not up to a block long"
                assert child.block is not None or child.children, "a node without block or children was left"
                yield child
            stack += parent.children


def shared(a: TokenIds, b: TokenIds) -> int:
    """Returns how many leading tokens two sequences share."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
