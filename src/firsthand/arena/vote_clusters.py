"""Votes that go together: covariance and degrees of freedom where a voter casts many votes, or a question has many.

The plain estimate is far too small where few clusters have most of the votes, as in every public arena: a voter with a third
of them pulls the ratings towards its own taste, so that its own residuals look small. They are enlarged by what the voter
pulls (CR2; Bell and McCaffrey, 2002), and Student's t has the degrees of freedom that Satterthwaite's approximation gives
for votes as unequally spread.
"""

# N battles, M models, K parameters, G clusters, S parameters that a battle bears on

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from firsthand.arena.battle_table import Ints

Floats = NDArray[np.float64]
LIGHT = 0.01
"""Leverage below which a cluster's is taken from its trace, which is a bound of it."""
_MOST = 0.99
"""Leverage of a cluster that alone decides a rating; its residual there is 0."""
_ROWS_AT_ONCE = 100_000
_CELLS_AT_ONCE = 8_000_000


class VoteScores(NamedTuple):
    """The derivatives of the log-likelihood of each battle, sparse."""

    columns: NDArray[np.int64]
    """Shape (N, S): the parameters that a battle bears on, its two models first."""
    values: Floats
    """Shape (N, S)."""
    design: Floats
    """Shape (N, S): what the log-odds are of each parameter: 1, -1, the covariates, and 0 for ties."""
    curvature: Floats
    """Shape (N): the negative second derivative by the log-odds."""
    width: int
    """K."""


class ClusteredScores(NamedTuple):
    """A numbering of battles with its part of the covariance."""

    meat: Floats
    """Shape (K, K): the sum over clusters of the outer product of their corrected scores."""
    leverage: Floats
    """Shape (G): the trace of each cluster's leverage."""
    numbers: NDArray[np.int64]
    """Shape (N): the clusters without gaps."""


