"""Intervals and joint ranks of every rating and board hold as often as they say, over data of known truth."""

import numpy as np
import pytest
import rank_coverage
from rank_coverage import EQUAL, KINDS, STRENGTHS, coverage

from firsthand.boards import random_orders
from firsthand.boards.random_orders import largest_of_equal_models
from firsthand.stats.joint_ranks import MANY
from thorough import THOROUGH, repetitions


@pytest.fixture(autouse=True)
def small_populations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth of drawn benchmarks and voters is itself a mean, here with a fiftieth of an interval's error."""
    if not THOROUGH:
        monkeypatch.setattr(rank_coverage, "BENCHMARKS", 60_000)
        monkeypatch.setattr(rank_coverage, "MANY_VOTES", 400_000)


@pytest.mark.slow
def test_equal_models_are_seldom_told_apart_by_win_rates() -> None:
    held, together = coverage("win-rate", range(150), EQUAL)
    assert together >= 0.89  # .95 expected; less has a probability of 0.1%
    assert 0.92 < held < 0.98


def test_two_models_are_told_apart_as_by_a_sign_test() -> None:
    # 8 columns: all agree in 2 of 256 draws, and 7 of 8 or more in 18, more than a twentieth
    unequal = np.sqrt(9 / 8 * (8 - 6**2 / 9))
    assert largest_of_equal_models(2, 8, 0.95) == pytest.approx(6 / unequal)
    # 5 columns agree in 2 of 32 draws: nothing that they can show is rare enough
    assert largest_of_equal_models(2, 5, 0.95) == pytest.approx(5 / np.sqrt(6 / 5 * (5 - 5**2 / 6)))


def test_a_quantile_is_not_drawn_where_it_says_nothing_or_takes_too_long() -> None:
    assert largest_of_equal_models(1, 8, 0.95) is None
    assert largest_of_equal_models(8, 1, 0.95) is None
    assert largest_of_equal_models(MANY + 1, 8, 0.95) is None


@pytest.mark.slow
@pytest.mark.parametrize(("models", "draws"), [(2, 40), (100, 40), (101, 39), (300, 4), (MANY, 4)])
def test_the_quantile_of_many_models_is_drawn_from_fewer_orders(
    models: int, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_orders, "DRAWS", 40)  # 4,000 of 600 models take seconds
    columns, seed = 3, 11
    plain = np.arange(models) - (models - 1) / 2
    orders = np.random.default_rng(seed).permuted(np.broadcast_to(plain, (draws, columns, models)), axis=2)
    largest = []
    for order in orders:
        total, spread = order.sum(0), np.eye(models)
        centred = np.vstack([order, np.zeros(models)]) - total / (columns + 1)  # and a column in which models are equal
        products = centred.T @ centred
        own = np.diag(products)
        spread += (own[:, None] + own - 2 * products) * (columns + 1) / columns
        largest.append((np.abs(total[:, None] - total) / np.sqrt(spread)).max())
    for confidence in (0.25, 0.75):
        found = largest_of_equal_models(models, columns, confidence, seed)
        assert found == pytest.approx(np.sort(largest)[int(np.ceil(draws * confidence)) - 1], rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_and_ranks_hold(kind: str) -> None:
    runs = repetitions(200, 80)
    least = 0.895 if THOROUGH else 0.86  # .95 expected; less has a probability of 0.1%
    of_kinds = ((STRENGTHS, EQUAL),) if THOROUGH else ((STRENGTHS,), (EQUAL,))  # equal models for each second kind
    for worths in of_kinds[[*KINDS].index(kind) % len(of_kinds)]:
        held, together = coverage(kind, range(runs), worths)
        assert 0.92 < held < 0.98 and together > least
