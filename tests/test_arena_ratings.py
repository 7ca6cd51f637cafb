"""Ratings of battles: against closed forms, an independent iteration, dense sandwiches by hand, and simulation."""

import json
import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from firsthand.arena.battle_table import A_WINS, B_WINS, TIE, BattleTable
from firsthand.arena.connectivity import comparable_groups
from firsthand.arena.elo import elo
from firsthand.arena.pair_likelihoods import bradley_terry_terms, davidson_terms, rao_kupper_terms
from firsthand.arena.rank_intervals import ranked, separated
from firsthand.arena.ratings import ELO, MIN_CLUSTERS, Ratings, rate
from firsthand.arena.vote_files import read_votes, style_count
from firsthand.errors import ConfigError, DataError, FirsthandError
from thorough import THOROUGH, repetitions

METHODS = ("bradley-terry", "davidson", "rao-kupper")


def battles(seed: int = 0, size: int = 5, number: int = 400, ties: float = 0.2, voters: int = 0, **more) -> BattleTable:
    """Battles of models whose true strengths are 0, .3, .6 ..."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, size, number)
    b = (a + rng.integers(1, size, number)) % size
    chance = 1 / (1 + np.exp(-0.3 * (a - b)))
    tied = rng.random(number) < ties
    winner = np.where(tied, "tie", np.where(rng.random(number) < chance, "model_a", "model_b"))
    people = [f"v{i}" for i in rng.integers(0, voters, number)] if voters else None
    return BattleTable.from_columns(
        [f"m{i}" for i in a],
        [f"m{i}" for i in b],
        winner.tolist(),
        voters=people,
        models=[f"m{i}" for i in range(size)],
        **more,
    )


@pytest.mark.parametrize("terms", [bradley_terry_terms, davidson_terms, rao_kupper_terms])
def test_likelihoods_and_their_derivatives_are_those_of_finite_differences(terms: Callable) -> None:
    d, eta, h = np.array([-2.3, -0.4, 0.0, 0.7, 3.1]), 0.6, 1e-5
    at = terms(d, eta)
    assert np.allclose(at.by_d, (terms(d + h, eta).value - terms(d - h, eta).value) / (2 * h), atol=1e-8)
    assert np.allclose(at.by_eta, (terms(d, eta + h).value - terms(d, eta - h).value) / (2 * h), atol=1e-8)
    assert np.allclose(at.by_dd, (terms(d + h, eta).by_d - terms(d - h, eta).by_d) / (2 * h), atol=1e-8)
    assert np.allclose(at.by_d_eta, (terms(d, eta + h).by_d - terms(d, eta - h).by_d) / (2 * h), atol=1e-8)
    assert np.allclose(at.by_eta_eta, (terms(d, eta + h).by_eta - terms(d, eta - h).by_eta) / (2 * h), atol=1e-8)
    if terms is not bradley_terry_terms:
        assert np.allclose(np.exp(at.value).sum(0), 1)
    assert np.allclose(terms(-d, eta).value, at.value[::-1])  # who is named first does not matter


def test_two_models_have_the_log_odds_of_their_wins() -> None:
    table = BattleTable.from_columns(["x"] * 4, ["y"] * 4, ["a", "a", "a", "b"])
    found = rate(table)
    assert found.theta[0] - found.theta[1] == pytest.approx(math.log(3))
    assert found.theta.sum() == pytest.approx(0)
    assert found.covariance[0, 0] * 4 == pytest.approx(1 / 3 + 1 / 1)  # variance of log odds of 3 to 1
    tied = rate(BattleTable.from_columns(["x"] * 4, ["y"] * 4, ["a", "a", "tie", "tie"]))
    assert tied.theta[0] - tied.theta[1] == pytest.approx(math.log(3))


def test_ratings_equal_those_of_the_iteration_of_zermelo() -> None:
    table = battles()
    wins = table.wins
    strength = np.ones(5)
    for _ in range(5000):
        met = wins + wins.T
        strength = wins.sum(1) / (met / (strength[:, None] + strength[None, :])).sum(1)
        strength /= np.exp(np.log(strength).mean())
    assert np.allclose(rate(table).theta, np.log(strength), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_which_model_is_named_first_and_the_order_of_battles_change_nothing(method) -> None:
    table = battles()
    names = np.array(table.models)
    word = np.array(["b", "tie", "a"])
    turned = BattleTable.from_columns(
        names[table.b][::-1].tolist(),
        names[table.a][::-1].tolist(),
        word[table.outcome][::-1].tolist(),
        models=table.models,
    )
    assert np.allclose(rate(turned, method).theta, rate(table, method).theta, atol=1e-9)
    assert np.allclose(rate(turned, method).covariance, rate(table, method).covariance, atol=1e-9)


def dense(table: BattleTable, method: str, groups: list | None = None) -> np.ndarray:
    """The sandwich by loops over battles and finite differences, an independent computation of `rate`'s covariance."""
    found = rate(table, method)
    size, width = len(table.models), 0 if table.covariates is None else table.covariates.shape[1]
    terms = {"bradley-terry": bradley_terry_terms, "davidson": davidson_terms, "rao-kupper": rao_kupper_terms}[method]
    beta = [value for value, _ in found.covariates.values()]
    at = np.array([*found.theta, *beta, *([found.ties] if found.ties is not None else [])])

    def likelihood(values: np.ndarray, n: int) -> float:
        d = values[table.a[n]] - values[table.b[n]]
        d += 0 if table.covariates is None else table.covariates[n] @ values[size : size + width]
        return float(terms(np.array([d]), float(values[-1])).value[table.outcome[n], 0])

    def gradient(values: np.ndarray, n: int) -> np.ndarray:
        steps = np.eye(len(at)) * 1e-5
        return np.array([(likelihood(values + s, n) - likelihood(values - s, n)) / 2e-5 for s in steps])

    scores = np.array([gradient(at, n) for n in range(len(table))])
    steps = np.eye(len(at)) * 1e-4
    bends = -np.array([[(gradient(at + s, n) - gradient(at - s, n)) / 2e-4 for s in steps] for n in range(len(table))])
    curved = bends.sum(0)
    bread = np.linalg.pinv(curved, rcond=1e-7)
    meat = np.zeros_like(bread)
    for sign, numbers in groups or [(1, np.arange(len(table)))]:
        distinct = np.unique(numbers)
        for each in distinct:
            score, own = scores[numbers == each].sum(0), bends[numbers == each].sum(0)
            own[size + width :], own[:, size + width :] = 0, 0
            pulled = bread @ score
            leverage = 0 if groups is None else pulled @ own @ pulled / (score @ pulled)
            meat += sign * np.outer(score, score) / (1 - leverage)
    return (bread @ meat @ bread)[:size, :size]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_covariance_is_the_sandwich_of_the_battles(method) -> None:
    table = battles(number=60, size=3)
    assert np.allclose(rate(table, method).covariance, dense(table, method), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_clusters_of_voters_and_questions_are_both_accounted_for() -> None:
    rng = np.random.default_rng(1)
    number = 120
    questions = [f"q{i}" for i in rng.integers(0, 25, number)]
    table = battles(number=number, size=3, voters=30, questions=questions)
    both = table.voters * 1000 + table.questions
    expected = dense(table, "davidson", [(1, table.voters), (1, table.questions), (-1, both)])
    found = rate(table, "davidson")
    assert np.allclose(found.covariance, expected, rtol=1e-3, atol=1e-6)
    assert found.clustered_by == ("voter", "question")
    assert (found.degrees > 10).all() and (found.degrees < len(set(table.questions)) - 1).all()
    assert not np.allclose(rate(table, "davidson", clustered=False).covariance, expected, rtol=1e-2)


def test_ties_alone_have_an_interval() -> None:
    """The sandwich of three ties is 0, which would be certainty; the information of three battles of equals is 3/4."""
    table = BattleTable.from_columns(["a"] * 3, ["b"] * 3, ["tie"] * 3)
    error = math.sqrt(rate(table).covariance[0, 0])
    assert error == pytest.approx(math.sqrt(4 / 3) / 2) and separated(rate(table)).sum() == 0


def test_a_vote_copied_by_its_voter_adds_no_certainty() -> None:
    table = battles(number=200, voters=40)
    copied = BattleTable(
        table.models,
        *(np.repeat(each, 5) for each in (table.a, table.b, table.outcome)),
        voters=np.repeat(table.voters, 5),
    )
    assert np.allclose(rate(copied).covariance, rate(table).covariance, rtol=1e-6)
    assert np.allclose(rate(copied, clustered=False).covariance * 5, rate(table, clustered=False).covariance, rtol=1e-6)


def test_fewer_voters_than_the_bound_are_not_clustered_by() -> None:
    table = battles(voters=MIN_CLUSTERS - 1, ties=0)
    assert rate(table).clustered_by == () and np.isinf(rate(table).degrees).all()
    assert rate(battles(voters=MIN_CLUSTERS)).clustered_by == ("voter",)


def test_a_covariate_is_held_equal() -> None:
    rng = np.random.default_rng(3)
    number, size = 6000, 4
    a = rng.integers(0, size, number)
    b = (a + rng.integers(1, size, number)) % size
    longer = rng.normal(0, 1, number) + 0.8 * (a - b)  # better models write more
    chance = 1 / (1 + np.exp(-(0.2 * (a - b) + 0.7 * longer)))
    winner = np.where(rng.random(number) < chance, "a", "b").tolist()
    names = [f"m{i}" for i in range(size)]
    columns = [names[i] for i in a], [names[i] for i in b], winner
    plain = rate(BattleTable.from_columns(*columns, models=names))
    held = rate(BattleTable.from_columns(*columns, models=names, covariates={"length": longer.tolist()}))
    coefficient, error = held.covariates["length"]
    assert abs(coefficient - 0.7) < 3 * error and 0.01 < error < 0.1
    truth = 0.2 * (np.arange(size) - 1.5)
    assert np.abs(held.theta - truth).max() < 4 * math.sqrt(held.covariance.diagonal().max())
    assert np.abs(plain.theta - truth).max() > 8 * math.sqrt(plain.covariance.diagonal().max())


@pytest.mark.slow
def test_the_sandwich_of_a_covariate_is_that_of_the_battles() -> None:
    rng = np.random.default_rng(5)
    table = battles(
        number=80, size=3, covariates={"x": rng.normal(size=80).tolist(), "y": rng.normal(size=80).tolist()}
    )
    for method in ("bradley-terry", "davidson"):
        assert np.allclose(rate(table, method).covariance, dense(table, method), rtol=1e-3, atol=1e-6)


def test_columns_of_arrow_pandas_and_numpy_give_the_table_of_lists() -> None:
    pyarrow, pandas = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    a, b, winner = ["z", "y", "x", "z"], ["y", "x", "z", "x"], ["tie", "model_b", "model_a", "bothbad"]
    listed = BattleTable.from_columns(a, b, winner, voters=["p", "q", "p", "p"], models=["x"])
    assert listed.models == ("x", "z", "y") and listed.outcome.tolist() == [TIE, B_WINS, A_WINS, TIE]
    kinds: list[Callable] = [
        pyarrow.array,
        lambda texts: pyarrow.chunked_array([texts[:1], texts[1:]]),
        lambda texts: pyarrow.array(texts).dictionary_encode(),
        lambda texts: pandas.Series(texts, index=range(7, 11)),
        lambda texts: pandas.Series(texts, dtype=object),
        np.array,
    ]
    for kind in kinds:
        table = BattleTable.from_columns(
            kind(a), kind(b), kind(winner), voters=kind(["p", "q", "p", "p"]), models=["x"]
        )
        assert table.models == listed.models
        for name in ("a", "b", "outcome", "voters"):
            assert getattr(table, name).tolist() == getattr(listed, name).tolist(), (kind, name)
            assert getattr(table, name).dtype == np.int32
        with pytest.raises(ConfigError, match=r"battle 2 has the model (None|nan)"):
            BattleTable.from_columns(kind(a), pandas.Series(["y", None, "z", "x"]), kind(winner))
    with pytest.raises(ConfigError, match="battle 3 has the model None"):
        BattleTable.from_columns(pyarrow.array(["z", "y", None, "z"]), b, winner)
    with pytest.raises(ConfigError, match="the winner of battle 3 is 'neither'"):
        BattleTable.from_columns(a, b, pandas.Series(["tie", "tie", "neither", "tie"], index=range(7, 11)))
    with pytest.raises(ConfigError, match="battle 2 is of 'x' against itself"):
        BattleTable.from_columns(pandas.Series(["x", "x"], index=[5, 6]), pandas.Series(["y", "x"]), ["a", "a"])


def test_groups_are_the_same_by_pairs_and_by_battles() -> None:
    table = battles(1, size=4, number=10, ties=0.0)
    many = BattleTable(table.models, *(np.tile(each, 10) for each in (table.a, table.b, table.outcome)))
    assert len(table) < 16 <= len(many)
    assert comparable_groups(many) == comparable_groups(table)
    assert len(comparable_groups(table)) > 1
    one_way = BattleTable.from_columns(["x"] * 5, ["y"] * 5, ["a"] * 5)
    assert comparable_groups(one_way) == [("x",), ("y",)]


def test_models_that_wins_do_not_connect_both_ways_are_not_compared() -> None:
    table = BattleTable.from_columns(["a", "b", "c", "c"], ["b", "a", "d", "a"], ["a", "a", "tie", "a"], models=["z"])
    assert comparable_groups(table) == [("a", "b"), ("c", "d"), ("z",)]
    with pytest.raises(ConfigError, match="not connected: 3 groups"):
        rate(table)
    assert np.isfinite(rate(table, prior=0.1).theta).all()
    assert np.isfinite(rate(table.only(["a", "b"])).theta).all()


def test_a_prior_shrinks_strengths() -> None:
    table = battles()
    spread = [np.ptp(rate(table, prior=prior).theta) for prior in (0.0, 1.0, 100.0)]
    assert spread[0] > spread[1] > spread[2] > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"winner": ["a", "nobody"]}, "battle 2 is 'nobody'"),
        ({"model_b": ["y"]}, "model_b has 1 battles"),
        ({"model_b": ["y", "x"]}, "battle 2 is of 'x' against itself"),
        ({"voters": ["v"]}, "voters has 1"),
        ({"covariates": {"length": [1.0, math.nan]}}, "'length' of battle 2 is nan"),
    ],
)
def test_malformed_columns_are_one_sentence(change: dict, sentence: str) -> None:
    columns = {"model_a": ["x", "x"], "model_b": ["y", "y"], "winner": ["a", "b"], **change}
    with pytest.raises(ConfigError, match=sentence):
        BattleTable.from_columns(**columns)


