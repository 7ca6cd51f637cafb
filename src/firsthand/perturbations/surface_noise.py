"""Perturbations of form: typos, case, spacing and contractions. The meaning stays, and so does the right answer."""

from __future__ import annotations

import re
from random import Random

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
TYPO_RATE = 0.05
"""The part of letters that a neighbouring key replaces, as in HELM's core scenarios."""
SPACE_RATE = 0.1
CONTRACTIONS = {
    "are not": "aren't", "cannot": "can't", "could not": "couldn't", "did not": "didn't", "does not": "doesn't",
    "do not": "don't", "had not": "hadn't", "has not": "hasn't", "have not": "haven't", "he is": "he's", "how is": "how's",
    "i am": "I'm", "i have": "I've", "i will": "I'll", "i would": "I'd", "is not": "isn't", "it is": "it's",
    "should not": "shouldn't", "she is": "she's", "that is": "that's", "there is": "there's", "they are": "they're",
    "they have": "they've", "was not": "wasn't", "we are": "we're", "we have": "we've", "were not": "weren't",
    "what is": "what's", "where is": "where's", "who is": "who's", "will not": "won't", "would not": "wouldn't",
    "you are": "you're", "you have": "you've", "you will": "you'll",
}  # fmt: skip
_CONTRACT = re.compile(r"\b(" + "|".join(CONTRACTIONS) + r")\b", re.IGNORECASE)
_EXPANSIONS = {short.casefold(): full for full, short in CONTRACTIONS.items()}
_EXPAND = re.compile(r"\b(" + "|".join(map(re.escape, _EXPANSIONS)) + r")\b", re.IGNORECASE)
_NEAR = {
    key: [
        other
        for other_row, line in enumerate(KEYS)
        for other_place, other in enumerate(line)
        if other != key and abs(other_row - row) <= 1 and abs(other_place - place) <= 1
    ]
    for row, keys in enumerate(KEYS)
    for place, key in enumerate(keys)
}


def typos(text: str, rng: Random) -> str:
    """Each letter is replaced by a key beside it with probability `TYPO_RATE`; digits stay."""
    made = []
    for char in text:
        near = _NEAR.get(char.lower())
        if near is not None and rng.random() < TYPO_RATE:
            other = rng.choice(near)
            made.append(other.upper() if char.isupper() else other)
        else:
            made.append(char)
    return "".join(made)


def lowercase(text: str, rng: Random) -> str:
    """All letters in lower case."""
    return text.lower()


def spacing(text: str, rng: Random) -> str:
    """Each run of spaces becomes one to three of them, and a tenth of line breaks a space more."""
    spaced = re.sub(r" +", lambda found: " " * rng.randint(1, 3), text)
    return re.sub(r"\n", lambda found: " \n" if rng.random() < SPACE_RATE else "\n", spaced)


def contractions(text: str, rng: Random) -> str:
    """`do not` becomes `don't`, and where there is nothing to contract, `don't` becomes `do not`."""
    contracted = _CONTRACT.sub(lambda found: cased(CONTRACTIONS[found.group().casefold()], found.group()), text)
    if contracted != text:
        return contracted
    return _EXPAND.sub(lambda found: cased(_EXPANSIONS[found.group().casefold()], found.group()), text)


def cased(new: str, old: str) -> str:
    """The new word with the case of the old one: upper, capitalised, or as it is."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new
