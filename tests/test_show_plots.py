"""Plots, curves and shades of small data, place by place: the expected numbers follow from the axes in the test."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from firsthand.model import Usage
from firsthand.runs.track import Curve
from firsthand.show.board import leaderboard
from firsthand.show.curves import CurvePicture, curve_picture, number, sparkline
from firsthand.show.feature_page import measure_rows, token_text
from firsthand.show.heatmap import _drawn, heat, score_cells, shade, shown
from firsthand.show.line_plot import COLOURS, LinePlot, PlotLine, line_plot, plot_svg
from firsthand.show.scatter import Rectangle, Tick, _linear_axis, _log_axis, _place, _score_axis, scatter, short
from firsthand.stats.breakdown import Cell, Grid
from firsthand.stats.intervals import Interval
from firsthand.trace import Call, Score, Trace

# The plot of lines is 420 wide and 230 high; its axes go from x 58 to 408 and from y 190 up to 10.


def test_points_ticks_and_colours_of_a_plot_of_lines() -> None:
    plot = line_plot({"a": [(0, 1), (10, 4), (None, 2), (5, None), (3, math.nan)], "none": [(1, math.inf)],
                      "b": [(5, 2)]}, ("step", "loss"))  # fmt: skip
    assert plot == LinePlot(
        (
            PlotLine("a", "M58.0 145.0L408.0 10.0", ((58.0, 145.0), (408.0, 10.0)), COLOURS[0]),
            PlotLine("b", "M233.0 100.0", ((233.0, 100.0),), COLOURS[1]),
        ),
        ((58.0, "0"), (233.0, "5"), (408.0, "10")),
        ((190.0, "0"), (100.0, "2"), (10.0, "4")),
        "step",
        "loss",
    )


def test_an_axis_of_scores_below_nought_and_one_of_a_single_value() -> None:
    low = line_plot({"a": [(1, -2), (2, 2)]})
    assert low is not None and low.y_ticks == ((190.0, "-2"), (100.0, "0"), (10.0, "2"))
    flat = line_plot({"a": [(3, 0)]})
    assert flat is not None and flat.lines[0].points == ((233.0, 100.0),)
    assert flat.y_ticks == ((190.0, "-0.5"), (100.0, "0"), (10.0, "0.5")) and flat.x_ticks == ((233.0, "3"),)


def test_the_x_axis_is_logarithmic_from_a_factor_of_twenty_on() -> None:
    def middle(points: list[float]) -> tuple[float, list[str]]:
        plot = line_plot({"a": [(x, 1) for x in points]})
        assert plot is not None
        return plot.lines[0].points[1][0], [text for _, text in plot.x_ticks]

    assert middle([1, 4.47213595499958, 20]) == (233.0, ["1", "4.5", "20"])
    assert middle([1, 10, 19])[0] == 233.0 and middle([0, 10, 20])[0] == 233.0
    assert middle([1, 2, 3, 4, 5, 6])[1] == ["1", "2", "3", "4", "5", "6"]
    assert middle([1, 2, 3, 4, 5, 6, 7])[1] == ["1", "4", "7"]
    assert middle([1, 2, 3, 4, 5, 6, 10000])[1] == ["1", "100", "10,000"]
    assert middle([0.125, 1.5, 123.4])[1] == ["0.12", "1.5", "123"]


def test_the_svg_has_every_line_point_tick_and_label_in_its_place() -> None:
    plot = line_plot({"a<b": [(0, 4), (10, 1)], "c": [(5, 2)]}, ("x & y", "up"))
    assert plot is not None and plot.is_high_at_the_left
    assert plot_svg(plot).split("\n") == [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 420 230" font-family="sans-serif" font-size="10" '
        'width="420" height="230">',
        '<rect width="420" height="230" fill="#ffffff"/>',
        '<path d="M58 190.0H408" stroke="#d6d3d1"/>',
        '<text x="54" y="193.0" text-anchor="end">0</text>',
        '<path d="M58 100.0H408" stroke="#d6d3d1"/>',
        '<text x="54" y="103.0" text-anchor="end">2</text>',
        '<path d="M58 10.0H408" stroke="#d6d3d1"/>',
        '<text x="54" y="13.0" text-anchor="end">4</text>',
        '<text x="58.0" y="203" text-anchor="middle">0</text>',
        '<text x="233.0" y="203" text-anchor="middle">5</text>',
        '<text x="408.0" y="203" text-anchor="middle">10</text>',
        '<path d="M58.0 10.0L408.0 145.0" fill="none" stroke="#0b6bcb" stroke-width="1.6"/>',
        '<circle cx="58.0" cy="10.0" r="2.2" fill="#0b6bcb"/>',
        '<circle cx="408.0" cy="145.0" r="2.2" fill="#0b6bcb"/>',
        '<text x="402" text-anchor="end" y="20" fill="#0b6bcb">a&lt;b</text>',
        '<path d="M233.0 100.0" fill="none" stroke="#c2410c" stroke-width="1.6"/>',
        '<circle cx="233.0" cy="100.0" r="2.2" fill="#c2410c"/>',
        '<text x="402" text-anchor="end" y="32" fill="#c2410c">c</text>',
        '<text x="233.0" y="224" text-anchor="middle">x &amp; y</text>',
        '<text transform="translate(11 95.0) rotate(-90)" text-anchor="middle">up</text>',
        "</svg>",
        "",
    ]
    low = line_plot({"a": [(0, 0), (10, 4)]})
    assert low is not None and '<text x="64" y="20"' in plot_svg(low)
    many = line_plot({"a": [(x, 0) for x in range(70)]})
    drawn = plot_svg(many) if many is not None else ""
    assert drawn.count("<circle") == 60 and '<circle cx="58.0"' in drawn and '<circle cx="408.0"' not in drawn, (
        "the first"
    )
    shared = line_plot({name: [(x, -123.4) for x in (1, 2, 3, 4)] for name in "ab"})
    assert shared is not None and [text for _, text in shared.x_ticks] == ["1", "2", "3", "4"]
    assert [text for _, text in shared.y_ticks] == ["-124", "-123", "-123"]
    seven = line_plot({str(n): [(n, n)] for n in range(7)})
    assert seven is not None and seven.lines[6].colour == COLOURS[0]
    # eight names reach down to y = 120; (0, 3) of an axis up to 4 lies at y = 190 - 180 * 3 / 4 = 55
    below = [(5.0, 4.0), (10.0, 0.0), (0.0, 3.0)]
    several = [line_plot({str(n): below for n in range(count)}) for count in (1, 8)]
    assert [plot.is_high_at_the_left for plot in several if plot is not None] == [False, True]


# A picture of a curve is 340 wide and 150 high; its axes go from x 52 to 332 and from y 128 up to 8.


def curve(*values: float, steps: tuple[int, ...] = ()) -> Curve:
    return Curve("loss", steps or tuple(range(len(values))), values, (0.0,) * len(values))


def test_a_curve_is_lines_between_its_gaps() -> None:
    picture = curve_picture(curve(1.0, 3.0, math.nan, math.inf, 2.0, steps=(0, 10, 20, 1000, 2000)))
    assert picture.lines == ("M52.0 128.0L53.4 8.0", "M332.0 68.0L332.0 68.0")
    assert (picture.name, picture.low, picture.high, picture.first, picture.last, picture.num_gaps) == (
        "loss", "1", "3", "0", "2,000", 2,
    )  # fmt: skip
    one = curve_picture(curve(0.123456, steps=(7,)))
    assert one.lines == ("M192.0 68.0L192.0 68.0",) and one.low == one.high == "0.1235" and one.first == one.last == "7"
    none = curve_picture(curve(math.nan))
    assert (none.lines, none.low, none.high, none.num_gaps) == ((), "0", "0", 1)
    assert number(123456.0) == "1.235e+05" and number(-math.inf) == "-inf"
    long = curve_picture(curve(*map(float, range(1201))))
    assert long.lines[0].count("L") == 400 and long.high == "1200" and long.first == "2"
    # means of three values each, the last one of two; one of them has a gap. The bounds are those of all values.
    means = [(3 * n + 2, 3.0 * n + 1) for n in range(400)] + [(1201, 1200.5)]
    points = [f"{52 + (step - 2) / 1199 * 280:.1f} {128 - mean / 1201 * 120:.1f}" for step, mean in means]
    assert curve_picture(curve(*map(float, range(600)), math.nan, *map(float, range(601, 1202)))) == CurvePicture(
        "loss", ("M" + "L".join(points[:200]), "M" + "L".join(points[201:])), "0", "1201", "2", "1,201", 1
    )


def test_a_sparkline_has_a_bar_for_each_value_or_each_mean_of_neighbours() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 3, 4]) == "█▁▅" and sparkline([math.nan, 2.0, -math.inf]) == "·▄·"
    assert sparkline([math.nan, math.nan]) == "··"
    assert sparkline([0, 2, 6, 8, 14], width=3) == "▁▄█", "means of two: 1, 7 and 14"
    assert len(sparkline([float(n) for n in range(25)])) == 13 and len(sparkline([float(n) for n in range(24)])) == 24


# The scatter plot is 720 wide and 400 high; its axes go from x 56 to 700 and from y 348 up to 16.


def board_of(*agents: tuple[str, int, float]) -> Any:
    """A board of these agents: name, tokens, share of eight tasks that are right."""
    made = [
        Trace(f"{name}-{n}", "sums", f"t{n}", {"name": name}, 0, 0, "", 1.0, scores=(Score("exact", float(n < share * 8)),),
              calls=(Call("0", "generate", None, 0.0, 1.0, "", Usage(tokens)),))
        for name, tokens, share in agents
        for n in range(8)
    ]  # fmt: skip
    return leaderboard(made)[0]


def test_agents_lie_where_tokens_and_score_put_them() -> None:
    picture = scatter(board_of(("direct", 100, 0.25), ("long " * 8, 400, 1.0)))
    assert picture is not None and not picture.log
    by_name = {point.name: point for point in picture.points}
    assert list(by_name) == ["long long long…ng long long ", "direct"]
    first, best = by_name["direct"], by_name["long long long…ng long long "]
    # the axis goes to 500 tokens; scores from 0 to 1
    assert (first.x, first.y) == (pytest.approx(56 + 644 / 5), pytest.approx(348 - 332 / 4))
    assert (best.x, best.y, best.top) == (pytest.approx(56 + 644 * 4 / 5), 16.0, 16.0)
    assert first.kind == "first" and best.kind == "better" and picture.baseline_y == first.y
    score = board_of(("direct", 100, 0.25)).rows[0].score
    assert first.top == pytest.approx(348 - 332 * score.high) and first.bottom == pytest.approx(348 - 332 * score.low)
    assert first.summary == f"direct: 0.25 ({score.low:.2f} to {score.high:.2f}), 100 tokens per task"
    assert picture.frontier == ((first.x, first.y), (best.x, first.y), (best.x, best.y), (700, best.y))
    assert picture.x_ticks[1] == Tick(pytest.approx(56 + 644 / 5), "100") and len(picture.x_ticks) == 6
    assert [tick.text for tick in picture.y_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    alone = scatter(board_of(("direct", 100, 0.25)))
    assert alone is not None and alone.frontier == ()


def test_tokens_from_more_than_a_tenfold_on_are_a_logarithmic_axis() -> None:
    picture = scatter(board_of(("a", 150, 0.5), ("b", 30000, 0.5)))
    assert picture is not None and picture.log
    assert [tick.text for tick in picture.x_ticks] == ["100", "200", "500", "1k", "2k", "5k", "10k", "20k", "50k"]
    share = math.log(50000 / 100) / math.log(75000 / 100)
    assert picture.x_ticks[0].at == 56.0 and picture.x_ticks[-1].at == pytest.approx(56 + 644 * share)
    assert [tick.text for tick in scatter(board_of(("a", 1, 0.5), ("b", 700, 0.5))).x_ticks] == ["1", "10", "100", "1k"]
    assert _log_axis([1.0, 401.0])[2] == [1.0, 10.0, 100.0, 1000.0] and len(_log_axis([1.0, 199.0])[2]) == 8


def test_scores_that_are_no_shares_have_an_axis_that_holds_them() -> None:
    def axis(*scores: tuple[float, float, float]) -> tuple[float, float]:
        rows: Any = [SimpleNamespace(score=Interval(value, low, high, 8)) for value, low, high in scores]
        low, high, _ = _score_axis(rows)
        return round(low, 9), round(high, 9)

    assert axis((0.25, 0.0, 0.5)) == (0, 0.6) and axis((0.25, 0.1, 0.31), (0.4, 0.35, 0.55)) == (0, 0.6)
    assert axis((0.5, 0.2, 0.96)) == (0, 1) == axis((1.0, 0.5, 1.0))
    assert axis((7.0, 2.0, 12.0)) == (1.2, 12.8) and axis((0.5, -0.5, 0.75)) == (-0.6, 0.85)
    assert (
        axis((5.0, 5.0, 5.0)) == (4, 6)
        and axis((50.0, 50.0, 50.0)) == (45, 55)
        and axis((-50.0, -50.0, -50.0)) == (-55, -45)
    )
    assert axis((0.5, math.nan, math.inf)) == (0, 0.6) and axis((3.0, -math.inf, 13.0)) == (2.2, 13.8)


def test_an_agent_without_a_score_is_not_drawn_and_bounds_end_at_the_axis() -> None:
    board = board_of(("a", 0, 0.5), ("b", 100, 0.25), ("c", 100, 0.75))
    scores = {
        "a": Interval(7.0, 2.0, 12.0, 8),
        "b": Interval(math.nan, 0.0, 1.0, 0),
        "c": Interval(10.0, 8.0, math.inf, 8),
    }
    picture_rows = tuple(replace(row, score=scores[row.agent]) for row in board.rows)
    picture = scatter(replace(board, rows=picture_rows))
    assert picture is not None and not picture.log, "no logarithm of 0 tokens"
    points = {point.name: point for point in picture.points}
    assert sorted(points) == ["a", "c"] and points["a"].x == 56
    # the axis goes from 1.2 to 12.8
    assert points["a"].y == pytest.approx(348 - 332 / 2) and points["a"].top == pytest.approx(348 - 332 * 10.8 / 11.6)
    assert points["a"].bottom == pytest.approx(348 - 332 * 0.8 / 11.6) and points["c"].top == 16
    unscored = scatter(replace(board, baseline="b", rows=picture_rows))
    assert picture.baseline_y == points["a"].y and unscored is not None and unscored.baseline_y is None
    nothing = replace(board, rows=tuple(replace(row, score=scores["b"]) for row in board.rows))
    assert scatter(nothing) is None
    free = scatter(board_of(("a", 0, 0.5)))
    assert free is not None and free.points[0].x == 56 == free.x_ticks[0].at and free.x_ticks[5].at == 700
    assert free.x_ticks[4].text == "1", "the axis goes to 1.25 tokens where none were used"


def test_a_label_has_a_line_to_its_mark_only_where_it_is_far_off() -> None:
    picture = scatter(board_of(*((f"agent {n}", 100, 0.5) for n in range(9))))
    assert picture is not None
    off = [round(point.label_y - (point.y + 3.5), 6) for point in picture.points]
    assert off[:2] == [0, 0] and max(map(abs, off)) > 15
    assert [point.leader for point in picture.points] == [abs(each) > 15 for each in off]


def test_round_marks_are_about_five() -> None:
    assert _linear_axis(0.0, 100.0) == (0.0, 100.0, [0, 20, 40, 60, 80, 100])
    assert _linear_axis(0.0, 1.0000001)[2] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1]), "a little more is no more"
    assert _linear_axis(0.0, 1.01)[2] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert _linear_axis(0.0, 12.5)[2] == [0, 2.5, 5, 7.5, 10, 12.5]
    assert _linear_axis(-3.0, 4.0)[2] == [-2, 0, 2, 4] and _linear_axis(0.0, 45.0)[2] == [0, 10, 20, 30, 40]


def test_long_names_lose_their_middle() -> None:
    assert short("a" * 28) == "a" * 28
    assert short("a" * 15 + "b" * 14) == "a" * 14 + "…" + "b" * 13 and len(short("a" * 99)) == 28


def test_a_label_is_right_of_its_mark_or_left_or_further_up_or_down() -> None:
    def boxes(*spots: tuple[str, float, float]) -> list[tuple[float, float]]:
        return [(box.x, box.y) for box in _place([(name, x, y, y, y) for name, x, y in spots])]

    assert boxes(("name", 100, 100)) == [(112, 92.5)]
    width = 8.8 * 4 + 4
    assert boxes(("name", 700, 100)) == [(700 - 12 - width, 92.5)], "no room at the right"
    assert boxes(("name", 300, 100), ("name", 330, 100))[1] == (342, 92.5), "the first label lies left"
    assert boxes(("name", 300, 100), ("name", 330, 100))[0] == (300 - 12 - width, 92.5)
    assert boxes(("name", 300, 100), ("name", 300, 100)) == [(312, 92.5), (288 - width, 92.5)]
    assert boxes(*[("name", 300, 100)] * 3)[2] == (312, 107.5)
    assert boxes(("name", 100, 345)) == [(112, 322.5)], "a line further up, off the axis"
    assert boxes(("name", 100, 340)) == [(112, 332.5)] and boxes(("name", 100, 16)) == [(112, 23.5)]
    assert boxes(("n" * 90, 100, 100)) == [(720 - (8.8 * 90 + 4) - 2, 92.5)], "too wide for any place"
    assert (
        Rectangle(0, 0, 4, 3).overlap(Rectangle(2, 1, 10, 10)) == 4
        and Rectangle(0, 0, 1, 1).overlap(Rectangle(1, 0, 1, 1)) == 0
    )


def cell(value: float, low: float, high: float, n: int, errors: int = 0) -> Cell:
    return Cell("deep", "ada", (), Interval(value, low, high, n, "t"), n, errors)


def test_the_cells_of_a_heatmap_and_their_colours() -> None:
    from rich.console import Console

    assert score_cells(cell(0.5, 0.075, 1.0, 12, 2)) == ("0.50", ".07-1 (12, 2 err)")
    assert score_cells(cell(1.25, -0.5, 10.5, 3)) == ("1.25", "-.50-10.50 (3)")
    assert score_cells(cell(0.5, -math.inf, math.inf, 1)) == ("0.50", "unknown (1)") and score_cells(None) == ("-", "")
    assert [shown(value) for value in ("", "a", 3, 2.5, 1e6, 0)] == ["-", "a", "3", "2.5", "1e+06", "0"]
    grid = Grid("deep", "ada", ("depth", "length"), (0, 50), (512, ""), {(0, 512): cell(0.5, 0.25, 0.75, 4),
                (50, ""): cell(1.0, 1.0, 1.0, 2), (0, ""): cell(2.0, 1.0, 3.0, 2)})  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=True, color_system="truecolor").print(heat(grid))
    text = out.getvalue()
    # half way is step round(4.5) = 4 of 9, so 245 - 245 * 4 / 9 = 136, 246 - 158 * 4 / 9 = 176, 240 - 175 * 4 / 9 = 162
    assert (
        "48;2;136;176;162" in text and "38;2;28;27;25" in text and "48;2;0;88;65" in text and "38;2;255;255;255" in text
    )
    plain = [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", text).split("\n")]
    assert [line.split() for line in plain if line.strip(" ─")] == [
        ["ada", "on", "deep:", "depth", "x", "length"],
        ["depth", "\\", "length", "512", "-"],
        ["0", "0.50", "2.00"],
        [".25-.75", "(4)", "1-3.00", "(2)"],
        ["50", "-", "1.00"],
        ["1-1", "(2)"],
    ]
    single = Grid("deep", "ada", ("depth",), (0,), ("",), {(0, ""): cell(0.5, 0.25, 0.75, 4)})
    out = io.StringIO()
    Console(file=out, width=80).print(heat(single))
    assert out.getvalue().split("\n")[2].split() == ["depth", "score"]


def test_names_and_values_of_a_heatmap_are_printed_inert_and_cut() -> None:
    by, rows, columns = ("a\x1b", "b\u202e"), ("\x1b[2J", "x" * 1001, ""), ("\x07", "y" * 1001)
    title, table = heat(Grid("de\x1b", "ad\x1b", by, rows, columns, {})).renderables
    assert isinstance(title, Text) and isinstance(table, Table)
    assert (title.plain, str(title.style)) == ("ad\\x1b on de\\x1b: a\\x1b x b\\u202e", "bold")
    cut = "… (1 more characters)"
    assert [str(each.header) for each in table.columns] == ["a\\x1b \\ b\\u202e", "\\x07", "y" * 1000 + cut]
    assert [[str(cell) for cell in each.cells] for each in table.columns] == [
        ["\\x1b[2J", "x" * 1000 + cut, "-"], ["-\n"] * 3, ["-\n"] * 3,
    ]  # fmt: skip


def test_a_score_of_0_has_a_ground_and_the_ink_turns_white_above_step_6() -> None:
    dark, white = "#1c1b19", "#ffffff"
    for value, (step, style) in {
        # step of 9, each part from light (245, 246, 240) to dark (0, 88, 65): step 1 is 245 - 27.2, 246 - 17.6, 240 - 19.4
        0.0: (0, f"{dark} on #f5f6f0"), 0.05: (0, f"{dark} on #f5f6f0"), 0.06: (1, f"{dark} on #dae4dd"),
        0.66: (6, f"{dark} on #528d7b"), 0.75: (7, f"{white} on #367b68"), 1.0: (9, f"{white} on #005841"),
    }.items():  # fmt: skip
        drawn, one = _drawn(cell(value, 0.25, 0.5, 4, 1)), cell(value, 0, 1, 4)
        assert (drawn.plain, str(drawn.style), shade(one)) == (f" {value:.2f} \n .25-.50 (4, 1 err) ", style, step)
    for value, (low, high), plain in (
        (1.01, (1.0, 2.0), "1.01\n1-2.00 (3)"), (-0.01, (-1.0, 0.0), "-0.01\n-1.00-0 (3)"),
        (math.nan, (math.nan, 1.0), "nan\nunknown (3)"), (2.0, (1.0, math.inf), "2.00\nunknown (3)"),
        (-2.0, (-math.inf, 0.0), "-2.00\nunknown (3)"), (2.0, (1.0, math.nan), "2.00\nunknown (3)"),
    ):  # fmt: skip
        drawn = _drawn(cell(value, low, high, 3))
        assert (drawn.plain, str(drawn.style), shade(cell(value, low, high, 3))) == (plain, "", None)
    assert (_drawn(None).plain, str(_drawn(None).style), shade(None)) == ("-\n", "", None)


def test_measures_and_tokens_of_a_feature_page() -> None:
    assert measure_rows({"measures": {"l0_norm": 12.34567, "count": 3, "name": "x", "share": 0.5}}) == [
        ("l0 norm", "12.346"),
        ("share", "0.500"),
    ]
    assert measure_rows({}) == measure_rows({"measures": [1.0]}) == []
    assert token_text("a\n\r\tb") == "a↵␍⇥b" and token_text("") == "∅" and token_text(" ") == " "