def test_what_cannot_be_rated_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="no battles"):
        rate(BattleTable.from_columns([], [], []))
    decided = BattleTable.from_columns(["x", "x"], ["y", "y"], ["a", "b"])
    with pytest.raises(ConfigError, match="no battle is a tie"):
        rate(decided, "davidson")
    with pytest.raises(ConfigError, match="prior is -1"):
        rate(decided, prior=-1.0)
    with pytest.raises(ConfigError, match="did not converge"):
        separating = {"x": [1.0 if outcome == A_WINS else -1.0 for outcome in battles(ties=0).outcome]}
        rate(battles(ties=0, covariates=separating))
    with pytest.raises(ConfigError, match="no battle names the model 'w'"):
        decided.only(["w"])
    ring = [f"m{i}" for i in range(2_001)]
    with pytest.raises(ConfigError, match=r"the arena has 2,001 models: .* 2,000 at most"):
        rate(BattleTable.from_columns(ring, [*ring[1:], ring[0]], ["tie"] * len(ring)))


def test_elo_moves_by_the_surprise_in_the_order_of_battles() -> None:
    table = BattleTable.from_columns(["x", "x", "y"], ["y", "y", "x"], ["a", "tie", "a"])
    first = 1000 + 4 * 0.5
    expected = 1 / (1 + 10 ** ((998 - first) / 400))
    second = first + 4 * (0.5 - expected)
    third = second - 4 * (1 - 1 / (1 + 10 ** ((second - (2000 - second)) / 400)))
    assert elo(table)["x"] == pytest.approx(third)
    assert sum(elo(table).values()) == pytest.approx(2000)


