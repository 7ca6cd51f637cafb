"""Checks of votes against stuffing: voters who favour a model beyond chance, and voters above a cap.

For each voter and model, the voter's wins for the model are compared with what the ratings of the other voters' votes expect
(a one-sided test of a sum of unequal chances, by its normal approximation with continuity correction). P-values of all
voters and models are corrected by Benjamini and Hochberg. Chiang et al. (2024, section 6) test voters in the same spirit.
"""

# N battles, M models, V voters

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from firsthand.arena.battle_table import A_WINS, TIE, BattleTable
from firsthand.arena.pair_choice import PRIOR
from firsthand.arena.ratings import rate
from firsthand.errors import ConfigError
from firsthand.stats.multiple_comparisons import benjamini_hochberg

LEVEL = 0.01
"""Expected share of honest voters among those that are named."""
MANY_VOTERS = 200
"""Voters from which on a voter's own votes are left in what theirs are compared with."""
MANY_MODELS = 300
"""Models from which on they are left in too, since a fit for each voter takes minutes."""
FEWEST = 5
"""Battles of a voter with a model below which nothing is said."""


@dataclass(frozen=True)
class SuspectVoter:
    """A voter who favours a model beyond chance."""

    voter: int
    """The voter's number in the table."""
    model: str
    battles: int
    won: float
    """The model's wins by this voter's votes; a tie is half a win."""
    expected: float
    p_value: float
    """Corrected for all voters and models."""


def suspect_voters(battles: BattleTable, *, level: float = LEVEL, fewest: int = FEWEST) -> list[SuspectVoter]:
    """The voters whose votes favour a model beyond chance, the least likely first.

    Raises:
        ConfigError: The table names no voters.
    """
    if battles.voters is None:
        raise ConfigError("the votes name no voters: give a column voter, judge or user_id")
    tables = _by_voter(battles)
    found: list[SuspectVoter] = []
    shared = _shared_theta(battles) if len(tables) >= MANY_VOTERS or len(battles.models) >= MANY_MODELS else None
    for voter, rows in tables.items():
        if len(rows) < fewest or len(rows) == len(battles):
            continue
        theta = _theta_of_others(battles, voter) if shared is None else shared
        found += _of_voter(battles.where(rows), voter, theta, fewest)
    if not found:
        return []
    corrected = benjamini_hochberg([each.p_value for each in found])
    named = [
        SuspectVoter(each.voter, each.model, each.battles, each.won, each.expected, p)
        for each, p in zip(found, corrected, strict=True)
        if p <= level
    ]
    return sorted(named, key=lambda each: each.p_value)


def checked_votes(battles: BattleTable, *, cap: int = 0, level: float = LEVEL) -> BattleTable:
    """The votes without those of suspect voters, and of each voter only the first `cap` (0: no cap)."""
    if battles.voters is None:
        return battles
    kept = np.ones(len(battles), bool)
    if cap:
        for rows in _by_voter(battles).values():
            kept[rows[cap:]] = False
    capped = battles.where(kept)
    if not len(capped):
        return capped
    suspects = {each.voter for each in suspect_voters(capped, level=level)}
    assert capped.voters is not None
    return capped.where(~np.isin(capped.voters, list(suspects)))


def _by_voter(battles: BattleTable) -> dict[int, NDArray[np.int64]]:
    """Voter -> the places of their battles, in the order they came."""
    assert battles.voters is not None
    order = np.argsort(battles.voters, kind="stable")
    voters, starts = np.unique(battles.voters[order], return_index=True)
    return dict(zip(voters.tolist(), np.split(order, starts[1:]), strict=True)) if len(voters) else {}


def _theta_of_others(battles: BattleTable, voter: int) -> NDArray[np.float64]:
    assert battles.voters is not None
    return rate(battles.where(battles.voters != voter), prior=PRIOR, clustered=False).theta


def _shared_theta(battles: BattleTable) -> NDArray[np.float64]:
    """The strengths from all votes: with hundreds of voters, one voter's own hardly move them."""
    return rate(battles, prior=PRIOR, clustered=False).theta


def _of_voter(own: BattleTable, voter: int, theta: NDArray[np.float64], fewest: int) -> list[SuspectVoter]:
    chance = 1 / (1 + np.exp(theta[own.b] - theta[own.a]))
    score = np.where(own.outcome == A_WINS, 1.0, np.where(own.outcome == TIE, 0.5, 0.0))
    found = []
    for model in np.unique(np.concatenate([own.a, own.b])):
        first, second = own.a == model, own.b == model
        number = int(first.sum() + second.sum())
        if number < fewest:
            continue
        won = float(score[first].sum() + (1 - score[second]).sum())
        chances = np.concatenate([chance[first], 1 - chance[second]])
        expected, spread = float(chances.sum()), float(np.sqrt((chances * (1 - chances)).sum()))
        p = float(ndtr(-(won - expected - 0.5) / max(spread, 1e-9)))
        found.append(SuspectVoter(voter, own.models[model], number, won, expected, p))
    return found
