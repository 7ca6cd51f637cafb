"""Fits MTEB's classifiers and clusterings to vectors, by scikit-learn (extra `mteb`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firsthand.errors import DataError, MissingExtra
from firsthand.retrieval.embedding_tasks.shared_vectors import FewShotClassifiers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float64]

MAX_ITERATIONS = 100


def fit_classifiers(
    vectors_NF: Vectors, labels: Sequence[str], draws: Sequence[Sequence[int]], *, seed: int
) -> FewShotClassifiers:
    """Returns a logistic regression for each draw of examples: MTEB's settings, 100 iterations of L-BFGS, C = 1.

    DataError if the examples of a draw have fewer than two labels.
    """
    import numpy as np

    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtra("scikit-learn", "mteb", "classification of vectors") from None
    import warnings

    names = sorted(set(labels))
    if len(names) < 2:
        raise DataError(f"the examples have {len(names)} label: a classification needs two or more")
    weights, biases = [], []
    for chosen in draws:
        model = LogisticRegression(max_iter=MAX_ITERATIONS, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # MTEB stops there too
            model.fit(vectors_NF[list(chosen)], [names.index(labels[place]) for place in chosen])
        coef, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(names) == 2:  # one row, of the second label
            coef, bias = np.concatenate([-coef, coef]) / 2, np.concatenate([-bias, bias]) / 2
        weights.append(coef)
        biases.append(bias)
    return FewShotClassifiers(np.stack(weights), np.stack(biases), tuple(names))


def cluster(vectors_NF: Vectors, clusters: int, *, seed: int, batch_size: int = 512) -> list[int]:
    """Returns the cluster of each vector: mini-batch k-means as MTEB runs it (batches of 512; 500 in its older tasks)."""
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError:
        raise MissingExtra("scikit-learn", "mteb", "clustering of vectors") from None
    if not 1 <= clusters <= len(vectors_NF):
        raise DataError(f"{clusters} clusters of {len(vectors_NF)} texts were asked for: there must be as many texts")
    model = MiniBatchKMeans(n_clusters=clusters, batch_size=batch_size, init="k-means++", n_init=1, random_state=seed)
    return [int(label) for label in model.fit_predict(vectors_NF)]
