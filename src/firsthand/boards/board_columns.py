"""Chooses the columns that a board counts, and refuses to mix protocols, metrics or scales in one of them."""

# M models, T tasks

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from firsthand.boards.board_results import BoardResult, ColumnKey, Floats, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.errors import ConfigError, DataError
from firsthand.stats.intervals import Interval, in_unit, interval_of, moments
from firsthand.system.plurals import count_of

Places = NDArray[np.int64]
MAX_MODELS = 10_000
"""Ranks compare all pairs of models, in tables of this many by as many."""
MAX_COLUMNS = 2_000
"""Columns are compared with each other, so that their time grows as the square."""
PERCENTS_ABOVE = 10
"""Values up to this may be percents, or points out of 5 or 10."""


@dataclass(frozen=True)
class BoardColumn:
    """One benchmark under one protocol and metric, on the scale from 0 to 1 where its scale is known."""

    name: str
    """The benchmark, with protocol or metric where the board has several of them."""
    key: ColumnKey
    entry: BenchmarkEntry
    cells: Mapping[str, BoardResult]
    """Model -> its result, scaled."""
    items: ItemScores | None
    factor: float
    """Number that the items' scores are multiplied by to be on the column's scale."""

    @cached_property
    def lower_is_better(self) -> bool:
        """True for a column such as a calibration error."""
        if self.entry.lower_is_better is not None:
            return self.entry.lower_is_better
        return any(each.lower_is_better for each in self.cells.values())

    @property
    def category(self) -> str:
        """The category that it counts in; its own name if it has none."""
        return self.entry.category or self.name

    def covariance(self, models: list[str]) -> Floats:
        """Shape (M, M): the covariance of these models' scores; NaN variance where no error is known.

        Models that were scored item by item are paired by item; others are independent of all.
        """
        here, rows = self._with_items(models)
        with_items = set(here)
        lower = [
            self.lower_is_better and i not in with_items for i in range(len(models))
        ]  # items show their own bounds
        cells = [replace(self.cells[name], lower_is_better=each) for name, each in zip(models, lower, strict=True)]
        errors = np.array([each.standard_error for each in cells])
        covariance: Floats = np.diag(errors**2)
        if self.items is None:
            return covariance
        if here:
            found = self.items.covariance(rows) * self.factor**2
            diagonal = np.diag(covariance)[here]
            covariance[np.ix_(here, here)] = found
            empty = np.diag(found) <= 0  # all items alike: the error of a share of so many items
            covariance[np.array(here)[empty], np.array(here)[empty]] = diagonal[empty]
        return covariance

    def degrees(self, models: list[str]) -> Floats:
        """Shape (M): the degrees of freedom of each model's error; infinite where the number of items is not known."""
        degrees = np.array([self.cells[name].n - 1.0 if self.cells[name].n else np.inf for name in models])
        here, rows = self._with_items(models)
        if self.items is not None and here:
            degrees[here] = self.items.units()[rows] - 1.0
        return degrees

    def p_bounds(self, models: list[str]) -> Callable[[Places, Places], Floats]:
        """The least p-values that items allow pairs of these models, by their places; 0 for one without item scores."""
        here, rows = self._with_items(models)
        own = np.full(len(models), -1)
        own[here] = rows

        def bounds(first: Places, second: Places) -> Floats:
            a, b = own[first], own[second]
            found = np.zeros((len(a), len(b)))
            if self.items is not None and (a >= 0).any() and (b >= 0).any():
                found[np.ix_(a >= 0, b >= 0)] = self.items.p_bounds(a[a >= 0].tolist(), b[b >= 0].tolist())
            return found

        return bounds

    def run_intervals(self, models: list[str], confidence: float) -> dict[str, Interval]:
        """Return the interval of the run's own table, for models whose items have clusters, several attempts or 0/1 scores.

        Several attempts count where the scores are from 0 to 1. Any other model is left out: its interval is that of the
        standard error.
        """
        here, rows = self._with_items(models)
        found = {}
        for i, row in zip(here, rows, strict=True):
            assert self.items is not None
            known, repeats = np.isfinite(self.items.scores[row]), self.cells[models[i]].repeats
            means = (self.items.scores[row][known].astype(np.float64) * self.factor).tolist()
            named = list(compress(self.items.clusters, known))
            labels = named if len(set(named)) < len(named) else None
            if labels or (in_unit(means) and (repeats > 1 or set(means) <= {0.0, 1.0})):
                found[models[i]] = interval_of(replace(moments(means, labels), repeats=repeats), confidence)
        return found

    def lacking(self) -> dict[str, int]:
        """Model -> the number of items that others have and it has not, for the models that lack any."""
        models = list(self.cells)
        here, rows = self._with_items(models)
        counts = self.items.lacking(rows) if self.items and rows else []
        return {models[i]: count for i, count in zip(here, counts, strict=True) if count}

    def slack(self, models: list[str]) -> Floats | None:
        """Shape (M, M): what a row's lead over a column could lose by items that one of the two lacks; None if none does.

        Such an item may have any score from 0 to 1 where all are within them, else from the lowest to the highest of all.
        """
        here, rows = self._with_items(models)
        if self.items is None or not rows or not any(self.items.lacking(rows)):
            return None
        scores = self.items.scores[rows]
        low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
        if low >= 0 and high * self.factor <= 1:
            low, high = 0.0, 1 / self.factor
        found = self.items.slack(rows, low, high) * self.factor
        slack = np.zeros((len(models), len(models)))
        slack[np.ix_(here, here)] = found.T if self.lower_is_better else found
        return slack

    def _with_items(self, models: list[str]) -> tuple[list[int], list[int]]:
        """The places of those of the models that have item scores here, and their rows in the table of items."""
        own = {name: i for i, name in enumerate(self.items.models)} if self.items else {}
        here = [i for i, name in enumerate(models) if name in own and name in self.cells and self.cells[name].verified]
        return here, [own[models[i]] for i in here]


