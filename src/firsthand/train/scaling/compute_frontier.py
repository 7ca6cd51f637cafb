"""Chinchilla's approaches 1 and 2: the exponents of compute-optimal sizes, without a form for the loss.

Approach 1 takes, for each compute, the size whose training curve is lowest there (the envelope). Approach 2 trains several
sizes at each of a few budgets and fits a parabola in log N to each (IsoFLOP). Both then fit N_opt ~ C^a and D_opt ~ C^b
(Hoffmann et al., 2022, sections 3.1 and 3.2).
"""

# P points, C budgets, N sizes

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import DataError
from firsthand.train.scaling.laws import Optimum
from firsthand.train.scaling.scaling_points import Floats, ScalingPoints

ENVELOPE_BUDGETS = 1500
"""Log-spaced budgets of approach 1, as in the paper."""
MOST_MISSING = 0.5
"""Above this share of budgets without a rival the exponent is that of the curves' ends, and is refused."""


@dataclass(frozen=True)
class Frontier:
    """The best size and tokens at each budget, and the power laws through them."""

    flops: tuple[float, ...]
    optima: tuple[Optimum, ...]
    parameters_exponent: float
    """a of N_opt ~ C^a."""
    tokens_exponent: float
    """b of D_opt ~ C^b."""
    coefficient: float
    """N_opt / C^a."""
    missing_rivals: float = 0.0
    """Approach 1: the share of budgets at which the size next to the best, smaller or larger, has no curve."""

    def optimum(self, flops: float) -> Optimum:
        """The size and tokens at a budget, by the power law; its loss is not predicted, and NaN."""
        parameters = self.coefficient * flops**self.parameters_exponent
        return Optimum(parameters, flops / (6 * parameters), float("nan"))


def isoflop_frontier(points: ScalingPoints, *, tolerance: float = 0.05) -> Frontier:
    """Approach 2. Points belong to one budget if each is within `tolerance` of the next; a budget needs three sizes.

    DataError without two budgets whose parabola opens upwards with its vertex within the sizes that were trained.
    """
    order = np.argsort(points.flops, kind="stable")
    groups: list[list[int]] = [[int(order[0])]]
    for before, row in pairwise(order):
        if points.flops[row] > points.flops[before] * (1 + tolerance):
            groups.append([])
        groups[-1].append(int(row))
    flops, optima = [], []
    for rows in groups:
        chosen = points.take(np.array(rows))
        x, y = np.log(chosen.parameters), chosen.loss
        if len(np.unique(x)) < 3:
            continue
        centre = x.mean()
        curve, slope, floor = np.polyfit(x - centre, y, 2)
        vertex = centre - slope / (2 * curve) if curve > 0 else np.inf
        if x.min() <= vertex <= x.max():
            budget = float(np.exp(np.log(chosen.flops).mean()))
            parameters = float(np.exp(vertex))
            flops.append(budget)
            optima.append(Optimum(parameters, budget / (6 * parameters), float(floor - slope**2 / (4 * curve))))
    if len(flops) < 2:
        raise DataError(
            f"{len(flops)} of {len(groups)} budgets have a lowest loss between three or more sizes: train sizes on both "
            "sides of the best one at two budgets or more, or raise the tolerance"
        )
    return _frontier(flops, optima)


def envelope_frontier(points: ScalingPoints, *, budgets: int = ENVELOPE_BUDGETS) -> Frontier:
    """Approach 1. The points of one size are its training curve, which is interpolated in log compute.

    Budgets at which one size alone has a curve are left out. Where the size next to the best has none, it might have been
    better: such budgets are counted in `missing_rivals`. DataError if they are more than half, since the exponent is then
    that of the ends of the curves, and if fewer than two sizes are the best anywhere.
    """
    sizes = np.unique(points.parameters)
    low, high = np.log(points.flops.min()), np.log(points.flops.max())
    grid = np.linspace(low, high, budgets)
    losses = np.full((len(sizes), budgets), np.inf)
    for row, size in enumerate(sizes):
        curve = points.take(points.parameters == size)
        order = np.argsort(curve.flops, kind="stable")
        x = np.log(curve.flops[order])
        inside = (grid >= x[0]) & (grid <= x[-1])
        losses[row, inside] = np.interp(grid[inside], x, curve.loss[order])
    rivals = np.isfinite(losses).sum(0) >= 2
    best = losses.argmin(0)
    if len(np.unique(best[rivals])) < 2:
        raise DataError("fewer than two sizes are the best at any compute: give curves of several sizes that cross")
    missing = _missing_rivals(np.isfinite(losses[:, rivals]), best[rivals])
    if missing > MOST_MISSING:
        raise DataError(
            f"at {missing:.0%} of the budgets the size next to the best has no curve, so the exponent would be that of the "
            "curves' ends: train each size on fewer and on more tokens, or take approach 2 or 3"
        )
    flops = np.exp(grid[rivals])
    optima = [
        Optimum(float(sizes[row]), float(budget / (6 * sizes[row])), float(losses[row, column]))
        for row, budget, column in zip(best[rivals], flops, np.flatnonzero(rivals), strict=True)
    ]
    return replace(_frontier(flops.tolist(), optima), missing_rivals=missing)


def _missing_rivals(has_curve_NC: NDArray[np.bool_], best_C: NDArray[np.int64]) -> float:
    """The share of budgets at which the next smaller or the next larger size than the best was trained elsewhere alone."""
    present_NC = np.pad(has_curve_NC, ((1, 1), (0, 0)), constant_values=True)  # beyond all sizes nothing is missing
    at_C = np.arange(len(best_C))
    return float((~present_NC[best_C, at_C] | ~present_NC[best_C + 2, at_C]).mean())


def _frontier(flops: list[float], optima: list[Optimum]) -> Frontier:
    x = np.log(np.array(flops))
    parameters: Floats = np.log([each.parameters for each in optima])
    tokens: Floats = np.log([each.tokens for each in optima])
    a, log_coefficient = np.polyfit(x, parameters, 1)
    b, _ = np.polyfit(x, tokens, 1)
    return Frontier(tuple(flops), tuple(optima), float(a), float(b), float(np.exp(log_coefficient)))
