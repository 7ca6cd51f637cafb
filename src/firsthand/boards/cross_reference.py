"""Finds scores that are out of line with the same model's other benchmarks.

Each benchmark is regressed on an ability that the model's other benchmarks give: a robust fit of rank one, which leaves out
the column in question. A score's residual is divided by its error; the largest of a table is measured by the spacings of
those below it, and compared with the largest of simulated tables in which every score follows the fit, so the chance of a
false alarm is stated for the table as a whole. The simulated deviations are normal, Laplace or Student's t; a kind with
tails that are heavier than the table's own is left out, and of the others the one that gives the largest p-value counts
(Berger and Boos, 1994). Where the table's tails are heavier than all of them, the report says that no rate holds. A score
out of line has many causes: training on the benchmark, another protocol, a special skill, a bug.
"""

# S simulated tables, M models, C columns (benchmarks)

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from firsthand.boards.board_columns import BoardColumn
from firsthand.errors import ConfigError
from firsthand.message import Json

Floats = NDArray[np.float64]
FEWEST_MODELS, FEWEST_OTHERS = 8, 3
"""Models that a benchmark needs, and other benchmarks that a model needs."""
TABLES = 400
"""Simulated tables."""
ALPHA = 0.05
"""Chance that a table without an outlier has a score called out of line."""
_ROUNDS, _HUBER, _AT_ONCE = 12, 1.345, 40
_CONSISTENT = 0.7102
"""The mean of a standard normal's square, cut at Huber's bound."""
_TOP, _OUTER = 0.15, (0.01, 0.1, 0.25)
"""Shares of a table's deviations: the largest ones, whose spacings measure the largest; and the ends of the outer ones
and the start of the inner ones, whose ratio tells the kinds apart."""
_FEWEST_TOP = 6
_SPENT = 0.2
"""The share of the false alarm rate that is spent on leaving out kinds of deviation."""
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
DEVIATIONS: dict[str, Draw] = {
    "normal": lambda draw, shape: draw.standard_normal(shape),
    "t10": lambda draw, shape: draw.standard_t(10, shape) / 1.0514,
    "laplace": lambda draw, shape: draw.laplace(size=shape) / 1.1167,
    "t5": lambda draw, shape: draw.standard_t(5, shape) / 1.1073,
}
"""Kinds of deviation that the rate holds for, each divided by its scale as `_scale` measures it."""
_ITEMS = 200
"""Items of a benchmark where the results do not say."""


class CrossFit(NamedTuple):
    """A table's fit; every array has the shape (..., M, C), NaN where there is no score or too little to judge it by."""

    expected: Floats
    error: Floats
    """The standard error of a new score at that place."""
    z: Floats
    """(score - expected) / error."""


@dataclass(frozen=True)
class OutOfLine:
    """A score beside what the model's other benchmarks lead one to expect."""

    model: str
    benchmark: str
    score: float
    expected: float
    low: float
    """The ends of the range in which all scores of a table without outliers lie together, with the stated confidence."""
    high: float
    z: float
    p_value: float
    """The share of simulated tables whose largest deviation stands out as much, of the least favourable kind of deviation,
    and what was spent on leaving out kinds: corrected for the number of scores."""
    flagged: bool

    def to_json(self) -> Json:
        """The score as a JSON object."""
        return dict(vars(self))


@dataclass(frozen=True)
class CrossReference:
    """All scores of a table that could be judged, those furthest out of line first."""

    scores: tuple[OutOfLine, ...]
    critical: float
    """The deviation, in errors, from which a score is flagged."""
    alpha: float
    tables: int
    """Simulated tables of each kind of deviation."""
    deviations: tuple[str, ...]
    """The kinds of deviation that the table's tails allow."""
    heavy_tailed: bool
    """The tails are heavier than those of every kind: the rate `alpha` does not hold."""
    left_out: tuple[str, ...]
    """Benchmarks and models with too few results."""

    @property
    def flagged(self) -> tuple[OutOfLine, ...]:
        """The scores out of line."""
        return tuple(each for each in self.scores if each.flagged)

    def to_json(self) -> Json:
        """The report as a JSON object."""
        return {
            "alpha": self.alpha,
            "critical": self.critical,
            "tables": self.tables,
            "deviations": list(self.deviations),
            "heavy_tailed": self.heavy_tailed,
            "left_out": list(self.left_out),
            "flagged": [each.to_json() for each in self.flagged],
            "judged": len(self.scores),
        }