def board_columns(
    results: ResultSet, spec: BoardSpec, *, protocols: Mapping[str, str], metrics: Mapping[str, str]
) -> tuple[list[BoardColumn], list[str]]:
    """The columns that the board shows, and sentences about what it leaves out.

    Args:
        results: All results.
        spec: The board.
        protocols: Benchmark -> the only protocol that counts, a text that may have * in it; before the definition's.
        metrics: The same for metrics.

    Raises:
        ConfigError: More than `MAX_MODELS` models or `MAX_COLUMNS` columns, or several protocols or metrics of one benchmark
            in a board that makes one number of all columns.
        DataError: A column that mixes percents and fractions.
    """
    if (count := len(results.models)) > MAX_MODELS:
        raise ConfigError(
            f"the results are of {count:,} models, and a board ranks {MAX_MODELS:,} at most: choose some with --models"
        )
    chosen: dict[tuple[str, str], list[tuple[ColumnKey, BenchmarkEntry, dict[str, BoardResult]]]] = {}
    others: set[str] = set()
    for key, cells in results.columns().items():
        found = spec.entry(key.benchmark, key.metric)
        if found is None:
            others.add(key.benchmark)
            continue
        name, entry = found
        wanted = protocols.get(key.benchmark, entry.protocol), metrics.get(key.benchmark, entry.metric)
        if all(not each or fnmatch.fnmatchcase(has, each) for each, has in zip(wanted, key[1:], strict=True)):
            chosen.setdefault((key.benchmark, name), []).append((key, entry, cells))
    for given in (protocols, metrics):
        if lost := [name for name in given if name not in {key.benchmark for key in results.columns()}]:
            raise ConfigError(f"no result is of the benchmark {lost[0]!r}: name one that the results hold")
    if not chosen:
        held = ", ".join(sorted({key.benchmark for key in results.columns()})[:8])
        if not held:
            why = " ".join(results.remarks) or "each cell is empty."
            raise ConfigError(f"the results hold no score that can be used: {why}")
        raise ConfigError(f"no result counts on the board {spec.name}: the results are of {held}")
    if (count := sum(map(len, chosen.values()))) > MAX_COLUMNS:
        raise ConfigError(
            f"the results fill {count:,} columns, and a board has {MAX_COLUMNS:,} at most: list the benchmarks in a "
            "definition"
        )
    items = {each.key: each for each in results.items}
    columns, said = [], []
    for (benchmark, _), found_here in chosen.items():
        if len(found_here) > 1 and spec.rule != "each":
            raise ConfigError(_mixture(benchmark, [key for key, _, _ in found_here]))
        for key, entry, cells in found_here:
            several = len(found_here) > 1 or sum(name == benchmark for name, _ in chosen) > 1
            label = _label(key, [each for each, _, _ in found_here]) if several else benchmark
            table = items.get(key)
            scale, remark = _scale(label, entry, cells, table, must_know=spec.rule == "weighted")
            said += [remark] if remark else []
            scaled = {
                model: replace(each, value=each.value / scale, error=None if each.error is None else each.error / scale)
                for model, each in cells.items()
            }
            columns.append(BoardColumn(label, key, entry, scaled, table, 1 / scale))
            said += _directions(columns[-1])
    if lower := [each.name for each in columns if each.entry.lower_is_better is None and each.lower_is_better]:
        said.append(f"Lower is better on {', '.join(lower[:5])}{' ...' if len(lower) > 5 else ''}.")
    if others:
        named = ", ".join(sorted(others)[:5]) + (" ..." if len(others) > 5 else "")
        said.append(f"{count_of(len(others), 'benchmark')} of the results are not of this board: {named}.")
    return columns, said


