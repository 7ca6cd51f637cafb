"""Accounts with too few votes to be judged one by one are compared together with those that have more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from firsthand.arena.battle_table import A_WINS, B_WINS, BattleTable
from firsthand.arena.vote_checks import (
    SmallAccounts,
    checked_votes,
    share_of_small_accounts,
    small_accounts,
    suspect_voters,
)
from firsthand.cli import main

MODELS, STRENGTHS = ("a", "b", "c", "target"), np.array([1.0, 0.6, 0.3, -0.5])


def honest(votes: int, voters: int, *, seed: int = 0, first: int = 0) -> BattleTable:
    """Votes by the strengths, as many of each voter."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 4, votes)
    b = (a + rng.integers(1, 4, votes)) % 4
    wins = rng.random(votes) < 1 / (1 + np.exp(STRENGTHS[b] - STRENGTHS[a]))
    voter = first + np.arange(votes) % voters
    return BattleTable(MODELS, *(each.astype(np.int32) for each in (a, b, np.where(wins, A_WINS, B_WINS), voter)))


def forged(votes: int, each: int, *, winner: int = 3, first: int = 10_000) -> BattleTable:
    """Votes for the winner, so many of each account."""
    other = (winner + 1 + np.arange(votes) % 3) % 4
    won = np.full(votes, winner)
    voter = first + np.arange(votes) // each
    return BattleTable(MODELS, *(x.astype(np.int32) for x in (won, other, np.full(votes, A_WINS), voter)))


def joined(*tables: BattleTable) -> BattleTable:
    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(each, name) for each in tables])

    return BattleTable(MODELS, *(column(name) for name in ("a", "b", "outcome", "voters")))


@pytest.mark.slow
@pytest.mark.parametrize(("each", "under"), [(1, 5), (4, 5), (5, 10), (9, 10)])
def test_hundreds_of_accounts_of_a_few_votes_are_found_and_left_out(each: int, under: int) -> None:
    votes = honest(1200, 60)
    assert suspect_voters(joined(votes, forged(600, 4))) == []
    (found,) = small_accounts(joined(votes, forged(600, each)))
    assert (found.under, found.model, found.battles, found.won, found.is_left_out) == (
        under,
        "target",
        600,
        600.0,
        True,
    )
    assert found.expected < 300 and found.p_value < 1e-6
    assert len(checked_votes(joined(votes, forged(600, each)))) == len(votes)


def against(votes: int, each: int, *, loser: int = 0, first: int = 10_000) -> BattleTable:
    """Votes against the loser, so many of each account."""
    table = forged(votes, each, winner=loser, first=first)
    return BattleTable(MODELS, table.a, table.b, np.full(votes, B_WINS, np.int32), table.voters)


def test_small_accounts_that_vote_against_a_model_are_found_and_only_its_battles_left_out() -> None:
    votes, few = honest(1200, 60), honest(60, 30, seed=5, first=5000)
    (found,) = small_accounts(joined(votes, few, against(400, 4)))
    assert (found.under, found.model, found.is_left_out) == (5, "a", True) and found.won < 25 < 200 < found.expected
    assert found.p_value < 1e-6
    kept = checked_votes(joined(votes, few, against(400, 4)))
    with_a = int(((few.a == 0) | (few.b == 0)).sum())
    assert len(kept) == 1260 - with_a, "votes on the others of small accounts stay"
    mixed = small_accounts(joined(votes, against(200, 4), against(200, 9, first=20_000)))
    assert [(each.under, each.model) for each in mixed] == [(5, "a"), (10, "a")], "of each size"


def test_models_that_met_one_whose_votes_are_kept_are_not_named_for_it() -> None:
    votes = honest(1200, 60)
    votes = votes.where((votes.a != 3) & (votes.b != 3))
    known = joined(votes, forged(20, 1, first=0))
    found = small_accounts(joined(known, against(300, 4, loser=3), against(300, 9, loser=3, first=20_000)))
    assert [(each.model, each.is_left_out) for each in found] == [("target", False)]


