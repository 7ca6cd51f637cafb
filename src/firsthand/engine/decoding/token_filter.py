"""Filters the next token by a request's `allowed_token_ids`, `bad_words` and `min_tokens`, together with its grammar.

The allowed tokens are a function of the request and of the answer's tokens so far, so speculation, preemption and a repeated
request change nothing. Masks have a bit for each token in words of 32, as in `constraint`. No torch here.
"""

# V vocabulary

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from firsthand.engine.decoding.constraint import WORD, bits
from firsthand.errors import ConfigError
from firsthand.sampling import Sampling


class TokenFilter:
    """The tokens that requests of the same settings allow, the same for all of their answers. Thread-safe."""

    def __init__(
        self,
        vocab_size: int,
        *,
        allowed: Iterable[int] | None = None,
        bad: Iterable[Sequence[int]] = (),
        min_tokens: int = 0,
        ends: Iterable[int] = (),
    ):
        """`bad` are token sequences that no answer may complete; `ends` are tokens that may end it after `min_tokens`."""
        self.vocab_size = vocab_size
        self.min_tokens = min_tokens
        self._bad: dict[tuple[int, ...], list[int]] = {}
        """The last token of each sequence, by the tokens before it."""
        for sequence in bad:
            self._bad.setdefault(tuple(sequence[:-1]), []).append(sequence[-1])
        self._lengths = sorted({len(before) for before in self._bad})
        self.is_lasting = allowed is not None or bool(self._bad)
        """True if it forbids tokens even after `min_tokens`."""
        never = bits(self._bad.pop((), ()), vocab_size)
        self._allowed = bits(allowed, vocab_size) & ~never
        self._going_on = self._allowed & ~bits(ends, vocab_size)
        self._ends = bits(ends, vocab_size) & ~never

    @classmethod
    def of(
        cls, sampling: Sampling, vocab_size: int, *, bad: Iterable[Sequence[int]] = (), ends: Iterable[int] = ()
    ) -> TokenFilter | None:
        """The filter of these settings; None if they allow every token."""
        if sampling.allowed_token_ids is None and not bad and not sampling.min_tokens:
            return None
        return cls(vocab_size, allowed=sampling.allowed_token_ids, bad=bad, min_tokens=sampling.min_tokens, ends=ends)

    def binds(self, num_answer: int) -> bool:
        """Returns whether any token is forbidden after `num_answer` tokens."""
        return self.is_lasting or num_answer < self.min_tokens

    def after(self, tokens: Sequence[int], num_prompt: int, written: np.ndarray | None) -> np.ndarray:
        """The mask of tokens that may follow an answer, the part of `tokens` after the prompt: V bits, or fewer.

        `written` is the grammar's mask; where nothing of it is left, the answer may end before `min_tokens`. ConfigError if
        no token is allowed.
        """
        num_answer = len(tokens) - num_prompt
        allowed = self._going_on if num_answer < self.min_tokens else self._allowed
        bad = self._completing(tokens, num_answer)
        mask = self._masked(allowed, bad, written)
        if written is not None and not mask.any():
            mask = self._masked(self._ends, bad, written)
        if not mask.any():
            others = " and the grammar" if written is not None else ""
            raise ConfigError(
                f"no token may follow the {num_answer} of the answer: allowed_token_ids, bad_words, min_tokens{others} "
                "leave none together"
            )
        return mask

    def _completing(self, tokens: Sequence[int], num_answer: int) -> list[int]:
        """The tokens that would complete a bad sequence."""
        ends = [tuple(tokens[len(tokens) - length :]) for length in self._lengths if 0 < length <= num_answer]
        return [token for before in ends for token in self._bad.get(before, ())]

    @staticmethod
    def _masked(words: np.ndarray, bad: Iterable[int], written: np.ndarray | None) -> np.ndarray:
        """A copy of a mask without bad tokens and without those that the grammar's mask forbids."""
        size = len(words) if written is None else min(len(words), len(written))
        mask = words[:size].copy() if written is None else words[:size] & written[:size]
        for token in bad:
            if token < size * WORD:
                mask[token // WORD] &= ~np.uint32(1 << token % WORD)
        return mask