def cross_reference(
    columns: Sequence[BoardColumn], *, alpha: float = ALPHA, tables: int = TABLES, seed: int = 0
) -> CrossReference:
    """Judge each score by the model's other benchmarks.

    Args:
        columns: Benchmarks with scores; those from 0 to 1 are compared as log odds.
        alpha: Chance that a table without an outlier has any score flagged (Barnard's Monte Carlo test).
        tables: Simulated tables of each kind of deviation.
        seed: Of the simulation.

    Raises:
        ConfigError: Fewer than four benchmarks with results of eight models, or too few tables for `alpha`.
    """
    models = list(dict.fromkeys(model for column in columns for model in column.cells))
    kept = list(columns)
    while True:  # a model that goes may leave a benchmark with too few, and the other way round
        wide = [
            each for each in kept if sum(model in each.cells for model in models) >= FEWEST_MODELS and _varies(each)
        ]
        full = [model for model in models if sum(model in each.cells for each in wide) > FEWEST_OTHERS]
        if (len(wide), len(full)) == (len(kept), len(models)):
            break
        kept, models = wide, full
    if len(kept) <= FEWEST_OTHERS or len(models) < FEWEST_MODELS:
        raise ConfigError(
            f"cross_reference found {len(kept)} benchmarks with {len(models)} models that share them: it needs "
            f"{FEWEST_OTHERS + 1} benchmarks with results of {FEWEST_MODELS} models"
        )
    every = dict.fromkeys([*(column.name for column in columns), *(model for each in columns for model in each.cells)])
    present = {*models, *(column.name for column in kept)}
    scores_MC = np.array([[_value(column, model) for column in kept] for model in models])
    errors_MC = np.array([[_error(column, model) for column in kept] for model in models])
    spent = _SPENT * alpha
    exceeding = math.floor((alpha - spent) * (tables + 1) + 1e-9)
    if not exceeding:
        raise ConfigError(
            f"tables is {tables}: a false alarm rate of {alpha:g} needs {math.ceil(1 / (alpha - spent)) - 1} or more"
        )
    fit = fit_table(scores_MC, errors_MC)
    own = _tail(fit.z)
    clean = _tails_of_clean(scores_MC, errors_MC, fit, tables, seed)
    allowed = {
        kind: np.sort(tails.standing_out(tails.largest))
        for kind, tails in clean.items()
        if kind == "normal" or (1 + int((tails.weight <= own.weight).sum())) / (tables + 1) > spent
    }
    heavy = all((1 + int((tails.weight >= own.weight).sum())) / (tables + 1) <= spent for tails in clean.values())
    # an exact Monte Carlo test: an interpolated quantile lies lower
    critical = float(own.at(max(largest[-exceeding] for largest in allowed.values())))
    found = []
    for i, j in zip(*np.nonzero(np.isfinite(fit.z)), strict=True):
        column, z, error = kept[j], float(fit.z[i, j]), float(fit.error[i, j])
        centre = float(fit.expected[i, j])
        low, high = sorted(_back(column, centre + side * critical * error) for side in (-1, 1))
        out = float(own.standing_out(np.abs(z)))
        p_value = min(1.0, spent + max((1 + int((each >= out).sum())) / (tables + 1) for each in allowed.values()))
        score = column.cells[models[i]].value
        side = -z if column.lower_is_better else z
        found.append(
            OutOfLine(models[i], column.name, score, _back(column, centre), low, high, side, p_value, abs(z) > critical)
        )
    found.sort(key=lambda each: (-abs(each.z), each.model, each.benchmark))
    left_out = tuple(name for name in every if name not in present)
    return CrossReference(tuple(found), critical, alpha, tables, tuple(allowed), heavy, left_out)


