"""Failures in strata, slow figures, empty tasks in clusters, protected answers side by side, and calls told twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Figure
from firsthand.loop.listener import Piece
from firsthand.runs.pairing import compare
from firsthand.runs.store import create
from firsthand.show.answer_diff import samples
from firsthand.show.chat_screen import Screen
from firsthand.stats.comparison_design import from_one
from firsthand.stats.figure_stats import SLOW_DRAWS, FigureDifference, figure_interval
from firsthand.stats.intervals import mean_interval
from firsthand.stats.run_summary import summary
from firsthand.task import Task
from firsthand.trace import Call, Event, Score
from made_traces import trace


def test_a_failed_attempt_counts_as_0_in_strata_and_under_a_reducer(tmp_path: Path) -> None:
    made = create(tmp_path, {}, "r")
    made.add_agent("a", {"name": "a"})
    made.add_tasks("b", [Task(f"t{n}", "?", metadata={"stratum": "xy"[n // 2]}) for n in range(4)])
    made.add_tasks("plain", [Task(f"t{n}", "?") for n in range(3)])
    for n, value in enumerate((1.0, None, 0.5, 0.25)):
        made.append(trace(f"b{n}", f"t{n}", value))
    for n, value in enumerate((1.0, None, 0.5)):
        made.append(trace(f"p{n}", f"t{n}", value, benchmark="plain"))
        made.append(trace(f"q{n}", f"t{n}", None, benchmark="plain", epoch=1))
    rows = {row.benchmark: row for row in summary(made, 0.9, reduce="max")}
    values = {"t0": [1.0], "t1": [0.0], "t2": [0.5], "t3": [0.25]}
    assert rows["b"].score == mean_interval(values, 0.9, made.clusters()["b"]) and rows["b"].errors == 1
    assert rows["plain"].score == mean_interval({"t0": [1.0], "t1": [0.0], "t2": [0.5]}, 0.9)
    assert (rows["plain"].score.value, rows["plain"].errors, rows["plain"].attempts) == (0.5, 4, 6)


def test_a_slow_figure_takes_few_draws_whichever_side_it_is() -> None:
    seen: list[int] = []

    def of(counts: Any) -> Any:
        seen.append(len(counts))
        return counts @ np.array([0.25, 0.75, 0.5]) / 3

    quick = Figure("f", ("t1", "t2", "t3"), of, method="percentile")
    slow = replace(quick, slow=True)
    for figure, draws in ((quick, 2000), (slow, SLOW_DRAWS)):
        seen.clear()
        figure_interval(figure)
        assert draws in seen and max(seen) == draws
    for a, b, draws in (
        (quick, quick, 300),
        (slow, quick, SLOW_DRAWS),
        (quick, slow, SLOW_DRAWS),
        (slow, slow, SLOW_DRAWS),
    ):
        assert len(FigureDifference.between(a, b, None, 300).draws) == draws
    assert len(FigureDifference.between(slow, quick, None, 50).draws) == 50, "fewer are fewer"
    assert (
        FigureDifference.between(quick, slow, None, 50).values
        == ()
        != FigureDifference.between(quick, quick, None, 50).values
    )


def test_a_task_without_attempts_has_no_place_in_a_plan_with_clusters() -> None:
    scores = {"t0": [], "t1": [1.0], "t2": [0.75], "t3": [0.0], "t4": [0.25], "t5": []}
    clusters = {"t0": "g", "t1": "g", "t2": "g", "t3": "h", "t4": "h", "t5": "i"}
    kept = {task: each for task, each in scores.items() if each}
    plan = from_one(scores, 0.5, clusters)
    assert plan == from_one(kept, 0.5, clusters) and plan.design_effect > 1.5
    assert plan.basis.startswith("one agent on 4 tasks, and a correlation of 0.5 assumed for single attempts, clusters")


def test_answers_to_a_protected_task_are_withheld_side_by_side(tmp_path: Path) -> None:
    runs = [create(tmp_path / name, {}, name) for name in "ab"]
    words = "secret words of the task " * 9
    for run, value in zip(runs, (1.0, 0.0), strict=True):
        run.add_agent("ada", {"name": "ada"})
        run.add_tasks(
            "b", [Task("t", words, secret={"answer": words}, metadata={"protected": "why"}), Task("u", "open?")]
        )
        told = (Event("protected", 0.0, {"why": "why"}),)
        run.append(trace(f"{run.id}1", "t", agent="ada", scores=(Score("s", value),), answer=words, events=told))
        run.append(trace(f"{run.id}2", "u", agent="ada", scores=(Score("s", 1 - value),), answer=words))
    found = {each.task_id: each for each in samples(compare(*runs, error_value=0.0), *runs, "all")}
    assert (found["t"].change, found["u"].change) == ("worse", "better")
    assert "secret" not in str(found["t"]) and found["t"].prompt == "[withheld: why]" and found["t"].expected == ""
    assert found["u"].a.text == words == found["u"].b.text


def test_the_time_of_writing_is_counted_once_for_each_answer(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    call = Call("g", "generate", None, 0.0, 0.0, "")
    screen.listen(call)
    assert screen.writing_s == 0.0, "nothing was written"
    screen.listen(Piece("g", "a"))
    screen._first_s["g"] -= 5.0
    screen.listen(Piece("g", "b"))
    screen.listen(call)
    assert 5.0 <= screen.writing_s < 6.0
    screen.listen(call)
    assert 5.0 <= screen.writing_s < 6.0
    screen.listen(Call("g", "tool", None, 0.0, 0.0, "", detail={"result": "r"}))
    assert capsys.readouterr().out == "ab\n"
