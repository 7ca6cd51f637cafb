"""A list of notes in this process, searched by the words they share with a query."""

from __future__ import annotations

from firsthand.memory import Lifetime, MemoryItem
from firsthand.retrieval.store.word_marks import marked, words_with_marks


class Notes:
    """The memory. It is gone with the process, whatever its lifetime."""

    name = "notes"

    def __init__(self, lifetime: Lifetime = "attempt", items: dict[str, MemoryItem] | None = None):
        self.lifetime = lifetime
        self._items = dict(items or {})

    async def write(self, item: MemoryItem) -> str:
        """Keep an item."""
        self._items[item.id] = item
        return item.id

    async def search(self, query: str, k: int) -> list[MemoryItem]:
        """The items that share most words with the query, ties by id; none that shares no word."""
        asked = _words(query)
        shared = {id: len(asked & _words(item.text)) for id, item in self._items.items()}
        best = sorted((id for id in shared if shared[id]), key=lambda id: (-shared[id], id))
        return [self._items[id] for id in best[:k]]

    async def forget(self, id: str) -> None:
        """Drop an item."""
        self._items.pop(id, None)

    async def list(self) -> list[MemoryItem]:
        """All items, by id."""
        return [self._items[id] for id in sorted(self._items)]

    def of_owner(self, owner: str) -> Notes:
        """Notes of another user, who sees none of these."""
        return Notes(self.lifetime)

    def snapshot(self) -> Notes:
        """A copy; the items are shared, for they never change."""
        return Notes(self.lifetime, self._items)


def _words(text: str) -> set[str]:
    return {marked(word) for word in words_with_marks(text.lower())}


def notes(*, lifetime: Lifetime = "attempt") -> Notes:
    """Notes for one attempt, one run, or as long as the agent lives (`lifetime`: attempt, run or agent)."""
    return Notes(lifetime)