def fit_table(scores_MC: Floats, errors_MC: Floats) -> CrossFit:
    """Fit each column by the ability that the other columns give; leading axes are separate tables.

    Args:
        scores_MC: Shape (..., M, C), NaN where a score is missing.
        errors_MC: Their standard errors by items, of the same shape.
    """
    here = np.isfinite(scores_MC)
    centre, spread = _location(scores_MC)
    table = np.where(here, (scores_MC - centre) / spread, 0.0)
    loadings = np.ones_like(centre)
    weights = here.astype(np.float64)
    for _ in range(_ROUNDS):
        ability = (weights * loadings * table).sum(-1, keepdims=True) / _above(
            (weights * loadings**2).sum(-1, keepdims=True)
        )
        ability = (ability - ability.mean(-2, keepdims=True)) / _above(ability.std(-2, keepdims=True))
        loadings = (weights * ability * table).sum(-2, keepdims=True) / _above(
            (weights * ability**2).sum(-2, keepdims=True)
        )
        rest = table - loadings * ability
        weights = here * _huber(rest / _scale(rest, here))
    own = weights * loadings * table
    square = weights * loadings**2
    others = (own.sum(-1, keepdims=True) - own) / _above(square.sum(-1, keepdims=True) - square)
    weights = here.astype(np.float64)
    for _ in range(_ROUNDS):
        total = _above(weights.sum(-2, keepdims=True))
        mean_x = (weights * others).sum(-2, keepdims=True) / total
        mean_y = (weights * table).sum(-2, keepdims=True) / total
        around = others - mean_x
        width = _above((weights * around**2).sum(-2, keepdims=True))
        slope = (weights * around * (table - mean_y)).sum(-2, keepdims=True) / width
        rest = table - mean_y - slope * around
        scale = _scale(rest, here)
        weights = here * _huber(rest / scale)
    leverage = np.minimum(1 / total + around**2 / width, 0.9) * weights
    expected = table - rest / (1 - leverage)  # the fit without the score itself
    noise = np.where(here, np.nan_to_num(errors_MC / spread), 0.0) ** 2
    usual = _median(np.where(here, noise, np.nan))
    variance = scale**2 * (1 + leverage / (1 - leverage)) + np.maximum(noise - usual, 0)
    error = np.sqrt(variance) * spread
    expected = np.where(here, expected * spread + centre, np.nan)
    return CrossFit(expected, np.where(here, error, np.nan), (scores_MC - expected) / error)


class _Tail(NamedTuple):
    """The largest deviations of tables; leading axes of z are separate tables, and axes of these arrays."""

    largest: Floats
    bound: Floats
    """The logarithm of the deviation below the top ones."""
    excess: Floats
    """The mean logarithm of the top ones over it, without the largest (Hill's estimate of the tail)."""
    weight: Floats
    """The mean of the outer deviations over that of the inner ones: more where tails are heavier."""

    def standing_out(self, size: Floats) -> Floats:
        """The logarithm over the bound in units of the excess, as free as can be from the kind of deviation."""
        return (np.log(np.maximum(size, 1e-9)) - self.bound) / self.excess

    def at(self, out: float) -> Floats:
        """The deviation that stands out so much."""
        return np.exp(self.bound + out * self.excess)


def _tail(z: Floats) -> _Tail:
    """The tail of each table of deviations, NaN where there is none."""
    sizes = np.sort(np.abs(z[..., np.isfinite(z.reshape(-1, *z.shape[-2:])[0])]), -1)[..., ::-1]
    count = sizes.shape[-1]
    logs = np.log(np.maximum(sizes, 1e-9))
    top = max(_FEWEST_TOP, round(_TOP * count))
    first, last, inner = (max(1, round(share * count)) for share in _OUTER)
    bound = logs[..., top + 1]
    excess = _above(logs[..., 1 : top + 1].mean(-1) - bound)
    weight = sizes[..., first:last].mean(-1) / _above(sizes[..., inner:].mean(-1))
    return _Tail(sizes[..., 0], bound, excess, weight)


