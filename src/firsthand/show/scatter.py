"""Lays out the scatter plot of a board: score against tokens per task, as numbers for an SVG template.

Pure geometry: scales, ticks, and labels placed so that they do not lie on each other. It holds no markup and no colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.show.board import Board, Row
from firsthand.show.board_words import amount
from firsthand.stats.score_statistics import finite

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 16, 52
LINE = 15
"""Height of a line of label text."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it lies and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Rectangle:
    """A rectangle on the picture."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: Rectangle) -> float:
        """The area that both cover."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0.0, across) * max(0.0, down)


@dataclass(frozen=True)
class Point:
    """An agent on the picture: its mark, its error bar and its label."""

    name: str
    x: float
    y: float
    top: float
    bottom: float
    kind: str
    """`first`, `better`, `worse` or `same`: the shape and colour of its mark."""
    label_x: float
    label_y: float
    leader: bool
    """True if the label is far enough off to need a leader line."""
    summary: str


@dataclass(frozen=True)
class Picture:
    """All that is drawn."""

    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    log: bool
    baseline_y: float | None
    frontier: tuple[tuple[float, float], ...] = ()
    """The corners of the line under which no agent on the frontier lies, from the cheapest to the right edge."""


def scatter(board: Board) -> Picture | None:
    """The picture of a board; None if no agent has a score."""
    rows = [row for row in board.rows if finite(row.score.value) is not None]
    if not rows:
        return None
    tokens = [row.cost.tokens for row in rows]
    log = min(tokens) > 0 and max(tokens) > 10 * min(tokens)
    x_low, x_high, x_marks = _log_axis(tokens) if log else _linear_axis(0.0, max([*tokens, 1.0]) * 1.25)
    y_low, y_high, y_marks = _score_axis(rows)

    def x_of(value: float) -> float:
        share = math.log(value / x_low) / math.log(x_high / x_low) if log else (value - x_low) / (x_high - x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        share = (min(max(value, y_low), y_high) - y_low) / (y_high - y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    spots = [
        (row, x_of(row.cost.tokens), y_of(row.score.value), y_of(row.score.high), y_of(row.score.low)) for row in rows
    ]
    labels = _place([(short(row.agent), x, y, top, bottom) for row, x, y, top, bottom in spots])
    first = board.row(board.baseline)
    return Picture(
        points=tuple(
            Point(short(row.agent), x, y, top, bottom, _kind(row), label.x, label.y + LINE - 4,
                  abs(label.y + LINE / 2 - y) > LINE, _summary(row))
            for (row, x, y, top, bottom), label in zip(spots, labels, strict=True)
        ),
        x_ticks=tuple(Tick(x_of(mark), amount(mark).replace(".0", "")) for mark in x_marks),
        y_ticks=tuple(Tick(y_of(mark), f"{mark:.4g}") for mark in y_marks),
        log=log,
        baseline_y=y_of(first.score.value) if first and finite(first.score.value) is not None else None,
        frontier=_stairs([spot[1:3] for name in board.frontier for spot in spots if spot[0].agent == name]),
    )  # fmt: skip


def _stairs(spots: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The frontier as steps: what may be had for the price at x. None where only one agent is on it."""
    if len(spots) < 2:
        return ()
    corners = [spots[0]]
    for x, y in spots[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return (*corners, (WIDTH - RIGHT, corners[-1][1]))


def short(name: str, limit: int = 28) -> str:
    """The name, its middle left out if it is long."""
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit // 2 - 1) :]}"


def _kind(row: Row) -> str:
    if row.versus is None:
        return "first"
    return "same" if row.versus.verdict == "inconclusive" else row.versus.verdict


def _summary(row: Row) -> str:
    tokens = f"{amount(row.cost.tokens)} tokens per task"
    return f"{row.agent}: {row.score.value:.2f} ({row.score.low:.2f} to {row.score.high:.2f}), {tokens}"


def _linear_axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """The axis itself and about five round marks on it."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return low, high, [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    low, high = min(values) / 1.5, max(values) * 2.5
    sizes = (1, 2, 5) if high / low < 1000 else (1,)
    marks = [
        size * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        for size in sizes
    ]
    return low, high, [mark for mark in marks if low <= mark <= high]


def _score_axis(rows: Sequence[Row]) -> tuple[float, float, list[float]]:
    """0 to 1 for scores that lie there, as far up as is needed; else what holds the scores."""
    values = [row.score.value for row in rows]
    ends = [end for row in rows for end in (row.score.low, row.score.high) if finite(end) is not None]
    low, high = min([*values, *ends]), max([*values, *ends])
    if low >= 0 and high <= 1:
        return _linear_axis(0.0, min(1.0, math.ceil(high * 10 + 0.5) / 10))
    margin = (high - low) * 0.08 or max(1.0, abs(high) * 0.1)
    return _linear_axis(low - margin, high + margin)


def _place(spots: Sequence[tuple[str, float, float, float, float]]) -> list[Rectangle]:
    """A box for each label, near its mark, off other marks, error bars and labels as far as there is room."""
    taken = [Rectangle(x - 8, y - 8, 16, 16) for _, x, y, _, _ in spots]
    taken += [Rectangle(x - 2, top, 4, max(1.0, bottom - top)) for _, x, _, top, bottom in spots]
    placed: list[Rectangle] = []
    for name, x, y, _, _ in spots:
        width = 8.8 * len(name) + 4  # of a wide font, as DejaVu Sans in bold is
        options = [
            Rectangle(left, middle - LINE / 2, width, LINE)
            for shift in (0, *(sign * step * LINE for step in range(1, 24) for sign in (-1, 1)))
            for left in (x + 12, x - 12 - width)
            for middle in (y + shift,)
            if left > LEFT and left + width < WIDTH and TOP < middle < HEIGHT - BOTTOM - LINE / 2
        ]
        fallback = Rectangle(min(x + 12, WIDTH - width - 2), y - LINE / 2, width, LINE)
        best = min(options or [fallback], key=lambda box: (sum(box.overlap(other) for other in taken), abs(box.y - y)))
        placed.append(best)
        taken.append(best)
    return placed
