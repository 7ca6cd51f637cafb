"""A DistributionModel of a few words, whose next-token probabilities are written in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from firsthand.model import ModelFacts, TokenRating


class Worded:
    """Prompts and answers are words; `table` has the probabilities of the words after a text, by the text's last words."""

    name = "worded"

    def __init__(
        self, words: Sequence[str], table: Mapping[str, Mapping[str, float]], context: int, end: str = "<end>"
    ):
        self.words, self.table, self.context = list(words), table, context
        self.end_ids = (self.words.index(end),)
        self.asked: list[str] = []

    async def load(self) -> ModelFacts:
        return ModelFacts(self.context, len(self.words), "none", False, "", {})

    async def tokenize(self, prompt: Any) -> list[int]:
        return [self.words.index(word) for word in str(prompt).split()]

    async def tokenize_marked(self, prompt: str, marks: Sequence[str]) -> list[int]:
        return await self.tokenize(prompt)

    def token_id(self, word: str) -> int | None:
        return self.words.index(word) if word in self.words else None

    async def next_logprobs(self, ids: Sequence[int]) -> Any:
        text = " ".join(self.words[id] for id in ids)
        self.asked.append(text)
        shares = self.table[text]
        return np.array([math.log(shares[word]) if word in shares else -np.inf for word in self.words])

    async def rate(self, ids: Sequence[int]) -> list[TokenRating]:
        found = []
        for place, id in enumerate(ids[1:], 1):
            before = " ".join(self.words[each] for each in ids[:place])
            share = self.table.get(before, {}).get(self.words[id], 0.0)
            found.append(TokenRating(id, math.log(share) if share else -math.inf, ()))
        return found

    async def detokenize(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[id] for id in ids)

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        return [self.words[id].encode() for id in ids]
