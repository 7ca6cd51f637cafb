"""Releases two answers at one pace, so that the speed of a model does not tell which it is."""

# a, b: characters that each side has by now

from __future__ import annotations

from dataclasses import dataclass

MOST_PER_S = 600.0
"""Characters a second at most, however fast both models are."""
LEAST_PER_S = 20.0
"""Characters a second that the longer answer keeps, if the shorter was hardly paced at all."""


@dataclass
class PacedPair:
    """Counts of characters that may be shown of two answers.

    Both sides show the same number until the shorter answer has ended: the slower model sets the pace. The rest of the
    longer answer keeps that pace, though its model may be the faster one.
    """

    shown_a: int = 0
    shown_b: int = 0
    is_over: bool = False
    _began_s: float | None = None
    _common_s: float | None = None
    """When the shorter answer ended, after the beginning."""
    _last_s: float = 0.0
    _spare: float = 0.0
    """Part of a character that was allowed and not shown yet."""

    def advance(self, a: int, done_a: bool, b: int, done_b: bool, now_s: float) -> tuple[int, int]:
        """The characters to show of each side by now, never fewer than before.

        Args:
            a: Characters that the first side has; b: that the second has.
            done_a: True if the first answer is complete; done_b: the second.
            now_s: A clock that does not run backwards.
        """
        if self._began_s is None:
            if not (a or done_a) or not (b or done_b):
                return 0, 0
            self._began_s = self._last_s = now_s
        allowed = self._allowed(now_s)
        common = self._common_s is None
        if common:
            step = max(0, min(allowed, a - self.shown_a, b - self.shown_b))
            self.shown_a += step
            self.shown_b += step
            allowed -= step
            if (done_a and self.shown_a >= a) or (done_b and self.shown_b >= b):
                self._common_s = max(now_s - self._began_s, 1e-3)
        else:
            self.shown_a += max(0, min(allowed, a - self.shown_a))
            self.shown_b += max(0, min(allowed, b - self.shown_b))
        self.is_over = done_a and done_b and self.shown_a >= a and self.shown_b >= b
        return self.shown_a, self.shown_b

    def _allowed(self, now_s: float) -> int:
        """Whole characters that the time since the last call allows."""
        assert self._began_s is not None
        if self._common_s is None:
            rate = MOST_PER_S
        else:
            shown = min(self.shown_a, self.shown_b)
            rate = min(MOST_PER_S, max(LEAST_PER_S, shown / self._common_s))
        if now_s <= self._last_s:
            return 0
        self._spare = min(self._spare + rate * (now_s - self._last_s), rate)
        self._last_s = now_s
        whole = int(self._spare)
        self._spare -= whole
        return whole
