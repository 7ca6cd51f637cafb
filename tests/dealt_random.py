"""A source of chance whose draws are given beforehand."""

from __future__ import annotations

from random import Random
from typing import Any


class Dealt(Random):
    """Draws the next of a fixed list of places, a sample backwards from its place, and keeps what it drew from."""

    def __init__(self, *places: int) -> None:
        super().__init__(0)
        self.places, self.asked = list(places), list[Any]()

    def choice(self, seq: Any) -> Any:
        return seq[self.places.pop(0) % len(seq)]

    def randint(self, a: int, b: int) -> int:
        self.asked.append((a, b))
        return a + self.places.pop(0)

    def sample(self, population: Any, k: int, **more: Any) -> list[Any]:
        self.asked.append((len(population), k))
        first = self.places.pop(0)
        return list(population)[first : first + k][::-1]
