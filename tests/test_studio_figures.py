"""Figures before their page is drawn: copies, settings by their part in a result, places and paces."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.studio.attempt_query import shown_filter
from firsthand.studio.comparison_slices import scatter_points
from firsthand.studio.found_page import FoundPage
from firsthand.studio.paced_pair import PacedPair
from firsthand.studio.rendering import address, json_answer, part
from firsthand.studio.studio_pages import StudioPage
from firsthand.studio.sweep_facts import axes_of, importances, ranked
from firsthand.studio.trace_copies import as_test
from firsthand.studio.views.comparison_views import GridRow
from firsthand.studio.views.curve_views import curve_body, flat, points_of
from firsthand.trace import Score, Trace


def trace(**more: Any) -> Trace:
    return Trace("t1", "quiz", "a task", {"name": "agent", **more.pop("agent", {})}, 0, 0, "then", 4.0, **more)


def test_an_attempt_is_copied_as_a_test_that_asks_it_again() -> None:
    made = as_test('r"1', trace(scores=(Score("exact", 0.75),)))
    assert (
        "RUN, ATTEMPT = 'r\"1', 'quiz/a task/agent/0'\nBAR = 0.75\n" in made
        and "def test_a_task_is_solved_as_well_as_before():" in made
    )
    assert made.startswith('"""Made from attempt t1 of run r1:') and "BAR = 0.0\n" in as_test("r", trace())
    compile(made, "made", "exec")
    odd = Trace("t", "b", "é-/_", {"name": "a"}, 2, 0, "then", 1.0)
    assert "def test_task_is_solved" in as_test("r", odd) and "'b/\\xe9-/_/a/2'" in as_test("r", odd)


def test_settings_that_go_with_a_result_are_ranked() -> None:
    configs: list[Any] = [
        {"lr": 0.001, "opt": "adam", "same": 1, "list": [1], "flag": True},
        {"lr": 0.01, "opt": "sgd", "same": 1, "list": [2], "flag": False},
        {"lr": 0.1, "opt": "sgd", "same": 1, "flag": True}, {"lr": None, "opt": "adam", "same": 1, "flag": True},
    ]  # fmt: skip
    results = [{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}, {"loss": 4.0, "acc": math.inf}]
    axes = axes_of(configs, results)
    assert axes == [
        {"name": "lr", "is_setting": True, "kind": "number", "log": True, "values": [0.001, 0.01, 0.1, None]},
        {"name": "opt", "is_setting": True, "kind": "word", "log": False, "values": ["adam", "sgd", "sgd", "adam"]},
        {"name": "flag", "is_setting": True, "kind": "word", "log": False, "values": ["True", "False", "True", "True"]},
        {"name": "loss", "is_setting": False, "kind": "number", "log": False, "values": [3.0, 2.0, 1.0, 4.0]},
        {"name": "acc", "is_setting": False, "kind": "number", "log": False, "values": [None, None, None, None]},
    ]
    found = importances(axes, "loss")
    assert [(each.setting, each.kind, each.direction, each.runs) for each in found] == [
        ("lr", "rank correlation", -1.0, 3), ("opt", "correlation ratio", 0.0, 4), ("flag", "correlation ratio", 0.0, 4),
    ]  # fmt: skip
    assert found[0].strength == pytest.approx(1.0) and found[1].strength == pytest.approx(math.sqrt(4 / 5))
    assert found[2].strength == pytest.approx(math.sqrt((0.5**2 + 3 * (1 / 6) ** 2) / 5))
    assert importances(axes, "acc") == importances(axes, "lr") == [] and ranked([3, 1, 3, 2]) == [3.5, 1, 3.5, 2]
    assert (
        axes_of([{"a": 1.0}, {"a": 99.0}], [{}, {}])[0]["log"] is False
        and axes_of([{"a": 1.0}, {"a": 100.0}], [{}])[0]["log"]
    )
    many = axes_of([{f"s{n}": 1 for n in range(20)}, {f"s{n}": 2 for n in range(20)}], [{"r": 1.0, "q": 2.0}, {}])
    assert [axis["name"] for axis in many][15:] == ["s15", "r"]
    few = axes_of([{"s": 1}, {"s": 2}], [{f"r{n}": 1.0 for n in range(20)}])
    assert len(few) == 16


