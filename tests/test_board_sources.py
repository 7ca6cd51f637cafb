"""Where the numbers of a board come from: files, folders, runs, sheets of grades; and which of them are out of line."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.boards import cross_reference as crossed
from firsthand.boards.board_columns import BoardColumn
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry
from firsthand.boards.cross_reference import CrossReference, OutOfLine, cross_reference
from firsthand.boards.grading_sheets import read_sheets, write_adjudication, write_sheets
from firsthand.boards.read_results import read_results, run_results
from firsthand.boards.result_file import read_result_file, write_result_file
from firsthand.boards.task_sets import problems_of, tasks_hash
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.task import Task
from firsthand.trace import Call, Failure, Score, Trace
from scored_runs import scored_run

# -- files, folders and runs --


def test_a_run_gives_each_agent_its_tasks_its_price_and_its_origin(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "quiz", protocols={"quiz": "asked once"}) as run:
        tasks = [Task(f"t{n}", "?", metadata={"cluster": "c1"} if n < 2 else {}) for n in range(3)]
        run.add_tasks("quiz", tasks)
        run.add_tasks("other", [Task("t9", "?")])

        def add(
            agent: str, task: str, epoch: int, value: float | None, usd: float = 0.0, benchmark: str = "quiz"
        ) -> None:
            calls = (Call("0", "generate", None, 0.0, 1.0, "", Usage(1, 0, 1, usd)),)
            scores = (Score("exact", value), Score("style", 0.5)) if value is not None else ()
            error = Failure("ModelError", "x") if value is None else None
            key = f"{benchmark}-{agent}-{task}-{epoch}"
            run.append(Trace(key, benchmark, task, {"name": agent}, epoch, 0, "", 2.0 + epoch, calls=calls, scores=scores,
                             error=error))  # fmt: skip

        for agent in ("ada", "bo"):
            run.add_agent(agent, {"name": agent})
        add("ada", "t0", 0, 1.0, 0.5), add("ada", "t0", 1, 0.5, 0.25), add("ada", "t2", 0, None)
        add("bo", "t1", 0, 0.25, 0.5), add("bo", "t2", 0, 1.0)
        add("bo", "t9", 0, 0.75, benchmark="other")
        other, ada, bo = run_results(run, pytest.fail)
        assert ada.key.benchmark == bo.key.benchmark == "quiz" and ada.key.metric == "exact" == other.key.metric
        assert (ada.models, bo.models, other.models) == (("ada",), ("bo",), ("bo",))
        assert ada.tasks == bo.tasks == ("t0", "t2", "t1") and other.tasks == ("t9",)
        assert np.array_equal(ada.scores, [[0.75, 0, np.nan]], equal_nan=True), "not attempted is not 0; an error is"
        assert np.array_equal(bo.scores, [[np.nan, 1, 0.25]], equal_nan=True) and other.scores.tolist() == [[0.75]]
        assert ada.clusters == bo.clusters == ("c1", "t2", "c1") and other.clusters == ()
        (about,) = ada.abouts
        assert (about.cost_usd, about.seconds) == (0.25, pytest.approx(7 / 3)), "of three attempts"
        assert (bo.abouts[0].cost_usd, bo.abouts[0].seconds) == (0.25, 2.0), "of two attempts at two of three tasks"
        assert (other.abouts[0].cost_usd, other.abouts[0].seconds) == (None, 2.0)
        assert about.data_hash == tasks_hash(["t0", "t1", "t2"], problems_of(run)["quiz"])
        assert tasks_hash(["t2", "t0", "t1"], {}) == f"tasks-{zlib.crc32(bytes([10]).join([b't0', b't1', b't2'])):08x}"
        assert (ada.key.protocol, other.key.protocol, about.value) == ("asked once", "", 0.0)
        assert about.commit == (run.about["commit"] or "")
        assert (about.run, about.source) == (run.id, str(run.path)) and about.when == run.created_at[:19] + "+00:00"
    found = read_results([run.path], tmp_path)
    assert [each.models for each in found.items] == [("bo",), ("ada", "bo")] and len(found.results) == 3


def test_items_of_files_and_of_several_runs_stand_together_in_the_order_of_the_sources(tmp_path: Path) -> None:
    def items(benchmark: str, model: str) -> ItemScores:
        about = (BoardResult(model, benchmark, 0.0),)
        return ItemScores(ColumnKey(benchmark, "p", "exact"), (model,), ("t",), np.ones((1, 1), np.float32), (), about)

    kept, table = tmp_path / "kept.results", tmp_path / "table.csv"
    write_result_file(kept, ResultSet.of([], [items("k1", "mo"), items("k2", "mo")]))
    table.write_text("model,benchmark,score\nza,told,0.5\n")
    runs = [
        scored_run(tmp_path, name, {name: {f"{name}-sums": {"t": [{"exact": 0.25}]}, "more": {"u": [{"exact": 1.0}]}}})
        for name in ("ada", "bo")
    ]
    for run in runs:
        run.close()
    one, two = (run.id for run in runs)

    def read(*sources: str | Path) -> tuple[list[tuple[str, tuple[str, ...]]], list[tuple[str, str, float]]]:
        found = read_results(sources, tmp_path)
        assert found.remarks == ()
        return (
            sorted((each.key.benchmark, each.models) for each in found.items),
            sorted((each.benchmark, each.model, each.value) for each in found.results),
        )

    of_one = [("ada-sums", "ada", 0.25)]
    of_two = [("bo-sums", "bo", 0.25)]
    of_file = [("k1", "mo", 1.0), ("k2", "mo", 1.0)]
    both = [("more", "ada", 1.0), ("more", "bo", 1.0)]
    every = (
        [("ada-sums", ("ada",)), ("bo-sums", ("bo",)), ("k1", ("mo",)), ("k2", ("mo",)), ("more", ("ada", "bo"))],
        [*of_one, *of_two, *of_file, *both, ("told", "za", 0.5)],
    )
    assert read(kept, one, table, two) == every
    assert read(one, two, kept, table) == every
    assert read(table, "last", kept, tmp_path / "runs" / one) == ([*every[0][:4], ("more", ("bo", "ada"))], every[1])
    assert read(one, two) == (
        [("ada-sums", ("ada",)), ("bo-sums", ("bo",)), ("more", ("ada", "bo"))], [*of_one, *of_two, *both]
    )  # fmt: skip
    assert read(two, two) == read("last") == read(two), "what is named twice counts once"
    assert read() == ([], [])


def test_a_folder_gives_what_its_files_hold_and_tells_what_it_leaves_out(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for name, raw in (
        ("a.csv", b"model,benchmark,score\nm,b,0.5\n"),
        ("c.csv.gz", gzip.compress(b"model,benchmark,score\nn,b,0.25\n")),
        ("d.json", b"{"), ("e.json", b'[{"model": "o", "benchmark": "b", "score": 1}]'), ("f.csv", b"x,y\n1,2\n"),
        ("notes.txt", b"hello"), ("model_meta.json", b"{}"), ("g.json.gz", gzip.compress(b'{"some": "object"}')),
        ("h.csv.gz", gzip.compress(b"model,benchmark,score\n" * 40)[:-9]),
    ):  # fmt: skip
        (folder / name).write_bytes(raw)
    found = read_results([folder], tmp_path)
    assert [(each.model, each.value) for each in found.results] == [("m", 0.5), ("n", 0.25), ("o", 1.0)]
    told = [each.removeprefix(f"Left out: {folder}/").split(" ")[0].strip(":") for each in found.remarks]
    assert told == ["d.json", "f.csv", "g.json.gz", "h.csv.gz"]
    assert "is in no known layout of results" in found.remarks[2] and "is not a complete gzip file" in found.remarks[3]
    assert "it has the columns x, y; model, benchmark and score" in found.remarks[1]
    for path, kind, says in (
        (folder / "notes.txt", ConfigError, "notes.txt is no table of votes"),
        (folder / "d.json", DataError, "not JSON"),
    ):
        with pytest.raises(kind, match=says):
            read_results([path], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no file of results"):
        read_results([tmp_path / "empty"], tmp_path)
    (folder / "bad.json").write_text(json.dumps({"results": {"b": {"acc": 1}}, "versions": 3}))
    with pytest.raises(DataError, match="begins as a file of results and is malformed"):
        read_results([folder / "bad.json"], tmp_path)


def test_a_file_of_results_holds_all_numbers_and_replaces_the_one_before(tmp_path: Path) -> None:
    key = ColumnKey("b", "p", "acc")
    about = BoardResult("a", "b", 0.0, run="r1"), BoardResult("c", "b", 0.0, run="r2")
    items = ItemScores(key, ("a", "c"), ("1", "é"), np.array([[1, 0.25], [np.nan, 0]], np.float32), ("x", "y"), about)
    when = "2026-01-02T03:04:05+00:00"
    stated = BoardResult("d", "b", 0.5, "p", "acc", 0.1, 3, True, "g", 0.5, 2.0, when, False, "s", "r", "k", "h")
    path = tmp_path / "all.results"
    path.write_text("an old file")
    (tmp_path / "all.results.draft").write_text("left by a crash")
    write_result_file(path, ResultSet(tuple([stated, *items.results()]), (items,)))
    one, two = read_result_file(path)
    assert one == stated and isinstance(two, ItemScores)
    assert (two.key, two.models, two.tasks, two.clusters, two.abouts) == (
        key,
        ("a", "c"),
        ("1", "é"),
        ("x", "y"),
        about,
    )
    assert np.array_equal(two.scores, items.scores, equal_nan=True)
    assert [each.name for each in tmp_path.iterdir()] == ["all.results"]
    with pytest.raises(StoreError, match=r"x\.db: a file of results ends in \.results"):
        write_result_file(tmp_path / "x.db", ResultSet())
    with pytest.raises(StoreError, match="cannot be written"):
        write_result_file(tmp_path / "no" / "x.results", ResultSet())


# -- sheets of grades --


def test_sheets_of_several_benchmarks_name_items_by_both_and_keep_where_they_come_from(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "quiz") as run:
        run.add_tasks("b1", [Task("t", "Q1?")]), run.add_tasks("b2", [Task("t", "Q2?")])
        for benchmark, agent, answer in (("b1", "ada", "=A"), ("b2", "bo", "B"), ("b2", "cy", None)):
            run.append(Trace(f"{benchmark}{agent}", benchmark, "t", {"name": agent}, 0, 0, "", 1.0, answer=answer))
        counts = write_sheets(run, tmp_path / "g", ["ann", "b.o-b"], ["x", "y"], seed=3)
        assert counts == {"ann": 2, "b.o-b": 2}
        rows = list(csv.DictReader((tmp_path / "g" / "ann.csv").open(newline="")))
        assert list(rows[0]) == ["item", "model", "grader", "role", "criterion", "prompt", "answer", "grade"]
        assert sorted((row["item"], row["prompt"], row["answer"], row["criterion"]) for row in rows) == [
            ("b1/t", "Q1?", "'=A", "x"), ("b1/t", "Q1?", "'=A", "y"), ("b2/t", "Q2?", "B", "x"), ("b2/t", "Q2?", "B", "y"),
        ]  # fmt: skip
        assert {(row["grader"], row["role"], row["grade"]) for row in rows} == {("ann", "grader", "")}
        body = json.loads((tmp_path / "g" / "codes.json").read_text())
        assert (body["run"], body["when"]) == (run.id, run.created_at[:19] + "+00:00")
        assert sorted(body["models"].values()) == ["ada", "bo"] and list(body) == ["run", "when", "commit", "models"]
        for graders, told in ((["a b", "c"], "the grader is 'a b'"), ([".a", "c"], "the grader is '.a'")):
            with pytest.raises(ConfigError, match=told):
                write_sheets(run, tmp_path / "h", graders, ["x"])
        with pytest.raises(ConfigError, match="h cannot be made: No such file"):
            write_sheets(run, tmp_path / "no" / "h", ["ann", "bob"], ["x"])

    def fill(name: str, grade: dict[tuple[str, str], Any]) -> None:
        path = tmp_path / "g" / f"{name}.csv"
        rows = list(csv.DictReader(path.open(newline="")))
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows({**row, "grade": grade[row["item"][:2], row["criterion"]]} for row in rows)

    fill("ann", {("b1", "x"): 1, ("b1", "y"): 0.5, ("b2", "x"): 1, ("b2", "y"): 1})
    fill("b.o-b", {("b1", "x"): 0, ("b1", "y"): 0.25, ("b2", "x"): 1, ("b2", "y"): 0.75})
    assert write_adjudication(tmp_path / "g", "eve") == 1
    rows = list(csv.DictReader((tmp_path / "g" / "eve.csv").open(newline="")))
    assert list(rows[0])[-2:] == ["given", "grade"]
    assert [
        (row["item"], row["grader"], row["role"], row["criterion"], row["given"], row["grade"]) for row in rows
    ] == [
        ("b1/t", "eve", "adjudicator", each, given, "")
        for each, given in (("x", "ann 1; b.o-b 0"), ("y", "ann 0.5; b.o-b 0.25"))
    ]
    fill("eve", {("b1", "x"): 1, ("b1", "y"): 0})
    graded = read_sheets(tmp_path / "g")
    assert (graded.answers, graded.adjudicated, graded.open) == (2, 1, 0)
    scores = dict(zip(graded.items.models, graded.items.scores, strict=True))
    assert np.nanmean(scores["ada"]) == 0.5 and np.nanmean(scores["bo"]) == 0.9375
    about = graded.items.abouts[0]
    assert (about.benchmark, about.run, about.when, about.source) == ("g", run.id, body["when"], str(tmp_path / "g"))
    for name, told in (("eve", "has a sheet already"), ("a/b", "is no name of letters")):
        with pytest.raises(ConfigError, match=told):
            write_adjudication(tmp_path / "g", name)
    with pytest.raises(ConfigError, match="no answer that two graders disagree on"):
        write_adjudication(tmp_path / "g", "zoe")


# -- scores out of line --


def column(name: str, values: dict[str, float], n: int = 100, **entry: Any) -> BoardColumn:
    cells = {model: BoardResult(model, name, value, n=n) for model, value in values.items()}
    return BoardColumn(name, ColumnKey(name, "", ""), BenchmarkEntry(**entry), cells, None, 1.0)


def test_a_share_is_compared_as_log_odds_and_any_other_score_as_it_is() -> None:
    share, other = column("s", {"a": 0.75, "b": 0.0}), column("o", {"a": 1.5, "b": -1.0})
    assert crossed._value(share, "a") == pytest.approx(math.log(75.5 / 25.5)) and crossed._value(other, "a") == 1.5
    assert crossed._value(column("s", {"a": 0.75}, n=0), "a") == pytest.approx(math.log(150.5 / 50.5)), "200 items"
    assert math.isnan(crossed._value(share, "z")) and math.isnan(crossed._error(share, "z"))
    p = 75.5 / 101
    assert crossed._error(share, "a") == pytest.approx(share.cells["a"].standard_error / (p * (1 - p)))
    stated = replace(other, cells={**other.cells, "a": replace(other.cells["a"], error=0.25)})
    assert crossed._error(stated, "a") == 0.25
    assert crossed._back(share, 0.0) == 0.5 and crossed._back(share, math.log(3)) == pytest.approx(0.75)
    assert crossed._back(other, 3.0) == 3.0
    assert crossed._varies(column("v", {"a": 1, "b": 2, "c": 3})) and not crossed._varies(
        column("v", {"a": 1, "b": 2, "c": 2})
    )
    assert crossed._is_share(column("x", {"a": 0.0, "b": 1.0})) and not crossed._is_share(
        column("x", {"a": 0.5, "b": 1.01})
    )


def test_robust_means_of_columns_with_gaps() -> None:
    table = np.array([[1.0, 5.0], [9.0, np.nan], [2.0, 5.0], [4.0, 5.0]])
    assert crossed._median(table).tolist() == [[3.0, 5.0]]
    centre, spread = crossed._location(table)
    # distances from 3 are 2, 6, 1, 1: their median is 1.5; equal values have the least spread
    assert centre.tolist() == [[3.0, 5.0]] and spread.tolist() == [[pytest.approx(1.4826 * 1.5), 1e-9]]
    assert crossed._location(np.array([[1.0], [1.0], [1.0], [5.0]]))[1].tolist() == [[pytest.approx(math.sqrt(3))]]
    assert crossed._huber(np.array([0.0, -1.345, 2.69, -5.38])).tolist() == [1, 1, 0.5, 0.25]
    rest, here = np.array([[1.0], [-1.0], [1.0], [-1.0], [9.0], [0.0]]), np.array([[True]] * 5 + [[False]])
    found = 1.4826
    for _ in range(4):
        found = math.sqrt((4 + min(9, 1.345 * found) ** 2) / (0.7102 * (5 - 2)))
    assert crossed._scale(rest, here).tolist() == [[pytest.approx(found)]]


def test_the_tail_of_a_table_is_measured_by_the_spacings_below_its_largest() -> None:
    sizes = np.exp(np.arange(40, 0, -1) / 10.0)  # 4.0, 3.9, ... as logarithms
    signs = np.where(np.arange(40) % 2, 1, -1)
    z = np.append(sizes * signs, np.nan).reshape(1, 41)
    tail = crossed._tail(np.roll(z, 7, 1))
    # the top six, .15 of 40, without the largest are 3.9 to 3.4, and the one below them 3.3
    assert tail.largest == pytest.approx(math.exp(4)) and tail.bound == pytest.approx(3.3)
    assert tail.excess == pytest.approx(0.35)
    # the largest of all (.01 of 40, at least one) is left out; the outer ones are up to the 4th, the inner from the 11th
    assert tail.weight == pytest.approx(sizes[1:4].mean() / sizes[10:].mean())
    assert tail.standing_out(np.array(math.exp(4.0))) == pytest.approx(2.0) and tail.at(2.0) == pytest.approx(
        math.exp(4.0)
    )


def test_a_report_counts_what_was_judged_and_lists_what_is_flagged() -> None:
    one = OutOfLine("a", "b", 0.9, 0.5, 0.3, 0.7, 4.0, 0.01, True)
    report = CrossReference(
        (one, replace(one, model="c", flagged=False)), 3.5, 0.05, 400, ("normal", "t5"), False, ("d",)
    )
    assert report.flagged == (one,) and report.to_json() == {
        "alpha": 0.05,
        "critical": 3.5,
        "tables": 400,
        "deviations": ["normal", "t5"],
        "heavy_tailed": False,
        "left_out": ["d"],
        "flagged": [
            {
                "model": "a",
                "benchmark": "b",
                "score": 0.9,
                "expected": 0.5,
                "low": 0.3,
                "high": 0.7,
                "z": 4.0,
                "p_value": 0.01,
                "flagged": True,
            }
        ],
        "judged": 2,
    }


def test_benchmarks_of_eight_models_and_models_of_four_benchmarks_are_judged() -> None:
    draw = np.random.default_rng(5)
    ability = draw.normal(size=8)

    def shares(count: int) -> dict[str, float]:
        return {f"m{i}": float(1 / (1 + np.exp(-ability[i] - draw.normal(0, 0.3)))) for i in range(count)}

    columns = [column(f"b{n}", shares(8)) for n in range(4)]
    few, flat = column("few", shares(7)), column("flat", dict.fromkeys(shares(8), 0.5))
    extra = replace(columns[0], cells={**columns[0].cells, "late": BoardResult("late", "b0", 0.5, n=100)})
    found = cross_reference([extra, *columns[1:], few, flat], tables=24)
    assert found.left_out == ("few", "flat", "late") and len(found.scores) == 32 and found.tables == 24
    assert found.scores == tuple(sorted(found.scores, key=lambda each: -abs(each.z)))
    assert all(each.flagged == (abs(each.z) > found.critical) for each in found.scores)
    score = found.scores[0]
    assert score.score == next(c for c in columns if c.name == score.benchmark).cells[score.model].value
    assert (score.z > 0) == (score.score > score.expected) and score.low < score.expected < score.high
    lower = [replace(each, entry=BenchmarkEntry(lower_is_better=True)) for each in (extra, *columns[1:])]
    turned = cross_reference(lower, tables=24)
    assert [each.z for each in turned.scores] == [-each.z for each in found.scores]
    assert cross_reference([extra, *columns[1:]], tables=24, seed=1).critical != found.critical
    for given, told in (
        (columns[:3], "found 0 benchmarks with 0 models"),
        ([column("b", shares(7)) for _ in range(4)], "found 0 benchmarks"),
    ):
        with pytest.raises(ConfigError, match=told):
            cross_reference(given, tables=24)
    with pytest.raises(ConfigError, match=r"tables is 23: a false alarm rate of 0\.05 needs 24 or more"):
        cross_reference(columns, tables=23)
