"""Helpers of the Studio's views: sides of a comparison, rows of the grid, curves as JSON, notes, and numbers of forms."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.runs.curve_envelope import Envelope
from firsthand.stats.paired import PairedDifference
from firsthand.stats.power_analysis import paired_tasks_needed
from firsthand.studio.views.attempt_views import add_note, check_note
from firsthand.studio.views.comparison_views import (
    GridRow,
    _side,
    chosen_pairs,
    contest_of,
    grid_rows,
    is_open,
    plots_of,
    sides_of,
    tasks_to_decide,
)
from firsthand.studio.views.curve_views import curve_body, flat, parts_of, points_of, source_of
from firsthand.studio.views.feature_views import _matching, _sorted
from firsthand.studio.views.playground_views import _decimal, _whole
from firsthand.studio.views.queue_views import rater_of
from firsthand.studio.views.run_views import KeptBoards
from firsthand.trace import Score, Trace


def asked(query: str = "", **scope: Any) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": [], **scope})


def refusal(function: Any, *given: Any) -> str:
    with pytest.raises(ConfigError) as told:
        function(*given)
    return str(told.value)


def fill(run: Any, scores: dict[str, tuple[float, ...]], agent: str = "ann") -> None:
    for task, values in scores.items():
        for epoch, value in enumerate(values):
            run.append(Trace(f"{run.id}{agent}{task}{epoch}", "quiz", task, {"name": agent}, epoch, 0, "", 1.0,
                             scores=(Score("s", value),), place=f"{agent}{task}{epoch}"))  # fmt: skip


def test_two_sides_are_compared_with_what_got_worse_first(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "a") as one, store.create(tmp_path, {}, "b") as two:
        for run, names in ((one, ("ann", "bob")), (two, ("bob", "cat"))):
            for name in names:
                run.add_agent(name, {"name": name})
        fill(one, {"w": (1.0,), "x": (0.5,), "y": (0.0,), "z": (1.0,)}, "bob")
        fill(one, {"y": (0.25,)}, "ann")
        fill(two, {"w": (0.5,), "x": (1.0,), "y": (0.0,), "z": (0.0,)}, "bob")
        sides = sides_of([one, two, one])
        assert [(each.run.id, each.agent, each.key) for each in sides] == [
            (run.id, name, f"{run.id}/{name}") for run, name in ((one, "ann"), (one, "bob"), (two, "bob"), (two, "cat"))
        ]
        assert [_side(sides, "", 0), _side(sides, "", 1), _side(sides[1:], "", 1), _side(sides, sides[3].key, 0)] == [
            0,
            1,
            1,
            3,
        ]
        assert _side([sides[1], sides[0], sides[2]], "", 1) == 2, "the agent of the same name"
        assert refusal(_side, sides, "none", 0) == "no agent 'none' in the runs that are compared"
        contest = contest_of(sides[1], sides[2])
        found = {only: [pair.task_id for pair in chosen_pairs(contest.comparison, only)] for only in
                 ("changed", "worse", "better", "same", "all")}  # fmt: skip
        assert found == {
            "changed": ["z", "w", "x"], "worse": ["z", "w"], "better": ["x"], "same": ["y"], "all": ["z", "w", "x", "y"],
        }  # fmt: skip
        assert contest.differences["quiz"].difference == pytest.approx((-0.5 + 0.5 + 0 - 1) / 4) and list(
            contest.differences
        ) == ["quiz"]
        rows = grid_rows(sides)
        assert [(row.task, row.values) for row in rows] == [
            ("z", (None, 1.0, 0.0, None)), ("w", (None, 1.0, 0.5, None)), ("x", (None, 0.5, 1.0, None)),
            ("y", (0.25, 0.0, 0.0, None)),
        ]  # fmt: skip
        assert [row.spread for row in rows] == [1.0, 0.5, 0.5, 0.25] and GridRow("b", "t", (None,)).spread == 0
        assert plots_of(sides[:1]) == []
        boards = KeptBoards(most=1)
        first = boards.of(one)
        assert boards.of(one) is first
        fill(one, {"new": (1.0,)}, "ann")
        again = boards.of(one)
        assert again is not first and boards.of(one) is again
        boards.of(two)
        assert list(boards._kept) == [two.id]


def test_an_open_comparison_says_how_many_tasks_would_decide() -> None:
    def made(difference: float, n: int = 10, method: str = "paired t", verdict: Any = "inconclusive",
             detectable: float = 0.4) -> PairedDifference:  # fmt: skip
        return PairedDifference(difference, -1, 1, 0.5, n, 3, 1, 6, verdict, detectable, method)

    assert [is_open(each) for each in (made(0.2), made(0.2, 0), made(0.2, verdict="better"))] == [True, False, False]
    assert tasks_to_decide(made(-0.2)) == 40 and tasks_to_decide(made(0.3)) == math.ceil(10 * (0.4 / 0.3) ** 2)
    assert [tasks_to_decide(each) for each in (made(0.0), made(math.nan), made(0.2, detectable=math.nan))] == [None] * 3
    assert tasks_to_decide(made(-0.2, method="Tango")) == paired_tasks_needed(0.2, 5 / 12)
    assert tasks_to_decide(made(0.6, method="Tango")) == paired_tasks_needed(0.6, 0.6)


def test_curves_are_asked_for_and_written_by_their_parts() -> None:
    assert [points_of(["a"] * count) for count in (0, 2, 3)] == [1500, 1500, 1000]
    assert [parts_of(asked(query)) for query in (
        "", "x=time", "smooth=0.5", "smooth=0", "smooth=x", "group=lr&x=time", "x=step")] == [
        [], ["at"], ["means"], [], [], ["means", "at"], [],
    ]  # fmt: skip
    runs: Any = [SimpleNamespace(id="a b"), SimpleNamespace(id="c")]
    assert source_of(runs, 10) == "/curves.json?run=a+b&run=c&points=10"
    values = (0.5, 0.25)
    curve = Envelope((1, 2), values, (10.00049, 20.0), (0.1, 0.2))
    assert curve_body(curve, ()) == {"steps": (1, 2), "values": values}
    assert curve_body(curve, ("at", "means")) == {
        "steps": (1, 2), "values": values, "at": [10.0, 20.0], "means": (0.1, 0.2),
    }  # fmt: skip
    assert curve_body(Envelope((1, 2), values, (), values), ("means",)) == {"steps": (1, 2), "values": values}
    assert list(flat({"a": {"b": 1, "c": {"d": [2]}}, 3: None}).items()) == [("a.b", 1), ("a.c.d", [2]), ("3", None)]
    assert flat({"k" * 201: 1, "a": {"b" * 198: {"c": 2}}}) == {"k" * 200: 1, "a." + "b" * 198: 2}, "names are cut"
    found = flat({"a": {str(at): at for at in range(999)}, "b": {"c": 1, "d": 2}})
    assert len(found) == 1000 and found["a.998"] == 998 and found["b.c"] == 1, "the first thousand"
    deep: Any = 7
    for _ in range(5_000):
        deep = {"a": deep}
    assert flat(deep) == {("a." * 100): 7}, "however deep they are"


def test_features_are_found_by_their_words_and_sorted_by_a_measure() -> None:
    def feature(index: int, density: float, rule: Any, ablation: Any, *words: str) -> Any:
        said = None if rule is None else SimpleNamespace(rule=rule[0], balanced_accuracy=rule[1])
        changed = None if ablation is None else SimpleNamespace(value=ablation, n=1)
        context = [SimpleNamespace(text=word) for word in words]
        return SimpleNamespace(index=index, density=density, rule=said, ablation=changed, promoted=["Up"],
                               suppressed=["down"], bands={"top": [context]})  # fmt: skip

    found = [
        feature(7, 0.1, ("digits", 0.6), None, "Mo", "on"),
        feature(12, 0.3, None, 0.5, "sun"),
        feature(3, 0.2, ("x", 0.9), 0.7),
    ]
    for wanted, indices in {
        "": [7, 12, 3],
        " MOON ": [7],
        "digits": [7],
        "12": [12],
        "up": [7, 12, 3],
        "none": [],
    }.items():
        assert [each.index for each in _matching(found, wanted)] == indices
    assert {sort: [each.index for each in _sorted(found, sort)] for sort in ("density", "ablation", "rule")} == {
        "density": [12, 3, 7], "ablation": [3, 12, 7], "rule": [3, 7, 12],
    }  # fmt: skip


def test_notes_raters_and_numbers_of_forms_are_checked(tmp_path: Path) -> None:
    assert check_note("a-b_c.é1", "1", "why") == (1.0, "why") and check_note("x" * 60, "0", "")[0] == 0
    for name in ("", "x" * 61, "a b", "a/b"):
        assert refusal(check_note, name, "1", "") == (
            f"a note's name is {name[:60]!r}: use letters, digits and -_. (up to 60)"
        )
    for value in ("-0.1", "1.1", "nan", "x", ""):
        assert refusal(check_note, "n", value, "") == f"a note's score is {value!r}: a number from 0 to 1 was expected"
    with store.create(tmp_path, {}, "a") as run:
        fill(run, {"t": (1.0,)})
        (trace,) = run.traces()
        add_note(run, trace, 1, "good", "0.5", "", by="human:eve")
        add_note(run, trace, 1, "bad", "0.25", "words", by="human:ann")
        (noted,) = run.traces()
        assert noted.scores[1:] == (
            Score("note.good", 0.5, {"by": "human:eve"}), Score("note.bad", 0.25, {"by": "human:ann", "text": "words"}),
        )  # fmt: skip
    assert rater_of(asked("as=zoe")) == "human:zoe" and rater_of(asked("as=zoe"), "eve") == "human:eve"
    signed_in = asked("as=zoe", **{"firsthand.user": SimpleNamespace(name="ann")})
    assert rater_of(signed_in) == rater_of(signed_in, "eve") == "human:ann" and rater_of(asked()).startswith("human:")
    assert (
        refusal(rater_of, asked("as=" + "x" * 61))
        == f"{'x' * 60!r} is no name of a rater: give up to 60 characters on one line"
    )
    assert [_whole({"n": text}, "n") for text in ("", " 7 ", "0" * 12)] == [None, 7, 0] and _whole({}, "n") is None
    assert [_decimal({"n": text}, "n") for text in ("", " 0.5 ", "-1")] == [None, 0.5, -1.0]
    for text in ("-1", "1.5", "٣", "1" * 13):
        assert refusal(_whole, {"n": text}, "n") == f"n is {text!r}: a whole number was expected"
    assert refusal(_decimal, {"n": "x"}, "n") == "n is 'x': a number was expected"
