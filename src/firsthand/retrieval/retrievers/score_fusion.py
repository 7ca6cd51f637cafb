"""Convex combination of scores (Bruch, Gai and Ingber, 2023): the sum over rankings of weight * (score - min) / (max - min).

Unlike reciprocal rank fusion it keeps how far apart scores are. Each ranking is scaled by its own best and worst hit, and a
hit that a ranking does not have counts 0 there. Equal scores are ordered by the best single rank, then by chunk id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from firsthand.errors import ConfigError
from firsthand.retrieval.retriever import Hit, Query, Retriever, TrailStep


def fuse_scores(*retrievers: Retriever, weights: Sequence[float], pool: int = 100) -> Retriever:
    """Asks each retriever for `pool` hits (`k` if that is more), one after the other, and combines their scaled scores."""
    if not retrievers or len(weights) != len(retrievers):
        raise ConfigError(
            f"{len(retrievers)} retrievers and {len(weights)} weights were given: give one weight for each"
        )

    async def found(query: Query, k: int) -> Sequence[Hit]:
        rankings = [await retriever(query, max(pool, k)) for retriever in retrievers]
        return convex_combination(rankings, weights)[:k]

    return found


def convex_combination(rankings: Sequence[Sequence[Hit]], weights: Sequence[float]) -> list[Hit]:
    """The hits of all rankings, each chunk once, by combined score. A trail keeps the steps of every ranking it is in.

    A ranking whose scores are all equal gives each of its hits its whole weight. ConfigError for a weight that is negative,
    infinite or NaN, and for scores that are, or that are too far apart to be subtracted.
    """
    if any(not 0 <= weight < math.inf for weight in weights):
        raise ConfigError(f"the weights are {list(weights)}: give numbers of 0 or more")
    scores: dict[str, float] = {}
    best_rank: dict[str, int] = {}
    hits: dict[str, Hit] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        worst = min((hit.score for hit in ranking), default=0.0)
        span = max((hit.score for hit in ranking), default=0.0) - worst
        if not all(math.isfinite(number) for number in (span, *(hit.score for hit in ranking))):
            raise ConfigError(
                "a ranking has scores that are infinite or no numbers: fuse it by rank, or mend its scores"
            )
        seen: set[str] = set()
        for rank, hit in enumerate(ranking, 1):
            id = hit.chunk.id
            if id in seen:
                continue
            seen.add(id)
            scores[id] = scores.get(id, 0.0) + weight * ((hit.score - worst) / span if span else 1.0)
            best_rank[id] = min(rank, best_rank.get(id, rank))
            known = hits.get(id)
            hits[id] = hit if known is None else replace(known, trail=(*known.trail, *hit.trail))
    order = sorted(hits, key=lambda id: (-scores[id], best_rank[id], id))
    return [
        replace(hits[id], score=scores[id], trail=(*hits[id].trail, TrailStep("convex", rank, scores[id])))
        for rank, id in enumerate(order, 1)
    ]
