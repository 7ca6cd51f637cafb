"""Ratings of hundreds of models: ranks by a bound that takes no draws, and no more models than are rated in seconds."""

from __future__ import annotations

import math
import time
from statistics import NormalDist

import numpy as np
import pytest

from firsthand.arena.battle_table import BattleTable
from firsthand.arena.rank_intervals import ranked
from firsthand.arena.ratings import ELO, MAX_MODELS, rate
from firsthand.arena.vote_checks import MANY_MODELS, suspect_voters
from firsthand.errors import ConfigError
from firsthand.stats.joint_ranks import MANY, rank_ranges, told_apart


def chain(size: int, *, voters: int = 0, each: int = 1) -> BattleTable:
    """Ties between neighbours, so that all of them are connected by one way."""
    a, b = ([f"m{i + side}" for i in range(size - 1) for _ in range(each)] for side in (0, 1))
    names = [f"v{i % voters}" for i in range(len(a))] if voters else None
    return BattleTable.from_columns(a, b, ["tie"] * len(a), voters=names)


@pytest.mark.slow
def test_a_chain_of_hundreds_of_models_is_ranked_without_draws():
    ratings = rate(chain(MANY + 1, voters=30))
    begun = time.process_time()
    rows = ranked(ratings)
    assert time.process_time() - begun < 1  # 0.02 s; 4,000 draws take 4 s
    assert {(row.rank_low, row.rank_high) for row in rows} == {(1, MANY + 1)} and ratings.clustered_by == ("voter",)


def test_ranks_of_many_values_are_those_of_bonferronis_bound_over_all_pairs():
    values = np.zeros(MANY + 1)
    pairs = (MANY + 1) * MANY / 2
    critical = NormalDist().inv_cdf(1 - 0.05 / (2 * pairs))
    for factor, apart in ((0.99, False), (1.01, True)):
        values[0] = critical * math.sqrt(2) * factor
        told = told_apart(values, np.eye(MANY + 1))
        assert told[0, 1:].all() == apart == told.any()
        assert rank_ranges(values, np.ones(MANY + 1))[0].high == (1 if apart else MANY + 1)
    few = np.zeros(MANY)
    few[0] = critical * math.sqrt(2) * 0.99
    assert told_apart(few[:5], np.eye(5))[0, 1:].all()  # few models: draws, whose quantile is smaller


def test_more_models_than_are_rated_in_seconds_are_refused_before_the_fit():
    begun = time.process_time()
    with pytest.raises(ConfigError, match=f"the arena has {MAX_MODELS + 1:,} models.*for {MAX_MODELS:,} at most"):
        rate(chain(MAX_MODELS + 1))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("anchor", [None, "m2"])
def test_errors_are_those_of_the_distance_to_the_anchor_or_the_mean(anchor: str | None):
    ratings = rate(chain(6, each=4))
    basis = np.eye(6)
    if anchor:
        basis -= np.eye(6)[2]
    errors = ELO * np.sqrt(np.clip(np.diag(basis @ ratings.covariance @ basis.T), 0, None))
    for row in ranked(ratings, anchor=anchor):
        error = errors[ratings.models.index(row.model)]
        assert (row.high - row.low) / 2 == pytest.approx(1.959964 * error, rel=1e-5, abs=1e-6)


def test_two_clusterings_that_contradict_give_no_negative_variance():
    draws = np.random.default_rng(2)
    a = draws.integers(0, 3, 60)
    b = a + 1 + draws.integers(0, 3, 60)
    table = BattleTable.from_columns(
        [f"m{i % 6}" for i in a], [f"m{i % 6}" for i in b], ["a" if each else "b" for each in draws.integers(0, 2, 60)],
        voters=[f"v{i % 20}" for i in range(60)], questions=[f"q{(i // 20 + i) % 20}" for i in range(60)],
    )  # fmt: skip
    ratings = rate(table)
    assert ratings.clustered_by == ("voter", "question") and np.linalg.eigvalsh(ratings.covariance)[0] > -1e-12


def test_the_covariance_of_a_chain_of_ties_sums_to_zero_as_the_strengths_do():
    ratings = rate(chain(5))
    np.testing.assert_allclose(ratings.covariance.sum(0), 0, atol=1e-9)
    np.testing.assert_allclose(ratings.theta, 0, atol=1e-12)
    assert ratings.covariance[0, 0] == pytest.approx(4.8)  # 4 (n - 1) (2 n - 1) / 6 n, of links whose variance is 4


def test_votes_of_many_models_are_checked_with_one_fit():
    table = chain(MANY_MODELS, voters=100, each=2)
    begun = time.process_time()
    assert suspect_voters(table) == []
    assert time.process_time() - begun < 2  # 0.1 s; a fit for each of 100 voters takes 5 s
