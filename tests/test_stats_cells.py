"""Cells by metadata, effective lengths, the summary of a run and its own figures: exact values of small cases."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.runs.store import Run, create
from firsthand.stats.breakdown import Cell, _sorted, _value, cells, grids, own_grids
from firsthand.stats.effective_length import Effective, effective
from firsthand.stats.figures import figures, slow_figure
from firsthand.stats.intervals import Interval
from firsthand.stats.run_summary import summary
from firsthand.stats.stored_figures import _names_files, first_score, own_figures, stored_figures
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace


def attempt(
    agent: str, task: str, *scores: Score, epoch: int = 0, error: bool = False, benchmark: str = "sums", **rest: Any
) -> Trace:
    failed = Failure("ModelError", "gone") if error else None
    key = f"{benchmark}-{agent}-{task}-{epoch}"
    return Trace(key, benchmark, task, {"name": agent}, epoch, 0, "", 2.0, scores=scores, error=failed, **rest)


# -- cells and summaries --


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = create(tmp_path, {}, "cells")
    tasks = [
        ("t1", {"length": 10, "depth": "b"}),
        ("t2", {"length": 9, "depth": "a"}),
        ("t3", {"length": 10, "flag": True}),
    ]
    made.add_tasks("sums", [Task(name, "?", metadata=facts) for name, facts in tasks])
    made.add_tasks("plain", [Task("p", "?", metadata={"level": 1})])
    for agent in ("bo", "ada"):
        made.add_agent(agent, {"name": agent})
    for agent, values in (("bo", (1.0, 0.0, 0.5)), ("ada", (0.0, 1.0, None))):
        for (name, _), value in zip(tasks, values, strict=True):
            made.append(attempt(agent, name, *([] if value is None else [Score("exact", value)]), error=value is None))
    made.append(attempt("bo", "t1", Score("exact", 0.0), epoch=1))
    made.append(attempt("bo", "p", Score("exact", 1.0), benchmark="plain"))
    return made


def test_cells_are_of_tasks_that_agree_in_the_keys(run: Run) -> None:
    found = [
        (each.agent, each.values, each.score.value, each.score.n, each.attempts, each.errors)
        for each in cells(run, ["length"])
    ]
    bo = [("bo", (9,), 0.0, 1, 1, 0), ("bo", (10,), 0.5, 2, 3, 0)]
    ada = [("ada", (9,), 1.0, 1, 1, 0), ("ada", (10,), 0.0, 2, 2, 1)]
    assert found == bo + ada or found == ada + bo
    both = cells(run, ["depth", "length"], benchmark="sums")
    assert [each.values for each in both if each.agent == "bo"] == [("", 10), ("a", 9), ("b", 10)]
    assert both[0].to_json(["depth", "length"])["by"] == {"depth": "", "length": 10}
    one = Cell("sums", "bo", (10, "a"), Interval(0.25, 0.125, 0.5, 2, "t"), 7, 3)
    assert one.to_json(("length", "depth")) == {
        "benchmark": "sums", "agent": "bo", "by": {"length": 10, "depth": "a"}, "score": one.score.to_json(), "attempts": 7,
        "errors": 3,
    }  # fmt: skip
    assert list(one.to_json(("length", "depth"))["by"]) == ["length", "depth"]
    with pytest.raises(ValueError):
        one.to_json(["length"])
    assert {each.benchmark for each in cells(run, ["level"])} == {"plain"}
    wide, narrow = cells(run, ["length"], 0.99)[1].score, cells(run, ["length"], 0.5)[1].score
    assert wide.high - wide.low > narrow.high - narrow.low
    for by, told in (([], "by is ''"), (["length", "length"], "name each key once"),
                     (["lenght"], r"did you mean 'length'\? there are depth, flag, length, level"),
                     (["zzz"], "has 'zzz' in its metadata; there are")):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            cells(run, by)
    assert _sorted({"b", 10, "a", 9.5, ""}) == (9.5, 10, "", "a", "b") and [
        _value(each) for each in (None, True, [1, "é"], 2)
    ] == [
        "",
        "true",
        '[1, "é"]',
        2,
    ]
    grid = next(each for each in grids(both, ["depth", "length"]) if each.agent == "bo")
    assert (grid.rows, grid.columns, grid.column_name) == (("", "a", "b"), (9, 10), "length") and (
        "a",
        10,
    ) not in grid.cells
    single = grids(cells(run, ["length"]), ["length"])[0]
    assert (single.rows, single.columns, single.column_name) == ((9, 10), ("",), "")
    with pytest.raises(ConfigError, match="name one or two keys"):
        grids(both, ["a", "b", "c"])
    assert [(each.benchmark, each.by) for each in own_grids(run)] == [("sums", ("depth", "length"))] * 2


def test_the_last_length_that_reaches_a_threshold() -> None:
    def cell(length: int, value: float, low: float, high: float) -> Cell:
        return Cell("sums", "ada", (length,), Interval(value, low, high, 4), 4, 0)

    made = [cell(1, 0.9, 0.8, 1.0), cell(2, 0.7, 0.6, 0.79), cell(3, 0.8, 0.7, 0.9), cell(4, 0.1, 0.0, 0.8)]
    [found] = effective(made, 0.8)
    assert found == Effective("sums", "ada", 0.8, 3, 1, 2, (2,), False)
    assert found.sentence("length") == (
        "ada on sums: the last length that reaches 0.8 is 3 (but 2 does not); surely reached up to 1, surely not at 2."
    )
    assert found.to_json() == {"benchmark": "sums", "agent": "ada", "threshold": 0.8, "last": 3, "sure": 1, "failing": 2,
                               "gaps": [2], "is_end": False, "lower_is_better": False}  # fmt: skip
    [end] = effective(made[:1], 0.9)
    assert (end.last, end.is_end, end.gaps) == (1, True, ())
    assert end.sentence("depth") == (
        "ada on sums: the last depth that reaches 0.9 is 1, where the measurement ends; surely reached at none, "
        "surely missed at none."
    )
    assert (
        effective(made[3:], 0.8)[0]
        .sentence("length")
        .startswith("ada on sums: no length reaches 0.8; surely reached at none")
    )


def test_a_summary_has_the_numbers_of_each_agent(run: Run) -> None:
    lines = {(line.benchmark, line.agent): line for line in summary(run)}
    bo, ada = lines["sums", "bo"], lines["sums", "ada"]
    assert (bo.score.value, bo.score.n, bo.attempts, bo.errors, bo.seconds, bo.cost_usd) == (
        pytest.approx(1 / 3),
        3,
        4,
        0,
        2.0,
        0.0,
    )
    assert (ada.score.value, ada.attempts, ada.errors) == (pytest.approx(1 / 3), 3, 1)
    # the two attempts at t1 vary by 1/2; task means .5, 0, .5 vary by 1/12, of which 1/2 * (1/2 + 1 + 1) / 3 is within
    assert (bo.spread.within, bo.spread.between) == (pytest.approx(0.5), 0.0) and math.isnan(ada.spread.within)
    body = bo.to_json()
    assert body["score"] == bo.score.to_json() and body["figures"] == {} and body["spread"]["attempts"] == 4
    assert body["detectable"] == pytest.approx(2.801585 * math.sqrt(2) * bo.score.error, rel=1e-5)
    assert lines["plain", "bo"].to_json()["detectable"] is None
    low = {(line.benchmark, line.agent): line for line in summary(run, 0.5)}["sums", "bo"].score
    assert low.high - low.low < bo.score.high - bo.score.low
    best = {line.agent: line.score.value for line in summary(run, reduce="max") if line.benchmark == "sums"}
    assert best["bo"] == 0.5 and best["ada"] == pytest.approx(1 / 3)
    with pytest.raises(UnknownName):
        summary(run, score="none")
    assert first_score("sums", run) == "exact" and first_score("none", run) == ""
    assert stored_figures({"a": (run, "bo")}, "sums", {}) == {}
    own = stored_figures(
        {"x": (run, "bo")},
        "sums",
        {
            "sums": lambda traces: [
                slow_figure("n", tuple(sorted({each.task_id for each in traces})), lambda chosen: float(len(chosen)))
            ]
        },
        tasks={"x": ["t1", "t3"]},
    )
    assert own["n"]["x"].tasks == ("t1", "t3")


@pytest.mark.parametrize("first", ["with", "without"])
def test_two_runs_have_figures_where_one_of_them_has_any(first: str, tmp_path: Path) -> None:
    runs = {name: create(tmp_path, {}, name) for name in ("with", "without")}
    for name, made in runs.items():
        made.add_agent("bo", {"name": "bo"})
        made.add_tasks("sums", [Task("t1", "?")])
        scores = [Score("sure", 1.0, {"confidence": 0.75})] if name == "with" else []
        made.append(attempt("bo", "t1", *scores, error=not scores))
    sides = {name: (runs[name], "bo") for name in sorted(runs, key=lambda name: name != first)}
    found = stored_figures(sides, "sums", {})
    assert found and all("with" in each for each in found.values())
    assert found["rms_calibration_error"]["with"].tasks == ("t1",)
    assert stored_figures({"without": sides["without"]}, "sums", {}) == {} == stored_figures({}, "sums", {})
    assert stored_figures(sides, "other", {}) == {}


@pytest.mark.parametrize("damaged", [10**400, -(10**309), float("nan"), float("inf"), "1", None, [1]], ids=range(7))
def test_a_share_that_no_float_can_hold_is_no_share(damaged: Any) -> None:
    def found(*sums: Any) -> Any:
        share = Score("kept", 0.5, {"corpus": {"figure": "share", "sums": [*sums]}})
        return figures({"bo": [attempt("bo", "t1", share), attempt("bo", "t1", share, epoch=1)]})

    (whole,) = found(3, 4).values()
    assert whole["bo"].tasks == ("t1",) and whole["bo"].of(np.ones((1, 1))).tolist() == [0.75]
    assert found(10**307, 4).keys() == {"kept"}
    for sums in ((damaged, 4), (3, damaged), (3,), (3, 4, 5)):
        assert found(*sums) == {}


def test_a_spec_that_may_name_a_file_is_told_apart_and_what_cannot_be_made_is_said(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    specs = (
        "arithmetic:levels=1",
        "x.py",
        "b:task=~/x",
        "b:task=a/../b",
        "b:trust=true",
        "here",
        "b:o=here@x",
        "b:f=x.JSON",
        "b:include=x",
    )
    assert [_names_files(each) for each in specs] == [False, *[True] * 8]

    def told(given: Any) -> tuple[list[str], dict[str, Any]]:
        said: list[str] = []
        run = SimpleNamespace(about={"figures": given}, database=SimpleNamespace(damaged=StoreError))
        return said, own_figures(said.append, run)  # type: ignore[arg-type]

    said, found = told({"sums": "x.py"})
    assert found == {} and said[0].startswith(
        "sums has figures of its own, which cannot be computed here: the run names 'x.py'"
    )
    assert told({"sums": "no_such_benchmark"})[0][0].startswith("sums has figures of its own") and told({}) == ([], {})
    assert told({"sums": "arithmetic"}) == ([], {}), "arithmetic has no figures, and another name"
    for wrong in ([], {"sums": 3}):
        with pytest.raises(StoreError, match="its figures are not specs"):
            told(wrong)


def test_each_benchmark_has_its_grid_once(tmp_path: Path) -> None:
    made = create(tmp_path, {}, "two")
    made.add_agent("ada", {"name": "ada"})
    for benchmark, facts in (("b1", {"length": 1}), ("b2", {"length": 2, "depth": 3}), ("b3", {"level": 1})):
        made.add_tasks(benchmark, [Task("t", "?", metadata=facts)])
        made.append(attempt("ada", "t", Score("exact", 1.0), benchmark=benchmark))
    found = own_grids(made, 0.5)
    assert [(each.benchmark, each.by, each.rows, each.columns) for each in found] == [
        ("b1", ("length",), (1,), ("",)),
        ("b2", ("depth", "length"), (3,), (2,)),
    ]
    score = found[0].cells[1, ""].score
    assert score.low == cells(made, ["length"], 0.5, "b1")[0].score.low > own_grids(made)[0].cells[1, ""].score.low
