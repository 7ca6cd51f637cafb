"""Speculative decoding: guesses at the next tokens are verified in one step (Leviathan et al., 2023; Chen et al., 2023).

A step computes a sequence's last token together with k guessed ones and yields logits after each. The engine then
chooses tokens as always, one after another, and goes on for as long as its own choice is the next guess. Its choice is a
function of the tokens before it and of (seed, index, position), never of a generator's state, and a row has the same
bits whatever is beside it. So no acceptance rule is needed: tokens and log-probs, greedy or seeded, are those of an engine
without guesses, whoever guesses, and their distribution is trivially the model's. What a guess can cost is time.

This file decides how much to guess. Where guesses come from is in `drafts`, how they are verified in `step`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from firsthand.engine.core.sequence import Sequence

MAX_REST = 16


class Ask(NamedTuple):
    """A sequence whose next tokens are to be guessed, and how many at most."""

    line: Sequence
    most: int


class Drafter(Protocol):
    """Whoever guesses. It can be wrong, late or mad: that changes no answer."""

    def propose(self, asks: Row[Ask]) -> Row[Row[int]]:
        """For each sequence the tokens that may follow its own, none where there is no good guess."""

    def forget(self, line: Sequence) -> None:
        """Drop what is remembered of a sequence that ended; it may be unknown."""


@dataclass
class Pace:
    """How much to guess for one sequence, by how its guesses fared.

    The length doubles when a draft was right to its end, and falls to what was right of it otherwise. A draft whose first
    guess was wrong halves it, and makes the sequence rest for twice as many tokens as the time before, up to MAX_REST: a
    text that cannot be guessed pays for a guess in MAX_REST tokens. One right guess ends that.
    """

    length: int
    rest: int = 1
    """Tokens of the last pause."""
    rest_until: int = 0
    """The number of tokens at which the sequence may be guessed again."""

    def learn(self, drafted: int, accepted: int, *, num_tokens: int, longest: int) -> None:
        """Take note of a verified draft; the sequence now has `num_tokens`."""
        if accepted:
            self.length = min(2 * self.length, longest) if accepted == drafted else max(accepted, 1)
            self.rest = 1
            return
        self.length = max(self.length // 2, 1)
        self.rest = min(2 * self.rest, MAX_REST)
        self.rest_until = num_tokens + self.rest


class Speculator:
    """Shares what room a step has among the sequences worth guessing for, and learns from how it went."""

    def __init__(self, drafter: Drafter, *, vocab_size: int, draft_tokens: int, max_rows: int):
        assert draft_tokens > 0
        self.drafter: Drafter | None = drafter
        self.vocab_size = vocab_size
        self.draft_tokens = draft_tokens
        self.max_rows = max_rows
        self.num_drafted = 0
        self.num_accepted = 0
        self._paces: dict[Sequence, Pace] = {}

    def draft(self, running: Row[Sequence]) -> None:
        """Give guesses to the sequences that are one token from their next choice, as far as the step has rows for them.

        Each such sequence takes a row of its own; guesses fill the rest of `max_rows`, in equal shares. If the drafter
        raises, it is not asked again: answers go on without it, and a warning says so.
        """
        ready = [line for line in running if line.is_ready and not line.is_forced]
        asks = self._asks(ready, self.max_rows - len(ready))
        if not asks or self.drafter is None:
            return
        try:
            drafts = self.drafter.propose(asks)
            for (line, most), draft in zip(asks, drafts, strict=True):
                line.draft = self._usable(draft[:most])
        except Exception as error:
            self._dismiss(error)

    def learn(self, line: Sequence, drafted: int, accepted: int) -> None:
        """Take note of how many of a sequence's guesses were right."""
        self.num_drafted += drafted
        self.num_accepted += accepted
        if (pace := self._paces.get(line)) is not None:
            pace.learn(drafted, accepted, num_tokens=len(line.tokens), longest=self.draft_tokens)

    def forget(self, line: Sequence) -> None:
        """Drop what is remembered of a sequence that ended."""
        self._paces.pop(line, None)
        try:
            if self.drafter is not None:
                self.drafter.forget(line)
        except Exception as error:
            self._dismiss(error)

    def _dismiss(self, error: Exception) -> None:
        self.drafter = None
        warnings.warn(f"speculation is off: the drafter failed with {type(error).__name__}: {error}", stacklevel=3)

    def _asks(self, ready: Row[Sequence], room: int) -> list[Ask]:
        eager = [(line, pace) for line in ready if (pace := self._pace(line)).rest_until <= len(line.tokens)]
        asks: list[Ask] = []
        for place, (line, pace) in enumerate(eager):
            share = -(-room // (len(eager) - place))
            # a draft of k brings up to k + 1 tokens
            count = min(pace.length, share, line.max_tokens - line.num_answer - 1)
            if count > 0:
                asks.append(Ask(line, count))
                room -= count
        return asks

    def _pace(self, line: Sequence) -> Pace:
        return self._paces.setdefault(line, Pace(length=min(4, self.draft_tokens)))

    def _usable(self, draft: Row[int]) -> tuple[int, ...]:
        """The guesses up to the first that is no token: a compiled kernel would read beyond the embedding."""
        for place, token in enumerate(draft):
            if not isinstance(token, int) or not 0 <= token < self.vocab_size:
                return tuple(draft[:place])
        return tuple(draft)
