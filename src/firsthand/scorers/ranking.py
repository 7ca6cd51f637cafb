"""Scores the ranking of documents that an attempt retrieved against the task's judgements, by trec_eval's metrics.

The judgements are `task.secret["judgements"]`, document id -> relevance; the ranking is read from the trace
(`rankings/retrieved.py`), without the documents that `task.secret["left_out"]` names, such as the query itself. An attempt
that retrieved nothing scores 0, as a query without results does under trec_eval -c.
"""

from __future__ import annotations

import math
from typing import Any

from firsthand.benchmark import Scorer
from firsthand.errors import ConfigError
from firsthand.scorers.rankings import ranking_metrics as metrics
from firsthand.scorers.rankings.retrieved import ranking, record_id
from firsthand.task import Task
from firsthand.trace import Score, Trace


def ndcg_at_10(task: Task, trace: Trace) -> Score:
    """Score nDCG@10 with linear gain, the main score of BEIR and of MTEB's retrieval tasks."""
    return Score("ndcg_at_10", metrics.ndcg(ranked_documents(task, trace), judgements(task), 10))


def average_precision(task: Task, trace: Trace) -> Score:
    """Score the average precision of the whole ranking; its mean is MAP."""
    return Score("average_precision", metrics.average_precision(ranked_documents(task, trace), judgements(task)))


def reciprocal_rank_at_10(task: Task, trace: Trace) -> Score:
    """Score 1 / the rank of the first relevant document among 10; its mean is MRR@10."""
    return Score("reciprocal_rank_at_10", metrics.reciprocal_rank(ranked_documents(task, trace), judgements(task), 10))


def recall_at_100(task: Task, trace: Trace) -> Score:
    """Score the share of relevant documents that are among the first 100."""
    return Score("recall_at_100", metrics.recall(ranked_documents(task, trace), judgements(task), 100))


def recall_at_5(task: Task, trace: Trace) -> Score:
    """Score the share of relevant documents that are among the first 5, as many as a RAG variant reads."""
    return Score("recall_at_5", metrics.recall(ranked_documents(task, trace), judgements(task), 5))


def recall_at_10(task: Task, trace: Trace) -> Score:
    """Score the share of relevant documents that are among the first 10."""
    return Score("recall_at_10", metrics.recall(ranked_documents(task, trace), judgements(task), 10))


def precision_at_10(task: Task, trace: Trace) -> Score:
    """Score the share of relevant documents among the first 10 places."""
    return Score("precision_at_10", metrics.precision(ranked_documents(task, trace), judgements(task), 10))


def ndcg(*, k: int = 10) -> Scorer:
    """Score nDCG at any depth k."""
    if k < 1:
        raise ConfigError(f"k is {k}: a ranking is cut after 1 document or more")

    def scorer(task: Task, trace: Trace) -> Score:
        return Score(f"ndcg_at_{k}", metrics.ndcg(ranked_documents(task, trace), judgements(task), k))

    return scorer


def ranked_documents(task: Task, trace: Trace) -> list[str]:
    """Returns the attempt's ranking without the documents that the task leaves out.

    A record of an indexed file, `corpus.jsonl:owl`, is the document `owl` that is judged or left out.
    """
    left_out = task.secret.get("left_out", ())
    known = {*judgements(task), *left_out}
    names = ((document, record_id(document)) for document in ranking(trace))
    found = (record if record in known and document not in known else document for document, record in names)
    return [document for document in metrics.first_of_each(found) if document not in left_out]


def judgements(task: Task) -> dict[str, int]:
    """Returns the task's relevance judgements; ValueError if it has none, or one that is no whole number."""
    given = task.secret.get("judgements")
    if not isinstance(given, dict) or not given:
        raise ValueError(f"task {task.id} has no relevance judgements to score a ranking by")
    return relevances(given)


def relevances(given: object) -> dict[str, int]:
    """Returns document id -> relevance, a whole number as in TREC's judgements (`1.0` is one).

    ValueError if one is none or beyond `MAX_RELEVANCE`, or if a document is there twice, as of the ids 1 and "1".
    """
    if not isinstance(given, dict) or not given:
        raise ValueError('an object of document ids and their relevance was expected, such as {"d1": 2, "d2": 0}')
    found: dict[str, int] = {}
    for document, relevance in given.items():
        if str(document) in found:
            raise ValueError(
                f"document {str(document)!r:.100} is judged twice, by a number and by text: keep one of them"
            )
        found[str(document)] = _whole(document, relevance)
    return found


def _whole(document: object, relevance: Any) -> int:
    """Returns a document's relevance; ValueError unless it is a whole number up to `MAX_RELEVANCE` in size."""
    try:
        value = relevance if isinstance(relevance, int) else float(relevance)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(
            f"the relevance of {document!r:.100} is {relevance!r:.40}, and the metrics of rankings take whole numbers: "
            "multiply graded ones, such as 9 for 0.9"
        )
    if abs(value) > MAX_RELEVANCE:
        raise ValueError(
            f"the relevance of {document!r:.100} is beyond {MAX_RELEVANCE:,}, and judgements are grades: give small numbers"
        )
    return int(value)


MAX_RELEVANCE = 10**9
"""The most that a relevance may be above or below 0; sums of larger ones are not exact, or no float at all."""

RANKING_SCORERS: tuple[Scorer, ...] = (
    ndcg_at_10,
    average_precision,
    reciprocal_rank_at_10,
    recall_at_10,
    recall_at_100,
    precision_at_10,
)
"""The scorers of retrieval benchmarks; agents are ranked by the first."""