def _tails_of_clean(scores_MC: Floats, errors_MC: Floats, fit: CrossFit, tables: int, seed: int) -> dict[str, _Tail]:
    """The tails, of shape (S), of simulated tables that follow the fit, with the same gaps, for each kind of deviation."""
    found = {}
    for place, (kind, deviations) in enumerate(DEVIATIONS.items()):
        draw = np.random.default_rng([seed, place])
        tails = []
        for start in range(0, tables, _AT_ONCE):
            size = min(_AT_ONCE, tables - start)
            made = fit.expected + fit.error * deviations(draw, (size, *scores_MC.shape))
            tails.append(_tail(fit_table(made, np.broadcast_to(errors_MC, made.shape)).z))
        found[kind] = _Tail(*(np.concatenate(each) for each in zip(*tails, strict=True)))
    return found


def _median(values: Floats) -> Floats:
    """The median over models of what is there; every column has some."""
    ordered = np.sort(values, -2)  # NaN comes last
    counts = np.maximum(np.isfinite(values).sum(-2, keepdims=True), 1)
    low = np.take_along_axis(ordered, (counts - 1) // 2, -2)
    return (low + np.take_along_axis(ordered, counts // 2, -2)) / 2


def _location(values: Floats) -> tuple[Floats, Floats]:
    """The median over models and a robust standard deviation, never 0."""
    centre = _median(values)
    spread = 1.4826 * _median(np.abs(values - centre))
    return centre, np.where(spread > 1e-9, spread, np.maximum(np.nanstd(values, -2, keepdims=True), 1e-9))


def _scale(rest: Floats, here: NDArray[np.bool_]) -> Floats:
    """The residuals' standard deviation in each column, without what lies beyond Huber's bound (his proposal 2)."""
    size = np.abs(np.where(here, rest, np.nan))
    found = np.maximum(1.4826 * _median(size), 1e-6)
    count = here.sum(-2, keepdims=True)
    for _ in range(4):
        bounded = np.where(here, np.minimum(size, _HUBER * found), 0.0)
        found = np.maximum(np.sqrt((bounded**2).sum(-2, keepdims=True) / (_CONSISTENT * (count - 2))), 1e-6)
    return found


def _huber(z: Floats) -> Floats:
    return _HUBER / np.maximum(np.abs(z), _HUBER)


def _above(values: Floats) -> Floats:
    return np.maximum(values, 1e-9)


def _is_share(column: BoardColumn) -> bool:
    return all(0 <= each.value <= 1 for each in column.cells.values())


def _varies(column: BoardColumn) -> bool:
    return len({each.value for each in column.cells.values()}) > 2


def _value(column: BoardColumn, model: str) -> float:
    """The score to compare: log odds of a share, the score itself otherwise; NaN where there is none."""
    found = column.cells.get(model)
    if found is None:
        return np.nan
    if not _is_share(column):
        return found.value
    items = found.n or _ITEMS
    share = (found.value * items + 0.5) / (items + 1)
    return float(np.log(share / (1 - share)))


def _error(column: BoardColumn, model: str) -> float:
    """The standard error by items on the scale of `_value`; NaN where it is not known."""
    found = column.cells.get(model)
    if found is None:
        return np.nan
    if not _is_share(column):
        return found.standard_error
    items = found.n or _ITEMS
    share = (found.value * items + 0.5) / (items + 1)
    return found.standard_error / (share * (1 - share))


def _back(column: BoardColumn, value: float) -> float:
    return float(1 / (1 + np.exp(-value))) if _is_share(column) else value