def clustered_scores(scores: VoteScores, bread: NDArray[Any], clusters: NDArray[Any]) -> ClusteredScores:
    """The meat clustered by a numbering: each cluster's summed scores over the root of 1 less its leverage."""
    _, numbers = np.unique(clusters, return_inverse=True)
    numbers = numbers.reshape(-1).astype(np.int64)
    groups = int(numbers.max()) + 1
    rows = np.repeat(numbers, scores.columns.shape[1])
    sparse: Any = coo_array  # without types
    summed = sparse((scores.values.ravel(), (rows, scores.columns.ravel())), (groups, scores.width)).tocsr()
    found: Floats = np.bincount(numbers, _leverages(scores, bread), groups).astype(np.float64)
    leverage = np.clip(found, 0, None)
    heavy = np.flatnonzero(found > LIGHT)
    step = max(1, _CELLS_AT_ONCE // scores.width)
    for start in range(0, len(heavy), step):
        some = heavy[start : start + step]
        leverage[some] = _along_scores(scores, bread, numbers, some, summed[some].toarray())
    scaled = summed.multiply((1 - np.minimum(leverage, _MOST))[:, None] ** -0.5).tocsr()
    meat: Floats = (scaled.T @ scaled).toarray()
    return ClusteredScores(meat, found, numbers)


def _leverages(scores: VoteScores, bread: NDArray[Any]) -> Floats:
    """Shape (N): the leverage of each battle."""
    found = np.empty(len(scores.columns))
    for start in range(0, len(found), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        columns, design = scores.columns[part], scores.design[part]
        total = np.zeros(len(columns))
        for i in range(columns.shape[1]):
            for j in range(columns.shape[1]):
                total += design[:, i] * design[:, j] * bread[columns[:, i], columns[:, j]]
        found[part] = total * scores.curvature[part]
    return found


def _along_scores(
    scores: VoteScores, bread: NDArray[Any], numbers: NDArray[np.int64], some: NDArray[np.int64], summed: Floats
) -> Floats:
    """The leverage of some clusters in the direction of their own scores: exact if their votes are spread as all votes are,
    or are all on one pair."""
    place = np.full(int(numbers.max()) + 1, -1)
    place[some] = np.arange(len(some))
    direction: Floats = summed @ bread
    length = (direction * summed).sum(1)
    pulled = np.zeros(len(some))
    chosen = np.flatnonzero(place[numbers] >= 0)
    for start in range(0, len(chosen), _ROWS_AT_ONCE):
        part = chosen[start : start + _ROWS_AT_ONCE]
        own = place[numbers[part]]
        along = (scores.design[part] * direction[own[:, None], scores.columns[part]]).sum(1)
        pulled += np.bincount(own, scores.curvature[part] * along**2, len(some))
    found: Floats = np.divide(
        pulled, length, out=np.zeros(len(some)), where=length > 1e-12 * np.abs(length).max(initial=0)
    )
    return found


def cluster_freedom(scores: VoteScores, bread: NDArray[Any], found: ClusteredScores, size: int) -> Floats:
    """Shape (M): the degrees of freedom of each rating; G - 1 if G clusters share its votes equally, and never below 1.

    A cluster's share is that of the information on the rating that its votes have.
    """
    light = found.leverage <= LIGHT
    rows, curvature = _by_cluster(scores, found.numbers, ~light, size)
    centred = bread[:, :size] - bread[:, :size].mean(1, keepdims=True)  # the strengths sum to zero
    whole = np.maximum(np.diag(centred), 1e-300)
    shares, squares, crossed, crossed_squares = np.zeros((4, size))
    for part in _whole_clusters(found.numbers[rows], max(1, _CELLS_AT_ONCE // size)):
        some = rows[part]
        along = np.zeros((len(some), size))
        for s in range(scores.columns.shape[1]):
            along += scores.design[some, s, None] * centred[scores.columns[some, s]]
        starts = np.flatnonzero(np.diff(found.numbers[some], prepend=-1))
        share = np.add.reduceat(curvature[part, None] * along**2, starts, axis=0) / whole
        shares += share.sum(0)
        squares += (share**2).sum(0)
        cross = share**2 / (1 - np.minimum(share, _MOST))
        crossed += cross.sum(0)
        crossed_squares += (cross**2).sum(0)
    small = found.leverage[light]
    mean = (
        float((small**2).sum() / small.sum()) if small.sum() > 0 else 0.0
    )  # no share of a cluster is above its leverage
    rest = np.clip(1 - shares, 0, 1) * mean
    crossed = crossed + rest
    degrees: Floats = 1 / np.maximum(squares + rest + crossed**2 - crossed_squares, 1e-300)
    return np.maximum(degrees, 1.0)


def _by_cluster(
    scores: VoteScores, numbers: NDArray[np.int64], chosen: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.int64], Floats]:
    """The chosen clusters' battles in order, and their curvatures; without covariates those of one pair are one."""
    rows = np.flatnonzero(chosen[numbers])
    key = numbers[rows]
    if plain := not scores.design[:, 2:].any():
        key = (key * size + scores.columns[rows, 0]) * size + scores.columns[rows, 1]
    order = np.argsort(key, kind="stable")
    rows, key = rows[order], key[order]
    if not plain or not len(rows):
        return rows, scores.curvature[rows]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    return rows[starts], np.add.reduceat(scores.curvature[rows], starts)


def _whole_clusters(numbers: NDArray[np.int64], most: int) -> list[slice]:
    """Slices of sorted battles, each of whole clusters, and of some `most` battles unless one cluster has more."""
    starts = [*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(numbers)]
    cuts = [0]
    for before, after in pairwise(starts):
        if after - cuts[-1] > most and before > cuts[-1]:
            cuts.append(before)
    return [slice(*ends) for ends in zip(cuts, [*cuts[1:], len(numbers)], strict=True)] if len(numbers) else []


def effective_number(clusters: Ints) -> float:
    """The equal clusters that would weigh as much: n^2 over the sum of their squared sizes."""
    sizes = np.unique(clusters, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())
