"""Items that a model has no score on and others have: what they could change on a board, and the sentences that name them.

Nothing is put in their place in a score. Two models are told apart only if no scores on them could undo it.
"""

# M models, C columns

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firsthand.boards.board_columns import BoardColumn
from firsthand.boards.board_results import MOST_TOLD, Floats


def slack_of_scores(columns: Sequence[BoardColumn], weights: Sequence[float], models: list[str]) -> Floats | None:
    """Shape (M, M): what a row's lead in a weighted sum of columns could lose by missing items; None if none is missing."""
    found = [
        slack * weight
        for column, weight in zip(columns, weights, strict=True)
        if weight and (slack := column.slack(models)) is not None
    ]
    return sum(found[1:], found[0]) if found else None


def slack_of_wins(
    columns: Sequence[BoardColumn], values_MC: Floats, models: list[str], *, shares: bool
) -> Floats | None:
    """Shape (M, M): what the row's lead in wins over all models could lose by missing items; None if none is missing.

    Args:
        columns: The columns that count.
        values_MC: The scores, higher is better; NaN where a model has none.
        models: All models of the table.
        shares: Wins of a column are shares of the other models with a score in it, as for a win rate, and not counts.
    """
    total: Floats | None = None
    for values_M, column in zip(values_MC.T, columns, strict=True):
        slack = column.slack(models)
        if slack is None:
            continue
        lead = values_M[:, None] - values_M[None, :]
        lost = _wins(lead) - _wins(lead - slack)
        found = lost.sum(1)[:, None] + lost.sum(0)[None, :]  # what one model loses, the other gains
        found /= max(int(np.isfinite(values_M).sum()) - 1, 1) if shares else 1
        total = found if total is None else total + found
    return total


def remarks_on_items(columns: Sequence[BoardColumn]) -> list[str]:
    """A sentence for each model that lacks items of a column, those that lack the most first."""
    lacking = [(count, model, column) for column in columns for model, count in column.lacking().items()]
    lacking.sort(key=lambda each: -each[0])
    said = [
        f"{model} has no score on {count:,} of the {count + column.cells[model].n:,} items of {column.name} that were "
        "scored: its score is that of the others, and its ranks hold whatever these are."
        for count, model, column in lacking[:MOST_TOLD]
    ]
    if len(lacking) > MOST_TOLD:
        said.append(f"And {len(lacking) - MOST_TOLD:,} more results lack items that others have.")
    return said


def _wins(lead: Floats) -> Floats:
    """1 for a lead, a half for a tie, 0 for less or no score."""
    wins: Floats = (lead > 0) + (lead == 0) / 2
    return wins
