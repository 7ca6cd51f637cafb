"""Ratings by maximum likelihood: Bradley-Terry and its tie models, with covariates, and sandwich intervals.

Newton's method on counts per pair, under the constraint that strengths sum to zero: no ridge, which would shrink the
intervals of models with few battles. The covariance is the sandwich estimate, clustered by voter and by question where they
are known, because the votes of one person, and about one question, are not independent (Cameron, Gelbach and Miller, 2011).
Arenas publish ratings of this kind (Chiang et al., 2024, arXiv 2403.04132), and style control is a covariate (length,
headers, lists, bold) in the same likelihood.
"""

# N battles, R rows (pairs or battles), M models, K parameters: M strengths, F covariates, and one for ties

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from firsthand.arena.battle_table import TIE, BattleTable, Ints
from firsthand.arena.connectivity import comparable_groups
from firsthand.arena.decided_votes import tie_freedom
from firsthand.arena.pair_likelihoods import PairLikelihood, bradley_terry_terms, davidson_terms, rao_kupper_terms
from firsthand.arena.vote_clusters import VoteScores, cluster_freedom, clustered_scores, effective_number
from firsthand.errors import ConfigError

Floats = NDArray[np.float64]
Method = Literal["bradley-terry", "davidson", "rao-kupper"]
ELO = 400 / math.log(10)
"""Elo points for one unit of log-odds: 400 points are odds of ten to one."""
CENTRE = 1000.0
MAX_STEPS = 100
MANY_MODELS = 600
MAX_STEPS_OF_MANY = 25
"""Steps above `MANY_MODELS`: votes that have a maximum take some ten, each up to 0.4 s of processor time."""
MIN_CLUSTERS = 20
"""Voters or questions below which the covariance is not clustered by them."""
FEW_CLUSTERS = 15
"""Effective ones below which a board says so: `MIN_CLUSTERS` of them have more if their votes differ by chance alone."""
_TERMS: dict[Method, PairLikelihood] = {
    "bradley-terry": bradley_terry_terms,
    "davidson": davidson_terms,
    "rao-kupper": rao_kupper_terms,
}
_ROWS_AT_ONCE = 200_000
_MAX_VARIANCE = 1e11
"""Of a parameter that battles determine, a covariate in units of its own size: one battle that decides it gives about 10,
the flat end of a likelihood 1e14."""


@dataclass(frozen=True)
class Ratings:
    """Strengths of models with their covariance."""

    models: tuple[str, ...]
    theta: Floats
    """Shape (M): log-odds strengths that sum to zero. `ELO * theta + CENTRE` are Elo points."""
    covariance: Floats
    """Shape (M, M), of `theta`."""
    games: NDArray[np.int64]
    """Shape (M): the battles of each model."""
    method: Method
    ties: float | None = None
    """The parameter of ties: log nu of Davidson, eta of Rao and Kupper."""
    covariates: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Covariate -> its coefficient in log-odds, and the standard error of that."""
    degrees: float | Floats = math.inf
    """Degrees of freedom of the intervals, of all or of each, shape (M): few where few clusters, or few decided votes among
    ties, decide a rating."""
    clustered_by: tuple[str, ...] = ()
    """Of "voter" and "question", those that the covariance is clustered by."""
    effective_clusters: tuple[float, ...] = ()
    """Effective number of each: as many with equal votes would weigh as much."""
    log_likelihood: float = math.nan

    @property
    def few_clusters(self) -> list[str]:
        """A sentence on the voters, and one on the questions, if so few of them have most of the votes."""
        return [
            f"Votes per {name} are unequal: they weigh as much as those of {number:.0f} {name}s with equal votes, "
            "which is few to cluster by."
            for name, number in zip(self.clustered_by, self.effective_clusters, strict=False)
            if number < FEW_CLUSTERS
        ]


class _Rows(NamedTuple):
    """Battles to sum over: a row is a pair of models with its counts, or one battle with its covariates."""

    a: Ints
    b: Ints
    weight: Floats
    """Shape (3, R): battles by outcome."""
    x: Floats
    """Shape (R, F)."""


class _Likelihood(NamedTuple):
    """The log-likelihood less the prior's penalty, with its derivatives."""

    value: float
    gradient: Floats
    """Shape (K)."""
    information: Floats
    """Shape (K, K): the negative of the second derivatives."""


