"""Chooses the few-shot examples of each row of a user's own benchmark: the first rows of a table that ask something else.

An example that asks what its item asks would give the answer away, and a table of examples often holds rows of the data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from firsthand.benchmarks.protocols.protocol import Item
from firsthand.errors import ConfigError
from firsthand.system.normalised_text import normalised_text
from firsthand.system.plurals import count_of


def example_pool(examples: Iterable[Item], items: Sequence[Item], shots: int) -> Iterator[Item]:
    """Yields the first examples, as many as leave `shots` for each item without those that may ask the same.

    Which choice of an example is right is not known yet, so each may be.
    """
    asked = {each for item in items for each in _askable(item)}
    repeated: Counter[tuple[str, ...]] = Counter()
    left_out = 0
    for index, example in enumerate(examples):
        yield example
        for each in _askable(example) & asked:
            repeated[each] += 1
            left_out = max(left_out, repeated[each])
        if index + 1 - left_out >= shots:
            return


class ExampleChoice:
    """The examples of each item out of a pool, and how many items have their own question among its first ones."""

    def __init__(self, pool: Sequence[Item], shots: int, table: str) -> None:
        self._pool = [(_asked(example), example) for example in pool]
        self._shots, self._table, self._replaced = shots, table, 0
        self._found: dict[tuple[str, ...] | None, list[Item]] = {}
        self._known = {question for question, _ in self._pool}

    def of(self, item: Item) -> list[Item]:
        """Return the first `shots` examples that ask something else; ConfigError if there are fewer."""
        asked = _asked(item)
        key = asked if asked in self._known else None  # rows of no example's question have the same examples
        if key not in self._found:
            others = (example for question, example in self._pool if question != asked)
            self._found[key] = list(islice(others, self._shots))
        found = self._found[key]
        if len(found) < self._shots:
            raise ConfigError(
                f"shots is {self._shots}, and {self._table} has {count_of(len(found), 'row')} with another question than "
                f"that of {item.id!r:.100}, whose answer it would give away: give more rows, or fewer shots"
            )
        self._replaced += any(question == asked for question, _ in self._pool[: self._shots])
        return found

    def told(self) -> str:
        """Return what the protocol line says of items whose own question was left out; empty if there are none."""
        if not self._replaced:
            return ""
        return f", each without its own question ({count_of(self._replaced, 'row')} had it)"


def _asked(item: Item) -> tuple[str, ...]:
    """An item's question, with the right choice: `Which is true?` is asked of many choices."""
    right = (_words(item.choices[item.gold]),) if item.choices else ()
    return (_words(item.question), *right)


def _askable(item: Item) -> set[tuple[str, ...]]:
    """Each question that an item may ask, whichever of its choices is right."""
    question = _words(item.question)
    return {(question, _words(choice)) for choice in item.choices} or {(question,)}


def _words(text: str) -> str:
    """A text without spacing, which makes no other question; case and punctuation may be what is asked about."""
    return " ".join(normalised_text("NFC", text).split())