def test_honest_voters_are_not_named_because_forged_accounts_outvote_them() -> None:
    wins = [np.full(400, 0), np.full(400, 1), np.full(400, A_WINS), np.arange(400) % 40]
    votes = BattleTable(MODELS, *(each.astype(np.int32) for each in wins))
    bad = BattleTable(MODELS, np.full(800, 1, np.int32), np.zeros(800, np.int32), *(
        each.astype(np.int32) for each in (np.full(800, A_WINS), 1000 + np.arange(800) // 4)
    ))  # fmt: skip
    both = joined(votes, bad)
    assert [(each.model, each.is_left_out) for each in small_accounts(both)] == [("b", True)]
    assert suspect_voters(both) == [] and checked_votes(both).voters.tolist() == votes.voters.tolist()  # type: ignore[union-attr]
    assert share_of_small_accounts(both) == pytest.approx(2 / 3)
    more = joined(votes, bad, forged(4, 4, winner=1))
    assert [each.is_left_out for each in small_accounts(more)] == [False], "they outnumber the others"


@pytest.mark.slow
def test_honest_voters_of_few_votes_are_kept() -> None:
    for seed in range(6):
        votes = joined(honest(600, 30, seed=seed), honest(900, 400, seed=50 + seed, first=1000))
        assert small_accounts(votes) == [] and len(checked_votes(votes)) == 1500
    crowd = honest(900, 400)
    assert small_accounts(crowd) == [] and len(checked_votes(crowd)) == 900, "nobody has more votes"
    assert share_of_small_accounts(crowd) == 1.0


def test_a_crowd_of_small_accounts_is_not_left_out_for_a_few_large_ones_that_are_forged() -> None:
    crowd, large = honest(2400, 1000), forged(300, 30)
    votes = joined(crowd, large)
    assert all(not each.is_left_out for each in small_accounts(votes))
    assert checked_votes(votes).voters.tolist() == crowd.voters.tolist()  # type: ignore[union-attr]


def test_four_larger_accounts_are_too_few_to_compare_with() -> None:
    for number, findings in ((4, 0), (5, 1)):
        assert len(small_accounts(joined(honest(30 * number, number), forged(100, 2)))) == findings


@pytest.mark.slow
def test_small_accounts_are_named_by_the_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both, file = joined(honest(1200, 60), forged(600, 4)), tmp_path / "votes.jsonl"
    assert both.voters is not None
    rows = [
        {"model_a": MODELS[a], "model_b": MODELS[b], "winner": f"model_{'ba'[int(won == A_WINS)]}", "judge": f"v{voter}"}
        for a, b, won, voter in zip(both.a, both.b, both.outcome, both.voters, strict=True)
    ]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)))
    assert main(["board", str(file), "--checks"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "fewer than 5 target 600 600" in out and "left out" in out
    assert (
        "33% of the votes are by voters with fewer than 5" in out
        and "600 votes left out by the checks (1 finding)" in out
    )


def test_a_table_without_voters_or_votes_has_no_small_accounts() -> None:
    votes = honest(20, 2)
    assert small_accounts(BattleTable(MODELS, votes.a, votes.b, votes.outcome)) == []
    assert (
        small_accounts(votes.where(np.zeros(20, bool))) == []
        and share_of_small_accounts(votes.where(np.zeros(20, bool))) == 0
    )
    assert SmallAccounts(5, "a", 1, 1.0, 0.5, 0.1, True).is_left_out


def test_small_accounts_are_not_compared_with_larger_ones_that_are_forged_themselves() -> None:
    votes = joined(honest(800, 40), honest(600, 300, seed=3, first=1000), forged(300, 30))
    assert small_accounts(votes) == [] and len(checked_votes(votes)) == 1400


def test_a_few_larger_accounts_are_a_measure_with_a_chance_of_its_own() -> None:
    for seed in (10, 13, 17):
        assert small_accounts(joined(honest(100, 5, seed=seed), honest(600, 300, first=1000, seed=500 + seed))) == []


def test_a_cap_does_not_hide_small_accounts_among_others() -> None:
    kept = checked_votes(joined(honest(1200, 60), forged(600, 4)), cap=3)
    assert len(kept) == 180 and kept.voters is not None and kept.voters.max() < 60
