"""Prefix cache: a tree of known texts, in which a node's text continues its parent's, with the KV block of each node.

A node holds up to a block of tokens; only full ones have children. Tokens themselves are compared, so no hash collision
can serve another prompt's memory. Children are sorted, so the one that shares the most tokens with a text is a neighbour of
the place where that text would stand. A node may outlive its block while a descendant has one (sliding windows).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from operator import attrgetter

Text = tuple[int, ...]
Space = Hashable
"""Whose texts: those of one space are never found in another, since the same tokens have other keys and values there."""
_text = attrgetter("tokens")


def space_of(adapter: int | None, salt: str = "") -> Space:
    """The space of texts that are computed with the adapter of this id, or with none, and are of one salt."""
    return (adapter, salt) if salt else adapter


def adapter_of(space: Space) -> Hashable:
    """The id of the adapter that a space's texts were computed with; None for the model as it is."""
    return space[0] if isinstance(space, tuple) else space


class Node:
    """A piece of text after its parent's; a root is its own parent and holds no text."""

    __slots__ = ("block", "children", "note", "parent", "space", "tokens")

    def __init__(self, parent: Node | None, tokens: Text, block: int | None, space: Space):
        self.space = space
        self.parent = self if parent is None else parent
        self.tokens = tokens
        self.block = block
        self.children: list[Node] = []
        self.note: int | None = None

    @property
    def is_root(self) -> bool:
        """Whether the texts of its space begin here."""
        return self.parent is self

    def child(self, text: Text) -> Node | None:
        """The child with exactly this text."""
        place = bisect_left(self.children, text, key=_text)
        if place < len(self.children) and self.children[place].tokens == text:
            return self.children[place]
        return None

    def longest(self, text: Text) -> tuple[Node | None, int]:
        """The child whose text begins most like this one, and how many tokens they share; none if that is 0."""
        place = bisect_left(self.children, text, key=_text)
        best, best_count = None, 0
        for node in self.children[max(place - 1, 0) : place + 1]:
            if (count := shared(node.tokens, text)) > best_count:
                best, best_count = node, count
        return best, best_count


class PrefixTree:
    """A root for each space in which there are texts, and what hangs from it."""

    def __init__(self) -> None:
        self._roots: dict[Space, Node] = {}

    def root(self, space: Space) -> Node:
        """Where the texts of a space begin. A root without children is forgotten with its last one."""
        return self._roots.get(space) or Node(None, (), None, space)

    def insert(self, parent: Node, text: Text, block: int) -> Node:
        """A new child; there must be none with this text."""
        place = bisect_left(parent.children, text, key=_text)
        node = Node(parent, text, block, parent.space)
        parent.children.insert(place, node)
        if parent.is_root:
            self._roots[parent.space] = parent
        return node

    def prune(self, node: Node) -> None:
        """Cut off a node that has neither block nor children, and those above it of which the same is then true."""
        while not node.is_root and node.block is None and not node.children:
            siblings = node.parent.children
            place = bisect_left(siblings, node.tokens, key=_text)
            assert siblings[place] is node, "a node was cut off twice"
            del siblings[place]
            node = node.parent
        if node.is_root and not node.children:
            self._roots.pop(node.space, None)

    def blocks(self, adapter: int) -> list[int]:
        """The blocks of all texts that were computed with an adapter, of whatever salt."""
        stack = [root for space, root in self._roots.items() if adapter_of(space) == adapter]
        found: list[int] = []
        while stack:
            node = stack.pop()
            found += [] if node.block is None else [node.block]
            stack += node.children
        return found

    def check(self, block_size: int) -> Iterator[Node]:
        """All nodes but the root; asserts that the tree is in order."""
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


def shared(a: Text, b: Text) -> int:
    """How many tokens two texts have in common at their beginning."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
