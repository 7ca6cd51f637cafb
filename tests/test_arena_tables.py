"""Tables of votes by hand: counts, groups, ratings, files, styles, checks of voters and forged votes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from firsthand.arena import vote_checks
from firsthand.arena.battle_table import A_WINS, B_WINS, TIE, BattleTable
from firsthand.arena.connectivity import comparable_groups
from firsthand.arena.elo import elo
from firsthand.arena.pair_choice import PRIOR
from firsthand.arena.rank_intervals import ranked
from firsthand.arena.ratings import ELO, rate
from firsthand.arena.vote_checks import SuspectVoter, checked_votes, suspect_voters
from firsthand.arena.vote_files import holds_votes, read_votes, style_count, voter_shares
from firsthand.arena.vote_stuffing import StuffingAttack, forge, forged_votes_needed
from firsthand.errors import ConfigError, DataError, ModelError
from firsthand.stats.multiple_comparisons import benjamini_hochberg
from firsthand.stats.strata import cluster_freedom


def refusal(function: Any, *args: Any, kind: type[Exception] = ConfigError, **given: Any) -> str:
    with pytest.raises(kind) as refused:
        function(*args, **given)
    return str(refused.value)


def table(*rows: str, **more: Any) -> BattleTable:
    """Battles such as `x y a`."""
    columns = list(zip(*(row.split() for row in rows), strict=True))
    return BattleTable.from_columns(*columns, **more)


def test_battles_are_counted_by_pair_and_outcome() -> None:
    made = table("y x a", "x y model_a", "x z tie", "z x both_bad", "y x b", "x y bothbad", models=("x", "w", "x"))
    assert made.models == ("x", "w", "y", "z") and len(made) == 6
    assert (made.a.tolist(), made.b.tolist()) == ([2, 0, 0, 3, 2, 0], [0, 2, 3, 0, 0, 2])
    assert made.outcome.tolist() == [A_WINS, A_WINS, TIE, TIE, B_WINS, TIE] == [0, 0, 1, 1, 2, 1]
    assert made.counts.shape == (3, 4, 4) and made.counts[0, 2, 0] == made.counts[2, 2, 0] == made.counts[0, 0, 2] == 1
    assert made.wins.tolist() == [[0, 0, 2.5, 1], [0] * 4, [1.5, 0, 0, 0], [1, 0, 0, 0]]
    assert made.ties.tolist() == [[0, 0, 1, 2], [0] * 4, [1, 0, 0, 0], [2, 0, 0, 0]] and made.games.tolist() == [
        6,
        0,
        4,
        2,
    ]
    assert elo(table("x y a", "y x tie"), k=40, start=0) == pytest.approx(
        {"x": 20 + 40 * (0.5 - 1 / (1 + 10 ** (-40 / 400))), "y": -20 - 40 * (0.5 - 1 / (1 + 10 ** (-40 / 400)))}
    )
    assert set(elo(table("x y tie")).values()) == {1000.0} and elo(table("x y a"))["x"] == 1002.0


def test_a_part_of_the_battles_keeps_what_belongs_to_each() -> None:
    more = {
        "voters": list("uvu"),
        "questions": list("qqr"),
        "covariates": {"length": [1.0, 2.0, 3.0], "bold": [0, 0, 1]},
    }
    made = table("x y a", "y z b", "z x tie", **more)
    assert (made.covariate_names, made.covariates.tolist()) == (("length", "bold"), [[1, 0], [2, 0], [3, 1]])
    part = made.where(np.array([False, True, True]))
    assert part.models == made.models and part.voters.tolist() == [1, 0] and part.questions.tolist() == [0, 1]
    assert part.covariates.tolist() == [[2, 0], [3, 1]] and part.outcome.tolist() == [2, 1]
    only = made.only(["z", "x", "z"])
    assert (only.models, only.a.tolist(), only.b.tolist(), only.voters.tolist()) == (("z", "x"), [0], [1], [0])
    assert refusal(made.only, ["z", "w"]) == "no battle names the model 'w': the models are x, y, z"
    assert voter_shares(made) == {0: 2, 1: 1} and voter_shares(table("x y a")) == {}
    for columns, more, said in (
        ((["x"], ["y", "z"], ["a"]), {}, "the column model_b has 2 battles and model_a has 1: give equal lengths"),
        (
            (["x"], ["y"], ["a"]),
            {"voters": []},
            "the column voters has 0 battles and model_a has 1: give equal lengths",
        ),
        (
            (["x"], ["y"], ["a"]),
            {"questions": ["q"], "covariates": {"l": [0.5], "m": [1.0, 2.0]}},
            "the column m has 2 battles and model_a has 1: give equal lengths",
        ),
        ((["x", "x"], ["y", "x"], ["a", "a"]), {}, "battle 2 is of 'x' against itself: a battle needs two models"),
        ((["x", "y"], ["y", 5], ["a", "a"]), {}, "battle 2 has the model 5: give the name of each model, as a text"),
        (
            (["x", "x"], ["y", "y"], ["a", "c"]),
            {},
            "the winner of battle 2 is 'c': give 'a', 'model_a', 'b', 'model_b', 'tie', 'both_bad', 'tie (bothbad)', "
            "'bothbad'",
        ),
        (
            (["x", "x"], ["y", "y"], ["a", "a"]),
            {"covariates": {"l": [1, 2], "m": [3, math.inf]}},
            "the covariate 'm' of battle 2 is inf: give a number",
        ),
    ):
        assert refusal(BattleTable.from_columns, *columns, **more) == said


def test_groups_are_largest_first_and_models_without_battles_stand_alone() -> None:
    made = table("x y a", "y x a", "z x a", "p q tie", "q r a", "r p b", "r q a", models=("w", "x"))
    assert comparable_groups(made) == [("p", "q", "r"), ("x", "y"), ("w",), ("z",)]
    assert comparable_groups(table(*["x y a"] * 9, "y x a")) == [("x", "y")]
    assert comparable_groups(table(*["x y a"] * 9)) == [("x",), ("y",)]


def test_what_cannot_be_rated_says_which_groups_cannot_be_compared() -> None:
    lost = [f"a{one} a{(one + 1) % 5} a" for one in range(5)] + ["b c a", "c b a", "d b a"]
    assert refusal(rate, table(*lost)) == (
        "the arena is not connected: 3 groups of models cannot be compared, a0, a1, a2 and 2 more and b, c for example; "
        "rate the largest alone, let them battle, or give a prior"
    )
    assert refusal(rate, table("x y a").where(np.array([False]))) == (
        "there are no battles: ratings need at least one between two models"
    )
    many = [f"m{at}" for at in range(2001)]
    assert refusal(rate, table("m0 m1 a", models=many)) == (
        "the arena has 2,001 models: ratings with intervals of all pairs are for 2,000 at most; leave out models with few "
        "battles"
    )
    assert refusal(rate, table("m0 m1 a", models=many[:2000])).startswith("the arena is not connected: 2000 groups")
    for prior in (-0.1, math.nan, math.inf):
        assert refusal(rate, table("x y a"), prior=prior) == f"prior is {prior}: give a precision of 0 or more"
    said = "no battle is a tie, and davidson has a parameter for ties: use bradley-terry"
    assert refusal(rate, table("x y a", "y x a"), "davidson") == said


def test_two_models_have_ratings_by_hand() -> None:
    made = rate(table("x y a", "x y a", "y x b", "x y b", voters=list("abcd")))
    half = math.log(3) / 2
    assert made.theta == pytest.approx([half, -half]) and made.games.tolist() == [4, 4] and made.ties is None
    assert made.log_likelihood == pytest.approx(3 * math.log(3 / 4) + math.log(1 / 4))
    # information p(1-p) n = 3/4 of the difference, and the same in the scores: variance 4/3, a quarter of it for each
    assert made.covariance == pytest.approx(np.array([[1, -1], [-1, 1]]) / 3)
    assert made.degrees.tolist() == [math.inf, math.inf]
    assert (made.clustered_by, made.covariates, made.method) == ((), {}, "bradley-terry")
    prior = rate(table("x y a"), prior=0.5)
    strength = float(prior.theta[0])
    assert prior.theta[1] == pytest.approx(-strength) and 1 - 1 / (1 + math.exp(-2 * strength)) == pytest.approx(
        0.5 * strength
    )
    assert prior.log_likelihood == pytest.approx(-math.log1p(math.exp(-2 * strength)))
    rows = ["x y a"] * 12 + ["x y b"] * 9
    both = rate(table(*rows, voters=[str(at % 20) for at in range(21)], questions=[str(at) for at in range(21)]))
    # one of 20 voters has two votes
    assert both.degrees == pytest.approx([cluster_freedom([2] + [1] * 19)] * 2) and 18 < both.degrees[0] < 19
    assert both.clustered_by == ("voter", "question") and both.effective_clusters == pytest.approx((21**2 / 23, 21))
    one = rate(table(*rows, voters=[str(at % 19) for at in range(21)], questions=[str(at) for at in range(21)]))
    assert one.degrees == pytest.approx([20, 20]) and one.clustered_by == ("question",)
    none = rate(table(*rows, voters=[str(at) for at in range(21)]), clustered=False)
    assert none.degrees.tolist() == [math.inf, math.inf] and none.clustered_by == ()


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_table_of_votes_is_read_with_its_voters_questions_and_styles(tmp_path: Path) -> None:
    base = {"tstamp": 7.5, "model_a": "x", "model_b": "y", "winner": "model_a"}
    rows = [
        {
            **base,
            "question_id": 1,
            "prompt": "p",
            "user_id": 5,
            "judge": "j1",
            "len_a": 30,
            "len_b": 10,
            "language": "en",
        },
        {
            **base,
            "question_id": 2,
            "prompt": "p",
            "user_id": 5,
            "judge": "j2",
            "len_a": 10,
            "len_b": 30,
            "language": "en",
        },
        {
            **base,
            "question_id": 1,
            "prompt": "p",
            "user_id": 6,
            "judge": None,
            "len_a": 0,
            "len_b": 0,
            "language": "en",
        },
        {
            **base,
            "question_id": 1,
            "prompt": "p",
            "user_id": 6,
            "judge": None,
            "len_a": 0,
            "len_b": 0,
            "language": "en",
        },
        {
            **base,
            "question_id": 9,
            "prompt": "q",
            "user_id": 7,
            "judge": "j1",
            "len_a": 1,
            "len_b": 0,
            "language": "fr",
        },
    ]
    found = read_votes(written(tmp_path / "v.jsonl", *rows), where={"language": "en"}, style=("length",))
    assert (found.duplicates, found.filtered, found.void, len(found.battles)) == (1, 1, 0, 3)
    assert found.battles.voters.tolist() == [0, 1, 2] and found.battles.questions.tolist() == [0, 1, 0]
    spread = math.sqrt((0.25 + 0.25) / 3)
    assert found.battles.covariates.ravel() == pytest.approx([0.5 / spread, -0.5 / spread, 0])
    for name, columns, is_votes in (
        ("a.jsonl", base, True),
        ("b.jsonl", {"generator_1": "x", "generator_2": "y", "preference": 1}, True),
        ("c.jsonl", {"generator_1": "x", "generator_2": "y"}, False),
        ("d.jsonl", {"model_a": "x"}, False),
    ):
        assert holds_votes(written(tmp_path / name, columns)) is is_votes
    (tmp_path / "e.json").write_text(' \n {"model_a": 1}')
    (tmp_path / "f.json").write_text(json.dumps([base]))
    assert not holds_votes(tmp_path / "e.json") and holds_votes(tmp_path / "f.json")
    for preference, outcome in ((1, 0), (1.49, 0), (1.5, 1), (1.51, 2), (2, 2), ("1.0", 0)):
        row = {"generator_1": "x", "generator_2": "y", "preference": preference}
        assert read_votes(written(tmp_path / "p.jsonl", row)).battles.outcome.tolist() == [outcome]
    row = {"generator_1": "x", "generator_2": "y", "preference": 2.01}
    assert "preference is 2.01: a number from 1 (first) to 2 (second)" in refusal(
        read_votes, written(tmp_path / "p.jsonl", row), kind=DataError
    )
    flags = {"model_a": "x", "model_b": "y", "winner_model_a": "1.0", "winner_model_b": "False", "winner_tie": 0}
    assert read_votes(written(tmp_path / "k.jsonl", flags)).battles.outcome.tolist() == [0]
    assert "must be 1, not {'model_a': '2'" in refusal(
        read_votes, written(tmp_path / "k.jsonl", {**flags, "winner_model_a": 2, "winner_tie": 1}), kind=DataError
    )


def test_styles_are_counted_in_characters_and_markdown() -> None:
    text = "# é\n  - a\n* b\n1. c\n2) d\n###### x\n####### no\n#no\n-no\n **b** __c__ **\n** * e"
    assert {name: style_count(text, name) for name in ("length", "headers", "lists", "bold")} == {
        "length": len(text),
        "headers": 2,
        "lists": 4,
        "bold": 2,
    }
    assert style_count("éé", "length") == 2


def stuffed(times: int = 1) -> BattleTable:
    """Two honest voters, and one who always votes for z; a fourth has too few battles."""
    honest = ["x y a", "y x a", "x z a", "z x a", "y z a", "z y a", "x y tie"]
    forged = ["z x a", "y z b", "z y a", "x z b", "z x a", "z y a"]
    rows = [*honest, *honest, *forged * times, "x y a", "x y a"]
    return table(*rows, voters=[*"a" * 7, *"b" * 7, *"c" * 6 * times, *"dd"])


def test_a_voter_is_compared_with_what_the_others_votes_expect() -> None:
    battles = stuffed()
    assert battles.voters is not None
    expected: list[SuspectVoter] = []
    for voter in range(4):
        theta = rate(battles.where(battles.voters != voter), prior=PRIOR).theta
        own = [
            (a, b, o)
            for a, b, o, v in zip(battles.a, battles.b, battles.outcome, battles.voters, strict=True)
            if v == voter
        ]
        for model, name in enumerate(battles.models):
            fought = [(a, b, o) for a, b, o in own if model in (a, b)]
            if len(fought) < 4:
                continue
            won = sum(1 - o / 2 if a == model else o / 2 for a, b, o in fought)
            chances = [1 / (1 + math.exp(theta[b if a == model else a] - theta[model])) for a, b, _ in fought]
            spread = math.sqrt(sum(p * (1 - p) for p in chances))
            p_value = min(1.0, 2 * float(ndtr(-(abs(won - sum(chances)) - 0.5) / spread)))
            expected.append(SuspectVoter(voter, name, len(fought), float(won), sum(chances), p_value))
    corrected = benjamini_hochberg([each.p_value for each in expected])
    order = sorted(
        zip(corrected, expected, strict=True), key=lambda pair: (pair[0], -abs(pair[1].won - pair[1].expected))
    )
    found = suspect_voters(battles, level=1.0, fewest=4)
    assert [(each.voter, each.model, each.battles, each.won) for each in found] == [
        (each.voter, each.model, each.battles, each.won) for _, each in order
    ]
    assert [each.expected for each in found] == pytest.approx([each.expected for _, each in order])
    assert [each.p_value for each in found] == pytest.approx(sorted(corrected))
    assert (found[0].voter, found[0].model, found[0].battles, found[0].won) == (2, "z", 6, 6.0)
    least = found[0].p_value
    assert [each.voter for each in suspect_voters(battles, level=least, fewest=4)] == [2]
    assert suspect_voters(battles, level=least / 2, fewest=4) == [] and suspect_voters(battles, fewest=8) == []
    assert {each.battles for each in suspect_voters(battles, level=1.0, fewest=5)} == {5, 6}
    battles = stuffed(3)
    theta = vote_checks._shared_theta(battles)
    shared = [
        each.p_value
        for voter, rows in vote_checks._by_voter(battles).items()
        for each in vote_checks._of_voter(battles.where(rows), voter, theta, vote_checks.FEWEST)
    ]
    assert len(vote_checks._without_suspects(battles, min(shared))) == len(battles), "of many, one is so by chance"
    kept = vote_checks._without_suspects(battles, min(benjamini_hochberg(shared))).voters
    assert kept is not None and set(kept) == {0, 1, 3}
    alone = battles.where(battles.voters == 0)
    assert suspect_voters(alone, level=1.0) == [], "nobody is there to compare with"
    assert refusal(suspect_voters, table("x y a")) == "the votes name no voters: give a column voter, judge or user_id"


def test_votes_are_checked_at_the_level_that_was_given_and_the_first_of_each_voter_count() -> None:
    battles = stuffed()
    found = suspect_voters(battles, level=1.0)
    level = next(each.p_value for each in found if each.voter == 2)
    left = checked_votes(battles, level=level)
    assert left.voters is not None and set(left.voters.tolist()) == {0, 1, 3} and len(left) == 16
    assert len(checked_votes(battles, level=0.0)) == len(battles) == 22
    capped = checked_votes(battles, cap=3, level=0.0)
    assert capped.voters.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 2
    assert capped.a.tolist()[6:9] == battles.a.tolist()[14:17] and len(checked_votes(battles, cap=7, level=0.0)) == 22
    assert len(checked_votes(table("x y a", "y x a"), cap=1)) == 2, "without voters nothing is checked"


def test_an_attacker_votes_for_the_target_where_it_seems_to_be_and_honestly_elsewhere() -> None:
    battles = stuffed()
    attack = StuffingAttack("y", accuracy=0.8, votes_per_account=7)
    found = forge(battles, attack, 40, seed=3)
    rng = np.random.default_rng(3)
    theta = rate(battles, prior=PRIOR).theta
    a = rng.integers(0, 3, 40)
    b = (a + rng.integers(1, 3, 40)) % 3
    draws, sure = rng.random(40), rng.random((2, 40)) < 0.8
    target = battles.models.index("y")
    for at in range(40):
        seen = [(side[at] == target) == sure[place][at] for place, side in enumerate((a, b))]
        honest = draws[at] < 1 / (1 + math.exp(theta[b[at]] - theta[a[at]]))
        wins = honest if seen[0] == seen[1] else seen[0]
        assert (found.a[at], found.b[at], found.outcome[at]) == (a[at], b[at], A_WINS if wins else B_WINS)
    assert found.voters is not None and found.voters.tolist() == [4 + at // 7 for at in range(40)]
    assert forge(table("x y a", "y x a"), StuffingAttack("y"), 31).voters.tolist() == [0] * 30 + [1]
    for changes, said in (
        ({"accuracy": 0.49}, "accuracy is 0.49: give a chance from 0.5 to 1"),
        ({"accuracy": 1.01}, "accuracy is 1.01: give a chance from 0.5 to 1"),
        *(
            ({name: 0}, "ranks, votes_per_account and most are 1 or more")
            for name in ("ranks", "votes_per_account", "most")
        ),
    ):
        assert refusal(StuffingAttack, "y", **changes) == said
    assert StuffingAttack("y", accuracy=0.5).accuracy == 0.5 and StuffingAttack("y", accuracy=1.0).ranks == 1


def test_the_votes_that_move_a_model_up_are_found_to_within_an_eighth() -> None:
    rows = ["x y a"] * 40 + ["x y b"] * 20 + ["y z a"] * 40 + ["y z b"] * 20 + ["x z a"] * 50 + ["x z b"] * 10
    battles = table(*rows)
    for ranks, most in ((1, 2000), (2, 2000)):
        attack = StuffingAttack("z", ranks=ranks, accuracy=1.0, most=most)
        forged = forge(battles, attack, most, seed=2)

        def rank(number: int, forged: BattleTable = forged) -> int:
            columns = [
                np.concatenate([getattr(battles, name), getattr(forged, name)[:number]])
                for name in ("a", "b", "outcome")
            ]
            theta = rate(BattleTable(battles.models, *columns), prior=PRIOR).theta
            return 1 + sum(each > theta[2] for each in theta)

        found = forged_votes_needed(battles, attack, checks=False, seed=2)
        assert found is not None and rank(found) <= 3 - ranks < rank(found - max(1, found // 8)) and rank(0) == 3
    assert forged_votes_needed(battles, StuffingAttack("z", most=3), checks=False) is None
    assert refusal(forged_votes_needed, battles, StuffingAttack("y", ranks=2), checks=False) == (
        "y has rank 2 already: there are not 2 above it"
    )
    assert refusal(forged_votes_needed, battles, StuffingAttack("w"), checks=True) == (
        "no battle names 'w': the models are x, y, z"
    )
    assert issubclass(ModelError, Exception)


def test_models_are_ranked_with_intervals_of_their_own_or_of_their_distance_to_an_anchor() -> None:
    made = rate(table("x y a", "x y a", "y x b", "x y b", models=("y", "x")))
    gap, alone, apart = ELO * math.log(3), ELO * math.sqrt(1 / 3), ELO * math.sqrt(4 / 3)
    for confidence, reach in ((0.95, 1.959963985), (0.9, 1.644853627)):
        best, worst = ranked(made, confidence=confidence)
        assert (best.model, worst.model, best.games, best.rank_low, best.rank_high, worst.rank_low) == (
            "x",
            "y",
            4,
            1,
            2,
            1,
        )
        assert best.rating == pytest.approx(1000 + gap / 2) and worst.rating == pytest.approx(1000 - gap / 2)
        assert (best.low, best.high) == pytest.approx((best.rating - reach * alone, best.rating + reach * alone))
        best, worst = ranked(made, confidence=confidence, anchor="y", at=5)
        assert (worst.rating, worst.low, worst.high) == pytest.approx((5, 5, 5))
        assert (best.rating, best.high) == pytest.approx((5 + gap, 5 + gap + reach * apart))
    few = ranked(replace(made, degrees=19))
    assert few[0].high - few[0].rating == pytest.approx(2.093024054 * alone)
    sure = ranked(rate(table(*["x y a"] * 300, *["y z a"] * 300, *["y x a"] * 30, *["z y a"] * 30)))
    assert [(row.model, row.rank_low, row.rank_high, row.games) for row in sure] == [
        ("x", 1, 1, 330),
        ("y", 2, 2, 660),
        ("z", 3, 3, 330),
    ]
    even = rate(table("b a tie", "c a tie", "b c tie"))
    assert [row.model for row in ranked(even)] == ["a", "b", "c"]
    assert refusal(ranked, made, anchor="w") == "the anchor 'w' is not among the models: y, x"
