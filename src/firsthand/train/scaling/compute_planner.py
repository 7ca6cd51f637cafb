"""Plans a training run: the size, tokens and loss that a fitted law predicts for a compute, with intervals.

A prediction beyond the points that were fitted is an extrapolation; `extrapolates` says by how much compute. The interval is
that of the fit alone: a larger model may need another learning rate, data or shape than the small ones had.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from firsthand.errors import ConfigError
from firsthand.train.scaling.bootstrap_fit import Bootstrapped, Range
from firsthand.train.scaling.laws import Chinchilla
from firsthand.train.scaling.scaling_points import ScalingPoints

UTILISATION = 0.6
"""Share of the measured speed of matrix products that training reaches (`bench/train.py`)."""


@dataclass(frozen=True)
class TrainingPlan:
    """A model to train for a given compute."""

    flops: float
    parameters: Range
    tokens: Range
    loss: Range
    extrapolates: float
    """The compute as a multiple of the largest that was fitted."""

    @property
    def tokens_per_parameter(self) -> float:
        """D / N."""
        return self.tokens.value / self.parameters.value


def plan_training(fitted: Bootstrapped[Chinchilla], points: ScalingPoints, flops: float) -> TrainingPlan:
    """The compute-optimal size and tokens, and the loss they should reach."""
    return TrainingPlan(
        flops=flops,
        parameters=fitted.interval(lambda law: law.optimum(flops).parameters),
        tokens=fitted.interval(lambda law: law.optimum(flops).tokens),
        loss=fitted.interval(lambda law: law.optimum(flops).loss),
        extrapolates=flops / float(points.flops.max()),
    )


def predict_loss(fitted: Bootstrapped[Chinchilla], parameters: float, tokens: float) -> Range:
    """The loss of a run of that size and length, such as a larger one than any that was fitted."""
    if not (parameters > 0 and tokens > 0):
        raise ConfigError(f"parameters is {parameters:g} and tokens {tokens:g}: expected numbers above 0")
    return fitted.interval(lambda law: float(law.loss(np.array(parameters), np.array(tokens))))


def compute_of(hours: float, flops_per_second: float, *, utilisation: float = UTILISATION) -> float:
    """The training compute of so many hours."""
    if not (hours > 0 and flops_per_second > 0 and 0 < utilisation <= 1):
        raise ConfigError(
            f"hours is {hours:g}, the speed {flops_per_second:g} FLOP/s and utilisation {utilisation:g}: expected numbers "
            "above 0, and a utilisation of at most 1"
        )
    return hours * 3600 * flops_per_second * utilisation
