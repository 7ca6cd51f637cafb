"""Makes a board from results: scores with intervals, ranks that are shared where models cannot be told apart.

A weighted board's errors are those of items: models scored on the same items are compared item by item. A board by win rates
or Borda counts takes its benchmarks as a sample of benchmarks, so its errors are those between columns.
"""

# M models, C columns

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from scipy.special import ndtri, stdtrit

from firsthand.boards.aggregates import above_chance, borda_counts, borda_ranks, column_win_rates, mean_over_groups
from firsthand.boards.board_columns import BoardColumn, board_columns
from firsthand.boards.board_results import BoardResult, Floats, ResultSet
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.missing_items import remarks_on_items, slack_of_scores, slack_of_wins
from firsthand.boards.random_orders import largest_of_equal_models
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.stats.intervals import CONFIDENCE, finite
from firsthand.stats.joint_ranks import PBounds, rank_ranges
from firsthand.system.plurals import count_of


@dataclass(frozen=True)
class BoardLine:
    """A ranked model."""

    model: str
    rank_low: int
    """The best rank that the data allow."""
    rank_high: int
    score: float
    low: float
    """The ends of the score's interval; NaN where no error is known."""
    high: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """Means of categories, or further figures, by name."""
    cells: Mapping[str, BoardResult] = field(default_factory=dict)
    """Column -> the result behind it."""

    def to_json(self) -> Json:
        """The line as a JSON object, each number with its origin."""
        return {
            "model": self.model,
            "rank": [self.rank_low, self.rank_high],
            "score": self.score,
            "interval": [finite(self.low), finite(self.high)],
            "parts": dict(self.parts),
            "results": {name: each.to_json() for name, each in self.cells.items()},
        }


@dataclass(frozen=True)
class UnrankedModel:
    """A model without a rank, because results are missing; nothing is put in their place."""

    model: str
    missing: tuple[str, ...]
    cells: Mapping[str, BoardResult] = field(default_factory=dict)

    def to_json(self) -> Json:
        """The model as a JSON object."""
        return {
            "model": self.model,
            "missing": list(self.missing),
            "results": {name: each.to_json() for name, each in self.cells.items()},
        }


@dataclass(frozen=True)
class BoardSection:
    """A table of models that are ranked among themselves."""

    title: str
    score: str
    """The heading of the score."""
    lines: tuple[BoardLine, ...]
    unranked: tuple[UnrankedModel, ...] = ()

    def to_json(self) -> Json:
        """The section as a JSON object."""
        return {
            "title": self.title,
            "score": self.score,
            "lines": [each.to_json() for each in self.lines],
            "unranked": [each.to_json() for each in self.unranked],
        }


@dataclass(frozen=True)
class MadeBoard:
    """A board with its tables and what must be said about them."""

    spec: BoardSpec
    sections: tuple[BoardSection, ...]
    remarks: tuple[str, ...]
    confidence: float = CONFIDENCE

    def to_json(self) -> Json:
        """The board as a JSON object."""
        return {
            "board": self.spec.name,
            "title": self.spec.title,
            "about": self.spec.about,
            "rule": self.spec.rule,
            "confidence": self.confidence,
            "sections": [each.to_json() for each in self.sections],
            "remarks": list(self.remarks),
        }


