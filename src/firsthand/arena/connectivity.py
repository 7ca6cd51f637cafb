"""Groups of an arena's models that can be compared: ratings are finite only where wins lead both ways (Ford, 1957)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from firsthand.arena.battle_table import A_WINS, B_WINS, BattleTable


def comparable_groups(battles: BattleTable) -> list[tuple[str, ...]]:
    """The strongly connected groups of models, largest first: within one, each has won, by way of others, against each.

    A tie counts for both sides. Models without battles stand alone. More than one group means that no rating across
    groups is determined: some model has never lost, never won, or never met the others.
    """
    size = len(battles.models)
    if size * size <= len(battles):  # fewer pairs than battles
        winners, losers = np.nonzero(battles.wins)
    else:
        a, b = battles.a, battles.b
        by_a, by_b = battles.outcome != B_WINS, battles.outcome != A_WINS
        winners, losers = np.concatenate([a[by_a], b[by_b]]), np.concatenate([b[by_a], a[by_b]])
    entries = (np.ones(len(winners), np.float32), (winners, losers))  # few of all pairs meet
    wins = csr_matrix(entries, shape=(size, size))  # type: ignore[no-untyped-call]
    number, labels = connected_components(wins, directed=True, connection="strong")
    groups: list[list[int]] = [[] for _ in range(number)]
    for model, label in enumerate(labels.tolist()):
        groups[label].append(model)
    groups.sort(key=lambda group: (-len(group), group[0]))
    return [tuple(battles.models[model] for model in group) for group in groups]
