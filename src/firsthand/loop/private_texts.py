"""Texts that only the user may read, in an attempt's record, and copies of them: runs of words, codes, a short text whole.

A memory keeps with an item that it copies one, so that the item is known as private in later attempts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from firsthand.message import ERROR, Json
from firsthand.system.normalised_text import normalised_text
from firsthand.system.unspaced_scripts import HAN, KANA, SOUTHERN
from firsthand.tool import MARK_END, mark_of
from firsthand.trace import Call

RUN = 16
"""The least weight of words in a row that count as a copy of a text: four words, or eight Chinese or Japanese characters."""
_WORD, _CHARACTER = 4, 2
"""The weight of a word, and of a Chinese or Japanese character or a number of at most four digits before one.

A letter of a southern script weighs 1; a row of such letters between marks is a word as well.
"""
CODE = 5
"""The least characters of a word with a digit that counts as a copy by itself, such as a code or an account number."""
SHORT = 4
"""A text of fewer words between blanks counts as copied where the whole of it stands."""
_CONSTANTS = {("true",), ("false",), ("null",), ("none",)}
READERS = "readers"
"""Key of a tool call's detail, and of an item's provenance; its value is `user` where only the user may read it."""


_ONE = f"[{HAN}{KANA}]"
_LETTERS = f"(?:(?=[{SOUTHERN}])[^\\W_])+"
_OTHER = f"[^\\W{HAN}{KANA}{SOUTHERN}]+"
_TOKENS = re.compile(rf"({_ONE}|\d{{1,4}}(?={_ONE}))|({_LETTERS})|[^\W_{HAN}{KANA}{SOUTHERN}]+")


class _Words(NamedTuple):
    """The words of a text."""

    texts: tuple[str, ...]
    weights: tuple[int, ...]

    def runs(self) -> Iterator[str]:
        """From each word on, the fewest words that have the weight of a run."""
        sums = [0, *accumulate(self.weights)]
        end = 0
        for at, before in enumerate(sums):
            while end < len(sums) and sums[end] - before < RUN:
                end += 1
            if end == len(sums):
                return
            yield " ".join(self.texts[at:end])


def _plain(text: str) -> str:
    """The text in lower case, full-width characters and such as the usual ones."""
    return normalised_text("NFKC", text).casefold()


def _words(plain: str, *, by_letter: bool = False) -> _Words:
    """The words of such a text, and the characters of scripts without blanks; southern letters one by one, or in rows."""
    texts: list[str] = []
    weights: list[int] = []
    for found in _TOKENS.finditer(plain):
        if by_letter and found[2]:
            texts += found[0]
            weights += [1] * len(found[0])
        else:
            texts.append(found[0])
            weights.append(_CHARACTER if found[1] else _WORD)
    return _Words(tuple(texts), tuple(weights))


@lru_cache(maxsize=512)
def runs(text: str) -> frozenset[str]:
    """The runs of words of a text, and its codes: words of at least `CODE` characters that hold a digit.

    A code ends where a script without blanks begins; with `_` in it, its parts count too.
    """
    plain = _plain(text)
    words = _words(plain)
    found = {*words.runs()}
    if re.search(_LETTERS, plain):
        found.update(_words(plain, by_letter=True).runs())
    codes = (*words.texts, *re.findall(_OTHER, plain))
    return frozenset(found | {word for word in codes if len(word) >= CODE and re.search(r"\d", word)})


def copies(text: str, private: Iterable[str], said: Sequence[str] = ()) -> str | None:
    """The first private text that a text copies, in words that the user did not say; None if it copies none."""
    sent = runs(text).difference(*map(runs, said))
    for each in private:
        short = 0 < len(each.split()) < SHORT and each.strip() in text
        if short or not sent.isdisjoint(runs(each)):
            return each
    return None


def copies_short(texts: Iterable[str], private: str, said: Sequence[str] = ()) -> bool:
    """True if one of the texts holds a private text of fewer words than a run, as a whole, and the user did not say it.

    Capitals and marks make no difference. Less than four letters and digits, and JSON's constants, tell too little.
    """
    words = _words(_plain(private))
    if sum(words.weights) >= RUN or len("".join(words.texts)) < SHORT or words.texts in _CONSTANTS:
        return False
    return any(_holds(text, words.texts) for text in texts) and not any(_holds(text, words.texts) for text in said)


def _holds(text: str, words: tuple[str, ...]) -> bool:
    """True if the words stand in a text in a row."""
    given = _words(_plain(text)).texts
    return any(given[at : at + len(words)] == words for at in range(len(given) - len(words) + 1))


def private_texts(calls: Iterable[Call]) -> list[str]:
    """Returns the private texts of these calls: results of private tools, and memory items that copy one."""
    found: list[str] = []
    for call in calls:
        detail = call.detail
        if call.kind == "tool" and detail.get(READERS) == "user" and not detail.get("is_error") and "result" in detail:
            found.append(plain_result(detail))
            if "plain" in detail:  # what was copied may have the marks that the model saw
                found.append(unmarked(str(detail["result"]), detail.get("origin")))
        elif call.kind == "memory" and detail["operation"] == "recall":
            items = detail.get("reply") or ()
            found += [str(each["text"]) for each in items if each.get("provenance", {}).get(READERS) == "user"]
    return found


def plain_result(detail: Json) -> str:
    """The result in a tool call's record as guards left it, without marks of its origin or between its words."""
    plain = detail.get("plain")
    return unmarked(str(detail.get("result", "")), detail.get("origin")) if plain is None else str(plain)


def unmarked(text: str, origin: str | None) -> str:
    """A result or an error without the marks of its origin."""
    if origin is None:
        return text
    head, mark, rest = text.partition(mark_of(origin))
    return f"{head}{rest.removesuffix(MARK_END)}" if mark and head in ("", ERROR) else text
