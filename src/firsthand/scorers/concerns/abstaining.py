"""Scores of calibration and abstention: right answers, right abstentions, Brier score, and the risk at a coverage.

Confidence is the likelier option's share of both options' probability. The calibration error is the root mean square over
bins that every board shows for stated confidences (`stats/corpus_formulas.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from firsthand.benchmark import Figure
from firsthand.scorers.concerns.probe_margins import probe_logprobs, shares
from firsthand.stats.figures import calibration
from firsthand.task import Task
from firsthand.trace import Score, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

ABSTAIN = "I do not know."


def abstains_rightly(task: Task, trace: Trace) -> tuple[Score, ...]:
    """Score 1 if a fact is answered rightly or a made-up question is abstained from, the likeliest of three texts counting.

    `abstains` is 1 if that text is the abstention, and `kind` in its detail says on what. The first of equal texts wins.
    """
    found = probe_logprobs(trace, "with_abstention")
    chosen = max(range(len(found)), key=found.__getitem__)
    abstains, right = chosen == len(found) - 1, task.secret["right"]
    good = abstains if right is None else chosen == right
    return (
        Score("abstains_rightly", float(good), {"chosen": chosen}),
        Score("abstains", float(abstains), {"kind": task.metadata["kind"]}),
        Score("over_confident" if right is None else "over_cautious", float(abstains == (right is not None))),
    )


def answer_confidence(task: Task, trace: Trace) -> tuple[Score, ...]:
    """Score the answers to facts without an abstention: right or not, Brier score, negative log-likelihood, calibration."""
    if (right := task.secret["right"]) is None:
        return ()
    each = shares(probe_logprobs(trace, "options"))
    chosen = max(range(len(each)), key=each.__getitem__)
    is_right = chosen == right
    return (
        Score("right", float(is_right), {"sure": each[chosen]}),
        Score("brier", (1 - each[right]) ** 2),
        Score("nll", -math.log(max(each[right], 1e-12))),
        calibration("calibration_error", each[chosen], is_right),
    )


def coverage_figures(traces: Sequence[Trace]) -> list[Figure]:
    """Return the area under the risk-coverage curve (Geifman and El-Yaniv, 2017), and the accuracy of the surer half.

    Facts are sorted by confidence; the risk at coverage c is the share of wrong answers among the c surest. The area of a
    random order is the error rate. NaN where no fact was answered.
    """
    import numpy as np

    known = [(trace.task_id, score) for trace in traces if (score := trace.score("right")) and not score.failed]
    tasks = tuple(dict.fromkeys(task for task, _ in known))
    rank = sorted(range(len(known)), key=lambda at: -float(known[at][1].detail["sure"]))
    places = np.array([tasks.index(known[at][0]) for at in rank], dtype=int)
    wrong = np.array([1 - known[at][1].value for at in rank])

    def of_share(covered: float) -> Any:
        def of(counts: Array) -> Array:
            weight = counts[:, places].astype(float)
            total = weight.sum(axis=1, keepdims=True)
            before = np.cumsum(weight, axis=1) - weight
            counted = np.clip(np.minimum(weight, covered * total - before), 0, None)
            accuracy: Array = 1 - (counted * wrong).sum(axis=1) / np.maximum(counted.sum(axis=1), 1e-12)
            return accuracy

        return of

    def area(counts: Array) -> Array:
        weight = counts[:, places].astype(float)
        upto = np.cumsum(weight, axis=1)
        risk = np.cumsum(weight * wrong, axis=1) / np.maximum(upto, 1e-12)
        mean: Array = (risk * weight).sum(axis=1) / np.maximum(upto[:, -1], 1e-12)
        return mean

    if not known:
        return []
    return [
        Figure("risk_coverage_area", tasks, area, lower_is_better=True, method="percentile"),
        Figure("accuracy_of_surer_half", tasks, of_share(0.5), method="percentile"),
    ]
