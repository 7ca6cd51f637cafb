"""difflib's matcher with a bound on its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import Match, SequenceMatcher
from itertools import accumulate


class BoundedMatcher(SequenceMatcher[str]):
    """difflib's matcher, cubic in time for texts such as `a a a` against `b a b a`: after a bound it finds nothing."""

    def __init__(self, a: Sequence[str], b: Sequence[str], max_pairs: int):
        """At most `max_pairs` pairs of equal items are looked at."""
        super().__init__(None, a, b, autojunk=False)
        counts = Counter(b)
        self._pairs = [0, *accumulate(counts[item] for item in a)]
        self._left = max_pairs

    @property
    def left(self) -> int:
        """The pairs that may still be looked at; 0 where the bound has ended the search."""
        return max(0, self._left)

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        self._left -= self._pairs[-1 if ahi is None else ahi] - self._pairs[alo]
        return super().find_longest_match(alo, ahi, blo, bhi) if self._left >= 0 else Match(alo, blo, 0)
