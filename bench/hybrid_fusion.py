"""Hybrid search on SciFact: settings of fusion chosen on half of the train claims, checked on the other half, told on test.

    python bench/hybrid_fusion.py [--embedder minilm] [--sentences [--keep sentences.npz]]

$FIRSTHAND_DATA needs `retrieval/scifact` with `claims_train.csv` (AllenAI's release). No setting is chosen on a test query:
the best of each kind on half A is told with its difference from RRF (k 60, equal weights) on half B and on test, with 95 %
bootstrap intervals over queries. Claims that are in train and test are left out of train. `--sentences` also reranks the
first 20 of convex fusion by the best sentence (`rerank=sentences`), its weight chosen in the same way; the 46,000
sentences of the corpus are embedded first, and kept in the file of `--keep`.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firsthand.benchmarks.retrieval_sets.beir_folder import read_judged
from firsthand.benchmarks.retrieval_sets.set_folder import set_folder
from firsthand.retrieval.answers.citations import sentences
from firsthand.retrieval.benchmark_corpus import corpus_index
from firsthand.retrieval.corpus import Corpus, close_corpora, open_corpus
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.retrievers.best_sentence import MAX_SENTENCES, SENTENCE_WEIGHT, scaled
from firsthand.retrieval.retrievers.fusion import reciprocal_rank_fusion
from firsthand.retrieval.retrievers.score_fusion import convex_combination
from firsthand.retrieval.retrievers.searches import CONVEX_WEIGHTS, dense, lexical
from firsthand.scorers.rankings.ranking_metrics import ndcg

POOL = 100
Fusion = Callable[[Sequence[Sequence[Hit]]], Sequence[Hit]]


@dataclass(frozen=True)
class FusedQuery:
    """A query's rankings by vectors and by terms, and its relevant documents."""

    rankings: Sequence[Sequence[Hit]]
    relevant: dict[str, int]
    text: str = ""


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
        FusedQuery([await search(Query(text), POOL) for search in searches], relevant, text)
        for text, relevant in queries.items()
    ]


class Sentences:
    """The vectors of every sentence of the documents that are found."""

    def __init__(self, corpus: Corpus, texts: dict[str, str]):
        self.corpus, self.names = corpus, sorted(texts)
        spans = [sentences(texts[name])[:MAX_SENTENCES] for name in self.names]
        self.ends = dict(zip(self.names, np.cumsum([len(own) for own in spans]).tolist(), strict=True))
        self.counts = {name: len(own) for name, own in zip(self.names, spans, strict=True)}
        self.parts = [texts[name][start:end] for name, own in zip(self.names, spans, strict=True) for start, end in own]
        self.vectors = np.zeros((0, 0), np.float16)

    async def embed(self, kept: Path | None) -> None:
        """Embed them, or read what an earlier run kept of the same sentences."""
        if kept is not None and kept.exists():
            self.vectors = np.load(kept)["vectors"]
            assert len(self.vectors) == len(self.parts), f"{kept} is of other sentences"
            return
        batches = [self.parts[at : at + 2048] for at in range(0, len(self.parts), 2048)]
        self.vectors = np.concatenate([await self.corpus.embed(each, documents=True) for each in batches]).astype(
            np.float16
        )
        if kept is not None:
            np.savez(kept, vectors=self.vectors)

    async def scores(
        self, queries: Sequence[FusedQuery], weights: Sequence[float], pool: int = 20
    ) -> dict[float, np.ndarray]:
        """nDCG@10 of each query by weight, as `rerank_by_sentence` orders the pool of convex fusion."""
        found: dict[float, list[float]] = {weight: [] for weight in weights}
        asked = await self.corpus.embed([each.text for each in queries])
        for query, vector in zip(queries, asked, strict=True):
            hits = convex_combination(query.rankings, CONVEX_WEIGHTS)
            names = [hit.chunk.document for hit in hits]
            near = []
            for name in names[:pool]:
                end, count = self.ends[name], self.counts[name]
                near.append(
                    float((self.vectors[end - count : end].astype(np.float32) @ vector).max()) if count else -1.0
                )
            first, second = scaled([hit.score for hit in hits[:pool]]), scaled(near)
            for weight in weights:
                key = [(1 - weight) * one + weight * other for one, other in zip(first, second, strict=True)]
                order = sorted(range(len(key)), key=lambda place: -key[place])
                ranking = [names[place] for place in order] + names[pool:]
                found[weight].append(ndcg(ranking, query.relevant, 10))
        return {weight: np.array(each) for weight, each in found.items()}


async def rerank(corpus: Corpus, parts: Sequence[Sequence[FusedQuery]], kept: Path | None) -> None:
    """Choose the sentences' weight on half A, and tell half B and test beside fusion alone."""
    texts = {
        hit.chunk.document: hit.chunk.text
        for queries in parts
        for each in queries
        for ranking in each.rankings
        for hit in ranking
    }
    every = Sentences(corpus, texts)
    await every.embed(kept)
    weights = (0.0, 0.2, 0.3, 0.4, 0.5, 1.0)
    half_a, half_b, test = [await every.scores(queries, weights) for queries in parts]
    rrf = [scores(queries, candidates()["rrf k=60 vectors=0.5"]) for queries in parts]
    print("on A by weight: " + ", ".join(f"{weight} {half_a[weight].mean():.4f}" for weight in weights))
    for weight in dict.fromkeys((max(weights, key=lambda each: half_a[each].mean()), SENTENCE_WEIGHT)):
        print(f"sentences, weight {weight}: A {half_a[weight].mean():.4f}")
        both = np.concatenate([half_b[weight], test[weight]])
        alone, fused = np.concatenate([half_b[0.0], test[0.0]]), np.concatenate(rrf[1:])
        rows = [("B", half_b[weight], half_b[0.0], rrf[1]), ("test", test[weight], test[0.0], rrf[2])]
        for name, row, convex, ranks in [*rows, ("B and test", both, alone, fused)]:
            print(f"  {name} {row.mean():.4f}: vs. convex {difference(row, convex)}, vs. RRF {difference(row, ranks)}")


async def main() -> None:
    """Choose, check and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedder", default="minilm")
    parser.add_argument("--sentences", action="store_true", help="rerank by the best sentence too")
    parser.add_argument("--keep", type=Path, help="with --sentences: the file of their vectors, read if it is there")
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
    tried = candidates()
    base = tried["rrf k=60 vectors=0.5"]
    on_a = {name: float(scores(half_a, fusion).mean()) for name, fusion in tried.items()}
    print(f"{len(half_a)} claims in half A, {len(half_b)} in half B, {len(read_test)} in test")
    for kind in ("rrf k=60 vectors=0.5", "rrf", "convex"):
        name = max((each for each in on_a if each.startswith(kind)), key=on_a.__getitem__)
        rows = [scores(queries, tried[name]) for queries in (half_b, read_test)]
        gaps = [difference(row, scores(queries, base)) for row, queries in zip(rows, (half_b, read_test), strict=True)]
        print(f"{name}: A {on_a[name]:.4f}, B {rows[0].mean():.4f} ({gaps[0]}), test {rows[1].mean():.4f} ({gaps[1]})")
    if options.sentences:
        await rerank(corpus, (half_a, half_b, read_test), options.keep)
    close_corpora()


if __name__ == "__main__":
    asyncio.run(main())
