"""Parts of the ratings of an arena, each on a small case: rows, likelihood, scores, clusters, ranks, voters, pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from firsthand.arena import ratings
from firsthand.arena.battle_table import A_WINS, B_WINS, TIE, BattleTable
from firsthand.arena.pair_choice import PRIOR, choose_pair, expected_reductions
from firsthand.arena.rank_intervals import RatedModel, ranked
from firsthand.arena.ratings import (
    ELO,
    MIN_CLUSTERS,
    Ratings,
    _assembled,
    _chunks,
    _constrained,
    _differences,
    _enough,
    _likelihood,
    _meat,
    _multiway,
    _newton,
    _Rows,
    _rows,
    _scores,
    _with_some_variance,
    _without_negative_variance,
    rate,
)
from firsthand.arena.vote_checks import SuspectVoter, _of_voter, suspect_voters
from firsthand.arena.vote_clusters import clustered_scores
from firsthand.arena.vote_stuffing import StuffingAttack, _joined, _rank, forge, forged_votes_needed
from firsthand.errors import ConfigError

METHODS = ("bradley-terry", "davidson", "rao-kupper")


def table(*rows: str, **more: Any) -> BattleTable:
    """Battles such as `x y a`."""
    columns = list(zip(*(row.split() for row in rows), strict=True))
    return BattleTable.from_columns(*columns, **more)


def small(covariates: int = 2) -> BattleTable:
    """Eleven battles of three models, with covariates that separate nothing."""
    rows = ("x y a", "y x a", "y x tie", "x z b", "z y tie", "z y b", "x z a", "x y b", "z x a", "y z b", "z x b")
    given = {
        "length": [0.5, -1.0, 0.25, 2.0, -0.5, 1.5, -0.75, 0.5, -1.5, 1.0, 0.5],
        "bold": [1.0, 0.0, -1.0, 0.5, 0.5, 0.0, 2.0, 2.0, 1.0, -0.5, 0.5],
    }
    return table(*rows, covariates=dict(list(given.items())[:covariates]))


def log_likelihood(battles: BattleTable, fitted: np.ndarray, method: str, prior: float = 0.0) -> float:
    """By the definition of each model, battle by battle."""
    size, total = len(battles.models), 0.0
    x = np.zeros((len(battles), 0)) if battles.covariates is None else battles.covariates
    for at in range(len(battles)):
        d = fitted[battles.a[at]] - fitted[battles.b[at]] + float(x[at] @ fitted[size : size + x.shape[1]])
        win, loss = 1 / (1 + math.exp(-d)), 1 / (1 + math.exp(d))
        if method == "bradley-terry":
            chances = (win, math.sqrt(win * loss), loss)
        elif method == "davidson":
            parts = (math.exp(d / 2), math.exp(fitted[-1]), math.exp(-d / 2))
            chances = tuple(part / sum(parts) for part in parts)
        else:
            up, down = 1 / (1 + math.exp(fitted[-1] - d)), 1 / (1 + math.exp(fitted[-1] + d))
            chances = (up, 1 - up - down, down)
        total += math.log(chances[battles.outcome[at]])
    return total - prior * float(fitted[:size] @ fitted[:size]) / 2


def slopes(function: Any, at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences, one row per parameter."""
    return np.array([(function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(len(at))])


def test_battles_become_rows_by_pair_or_one_by_one_with_covariates() -> None:
    battles = table("x y a", "y x a", "y x a", "x y tie", "z x tie", "x z b", "z y b")
    made = _rows(battles)
    assert (made.a.tolist(), made.b.tolist(), made.x.shape) == ([0, 0, 1], [1, 2, 2], (3, 0))
    assert made.weight.tolist() == [[1, 0, 1], [1, 1, 0], [2, 1, 0]], "a model named second that won, won"
    single = _rows(small(1))
    assert single.a.tolist() == [0, 1, 1, 0, 2, 2, 0, 0, 2, 1, 2] and single.b[:7].tolist() == [1, 0, 0, 2, 1, 1, 2]
    first, tied, second = single.weight.tolist()
    assert first == [1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0] and second == [0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1]
    assert tied == [0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]
    assert single.x.ravel().tolist() == [0.5, -1.0, 0.25, 2.0, -0.5, 1.5, -0.75, 0.5, -1.5, 1.0, 0.5]
    fitted = np.array([1.0, 2.0, 4.0, 0.5, -2.0, 99.0])
    rows = _Rows(np.array([2, 0]), np.array([0, 1]), np.zeros((3, 2)), np.array([[3.0, 1.0], [-1.0, 0.25]]))
    assert _differences(rows, fitted, 3).tolist() == [4 - 1 + 1.5 - 2, 1 - 2 - 0.5 - 0.5]
    pinned = _constrained(np.arange(9.0).reshape(3, 3), 2, 0.0)
    assert pinned.tolist() == [[0.5, 1.5, 2], [3.5, 4.5, 5], [6, 7, 8]]
    assert _constrained(np.arange(9.0).reshape(3, 3), 2, 0.1).tolist() == np.arange(9.0).reshape(3, 3).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_likelihood_of_rows_has_the_derivatives_of_its_definition(method: Any) -> None:
    battles = small()
    rows, fitted = _rows(battles), np.array([0.3, -0.5, 0.9, 0.2, -0.4, 0.6])
    fitted = fitted if method != "bradley-terry" else fitted[:-1]
    found = _likelihood(rows, fitted, method, 3, 0.7)
    assert found.value == pytest.approx(log_likelihood(battles, fitted, method, 0.7))
    assert found.gradient == pytest.approx(
        slopes(lambda at: log_likelihood(battles, at, method, 0.7), fitted), abs=1e-6
    )
    bent = slopes(lambda at: _likelihood(rows, at, method, 3, 0.7).gradient, fitted)
    assert found.information == pytest.approx(-bent, abs=1e-6)
    # the scores of battles are the gradients of each alone, without the prior
    scores = _scores(battles, fitted, method)
    assert scores.width == len(fitted) and scores.columns.shape == scores.values.shape == (11, len(fitted) - 1)
    dense = np.zeros((11, len(fitted)))
    np.add.at(dense, (np.arange(11)[:, None], scores.columns), scores.values)
    alone = [
        _likelihood(_rows(battles.where(np.arange(11) == at)), fitted, method, 3, 0.0).gradient for at in range(11)
    ]
    assert dense == pytest.approx(np.array(alone))
    assert _meat(rows, fitted, method) == pytest.approx(dense.T @ dense)
    # clusters: numbers with a gap; both numberings together less the pairs of the two
    voters, asked = np.array([0, 3, 3, 0, 4, 4, 4, 0, 3, 4, 4]), np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0])

    bread = np.linalg.inv(_constrained(found.information, 3, 0.7))

    def summed(groups: list[list[int]]) -> np.ndarray:
        """Scores over the root of 1 less the leverage in their own direction, by the information on the log-odds alone."""
        total = np.zeros((len(fitted), len(fitted)))
        for group in groups:
            score = dense[group].sum(0)
            own = _likelihood(_rows(battles.where(np.array(group))), fitted, method, 3, 0.0).information
            if method != "bradley-terry":
                own[-1], own[:, -1] = 0, 0
            leverage = score @ bread @ own @ bread @ score / (score @ bread @ score)
            total += np.outer(score, score) / (1 - leverage)
        return total

    by_voter, by_question = [[0, 3, 7], [1, 2, 8], [4, 5, 6, 9, 10]], [[2, 4, 5, 9, 10], [0, 1, 3, 6, 7, 8]]
    assert clustered_scores(scores, bread, voters).meat == pytest.approx(summed(by_voter))
    assert _multiway(scores, bread, [asked], 3)[0] == pytest.approx(summed(by_question))
    both = [[0, 3, 7], [1, 8], [2], [4, 5, 9, 10], [6]]
    assert _multiway(scores, bread, [voters, asked], 3)[0] == pytest.approx(
        summed(by_voter) + summed(by_question) - summed(both)
    )
    # the fitted parameters are where the gradient is 0; without a prior the strengths sum to 0
    for prior in (0.0, 0.7):
        solved, reached = _newton(rows, 3, method, prior)
        assert np.abs(reached.gradient).max() < 1e-8 and len(solved) == len(fitted)
        assert reached.value == pytest.approx(log_likelihood(battles, solved, method, prior))
        assert prior or solved[:3].sum() == pytest.approx(0, abs=1e-12)
    shrunk = rate(battles, method, prior=0.7)
    assert shrunk.theta == pytest.approx(solved[:3]) and shrunk.log_likelihood == pytest.approx(
        log_likelihood(battles, solved, method)
    ), "without the penalty of the prior"
    # the whole record
    battles = replace(battles, voters=None, questions=None)
    made, (solved, reached) = rate(battles, method), _newton(rows, 3, method, 0.0)
    pin = np.zeros((len(solved), len(solved)))
    pin[:3, :3] = 1 / 3
    bread = np.linalg.inv(reached.information + pin)
    sandwich = bread @ _meat(rows, solved, method) @ bread
    assert (made.models, made.games.tolist(), made.method) == (("x", "y", "z"), [8, 7, 7], method)
    assert made.theta == pytest.approx(solved[:3]) and made.covariance == pytest.approx(sandwich[:3, :3])
    assert made.ties == (None if method == "bradley-terry" else pytest.approx(solved[-1]))
    assert made.covariates == {
        name: (pytest.approx(solved[at]), pytest.approx(math.sqrt(sandwich[at, at])))
        for name, at in (("length", 3), ("bold", 4))
    }
    assert made.log_likelihood == pytest.approx(reached.value)
    assert np.isfinite(made.degrees).all() == (method == "bradley-terry"), "one of eleven votes is a tie"


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_summed_in_parts_without_losing_any(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, fitted = _rows(small()), np.array([0.4, -0.3, 0.1, 0.2, -0.6, 0.5])
    fitted = fitted if method != "bradley-terry" else fitted[:-1]
    whole, meat = _likelihood(rows, fitted, method, 3, 0.3), _meat(rows, fitted, method)
    assert len(list(_chunks(rows))) == 1
    for at_once, sizes in ((4, [4, 4, 3]), (11, [11]), (10, [10, 1])):
        monkeypatch.setattr(ratings, "_ROWS_AT_ONCE", at_once)
        parts = list(_chunks(rows))
        assert [len(part.a) for part in parts] == sizes
        for at, name in enumerate(_Rows._fields):
            joined = np.concatenate([part[at] for part in parts], 1 if name == "weight" else 0)
            assert (joined == rows[at]).all(), name
        again = _likelihood(rows, fitted, method, 3, 0.3)
        assert again.value == pytest.approx(whole.value) and again.gradient == pytest.approx(whole.gradient)
        assert again.information == pytest.approx(whole.information) and _meat(rows, fitted, method) == pytest.approx(
            meat
        )
    assert list(_chunks(_Rows(rows.a[:0], rows.b[:0], rows.weight[:, :0], rows.x[:0]))) == []


def test_a_covariate_may_be_told_in_any_unit() -> None:
    battles = small(1)
    assert battles.covariates is not None
    told, (value, error) = rate(battles), rate(battles).covariates["length"]
    for unit in (1e-7, 1e6):
        same = rate(replace(battles, covariates=battles.covariates * unit))
        assert same.covariates["length"] == pytest.approx((value / unit, error / unit))
        assert same.theta == pytest.approx(told.theta)


def test_outer_products_of_rows_are_assembled_with_covariates_and_ties() -> None:
    rows = _Rows(np.array([0, 2, 1]), np.array([1, 0, 2]), np.zeros((3, 3)), np.array([[1.0, 2], [-0.5, 0], [3, 1]]))
    dd, de, ee = np.array([1.0, 2, 4]), np.array([0.5, -1, 3]), np.array([7.0, 11, 13])
    v = np.array([[1.0, -1, 0, 1, 2], [-1, 0, 1, -0.5, 0], [0, 1, -1, 3, 1]])
    inner = (v.T * dd) @ v
    assert _assembled(rows, dd, de, ee, 3, False) == pytest.approx(inner)
    bordered = np.block([[inner, (v.T @ de)[:, None]], [(v.T @ de)[None], np.array([[31.0]])]])
    assert _assembled(rows, dd, de, ee, 3, True) == pytest.approx(bordered)


def test_a_covariance_without_variance_is_that_of_the_information() -> None:
    bread = np.array([[2.0, 0.5], [0.5, 1.0]])
    centred = np.array([[0.5, -0.5], [-0.5, 0.5]])
    sandwich = np.array([[0.0, 0.1], [0.1, 3.0]])
    assert _with_some_variance(sandwich, bread) == pytest.approx(centred @ bread @ centred)
    assert _with_some_variance(sandwich + np.eye(2), bread) is not bread
    assert (_with_some_variance(sandwich + np.eye(2), bread) == sandwich + np.eye(2)).all()
    assert _with_some_variance(np.zeros((1, 1)), np.ones((1, 1))).tolist() == [[0]], "a model alone"
    crossed = np.array([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues 3 and -1
    assert _without_negative_variance(crossed) == pytest.approx(np.full((2, 2), 1.5))
    positive = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert _without_negative_variance(positive) is positive
    assert not _enough(None) and MIN_CLUSTERS == 20
    assert _enough(np.arange(20) * 3) and not _enough(np.arange(40) % 19)


def test_two_models_with_ties_have_the_parameters_of_their_shares() -> None:
    wins, ties, losses = 9, 4, 3
    battles = table(*["x y a"] * wins, *["y x tie"] * ties, *["y x a"] * losses)
    made = rate(battles, "davidson")
    gap = math.log(wins / losses)
    assert made.theta == pytest.approx([gap / 2, -gap / 2]) and made.ties == pytest.approx(math.log(4 / math.sqrt(27)))
    told = sum(count * math.log(count / 16) for count in (wins, ties, losses))
    assert made.log_likelihood == pytest.approx(told) and made.games.tolist() == [16, 16]
    assert made.covariance == pytest.approx((1 / wins + 1 / losses) / 4 * np.array([[1, -1], [-1, 1]]))
    one, other = math.log(wins / 7), math.log(losses / 13)  # log-odds of winning, of losing
    kupper = rate(battles, "rao-kupper")
    assert kupper.theta == pytest.approx([(one - other) / 4, (other - one) / 4])
    assert kupper.ties == pytest.approx(-(one + other) / 2) and kupper.log_likelihood == pytest.approx(told)
    nearly = rate(table("x y a", "y x a", *["x y tie"] * 998), "rao-kupper")
    assert nearly.ties == pytest.approx(math.log(999)) and nearly.theta == pytest.approx([0, 0], abs=1e-9)
    davidson = rate(table("x y a", "y x a", *["x y tie"] * 998), "davidson")
    assert davidson.ties == pytest.approx(math.log(998)) and davidson.theta == pytest.approx([0, 0], abs=1e-9)
    for all_tied in (table("x y tie"), table("x y tie", "z y tie", "z x tie", covariates={"length": [1.0, 2.0, -1.0]})):
        for method in ("davidson", "rao-kupper"):
            with pytest.raises(ConfigError) as refused:
                rate(all_tied, method)  # type: ignore[arg-type]
            assert str(refused.value) == (
                f"every battle is a tie, so {method} cannot fit its tie parameter: use bradley-terry"
            )
    # x and z win or tie against y: the likelihood grows with their lead and the tie's parameter together, without end
    for rows in (("x y a", "x y tie"), ("x y a", *["x y tie"] * 3, "y z tie", "z y a")):
        for method in ("davidson", "rao-kupper"):
            with pytest.raises(ConfigError) as refused:
                rate(table(*rows), method)  # type: ignore[arg-type]
            assert str(refused.value) == (
                f"the ratings did not converge in 100 steps: {method} counts ties apart from wins, and some models never "
                "lost; use bradley-terry, or give a prior"
            )
            assert np.isfinite(rate(table(*rows), method, prior=0.1).covariance).all()  # type: ignore[arg-type]
    below = _likelihood(_rows(battles), np.array([0.0, 0.0, 0.0]), "rao-kupper", 2, 0.0)
    assert below.value == -math.inf and not below.gradient.any() and not below.information.any()
    with pytest.raises(ConfigError) as refused:
        rate(table("x y a", "y x a", "x y a", "y x a", covariates={"won": [1.0, 1.0, 2.0, 0.5]}))
    assert str(refused.value) == (
        "the ratings did not converge in 100 steps: a covariate separates wins from losses, or is a sum of others; leave it "
        "out"
    )


def test_a_step_that_would_lower_the_likelihood_is_shortened() -> None:
    """Of 30 battles x wins one, of two further ones of covariate -1 one, and one of -30, which hardly bears on the rest."""
    rows = ["x y a", *["x y b"] * 29, "x y a", "x y b", "x y a"]
    told = [0.0] * 30 + [-1.0, -1.0, -30.0]
    lead = -math.log(29)
    for unit in (1.0, 10.0):
        made = rate(table(*rows, covariates={"l": [each * unit for each in told]}))
        assert made.theta == pytest.approx([lead / 2, -lead / 2]) and made.games.tolist() == [33, 33]
        assert made.covariates["l"][0] == pytest.approx(lead / unit)
        assert made.log_likelihood == pytest.approx(29 * math.log(29 / 30) + math.log(1 / 30) + 2 * math.log(1 / 2))
    swapped = rate(table(*(f"y x {'ba'[row[-1] == 'b']}" for row in rows), covariates={"l": [-each for each in told]}))
    assert dict(zip(swapped.models, swapped.theta, strict=True)) == pytest.approx({"x": lead / 2, "y": -lead / 2})


def test_models_are_ranked_by_rating_with_the_quantile_of_their_degrees() -> None:
    covariance = np.array([[0.04, -0.01, 0.0], [-0.01, 0.01, 0.0], [0.0, 0.0, 0.0025]])
    made = Ratings(("a", "b", "c"), np.array([-0.2, 0.9, -0.63]), covariance, np.array([5, 7, 11]), "bradley-terry")
    reach = 1.959963985
    assert ranked(made) == [
        RatedModel(name, *(pytest.approx(1000 + ELO * (theta + way * reach * error)) for way in (0, -1, 1)), *rest)
        for name, theta, error, *rest in (
            ("b", 0.9, 0.1, 1, 1, 7), ("a", -0.2, 0.2, 2, 3, 5), ("c", -0.63, 0.05, 2, 3, 11),
        )
    ]  # fmt: skip
    # a and c differ by 0.43 with an error of 0.206, 2.09 of it: apart at 80 %, whose quantile is about 1.7, not at 95 %
    sure = ranked(made, confidence=0.8)
    assert [(row.model, row.rank_low, row.rank_high) for row in sure] == [("b", 1, 1), ("a", 2, 2), ("c", 3, 3)]
    assert sure[0].high - sure[0].rating == pytest.approx(ELO * 0.1 * 1.281551566)
    anchored = ranked(replace(made, degrees=10), anchor="a", at=-50.0)
    gaps = {"b": (1.1, math.sqrt(0.04 + 0.01 + 0.02)), "a": (0.0, 0.0), "c": (-0.43, math.sqrt(0.0425))}
    assert [row.model for row in anchored] == ["b", "a", "c"]
    for row in anchored:
        gap, error = gaps[row.model]
        assert (row.rating, row.low) == pytest.approx((-50 + ELO * gap, -50 + ELO * (gap - 2.228138852 * error)))


def test_a_voter_s_wins_are_compared_with_the_chances_of_given_strengths() -> None:
    theta = np.array([1.0, 0.25, -0.5])
    own = table("x y a", "y x tie", "z x a", "z y b", "z y a", models=("x", "y", "z"))
    chance = {
        pair: 1 / (1 + math.exp(theta[pair[1]] - theta[pair[0]])) for pair in ((0, 1), (2, 0), (2, 1), (1, 2), (1, 0))
    }
    xy, zx, zy = chance[0, 1], chance[2, 0], chance[2, 1]

    def expected(model: str, won: float, chances: list[float]) -> SuspectVoter:
        spread = math.sqrt(sum(p * (1 - p) for p in chances))
        p = min(1.0, 2 * float(ndtr(-(abs(won - sum(chances)) - 0.5) / spread)))
        return SuspectVoter(4, model, len(chances), won, pytest.approx(sum(chances)), pytest.approx(p))

    every = [
        expected("x", 1.5, [xy, xy, 1 - zx]),
        expected("y", 1.5, [1 - xy, 1 - xy, 1 - zy, 1 - zy]),
        expected("z", 2.0, [zx, zy, zy]),
    ]
    assert _of_voter(own, 4, theta, 3) == every
    assert _of_voter(own, 4, theta, 4) == every[1:2] and _of_voter(own, 4, theta, 5) == []


def test_the_next_pair_is_drawn_by_what_its_battle_would_teach() -> None:
    # without battles: precision PRIOR for each, so covariance 2; weight 1/4, distance 4, gained 8
    none = table("x y a", models=("x", "y", "z")).where(np.array([False]))
    assert PRIOR == 0.5 and expected_reductions(none) == pytest.approx((1 - np.eye(3)) * (8 / 4) / (1 + 4 / 4))
    battles = table("x y a", "y x b", "x y b", "x z a", "x y tie")
    theta = rate(battles, prior=PRIOR).theta
    information, chances = PRIOR * np.eye(3), np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            p = 1 / (1 + math.exp(theta[j] - theta[i]))
            chances[i, j] = p * (1 - p)
    edges = {(0, 1): np.array([1.0, -1, 0]), (0, 2): np.array([1.0, 0, -1]), (1, 2): np.array([0.0, 1, -1])}
    for pair, number in (((0, 1), 4), ((0, 2), 1)):
        information += number * chances[pair] * np.outer(edges[pair], edges[pair])
    found = expected_reductions(battles)
    for pair, edge in edges.items():
        more = information + chances[pair] * np.outer(edge, edge)
        falls = np.trace(np.linalg.inv(information)) - np.trace(np.linalg.inv(more))
        assert (found[pair], found[pair[::-1]]) == pytest.approx((falls, falls))
    assert np.diag(found).tolist() == [0, 0, 0]
    for seed in range(12):
        rng = np.random.default_rng(seed)
        weights = np.array([found[pair] for pair in edges])
        drawn = list(edges)[int(rng.choice(3, p=weights / weights.sum()))]
        assert choose_pair(battles, np.random.default_rng(seed)) == (drawn if rng.random() < 0.5 else drawn[::-1])


def test_forged_votes_follow_the_honest_ones_and_equals_share_a_rank() -> None:
    honest = table("x y a", "y z tie", voters=["u", "v"], questions=["p", "q"], covariates={"length": [1.0, 2.0]})
    forged = BattleTable(
        honest.models, *(np.array(each, np.int32) for each in ([2, 1, 0], [0, 2, 1], [0, 2, 0], [2, 2, 3]))
    )
    made = _joined(honest, forged, 2)
    assert (made.models, made.a.tolist(), made.b.tolist()) == (("x", "y", "z"), [0, 1, 2, 1], [1, 2, 0, 2])
    assert made.outcome.tolist() == [A_WINS, TIE, A_WINS, B_WINS] and made.voters.tolist() == [0, 1, 2, 2]
    assert (made.questions, made.covariates, made.covariate_names) == (None, None, ())
    assert _joined(replace(honest, voters=None), forged, 3).voters.tolist() == [0, 0, 2, 2, 3]
    assert _joined(honest, forged, 0).a.tolist() == [0, 1]
    even = table("x y tie", "z w a", "x z a", "y z a")
    assert [_rank(even, name) for name in ("x", "y", "z", "w")] == [1, 1, 3, 4]


def test_the_last_votes_of_an_attack_are_tried_too() -> None:
    battles = table(*["x y a"] * 9, *["x y b"] * 2)
    attack = StuffingAttack("y", accuracy=0.75, most=17)
    forged = forge(battles, attack, 17)
    assert [_rank(_joined(battles, forged, number), "y") for number in (16, 17)] == [2, 1]
    assert forged_votes_needed(battles, attack, checks=False) == 17
    assert forged_votes_needed(battles, replace(attack, most=16), checks=False) is None


def test_a_cap_of_one_vote_each_makes_an_account_of_four_four_times_as_dear() -> None:
    rows = [*["x y a"] * 9, *["x y b"] * 2]
    battles = table(*rows, voters=[f"v{at}" for at in range(len(rows))])
    attack = StuffingAttack("y", accuracy=1.0, votes_per_account=4, most=40)
    forged = forge(battles, attack, 40, seed=2)
    assert set(forged.outcome[forged.a == 1]) == {A_WINS} and set(forged.outcome[forged.a == 0]) == {B_WINS}
    # y is below x until 7 forged votes count: 7 of two accounts, or the first of each of 7 (25 votes, to within an eighth)
    found = [forged_votes_needed(battles, attack, checks=True, cap=cap, seed=2) for cap in (0, 1)]
    assert found == [7, 26]
    assert forged_votes_needed(battles, attack, checks=False, cap=1, seed=2) == 7, "nothing is capped unchecked"
    one_voter = table("y x a", *rows, voters=["v"] * 12)
    with pytest.raises(ConfigError, match=r"^y has rank 1 already: there are not 1 above it$"):
        forged_votes_needed(one_voter, attack, checks=True, cap=1)


def test_votes_without_voters_are_stuffed_without_checks_alone(tmp_path: Path, cli: Any) -> None:
    rows = [*["x y a"] * 4, *["y x a"] * 3, "x y tie"]
    battles = table(*rows)
    attack = StuffingAttack("y", accuracy=1.0, most=40)
    assert forged_votes_needed(battles, attack, checks=False) is not None
    with pytest.raises(ConfigError) as refused:
        forged_votes_needed(battles, attack, checks=True)
    assert str(refused.value) == (
        "the votes name no voters, so that nothing can check them: give a column voter, judge or user_id"
    )
    path = tmp_path / "v.csv"
    path.write_text("model_a,model_b,winner\n" + "".join(",".join(row.split()) + "\n" for row in rows))
    code, out, err = cli("board", str(path), "--stuffing", "y")
    assert code == 0, err
    told = [line.split()[:2] for line in out.splitlines() if line.strip()]
    assert ["no", "checks"] in told and not any(words[0] == "checks" for words in told)


@pytest.mark.parametrize("number", [199, 200])
def test_hundreds_of_voters_share_the_strengths_of_all_votes(number: int) -> None:
    honest = ["x y a", "y x a", "y z a", "z x a", "x z a"]
    stuffed = ["z x a", "y z b", "z y a", "x z b", "z x a", "z y a"]
    rows = [*(honest[at % 5] for at in range(number - 1)), *stuffed]
    battles = table(*rows, voters=[*map(str, range(number - 1)), *["stuffer"] * 6])
    others = battles if number == 200 else battles.where(np.arange(len(battles)) < number - 1)
    (expected,) = _of_voter(battles.where(battles.voters == number - 1), number - 1, rate(others, prior=PRIOR).theta, 5)
    assert (expected.model, expected.battles, expected.won) == ("z", 6, 6.0)
    found = suspect_voters(battles, level=1.0)
    assert found == [
        replace(expected, expected=pytest.approx(expected.expected), p_value=pytest.approx(expected.p_value))
    ]
