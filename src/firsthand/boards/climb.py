"""The climb of a benchmark: the best score so far, by date, as steps and as an SVG plot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from firsthand.boards.board_results import BoardResult
from firsthand.boards.make_board import BoardSection, MadeBoard
from firsthand.errors import ConfigError
from firsthand.show.html_page import visible

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 24, 40


@dataclass(frozen=True)
class ClimbStep:
    """A model that was better than all before it."""

    when: str
    model: str
    score: float
    gain: float
    """Its score less the best before it; of the first, its score."""


@dataclass(frozen=True)
class Climb:
    """The records of one table, and the number of its models without a date."""

    title: str
    steps: tuple[ClimbStep, ...]
    points: tuple[tuple[str, str, float], ...]
    """(when, model, score) of every dated model."""
    undated: int


def climbs(board: MadeBoard) -> list[Climb]:
    """The climb of each table of the board; ConfigError if none of its results has a date.

    A model of several results is dated by the latest of them.
    """
    found = [_climb(section) for section in board.sections]
    if not any(each.points for each in found):
        raise ConfigError(f"no result of the board {board.spec.name} has a date: a climb needs a column date, or runs")
    return [each for each in found if each.points]


def _climb(section: BoardSection) -> Climb:
    falls = section.lines and all(_lower(each.cells.values()) for each in section.lines)
    sign = -1.0 if falls else 1.0
    dated = []
    for line in section.lines:
        dates = [result.when for result in line.cells.values()]
        if dates and all(dates):
            dated.append((max(dates), line.model, line.score))
    dated.sort(key=lambda each: (each[0], -sign * each[2], each[1]))
    steps: list[ClimbStep] = []
    for when, model, score in dated:
        best = steps[-1].score if steps else None
        if best is None or sign * score > sign * best:
            steps.append(ClimbStep(when, model, score, score if best is None else score - best))
    return Climb(section.title or section.score, tuple(steps), tuple(dated), len(section.lines) - len(dated))


def _lower(results: Any) -> bool:
    found: list[BoardResult] = list(results)
    return len(found) == 1 and found[0].lower_is_better


def climb_svg(climb: Climb) -> str:
    """A self-contained SVG: every dated model a point, the records a line of steps, each with its name as a tooltip."""
    times = [datetime.fromisoformat(when).timestamp() for when, _, _ in climb.points]
    scores = [score for _, _, score in climb.points]
    first, last = min(times), max(times)
    low, high = min(scores), max(scores)
    room = (high - low) * 0.08 or max(abs(high) * 0.1, 0.01)
    low, high = low - room, high + room

    def x(when: str) -> float:
        share = (datetime.fromisoformat(when).timestamp() - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(score: float) -> float:
        return TOP + (high - score) / (high - low) * (HEIGHT - TOP - BOTTOM)

    path = ""
    for step in climb.steps:
        path += f"H{x(step.when):.1f}V{y(step.score):.1f}" if path else f"M{x(step.when):.1f} {y(step.score):.1f}"
    path += f"H{WIDTH - RIGHT}"
    records = {(step.when, step.model) for step in climb.steps}
    ticks = [low + (high - low) * i / 4 for i in range(5)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" '
        f'font-size="12"><title>{_safe(climb.title)}: best score by date</title>'
        f'<rect width="100%" height="100%" fill="#fff"/>'
    ]
    for tick in ticks:
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#333">{tick:.3g}</text>'
        )
    for when, anchor, at in ((climb.points[0][0], "start", LEFT), (climb.points[-1][0], "end", WIDTH - RIGHT)):
        parts.append(f'<text x="{at}" y="{HEIGHT - 14}" text-anchor="{anchor}" fill="#333">{when[:10]}</text>')
    parts.append(f'<path d="{path}" fill="none" stroke="#0b62a4" stroke-width="2"/>')
    for when, model, score in climb.points:
        fill = "#0b62a4" if (when, model) in records else "#999"
        parts.append(
            f'<circle cx="{x(when):.1f}" cy="{y(score):.1f}" r="4" fill="{fill}">'
            f"<title>{_safe(model)}: {score:.4g}, {when[:10]}</title></circle>"
        )
    return "".join(parts) + "</svg>\n"


def _safe(text: str) -> str:
    return escape(visible(text))
