"""Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): s(d) = sum over rankings r of w_r / (k + rank_r(d)).

Ranks count from 1 and k is 60. Equal scores are ordered by the best single rank, then by chunk id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from firsthand.errors import ConfigError
from firsthand.retrieval.retriever import Hit, Query, Retriever, TrailStep


def fuse(
    *retrievers: Retriever, constant: float = 60.0, weights: Sequence[float] | None = None, pool: int = 100
) -> Retriever:
    """Asks each retriever for `pool` hits (`k` if that is more), one after the other, and fuses their rankings."""
    weights = [1.0] * len(retrievers) if weights is None else list(weights)
    if not retrievers or len(weights) != len(retrievers):
        raise ConfigError(f"fuse has {len(retrievers)} retrievers and {len(weights)} weights: give one weight for each")

    async def found(query: Query, k: int) -> Sequence[Hit]:
        rankings = [await retriever(query, max(pool, k)) for retriever in retrievers]
        return reciprocal_rank_fusion(rankings, constant=constant, weights=weights)[:k]

    return found


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[Hit]], *, constant: float = 60.0, weights: Sequence[float] | None = None
) -> list[Hit]:
    """The hits of all rankings, each chunk once, by fused score. A trail keeps the steps of every ranking it is in.

    A chunk that a ranking holds twice counts at its first rank. ConfigError for a weight or constant that is
    negative, infinite or NaN.
    """
    weights = [1.0] * len(rankings) if weights is None else weights
    if any(not 0 <= number < float("inf") for number in (constant, *weights)):
        raise ConfigError(f"the constant is {constant} and the weights are {list(weights)}: give numbers of 0 or more")
    scores: dict[str, float] = {}
    best_rank: dict[str, int] = {}
    hits: dict[str, Hit] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        seen: set[str] = set()
        for rank, hit in enumerate(ranking, 1):
            id = hit.chunk.id
            if id in seen:
                continue
            seen.add(id)
            scores[id] = scores.get(id, 0.0) + weight / (constant + rank)
            best_rank[id] = min(rank, best_rank.get(id, rank))
            known = hits.get(id)
            hits[id] = hit if known is None else replace(known, trail=(*known.trail, *hit.trail))
    order = sorted(hits, key=lambda id: (-scores[id], best_rank[id], id))
    return [
        replace(hits[id], score=scores[id], trail=(*hits[id].trail, TrailStep("rrf", rank, scores[id])))
        for rank, id in enumerate(order, 1)
    ]
