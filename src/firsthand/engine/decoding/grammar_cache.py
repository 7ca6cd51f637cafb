"""Caches compiled grammars by the bytes they hold, which grow while answers follow them.

llguidance builds its automaton as texts reach its states, and answers share what is built. It does not tell how large
that is, so it is estimated from above: for a grammar in this process, from its source and from the processor time that
its answers have spent; for one in a process of its own the kernel knows it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import RLock
from typing import Generic, Protocol, TypeVar

MAX_CACHE_BYTES = 256 << 20
_GROWTH_PER_S = 200 << 20
"""Bytes per second of processor time; automata of hostile expressions were seen to grow by 70 to 190 MB."""
_MAX_GROWTH = 32 << 20
"""Of one automaton, which has 16,000 states of up to 2 kB."""
_BASE_BYTES = 128 << 10
_PER_SOURCE_BYTE = 64


class Sized(Protocol):
    """An entry of the cache."""

    @property
    def num_bytes(self) -> int:
        """Bytes held now."""

    @property
    def is_in_use(self) -> bool:
        """True if something else holds it too."""


@dataclass
class Growth:
    """The growth of one automaton."""

    seconds: float = 0.0
    """Processor time that answers spent in it."""
    is_spoiled: bool = False
    """True once it has reached a limit: it then fails for every answer."""
    is_watched: bool = False
    """True while its masks are computed one by one and timed, as some took long."""
    is_too_slow: bool = False
    """True once its masks took most of the time that one step has for masks: its answers end."""

    def estimate(self, source: str) -> int:
        """Bytes that the automaton of a grammar holds, from above."""
        grown = min(int(self.seconds * _GROWTH_PER_S), _MAX_GROWTH)
        return _BASE_BYTES + _PER_SOURCE_BYTE * len(source) + grown


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Sized)


class GrammarCache(Generic[K, V]):
    """The entries used last, of at most `max_bytes` together; a text is kept in place of what is known to be invalid."""

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES):
        self.max_bytes = max_bytes
        self._known: OrderedDict[K, V | str] = OrderedDict()
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def num_bytes(self) -> int:
        """Bytes held by all entries now."""
        with self._lock:
            return sum(map(_bytes_of, list(self._known.values())))

    def get(self, key: K) -> V | str | None:
        """The entry of a key, if it is there; one that has outgrown the cache is dropped."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
                if _bytes_of(found) > self.max_bytes:
                    del self._known[key]
            return found

    def put(self, key: K, entry: V | str) -> None:
        """Keep an entry, unless it is larger than the whole cache, and drop those used longest ago.

        All are measured again: those that answers follow have grown.
        """
        with self._lock:
            self._known.pop(key, None)
            if _bytes_of(entry) <= self.max_bytes:
                self._known[key] = entry
                self._shrink()

    def drop_idle(self, matches: Callable[[V], bool]) -> bool:
        """Drop the entry used longest ago that matches and that nothing else holds; returns whether there was one."""
        with self._lock:
            for key, entry in self._known.items():
                if not isinstance(entry, str) and matches(entry) and not entry.is_in_use:
                    del self._known[key]
                    return True
        return False

    def _shrink(self) -> None:
        sizes = {key: _bytes_of(entry) for key, entry in self._known.items()}
        total = sum(sizes.values())
        while total > self.max_bytes:
            key, _ = self._known.popitem(last=False)
            total -= sizes[key]


def _bytes_of(entry: Sized | str) -> int:
    return 1_000 + 4 * len(entry) if isinstance(entry, str) else entry.num_bytes
