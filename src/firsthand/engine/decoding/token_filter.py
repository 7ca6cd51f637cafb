"""Filters the next token by a request's `allowed_token_ids`, `bad_words` and `min_tokens`, together with its grammar.

What the model's own files limit (`GenerationLimits`) holds besides.

The allowed tokens are a function of the request and of the answer's tokens so far, so speculation, preemption and a repeated
request change nothing. Masks have a bit for each token in words of 32, as in `constraint`. No torch here.
"""

# V vocabulary

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from firsthand.engine.decoding.constraint import WORD, bits
from firsthand.errors import ConfigError
from firsthand.sampling import Sampling
from firsthand.tokens.generation_limits import NO_LIMITS, GenerationLimits


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
        limits: GenerationLimits = NO_LIMITS,
    ):
        """`bad` are token sequences that no answer may complete; `ends` are tokens that may end it after `min_tokens`.

        What `limits` forbid may begin in the prompt.
        """
        self.vocab_size = vocab_size
        self.min_tokens = max(min_tokens, limits.min_tokens)
        self.min_length, self.ngram = limits.min_length, limits.ngram
        self._is_limited = limits != NO_LIMITS
        self._bad, self._bad_anywhere = _by_beginning(bad), _by_beginning(limits.forbidden)
        self._lengths = sorted({len(before) for before in self._bad})
        self._lengths_anywhere = sorted({len(before) for before in self._bad_anywhere})
        self.is_lasting = allowed is not None or bool(self._bad) or bool(self._bad_anywhere) or self.ngram > 0
        """True if it forbids tokens even after `min_tokens`."""
        never = bits([*self._bad.pop((), ()), *self._bad_anywhere.pop((), ())], vocab_size)
        self._allowed = bits(allowed, vocab_size) & ~never
        self._going_on = self._allowed & ~bits(ends, vocab_size)
        self._ends = bits(ends, vocab_size) & ~never

    @classmethod
    def of(
        cls,
        sampling: Sampling,
        vocab_size: int,
        *,
        bad: Iterable[Sequence[int]] = (),
        ends: Iterable[int] = (),
        limits: GenerationLimits = NO_LIMITS,
    ) -> TokenFilter | None:
        """The filter of these settings; None if they allow every token."""
        if sampling.allowed_token_ids is None and not bad and not sampling.min_tokens and limits == NO_LIMITS:
            return None
        allowed, least = sampling.allowed_token_ids, sampling.min_tokens
        return cls(vocab_size, allowed=allowed, bad=bad, min_tokens=least, ends=ends, limits=limits)

    def binds(self, num_answer: int, num_prompt: int) -> bool:
        """Returns whether any token is forbidden after `num_answer` tokens that follow a prompt."""
        return self.is_lasting or self._is_short(num_answer, num_prompt)

    def after(
        self, tokens: Sequence[int], num_prompt: int, written: np.ndarray | None, repeated: Collection[int] = ()
    ) -> np.ndarray:
        """The mask of tokens that may follow an answer, the part of `tokens` after the prompt: V bits, or fewer.

        `written` is the grammar's mask; where nothing of it is left, the answer may end before `min_tokens`. `repeated` are
        tokens that may follow only where no other may. ConfigError if no token is allowed.
        """
        mask = self._after(tokens, num_prompt, written, repeated)
        if repeated and not mask.any():
            mask = self._after(tokens, num_prompt, written)
        if not mask.any():
            others = " and the grammar" if written is not None else ""
            files = ", the model's generation_config.json" if self._is_limited else ""
            raise ConfigError(
                f"no token may follow the {len(tokens) - num_prompt} of the answer: allowed_token_ids, bad_words, "
                f"min_tokens{files}{others} leave none together"
            )
        return mask

    def _after(
        self, tokens: Sequence[int], num_prompt: int, written: np.ndarray | None, repeated: Collection[int] = ()
    ) -> np.ndarray:
        num_answer = len(tokens) - num_prompt
        allowed = self._going_on if self._is_short(num_answer, num_prompt) else self._allowed
        bad = [*self._completing(tokens, num_answer), *repeated]
        mask = self._masked(allowed, bad, written)
        if written is not None and not mask.any():
            mask = self._masked(self._ends, bad, written)
        return mask

    def _is_short(self, num_answer: int, num_prompt: int) -> bool:
        return num_answer < self.min_tokens or num_prompt + num_answer < self.min_length

    def _completing(self, tokens: Sequence[int], num_answer: int) -> list[int]:
        """The tokens that would complete a bad sequence."""
        pairs = (
            (self._bad, self._lengths, num_answer), (self._bad_anywhere, self._lengths_anywhere, len(tokens))
        )  # fmt: skip
        return [
            token
            for bad, lengths, most in pairs
            for length in lengths
            if 0 < length <= most
            for token in bad.get(tuple(tokens[len(tokens) - length :]), ())
        ]

    @staticmethod
    def _masked(words: np.ndarray, bad: Iterable[int], written: np.ndarray | None) -> np.ndarray:
        """A copy of a mask without bad tokens and without those that the grammar's mask forbids."""
        size = len(words) if written is None else min(len(words), len(written))
        mask = words[:size].copy() if written is None else words[:size] & written[:size]
        for token in bad:
            if token < size * WORD:
                mask[token // WORD] &= ~np.uint32(1 << token % WORD)
        return mask


def _by_beginning(sequences: Iterable[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """The last token of each sequence, by the tokens before it."""
    found: dict[tuple[int, ...], list[int]] = {}
    for sequence in sequences:
        found.setdefault(tuple(sequence[:-1]), []).append(sequence[-1])
    return found
