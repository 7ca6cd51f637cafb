"""Finds the merges of a vocabulary that lists tokens alone: every way to make a token of two others.

A run of one letter of every length up to n has a merge for each place of each run, whose texts have n^3 letters together. So
the splits that are tried, their letters, the merges and theirs are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from firsthand.errors import ModelFileError

MAX_TOKEN = 1 << 12
MAX_SPLITS = 1 << 23
"""Most ways to split all tokens in two; Gemma's 262,144 have about two million."""
MAX_SPLIT_LETTERS = 1 << 29
"""Most letters of all these parts: each is compared with the vocabulary."""
MAX_MERGES = 1 << 20
"""Those of the largest vocabularies, Gemma and GPT-4o, have about half a million."""
MAX_MERGE_LETTERS = 1 << 25


T = TypeVar("T", str, bytes)


class TokenMerges(Generic[T]):
    """The merges of the tokens in `ids`; each `of` counts against the bounds of all."""

    def __init__(self, ids: Mapping[T, int], source: str):
        """ModelFileError if the tokens are longer than those of any real vocabulary."""
        self._ids: Mapping[T, int] = ids
        self._source = source
        self._merges = self._letters = 0
        lengths = [len(token) for token in ids]
        is_long = max(lengths, default=0) > MAX_TOKEN or sum(lengths) > MAX_SPLITS
        if is_long or sum(length * length for length in lengths) > MAX_SPLIT_LETTERS:
            raise ModelFileError(f"{source}: the vocabulary's tokens are too long for any real tokenizer")

    def of(self, token: T) -> Sequence[tuple[int, int]]:
        """The ids of each two tokens that make up this one, in order; ModelFileError if there are too many in all."""
        found = sorted(self._pairs(token))
        self._merges += len(found)
        self._letters += len(found) * len(token)
        if self._merges > MAX_MERGES or self._letters > MAX_MERGE_LETTERS:
            raise ModelFileError(
                f"{self._source}: its tokens are made of each other in more than {MAX_MERGES} ways, or in ways of more than "
                f"{MAX_MERGE_LETTERS} letters: expected the vocabulary of a real model"
            )
        return found

    def _pairs(self, token: T) -> Iterator[tuple[int, int]]:
        ids = self._ids
        for cut in range(1, len(token)):
            if (left := ids.get(token[:cut])) is not None and (right := ids.get(token[cut:])) is not None:
                yield left, right
