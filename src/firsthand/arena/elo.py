"""Elo's online rating: one pass in the order of the battles."""

from __future__ import annotations

from firsthand.arena.battle_table import BattleTable
from firsthand.arena.ratings import CENTRE

K_FACTOR = 4.0


def elo(battles: BattleTable, *, k: float = K_FACTOR, start: float = CENTRE) -> dict[str, float]:
    """The rating of each model after all battles (Elo, 1978): R += k (score - expected), expected on a scale of 400 points.

    It depends on the order of battles and forgets old ones, which suits players that change; models do not, so leaderboards
    take `rate`. Arenas use k = 4.
    """
    ratings = [start] * len(battles.models)
    scores = (1.0, 0.5, 0.0)
    for a, b, outcome in zip(battles.a.tolist(), battles.b.tolist(), battles.outcome.tolist(), strict=True):
        expected = 1 / (1 + 10 ** ((ratings[b] - ratings[a]) / 400))
        change = k * (scores[outcome] - expected)
        ratings[a] += change
        ratings[b] -= change
    return dict(zip(battles.models, ratings, strict=True))
