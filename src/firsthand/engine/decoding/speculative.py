"""Speculative decoding: draft tokens are verified in one step (Leviathan et al., 2023; Chen et al., 2023).

A step computes a sequence's last token together with k draft tokens and yields logits after each. The engine then
samples tokens as always, one after another, and goes on as long as the sampled token is the next draft token. A sampled
token is a function of the tokens before it and of (seed, index, position), never of a generator's state, and rows are
batch-invariant. So no acceptance rule is needed: tokens and log-probs, greedy or seeded, are those of an engine without
speculation, for any drafter, and their distribution is the model's. A wrong draft costs time only.

This file decides how many tokens to draft. Drafters are in `drafts`, verification is in `step`.
"""

from __future__ import annotations

import warnings
from collections import abc
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from firsthand.engine.core.sequence import Sequence

MAX_REST = 16


class DraftRequest(NamedTuple):
    """A sequence to draft tokens for, and how many at most."""

    sequence: Sequence
    most: int


class Drafter(Protocol):
    """Proposes draft tokens. They may be wrong: that changes no answer."""

    def propose(self, requests: abc.Sequence[DraftRequest]) -> abc.Sequence[abc.Sequence[int]]:
        """For each sequence the tokens that may follow its own; none where there is no good draft."""

    def forget(self, sequence: Sequence) -> None:
        """Drop the state of a sequence that ended; it may be unknown."""


@dataclass
class Pace:
    """The draft length of one sequence, adapted to how many of its draft tokens were accepted.

    The length doubles when a whole draft was accepted, and falls to the accepted part otherwise. A draft whose first token
    was wrong halves it, and pauses drafting for twice as many tokens as the time before, up to MAX_REST: an unpredictable
    text pays for one draft token in MAX_REST tokens. One accepted token ends that.
    """

    length: int
    rest: int = 1
    """Tokens of the last pause."""
    rest_until: int = 0
    """The number of tokens at which drafting may go on."""

    def learn(self, drafted: int, accepted: int, *, num_tokens: int, longest: int) -> None:
        """Adapt to a verified draft; the sequence now has `num_tokens`."""
        if accepted:
            self.length = min(2 * self.length, longest) if accepted == drafted else max(accepted, 1)
            self.rest = 1
            return
        self.length = max(self.length // 2, 1)
        self.rest = min(2 * self.rest, MAX_REST)
        self.rest_until = num_tokens + self.rest


class Speculator:
    """Shares a step's free rows among the sequences worth drafting for, and adapts to what was accepted."""

    def __init__(self, drafter: Drafter, *, vocab_size: int, draft_tokens: int, max_rows: int):
        assert draft_tokens > 0
        self.drafter: Drafter | None = drafter
        self.vocab_size = vocab_size
        self.draft_tokens = draft_tokens
        self.max_rows = max_rows
        self.num_drafted = 0
        self.num_accepted = 0
        self._paces: dict[Sequence, Pace] = {}

    def draft(self, running: abc.Sequence[Sequence]) -> None:
        """Draft for the sequences that sample a token in the next step, as far as the step has rows for them.

        Each such sequence takes a row of its own; draft tokens fill the rest of `max_rows`, in equal shares. A drafter that
        raises is not called again: answers go on without it, with a warning.
        """
        ready = [sequence for sequence in running if sequence.is_ready and not sequence.is_forced]
        requests = self._requests(ready, self.max_rows - len(ready))
        if not requests or self.drafter is None:
            return
        try:
            drafts = self.drafter.propose(requests)
            for (sequence, most), draft in zip(requests, drafts, strict=True):
                sequence.draft = self._usable(draft[:most])
        except Exception as error:
            self._dismiss(error)

    def learn(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """Record how many of a sequence's draft tokens were accepted."""
        self.num_drafted += drafted
        self.num_accepted += accepted
        if (pace := self._paces.get(sequence)) is not None:
            pace.learn(drafted, accepted, num_tokens=len(sequence.tokens), longest=self.draft_tokens)

    def forget(self, sequence: Sequence) -> None:
        """Drop the state of a sequence that ended."""
        self._paces.pop(sequence, None)
        try:
            if self.drafter is not None:
                self.drafter.forget(sequence)
        except Exception as error:
            self._dismiss(error)

    def _dismiss(self, error: Exception) -> None:
        self.drafter = None
        warnings.warn(f"speculation is off: the drafter failed with {type(error).__name__}: {error}", stacklevel=3)

    def _requests(self, ready: abc.Sequence[Sequence], room: int) -> list[DraftRequest]:
        eager = [
            (sequence, pace) for sequence in ready if (pace := self._pace(sequence)).rest_until <= len(sequence.tokens)
        ]
        requests: list[DraftRequest] = []
        for place, (sequence, pace) in enumerate(eager):
            share = -(-room // (len(eager) - place))
            # a draft of k brings up to k + 1 tokens
            count = min(pace.length, share, sequence.max_tokens - sequence.num_answer - 1)
            if count > 0:
                requests.append(DraftRequest(sequence, count))
                room -= count
        return requests

    def _pace(self, sequence: Sequence) -> Pace:
        return self._paces.setdefault(sequence, Pace(length=min(4, self.draft_tokens)))

    def _usable(self, draft: abc.Sequence[int]) -> tuple[int, ...]:
        """The draft up to the first id that is no token: a compiled kernel would read beyond the embedding."""
        for place, token in enumerate(draft):
            if not isinstance(token, int) or not 0 <= token < self.vocab_size:
                return tuple(draft[:place])
        return tuple(draft)
