"""What a run's scores add up to inside SQLite is what a leaderboard makes of its traces."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from firsthand.cli import main
from firsthand.commands import summary as command
from firsthand.runs.store import Run, create
from firsthand.show.board import leaderboard
from firsthand.stats.intervals import Interval
from firsthand.stats.run_summary import SummaryRow, summary
from firsthand.stats.score_statistics import Spread, spread
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace
from printed_tables import widen, words


def add(run: Run, agent: str, task: int, epoch: int, value: float | None, benchmark: str = "sums") -> None:
    error = Failure("ModelError", "gone") if value is None else None
    scores = () if value is None else (Score("exact", value),)
    key = f"{benchmark}-{agent}-{task}-{epoch}"
    run.append(Trace(key, benchmark, f"t{task}", {"name": agent}, epoch, 0, "", 2.0, scores=scores, error=error))


@pytest.fixture(params=[1, 3], ids=["once", "three epochs"])
def run(request: Any, tmp_path: Path) -> Run:
    """Two agents on two benchmarks, one of them in clusters, with a failed attempt and one that was tried again."""
    rng = random.Random(4)
    run = create(tmp_path, {}, "sums")
    run.add_tasks("sums", [Task(f"t{n}", "?") for n in range(20)])
    run.add_tasks("words", [Task(f"t{n}", "?", metadata={"cluster": n // 4} if n < 18 else {}) for n in range(20)])
    for agent in ("zoe", "ada"):
        run.add_agent(agent, {"name": agent})
        for task in range(20):
            for epoch in range(request.param):
                add(run, agent, task, epoch, float(rng.random() < 0.6))
                add(run, agent, task, epoch, round(rng.random(), 2), "words")
    add(run, "ada", 3, 0, None)  # the last try counts
    add(run, "zoe", 5, 0, None)
    add(run, "zoe", 5, 0, 1.0)
    return run


@pytest.mark.slow
def test_the_summary_is_the_leaderboards(run: Run) -> None:
    order = {name: place for place, name in enumerate(run.agents())}
    boards = leaderboard(sorted(run.traces(), key=lambda trace: order[trace.agent_name]), clusters=run.clusters())
    lines = {(line.benchmark, line.agent): line for line in summary(run)}
    assert list(lines) == [("sums", "zoe"), ("sums", "ada"), ("words", "zoe"), ("words", "ada")]
    for board in boards:
        for row in board.rows:
            line = lines[board.benchmark, row.agent]
            ours, theirs = line.score, row.score
            assert (ours.n, ours.method, ours.clusters) == (theirs.n, theirs.method, theirs.clusters)
            for name in ("value", "low", "high", "error", "inflation"):
                assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-9), name
            assert (line.attempts, line.errors) == (row.attempts, row.errors)
            assert line.seconds == 2.0
    assert lines["words", "ada"].score.clusters == 7 and lines["sums", "ada"].errors == 1


def test_the_variance_is_split_as_from_the_values(run: Run) -> None:
    for line in summary(run):
        values: dict[str, list[float]] = {}
        for row in run.rows(benchmark=line.benchmark, agent=line.agent):
            values.setdefault(row.task_id, []).append(row.score or 0.0)
        whole = spread(values)
        for name in ("between", "within"):
            assert getattr(line.spread, name) == pytest.approx(getattr(whole, name), abs=1e-12, nan_ok=True)


def test_no_trace_is_read(run: Run) -> None:
    with run.database.write() as connection:
        connection.execute("DELETE FROM bodies WHERE sha256 IN (SELECT body FROM traces)")
    assert len(run.totals()) == 4


@pytest.mark.slow
def test_it_is_printed_for_people_and_programs(run: Run, capsys: Any) -> None:
    assert main(["summary", str(run.path), "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [each["agent"] for each in body] == ["zoe", "ada", "zoe", "ada"]
    assert main(["summary", str(run.path), "--confidence", "99%"]) == 0
    out = capsys.readouterr().out
    assert "clustered t" in out and "20 tasks in 7 clusters" in out and "score (99%" in out
    wide, narrow = summary(run, 0.99)[0].score, summary(run)[0].score
    assert wide.high - wide.low > narrow.high - narrow.low
    assert main(["summary", str(run.path), "--confidence", "x"]) == 2


def test_each_agent_has_its_own_figures_and_a_note_on_its_strata_or_clusters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    widen(monkeypatch, command)

    def line(agent: str, method: str, clusters: int, inflation: float, **figures: float) -> SummaryRow:
        score = Interval(0.5, 0.25, 0.75, 12, method, 0.1, clusters, inflation)
        found = {
            name: Interval(value, value - 0.1, value + 0.1, 12, "BCa bootstrap") for name, value in figures.items()
        }
        return SummaryRow("b", agent, score, Spread(0.04, math.nan, 12, 24), 24, 1, 30.0, 2.0, 0.0, found)

    lines = [
        line("plain", "t", 0, 1.0), line("ada", "t", 0, 1.0, bleu=0.5, chrf=0.25),
        line("bob", "stratified t", 0, 0.875, bleu=0.75), line("cy", "stratified clustered t", 3, 1.25),
        line("dan", "clustered t", 1, 2.0, chrf=0.375), line("eve", "clustered t", 3, 1.5),
    ]  # fmt: skip
    command.print_lines("b", lines, "90%")
    out = words(capsys.readouterr().out)
    assert out[0] == "b" and out[1].startswith("agent score (90% CI) interval tasks attempts errors sd MDE tokens time")
    assert out[2].startswith("plain 0.500 t 12 24 1 0.200 ") and out[3] == "[0.250, 0.750] ?"
    within = "the standard error is the one within strata"
    beside = "12 tasks in {}: the standard error is multiplied by {}"
    assert [each for each in out if ": " in each and each.split(":")[0] in {each.agent for each in lines}] == [
        "ada: bleu 0.50 [0.40, 0.60], chrf 0.25 [0.15, 0.35]",
        "bob: bleu 0.75 [0.65, 0.85]", f"bob: {within}, 0.88 of that without",
        f"cy: {within}, 1.25 of that without",
        "dan: chrf 0.38 [0.28, 0.47]", "dan: " + beside.format("1 cluster", "2.00"),
        "eve: " + beside.format("3 clusters", "1.50"),
    ]  # fmt: skip


def test_an_empty_run_and_a_single_task_say_what_they_do_not_know(tmp_path: Path, capsys: Any) -> None:
    empty = create(tmp_path, {}, "none")
    assert summary(empty) == [] and main(["summary", str(empty.path)]) == 0
    assert "No attempt has finished" in capsys.readouterr().out
    add(empty, "ada", 0, 0, 0.5)
    [line] = summary(empty)
    assert math.isnan(line.spread.within) and math.isnan(line.detectable) and line.score.high > 0.9
    json.dumps(line.to_json(), allow_nan=False)


@pytest.mark.slow
def test_a_run_of_the_first_schema_is_brought_up_to_date(run: Run) -> None:
    from firsthand.runs.store import open_run

    before = summary(run)
    with run.database.write() as connection:
        for statement in (
            "DROP TABLE steps",
            "DROP TABLE metrics",
            "DROP TABLE rewinds",
            "DROP TABLE samples",
            "DROP TABLE artifacts",
            "DROP INDEX traces_by_id",
            "DROP INDEX traces_by_name",
            "ALTER TABLE traces DROP COLUMN id",
            "ALTER TABLE traces DROP COLUMN numbers",
            "ALTER TABLE run DROP COLUMN planned",
            "ALTER TABLE run DROP COLUMN digest",
            "ALTER TABLE tasks DROP COLUMN digest",
            "ALTER TABLE traces DROP COLUMN digest",
        ):
            connection.execute(statement)
        connection.execute("DROP TABLE scores")
        connection.execute("DROP INDEX traces_by_agent")
        connection.execute("DROP INDEX traces_retried")
        connection.execute("ALTER TABLE tasks DROP COLUMN cluster")
        connection.execute("PRAGMA user_version = 1")
    run.close()
    with open_run(run.path, run.path.parent) as again:
        assert [line.score.value for line in summary(again)] == [line.score.value for line in before]
        assert again.clusters() == {}  # what it did not record cannot be known
