"""The picture of a board that is written down by hand: where its marks, labels, ticks and frontier are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from boards_by_hand import BASE, BETTER, WORSE, board
from firsthand.show.scatter import (
    Picture,
    Point,
    Rectangle,
    Tick,
    _kind,
    _linear_axis,
    _log_axis,
    _place,
    _score_axis,
    _stairs,
    scatter,
    short,
)


def test_a_picture_has_each_agent_where_its_tokens_and_score_are() -> None:
    picture = scatter(board(BETTER, BASE, WORSE))
    assert isinstance(picture, Picture) and picture.log, "3,400 tokens are more than ten times 80"
    low, high = 80 / 1.5, 3400 * 2.5

    def x(tokens: float) -> float:
        return 56 + math.log(tokens / low) / math.log(high / low) * 644

    def y(score: float) -> float:
        return 348 - score * 332

    better, base, worse = picture.points
    assert [replace(each, label_x=0, label_y=0, leader=False) for each in picture.points] == [
        Point("better:a,b(c)-of-a-long-name", pytest.approx(x(3400)), y(0.75), y(1.0), y(0.625), "better", 0, 0, False,
              "better:a,b(c)-of-a-long-name: 0.75 (0.62 to 1.00), 3.4k tokens per task"),
        Point("base", pytest.approx(x(120)), y(0.25), y(0.5), y(0.125), "first", 0, 0, False,
              "base: 0.25 (0.12 to 0.50), 120 tokens per task"),
        Point("worse", pytest.approx(x(80)), y(0.125), y(0.375), y(0.0), "worse", 0, 0, False,
              "worse: 0.12 (0.00 to 0.38), 80 tokens per task"),
    ]  # fmt: skip
    assert (base.label_x, base.label_y, base.leader) == (pytest.approx(base.x + 12), base.y - 7.5 + 11, False)
    assert picture.baseline_y == y(0.25) and better.label_x < better.x, "there is no room at the right"
    assert [each.text for each in picture.x_ticks] == ["100", "200", "500", "1k", "2k", "5k"]
    assert picture.x_ticks[1] == Tick(pytest.approx(x(200)), "200")
    assert picture.y_ticks == tuple(Tick(pytest.approx(y(n / 5)), f"{n / 5:g}") for n in range(6))  # type: ignore[arg-type]
    spots = [(worse.x, worse.y), (base.x, base.y), (better.x, better.y)]
    assert picture.frontier == _stairs(spots) == (
        spots[0], (base.x, worse.y), spots[1], (better.x, base.y), spots[2], (700, better.y),
    )  # fmt: skip
    assert _stairs(spots[:1]) == () == _stairs([])
    tenfold = scatter(board(BASE, replace(BETTER, cost=replace(BASE.cost, prompt_tokens=1180.0))))
    assert tenfold is not None and not tenfold.log, "exactly ten times as many"
    assert tenfold.points[1].x == pytest.approx(56 + 644 / 1.25) and tenfold.x_ticks[-1].text == "1.5k"
    twins = scatter(board(*(replace(BASE, agent=f"twin {n}") for n in range(7))))
    assert twins is not None  # at either side of the mark, then a line below, a line above, and two lines below
    placed = [(each.label_y - each.y, each.leader) for each in twins.points]
    assert placed == [(3.5, False)] * 2 + [(18.5, False)] * 2 + [(-11.5, False)] * 2 + [(33.5, True)]
    other = scatter(board(BASE, WORSE, baseline="gone"))
    assert other is not None and other.baseline_y is None
    unsure = replace(BETTER, versus=replace(BETTER.versus, verdict="inconclusive"))  # type: ignore[type-var]
    assert [_kind(each) for each in (BASE, BETTER, WORSE, unsure)] == ["first", "better", "worse", "same"]
    assert _log_axis([3.0, 40.0]) == (2.0, 100.0, [2.0, 5.0, 10.0, 20.0, 50.0])
    assert _log_axis([1.5, 400.0]) == (1.0, 1000.0, [1.0, 10.0, 100.0]), "a range of 1,000 has marks of ten"


def test_agents_that_cost_nothing_or_have_an_unbounded_interval_lie_within_the_picture() -> None:
    free = replace(BASE.cost, prompt_tokens=0.0, completion_tokens=0.0)
    wide = replace(BASE.score, value=50.0, low=-math.inf, high=math.inf)
    row = replace(BASE, cost=free, score=wide)
    assert _score_axis([row])[:2] == (45.0, 55.0), "a tenth of the only score at each side"
    picture = scatter(board(row))
    assert picture is not None and not picture.log
    (point,) = picture.points
    assert (point.x, point.y, point.top, point.bottom) == (56, pytest.approx(182), 16, 348)
    assert picture.x_ticks[0] == Tick(56, "0")


@pytest.mark.parametrize(
    ("top", "bottom", "is_right"),
    [
        # the label is from 192.5 to 207.5 high
        (150.0, 192.5, True),
        (150.0, 193.0, False),
        (150.0, 300.0, False),
        (207.0, 300.0, False),
        (207.5, 300.0, True),
        (200.0, 200.0, False),  # a bar without height is one pixel high
        (191.75, 191.75, False),
        (191.5, 191.5, True),
    ],
)
def test_a_label_is_beside_the_whole_error_bar_of_another_agent(top: float, bottom: float, is_right: bool) -> None:
    spots = [("ab", 200.0, 200.0, 190.0, 210.0), ("c", 220.0, 320.0, top, bottom)]
    width = 8.8 * 2 + 4
    assert _place(spots)[0] == Rectangle(212.0 if is_right else 200 - 12 - width, 192.5, width, 15)


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        # 0.3 / 0.1 is just below 3 and 0.7 / 0.1 just below 7, 1.1 / 0.1 just above 11
        (0.0, 0.3, [0.0, 0.1, 0.2, 0.3]),
        (0.0, 0.6, [0.0, 0.2, 0.4, 0.6]),
        (1.1, 1.6, [1.1, 1.2, 1.3, 1.4, 1.5, 1.6]),
        (0.3, 0.7, [0.3, 0.4, 0.5, 0.6, 0.7]),
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 1.25, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]),
        (0.0, 12.5, [0.0, 2.5, 5.0, 7.5, 10.0, 12.5]),
        (0.0, 25.0, [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]),
        (0.0, 50.0, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]),
        (0.0, 51.0, [0.0, 20.0, 40.0]),
        (-0.51, 0.49, [-0.4, -0.2, 0.0, 0.2, 0.4]),
        (0.101, 0.299, [0.15, 0.2, 0.25]),
    ],
)
def test_round_marks_reach_from_the_first_to_the_last_that_the_axis_holds(
    low: float, high: float, marks: list[float]
) -> None:
    assert _linear_axis(low, high) == (low, high, pytest.approx(marks, abs=1e-12))


def test_the_middle_of_a_long_name_is_left_out() -> None:
    name = "".join(chr(97 + at % 26) for at in range(60))
    assert [short(name[:count]) for count in (0, 1, 27, 28)] == [name[:count] for count in (0, 1, 27, 28)]
    assert short(name[:29]) == f"{name[:14]}…{name[16:29]}" and len(short(name[:29])) == 28
    assert short(name) == f"{name[:14]}…{name[-13:]}" and short(name, 4) == f"{name[:2]}…{name[-1]}"
