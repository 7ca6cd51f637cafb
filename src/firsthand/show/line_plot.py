"""Lays out a plot of a few lines, and writes it as SVG; pure geometry but for `plot_svg`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 40
COLOURS = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#57534e", "#be185d")


@dataclass(frozen=True)
class PlotLine:
    """A line: its name, its SVG path, and where its points are drawn."""

    name: str
    path: str
    points: tuple[tuple[float, float], ...]
    colour: str


@dataclass(frozen=True)
class LinePlot:
    """All that is drawn."""

    lines: tuple[PlotLine, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_label: str
    y_label: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM

    @property
    def is_high_at_the_left(self) -> bool:
        """True if the lines are above where their names stand at the left, more than at the right."""
        below_names, third = TOP + 14 + 12 * len(self.lines), (self.width - self.left - RIGHT) / 3
        high = [x for line in self.lines for x, y in line.points if y < below_names]
        return sum(x < self.left + third for x in high) > sum(x > self.width - RIGHT - third for x in high)


def line_plot(
    curves: Mapping[str, Sequence[Sequence[float | None]]], axes: tuple[str, str] = ("", "")
) -> LinePlot | None:
    """The plot of named lines of points (x, y); None without a finite point.

    Points with a None or infinite number are left out. The x axis is logarithmic where positive values span a factor of 20.
    """
    kept = {
        name: [(float(x), float(y)) for x, y in line if x is not None and y is not None and math.isfinite(x + y)]
        for name, line in curves.items()
    }
    kept = {name: line for name, line in kept.items() if line}
    if not kept:
        return None
    xs = [x for line in kept.values() for x, _ in line]
    ys = [y for line in kept.values() for _, y in line]
    log = min(xs) > 0 and max(xs) / min(xs) >= 20
    x_low, x_high = _range([math.log(x) for x in xs] if log else xs)
    y_low, y_high = _range([*ys, 0.0] if min(ys) >= 0 else ys)

    def at(x: float, y: float) -> tuple[float, float]:
        across = ((math.log(x) if log else x) - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return round(LEFT + across * (WIDTH - LEFT - RIGHT), 1), round(
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1
        )

    lines = []
    for index, (name, line) in enumerate(kept.items()):
        points = tuple(at(x, y) for x, y in line)
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        lines.append(PlotLine(name, path, points, COLOURS[index % len(COLOURS)]))
    shown = (
        sorted(set(xs))
        if len(set(xs)) <= 6
        else [min(xs), math.sqrt(min(xs) * max(xs)) if log else sum(_ends(xs)) / 2, max(xs)]
    )
    x_ticks = tuple((at(x, y_low)[0], _text(x)) for x in shown)
    y_ticks = tuple((at(xs[0], y)[1], _text(y)) for y in (y_low, (y_low + y_high) / 2, y_high))
    return LinePlot(tuple(lines), x_ticks, y_ticks, *axes)


def plot_svg(plot: LinePlot) -> str:
    """The plot as the text of an SVG file."""
    right, middle = plot.width - RIGHT, (plot.left + plot.width - RIGHT) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {plot.width} {plot.height}" font-family="sans-serif" '
        f'font-size="10" width="{plot.width}" height="{plot.height}">',
        f'<rect width="{plot.width}" height="{plot.height}" fill="#ffffff"/>',
    ]
    for y, text in plot.y_ticks:
        parts.append(f'<path d="M{plot.left} {y}H{right}" stroke="#d6d3d1"/>')
        parts.append(f'<text x="{plot.left - 4}" y="{y + 3}" text-anchor="end">{escape(text)}</text>')
    for x, text in plot.x_ticks:
        parts.append(f'<text x="{x}" y="{plot.bottom + 13}" text-anchor="middle">{escape(text)}</text>')
    legend = f'x="{right - 6}" text-anchor="end"' if plot.is_high_at_the_left else f'x="{plot.left + 6}"'
    for index, line in enumerate(plot.lines):
        parts.append(f'<path d="{line.path}" fill="none" stroke="{line.colour}" stroke-width="1.6"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="2.2" fill="{line.colour}"/>' for x, y in line.points[:60]]
        parts.append(f'<text {legend} y="{TOP + 10 + 12 * index}" fill="{line.colour}">{escape(line.name)}</text>')
    parts.append(f'<text x="{middle}" y="{plot.height - 6}" text-anchor="middle">{escape(plot.x_label)}</text>')
    parts.append(
        f'<text transform="translate(11 {plot.bottom / 2}) rotate(-90)" text-anchor="middle">{escape(plot.y_label)}</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = _ends(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2g}"
