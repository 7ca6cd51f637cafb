"""Simulates vote stuffing: how many forged votes move a model up, with and without checks.

The attack of Huang et al. (2025, "Exploring and mitigating adversarial manipulation of voting-based leaderboards"): an
attacker recognises the target's answers with some accuracy, votes for it whenever it seems to be there, and elsewhere votes
as an honest voter would. Pairs are drawn as the arena draws them; accounts cast a fixed number of votes each.
"""

# N battles, M models

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from firsthand.arena.battle_table import A_WINS, B_WINS, BattleTable
from firsthand.arena.pair_choice import PRIOR
from firsthand.arena.ratings import rate
from firsthand.arena.vote_checks import checked_votes
from firsthand.errors import ConfigError


@dataclass(frozen=True)
class StuffingAttack:
    """The attacker's means."""

    target: str
    """The model to move up."""
    ranks: int = 1
    """By how many ranks."""
    accuracy: float = 0.95
    """Chance that an answer is recognised for what it is, as the target's or as another's."""
    votes_per_account: int = 30
    most: int = 20_000
    """Forged votes at which the search gives up."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.accuracy <= 1:
            raise ConfigError(f"accuracy is {self.accuracy}: give a chance from 0.5 to 1")
        if self.ranks < 1 or self.votes_per_account < 1 or self.most < 1:
            raise ConfigError("ranks, votes_per_account and most are 1 or more")


def forged_votes_needed(
    battles: BattleTable, attack: StuffingAttack, *, checks: bool, cap: int = 0, seed: int = 0
) -> int | None:
    """The number of forged votes, to within an eighth, after which the target stands `ranks` higher; None if `most` do not.

    Args:
        battles: The honest votes.
        attack: The attacker's means.
        checks: Leave out suspect voters and votes above the cap before rating (`vote_checks.checked_votes`).
        cap: With checks: the votes of one account that count; 0 for all.
        seed: Of the forged votes.

    Raises:
        ConfigError: No battle names the target, as many models are not above it, or checks of votes that name no voters.
    """
    if attack.target not in battles.models:
        raise ConfigError(f"no battle names {attack.target!r}: the models are {', '.join(battles.models)[:300]}")
    if checks and battles.voters is None:  # all honest votes would be one account's
        raise ConfigError(
            "the votes name no voters, so that nothing can check them: give a column voter, judge or user_id"
        )
    honest = checked_votes(battles, cap=cap) if checks else battles
    before = _rank(honest, attack.target)
    if before <= attack.ranks:
        raise ConfigError(f"{attack.target} has rank {before} already: there are not {attack.ranks} above it")
    forged = forge(battles, attack, attack.most, seed=seed)

    def moved(number: int) -> bool:
        every = _joined(battles, forged, number)
        kept = checked_votes(every, cap=cap) if checks else every
        return _rank(kept, attack.target) <= before - attack.ranks

    low, high = 0, min(16, attack.most)
    while not moved(high):
        if high == attack.most:
            return None
        low, high = high, min(2 * high, attack.most)
    while high - low > max(1, high // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if moved(middle) else (middle, high)
    return high


def forge(battles: BattleTable, attack: StuffingAttack, number: int, *, seed: int = 0) -> BattleTable:
    """So many votes of the attacker's accounts, whose numbers follow the honest voters'."""
    rng = np.random.default_rng(seed)
    size = len(battles.models)
    target = battles.places[attack.target]
    theta = rate(battles, prior=PRIOR, clustered=False).theta
    a = rng.integers(0, size, number)
    b = (a + rng.integers(1, size, number)) % size
    wins = rng.random(number) < 1 / (1 + np.exp(theta[b] - theta[a]))
    sure = rng.random((2, number)) < attack.accuracy
    seen_a, seen_b = (a == target) == sure[0], (b == target) == sure[1]
    wins = np.where(seen_a & ~seen_b, True, np.where(seen_b & ~seen_a, False, wins))
    first = 0 if battles.voters is None else int(battles.voters.max()) + 1
    accounts = first + np.arange(number) // attack.votes_per_account
    outcome = np.where(wins, A_WINS, B_WINS)
    made = [each.astype(np.int32) for each in (a, b, outcome, accounts)]
    return BattleTable(battles.models, made[0], made[1], made[2], made[3])


def _joined(honest: BattleTable, forged: BattleTable, number: int) -> BattleTable:
    def both(one: NDArray[np.int32] | None, two: NDArray[np.int32] | None) -> NDArray[np.int32]:
        own = np.zeros(len(honest), np.int32) if one is None else one
        assert two is not None
        return np.concatenate([own, two[:number]])

    return replace(
        honest,
        a=both(honest.a, forged.a),
        b=both(honest.b, forged.b),
        outcome=both(honest.outcome, forged.outcome),
        voters=both(honest.voters, forged.voters),
        questions=None,
        covariates=None,
        covariate_names=(),
        voter_names=(),
    )


def _rank(battles: BattleTable, model: str) -> int:
    theta = rate(battles, prior=PRIOR, clustered=False).theta
    return 1 + int((theta > theta[battles.places[model]]).sum())
