"""Scores the answers of the pattern `embed`, and makes the figures of MTEB's task types from them.

Where MTEB's main score is of all pairs together (Spearman, average precision, F1), the score of an attempt only carries its
share, and a figure of the same name replaces the mean; it has a bootstrap interval and paired tests as every figure does.
A failed attempt is a wrong translation; a correlation and an average precision are of the pairs that were embedded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any

from firsthand.benchmark import Figure
from firsthand.scorers.embeddings.embedding_metrics import bitext_f1, pair_average_precision, spearman, v_measure
from firsthand.scorers.rankings import ranking_metrics
from firsthand.scorers.rankings.retrieved import ranking
from firsthand.stats.figures import slow_figure
from firsthand.task import Task
from firsthand.trace import Score, Trace

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


def cosine_spearman(task: Task, trace: Trace) -> Score:
    """Score the cosine of a pair; as a figure, Spearman's correlation of all cosines with the gold similarities."""
    found = _answer(trace, dict)
    return Score("cosine_spearman", float(found["cosine"]), {"gold": float(task.secret["similarity"])})


def max_ap(task: Task, trace: Trace) -> Score:
    """Score the cosine of a pair; as a figure, the best average precision of four similarities as a classifier of pairs."""
    found = _answer(trace, dict)
    detail = {"gold": int(task.secret["similar"]), **{name: float(found[name]) for name in SIMILARITIES}}
    return Score("max_ap", float(found["cosine"]), detail)


def bitext_weighted_f1(task: Task, trace: Trace) -> Score:
    """Score 1 if the nearest sentence is the translation; as a figure, F1 weighted over all targets."""
    found, gold = int(_answer(trace, int)), int(task.secret["place"])
    return Score("bitext_weighted_f1", float(found == gold), {"found": found, "gold": gold})


def few_shot_accuracy(task: Task, trace: Trace) -> Score:
    """Score the share of the classifiers, one for each draw of examples, that give the right label."""
    found = _answer(trace, list)
    return Score("few_shot_accuracy", sum(each == task.secret["label"] for each in found) / len(found))


def cluster_v_measure(task: Task, trace: Trace) -> Score:
    """Score the V-measure of a sample's clusters against its labels."""
    return Score("cluster_v_measure", v_measure(task.secret["labels"], _answer(trace, list)))


def reranked_average_precision(task: Task, trace: Trace) -> Score:
    """Score the average precision of the candidates' ranking; its mean is MTEB's MAP of reranking."""
    marks = {str(each): 1 for each in task.secret["positive"]}
    return Score("reranked_average_precision", ranking_metrics.average_precision(ranking(trace), marks))


def summary_spearman(task: Task, trace: Trace) -> Score:
    """Score Spearman's correlation of a document's machine summaries: similarity to human ones, and human rating."""
    found = spearman(_answer(trace, list), task.secret["ratings"])
    if found != found:
        return Score("summary_spearman", 0.0, failure="all summaries are equally similar, so there is no correlation")
    return Score("summary_spearman", found)


def spearman_figures(traces: Sequence[Trace]) -> list[Figure]:
    """Returns Spearman's correlation over all pairs."""
    return _figure("cosine_spearman", traces, lambda rows: _safe_spearman(rows), ("gold",))


def max_ap_figures(traces: Sequence[Trace]) -> list[Figure]:
    """Returns the maximum average precision over all pairs."""

    def best(rows: Any) -> float:
        return max(pair_average_precision(rows[:, 2 + place], rows[:, 1]) for place in range(len(SIMILARITIES)))

    return _figure("max_ap", traces, best, ("gold", *SIMILARITIES))


def bitext_figures(traces: Sequence[Trace]) -> list[Figure]:
    """Returns the weighted F1 over all sentences."""
    of: Callable[[Any], float] = lambda rows: bitext_f1(rows[:, 1].astype(int), rows[:, 2].astype(int))  # noqa: E731
    return _figure("bitext_weighted_f1", traces, of, ("found", "gold"), _as_wrong)


def _as_wrong(failed: Sequence[str], rows: Mapping[str, Sequence[float]]) -> list[list[float]]:
    """A row for each failed attempt: its task's target, or one that no other task has, and another one found."""
    free = int(max((max(row[1:]) for row in rows.values()), default=-1)) + 1
    golds = {task: rows[task][2] if task in rows else free + at for at, task in enumerate(dict.fromkeys(failed))}
    return [[0.0, free + len(golds), golds[task]] for task in failed]


def _figure(
    name: str,
    traces: Sequence[Trace],
    of: Callable[[Any], float],
    details: tuple[str, ...],
    of_failed: Callable[[Sequence[str], Mapping[str, Sequence[float]]], list[list[float]]] | None = None,
) -> list[Figure]:
    """The figure of a function of rows: the score's value, then the named details of it.

    `of_failed` makes the rows of failed attempts, from their tasks and other tasks' rows; without it they are left out. The
    figure of no rows is NaN.
    """
    import numpy as np

    scores = [(trace.task_id, trace.score(name) if trace.value(name) is not None else None) for trace in traces]
    kept = [
        (task, [score.value, *(score.detail[each] for each in details)]) for task, score in scores if score is not None
    ]
    failed = [task for task, score in scores if score is None] if of_failed is not None else []
    if of_failed is not None:
        kept += zip(failed, of_failed(failed, dict(kept)), strict=True)
    rows = np.array([row for _, row in kept], np.float64)
    return [
        slow_figure(name, tuple(task for task, _ in kept), lambda chosen: of(rows[list(chosen)]) if chosen else nan)
    ]


def _safe_spearman(rows: Any) -> float:
    return spearman(rows[:, 0], rows[:, 1]) if len(rows) > 1 else float("nan")


def _answer(trace: Trace, kind: type) -> Any:
    """The answer as JSON of that kind; ValueError if it is none, which makes the score a failed one."""
    try:
        found = json.loads(trace.answer or "")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, kind) or (kind is list and not found):
        raise ValueError(f"the answer is {str(trace.answer)[:60]!r}: embedding tasks are answered by the pattern embed")
    return found