def test_agents_are_placed_by_cost_on_a_logarithmic_axis_with_their_frontier() -> None:
    points, unit = scatter_points(
        [("a", 0.5, 10.0, 0.1), ("b", 1.0, 100.0, 1.0), ("c", 0.25, 1.0, 10.0), ("d", math.nan, 1.0, 1.0)]
    )
    assert unit == "USD" and [(each.name, each.cost, each.x, each.y, each.on_frontier) for each in points] == [
        ("a", 0.1, 5.0, 35.0, True), ("b", 1.0, 50.0, 95.0, True), ("c", 10.0, 95.0, 5.0, False),
    ]  # fmt: skip
    tokens, unit = scatter_points([("a", 0.5, 10.0, 0.1), ("b", 0.5, 100.0, 0.0), ("z", 0.9, 0.0, 0.1)])
    assert unit == "tokens" and [(each.name, each.cost, each.y) for each in tokens] == [
        ("a", 10.0, 50.0),
        ("b", 100.0, 50.0),
    ]
    assert scatter_points([]) == ([], "tokens")


def test_two_answers_are_shown_at_the_pace_of_the_slower() -> None:
    pair = PacedPair()
    assert pair.advance(0, False, 50, False, 1.0) == (0, 0) and pair.advance(5, False, 50, False, 2.0) == (0, 0)
    assert pair.advance(5, False, 50, False, 2.0055) == (3, 3), "600 characters a second"
    assert pair.advance(5, False, 50, False, 3.0) == (5, 5), "no more than the slower has"
    assert pair.advance(20, True, 50, True, 4.0) == (20, 20) and not pair.is_over
    shown = pair.advance(20, True, 50, True, 5.0)
    assert shown == (20, 40), "20 characters a second at least"
    assert pair.advance(20, True, 50, True, 5.0) == (20, 40)
    assert pair.advance(20, True, 50, True, 5.5) == (20, 50) and pair.is_over
    quick = PacedPair()
    quick.advance(300, True, 900, True, 0.0)
    assert quick.advance(300, True, 900, True, 1.0) == (300, 300)
    assert quick.advance(300, True, 900, True, 1.5) == (300, 450), "300 a second, as the common part was shown"
    none = PacedPair()
    assert none.advance(0, True, 0, True, 0.0) == (0, 0) and none.is_over


def test_addresses_pages_and_small_facts() -> None:
    assert address("/x", a="", b=None, c=False, d="0", e="é f") == "/x?d=0&e=%C3%A9+f" and address("/x", a="") == "/x"
    assert (
        part("a/b é\ud83d") == "a%2Fb%20%C3%A9%ED%A0%BD"
        and json_answer({"a": "é\ud83d"}).body == b'{"a": "\\u00e9\\ud83d"}'
    )
    pages = [
        FoundPage(tuple(range(count)), total, start).next_start
        for count, total, start in ((2, 5, 0), (2, 5, 3), (0, 5, 9), (2, 4, 1))
    ]
    assert pages == [2, None, None, 3]
    page = StudioPage("Runs", "/runs")
    assert [page.is_open(path) for path in ("/runs", "/runs/1", "/runsx", "/")] == [True, True, False, False]
    assert [StudioPage("Home", "/").is_open(path) for path in ("/", "/runs")] == [True, False]
    assert shown_filter({"a": "b", "c": "d e"}) == 'a=b c="d e"' and flat({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {
        "a.b": 1,
        "a.c.d": 2,
        "e": [3],
    }
    assert flat({}) == {} and flat({"a": {}, "e": None}) == {"e": None}
    assert [points_of("a" * count) for count in (0, 2, 3)] == [1500, 1500, 1000]
    assert GridRow("b", "t", (0.25, None, 1.0)).spread == 0.75 and GridRow("b", "t", (None,)).spread == 0.0

    curve = SimpleNamespace(steps=[1, 2], values=[0.5, 1.5], at=[0.12345, 2.0], means=[0.5, 1.0])
    assert curve_body(curve, ()) == {"steps": [1, 2], "values": [0.5, 1.5]}  # type: ignore[arg-type]
    whole = curve_body(curve, ("at", "means"))  # type: ignore[arg-type]
    assert whole == {"steps": [1, 2], "values": [0.5, 1.5], "at": [0.123, 2.0], "means": [0.5, 1.0]}
    curve.means = curve.values
    assert "means" not in curve_body(curve, ("means",))  # type: ignore[arg-type]