def test_ranks_count_who_is_better_beyond_doubt() -> None:
    found = rate(battles(number=20_000))
    rows = ranked(found)
    assert [row.model for row in rows] == ["m4", "m3", "m2", "m1", "m0"]
    assert [(row.rank_low, row.rank_high) for row in rows] == [(i, i) for i in range(1, 6)]
    vague = ranked(rate(battles(number=60)))
    assert any(row.rank_high > row.rank_low for row in vague)
    assert all(row.rank_low <= place <= row.rank_high for place, row in enumerate(vague, 1))
    assert rows[0].high - rows[0].rating == pytest.approx(1.959964 * ELO * math.sqrt(found.covariance[4, 4]), rel=2e-4)


@pytest.mark.parametrize(
    ("size", "degrees", "quantile"),
    [(2, math.inf, 1.960), (5, math.inf, 3.858 / math.sqrt(2)), (5, 20, 4.232 / math.sqrt(2))],  # Tukey's tables
)
def test_two_models_are_told_apart_at_the_quantile_of_the_studentised_range(
    size: int, degrees: float, quantile: float
) -> None:
    variance = 0.01
    covariance = variance * (np.eye(size) - 1 / size)
    for share, told in ((0.96, False), (1.04, True)):
        theta = np.zeros(size)
        theta[0] = share * quantile * math.sqrt(2 * variance)
        found = Ratings(
            tuple(map(str, range(size))), theta, covariance, np.ones(size, int), "bradley-terry", degrees=degrees
        )
        better = separated(found)
        assert better[0, 1:].all() == told and not better[1:].any()


