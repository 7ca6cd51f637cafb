"""Asks a retriever again, for other hits or for more of them, until a choice among them has kept enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from firsthand.errors import ConfigError
from firsthand.retrieval.retriever import Filter, Hit, Query, Retriever


class Choice(NamedTuple):
    """The hits that were kept, best first, and a filter that leaves out what can give no further one.

    The filter is empty where nothing is known to be full, or no filter can say it.
    """

    kept: list[Hit]
    others: Filter


Choose = Callable[[Sequence[Hit]], Awaitable[Choice]]
"""Chooses among all hits that were found so far."""


async def enough(retriever: Retriever, query: Query, k: int, *, pool: int, choose: Choose) -> list[Hit]:
    """The hits that are kept of `pool` (of k if that is more), and of further ones until k are kept or none is left.

    First those are asked for that the choice's filter lets through, which is one search for each time that more is full,
    however many hits that takes. Where the filter brings nothing new, twice as many are asked for. A hit of a later search
    has no higher score than those before it: fused scores of two searches are not comparable.
    """
    if query.written is None:
        query = replace(query, written={})
    many, is_doubled = max(pool, k), False
    hits: list[Hit] = []
    others: Filter = {}
    choice = Choice([], others)
    while True:
        found = await _searched(retriever, query, others, many)
        known = {hit.id for hit in hits}
        lowest = min((hit.score for hit in hits), default=float("inf"))
        fresh = [replace(hit, score=min(hit.score, lowest)) for hit in found if hit.id not in known]
        if fresh:
            hits += fresh
            choice = await choose(hits)
        if len(choice.kept) >= k or 2 * len(found) < many or (is_doubled and not fresh):
            return choice.kept  # a few hits less than were asked for may be withheld by a guard, or joined to windows
        before, others = others, {field: each for field, each in choice.others.items() if field not in query.where}
        if is_doubled := others == before:
            many *= 2


async def _searched(retriever: Retriever, query: Query, others: Filter, k: int) -> Sequence[Hit]:
    """The hits that a filter lets through; all hits where the retriever has one of its own on the same field."""
    if not others:
        return await retriever(query, k)
    try:
        return await retriever(replace(query, where={**query.where, **others}), k)
    except ConfigError:
        return await retriever(query, k)
