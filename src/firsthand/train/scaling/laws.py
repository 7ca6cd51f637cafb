"""The two parametric forms of the loss, and the compute-optimal model that each predicts.

Chinchilla (Hoffmann et al., 2022, eq. 2): L(N, D) = E + A / N^alpha + B / D^beta. Kaplan et al. (2020, eq. 1.5):
L(N, D) = [(Nc / N)^(alpha_N / alpha_D) + Dc / D]^alpha_D, which falls to 0 without bound.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import NamedTuple, Protocol

import numpy as np

from firsthand.errors import ConfigError
from firsthand.train.scaling.scaling_points import Floats


class Optimum(NamedTuple):
    """The best model for a training compute."""

    parameters: float
    tokens: float
    loss: float


class Law(Protocol):
    """A fitted loss of N parameters and D tokens."""

    def loss(self, parameters: Floats, tokens: Floats, /) -> Floats: ...
    def optimum(self, flops: float, /) -> Optimum: ...


@dataclass(frozen=True)
class Chinchilla:
    """E + A / N^alpha + B / D^beta."""

    e: float
    """Irreducible loss, E."""
    a: float
    """A"""
    b: float
    """B"""
    alpha: float
    beta: float

    @property
    def parameters_exponent(self) -> float:
        """The exponent of N_opt in C: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def tokens_exponent(self) -> float:
        """The exponent of D_opt in C: alpha / (alpha + beta)."""
        return self.alpha / (self.alpha + self.beta)

    def loss(self, parameters: Floats, tokens: Floats) -> Floats:
        """The predicted loss of each pair."""
        return np.asarray(self.e + self.a * parameters**-self.alpha + self.b * tokens**-self.beta)

    def optimum(self, flops: float) -> Optimum:
        """The loss's minimum on 6 N D = flops, in closed form (eq. 4)."""
        _above_zero(flops)
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = g * (flops / 6) ** self.parameters_exponent
        return _optimum(self, parameters, flops)

    def values(self) -> tuple[float, ...]:
        """E, A, B, alpha, beta."""
        return astuple(self)


@dataclass(frozen=True)
class Kaplan:
    """[(Nc / N)^(alpha_N / alpha_D) + Dc / D]^alpha_D."""

    nc: float
    dc: float
    alpha_n: float
    alpha_d: float

    @property
    def parameters_exponent(self) -> float:
        """The exponent of N_opt in C when data, not steps, is what compute buys: alpha_D / (alpha_N + alpha_D)."""
        return self.alpha_d / (self.alpha_n + self.alpha_d)

    def loss(self, parameters: Floats, tokens: Floats) -> Floats:
        """The predicted loss of each pair."""
        capacity = (self.nc / np.asarray(parameters)) ** (self.alpha_n / self.alpha_d)
        return np.asarray((capacity + self.dc / np.asarray(tokens)) ** self.alpha_d)

    def optimum(self, flops: float) -> Optimum:
        """The loss's minimum on 6 N D = flops: where r (Nc / N)^r = Dc / D with r = alpha_N / alpha_D."""
        _above_zero(flops)
        r = self.alpha_n / self.alpha_d
        parameters = (r * self.nc**r * flops / (6 * self.dc)) ** (1 / (1 + r))
        return _optimum(self, parameters, flops)

    def values(self) -> tuple[float, ...]:
        """Nc, Dc, alpha_N, alpha_D."""
        return astuple(self)


def _above_zero(flops: float) -> None:
    if not (math.isfinite(flops) and flops > 0):
        raise ConfigError(f"flops is {flops}: expected a number above 0, such as 1e18")


def _optimum(law: Law, parameters: float, flops: float) -> Optimum:
    tokens = flops / (6 * parameters)
    return Optimum(parameters, tokens, float(law.loss(np.array(parameters), np.array(tokens))))
