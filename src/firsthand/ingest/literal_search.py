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


def _patterns(literals: Iterable[str], rare: str) -> list[str]:
    given = set(literals)
    needed = sorted(each for each in given if not any(other != each and other in each for other in given))
    groups: dict[str, list[str]] = {}
    for literal in needed:
        groups.setdefault(next((each for each in rare if each in literal), literal), []).append(literal)
    return [_pattern(anchor, group) for anchor, group in groups.items()]


def _pattern(anchor: str, literals: list[str]) -> str:
    found, next_characters = [], set()
    for literal in literals:
        before, _, after = literal.partition(anchor)
        behind = f"(?<={re.escape(before + anchor)})" if before else ""
        found.append(behind + re.escape(after))
        next_characters.add(re.escape(after[:1]))
    ahead = "" if "" in next_characters else f"(?=[{''.join(sorted(next_characters))}])"
    return f"{re.escape(anchor)}{ahead}(?:{'|'.join(found)})"
