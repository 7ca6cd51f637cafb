"""A board of three agents, written down number by number."""

from __future__ import annotations

import math
from typing import Any

from firsthand.show.agent_cost import Cost
from firsthand.show.board import Board, Row
from firsthand.stats.intervals import Interval
from firsthand.stats.paired import PairedDifference


def row(agent: str, value: float, cost: Cost, versus: PairedDifference | None = None, **more: Any) -> Row:
    """A row with the interval from .125 below to .25 above its score."""
    score = Interval(value, value - 0.125, value + 0.25, 6, "t", 0.1)
    return Row(agent, score, versus, cost, **{"attempts": 12, "errors": 0, "stopped": 0, **more})


BASE = row("base", 0.25, Cost(100.0, 0.0, 20.0, 3.0, 2.0, 1.0, 0.0, 1.5))
BETTER = row(
    "better:a,b(c)-of-a-long-name", 0.75, Cost(2000.0, 340.5, 1400.0, 75.0, 62.0, 7.5, 0.034, 40.0),
    PairedDifference(0.5, 0.2, 0.8, 0.004, 6, 4, 1, 1, "better", 0.3125, "Tango"), errors=2, stopped=3,
    secondary={"length": Interval(2.5, 2.0, 3.0, 6), "spread\x1b": Interval(0.5, math.nan, math.nan, 6, "none")},
)  # fmt: skip
WORSE = row(
    "worse", 0.125, Cost(60.0, 0.0, 20.0, 0.25, 0.125, 1.0, 0.5, 0.1),
    PairedDifference(-0.125, -0.25, -0.0625, 0.03125, 6, 0, 3, 3, "worse", 0.5, "Tango"),
)  # fmt: skip


def board(*rows: Row, **more: Any) -> Board:
    """A board of these rows, over 6 tasks in 2 epochs."""
    made: dict[str, Any] = {"benchmark": "sums", "metric": "exact", "tasks": 6, "epochs": 2, "baseline": "base"}
    return Board(**made | {"rows": rows} | more)
