"""Tells which texts a template could make a special token of, by deleting or changing some of their characters.

Published templates remove `/think` or `$`, change case, and write `_` for `-`. None writes the punctuation of special
tokens in place of something else, so a text without that of any is harmless. Special tokens that are plain words are not
looked at here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ControlMarks:
    """The punctuation of special tokens: `<`, `|` and `>` of `<|im_end|>`."""

    def __init__(self, specials: Iterable[str]) -> None:
        sets = {frozenset(filter(_is_mark, text)) for text in specials} - {frozenset()}
        self._sets = [marks for marks in sets if not any(other < marks for other in sets)]
        self._tamed = str.maketrans(dict.fromkeys(frozenset().union(*self._sets), "x"))

    def may_forge(self, text: str) -> bool:
        """Returns whether a text has all the punctuation of some special token."""
        return any(all(mark in text for mark in marks) for marks in self._sets)

    def tamed(self, value: Any) -> Any:
        """Returns plain data with an `x` for each such character in its strings and keys: as long, and harmless."""
        match value:
            case str():
                return value.translate(self._tamed)
            case dict():
                return {self.tamed(key): self.tamed(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.tamed(inner) for inner in value]
            case _:
                return value


def _is_mark(character: str) -> bool:
    return not (character.isalnum() or character.isspace() or character in "_-.")
