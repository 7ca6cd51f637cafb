"""Aggregates of a table of scores: mean win rate, Borda counts, means over types, scores above chance.

Pure functions of a table with NaN where a score is missing. A missing score is never filled in.
"""

# M models, C columns (benchmarks or tasks), G groups of columns

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def above_chance(value: float, chance: float) -> float:
    """A score where `chance` becomes 0 and a perfect one stays 1; below chance it is 0 (Open LLM Leaderboard v2)."""
    return max(0.0, (value - chance) / (1 - chance))


def column_win_rates(values_MC: Floats, lower_is_better_C: Sequence[bool] = ()) -> Floats:
    """Shape (M, C): the share of the other models with a score in the column that a model beats; a tie is half a win.

    A column with fewer than two scores gives NaN (HELM's `compute_aggregate_row_win_rates`, Liang et al., 2022).
    """
    signs = np.where(np.array(lower_is_better_C, bool), -1.0, 1.0) if len(lower_is_better_C) else 1.0
    signed = values_MC * signs
    rates = np.full_like(signed, np.nan)
    for column in range(signed.shape[1]):
        here = np.flatnonzero(~np.isnan(signed[:, column]))
        if len(here) < 2:
            continue
        values = signed[here, column]
        ordered = np.sort(values)
        below = np.searchsorted(ordered, values, "left")
        equal = np.searchsorted(ordered, values, "right") - below - 1
        rates[here, column] = (below + equal / 2) / (len(here) - 1)
    return rates


def mean_win_rates(values_MC: Floats, lower_is_better_C: Sequence[bool] = ()) -> Floats:
    """Shape (M): the mean of a model's win rates over the columns where it has one; NaN if it has none."""
    return _row_means(column_win_rates(values_MC, lower_is_better_C))


def borda_counts(values_MC: Floats) -> Floats:
    """Shape (M, C): the models of the table less the model's rank in the column, 1 for the best; ties share a mean rank.

    Each column is a voter (MTEB; Colombo et al., 2022). A missing score gives NaN, which adds no points.
    """
    size = len(values_MC)
    counts = np.full_like(values_MC, np.nan)
    for column in range(values_MC.shape[1]):
        here = np.flatnonzero(~np.isnan(values_MC[:, column]))
        values = values_MC[here, column]
        ordered = np.sort(values)
        above = len(here) - np.searchsorted(ordered, values, "right")
        equal = len(here) - above - np.searchsorted(ordered, values, "left")
        counts[here, column] = size - (above + (equal + 1) / 2)
    return counts


def borda_ranks(values_MC: Floats) -> NDArray[np.int64]:
    """Shape (M): the rank by the sum of Borda counts, 1 for the most points; equal sums share the better rank."""
    points = np.nansum(borda_counts(values_MC), axis=1)
    ranks: NDArray[np.int64] = 1 + (points[None, :] > points[:, None]).sum(1)
    return ranks


def mean_over_groups(values_MC: Floats, groups_C: Sequence[str]) -> tuple[Floats, Floats]:
    """Shapes (M) and (M, G): the mean of the means of each group of columns, and those means, in order of first appearance.

    NaN for a model that lacks any column, or any column of the group (MTEB's mean over task types).
    """
    names = list(dict.fromkeys(groups_C))
    means_MG = np.stack(
        [values_MC[:, [i for i, each in enumerate(groups_C) if each == name]].mean(1) for name in names], 1
    )
    return means_MG.mean(1), means_MG


def pooled_mean(values: Sequence[float], sizes: Sequence[int], *, by_size: bool = True) -> float:
    """The mean of subtasks, weighted by their sizes or equally (lm-evaluation-harness's aggregated groups)."""
    weights = list(sizes) if by_size else [1] * len(values)
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def pooled_standard_error(errors: Sequence[float], sizes: Sequence[int]) -> float:
    """The standard error of a pooled mean from those of its subtasks, as lm-evaluation-harness pools them."""
    squares = sum((size - 1) * error**2 * size for size, error in zip(sizes, errors, strict=True))
    variance = squares / (sum(sizes) - len(sizes))
    return float(np.sqrt(variance / sum(sizes)))


def _row_means(values_MC: Floats) -> Floats:
    found = ~np.isnan(values_MC)
    total: Floats = np.where(found, values_MC, 0).sum(1) / np.where(found.any(1), found.sum(1), np.nan)
    return total
