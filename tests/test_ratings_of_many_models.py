"""Ratings of hundreds of models: ranks by a bound that takes no draws, and no more models than are rated in seconds."""

from __future__ import annotations

import math
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from firsthand.arena.battle_table import MAX_MODELS, BattleTable
from firsthand.arena.rank_intervals import ranked
from firsthand.arena.ratings import (
    ELO,
    MANY_MODELS,
    MAX_STEPS,
    MAX_STEPS_OF_MANY,
    _likelihood,
    _most_steps,
    _rows,
    _value,
    rate,
)
from firsthand.arena.vote_checks import MANY_MODELS as MANY_CHECKED
from firsthand.arena.vote_checks import _of_voter, suspect_voters
from firsthand.arena.vote_files import read_votes
from firsthand.commands.board_of_votes import print_votes
from firsthand.errors import ConfigError
from firsthand.preference import Preference
from firsthand.runs import store
from firsthand.stats.joint_ranks import MANY, rank_ranges, told_apart
from firsthand.studio.access import Access
from firsthand.studio.studio_app import create_app
from firsthand.studio.views import arena_views
from firsthand.studio.views.arena_views import Standings, standings_of
from firsthand.task import Task
from firsthand.trace import Trace


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
    table = chain(MANY_CHECKED, voters=100, each=2)
    begun = time.process_time()
    assert suspect_voters(table) == []
    assert time.process_time() - begun < 2  # 0.1 s; a fit for each of 100 voters takes 5 s


