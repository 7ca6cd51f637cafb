"""The metrics of MTEB's task types, as pure functions: Spearman, maximum average precision, V-measure, weighted F1.

Retrieval's nDCG and reranking's MAP are in `rankings/ranking_metrics.py`; accuracy is a mean of scores.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from firsthand.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def spearman(x: Sequence[float] | Array, y: Sequence[float] | Array) -> float:
    """Returns the correlation of ranks, ties at their mean rank, -1 to 1; NaN if either side is constant."""
    import numpy as np
    from scipy.stats import rankdata

    if len(x) != len(y) or len(x) < 2:
        raise ConfigError(f"{len(x)} and {len(y)} values were to be correlated: give two or more of each, equally many")
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(a @ b / size, -1, 1)) if size else math.nan


def pair_average_precision(similarities: Sequence[float] | Array, labels: Sequence[int] | Array) -> float:
    """Returns the area under precision and recall as a sum over thresholds, each a step; equal similarities are one.

    MTEB's pair classification takes the maximum over cosine, dot product, and negative Euclidean and Manhattan distance.
    NaN if no pair is positive.
    """
    import numpy as np

    scores, marks = np.asarray(similarities, np.float64), np.asarray(labels, np.float64)
    if len(scores) != len(marks):
        raise ConfigError(f"there are {len(scores)} similarities and {len(marks)} labels: give one for each pair")
    order = np.argsort(-scores, kind="stable")
    scores, marks = scores[order], marks[order]
    ends = np.append(np.flatnonzero(np.diff(scores) != 0), len(scores) - 1) if len(scores) else order
    true = np.cumsum(marks)[ends]
    if not len(true) or not true[-1]:
        return math.nan
    return float(np.sum(np.diff(true, prepend=0.0) * true / (ends + 1)) / true[-1])


def v_measure(labels: Sequence[Hashable], clusters: Sequence[Hashable]) -> float:
    """Returns the harmonic mean of homogeneity and completeness, 0 to 1 (Rosenberg and Hirschberg, 2007)."""
    if len(labels) != len(clusters) or not labels:
        raise ConfigError(
            f"there are {len(labels)} labels and {len(clusters)} clusters: give one of each for every text"
        )
    joint = Counter(zip(labels, clusters, strict=True))
    of_labels, of_clusters, total = Counter(labels), Counter(clusters), len(labels)
    shared = math.fsum(
        count / total * math.log(count * total / (of_labels[label] * of_clusters[cluster]))
        for (label, cluster), count in joint.items()
    )
    homogeneity, completeness = (
        1.0 if entropy == 0 else shared / entropy for entropy in (_entropy(of_labels), _entropy(of_clusters))
    )
    both = homogeneity + completeness
    return 2 * homogeneity * completeness / both if both > 0 else 0.0


def bitext_f1(found: Sequence[int] | Array, gold: Sequence[int] | Array, weights: Array | None = None) -> float:
    """Returns F1 of each gold target, weighted by how often it is gold: MTEB's main score of bitext mining.

    `found` is the target that was nearest to each source; `weights` is how often each source counts, once if None.
    """
    import numpy as np

    ours, theirs = np.asarray(found), np.asarray(gold)
    if len(ours) != len(theirs) or not len(ours):
        raise ConfigError(
            f"there are {len(ours)} found and {len(theirs)} gold targets: give one of each for every source"
        )
    each = np.ones(len(ours)) if weights is None else np.asarray(weights, np.float64)
    size = int(max(ours.max(), theirs.max())) + 1
    support = np.bincount(theirs, each, size)
    predicted = np.bincount(ours, each, size)
    right = np.bincount(theirs[ours == theirs], each[ours == theirs], size)
    both = support + predicted
    f1 = np.divide(2 * right, both, out=np.zeros(size), where=both > 0)
    total = float(support.sum())
    return float(f1 @ support / total) if total else math.nan


def _entropy(counts: Counter[Any]) -> float:
    total = sum(counts.values())
    return -math.fsum(count / total * math.log(count / total) for count in counts.values())
