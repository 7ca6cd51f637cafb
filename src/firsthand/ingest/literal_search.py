"""Finds out whether a text contains one of many literals, in a few passes instead of one for each.

Python's `re` skips to the first character of a pattern as fast as `in` does. So literals are grouped by a character that is
rare in texts, and each group is one pattern: that character, with the rest of each literal looked for before and after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def literal_search(literals: Iterable[str], rare: str) -> Callable[[str], bool]:
    """A function that is true for exactly the texts that contain one of the literals.

    `rare` are the characters to group by, the preferred ones first; a literal without any of them is a group of its own.
    """
    searches = [re.compile(pattern).search for pattern in _patterns(literals, rare)]

    def contains(text: str) -> bool:
        for search in searches:  # noqa: SIM110  `any` takes longer
            if search(text):
                return True
        return False

    return contains


def literal_search_in_bytes(literals: Iterable[str], rare: str) -> Callable[[bytes], bool]:
    """The same for texts in UTF-8."""
    searches = [re.compile(pattern.encode()).search for pattern in _patterns(literals, rare)]
    return lambda raw: any(search(raw) for search in searches)


def literals_within(literals: Iterable[str], rare: str) -> Callable[[str], frozenset[str]]:
    """A function that returns the literals that a text contains.

    A literal that contains another one is left out: look for the other one.
    """
    groups = _groups(literals, rare)
    searches = [(re.compile(_pattern(anchor, group)).search, anchor, group) for anchor, group in groups.items()]

    def within(text: str) -> frozenset[str]:
        found: set[str] = set()
        for search, anchor, group in searches:
            match, number = search(text), 0
            while match is not None:
                at, number = match.start(), number + 1
                if number > _MOST:
                    found.update(each for each in group if each in text)
                    break
                found.update(each for each in group if text.startswith(each, at - each.index(anchor)))
                match = search(text, at + 1)
        return frozenset(found)

    return within


_MOST = 64
"""Places of a text at which a group's literals are told apart; with more, each is looked for."""


def _patterns(literals: Iterable[str], rare: str) -> list[str]:
    return [_pattern(anchor, group) for anchor, group in _groups(literals, rare).items()]


def shortest_of(literals: Iterable[str]) -> list[str]:
    """The literals that contain no other one, sorted."""
    given = set(literals)
    return sorted(each for each in given if not any(other != each and other in each for other in given))


def _groups(literals: Iterable[str], rare: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for literal in shortest_of(literals):
        groups.setdefault(next((each for each in rare if each in literal), literal), []).append(literal)
    return groups


def _pattern(anchor: str, literals: list[str]) -> str:
    found: dict[str, list[str]] = {}
    next_characters = set()
    for literal in literals:
        before, _, after = literal.partition(anchor)
        behind = f"(?<={re.escape(before + anchor)})" if before else ""
        found.setdefault(before[-1:], []).append(behind + re.escape(after))
        next_characters.add(re.escape(after[:1]))
    ahead = "" if "" in next_characters else f"(?=[{''.join(sorted(next_characters))}])"
    return f"{re.escape(anchor)}{ahead}(?:{'|'.join(_of_one(last, anchor, group) for last, group in found.items())})"


def _of_one(last: str, anchor: str, patterns: list[str]) -> str:
    """The patterns of literals with one character before the anchor; that one is looked at once for three or more."""
    either = "|".join(patterns)
    return f"(?<={re.escape(last + anchor)})(?:{either})" if last and len(patterns) > 2 else either
