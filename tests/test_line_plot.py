"""Line plots as SVG: the names of lines stand where the lines do not."""

import math
import re

import pytest

from firsthand.show.line_plot import LinePlot, PlotLine, line_plot, plot_svg


@pytest.mark.parametrize(
    ("values", "anchor"),
    [([9, 2, 1, 1], "end"), ([1, 1, 2, 9], None), ([9, 1, 1, 9], None)],
    ids=["falls", "rises", "is high at both ends"],
)
def test_names_stand_at_the_right_where_lines_begin_high(values: list[float], anchor: str | None) -> None:
    plot = line_plot({"loss": list(enumerate(values))}, ("step", "nats"))
    assert plot is not None
    (name,) = [line for line in plot_svg(plot).splitlines() if ">loss<" in line]
    assert (re.search(r'text-anchor="(\w+)"', name) or [None, None])[1] == anchor
    assert f'x="{plot.width - 18 if anchor else plot.left + 6}"' in name


def test_a_plot_without_a_finite_point_is_none() -> None:
    assert line_plot({"loss": [(0, None), (1, float("nan"))]}) is None


def test_names_stand_where_fewer_points_are_high() -> None:
    def plot(*xs: float, y: float = 35.9, width: int = 420) -> LinePlot:
        line = PlotLine("a", "M", tuple((x, y) for x in xs), "#000")
        return LinePlot((line,), (), (), "", "", width)

    third = (420 - 58 - 12) / 3
    left, right = 58 + third, 408 - third
    assert plot(left - 0.1).is_high_at_the_left and not plot(left).is_high_at_the_left
    assert not plot(left - 1, right + 1).is_high_at_the_left and plot(60, 61, right + 1).is_high_at_the_left
    assert plot(60, right).is_high_at_the_left and not plot(60, right + 0.1).is_high_at_the_left
    assert plot(60, 61, 62, right).is_high_at_the_left and not plot(60, y=36.0).is_high_at_the_left
    text = plot_svg(plot(60, width=300))
    assert 'viewBox="0 0 300 230"' in text and '<text x="282" text-anchor="end" y="20"' in text
    assert '<text x="173.0" y="224"' in text and 'transform="translate(11 95.0)' in text
    assert line_plot({"a": [(math.nan, 1.0), (None, 2.0)]}) is None