def test_an_anchor_is_certain_and_differences_stay() -> None:
    found = rate(battles(ties=0))
    free, fixed = ({row.model: row for row in ranked(found, anchor=anchor, at=1200)} for anchor in (None, "m2"))
    assert fixed["m2"].rating == fixed["m2"].low == fixed["m2"].high == pytest.approx(1200)
    assert fixed["m4"].rating - fixed["m0"].rating == pytest.approx(free["m4"].rating - free["m0"].rating)
    variance = found.covariance[4, 4] + found.covariance[2, 2] - 2 * found.covariance[4, 2]
    assert fixed["m4"].high - fixed["m4"].rating == pytest.approx(1.959964 * ELO * math.sqrt(variance), rel=1e-5)
    with pytest.raises(ConfigError, match="anchor 'm9'"):
        ranked(found, anchor="m9")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_intervals_cover_and_all_ranks_hold_together(method) -> None:
    truth = np.array([-0.6, -0.2, 0.0, 0.0, 0.3, 0.5])
    eta = 0.4
    draws = {"bradley-terry": bradley_terry_terms, "davidson": davidson_terms, "rao-kupper": rao_kupper_terms}[method]
    pairs = list(combinations(range(6), 2))
    covered, together = [], []
    for seed in range(repetitions(600, 150)):
        rng = np.random.default_rng(seed)
        columns = ([], [], [])
        for i, j in pairs:
            chances = np.exp(draws(np.array([truth[i] - truth[j]]), eta).value[:, 0])
            chances = np.array([chances[0], 0, chances[2]]) if method == "bradley-terry" else chances
            for outcome in rng.choice(3, 50, p=chances / chances.sum()):
                for column, value in zip(columns, (f"m{i}", f"m{j}", ("a", "tie", "b")[outcome]), strict=True):
                    column.append(value)
        found = rate(BattleTable.from_columns(*columns, models=[f"m{i}" for i in range(6)]), method)
        error = np.sqrt(found.covariance.diagonal())
        covered.append(np.mean(np.abs(found.theta - truth) < 1.959964 * error))
        told = separated(found, seed=seed)
        together.append(all(truth[i] > truth[j] for i, j in zip(*np.nonzero(told), strict=True)))
    assert 0.93 < np.mean(covered) < 0.97
    assert np.mean(together) > (0.93 if THOROUGH else 0.88)  # .95 expected; less has a probability of 0.1% or less


