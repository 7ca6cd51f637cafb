"""Groups of an arena's models that can be compared: ratings are finite only where wins lead both ways (Ford, 1957)."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import connected_components

from firsthand.arena.battle_table import BattleTable


def comparable_groups(battles: BattleTable) -> list[tuple[str, ...]]:
    """The strongly connected groups of models, largest first: within one, each has won, by way of others, against each.

    A tie counts for both sides. Models without battles stand alone. More than one group means that no rating across
    groups is determined: some model has never lost, never won, or never met the others.
    """
    number, labels = connected_components(battles.wins > 0, directed=True, connection="strong")
    groups = [tuple(battles.models[i] for i in np.flatnonzero(labels == group)) for group in range(number)]
    return sorted(groups, key=lambda group: (-len(group), battles.models.index(group[0])))