def _directions(column: BoardColumn) -> list[str]:
    """A sentence if the results disagree whether lower is better and the definition does not say it."""
    lower = [name for name, each in column.cells.items() if each.lower_is_better]
    if column.entry.lower_is_better is not None or len(lower) in (0, len(column.cells)):
        return []
    return [
        f"Lower is better on {column.name} by {count_of(len(lower), 'result')}, {lower[0]} for example, and not by "
        f"the other {len(column.cells) - len(lower):,}: it is taken as lower for all; correct the source, or state "
        "lower_is_better in the board's definition."
    ]


def _label(key: ColumnKey, keys: list[ColumnKey]) -> str:
    """The benchmark with what tells it from the others."""
    parts = [part for part, every in ((key.metric, {k.metric for k in keys}), (key.protocol, {k.protocol for k in keys}))
             if len(every) > 1 or len(keys) == 1]  # fmt: skip
    return f"{key.benchmark} [{'; '.join(part or 'not stated' for part in parts if part or len(keys) > 1)}]"


def _mixture(benchmark: str, keys: list[ColumnKey]) -> str:
    protocols = list(dict.fromkeys(key.protocol for key in keys))
    what, values, flag = ("protocols", protocols, "protocol") if len(protocols) > 1 else (
        "metrics", list(dict.fromkeys(key.metric for key in keys)), "metric"
    )  # fmt: skip
    shown = ", ".join(repr(each)[:80] if each else "one that is not stated" for each in values[:4])
    return (
        f"{benchmark} has results under {len(values)} {what}, {shown}, which are not mixed in one column: choose one with "
        f"--{flag} {benchmark}=... (* stands for anything)"
    )


def _scale(
    name: str,
    entry: BenchmarkEntry,
    cells: Mapping[str, BoardResult],
    items: ItemScores | None = None,
    *,
    must_know: bool,
) -> tuple[float, str]:
    """The value of a perfect score in the column, and a sentence about values below 0 or of an unknown scale.

    Values above 10, and none in percents below 1, are percents. Those up to 10 may be points out of 5 or 10 as well, and
    those of runs are on their scorers' scale: neither is divided by a guess.
    """
    values = [each.value for each in cells.values()]
    negative = sum(value < 0 for value in values)
    said = f"{count_of(negative, 'result')} on {name} lie below 0 and are kept." if negative else ""
    if entry.scale != 1:
        if (top := max(values)) > entry.scale:
            raise DataError(f"{name} has the value {top:g}, above its scale of {entry.scale:g}: correct one of them")
        return entry.scale, said
    largest, lowest = max(values), min(values)
    lower = (
        any(each.lower_is_better for each in cells.values()) if entry.lower_is_better is None else entry.lower_is_better
    )
    may_be_percent = all(replace(each, lower_is_better=lower).is_bounded for each in cells.values())
    peak = largest  # of a bounded metric also that of its items, which tell points from percents
    if may_be_percent and items is not None and np.isfinite(items.scores).any():
        peak = max(largest, float(np.nanmax(items.scores)))
    if peak <= 1:
        return 1.0, said
    # a mean rating of exactly 1 is the lowest of 1 to 5 or 10, and no fraction
    small = [each for each in cells.values() if 0 < each.value < 1 or (each.value == 1 and peak > PERCENTS_ABOVE)]
    if not all(each.of_run for each in cells.values()):
        if PERCENTS_ABOVE < peak <= 100 and not small and may_be_percent:
            return 100.0, said
        if small and largest > 1 and peak <= 100 and may_be_percent:
            big = max(cells.values(), key=lambda each: each.value)
            raise DataError(
                f"{name} mixes percents and fractions, or has a percent below 1: {small[0].model} has {small[0].value:g} "
                f"and {big.model} {big.value:g}; give its scale, such as 100, in the board's definition"
                if lowest >= 0
                else f"{name} has values from {lowest:g} to {largest:g}: give its scale in the board's definition"
            )
        if not must_know and peak <= PERCENTS_ABOVE and may_be_percent:
            unknown = f"The scale of {name} is not known, and its values up to {largest:g} are kept as they are."
            return 1.0, f"{said} {unknown}".strip()
    if not must_know:
        return 1.0, said
    what = "values" if largest > 1 else "item scores"
    raise DataError(
        f"{name} has {what} up to {max(largest, peak):g}: give its scale, the perfect score, in the board's definition"
    )