@pytest.mark.slow
def test_intervals_hold_for_opinionated_voters_only_where_votes_are_clustered() -> None:
    naive, clustered = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        taste = rng.normal(0, 1, 40)  # how much each voter prefers x
        voter = rng.integers(0, 40, 1200)
        wins = rng.random(1200) < 1 / (1 + np.exp(-taste[voter]))
        table = BattleTable.from_columns(
            ["x"] * 1200, ["y"] * 1200, np.where(wins, "a", "b").tolist(), voters=[str(each) for each in voter]
        )
        for store, flag in ((naive, False), (clustered, True)):
            found = rate(table, clustered=flag)
            store.append(abs(found.theta[0]) < 2.02 * math.sqrt(found.covariance[0, 0]))
    assert np.mean(clustered) > 0.92 and np.mean(naive) < 0.75


LAYOUTS = {
    "arena.jsonl": [
        {"model_a": "x", "model_b": "y", "winner": "model_a", "judge": "ada"},
        {"model_a": "y", "model_b": "x", "winner": "tie (bothbad)", "judge": "bob"},
    ],
    "competition.jsonl": [
        {"id": 1, "model_a": "x", "model_b": "y", "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
        {"id": 2, "model_a": "y", "model_b": "x", "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1},
    ],
    "alpaca.jsonl": [
        {"generator_1": "x", "generator_2": "y", "preference": 1.2, "instruction_idx": 0},
        {"generator_1": "y", "generator_2": "x", "preference": 1.5, "instruction_idx": 1},
    ],
}


def written(path: Path, rows: list) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_public_layouts_of_votes_are_read(name: str, tmp_path: Path) -> None:
    votes = read_votes(written(tmp_path / name, LAYOUTS[name])).battles
    assert votes.models == ("x", "y")
    assert votes.outcome.tolist() == [A_WINS, TIE]
    assert votes.a.tolist() == [0, 1] and votes.b.tolist() == [1, 0]


def test_the_second_answer_can_win_in_every_layout(tmp_path: Path) -> None:
    rows = {
        "a.jsonl": {"model_a": "x", "model_b": "y", "winner": "model_b"},
        "b.jsonl": {"model_a": "x", "model_b": "y", "winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"},
        "c.jsonl": {"generator_1": "x", "generator_2": "y", "preference": 2},
    }
    for name, row in rows.items():
        assert read_votes(written(tmp_path / name, [row])).battles.outcome.tolist() == [B_WINS], name


def test_repeated_rows_count_once_and_conditions_leave_rows_out(tmp_path: Path) -> None:
    row = {"question_id": 7, "model_a": "x", "model_b": "y", "winner": "model_a", "judge": "ada", "language": "English"}
    row |= {"tstamp": 1.5}
    rows = [row, row, {**row, "judge": "bob"}, {**row, "language": "French"}]
    votes = read_votes(written(tmp_path / "v.jsonl", rows), where={"language": "English"})
    assert (len(votes.battles), votes.duplicates, votes.filtered) == (2, 1, 1)
    for name, number in (("question_id", 1), ("tstamp", 0), ("judge", 0)):
        without = [{k: v for k, v in each.items() if k != name} for each in rows]
        assert read_votes(written(tmp_path / "w.jsonl", without)).duplicates == number, name


def test_equal_votes_on_a_question_are_votes_of_different_people_or_of_a_judge_asked_again(tmp_path: Path) -> None:
    votes = [("q1", "model_a")] * 9 + [("q1", "model_b")]
    for more in ({}, {"judge": "gpt"}, {"timestamp": "2026-01-02"}, {"judge": "u", "timestamp": ""}, {"id": None}):
        rows = [{"question_id": q, "model_a": "x", "model_b": "y", "winner": w, **more} for q, w in votes]
        found = read_votes(written(tmp_path / "v.jsonl", rows))
        assert found.duplicates == 0 and found.battles.games_won.tolist() == [9, 1], more
    for more in ({"id": 0}, {"judge": "gpt", "timestamp": 0}):
        rows = [{"question_id": q, "model_a": "x", "model_b": "y", "winner": w, **more} for q, w in votes]
        assert read_votes(written(tmp_path / "v.jsonl", rows[:9])).duplicates == 8, more
        with pytest.raises(DataError, match="are one vote with two verdicts"):
            read_votes(written(tmp_path / "v.jsonl", rows))


def test_style_is_read_from_counts_metadata_or_the_answers_themselves(tmp_path: Path) -> None:
    def talk(text: str) -> list:
        return [{"role": "user", "content": "# not counted"}, {"role": "assistant", "content": text}]

    texts = [("# A\n- one\n- two\n**b**", "plain"), ("plain", "# A\n## B\n1. x"), ("same", "same")]
    base = {"model_a": "x", "model_b": "y", "winner": "tie"}
    spoken = [{**base, "conversation_a": talk(a), "conversation_b": talk(b)} for a, b in texts]
    counted = [
        {
            **base,
            "conv_metadata": {
                "sum_assistant_a_tokens": len(a), "sum_assistant_b_tokens": len(b),
                "header_count_a": {"h1": style_count(a, "headers")}, "header_count_b": {"h1": style_count(b, "headers")},
                "list_count_a": style_count(a, "lists"), "list_count_b": style_count(b, "lists"),
                "bold_count_a": {"**": style_count(a, "bold")}, "bold_count_b": {"**": style_count(b, "bold")},
            },
        }
        for a, b in texts
    ]  # fmt: skip
    style = ("length", "headers", "lists", "bold")
    one, two = (
        read_votes(written(tmp_path / f"{i}.jsonl", rows), style=style).battles.covariates
        for i, rows in enumerate((spoken, counted))
    )
    assert np.allclose(one, two)
    raw = np.array([[(21 - 5) / 26, 1, 1, 1], [(5 - 13) / 18, -1, -1, 0], [0, 0, 0, 0]])
    assert np.allclose(one, raw / raw.std(0))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"model_a": "x", "model_b": "y", "winner": "model_c"}, "line 2: the winner is 'model_c'"),
        ({"model_a": "", "model_b": "y", "winner": "tie"}, "line 2: model_a is ''"),
        ({"model_a": 3, "model_b": "y", "winner": "tie"}, "line 2: model_a is 3"),
        ({"winner": "tie"}, "line 2: model_a is None"),
    ],
)
def test_a_malformed_vote_is_named_by_its_line(row: dict, sentence: str, tmp_path: Path) -> None:
    good = {"model_a": "x", "model_b": "y", "winner": "tie"}
    with pytest.raises(DataError, match=sentence):
        read_votes(written(tmp_path / "v.jsonl", [good, row]))


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        ([{"prompt": "p", "answer": "q"}], {}, "holds no votes"),
        (
            [{"model_a": "x", "model_b": "y", "winner_model_a": 1, "winner_model_b": 1, "winner_tie": 0}],
            {},
            "exactly one",
        ),
        ([{"generator_1": "x", "generator_2": "y", "preference": 3}], {}, "preference is 3"),
        ([{"generator_1": "x", "generator_2": "y", "preference": None}], {}, "preference is None"),
        ([{"model_a": "x", "model_b": "y", "winner": "tie"}], {"where": {"language": "x"}}, "no column 'language'"),
        ([{"model_a": "x", "model_b": "y", "winner": "tie"}], {"where": {"winner": "x"}}, "no row of"),
        ([{"model_a": "x", "model_b": "y", "winner": "tie"}], {"style": ("length",)}, "nothing tells the length"),
        ([{"model_a": "x", "model_b": "y", "winner": "tie"}], {"style": ("charm",)}, "style is 'charm'"),
        (
            [{"model_a": "x", "model_b": "y", "winner": "tie", "len_a": -1, "len_b": 3}],
            {"style": ("length",)},
            "length",
        ),
        (
            [{"model_a": "x", "model_b": "y", "winner": "tie", "len_a": 3, "len_b": 3}],
            {"style": ("length",)},
            "never differ",
        ),
    ],
)
def test_what_is_no_table_of_votes_is_one_sentence(rows: list, options: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(FirsthandError, match=sentence):
        read_votes(written(tmp_path / "v.jsonl", rows), **options)


def rows_of_votes(number: int = 200) -> list[dict]:
    table = battles(number=number, size=3)
    word = ("model_a", "tie", "model_b")
    return [
        {"model_a": f"m{a}", "model_b": f"m{b}", "winner": word[outcome], "judge": f"v{i % 25}"}
        for i, (a, b, outcome) in enumerate(zip(table.a, table.b, table.outcome, strict=True))
    ]


def test_the_board_prints_ranks_ratings_and_what_was_left_out(tmp_path: Path, cli) -> None:
    rows = [*rows_of_votes(), {"model_a": "m0", "model_b": "[bold]new", "winner": "model_a", "judge": "v1"}]
    path = written(tmp_path / "v.jsonl", rows)
    code, out, err = cli("board", str(path))
    assert code == 0 and not err
    assert (
        "200 battles" in out
        and "1 battle with models that are not rated left out." in out
        and "m2" in out
        and "clustered by voter" in out
    )
    assert "Not rated" in out and "[bold]new" in out
    code, out, _ = cli("board", str(path), "--json", "--method", "davidson", "--anchor", "m0=1200")
    body = json.loads(out)
    assert code == 0 and body["unrated"] == ["[bold]new"] and body["battles"] == 201
    assert {row["model"]: row["rating"] for row in body["models"]}["m0"] == 1200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--where", "language"), "COLUMN=VALUE"),
        (("--anchor", "m0=high"), "MODEL=RATING"),
        (("--anchor", "m7"), "anchor 'm7'"),
        (("--confidence", "3"), "confidence"),
        (("--style", "length"), "nothing tells the length"),
    ],
)
def test_a_wrong_option_of_the_board_is_one_sentence(options: tuple, sentence: str, tmp_path: Path, cli) -> None:
    code, _, err = cli("board", str(written(tmp_path / "v.jsonl", rows_of_votes())), *options)
    assert code != 0 and sentence in err and "Traceback" not in err


