"""Reads objects that say a name and its value, as headers, variables and parameters are written:
`{"key": "Authorization", "values": ["..."]}`.
"""

from __future__ import annotations

from collections.abc import Callable

from firsthand.message import Json

_BEFORE = ("", "header", "field", "parameter", "variable")


def _spelled(*nouns: str) -> tuple[str, ...]:
    """The nouns alone and behind a word, in the ways in which programs join them."""
    found = []
    for noun in nouns:
        for before in _BEFORE:
            both = (before + noun.title(), before.title() + noun.title(), f"{before}_{noun}") if before else ()
            found += [*both] if before else [noun, noun.title(), noun.upper()]
    return tuple(found)


NAMES = frozenset((*_spelled("name", "key"), *(each for word in _BEFORE[1:] for each in (word, word.title())), "k"))
VALUES = frozenset((*_spelled("value", "values"), "val", "v"))


def pair_name(held: Json, is_secret: Callable[[str], bool]) -> str | None:
    """The secret name that an object gives to its own value; None if it gives none."""
    if VALUES.isdisjoint(held):
        return None
    for key, name in held.items():
        if key in NAMES and isinstance(name, str) and is_secret(name):
            return name
    return None
