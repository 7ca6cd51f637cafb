"""Bootstrap intervals for a law's parameters, its exponents and its predictions: points are drawn with replacement.

Each draw is fitted from the estimate of all points, with the same objective (Efron, 1979; Besiroglu et al., 2024). The
intervals are percentiles. Runs of one sweep share data and seeds: the intervals say nothing of what those change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic

import numpy as np

from firsthand.errors import ConfigError
from firsthand.train.scaling.laws import Chinchilla, Kaplan
from firsthand.train.scaling.parametric_fit import Fit, LawT, fit_chinchilla, fit_kaplan
from firsthand.train.scaling.scaling_points import ScalingPoints

RESAMPLES, TOLERANCE = 200, 1e-9
MAX_DRAWN = 10_000_000
"""Points of all draws together."""


@dataclass(frozen=True)
class Range:
    """An estimate and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrapped(Generic[LawT]):
    """A fit of all points, and the laws fitted to draws of them."""

    fit: Fit[LawT]
    draws: tuple[LawT, ...] = field(repr=False)
    confidence: float

    def interval(self, of: Callable[[LawT], float]) -> Range:
        """The interval of any figure of the law, such as `lambda law: law.optimum(1e20).loss`."""
        tail = (1 - self.confidence) / 2
        found = np.array([of(law) for law in self.draws])
        low, high = np.quantile(found[np.isfinite(found)], (tail, 1 - tail))
        return Range(of(self.fit.law), float(low), float(high))

    def parameters(self) -> dict[str, Range]:
        """The interval of each parameter, and of the exponent of N_opt in C."""
        names = [*self.fit.law.__dataclass_fields__, "parameters_exponent"]
        return {name: self.interval(attrgetter(name)) for name in names}


def bootstrap_chinchilla(
    points: ScalingPoints, *, resamples: int = RESAMPLES, confidence: float = 0.95, seed: int = 0, delta: float = 1e-3
) -> Bootstrapped[Chinchilla]:
    """Fits Chinchilla's form to the points, and to draws of them."""

    def refit(drawn: ScalingPoints, begin: Chinchilla) -> Fit[Chinchilla]:
        return fit_chinchilla(drawn, delta=delta, tolerance=TOLERANCE, begin=begin)

    return _bootstrapped(points, lambda: fit_chinchilla(points, delta=delta), refit, resamples, confidence, seed)


def bootstrap_kaplan(
    points: ScalingPoints, *, resamples: int = RESAMPLES, confidence: float = 0.95, seed: int = 0, delta: float = 1e-3
) -> Bootstrapped[Kaplan]:
    """Fits Kaplan's form to the points, and to draws of them."""

    def refit(drawn: ScalingPoints, begin: Kaplan) -> Fit[Kaplan]:
        return fit_kaplan(drawn, delta=delta, tolerance=TOLERANCE, begin=begin)

    return _bootstrapped(points, lambda: fit_kaplan(points, delta=delta), refit, resamples, confidence, seed)


def _bootstrapped(
    points: ScalingPoints,
    fit: Callable[[], Fit[LawT]],
    refit: Callable[[ScalingPoints, LawT], Fit[LawT]],
    resamples: int,
    confidence: float,
    seed: int,
) -> Bootstrapped[LawT]:
    if resamples < 20:
        raise ConfigError(f"resamples is {resamples}: percentiles need 20 or more, better 200")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence is {confidence}: expected 0.5 or more and below 1")
    if resamples * len(points) > MAX_DRAWN:
        raise ConfigError(
            f"resamples is {resamples:,} for {len(points):,} points: give at most {MAX_DRAWN // len(points):,}, or fewer "
            "points"
        )
    rng = np.random.default_rng(seed)
    whole, draws = fit(), list[LawT]()
    while len(draws) < resamples:
        drawn = points.take(rng.integers(len(points), size=len(points)))
        if np.ptp(drawn.parameters) and np.ptp(drawn.tokens):
            draws.append(refit(drawn, whole.law).law)
    return Bootstrapped(whole, tuple(draws), confidence)
