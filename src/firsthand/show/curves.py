"""Draws curves of metrics: sparklines for the terminal, and paths for the pictures of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.runs.track import Curve

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"
"""Stands for a value that is not finite."""
WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 22
MAX_POINTS = 600
"""A picture shows at most this many points; longer curves are means of neighbours."""


def sparkline(values: Sequence[float], *, width: int = 24) -> str:
    """The values as a row of bars, lowest to highest, at most `width` of them; neighbours are averaged."""
    if not values:
        return ""
    thin = Curve("", tuple(range(len(values))), tuple(values), (0.0,) * len(values)).thinned(width).values
    finite = [value for value in thin if math.isfinite(value)]
    if not finite:
        return GAP * len(thin)
    low, high = min(finite), max(finite)
    top = len(BARS) - 1
    return "".join(
        GAP if not math.isfinite(value) else BARS[round((value - low) / (high - low) * top) if high > low else top // 2]
        for value in thin
    )


@dataclass(frozen=True)
class CurvePicture:
    """One curve as a picture of WIDTH x HEIGHT: lines between gaps, and the texts of its axes."""

    name: str
    lines: tuple[str, ...]
    """SVG paths, one for each stretch of finite values."""
    low: str
    high: str
    first: str
    last: str
    """Texts of the lowest and highest value, and of the first and last step."""
    num_gaps: int
    """Values that are not finite."""


def curve_picture(curve: Curve) -> CurvePicture:
    """The picture of a curve of one value or more."""
    thin = curve.thinned(MAX_POINTS)
    finite = [value for value in curve.values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    first, last = thin.steps[0], thin.steps[-1]
    stretches: list[list[str]] = [[]]
    for step, value in zip(thin.steps, thin.values, strict=True):
        if math.isfinite(value):
            across = (step - first) / (last - first) if last > first else 0.5
            up = (value - low) / (high - low) if high > low else 0.5
            x = LEFT + across * (WIDTH - LEFT - RIGHT)
            y = HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
            stretches[-1].append(f"{x:.1f} {y:.1f}")
        elif stretches[-1]:
            stretches.append([])
    lines = tuple("M" + "L".join(points if len(points) > 1 else points * 2) for points in stretches if points)
    return CurvePicture(
        curve.name, lines, number(low), number(high), f"{first:,}", f"{last:,}", len(curve.values) - len(finite)
    )


def number(value: float) -> str:
    """A value in at most four significant digits."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)
