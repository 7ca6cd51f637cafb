"""Checks of votes against stuffing: voters and small accounts for or against a model beyond chance, and voters above a cap.

For each voter and model, the voter's wins for the model are compared with what the ratings of the other voters' votes expect
(a two-sided test of a sum of unequal chances, by its normal approximation with continuity correction). P-values of all
voters and models are corrected by Benjamini and Hochberg. Chiang et al. (2024, section 6) test voters in the same spirit.

An account of a few votes shows nothing by itself, and anybody can make hundreds. So accounts with fewer than 5, 10 and 20
votes are also compared together with those that have more, before voters are looked at one by one. Where they are for or
against a model, their votes on it are left out, of both kinds, unless they outnumber the larger accounts by far.
"""

# N battles, M models, V voters

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

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
SMALL = (5, 10, 20)
"""Votes below which accounts are looked at together."""
FEWEST_LARGER = 5
"""Larger accounts below whose number nothing is said of the small ones."""
SHARE_APART = 0.1
"""Share of a model's battles by which small accounts differ at least from the larger ones: people do differ a little."""
OUTNUMBERED = 2.0
"""Battles of small accounts with a model, for each of the larger ones, above which it is not told who is right."""


@dataclass(frozen=True)
class SmallAccounts:
    """Accounts with few votes that together are for or against a model beyond what accounts with more votes make of it."""

    under: int
    """Each of them has fewer votes than that."""
    model: str
    battles: int
    won: float
    expected: float
    """The model's wins, if they voted as the larger accounts do."""
    p_value: float
    """Corrected for all models and sizes."""
    is_left_out: bool
    """False if they outnumber the larger accounts so far that these may be wrong."""


@dataclass(frozen=True)
class SuspectVoter:
    """A voter who is for or against a model beyond chance: `won` is above or below `expected`."""

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
    """The voters whose votes are for or against a model beyond chance, the least likely first.

    Raises:
        ConfigError: The table names no voters.
    """
    if battles.voters is None:
        raise ConfigError("the votes name no voters: give a column voter, judge or user_id")
    battles = battles.where(~_by_small_accounts(battles, level)[1])
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
    return sorted(named, key=lambda each: (each.p_value, *_most_moved(each)))


def checked_votes(battles: BattleTable, *, cap: int = 0, level: float = LEVEL) -> BattleTable:
    """The votes without those of suspect voters, and of each voter only the first `cap` (0: no cap)."""
    if battles.voters is None:
        return battles
    kept = ~_by_small_accounts(battles, level)[1]  # of all votes: a cap makes every account small
    if cap:
        for rows in _by_voter(battles).values():
            kept[rows[cap:]] = False
    capped = battles.where(kept)
    if not len(capped):
        return capped
    suspects = {each.voter for each in suspect_voters(capped, level=level)}
    assert capped.voters is not None
    return capped.where(~np.isin(capped.voters, list(suspects)))


def small_accounts(battles: BattleTable, *, level: float = LEVEL) -> list[SmallAccounts]:
    """The sizes of accounts and the models that they are for or against beyond what larger accounts make of them."""
    return [] if battles.voters is None else _by_small_accounts(battles, level)[0]


def share_of_small_accounts(battles: BattleTable, fewest: int = FEWEST) -> float:
    """The share of votes by voters with fewer votes than `fewest`, of whom nothing is said one by one."""
    return float((_sizes(battles) < fewest).mean()) if len(battles) else 0.0


def _by_small_accounts(battles: BattleTable, level: float) -> tuple[list[SmallAccounts], NDArray[np.bool_]]:
    """The models that small accounts are for or against, and a mask of the battles that are left out because of it.

    Of a size, the model whose wins they move most is taken first, and the others are looked at without its battles, since
    votes for a model are votes against those that it met.
    """
    sizes, left_out = _sizes(battles), np.zeros(len(battles), bool)
    named: list[SmallAccounts] = []
    for under in SMALL:
        small, larger = (sizes < under) & ~left_out, sizes >= under
        reference = _without_suspects(battles.where(larger), level)
        if not small.any() or len(_by_voter(reference)) < FEWEST_LARGER:
            continue
        theta = _shared_theta(reference)
        for each in named:
            if not each.is_left_out:
                small &= ~_battles_with(battles, each.model)
        while found := [
            _of_small(each, under, reference)
            for each in _of_voter(battles.where(small), -1, theta, FEWEST)
            if abs(each.won - each.expected) > SHARE_APART * each.battles
        ]:
            corrected = benjamini_hochberg([each.p_value for each in found])
            tested = [replace(each, p_value=min(1.0, len(SMALL) * p)) for each, p in zip(found, corrected, strict=True)]
            beyond = [each for each in tested if each.p_value <= level]
            if not beyond:
                break
            named.append(first := min(beyond, key=_most_moved))
            own = small & _battles_with(battles, first.model)
            small &= ~own
            if first.is_left_out:
                left_out |= own
    return named, left_out


def _most_moved(found: SuspectVoter | SmallAccounts) -> tuple[float, bool]:
    """The order of findings by the wins that they add or take, most first; of two that mirror each other, the added ones."""
    return -round(abs(found.won - found.expected), 6), found.won < found.expected


def _battles_with(battles: BattleTable, model: str) -> NDArray[np.bool_]:
    """A mask of the model's battles."""
    place = battles.places[model]
    with_model: NDArray[np.bool_] = (battles.a == place) | (battles.b == place)
    return with_model


def _of_small(found: SuspectVoter, under: int, reference: BattleTable) -> SmallAccounts:
    """The finding with the chance that the larger accounts' battles with the model are themselves few."""
    number = int(_battles_with(reference, found.model).sum())
    z = float(ndtri(found.p_value / 2)) / np.sqrt(1 + found.battles / max(number, 1))
    is_left_out = found.battles <= OUTNUMBERED * number
    return SmallAccounts(under, found.model, found.battles, found.won, found.expected, 2 * float(ndtr(z)), is_left_out)


def _without_suspects(battles: BattleTable, level: float) -> BattleTable:
    """The votes without those of voters who are for or against a model beyond what all of them make of it."""
    if not len(battles):
        return battles
    theta, found = _shared_theta(battles), list[SuspectVoter]()
    for voter, rows in _by_voter(battles).items():
        found += _of_voter(battles.where(rows), voter, theta, FEWEST)
    corrected = benjamini_hochberg([each.p_value for each in found]) if found else []
    suspects = [each.voter for each, p in zip(found, corrected, strict=True) if p <= level]
    assert battles.voters is not None
    return battles.where(~np.isin(battles.voters, suspects))


def _sizes(battles: BattleTable) -> NDArray[np.int64]:
    """Of each battle, the number of its voter's."""
    assert battles.voters is not None
    _, places, counts = np.unique(battles.voters, return_inverse=True, return_counts=True)
    return counts[places]


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
    both, places = np.unique(np.concatenate([own.a, own.b]), return_inverse=True)
    chances = np.concatenate([chance, 1 - chance])
    numbers = np.bincount(places)  # sums for each model by one pass: not a pass for each
    wins, expected, variance = (
        np.bincount(places, each) for each in (np.concatenate([score, 1 - score]), chances, chances * (1 - chances))
    )
    z = (np.abs(wins - expected) - 0.5) / np.maximum(np.sqrt(variance), 1e-9)
    p = np.minimum(1.0, 2 * ndtr(-z))
    return [
        SuspectVoter(voter, own.models[both[i]], int(numbers[i]), float(wins[i]), float(expected[i]), float(p[i]))
        for i in np.flatnonzero(numbers >= fewest)
    ]
