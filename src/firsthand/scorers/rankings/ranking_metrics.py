"""Metrics of a ranking against relevance judgements, as trec_eval computes them: nDCG, AP, MRR, recall, precision.

A ranking is document ids, best first, each once. Judgements map a document to its relevance; 1 and more is relevant, and an
unjudged document is not. Pure functions of one query; means over queries, and their intervals, are `stats`'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from firsthand.errors import ConfigError

Judgements = Mapping[str, int]


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Returns documents by falling score; equal scores by falling id, as trec_eval orders them."""
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def ndcg(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """Returns nDCG@k with linear gain: sum of relevance / log2(rank + 1), over that of the best ranking (Järvelin, 2002).

    The best ranking is of all judged documents, retrieved or not. 0 if no document is relevant.
    """
    _check(ranking, judgements, k)
    best = _dcg(sorted((gain for gain in judgements.values() if gain > 0), reverse=True)[:k])
    return _dcg([max(0, judgements.get(each, 0)) for each in ranking[:k]]) / best if best else 0.0


def average_precision(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """Returns the sum of precision at each relevant document's rank, over the number of all relevant documents.

    With `k`, documents below rank k count as not retrieved (trec_eval's map_cut). The mean over queries is MAP.
    """
    _check(ranking, judgements, k)
    found, total = 0, 0.0
    for rank, document in enumerate(ranking[:k], 1):
        if judgements.get(document, 0) > 0:
            found += 1
            total += found / rank
    relevant = _relevant(judgements)
    return total / relevant if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """Returns 1 / the rank of the first relevant document, 0 if there is none within k. The mean over queries is MRR."""
    _check(ranking, judgements, k)
    return next((1 / rank for rank, each in enumerate(ranking[:k], 1) if judgements.get(each, 0) > 0), 0.0)


def recall(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """Returns the share of the relevant documents that are among the first k; 0 if none is relevant."""
    _check(ranking, judgements, k)
    relevant = _relevant(judgements)
    return sum(judgements.get(each, 0) > 0 for each in ranking[:k]) / relevant if relevant else 0.0


def precision(ranking: Sequence[str], judgements: Judgements, k: int) -> float:
    """Returns the share of relevant documents among k, where ranks without a document count as not relevant."""
    _check(ranking, judgements, k)
    return sum(judgements.get(each, 0) > 0 for each in ranking[:k]) / k


def verdict_precision(verdicts: Sequence[bool]) -> float:
    """Returns the average precision of a ranking whose every place was judged, over those judged relevant; 0 if none is.

    Context precision of RAGAS without its added 1e-10, so that a perfect ranking scores exactly 1.
    """
    hits = [rank for rank, verdict in enumerate(verdicts, 1) if verdict]
    return math.fsum(found / rank for found, rank in enumerate(hits, 1)) / len(hits) if hits else 0.0


def first_of_each(documents: Iterable[str]) -> list[str]:
    """Returns the documents in order of their first occurrence: a ranking of documents from one of their chunks."""
    return list(dict.fromkeys(documents))


def _dcg(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def _relevant(judgements: Judgements) -> int:
    return sum(gain > 0 for gain in judgements.values())


def _check(ranking: Sequence[str], judgements: Judgements, k: int | None) -> None:
    if k is not None and k < 1:
        raise ConfigError(f"k is {k}: a ranking is cut after 1 document or more")
    if len(set(ranking)) != len(ranking):
        twice = next(each for at, each in enumerate(ranking) if each in ranking[:at])
        raise ConfigError(f"the ranking has {twice!r} twice: give each document once, as first_of_each does")
    for document, relevance in judgements.items():
        if not -math.inf < relevance < math.inf:
            raise ConfigError(f"the relevance of {document!r} is {relevance}: give a whole number, 0 for not relevant")