def rate(
    battles: BattleTable, method: Method = "bradley-terry", *, prior: float = 0.0, clustered: bool = True
) -> Ratings:
    """Returns the maximum-likelihood ratings of all models.

    Args:
        battles: The battles.
        method: "bradley-terry" counts a tie as half a win; "davidson" and "rao-kupper" model ties with a parameter.
        prior: Precision of a normal prior on each strength, in log-odds; 0 for none. A prior makes ratings finite in a
            disconnected arena, and shrinks them.
        clustered: Cluster the covariance by voter and by question, where the table names `MIN_CLUSTERS` of them or more.

    Raises:
        ConfigError: No battles, more than `MAX_MODELS` models, an arena that is not connected without a prior, a tie model
            without ties or of nothing but ties, or covariates that separate wins from losses.
    """
    if not len(battles):
        raise ConfigError("there are no battles: ratings need at least one between two models")
    battles.check_models()
    if prior < 0 or not math.isfinite(prior):
        raise ConfigError(f"prior is {prior}: give a precision of 0 or more")
    if not prior and len(groups := comparable_groups(battles)) > 1:
        raise ConfigError(
            f"the arena is not connected: {len(groups)} groups of models cannot be compared, {_named(groups[0])} "
            f"and {_named(groups[1])} for example; rate the largest alone, let them battle, or give a prior"
        )
    if method != "bradley-terry" and not battles.ties.any():
        raise ConfigError(f"no battle is a tie, and {method} has a parameter for ties: use bradley-terry")
    if method != "bradley-terry" and (battles.outcome == TIE).all():
        raise ConfigError(f"every battle is a tie, so {method} cannot fit its tie parameter: use bradley-terry")
    rows = _rows(battles)
    fitted, reached = _newton(rows, len(battles.models), method, prior)
    bread = _inverse(_constrained(reached.information, len(battles.models), prior), len(battles.models), rows.x)
    if bread is None:
        raise _no_maximum(rows, method, len(battles.models))
    clusters = [] if not clustered else [each for each in (battles.voters, battles.questions) if _enough(each)]
    size = len(battles.models)
    degrees = np.full(size, np.inf)
    if clusters:
        meat, degrees = _multiway(_scores(battles, fitted, method), bread, clusters, size)
    else:
        meat = _meat(rows, fitted, method)
    covariance = bread @ meat @ bread
    if len(clusters) > 1:
        covariance = _without_negative_variance(covariance)
    names = battles.covariate_names
    sandwich = covariance[:size, :size].copy()
    covariance[:size, :size] = _with_some_variance(sandwich, bread[:size, :size])
    if method == "bradley-terry" and (covariance[:size, :size] == sandwich).all():  # else votes did not estimate it
        degrees = np.minimum(degrees, np.maximum(tie_freedom(battles, bread[:size, :size]), 1.0))
    errors = np.sqrt(np.diag(covariance))
    coefficients = {name: (float(fitted[size + i]), float(errors[size + i])) for i, name in enumerate(names)}
    return Ratings(
        models=battles.models,
        theta=fitted[:size],
        covariance=covariance[:size, :size],
        games=battles.games,
        method=method,
        ties=None if method == "bradley-terry" else float(fitted[-1]),
        covariates=coefficients,
        degrees=degrees,
        log_likelihood=reached.value + prior * float(fitted[:size] @ fitted[:size]) / 2,
        clustered_by=tuple(
            name
            for name, each in (("voter", battles.voters), ("question", battles.questions))
            if clustered and _enough(each)
        ),
        effective_clusters=tuple(effective_number(each) for each in clusters),
    )


def _with_some_variance(sandwich_MM: Floats, bread_MM: NDArray[Any]) -> Floats:
    """The sandwich covariance; by the information alone where it has none, as where every vote is a tie."""
    size = len(sandwich_MM)
    by_information: Floats = bread_MM - bread_MM.mean(0) - bread_MM.mean(1, keepdims=True) + bread_MM.mean()
    none = np.diag(sandwich_MM) <= 1e-9 * np.diag(by_information)
    return by_information if none.any() and size > 1 else sandwich_MM


def _named(group: tuple[str, ...]) -> str:
    return ", ".join(group[:3]) + (f" and {len(group) - 3} more" if len(group) > 3 else "")


def _rows(battles: BattleTable) -> _Rows:
    if battles.covariates is not None:
        weight = (battles.outcome == np.arange(3, dtype=np.int32)[:, None]).astype(np.float64)
        return _Rows(battles.a, battles.b, weight, battles.covariates)
    both = np.triu(battles.counts + battles.counts[::-1].transpose(0, 2, 1))  # b against a counts as a against b
    a, b = np.nonzero(both.sum(0))
    weight = both[:, a, b].astype(np.float64)
    return _Rows(a.astype(np.int32), b.astype(np.int32), weight, np.zeros((len(a), 0)))


