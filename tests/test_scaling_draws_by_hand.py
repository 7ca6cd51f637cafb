"""Bootstrapped scaling laws: the central fit and each draw are fits with the same settings, made again by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError
from firsthand.train.scaling.bootstrap_fit import TOLERANCE, bootstrap_chinchilla, bootstrap_kaplan
from firsthand.train.scaling.laws import Chinchilla, Kaplan
from firsthand.train.scaling.parametric_fit import fit_chinchilla, fit_kaplan
from firsthand.train.scaling.scaling_points import ScalingPoints

LAWS: dict[Any, Any] = {
    bootstrap_chinchilla: (fit_chinchilla, Chinchilla(e=1.69, a=406.4, b=410.7, alpha=0.34, beta=0.28)),
    bootstrap_kaplan: (fit_kaplan, Kaplan(nc=8.8e13, dc=5.4e13, alpha_n=0.076, alpha_d=0.103)),
}


def points(law: Any) -> ScalingPoints:
    """Losses with noise, which a large delta weighs by its square."""
    sizes, lengths = (each.ravel() for each in np.meshgrid(np.logspace(7, 10, 4), np.logspace(9, 11.5, 4)))
    losses = law.loss(sizes, lengths) * np.exp(np.random.default_rng(0).normal(0, 0.01, len(sizes)))
    return ScalingPoints(sizes, lengths, losses)


@pytest.mark.slow
@pytest.mark.parametrize("bootstrap", LAWS)
def test_the_central_fit_and_the_draws_have_the_delta_and_the_seed_that_were_given(bootstrap: Any) -> None:
    fit, law = LAWS[bootstrap]
    given = points(law)
    found = bootstrap(given, resamples=20, confidence=0.5, seed=3, delta=0.5)
    usual = fit(given)
    assert found.fit == fit(given, delta=0.5) and found.fit.law != usual.law
    assert (len(found.draws), found.confidence) == (20, 0.5)
    rng = np.random.default_rng(3)
    for draw in found.draws[:2]:
        drawn = given.take(rng.integers(16, size=16))
        assert draw == fit(drawn, delta=0.5, tolerance=TOLERANCE, begin=found.fit.law).law
    exponents = [each.parameters_exponent for each in found.draws]
    interval = found.parameters()["parameters_exponent"]
    low, high = np.quantile(exponents, (0.25, 0.75))
    assert (interval.value, interval.low, interval.high) == (found.fit.law.parameters_exponent, low, high)


@pytest.mark.parametrize("bootstrap", LAWS)
def test_settings_of_draws_are_refused_beyond_their_limits(bootstrap: Any) -> None:
    given = points(LAWS[bootstrap][1])
    with pytest.raises(ConfigError) as refused:
        bootstrap(given, resamples=19)
    assert str(refused.value) == "resamples is 19: percentiles need 20 or more, better 200"
    for confidence in (0.49, 1, 1.01):
        with pytest.raises(ConfigError) as refused:
            bootstrap(given, resamples=20, confidence=confidence)
        assert str(refused.value) == f"confidence is {confidence}: expected 0.5 or more and below 1"
