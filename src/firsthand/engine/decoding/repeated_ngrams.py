"""Finds the tokens that would repeat n tokens in a row of a text, as `no_repeat_ngram_size` of transformers forbids them.

What followed each n - 1 tokens is remembered, so that a step costs the same after a long text and after a short one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


class RepeatedNgrams:
    """The n-grams of one text that grows at its end: a prompt and an answer. Answers of one prompt share its n-grams."""

    def __init__(self, n: int, num_prompt: int, *, beside: RepeatedNgrams | None = None):
        """`beside` is that of another answer to the same prompt. Nothing is read before `after`."""
        self.n, self.num_prompt = n, num_prompt
        self._prompt: _Followers = _Followers(n, 0) if beside is None else beside._prompt
        self._answer = _Followers(n, num_prompt)

    def after(self, tokens: Sequence[int]) -> Collection[int]:
        """The tokens that after these would repeat n of them; a later call must give the same ones, and maybe more."""
        self._prompt.read(tokens, self.num_prompt)
        self._answer.read(tokens, len(tokens))
        if len(tokens) < self.n:
            return ()
        last = tuple(tokens[len(tokens) - self.n + 1 :])
        return self._prompt.found.get(last, frozenset()) | self._answer.found.get(last, frozenset())


class _Followers:
    """The tokens that followed each n - 1 tokens, from one place of a text on."""

    def __init__(self, n: int, start: int):
        self.found: dict[tuple[int, ...], set[int]] = {}
        self._n, self._next = n, max(start, n - 1)

    def read(self, tokens: Sequence[int], end: int) -> None:
        """Read the tokens up to a place that were not read yet."""
        for place in range(self._next, end):
            self.found.setdefault(tuple(tokens[place - self._n + 1 : place]), set()).add(tokens[place])
        self._next = max(self._next, end)
