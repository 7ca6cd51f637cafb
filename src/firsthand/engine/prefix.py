"""The tree of known texts: where each node's text goes on from its parent's, and which block holds its keys and values.

A node holds up to a block of tokens; only full ones have children. Tokens themselves are compared, so no hash collision
can serve another prompt's memory. Children are sorted, so the one that shares the most tokens with a text is a neighbour of
the place where that text would stand. A node may outlive its block while a descendant has one (sliding windows).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from operator import attrgetter

Text = tuple[int, ...]
_text = attrgetter("tokens")


class Node:
    """A piece of text after its parent's; the root is its own parent and holds no text."""

    __slots__ = ("block", "children", "note", "parent", "tokens")

    def __init__(self, parent: Node | None, tokens: Text, block: int | None):
        self.parent = self if parent is None else parent
        self.tokens = tokens
        self.block = block
        self.children: list[Node] = []
        self.note: int | None = None

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
    """A root and what hangs from it."""

    def __init__(self) -> None:
        self.root = Node(None, (), None)

    def insert(self, parent: Node, text: Text, block: int) -> Node:
        """A new child; there must be none with this text."""
        place = bisect_left(parent.children, text, key=_text)
        node = Node(parent, text, block)
        parent.children.insert(place, node)
        return node

    def prune(self, node: Node) -> None:
        """Cut off a node that has neither block nor children, and those above it of which the same is then true."""
        while node is not self.root and node.block is None and not node.children:
            siblings = node.parent.children
            place = bisect_left(siblings, node.tokens, key=_text)
            assert siblings[place] is node, "a node was cut off twice"
            del siblings[place]
            node = node.parent

    def check(self, block_size: int) -> Iterator[Node]:
        """All nodes but the root; asserts that the tree is in order."""
        stack = [self.root]
        while stack:
            parent = stack.pop()
            texts = [child.tokens for child in parent.children]
            assert texts == sorted(set(texts)), "children are out of order or twice there"
            assert not texts or parent is self.root or len(parent.tokens) == block_size, (
                "an unfinished node has children"
            )
            for child in parent.children:
                assert child.parent is parent, "a child knows another parent"
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
