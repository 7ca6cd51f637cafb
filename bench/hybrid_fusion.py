"""Hybrid search on SciFact: settings of fusion chosen on half of the train claims, checked on the other half, told on test.

    python bench/hybrid_fusion.py [--embedder minilm]

$FIRSTHAND_DATA needs `retrieval/scifact` with `claims_train.csv` (AllenAI's release). No setting is chosen on a test query:
the best of each kind on half A is told with its difference from RRF (k 60, equal weights) on half B and on test, with 95 %
bootstrap intervals over queries. Claims that are in train and test are left out of train.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from firsthand.benchmarks.retrieval_sets.beir_folder import read_judged
from firsthand.benchmarks.retrieval_sets.set_folder import set_folder
from firsthand.retrieval.benchmark_corpus import corpus_index
from firsthand.retrieval.corpus import Corpus, close_corpora, open_corpus
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.retrievers.fusion import reciprocal_rank_fusion
from firsthand.retrieval.retrievers.score_fusion import convex_combination
from firsthand.retrieval.retrievers.searches import dense, lexical
from firsthand.scorers.rankings.ranking_metrics import ndcg

POOL = 100
Fusion = Callable[[Sequence[Sequence[Hit]]], Sequence[Hit]]


@dataclass(frozen=True)
class FusedQuery:
    """A query's rankings by vectors and by terms, and its relevant documents."""

    rankings: Sequence[Sequence[Hit]]
    relevant: dict[str, int]


def candidates() -> dict[str, Fusion]:
    """Every setting that is tried, by name."""
    found: dict[str, Fusion] = {}
    for share in (0.3, 0.4, 0.5, 0.6, 0.7):
        pair = (share, 1 - share)
        for k in (5, 10, 20, 40, 60, 100):
            found[f"rrf k={k} vectors={share}"] = lambda lists, k=k, pair=pair: reciprocal_rank_fusion(  # type: ignore[misc]
                lists, constant=k, weights=pair
            )
        found[f"convex vectors={share}"] = lambda lists, pair=pair: convex_combination(lists, pair)  # type: ignore[misc]
    return found


def scores(queries: Sequence[FusedQuery], fusion: Fusion) -> np.ndarray:
    """nDCG@10 of each query."""
    fused = ([hit.chunk.document for hit in fusion(each.rankings)] for each in queries)
    return np.array([ndcg(ranking, each.relevant, 10) for ranking, each in zip(fused, queries, strict=True)])


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """The mean difference with its bootstrap interval."""
    rng, gaps = np.random.default_rng(0), one - other
    means = [gaps[rng.integers(len(gaps), size=len(gaps))].mean() for _ in range(10_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{gaps.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


async def read(corpus: Corpus, queries: dict[str, dict[str, int]]) -> list[FusedQuery]:
    """Both rankings of every query."""
    searches = (dense(corpus), lexical(corpus))
    return [
        FusedQuery([await search(Query(text), POOL) for search in searches], relevant)
        for text, relevant in queries.items()
    ]


async def main() -> None:
    """Choose, check and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedder", default="minilm")
    options = parser.parse_args()
    folder = set_folder("scifact")
    judged = read_judged(folder)
    test = {judged.queries[id]: dict(relevant) for id, relevant in judged.judgements.items()}
    with (folder / "claims_train.csv").open(newline="", encoding="utf-8") as file:
        train = {
            row["claim"]: dict.fromkeys(re.findall(r"\d+", row["cited_doc_ids"]), 1)
            for row in csv.DictReader(file)
            if row["claim"] not in test
        }
    claims = sorted(train)
    random.Random(0).shuffle(claims)
    corpus = open_corpus(await corpus_index("scifact", embedder=options.embedder))
    read_train = await read(corpus, {claim: train[claim] for claim in claims})
    half_a, half_b = read_train[: len(claims) // 2], read_train[len(claims) // 2 :]
    read_test = await read(corpus, test)
    close_corpora()
    tried = candidates()
    base = tried["rrf k=60 vectors=0.5"]
    on_a = {name: float(scores(half_a, fusion).mean()) for name, fusion in tried.items()}
    print(f"{len(half_a)} claims in half A, {len(half_b)} in half B, {len(read_test)} in test")
    for kind in ("rrf k=60 vectors=0.5", "rrf", "convex"):
        name = max((each for each in on_a if each.startswith(kind)), key=on_a.__getitem__)
        rows = [scores(queries, tried[name]) for queries in (half_b, read_test)]
        gaps = [difference(row, scores(queries, base)) for row, queries in zip(rows, (half_b, read_test), strict=True)]
        print(f"{name}: A {on_a[name]:.4f}, B {rows[0].mean():.4f} ({gaps[0]}), test {rows[1].mean():.4f} ({gaps[1]})")


if __name__ == "__main__":
    asyncio.run(main())
