"""The likelihood of one battle's outcome under Bradley-Terry and two models of ties, with its first two derivatives.

Each is a function of the difference of strengths d = theta_a - theta_b and of one parameter eta of ties, concave in both, so
that Newton's method finds the only maximum. Outcomes are A_WINS, TIE, B_WINS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Floats = NDArray[np.float64]


class Terms(NamedTuple):
    """Log-likelihood and derivatives, each of shape (3, ...): one row per outcome."""

    value: Floats
    by_d: Floats
    by_eta: Floats
    by_dd: Floats
    by_d_eta: Floats
    by_eta_eta: Floats


PairLikelihood = Callable[[Floats, float], Terms]


def bradley_terry_terms(d: Floats, eta: float) -> Terms:
    """P(a wins) = 1 / (1 + exp(-d)) (Bradley and Terry, 1952); a tie is half a win and half a loss, as arenas count it."""
    p, zero = expit(d), np.zeros_like(d)
    win, loss = log_expit(d), log_expit(-d)
    curve = -p * (1 - p)
    slopes = np.stack([1 - p, 0.5 - p, -p])
    nothing = np.stack([zero, zero, zero])
    return Terms(np.stack([win, (win + loss) / 2, loss]), slopes, nothing, np.stack([curve] * 3), nothing, nothing)


def davidson_terms(d: Floats, eta: float) -> Terms:
    """P(tie) = nu sqrt(P(a) P(b)), with eta = log nu (Davidson, 1970, eq. 2.3)."""
    scores = np.stack([d / 2, np.full_like(d, eta), -d / 2])
    top = scores.max(0)
    total = np.log(np.exp(scores - top).sum(0)) + top
    p = np.exp(scores - total)
    x, z = np.array([0.5, 0.0, -0.5]), np.array([0.0, 1.0, 0.0])
    shape = (3,) + (1,) * d.ndim
    x, z = x.reshape(shape), z.reshape(shape)
    mean_x, mean_z = (p * x).sum(0), p[1]
    by_dd = -((p * x * x).sum(0) - mean_x**2)
    by_d_eta = -((p * x * z).sum(0) - mean_x * mean_z)
    by_eta_eta = -(mean_z - mean_z**2)
    every = np.ones(shape)
    return Terms(scores - total, x - mean_x, z - mean_z, by_dd * every, by_d_eta * every, by_eta_eta * every)


def rao_kupper_terms(d: Floats, eta: float) -> Terms:
    """P(a wins) = 1 / (1 + exp(eta - d)), P(b wins) likewise, a tie the rest; eta > 0 (Rao and Kupper, 1967, eq. 2.3)."""
    up, down = expit(d - eta), expit(-d - eta)
    # P(tie) = sigma(d + eta) - sigma(d - eta) = (exp(2 eta) - 1) sigma(d - eta) sigma(-d - eta)
    tie = np.log(np.expm1(2 * eta)) + log_expit(d - eta) + log_expit(-d - eta)
    growth = 2 + 2 / np.expm1(2 * eta)
    curve_up, curve_down = -up * (1 - up), -down * (1 - down)
    value = np.stack([log_expit(d - eta), tie, log_expit(-d - eta)])
    by_d = np.stack([1 - up, (1 - up) - (1 - down), -(1 - down)])
    by_eta = np.stack([-(1 - up), growth - (1 - up) - (1 - down), -(1 - down)])
    by_dd = np.stack([curve_up, curve_up + curve_down, curve_down])
    by_d_eta = np.stack([-curve_up, curve_down - curve_up, curve_down])
    # the derivative of `growth` is -4 e / (e - 1)^2 with e = exp(2 eta)
    bend = -4 * np.exp(2 * eta) / np.expm1(2 * eta) ** 2
    by_eta_eta = np.stack([curve_up, bend + curve_up + curve_down, curve_down])
    return Terms(value, by_d, by_eta, by_dd, by_d_eta, by_eta_eta)
