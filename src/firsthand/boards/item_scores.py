"""A model's number on a benchmark, and a column's table of item scores, of which such numbers are the means."""

# M models, T tasks

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from firsthand.errors import DataError
from firsthand.message import Json

Floats = NDArray[np.float64]
MAX_CELLS = 20_000_000
"""Models times items of one column. Files of two small parts each, joined, could make it gigabytes."""
_MANY_UNITS = 200
"""Units that differ, beyond which the chance that all their signs agree is below any level."""
_WORD = re.compile(r"[a-z0-9]+")
_UNBOUNDED = frozenset(
    {"perplexity", "ppl", "bits", "bpb", "bpc", "loss", "nll", "logprob", "logprobs", "loglikelihood"}
    | {"mse", "rmse", "mae", "squared", "absolute", "wer", "cer", "ter", "word", "character", "edit"}
)
"""Words in the names of metrics whose value for an item may lie beyond 1, in small letters."""
_RATES = frozenset({"error", "errors", "rate", "share", "fraction", "percent", "percentage"})
"""Words in the names of metrics of which lower may be better and that are shares all the same."""
_NO_MEANS = frozenset(
    [
        "correlation",
        "corr",
        "mcc",
        "matthews",
        "pearson",
        "pearsonr",
        "spearman",
        "spearmanr",
        "kendall",
        "kendalltau",
        "r2",
        "calibration",
        "ece",
    ]
)
"""Words in the names of metrics that are no means over items."""


class ColumnKey(NamedTuple):
    """A column of a board: results under one key may be compared."""

    benchmark: str
    protocol: str
    metric: str


@dataclass(frozen=True)
class BoardResult:
    """A model's number on a benchmark."""

    model: str
    benchmark: str
    value: float
    protocol: str = ""
    """Prompting and scoring in words: shots, extraction, version. Empty if the file does not say."""
    metric: str = ""
    error: float | None = None
    """Standard error; None if it is not known."""
    n: int = 0
    """Items behind the number; 0 if it is not known."""
    lower_is_better: bool = False
    group: str = ""
    """The type or category that the file gives the benchmark, such as MTEB's task type."""
    cost_usd: float | None = None
    """Money per item."""
    seconds: float | None = None
    """Seconds per item."""
    when: str = ""
    """UTC, ISO 8601; empty if it is not known."""
    verified: bool = False
    source: str = ""
    """The file or run that holds it."""
    run: str = ""
    """The id of the run or log."""
    commit: str = ""
    """The commit of the program that made it."""
    data_hash: str = ""
    """A hash of the benchmark's data, or its version."""
    repeats: int = 1
    """Attempts at each item where its score is their mean and each is 0 or 1, equally many; else 1."""
    of_run: bool = False
    """True if a run of firsthand holds it: the number is on its scorer's scale, as the run's own table shows it."""

    @property
    def key(self) -> ColumnKey:
        """The column it belongs to."""
        return ColumnKey(self.benchmark, self.protocol, self.metric)

    @property
    def standard_error(self) -> float:
        """The standard error: as stated, or of a share of `n` items by Agresti and Coull; NaN if neither is known.

        A stated 0 says that all items were alike, and not that the number is certain, so it is that of a share too.
        """
        if self.error:
            return self.error
        if self.n > 0 and 0 <= self.value <= 1 and self.may_be_share:
            share = (self.value * self.n + 2) / (self.n + 4)
            return math.sqrt(share * (1 - share) / (self.n + 4))
        return math.nan

    @property
    def is_bounded(self) -> bool:
        """True unless the metric's name or its direction says that an item's score may lie beyond 1."""
        words = set(_WORD.findall(f"{self.metric or self.benchmark}".casefold()))
        return words.isdisjoint(_UNBOUNDED) and (not self.lower_is_better or not words.isdisjoint(_RATES))

    @property
    def may_be_share(self) -> bool:
        """True if it may be a mean over items of scores from 0 to 1, whose variance is that of a share at most."""
        words = set(_WORD.findall(f"{self.metric or self.benchmark}".casefold()))
        return self.is_bounded and words.isdisjoint(_NO_MEANS)

    @property
    def identity(self) -> tuple[object, ...]:
        """The number and what it is of, without the file it came from: equal for a file imported twice."""
        return tuple(value for name, value in vars(self).items() if name not in ("source", "verified"))

    def to_json(self) -> Json:
        """The result as a JSON object."""
        return dict(vars(self))


