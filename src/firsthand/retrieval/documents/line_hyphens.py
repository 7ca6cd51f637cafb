"""Joins words that were divided at the end of a line, and keeps the hyphens of compounds and names such as COVID-19.

A page does not say which is which. What else the document writes decides first, then digits, capitals and hyphens
beside the place. A word of which nothing is known is joined. There is no dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

DIVIDED = "\ufffe"
"""Stands in the text for a hyphen at the end of a line and the line break behind it."""
_ACCENTS = "\u0300-\u036f\u00a8\u00b4\u00b8\u02d8-\u02dd"
"""Many PDFs of LaTeX write them beside their letters: mo¨g-lich."""
_WORD = re.compile(rf"(?:[^\W_]|[{_ACCENTS}])+(?:[-'’](?:[^\W_]|[{_ACCENTS}])+)*")
_CONJUNCTIONS = frozenset({"and", "or", "und", "oder", "sowie", "bzw"})
_MIN_COMPOUND_CHARS = 4
"""Shorter first parts of a compound are also ordinary prefixes: in-form, for-ward, how-ever."""
_NEVER_COMPOUND = frozenset({"else", "every", "over", "some", "there", "under", "what", "when", "where", "with"})
"""First parts of English words that are written as one: with-out, some-thing, under-stand."""


def join_divided_words(pages: Sequence[str]) -> list[str]:
    """The pages, each `DIVIDED` replaced by nothing, by a hyphen, or by a hyphen and a line break."""
    if not any(DIVIDED in page for page in pages):
        return list(pages)
    words = _Words(pages)
    joined = []
    for page in pages:
        parts = page.split(DIVIDED)
        made = parts[:1]
        for before, after in pairwise(parts):
            made += words.between(_last_word(before), _first_word(after)), after
        joined.append("".join(made))
    return joined


class _Words:
    """The words of a document that are not divided, as written and in lower case."""

    def __init__(self, pages: Iterable[str]) -> None:
        whole = {word for page in pages for word in page.split() if DIVIDED not in word}
        self.written = set(_WORD.findall(" ".join(whole)))
        self.lower = {word.lower() for word in self.written}

    def between(self, before: str, after: str) -> str:
        """The text between the two halves of a word that was divided behind a hyphen."""
        if not before or not after or after[0].isdigit() or any(char.isdigit() for char in before):
            return "-"
        if f"{before}-{after}".lower() in self.lower:
            return "-"
        inner = before.rpartition("-")[2] + after.partition("-")[0]
        if (before + after).lower() in self.lower or inner.lower() in self.lower:
            return ""
        if after in _CONJUNCTIONS:
            return "-\n"  # short- and long-term
        if len(before) == 1 or before[-1].isupper() or after[0].isupper() or "-" in before or "-" in after:
            return "-"
        if len(before) < _MIN_COMPOUND_CHARS or before.lower() in _NEVER_COMPOUND:
            return ""
        return "-" if before in self.written and after in self.written else ""


def _last_word(text: str) -> str:
    """The word at the end, without what stands before it; empty if there is none."""
    found = _WORD.findall(text.rsplit(None, 1)[-1]) if text.strip() else []
    return found[-1] if found else ""


def _first_word(text: str) -> str:
    found = _WORD.match(text)
    return found[0] if found else ""
