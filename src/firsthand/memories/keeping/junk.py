"""Measures how much of a memory is junk: what nobody said, what is there twice, what the model fed to itself.

The measure answers an audit of a public store, of whose 10,134 memories 97.8 % were junk, 668 of them copies of one
hallucination that was recalled and stored again (mem0ai/mem0#4573). Facts are compared by subject, attribute and value, or
by their text where they have none, letter case, punctuation and spaces aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from firsthand.memories.keeping.fenced_items import ORIGIN
from firsthand.memory import MemoryItem

_WORD = re.compile(r"\w+")


class Junk(NamedTuple):
    """The figures of a memory against the facts that were told."""

    items: int
    """Items that can be found, those for reading by id and raw messages aside."""
    precision: float
    """Share of the items that state a fact that was told; 1 for an empty memory."""
    recall: float
    """Share of the told facts that some item states; 1 if none was told."""
    duplicates: float
    """Share of the items that state what an earlier one states."""
    self_fed: float
    """Share of the items that repeat an earlier one and come from the model's own words or from what the memory showed."""
    junk: float
    """Share of the items that are not the first to state a fact that was told."""


def junk_in(items: Iterable[MemoryItem], told: Iterable[Mapping[str, Any]]) -> Junk:
    """The figures of items, in the order in which they were written, against the facts that were told.

    A told fact has `subject`, `attribute`, `value` and perhaps `withdrawn`, or a `text`; lines of
    `firsthand memory export` are told facts too.
    """
    facts = {_stated(fact.get("provenance", fact), str(fact.get("text", ""))) for fact in told}
    kept = [item for item in items if not item.provenance.get("hidden") and item.provenance.get("store") != "recall"]
    kept.sort(key=lambda item: _is_own(item))  # what was told comes before the model's repetition of it
    seen: set[tuple[str, ...]] = set()
    right = doubles = fed = 0
    for item in kept:
        stated = _stated(item.provenance, item.text)
        right += stated in facts
        if stated in seen:
            doubles += 1
            fed += _is_own(item)
        seen.add(stated)
    count = max(1, len(kept))
    first = len(seen & facts)
    return Junk(
        len(kept),
        right / count if kept else 1.0,
        first / len(facts) if facts else 1.0,
        doubles / count,
        fed / count,
        1 - first / count if kept else 0.0,
    )


def _is_own(item: MemoryItem) -> bool:
    """True if the item comes from the model's words, or from what a memory showed."""
    origin = item.provenance.get("origin") or []
    named = origin if isinstance(origin, list) else [origin]
    return item.provenance.get("role") == "assistant" or ORIGIN in named


def _stated(fact: Mapping[str, Any], text: str) -> tuple[str, ...]:
    """The words that two statements of one fact share."""
    if fact.get("subject") and fact.get("attribute"):
        named = [fact["subject"], fact["attribute"], fact.get("value", ""), str(bool(fact.get("withdrawn", False)))]
        return tuple(" ".join(_WORD.findall(str(each).casefold())) for each in named)
    return (" ".join(_WORD.findall(text.casefold())),)