@dataclass(frozen=True)
class ItemScores:
    """The scores of several models on the items of one column."""

    key: ColumnKey
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    scores: NDArray[np.float32]
    """Shape (M, T); NaN where a model has no score."""
    clusters: tuple[str, ...] = ()
    """The cluster of each task; empty if each stands alone."""
    abouts: tuple[BoardResult, ...] = ()
    """For each model what its result is told besides the numbers: source, run, commit, data hash, date, cost. Or empty."""
    problems: tuple[str, ...] = ()
    """The digest of each task's content (`problem_digest`), empty where it is not known; or empty."""

    @staticmethod
    def of(
        key: ColumnKey, by_model: Mapping[str, Mapping[str, float]], abouts: Sequence[BoardResult] = ()
    ) -> ItemScores:
        """The table of each model's scores by item; DataError if it had more than `MAX_CELLS` cells, before it is made."""
        tasks = {task: i for i, task in enumerate(dict.fromkeys(task for each in by_model.values() for task in each))}
        scores = empty_scores(len(by_model), len(tasks), key.benchmark)
        for row, each in zip(scores, by_model.values(), strict=True):
            row[[tasks[task] for task in each]] = list(each.values())
        return ItemScores(key, tuple(by_model), tuple(tasks), scores, abouts=tuple(abouts))

    def results(self) -> list[BoardResult]:
        """Each model's mean with its standard error."""
        variances = np.square(self._centred).sum(1)
        counts = np.isfinite(self.scores).sum(1)
        means = self.means()
        base = BoardResult("", self.key.benchmark, 0.0)
        return [
            replace(
                self.abouts[i] if self.abouts else base,
                model=model,
                benchmark=self.key.benchmark,
                protocol=self.key.protocol,
                metric=self.key.metric,
                value=float(means[i]),
                error=_error(float(means[i]), float(variances[i])),
                n=int(counts[i]),
                verified=True,
            )
            for i, model in enumerate(self.models)
            if counts[i]
        ]

    def means(self) -> Floats:
        """Shape (M): the mean of each model's own items; NaN without any."""
        found = np.isfinite(self.scores)
        total = np.where(found, self.scores, 0).sum(1, dtype=np.float64)
        means: Floats = total / np.where(found.any(1), found.sum(1), np.nan)
        return means

    def covariance(self, rows: Sequence[int] | None = None) -> Floats:
        """Shape (M, M): the covariance of the means over draws of items, or of clusters of items; of some rows if given.

        Models that were scored on the same items share the items' difficulty, so differences are paired. The sandwich form:
        the sum over units of the product of centred sums, over the product of the models' numbers of items.
        """
        centred = self._centred if rows is None else self._centred[list(rows)]
        product: Floats = centred @ centred.T
        return product

    def lacking(self, rows: Sequence[int]) -> list[int]:
        """For each of these rows the number of items that another of them has and it does not."""
        found = np.isfinite(self.scores[list(rows)])
        return [int(count) for count in found.any(0).sum() - found.sum(1)]

    def slack(self, rows: Sequence[int], low: float, high: float) -> Floats:
        """Shape (M, M): what each row's lead over each other could lose by the items that only one of the two has.

        The least lead is that on the items of either, where the first has `low` for what it lacks, and the second `high`.
        """
        found = np.isfinite(self.scores[list(rows)])
        sums = np.where(found, self.scores[list(rows)], 0).sum(1, dtype=np.float64)
        counts = found.sum(1)
        common = found.astype(np.float64) @ found.T
        own = counts[:, None] - common
        either = np.maximum(own + counts[None, :], 1)
        least = (sums[:, None] + low * own.T - sums[None, :] - high * own) / either
        means = sums / np.maximum(counts, 1)
        lost: Floats = np.where((own == 0) & (own.T == 0), 0.0, means[:, None] - means[None, :] - least)
        return lost

    def p_bounds(self, rows: Sequence[int], others: Sequence[int]) -> Floats:
        """Shape (rows, others): the least two-sided p-value of no difference that each pair's items allow, however few.

        Where all scores are one of two values, as right and wrong, it is McNemar's mid-p value (Fagerland, Lydersen and
        Laake, 2013), which loses less power than the exact one. Else it is that of signs that flip by chance and all agree,
        2 to the power of 1 - d for the d units in which the two models differ.
        """
        if self._is_two_valued:
            right, wrong = self.scores == np.nanmax(self.scores), self.scores == np.nanmin(self.scores)
            ours, theirs = (right[rows], wrong[rows]), (right[others], wrong[others])
            wins = ours[0].astype(np.float32) @ theirs[1].astype(np.float32).T
            losses = ours[1].astype(np.float32) @ theirs[0].astype(np.float32).T
            more, less = np.maximum(wins, losses).astype(np.float64), np.minimum(wins, losses).astype(np.float64)
            middle: Floats = betainc(more, less + 1, 0.5) + betainc(more + 1, less, 0.5)  # P(X <= less) + P(X < less)
            return np.where(wins == losses, 1.0, middle)
        sums = self._by_unit(np.nan_to_num(self.scores))
        differ = np.zeros((len(rows), len(others)), np.int64)
        step = max(1, MAX_CELLS // max(differ.size, 1))
        for start in range(0, sums.shape[1], step):
            part = sums[:, start : start + step]
            differ += (part[rows][:, None, :] != part[others][None, :, :]).sum(2)
            if differ.min() >= _MANY_UNITS:
                break
        bounds: Floats = np.minimum(1.0, 2.0 ** (1.0 - np.minimum(differ, _MANY_UNITS)))
        return bounds

    def units(self) -> NDArray[np.int64]:
        """Shape (M): the items, or clusters of items, on which each model has a score."""
        counts: NDArray[np.int64] = (self._by_unit(np.isfinite(self.scores).astype(np.int64)) > 0).sum(1)
        return counts

    @cached_property
    def _is_two_valued(self) -> bool:
        extremes = np.nanmin(self.scores), np.nanmax(self.scores)
        alone = len(set(self.clusters)) == len(self.clusters)
        return alone and bool((np.isnan(self.scores) | np.isin(self.scores, extremes)).all())

    def _by_unit(self, values: NDArray[Any]) -> NDArray[Any]:
        """Shape (M, units): the values of shape (M, T) added up by cluster; as they are if no item has one."""
        if not self.clusters:
            return values
        _, places = np.unique(np.array(self.clusters), return_inverse=True)
        order = np.argsort(places, kind="stable")
        starts = np.flatnonzero(np.diff(places[order], prepend=-1))
        return np.add.reduceat(values[:, order], starts, axis=1)

    @cached_property
    def _centred(self) -> Floats:
        """Shape (M, units): sums of centred scores of each unit, scaled so that their products are covariances."""
        found = np.isfinite(self.scores)
        counts = np.maximum(found.sum(1), 1)
        centred = self._by_unit(np.where(found, self.scores - self.means()[:, None], 0))
        units = centred.shape[1]
        factor = np.sqrt(units / (units - 1)) if units > 1 else np.nan
        scaled: Floats = centred * (factor / counts[:, None])
        return scaled


def _error(mean: float, variance: float) -> float | None:
    """The square root of the variance; None if it is unknown, and of equal shares, whose error follows from their number."""
    if not math.isfinite(variance):
        return None
    if variance <= 0 and 0 <= mean <= 1:
        return None
    return math.sqrt(max(variance, 0))


def empty_scores(models: int, tasks: int, benchmark: str) -> NDArray[np.float32]:
    """Shape (M, T), all NaN; DataError above `MAX_CELLS`. All tables of item scores begin here."""
    expect_cells(models, tasks, f"{benchmark:.200} has {models:,} models and {tasks:,} items in all its files")
    return np.full((models, tasks), np.nan, np.float32)


def expect_cells(rows: int, columns: int, told: str) -> None:
    """DataError for a table of more than `MAX_CELLS` cells; `told` says of what, with both numbers."""
    if (cells := rows * columns) > MAX_CELLS:
        raise DataError(
            f"{told}, {cells:,} cells, and {MAX_CELLS:,} are compared: give files with the same items, or fewer of them"
        )
