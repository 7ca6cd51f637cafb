"""Texts that only the user may read, in an attempt's record, and copies of them: runs of words, codes, a short text whole.

A memory keeps with an item that it copies one, so that the item is known as private in later attempts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from firsthand.message import ERROR, Json
from firsthand.system.normalised_text import normalised_text
from firsthand.system.unspaced_scripts import HAN, KANA, SOUTHERN
from firsthand.tool import MARK_END, mark_of
from firsthand.trace import Call

RUN = 16
"""The least weight of words in a row that count as a copy of a text: four words, or eight Chinese or Japanese characters."""
_WORD, _CHARACTER = 4, 2
"""The weight of a word, and of a Chinese or Japanese character or a number of at most four digits before one.

A blank between such a number and the character makes no difference.
A letter of a southern script weighs 1; a row of such letters between marks is a word as well.
"""
CODE = 5
"""The least characters of a word with a digit that counts as a copy by itself, such as a code or an account number."""
GROUPED = 12
"""The least characters of a code in groups, such as an IBAN or a card's number, that is known without its blanks too."""
MOST_GROUPED = 34
"""The most characters of such a code: those of the longest IBAN."""
SHORT = 4
"""The least letters and digits of a short text that a tool's arguments are compared with."""
_CONSTANTS = {("true",), ("false",), ("null",), ("none",)}
READERS = "readers"
"""Key of a tool call's detail, and of an item's provenance; its value is `user` where only the user may read it."""


_ONE = f"[{HAN}{KANA}]"
_LETTERS = f"(?:(?=[{SOUTHERN}])[^\\W_])+"
_OTHER = f"[^\\W{HAN}{KANA}{SOUTHERN}]+"
_TOKENS = re.compile(rf"({_ONE}|\d{{1,4}}(?=\s?{_ONE}))|({_LETTERS})|[^\W_{HAN}{KANA}{SOUTHERN}]+")
_GROUPS = re.compile("[a-z0-9]+")
_BETWEEN = " -.\u2010\u2011\u2013"


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

    A code ends where a script without blanks begins; with `_` in it, its parts count too. One in groups counts without what
    stands between them.
    """
    plain = _plain(text)
    words = _words(plain)
    found = {*words.runs()}
    if re.search(_LETTERS, plain):
        found.update(_words(plain, by_letter=True).runs())
    codes = (*words.texts, *re.findall(_OTHER, plain))
    found.update(word for word in codes if len(word) >= CODE and re.search(r"\d", word))
    return frozenset(found.union(_grouped(plain)))


def _grouped(plain: str) -> Iterator[str]:
    """The codes that stand in groups, a blank, a point or a hyphen apart, written without those: each group has a digit."""
    groups = [found for found in _GROUPS.finditer(plain) if re.search(r"\d", found[0])]
    for first, group in enumerate(groups):
        joined, end = group[0], group.end()
        for at in range(first + 1, min(len(groups), first + MOST_GROUPED)):
            after = groups[at]
            joined += after[0]
            if after.start() != end + 1 or plain[end] not in _BETWEEN or len(joined) > MOST_GROUPED:
                break
            end = after.end()
            if len(joined) >= GROUPED:
                yield joined


def copies(text: str, private: Iterable[str], said: Sequence[str] = ()) -> str | None:
    """The first private text that a text copies, in words that the user did not say; None if it copies none.

    A text of fewer words than a run is copied where it stands whole, of JSON with one value that value; one of less than
    four letters and digits where it stands letter for letter.
    """
    sent = runs(text).difference(*map(runs, said))
    for each in private:
        if not sent.isdisjoint(runs(each)) or (
            _stands_in(text, each) and not any(_stands_in(own, each) for own in said)
        ):
            return each
    return None


class _Short(NamedTuple):
    """A text of fewer words than a run, as it is looked for in others."""

    text: str
    words: tuple[str, ...]
    is_southern: bool
    """True if letters of a southern script are in it."""

    @property
    def size(self) -> int:
        """Its letters and digits."""
        return len("".join(self.words))

    def stands_in(self, text: str) -> bool:
        """True if it stands in a text as a whole: letter for letter if it is very short, by its words if not."""
        if not self.words:  # signs alone
            return self.text in text
        if self.is_southern:  # no blanks between the words
            return _plain(self.text) in _whole_plain(text)
        if self.size < SHORT and not re.search(_ONE, self.text):
            before = r"(?<!\w)" if self.text[0].isalnum() else ""
            after = r"(?!\w)" if self.text[-1].isalnum() else ""
            return re.search(before + re.escape(self.text) + after, text) is not None
        return f" {' '.join(self.words)} " in _spaced(text)


@lru_cache(maxsize=512)
def _short(private: str) -> _Short | None:
    """A private text of fewer words than a run, of JSON with one value that value; None for others and JSON's constants."""
    text = only_text(private).strip()
    is_southern = re.search(_LETTERS, _plain(text)) is not None
    words = _words(_plain(text), by_letter=is_southern)
    if not text or sum(words.weights) >= RUN or words.texts in _CONSTANTS:
        return None
    return _Short(text, words.texts, is_southern)


def _stands_in(text: str, private: str) -> bool:
    """True if a private text of fewer words than a run stands in a text as a whole."""
    short = _short(private)
    return short is not None and short.stands_in(text)


def copies_short(texts: Iterable[str], private: str, said: Sequence[str] = ()) -> bool:
    """True if one of the texts holds a private text of fewer words than a run, as a whole, and the user did not say it.

    Capitals and marks make no difference. Less than four letters and digits, and JSON's constants, tell too little. Of JSON
    with one value it is that value.
    """
    short = _short(private)
    if short is None or short.size < SHORT:
        return False
    return any(map(short.stands_in, texts)) and not any(map(short.stands_in, said))


@lru_cache(maxsize=64)
def _spaced(text: str) -> str:
    return f" {' '.join(_words(_plain(text)).texts)} "


@lru_cache(maxsize=64)
def _whole_plain(text: str) -> str:
    return _plain(text)


def only_text(result: str) -> str:
    """The one value of a result that is JSON with one, unless it is so short that it tells too little; else the result."""
    try:
        found = _values_in(json.loads(result, parse_int=str, parse_float=str))  # numbers as they are written
    except (ValueError, RecursionError):
        return result
    value = str(found[0]) if len(found) == 1 else ""
    return value if sum(map(str.isalnum, value)) >= SHORT else result


def _values_in(body: Any) -> list[Any]:
    """The values of JSON that are no lists or objects."""
    found, waiting = [], [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        else:
            found.append(value)
    return found


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
