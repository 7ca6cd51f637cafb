"""Query, Hit and Retriever: the one function type that every search and every combinator shares.

A Retriever is a plain async function from (Query, k) to at most k hits, best first. Combinators take retrievers and return
a retriever, so a RAG variant is a composition of calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from firsthand.retrieval.chunk import Chunk

Filter = Mapping[str, Any]
"""Conditions that all hold, on a chunk's `meta`, or on "document", "source" or "title".

A value is compared with ==; a list matches any of its items; {"min": a, "max": b} is a closed range, of which either end may
be missing; {"not": value} excludes. A chunk without the field matches no condition but "not".
"""


@dataclass(frozen=True)
class Query:
    """The text to search for, and the chunks to search in."""

    text: str
    where: Filter = field(default_factory=dict)
    vectors: tuple[tuple[float, ...], ...] = ()
    """Vectors to search with in place of the text's own, such as HyDE's mean; empty: the text is embedded."""
    written: dict[str, list[str]] | None = field(default=None, compare=False, repr=False)
    """Texts that a model wrote for it, by prompt, where it is asked several times for one list of hits; None: not kept."""


@dataclass(frozen=True)
class TrailStep:
    """The rank and score that one retriever gave a hit."""

    retriever: str
    rank: int
    """From 1."""
    score: float


@dataclass(frozen=True)
class Hit:
    """A chunk that was found."""

    chunk: Chunk
    score: float
    """Higher is better; scores of different retrievers are not comparable."""
    trail: tuple[TrailStep, ...] = ()
    """The retrievers that found it, in the order they ran."""
    found_as: str = ""
    """The chunk's id in the index, where a guard has replaced its text or its document's name since; else empty."""

    @property
    def id(self) -> str:
        """The chunk's id in the index, by which it is asked for there."""
        return self.found_as or self.chunk.id


Retriever = Callable[[Query, int], Awaitable[Sequence[Hit]]]