class Named(str):
    """A model's name that counts how often it is compared with another text."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Named.compared += 1
        return str.__eq__(self, other)


def test_models_are_chosen_from_thousands_by_one_comparison_each():
    names = [Named(f"m{i}") for i in range(3_000)]
    table = BattleTable.from_columns(names[:-1], names[1:], ["tie"] * 2_999)
    chosen = [Named(f"m{i}") for i in reversed(range(3_000))]  # other objects: a tuple compares with each before it
    Named.compared = 0
    only = table.only([*chosen[:2_000], *chosen[:5]])
    assert Named.compared < 20_000 and len(only) == 1_999 and only.models[:2] == ("m2999", "m2998")
    assert (only.a[0], only.b[0]) == (1_999, 1_998)  # m1000 against m1001
    with pytest.raises(ConfigError, match="no battle names the model 'm3000'"):
        table.only(["m3000"])


def test_pairs_of_more_models_than_are_rated_are_never_counted():
    table = chain(MAX_MODELS + 1)
    assert table.games.tolist() == [1, *[2] * (MAX_MODELS - 1), 1] and table.games_won.sum() == MAX_MODELS
    for name in ("counts", "wins", "ties"):
        with pytest.raises(ConfigError, match=f"has {MAX_MODELS + 1:,} models.*leave out models with few battles"):
            getattr(table, name)


def test_a_few_rated_models_among_thousands_that_only_won_or_lost_are_printed(tmp_path: Path, capsys: Any):
    rows = [f"m{i},m{i + 1},model_a" for i in range(30_000)]  # 10 GB for the pairs, of which two are rated
    (tmp_path / "votes.csv").write_text("\n".join(["model_a,model_b,winner", *rows, "x,y,tie", "x,y,model_a"]))
    print_votes("votes.csv", read_votes(tmp_path / "votes.csv"), method="bradley-terry", anchor="", confidence=0.95,
                level="95%", json=False)  # fmt: skip
    shown = capsys.readouterr().out
    assert "0.75" in shown and "0.25" in shown and "Not rated" in shown


def test_games_won_are_the_sums_of_the_pairs():
    draws = np.random.default_rng(3)
    a = draws.integers(0, 5, 200)
    b = (a + draws.integers(1, 5, 200)) % 5
    table = BattleTable.from_columns([f"m{i}" for i in a], [f"m{i}" for i in b], draws.choice(["a", "b", "tie"], 200))
    assert table.games_won.tolist() == table.wins.sum(1).tolist()
    every = table.counts.sum(0)
    assert table.games.tolist() == (every.sum(0) + every.sum(1)).tolist()


def with_lengths(size: int, chance: float) -> BattleTable:
    """Both of each pair of neighbours win once; the longer answer wins with this chance."""
    draws = np.random.default_rng(5)
    a, b = ([f"m{i + side}" for i in range(size - 1) for _ in "ab"] for side in (0, 1))
    winner = ["a", "b"] * (size - 1)
    sides = np.where(np.array(winner) == "a", 1, -1) * np.where(draws.random(len(a)) < chance, 1, -1)
    return BattleTable.from_columns(a, b, winner, covariates={"length": (sides * (1 + draws.random(len(a)))).tolist()})


def test_arenas_of_an_ordinary_size_have_all_steps():
    assert (_most_steps(MANY_MODELS), _most_steps(MANY_MODELS + 1)) == (MAX_STEPS, MAX_STEPS_OF_MANY)


@pytest.mark.slow
def test_lengths_of_hundreds_of_models_are_held_equal_in_few_steps():
    coefficient, error = rate(with_lengths(MANY_MODELS + 1, 0.9)).covariates["length"]
    assert coefficient > 3 * error > 0


@pytest.mark.slow
def test_lengths_that_separate_the_wins_of_hundreds_of_models_are_refused_after_few_steps():
    with pytest.raises(ConfigError, match=f"not converge in {MAX_STEPS_OF_MANY} steps: a covariate separates wins"):
        rate(with_lengths(MANY_MODELS + 1, 1.0))


@pytest.mark.parametrize("method", ["bradley-terry", "davidson", "rao-kupper"])
@pytest.mark.parametrize("prior", [0.0, 0.7])
def test_a_value_without_its_derivatives_is_that_of_the_likelihood(method: Any, prior: float):
    rows, fitted = _rows(with_lengths(5, 0.7)), np.linspace(-1, 1, 6 + (method != "bradley-terry"))
    assert _value(rows, fitted, method, 5, prior) == _likelihood(rows, fitted, method, 5, prior).value
    fitted[-1] = -1
    assert method != "rao-kupper" or _value(rows, fitted, method, 5, prior) == -math.inf


def test_the_arenas_page_shows_the_pairs_of_the_best_models_and_says_of_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(arena_views, "MOST_PAIRED", 3)
    monkeypatch.setattr(arena_views, "MOST_UNRATED_SHOWN", 2)
    with store.create(tmp_path, {"arena": {}}, "arena") as run:
        run.add_tasks("arena", [Task("q", "?")])
        for i in range(9):
            run.append(Trace(f"t{i}", "arena", "q", {"name": f"m{i}"}, i, 0, "", 0.1, answer="x"))
        for i, winner in enumerate(["tie", "tie", "tie", "tie", "a", "a", "a", "a"]):  # m5 to m8 lead back to none
            run.add_preference(Preference("q", f"t{i}", f"t{i + 1}", winner, "human:v"))
        found = standings_of([run], ())
    assert isinstance(found, Standings) and len(found.rows) == 5 and len(found.unrated) == 4
    assert [len(row) for row in found.matrix] == [3, 3, 3]
    access = Access()
    access.port = 8000
    with TestClient(create_app(tmp_path, access), base_url="http://127.0.0.1:8000") as client:
        client.get("/enter", params={"code": access.new_code()})
        page = client.get("/arena/board").text
    assert "The best 3 of 5 models are shown." in page and "m5, m6 and 2 more." in page
    table = page[page.index("Who beats whom") : page.index("Last votes")]
    assert table.count('<th scope="row">') == 3 and table.count('<th scope="col">') == 4 and table.count("<td") == 9


def test_a_voters_wins_for_thousands_of_models_are_summed_in_one_pass():
    size = 20_000
    table = chain(size, voters=1, each=2)
    begun = time.process_time()
    found = _of_voter(table, 0, np.zeros(size), 4)
    assert time.process_time() - begun < 1.5  # 0.1 s; a pass for each model takes 6 s
    assert len(found) == size - 2 and {(each.battles, each.won, each.expected) for each in found} == {(4, 2.0, 2.0)}
    assert found[0].model == "m1" and {each.p_value for each in found} == {1.0}, "none above 1"
    theta = np.where(np.arange(size) % 2, 1.0, -1.0)  # each model wins less than expected, or more, and by the same
    chance = 1 / (1 + math.exp(2))
    p_value = 2 * NormalDist().cdf(-(2 - 4 * chance - 0.5) / math.sqrt(4 * chance * (1 - chance)))
    found = _of_voter(table, 0, theta[[int(name[1:]) for name in table.models]], 4)
    assert {each.won - each.expected > 0 for each in found} == {True, False}
    assert [each.p_value for each in found] == pytest.approx([p_value] * (size - 2))
