"""Fits the parametric forms of the loss: Chinchilla's approach 3, Kaplan's form, and bootstrap intervals of both.

The objective is the sum of Huber losses of the log-residuals (Hoffmann et al., 2022, eq. 3), minimised by L-BFGS from the
paper's grid of starts. Their reported optimum (a = .46) came from the mean in place of the sum, with the optimizer's default
tolerances (Besiroglu et al., 2024): the mean's numbers are so small that it stops early. `reduction` and `tolerance` are
there to see that.
"""

# P points, S starts, K parameters of the law

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from firsthand.errors import ConfigError, DataError
from firsthand.train.scaling.laws import Chinchilla, Kaplan
from firsthand.train.scaling.scaling_points import Floats, ScalingPoints

Reduction = Literal["sum", "mean"]
Slopes = tuple[Floats, ...]
LawT = TypeVar("LawT", Chinchilla, Kaplan)
DELTA = 1e-3
"""Huber's threshold, of log-residuals."""
TIGHT, DEFAULT_TOLERANCE = 1e-14, 2.220446049250313e-09
"""Of L-BFGS: ours, and scipy's default."""
ROUGH, GTOL = 1e-7, 1e-5
"""Tolerances of the first descents, from all starts, if they are to be tight: the best of them are then polished."""
POLISHED = 3
GRID = {
    "a": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    "b": (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    "e": (-1.0, -0.5, 0.0, 0.5, 1.0),
    "alpha": (0.0, 0.5, 1.0, 1.5, 2.0),
    "beta": (0.0, 0.5, 1.0, 1.5, 2.0),
}
"""Chinchilla's starts (appendix D.4 of the paper): a = log A, b = log B, e = log E."""
KAPLAN_GRID = {
    "log nc": (10.0, 20.0, 30.0),
    "log dc": (10.0, 20.0, 30.0),
    "alpha n": (0.05, 0.2, 0.5),
    "alpha d": (0.05, 0.2, 0.5),
}
STARTS = 100
"""The best starts of the grid, which are optimised; `None` takes all."""


@dataclass(frozen=True)
class Fit(Generic[LawT]):
    """A law, and how well it fits."""

    law: LawT
    objective: float
    """Sum (or mean) of Huber losses."""
    r_squared: float
    """Of log-losses."""
    max_error: float
    """The largest relative error of a point."""
    points: int


def fit_chinchilla(
    points: ScalingPoints,
    *,
    delta: float = DELTA,
    reduction: Reduction = "sum",
    tolerance: float = TIGHT,
    starts: int | None = STARTS,
    begin: Chinchilla | None = None,
) -> Fit[Chinchilla]:
    """Fits E + A / N^alpha + B / D^beta; DataError for fewer than 5 points, or points of one size or one length.

    All starts of the grid are evaluated at once, and L-BFGS runs from the best `starts` of them, or from `begin` alone.
    """
    _check(points, 5)
    logs = np.log(points.parameters), np.log(points.tokens), np.log(points.loss)

    def residuals(x_SK: Floats) -> tuple[Floats, Slopes]:
        """log predicted - log found (S P), and its derivative by each of K (S P)."""
        a, b, e, alpha, beta = (x_SK[:, [k]] for k in range(5))
        size, data = a - alpha * logs[0], b - beta * logs[1]
        highest = np.maximum(np.maximum(size, data), e)
        by_size, by_data, by_floor = np.exp(size - highest), np.exp(data - highest), np.exp(e - highest)
        total = by_size + by_data + by_floor
        by_size, by_data, by_floor = by_size / total, by_data / total, by_floor / total
        slopes = (by_size, by_data, by_floor, -by_size * logs[0], -by_data * logs[1])
        return highest + np.log(total) - logs[2], slopes

    def law(x_K: Floats) -> Chinchilla:
        with np.errstate(over="ignore"):
            return Chinchilla(float(np.exp(x_K[2])), float(np.exp(x_K[0])), float(np.exp(x_K[1])), *map(float, x_K[3:]))

    grid_SK = np.array(list(itertools.product(*GRID.values())))
    if begin is not None:
        grid_SK = np.array([[*np.log([begin.a, begin.b, begin.e]), begin.alpha, begin.beta]])
    best_K, objective = _minimum(residuals, grid_SK, delta, reduction, tolerance, starts)
    return _fit(law(best_K), points, objective)


def fit_kaplan(
    points: ScalingPoints,
    *,
    delta: float = DELTA,
    reduction: Reduction = "sum",
    tolerance: float = TIGHT,
    starts: int | None = STARTS,
    begin: Kaplan | None = None,
) -> Fit[Kaplan]:
    """Fits [(Nc / N)^(alpha_N / alpha_D) + Dc / D]^alpha_D by the same objective; DataError for fewer than 4 points."""
    _check(points, 4)
    logs = np.log(points.parameters), np.log(points.tokens), np.log(points.loss)

    def residuals(x_SK: Floats) -> tuple[Floats, Slopes]:
        """As for Chinchilla; exponents are fitted as logarithms, which keeps them above 0."""
        log_nc, log_dc = x_SK[:, [0]], x_SK[:, [1]]
        alpha_n, alpha_d = np.exp(x_SK[:, [2]]), np.exp(x_SK[:, [3]])
        ratio = alpha_n / alpha_d
        size_SP, data_SP = ratio * (log_nc - logs[0]), log_dc - logs[1]
        total_SP = np.logaddexp(size_SP, data_SP)
        share_SP = np.exp(size_SP - total_SP)
        by_n = alpha_d * share_SP * size_SP
        by_d = alpha_d * total_SP - by_n
        slopes = (alpha_d * share_SP * ratio, alpha_d * (1 - share_SP), by_n, by_d)
        return alpha_d * total_SP - logs[2], slopes

    def law(x_K: Floats) -> Kaplan:
        with np.errstate(over="ignore"):
            return Kaplan(*map(float, np.exp(x_K)))

    grid_SK = np.array(list(itertools.product(*KAPLAN_GRID.values())))
    grid_SK[:, 2:] = np.log(grid_SK[:, 2:])
    if begin is not None:
        grid_SK = np.log([begin.values()])
    best_K, objective = _minimum(residuals, grid_SK, delta, reduction, tolerance, starts)
    return _fit(law(best_K), points, objective)


def _check(points: ScalingPoints, least: int) -> None:
    if len(points) < least:
        raise DataError(
            f"{len(points)} points came: the law has {least} parameters, so give more points, a dozen or so"
        )
    for name, values in (("parameters", points.parameters), ("tokens", points.tokens)):
        if np.ptp(values) == 0:
            raise DataError(f"all points have {values[0]:g} {name}: a law needs several, an order of magnitude apart")


def _minimum(
    residuals: Callable[[Floats], tuple[Floats, Slopes]],
    grid_SK: Floats,
    delta: float,
    reduction: Reduction,
    tolerance: float,
    starts: int | None,
) -> tuple[Floats, float]:
    """The best point that L-BFGS finds from the best starts, and its objective."""
    from scipy.optimize import minimize

    if not delta > 0:
        raise ConfigError(f"delta is {delta}: expected a number above 0")

    def huber(residual_SP: Floats) -> Floats:
        size = np.abs(residual_SP)
        losses = np.where(size <= delta, 0.5 * residual_SP**2, delta * (size - 0.5 * delta))
        return np.asarray(losses.sum(-1) if reduction == "sum" else losses.mean(-1))

    def objective(x_K: Floats) -> tuple[float, Floats]:
        residual_SP, slopes = residuals(x_K[None])
        clipped_P = np.clip(residual_SP[0], -delta, delta)
        gradient_K = np.array([clipped_P @ np.broadcast_to(slope, residual_SP.shape)[0] for slope in slopes])
        return float(huber(residual_SP)[0]), gradient_K if reduction == "sum" else gradient_K / len(clipped_P)

    def descend(x_K: Floats, ftol: float, gtol: float) -> tuple[float, Floats]:
        options = {"ftol": ftol, "gtol": gtol, "maxiter": 15_000, "maxfun": 15_000, "maxcor": 20}
        found = minimize(objective, x_K, jac=True, method="L-BFGS-B", options=options)
        return float(np.nan_to_num(found.fun, nan=np.inf)), np.asarray(found.x)

    with np.errstate(over="ignore", invalid="ignore"):
        begun_S = np.concatenate([huber(residuals(part_SK)[0]) for part_SK in np.array_split(grid_SK, 16)])
        chosen = np.argsort(np.nan_to_num(begun_S, nan=np.inf), kind="stable")[:starts]
        first = ROUGH if tolerance < DEFAULT_TOLERANCE else tolerance
        found = sorted((descend(grid_SK[start], first, GTOL) for start in chosen), key=lambda each: each[0])
        if tolerance < first:
            found = sorted((descend(x_K, tolerance, 1e-10) for _, x_K in found[:POLISHED]), key=lambda each: each[0])
    objective_value, best_K = found[0]
    return best_K, objective_value


def _fit(law: LawT, points: ScalingPoints, objective: float) -> Fit[LawT]:
    with np.errstate(over="ignore", invalid="ignore"):
        predicted_P = law.loss(points.parameters, points.tokens)
        residual_P = np.log(predicted_P) - np.log(points.loss)
    spread = np.log(points.loss) - np.log(points.loss).mean()
    r_squared = 1 - float((residual_P**2).sum() / (spread**2).sum()) if spread.any() else float("nan")
    max_error = float(np.abs(predicted_P / points.loss - 1).max())
    return Fit(law, objective, r_squared, max_error, len(points))
