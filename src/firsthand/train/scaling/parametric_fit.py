"""Fits the parametric forms of the loss: Chinchilla's approach 3, Kaplan's form, and bootstrap intervals of both.

The objective is the sum of Huber losses of the log-residuals (Hoffmann et al., 2022, eq. 3), minimised by L-BFGS from the
paper's grid of starts. Their reported optimum (a = .46) came from the mean in place of the sum, with the optimizer's default
tolerances (Besiroglu et al., 2024): the mean's numbers are so small that it stops early. `as_published` is there to see it;
otherwise logs are centred and the objective is in units of delta^2, which makes the descent quick and its end sharp.
"""

# P points, S starts, K parameters of the law

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from firsthand.errors import ConfigError, DataError
from firsthand.system.plurals import count_of
from firsthand.train.scaling.laws import Chinchilla, Kaplan
from firsthand.train.scaling.scaling_points import Floats, ScalingPoints

Slopes = tuple[Floats, ...]
LawT = TypeVar("LawT", Chinchilla, Kaplan)
DELTA = 1e-3
"""Huber's threshold, of log-residuals."""
ROUGH, TIGHT = 1e-6, 1e-12
"""Relative tolerances of L-BFGS: of the descents from all starts, and of the best of them."""
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
STARTS = 24
"""The best starts of the grid, which are optimised; `None` takes all."""


@dataclass(frozen=True)
class Fit(Generic[LawT]):
    """A law, and how well it fits."""

    law: LawT
    objective: float
    """Sum of Huber losses."""
    r_squared: float
    """Of log-losses."""
    max_error: float
    """The largest relative error of a point."""
    points: int


def fit_chinchilla(
    points: ScalingPoints,
    *,
    delta: float = DELTA,
    starts: int | None = STARTS,
    begin: Chinchilla | None = None,
    tolerance: float = TIGHT,
    as_published: bool = False,
) -> Fit[Chinchilla]:
    """Fits E + A / N^alpha + B / D^beta; DataError for fewer than 5 points, or points of one size or one length.

    All starts of the grid are evaluated at once, and L-BFGS runs from the best `starts` of them (None: all), or from `begin`
    alone. `as_published` minimises the mean with scipy's default tolerances, as the paper did.
    """
    _check(points, 5)
    logs = np.log(points.parameters), np.log(points.tokens), np.log(points.loss)
    centres = (0.0, 0.0) if as_published else (logs[0].mean(), logs[1].mean())
    logs = (logs[0] - centres[0], logs[1] - centres[1], logs[2])

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
        alpha, beta = float(x_K[3]), float(x_K[4])
        with np.errstate(over="ignore"):
            a, b = np.exp(x_K[0] + alpha * centres[0]), np.exp(x_K[1] + beta * centres[1])
            return Chinchilla(float(np.exp(x_K[2])), float(a), float(b), alpha, beta)

    grid_SK = np.array(list(itertools.product(*GRID.values())))
    if begin is not None:
        grid_SK = np.array([[*np.log([begin.a, begin.b, begin.e]), begin.alpha, begin.beta]])
    grid_SK[:, 0] -= grid_SK[:, 3] * centres[0]
    grid_SK[:, 1] -= grid_SK[:, 4] * centres[1]
    best_K = _minimum(residuals, grid_SK, delta, starts, None if as_published else tolerance)
    return _fit(law(best_K), points, delta)


def fit_kaplan(
    points: ScalingPoints,
    *,
    delta: float = DELTA,
    starts: int | None = STARTS,
    begin: Kaplan | None = None,
    tolerance: float = TIGHT,
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
    best_K = _minimum(residuals, grid_SK, delta, starts, tolerance)
    return _fit(law(best_K), points, delta)


def _check(points: ScalingPoints, least: int) -> None:
    if len(points) < least:
        raise DataError(
            f"{count_of(len(points), 'point')} came: the law has {least} parameters, so give more points, a dozen or so"
        )
    for name, values in (("parameters", points.parameters), ("tokens", points.tokens)):
        if np.ptp(values) == 0:
            raise DataError(f"all points have {values[0]:g} {name}: a law needs several, an order of magnitude apart")


def _minimum(
    residuals: Callable[[Floats], tuple[Floats, Slopes]],
    grid_SK: Floats,
    delta: float,
    starts: int | None,
    tolerance: float | None,
) -> Floats:
    """The best point that L-BFGS finds from the best starts; without a tolerance it is scipy's, of the mean."""
    from scipy.optimize import minimize

    if not delta > 0:
        raise ConfigError(f"delta is {delta}: expected a number above 0")

    def objective(x_K: Floats) -> tuple[float, Floats]:
        residual_SP, slopes = residuals(x_K[None])
        unit = len(residual_SP[0]) if tolerance is None else delta**2
        clipped_P = np.clip(residual_SP[0], -delta, delta)
        gradient_K = np.array([clipped_P @ np.broadcast_to(slope, residual_SP.shape)[0] for slope in slopes])
        return float(huber(residual_SP, delta)[0]) / unit, gradient_K / unit

    def descend(x_K: Floats, options: dict[str, float]) -> tuple[float, Floats]:
        found = minimize(objective, x_K, jac=True, method="L-BFGS-B", options={**options, "maxiter": 15_000})  # type: ignore[no-untyped-call]
        return float(np.nan_to_num(found.fun, nan=np.inf)), np.asarray(found.x)

    def best_first(found: Iterable[tuple[float, Floats]]) -> list[tuple[float, Floats]]:
        return sorted(found, key=lambda each: each[0])

    with np.errstate(over="ignore", invalid="ignore"):
        begun_S = np.concatenate([huber(residuals(part_SK)[0], delta) for part_SK in np.array_split(grid_SK, 16)])
        chosen = np.argsort(np.nan_to_num(begun_S, nan=np.inf), kind="stable")[:starts]
        found = best_first(descend(grid_SK[row], {} if tolerance is None else {"ftol": ROUGH}) for row in chosen)
        if tolerance is not None:
            tight = {"ftol": tolerance, "gtol": 1e-9, "maxcor": 20}
            found = best_first(descend(x_K, tight) for _, x_K in found[:POLISHED])
    return found[0][1]


def huber(residual_SP: Floats, delta: float) -> Floats:
    """Sum of Huber losses of each row: S."""
    size = np.abs(residual_SP)
    return np.asarray(np.where(size <= delta, 0.5 * residual_SP**2, delta * (size - 0.5 * delta)).sum(-1))


def _fit(law: LawT, points: ScalingPoints, delta: float) -> Fit[LawT]:
    with np.errstate(over="ignore", invalid="ignore"):
        predicted_P = law.loss(points.parameters, points.tokens)
        residual_P = np.log(predicted_P) - np.log(points.loss)
    spread = np.log(points.loss) - np.log(points.loss).mean()
    r_squared = 1 - float((residual_P**2).sum() / (spread**2).sum()) if spread.any() else float("nan")
    max_error = float(np.abs(predicted_P / points.loss - 1).max())
    return Fit(law, float(huber(residual_P[None], delta)[0]), r_squared, max_error, len(points))