def make_board(
    results: ResultSet,
    spec: BoardSpec,
    *,
    confidence: float = CONFIDENCE,
    protocols: Mapping[str, str] | None = None,
    metrics: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> MadeBoard:
    """The board of some results.

    Args:
        results: The results of all models.
        spec: The definition of the board.
        confidence: Level of the intervals, and of all ranks of a table together.
        protocols: Benchmark -> the only protocol that counts.
        metrics: Benchmark -> the only metric that counts.
        now: The time that staleness is measured from.

    Raises:
        ConfigError: No results, several protocols in one column, or no benchmark that all models share.
        DataError: A column of mixed scales.
    """
    columns, said = board_columns(results, spec, protocols=protocols or {}, metrics=metrics or {})
    said = [*results.remarks, *said, *remarks_on_items(columns), *_stale(columns, spec, now or datetime.now(UTC))]
    if results.duplicates:
        said.append(f"{count_of(results.duplicates, 'repeated result', ',')} counted once.")
    if spec.rule == "each":
        sections = [_of_column(column, confidence) for column in columns]
        return MadeBoard(spec, tuple(sections), tuple(said), confidence)
    counted = [column for column in columns if not column.entry.display_only]
    if not counted:
        raise ConfigError(f"every benchmark of the board {spec.name} is display_only: let one count")
    models = list(dict.fromkeys(model for column in columns for model in column.cells))
    counted = _common(counted, models) if spec.missing == "common" else counted
    lacking = {model: tuple(each.name for each in counted if model not in each.cells) for model in models}
    sections = [
        _section(title, group, columns, counted, lacking, spec, confidence)
        for title, group in _groups(models, columns, counted, spec)
    ]
    if spec.categories and (empty := [name for name in spec.categories if name not in {c.category for c in counted}]):
        share = sum(spec.categories[name] for name in empty) / sum(spec.categories.values())
        said.append(f"No model has a result in {', '.join(empty)}: {share:.0%} of the weight is left out for all.")
    return MadeBoard(spec, tuple(sections), tuple(said), confidence)


def _groups(
    models: list[str], columns: list[BoardColumn], counted: list[BoardColumn], spec: BoardSpec
) -> list[tuple[str, list[str]]]:
    """The tables of the board: models whose numbers were all computed here, and those with a reported one.

    Numbers that are displayed only count for a model that has no others.
    """
    if spec.reported == "together":
        return [("", models)]
    has_counted = {model for column in counted for model in column.cells}
    reported = {
        model
        for column in columns
        for model, result in column.cells.items()
        if not result.verified and (column in counted or model not in has_counted)
    }
    found = [
        ("verified: every number computed from item scores", [each for each in models if each not in reported]),
        ("reported: at least one number is only stated", [each for each in models if each in reported]),
    ]
    return [(title, group) for title, group in found if group]


def _common(counted: list[BoardColumn], models: list[str]) -> list[BoardColumn]:
    shared = [column for column in counted if all(model in column.cells for model in models)]
    if not shared:
        raise ConfigError(
            f'no benchmark has results of all {len(models)} models: leave out a model, or take missing = "unranked"'
        )
    return shared


def _section(
    title: str,
    models: list[str],
    columns: list[BoardColumn],
    counted: list[BoardColumn],
    lacking: Mapping[str, tuple[str, ...]],
    spec: BoardSpec,
    confidence: float,
) -> BoardSection:
    complete = [model for model in models if not lacking[model]]
    rule = {"weighted": _weighted, "win-rate": _by_win_rate, "borda": _by_borda}[spec.rule]
    score, lines = rule(complete, models, counted, spec, confidence) if complete else (_HEADINGS[spec.rule], [])
    cells = {
        model: {column.name: column.cells[model] for column in columns if model in column.cells} for model in models
    }
    return BoardSection(
        title,
        score,
        tuple(BoardLine(**{**vars(line), "cells": cells[line.model]}) for line in lines),
        tuple(UnrankedModel(model, lacking[model], cells[model]) for model in models if lacking[model]),
    )


_HEADINGS = {"weighted": "score", "win-rate": "mean win rate", "borda": "Borda points"}
_Ruled = tuple[str, list[BoardLine]]


def _weighted(
    models: list[str], every: list[str], counted: list[BoardColumn], spec: BoardSpec, confidence: float
) -> _Ruled:
    """Means of categories by their weights; the errors are those of items."""
    weights = column_weights(counted, spec)
    values_MC = np.array([[_value(column, model) for column in counted] for model in models])
    scores = values_MC @ weights
    covariance = np.zeros((len(models), len(models)))
    factors = [float(weight) / (1 - column.entry.chance) for column, weight in zip(counted, weights, strict=True)]
    for column, factor in zip(counted, factors, strict=True):
        if factor:
            covariance += factor**2 * column.covariance(models)
    parts: list[dict[str, float]] = [{} for _ in models]
    for category in dict.fromkeys(column.category for column in counted):
        here = [i for i, column in enumerate(counted) if column.category == category]
        within = weights[here] / weights[here].sum() if weights[here].sum() else np.full(len(here), 1 / len(here))
        for part, mean in zip(parts, values_MC[:, here] @ within, strict=True):
            part[category] = float(mean)
    slack = slack_of_scores(counted, factors, models)
    lines = _lines(
        models, scores, covariance, _weighted_degrees(counted, factors, models), confidence, parts, slack=slack
    )
    return "score", _within_shares(lines) if all(map(_is_share, counted)) else lines


def _weighted_degrees(columns: Sequence[BoardColumn], factors: Sequence[float], models: list[str]) -> Floats:
    """Shape (M): the degrees of freedom of weighted sums of columns (Welch, 1947, and Satterthwaite, 1946)."""
    total, over = np.zeros(len(models)), np.zeros(len(models))
    for column, factor in zip(columns, factors, strict=True):
        if factor:
            variance = factor**2 * np.diag(column.covariance(models))
            total += variance
            over += variance**2 / np.maximum(column.degrees(models), 1e-9)
    degrees: Floats = np.full(len(models), np.inf)
    np.divide(total**2, over, out=degrees, where=over > 0)
    return degrees


def column_weights(counted: Sequence[BoardColumn], spec: BoardSpec) -> Floats:
    """The weight of each column in the score; they sum to 1. Categories without a column have no part in it."""
    categories = list(dict.fromkeys(column.category for column in counted))
    total = sum(spec.categories.get(each, 0 if spec.categories else 1) for each in categories)
    if total <= 0:
        raise ConfigError(f"the board {spec.name} has no weight on any benchmark with results: give a weight above 0")
    weights = []
    for column in counted:
        within = sum(each.entry.weight for each in counted if each.category == column.category)
        share = column.entry.weight / within if within else 0.0
        weights.append(spec.categories.get(column.category, 0 if spec.categories else 1) / total * share)
    return np.array(weights)


def _value(column: BoardColumn, model: str) -> float:
    """The score that counts: higher is better, and guessing is 0."""
    value = column.cells[model].value
    value = 1 - value if column.lower_is_better else value
    return above_chance(value, column.entry.chance) if column.entry.chance else value


def _table(columns: list[BoardColumn], models: list[str]) -> tuple[Floats, list[bool]]:
    values = [[column.cells[name].value if name in column.cells else np.nan for column in columns] for name in models]
    return np.array(values, np.float64), [column.lower_is_better for column in columns]


def _by_win_rate(
    models: list[str], every: list[str], counted: list[BoardColumn], spec: BoardSpec, confidence: float
) -> _Ruled:
    """HELM's mean win rate; the errors are those between scenarios."""
    values_MC, lower_C = _table(counted, every)
    own = [every.index(name) for name in models]
    rates_MC = column_win_rates(values_MC, lower_C)[own]
    rates_MC = rates_MC[:, ~np.isnan(rates_MC).any(0)]  # a column with one model has no win rates
    size = rates_MC.shape[1]
    if not size:
        raise ConfigError("a mean win rate needs two models with results on one benchmark: import another model")
    covariance = _between_columns(rates_MC, 0.5) / size
    critical = largest_of_equal_models(len(models), size, confidence)
    slack = slack_of_wins(counted, values_MC * np.where(lower_C, -1.0, 1.0), every, shares=True)
    slack = None if slack is None else slack[np.ix_(own, own)] / size
    parts: list[dict[str, float]] = [{} for _ in models]
    lines = _lines(models, rates_MC.mean(1), covariance, size - 1, confidence, parts, critical, slack)
    return "mean win rate", _within_shares(lines)


def _is_share(column: BoardColumn) -> bool:
    """True for means of item scores from 0 to 1, whose intervals end there too."""
    return all(each.n and 0 <= each.value <= 1 for each in column.cells.values())


def _within_shares(lines: list[BoardLine]) -> list[BoardLine]:
    return [replace(each, low=_share(each.low), high=_share(each.high)) for each in lines]


def _share(value: float) -> float:
    """The value within 0 to 1; NaN stays."""
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def _by_borda(
    models: list[str], every: list[str], counted: list[BoardColumn], spec: BoardSpec, confidence: float
) -> _Ruled:
    """MTEB's Borda count, with the means over tasks and task types; the errors are those between tasks.

    A value of which lower is better is 1 less itself in the means.
    """
    values_MC, lower_C = _table(counted, every)
    signed_MC = values_MC * np.where(lower_C, -1.0, 1.0)
    own = [every.index(name) for name in models]
    counts_MC, plain = borda_counts(signed_MC)[own], borda_ranks(signed_MC)[own]
    size = counts_MC.shape[1]
    groups = [_group(column) for column in counted]
    higher_MC = np.where(lower_C, 1 - values_MC, values_MC)[own]
    by_type, types_MG = mean_over_groups(higher_MC, groups)
    parts: list[dict[str, float]] = []
    for i in range(len(models)):
        part = {"mean (task)": float(higher_MC[i].mean()), "mean (type)": float(by_type[i])}
        part |= dict(zip(dict.fromkeys(groups), map(float, types_MG[i]), strict=True)) if len(set(groups)) > 1 else {}
        parts.append({"Borda rank": float(plain[i]), **part})
    covariance = _between_columns(counts_MC, (len(every) - 1) / 2) * size
    critical = largest_of_equal_models(len(models), size, confidence)
    slack = slack_of_wins(counted, signed_MC, every, shares=False)
    slack = None if slack is None else slack[np.ix_(own, own)]
    return "Borda points", _lines(models, counts_MC.sum(1), covariance, size - 1, confidence, parts, critical, slack)


def _group(column: BoardColumn) -> str:
    """MTEB's task type: the definition's category, or else what the files say."""
    return column.entry.category or next((each.group for each in column.cells.values() if each.group), "no type")


def _between_columns(values_MC: Floats, centre: float) -> Floats:
    """Shape (M, M): the covariance between columns; NaN with fewer than two.

    A further column in which all models are equal, at `centre`, counts too: without it a few columns that agree would tell
    models apart beyond doubt, because their values do not spread at all. The divisor makes the estimate unbiased for models
    that are equal.
    """
    size = values_MC.shape[1]
    if size < 2:
        return np.full((len(values_MC), len(values_MC)), np.nan)
    further = np.concatenate([values_MC, np.full((len(values_MC), 1), centre)], 1)
    centred = further - further.mean(1, keepdims=True)
    product: Floats = centred @ centred.T * ((size + 1) / size**2)
    return product


def _lines(
    models: list[str],
    scores: Floats,
    covariance: Floats,
    degrees: float | Floats,
    confidence: float,
    parts: Sequence[Mapping[str, float]],
    critical: float | None = None,
    slack: Floats | None = None,
    p_bounds: PBounds | None = None,
) -> list[BoardLine]:
    """The models from best to worst, with intervals, normal where degrees are a model's own, and shared ranks."""
    errors = np.sqrt(np.clip(np.diag(covariance), 0, None))
    tail = (1 + confidence) / 2
    reach, known = float(ndtri(tail)), degrees
    if not isinstance(degrees, np.ndarray):
        reach = float(stdtrit(degrees, tail)) if degrees > 0 else math.nan
        known = degrees if degrees > 0 else math.inf
    ranges = rank_ranges(
        scores, covariance, degrees=known, confidence=confidence, critical=critical, slack=slack, p_bounds=p_bounds
    )
    lines = [
        BoardLine(
            name,
            ranges[i].low,
            ranges[i].high,
            float(scores[i]),
            float(scores[i] - reach * errors[i]),
            float(scores[i] + reach * errors[i]),
            parts[i],
        )
        for i, name in enumerate(models)
    ]
    return sorted(lines, key=lambda line: (-line.score, line.rank_low, line.model))


def _of_column(column: BoardColumn, confidence: float) -> BoardSection:
    """The table of one benchmark, with cost and time where they are known."""
    models = list(column.cells)
    sign = -1.0 if column.lower_is_better else 1.0
    values = np.array([column.cells[name].value for name in models]) * sign
    covariance = column.covariance(models)
    parts = [_costs(column.cells[name]) for name in models]
    lines = _lines(
        models,
        values,
        covariance,
        column.degrees(models),
        confidence,
        parts,
        slack=column.slack(models),
        p_bounds=column.p_bounds(models),
    )
    if sign < 0:
        lines = [
            BoardLine(**{**vars(line), "score": -line.score, "low": -line.high, "high": -line.low}) for line in lines
        ]
    own = column.run_intervals(models, confidence)
    lines = [replace(each, low=x.low, high=x.high) if (x := own.get(each.model)) else each for each in lines]
    lines = _within_shares(lines) if _is_share(column) else lines
    lines = [BoardLine(**{**vars(line), "cells": {column.name: column.cells[line.model]}}) for line in lines]
    return BoardSection(column.name, column.key.metric or "score", tuple(lines))


def _costs(result: BoardResult) -> dict[str, float]:
    found = {"n": float(result.n) if result.n else None, "USD each": result.cost_usd, "s each": result.seconds}
    return {name: value for name, value in found.items() if value is not None}


def _stale(columns: list[BoardColumn], spec: BoardSpec, now: datetime) -> list[str]:
    if not spec.fresh_days:
        return []
    results = [each for column in columns for each in column.cells.values()]
    since = (now - timedelta(days=spec.fresh_days)).isoformat(timespec="seconds")
    old = [each for each in results if each.when and each.when < since]
    undated = sum(not each.when for each in results)
    said = []
    if old:
        oldest = min(old, key=lambda each: each.when)
        said.append(
            f"{len(old)} of {len(results)} results are older than {spec.fresh_days} days, the oldest {oldest.model} on "
            f"{oldest.benchmark} of {oldest.when[:10]}."
        )
    if undated:
        said.append(f"{undated} of {len(results)} results have no date.")
    return said
