"""Texts that only the user may read, in an attempt's record, and copies of them: runs of words, codes, a short text whole.

A memory keeps with an item that it copies one, so that the item is known as private in later attempts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from firsthand.message import ERROR, Json
from firsthand.tool import MARK_END, mark_of
from firsthand.trace import Call

RUN = 4
"""Words in a row that count as a copy of a text."""
CODE = 5
"""The least characters of a word with a digit that counts as a copy by itself, such as a code or an account number."""
READERS = "readers"
"""Key of a tool call's detail, and of an item's provenance; its value is `user` where only the user may read it."""


@lru_cache(maxsize=512)
def runs(text: str) -> frozenset[str]:
    """The runs of `RUN` words of a text, and its codes: words of at least `CODE` characters that hold a digit."""
    words = re.findall(r"\w+", text.casefold())
    found = {" ".join(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}
    return frozenset(found | {word for word in words if len(word) >= CODE and re.search(r"\d", word)})


def copies(text: str, private: Iterable[str], said: Sequence[str] = ()) -> str | None:
    """The first private text that a text copies, in words that the user did not say; None if it copies none."""
    sent = runs(text).difference(*map(runs, said))
    for each in private:
        short = 0 < len(each.split()) < RUN and each.strip() in text
        if short or not sent.isdisjoint(runs(each)):
            return each
    return None


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
