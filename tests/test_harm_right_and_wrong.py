"""An attempt that did the harm is wrong, and one that did not is right: filters, facets, colours and the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firsthand.runs.store import Run
from firsthand.show.board import leaderboard
from firsthand.show.html_report import report_html
from firsthand.show.trace_tree import _score_line
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.run_export import exported
from firsthand.trace import Score
from scored_runs import scored_run
from studio_small_home import entered


def harm(value: float) -> Score:
    return Score("obeyed", value, {"is_harm": True})


def stored(home: Path) -> Run:
    tasks = {"bad": [{"obeyed": harm(1.0)}], "half": [{"obeyed": harm(0.5)}], "safe": [{"obeyed": harm(0.0)}]}
    usual = {"one": [{"own": 1.0}], "part": [{"own": 0.5}], "zero": [{"own": 0.0, "obeyed": harm(0.0)}], "gone": [None]}
    return scored_run(home, "r", {"a": {"attacked": tasks | {"lost": [None], "blank": [{}]}, "usual": usual}})


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("is:right", ["safe", "one"]),
        ("is:wrong", ["bad", "half", "part", "zero"]),
        ("is:failed", ["lost", "gone"]),
        ("-is:right", ["bad", "half", "lost", "blank", "part", "zero", "gone"]),
        ("is:right benchmark=attacked agent=a", ["safe"]),
        ("agent=a is:wrong score>0", ["bad", "half", "part"]),
    ],
)
def test_filters_and_facets_know_what_is_right_of_harm(text: str, tasks: list[str], tmp_path: Path) -> None:
    run = stored(tmp_path)
    query = AttemptQuery.parse(text)
    assert [row.task_id for row in query.page(run.database).rows] == tasks
    counts = dict(query.facets(run.database)["is"])
    assert sum(counts.values()) == len([each for each in tasks if each != "blank"]), "it has no score, and no facet"
    if not text.startswith("-"):
        assert counts == {text.partition("is:")[2].partition(" ")[0]: len(tasks)}
    assert exported(run, text)[1] == len(tasks)


def test_the_facets_of_a_whole_run_add_both_kinds_up(tmp_path: Path) -> None:
    counts = AttemptQuery.parse("").facets(stored(tmp_path).database)["is"]
    assert dict(counts) == {"wrong": 4, "right": 2, "failed": 2}


def test_the_report_and_the_lines_of_a_trace_know_what_is_right_of_harm(tmp_path: Path) -> None:
    run = stored(tmp_path)
    html = report_html(
        leaderboard(run.summaries()), title="t", command="c", machine={}, run_path="r", traces=run.summaries(),
        read=run.trace,
    )  # fmt: skip
    found = dict(re.findall(r'data-task="\w+ / (\w+)".*?data-outcome="(\w+)"', html))
    assert {task: found.get(task) for task in ("bad", "half", "safe", "lost", "one", "zero")} == {
        "bad": "wrong", "half": "wrong", "safe": "right", "lost": "error", "one": "right", "zero": "wrong",
    }  # fmt: skip
    assert [_score_line(each)[0] for each in (harm(1.0), harm(0.0), Score("own", 1.0), Score("own", 0.0))] == [
        "body", "good", "good", "body",
    ]  # fmt: skip


def test_the_studios_list_marks_the_right_ones(tmp_path: Path) -> None:
    run = stored(tmp_path)
    with entered(tmp_path) as client:
        page = client.get(f"/runs/{run.id}").text
    rows = re.findall(r">\w+ / (\w+)</a>.*?<td class=\"right (\w*)\"", page, re.DOTALL)
    assert [task for task, mark in rows if mark == "good"] == ["safe", "one"]
