"""Prompt tokens that each owner may still have in one step."""

from __future__ import annotations

from collections import Counter

from firsthand.engine.core.sequence import Sequence


class PromptShares:
    """The shares of one step, by priority and owner. `most` holds those that are limited; any other may fill the step."""

    def __init__(self, most: dict[tuple[int, str], int], max_batch_tokens: int):
        self._most = most
        self._max_batch_tokens = max_batch_tokens
        self._taken: Counter[tuple[int, str]] = Counter()

    def left(self, sequence: Sequence) -> int:
        """Returns how many prompt tokens of a sequence may still go into the step."""
        key = (sequence.priority, sequence.owner)
        return max(self._most.get(key, self._max_batch_tokens) - self._taken[key], 0)

    def take(self, sequence: Sequence, num_tokens: int) -> None:
        """Record tokens that went into the step; they are negative if the step lost more by preemption."""
        self._taken[sequence.priority, sequence.owner] += max(num_tokens, 0)
