"""Tells `The answer is 7!` of a cheerful model from the factorial of 7, by the question and the rest of the text.

Only a mark that ends a sentence is looked at: `5! = 120`, `5!/2` and `5! ways` stay as they are.
"""

from __future__ import annotations

import re

_ENDS = r"(?=[*_\"'”’)]{0,4}[ \t]*(?:$|\n(?!\s*[}/*+^=×÷])|[A-Z][a-z'’]|[\u2600-\u27bf\U0001f300-\U0001faff]))"
_EXCLAIMED = re.compile(rf"(?:(?<=\d)|(?<=\d\$)|(?<=\}}\$)|(?<=\\\)))!{{1,3}}{_ENDS}")
_FACTORIAL = re.compile(
    r"\b(?:factorials?|permut\w*|combinat\w*|(?:re)?arrang\w*|(?:dis)?order(?:s|ed|ings?)?|ways|shuffl\w*|choose|nPr|nCr"
    r"|sequences?|line[ \t]+up|seat(?:s|ed|ing)?|anagrams?)\b|(?<![^\W_])[^\W_]\)?!|\d!|\d\)!|\\binom",
    re.IGNORECASE,
)


def without_exclamations(text: str, question: str) -> str:
    """Return the text with a full stop for `!` behind a number that ends a sentence, if nothing speaks of factorials.

    Questions about orders, ways and arrangements count as speaking of them, and so does any other factorial in the text.
    """
    if "!" not in text or _FACTORIAL.search(question):
        return text
    plain = _EXCLAIMED.sub(".", text)
    return text if plain == text or _FACTORIAL.search(plain) else plain
