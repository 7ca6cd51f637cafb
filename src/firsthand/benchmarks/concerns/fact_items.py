"""Two-option facts in a seeded order, shared by the benchmarks that ask them under several conditions."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple, get_args

from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed


class FactItem(NamedTuple):
    """A question with two options; `options` are both in the order in which they are shown."""

    question: str
    right: str
    wrong: str
    options: tuple[str, str]

    @property
    def asked(self) -> str:
        """The question with both options, in words."""
        return f"{self.question} {self.options[0]} or {self.options[1]}?"

    @property
    def gold(self) -> int:
        """The index of the right option."""
        return self.options.index(self.right)


Half = Literal["both", "first", "second"]


def fact_items(name: str, seed: int, count: int, *, half: Half = "both") -> list[FactItem]:
    """Return `count` different facts in the order that the seed gives the benchmark `name`; the order of options is drawn.

    Either half is the same facts at every seed, so that one can be trained on and the other measured. ConfigError unless
    1 <= count <= the number of facts there.
    """
    if half not in (known_halves := get_args(Half)):
        raise ConfigError(f"half is {half!r}: expected one of {', '.join(known_halves)}")
    known = _facts() if half == "both" else _facts()[half == "second" :: 2]
    if not 1 <= count <= len(known):
        raise ConfigError(f"tasks is {count}: give 1 to {len(known)}, the number of facts")
    rng = Random(derive_seed(name, seed))
    items = []
    for question, right, wrong in rng.sample(known, count):
        options = (right, wrong) if rng.random() < 0.5 else (wrong, right)
        items.append(FactItem(question, right, wrong, options))
    return items


@cache
def _facts() -> tuple[tuple[str, str, str], ...]:
    text = (Path(__file__).parent / "facts.toml").read_text(encoding="utf-8")
    return tuple((question, right, wrong) for question, right, wrong in tomllib.loads(text)["facts"])