def _chunks(rows: _Rows) -> Iterator[_Rows]:
    for start in range(0, len(rows.a), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield _Rows(rows.a[part], rows.b[part], rows.weight[:, part], rows.x[part])


def _differences(rows: _Rows, fitted: Floats, size: int) -> Floats:
    """Shape (R): the log-odds of a over b."""
    d: Floats = fitted[rows.a] - fitted[rows.b] + rows.x @ fitted[size : size + rows.x.shape[1]]
    return d


def _newton(rows: _Rows, size: int, method: Method, prior: float) -> tuple[Floats, _Likelihood]:
    """The parameters of highest likelihood, and the likelihood there."""
    has_ties = method != "bradley-terry"
    fitted = np.zeros(size + rows.x.shape[1] + has_ties)
    if has_ties:
        tied = rows.weight[1].sum() / rows.weight.sum()
        fitted[-1] = math.log(2 * tied / (1 - tied)) if method == "davidson" else math.atanh(tied)
    here = _likelihood(rows, fitted, method, size, prior)
    for _ in range(_most_steps(size)):
        try:
            step = np.linalg.solve(_constrained(here.information, size, prior), here.gradient)
        except np.linalg.LinAlgError:
            break
        there = _moved(fitted, step, size, prior)
        reached, lowest, scale = _likelihood(rows, there, method, size, prior), here.value - 1e-9 * abs(here.value), 1.0
        if reached.value < lowest:  # a shorter step is sought by the value alone: the second derivatives take M^2
            while scale >= 2e-6:
                scale /= 2
                there = _moved(fitted, scale * step, size, prior)
                if _value(rows, there, method, size, prior) >= lowest:
                    break
            reached = _likelihood(rows, there, method, size, prior)
        fitted, here = there, reached
        if np.abs(step).max() < 1e-10 * max(1.0, np.abs(fitted).max()):
            return fitted, here
    raise _no_maximum(rows, method, size)


def _most_steps(size: int) -> int:
    return MAX_STEPS if size <= MANY_MODELS else MAX_STEPS_OF_MANY


def _moved(fitted: Floats, step: NDArray[Any], size: int, prior: float) -> Floats:
    there: Floats = fitted + step
    there[:size] -= there[:size].mean() if not prior else 0.0
    return there


def _no_maximum(rows: _Rows, method: Method, size: int) -> ConfigError:
    """The error of a likelihood that has its maximum at infinity, or in more than one place."""
    if rows.x.shape[1]:
        why = "a covariate separates wins from losses, or is a sum of others; leave it out"
    else:
        why = f"{method} counts ties apart from wins, and some models never lost; use bradley-terry, or give a prior"
    return ConfigError(f"the ratings did not converge in {_most_steps(size)} steps: {why}")


def _inverse(information: Floats, size: int, x: Floats) -> Floats | None:
    """The inverse; None where a direction is not determined, as near a maximum at infinity, whatever the unit of x."""
    try:
        found: NDArray[Any] = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        return None
    unit = np.ones(len(found))
    unit[size : size + x.shape[1]] = np.sqrt((x**2).mean(0))
    return found if np.abs(found * np.outer(unit, unit)).max() < _MAX_VARIANCE else None


def _value(rows: _Rows, fitted: Floats, method: Method, size: int, prior: float) -> float:
    """The log-likelihood less the prior's penalty, without its derivatives."""
    if method == "rao-kupper" and fitted[-1] <= 0:
        return -math.inf
    theta, value = fitted[:size], 0.0
    for part in _chunks(rows):
        value += float((part.weight * _TERMS[method](_differences(part, fitted, size), float(fitted[-1])).value).sum())
    return value - prior * float(theta @ theta) / 2


def _likelihood(rows: _Rows, fitted: Floats, method: Method, size: int, prior: float) -> _Likelihood:
    width, has_ties = rows.x.shape[1], method != "bradley-terry"
    value, gradient, information = 0.0, np.zeros(len(fitted)), np.zeros((len(fitted), len(fitted)))
    if method == "rao-kupper" and fitted[-1] <= 0:
        return _Likelihood(-math.inf, gradient, information)
    for part in _chunks(rows):
        terms = _TERMS[method](_differences(part, fitted, size), float(fitted[-1]))
        value += float((part.weight * terms.value).sum())
        slope = (part.weight * terms.by_d).sum(0)
        gradient[:size] += np.bincount(part.a, slope, size) - np.bincount(part.b, slope, size)
        gradient[size : size + width] += part.x.T @ slope
        if has_ties:
            gradient[-1] += float((part.weight * terms.by_eta).sum())
        weight = -part.weight
        information += _assembled(
            part,
            (weight * terms.by_dd).sum(0),
            (weight * terms.by_d_eta).sum(0),
            (weight * terms.by_eta_eta).sum(0),
            size,
            has_ties,
        )
    theta = fitted[:size]
    gradient[:size] -= prior * theta
    information[range(size), range(size)] += prior
    return _Likelihood(value - prior * float(theta @ theta) / 2, gradient, information)


def _meat(rows: _Rows, fitted: Floats, method: Method) -> Floats:
    """Shape (K, K): the sum over battles of the outer product of their scores."""
    width, has_ties = rows.x.shape[1], method != "bradley-terry"
    size = len(fitted) - width - has_ties
    total = np.zeros((len(fitted), len(fitted)))
    for part in _chunks(rows):
        terms = _TERMS[method](_differences(part, fitted, size), float(fitted[-1]))
        total += _assembled(
            part,
            (part.weight * terms.by_d**2).sum(0),
            (part.weight * terms.by_d * terms.by_eta).sum(0),
            (part.weight * terms.by_eta**2).sum(0),
            size,
            has_ties,
        )
    return total


def _assembled(rows: _Rows, dd: Floats, de: Floats, ee: Floats, size: int, has_ties: bool) -> Floats:
    """The symmetric matrix sum_r dd_r v_r v_r' over rows, v_r = e_a - e_b and the covariates, bordered by the ties' part."""
    width = rows.x.shape[1]
    total = np.zeros((size + width + has_ties, size + width + has_ties))
    pairs = np.bincount(rows.a.astype(np.int64) * size + rows.b, dd, size * size).reshape(size, size)
    pairs = pairs + pairs.T
    total[:size, :size] = np.diag(pairs.sum(1)) - pairs
    for column in range(width):
        weighted = dd * rows.x[:, column]
        cross = np.bincount(rows.a, weighted, size) - np.bincount(rows.b, weighted, size)
        total[:size, size + column] = total[size + column, :size] = cross
        total[size : size + width, size + column] = rows.x.T @ weighted
    if has_ties:
        cross = np.bincount(rows.a, de, size) - np.bincount(rows.b, de, size)
        total[:size, -1] = total[-1, :size] = cross
        total[size : size + width, -1] = total[-1, size : size + width] = rows.x.T @ de
        total[-1, -1] = ee.sum()
    return total


def _enough(clusters: Ints | None) -> TypeGuard[Ints]:
    """True for a numbering with enough clusters: with a handful, the clustered estimate is far too small."""
    return clusters is not None and _number(clusters) >= MIN_CLUSTERS


def _number(clusters: Ints) -> int:
    return len(np.unique(clusters))


def _multiway(scores: VoteScores, bread: NDArray[Any], clusters: list[Ints], size: int) -> tuple[Floats, Floats]:
    """The meat by each numbering, less that of both (Cameron, Gelbach and Miller, eq. 2.13), and the fewest degrees."""
    total, degrees = np.zeros((scores.width, scores.width)), np.full(size, np.inf)
    for each in clusters:
        found = clustered_scores(scores, bread, each)
        total += found.meat
        degrees = np.minimum(degrees, cluster_freedom(scores, bread, found, size))
    if len(clusters) == 2:
        _, both = np.unique(np.stack(clusters), axis=1, return_inverse=True)
        total -= clustered_scores(scores, bread, both.reshape(-1)).meat
    return total, degrees


def _scores(battles: BattleTable, fitted: Floats, method: Method) -> VoteScores:
    """The derivative of each battle's log-likelihood by the parameters it bears on."""
    size, has_ties = len(battles.models), method != "bradley-terry"
    x = battles.covariates if battles.covariates is not None else np.zeros((len(battles), 0))
    width = x.shape[1]
    d = fitted[battles.a] - fitted[battles.b] + x @ fitted[size : size + width]
    terms = _TERMS[method](d, float(fitted[-1]))
    each = np.arange(len(battles))
    slope, by_ties = terms.by_d[battles.outcome, each], terms.by_eta[battles.outcome, each]
    further = np.arange(size, size + width + has_ties)
    columns = np.concatenate(
        [np.stack([battles.a, battles.b], 1), np.broadcast_to(further, (len(battles), len(further)))], 1
    ).astype(np.int64)
    one = np.ones((len(battles), 1))
    design = np.concatenate([one, -one, x, *([0 * one] if has_ties else [])], 1)
    values = design * slope[:, None]
    if has_ties:
        values[:, -1] = by_ties
    return VoteScores(columns, values, design, -terms.by_dd[battles.outcome, each], len(fitted))


def _without_negative_variance(covariance: Floats) -> Floats:
    """The covariance with negative eigenvalues, which clustering two ways can give, set to zero."""
    values, vectors = np.linalg.eigh(covariance)
    if values[0] >= 0:
        return covariance
    kept: Floats = (vectors * np.clip(values, 0, None)) @ vectors.T
    return kept


def _constrained(information: Floats, size: int, prior: float) -> Floats:
    """The information with the direction that no battle sees, equal strength for all, pinned; a prior sees it already."""
    if prior:
        return information
    pinned = information.copy()
    pinned[:size, :size] += 1 / size
    return pinned
