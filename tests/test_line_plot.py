"""Line plots as SVG: the names of lines stand where the lines do not, and gaps of curves are counted."""

import math
import re
from xml.etree import ElementTree

import pytest

from firsthand.runs.track import Curve
from firsthand.show.curves import MAX_POINTS, curve_picture
from firsthand.show.line_plot import COLOURS, LinePlot, PlotLine, line_plot, plot_svg


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


def test_a_plot_is_xml_whatever_its_texts_and_its_names_stand_below_each_other() -> None:
    odd = '<a> & "b" ]]>'
    lines = {f"{n} {odd}": [(0, n), (1, 9)] for n in range(4)}
    plot = line_plot(lines, (f"x {odd}", f"y {odd}"))
    assert plot is not None
    root = ElementTree.fromstring(plot_svg(plot))
    texts = root.findall("{http://www.w3.org/2000/svg}text")
    assert [each.text for each in texts[-6:]] == [*lines, f"x {odd}", f"y {odd}"]
    assert [(each.get("x"), each.get("y"), each.get("fill")) for each in texts[-6:-2]] == [
        ("64", str(20 + 12 * n), COLOURS[n]) for n in range(4)
    ]
    assert [(each.get("x"), each.get("y"), each.get("transform")) for each in texts[-2:]] == [
        ("233.0", "224", None), (None, None, "translate(11 95.0) rotate(-90)"),
    ]  # fmt: skip
    ticks = LinePlot((), ((58.0, odd),), ((190.0, odd),), "", "")
    assert [each.text for each in ElementTree.fromstring(plot_svg(ticks)) if each.text] == [odd, odd]


def test_values_that_are_not_finite_are_counted_before_a_long_curve_is_thinned() -> None:
    for count in (1, 2, MAX_POINTS, MAX_POINTS + 1, 2 * MAX_POINTS, 2 * MAX_POINTS + 1):
        whole = [float(n) for n in range(count)]
        for gaps in ((), (0,), (0, 1), (0, 1, 2, 3), (count - 1,), tuple(range(count))):
            values = list(whole)
            for at, place in enumerate(each for each in gaps if each < count):
                values[place] = (math.nan, math.inf, -math.inf)[at % 3]
            picture = curve_picture(Curve("c", tuple(range(count)), tuple(values), (0.0,) * count))
            assert picture.num_gaps == sum(each < count for each in gaps)
            assert bool(picture.lines) == (picture.num_gaps < count)