def test_a_board_of_models_that_never_won_back_is_refused(tmp_path: Path, cli) -> None:
    path = written(tmp_path / "v.jsonl", [{"model_a": "x", "model_b": "y", "winner": "model_a"}])
    code, _, err = cli("board", str(path))
    assert code != 0 and "more battles are needed" in err


def test_one_voter_with_most_votes_is_said(tmp_path: Path, cli) -> None:
    rows = rows_of_votes()
    for row in rows[:120]:
        row["judge"] = "keen"
    code, out, _ = cli("board", str(written(tmp_path / "v.jsonl", rows)))
    assert code == 0 and "One voter cast 6" in out


def test_an_arena_of_ties_alone_says_so(tmp_path: Path, cli) -> None:
    rows = [{**row, "winner": "tie"} for row in rows_of_votes()]
    code, out, _ = cli("board", str(written(tmp_path / "v.jsonl", rows)))
    assert code == 0 and "Every vote is a tie" in out and out.count(" 1-3 ") == 3
    code, out, _ = cli("board", str(written(tmp_path / "w.jsonl", [*rows, *rows_of_votes()])))
    assert code == 0 and "Every vote is a tie" not in out


def test_names_with_markup_are_text_in_the_terminal(tmp_path: Path, cli) -> None:
    names = {"m0": "[bold red]x[/]", "m1": "<script>y</script>", "m2": "z\u202etxt\x1b[31m"}
    rows = [{**row, "model_a": names[row["model_a"]], "model_b": names[row["model_b"]]} for row in rows_of_votes()]
    code, out, _ = cli("board", str(written(tmp_path / "v.jsonl", rows)))
    assert code == 0 and "[bold red]x[/]" in out and "<script>y</script>" in out
    assert "z\\u202etxt\\x1b[31m" in out and "\u202e" not in out and "\x1b" not in out


def test_a_file_of_another_kind_is_no_run(tmp_path: Path, cli) -> None:
    (tmp_path / "notes.md").write_text("# votes")
    code, _, err = cli("board", str(tmp_path / "notes.md"))
    assert code != 0 and "no table of votes: give a file .csv" in err
