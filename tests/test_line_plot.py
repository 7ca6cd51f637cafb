"""Line plots as SVG: the names of lines stand where the lines do not."""

import re

import pytest

from firsthand.show.line_plot import line_plot, plot_svg


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
