"""Finds the places where a document states a fact as whole words, and puts another one there.

The places are those at which `scorers/whole_words.py` would find the words in an answer: 18 does not stand in 118 or 1.18.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from firsthand.scorers.whole_words import has_words

AROUND = 300
"""Characters on each side that show if words are whole."""
_BEFORE, _AFTER = re.compile(r"(\w+)\W{0,3}$"), re.compile(r"\W{0,3}(\w+)")
_DECIMAL, _NOUGHTS, _MORE_NOUGHTS = re.compile(r"\d\.\d+$"), re.compile(r"\.0+(?!\d)"), re.compile(r"0+(?!\d)")


def places(text: str, fact: str) -> Iterator[tuple[int, int]]:
    """Begin and end of the fact, each time that it stands in the text to the letter and as whole words.

    The noughts behind a number are part of it: 18 stands as 18.00 too.
    """
    others = re.compile(re.escape(fact), re.IGNORECASE)
    at = text.find(fact) if fact else -1
    while at >= 0:
        end = at + len(fact)
        before, after = text[max(0, at - AROUND) : at], text[end : end + AROUND]
        before, after = (others.sub(lambda found: _another(found[0]), side) for side in (before, after))
        if has_words(before + fact + after, fact) and not has_words(before + _another(fact) + after, fact):
            noughts = (_MORE_NOUGHTS if _DECIMAL.search(fact) else _NOUGHTS).match(text, end)
            end = noughts.end() if noughts and fact[-1].isdigit() else end
            yield at, end
        at = text.find(fact, end)


def _another(fact: str) -> str:
    """Another text of the same letters' and digits' kinds, so that it ends words where the fact does."""
    letter = "z" if "q" in fact.lower() else "q"
    return "".join(
        str((int(each) + 1) % 10) if each.isdecimal() else letter if each.isalpha() else each for each in fact
    )


def restated(text: str, fact: str, new: str) -> str:
    """The text with another fact at each of the places."""
    made, done = [], 0
    for at, end in places(text, fact):
        made += [text[done:at], new]
        done = end
    return "".join([*made, text[done:]])


def can_be_restated(text: str, fact: str, question: str) -> bool:
    """True if the text states the fact, and never as part of a name that the question has too.

    A name is the fact with the word before or behind it: with `Club 18` in the question, 18 names what is asked about.
    """
    found = False
    for at, end in places(text, fact):
        before, after = _BEFORE.search(text[max(0, at - 60) : at]), _AFTER.match(text, end)
        names = [f"{before[1]} {fact}"] if before else []
        names += [f"{fact} {after[1]}"] if after else []
        if any(has_words(question, name) for name in names):
            return False
        found = True
    return found
