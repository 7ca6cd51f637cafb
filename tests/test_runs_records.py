"""Records of runs as whole values: what a run says of itself, rows and sums of attempts, and errors."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import firsthand
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.model import Usage
from firsthand.preference import Preference
from firsthand.runs import store
from firsthand.runs.attempt_summary import AttemptSummary, error_line, summaries_of, without_words
from firsthand.runs.attempts import TraceRow
from firsthand.runs.database import Database, _readable, checksum, plain, put
from firsthand.runs.score_totals import ScoreMean, TaskMean, Totals
from firsthand.runs.task_groups import TaskGroups, common_groups, same_problem, task_strata
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Score, Trace


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {"seed": 1}, "records", command=["firsthand", "run"]) as made:
        yield made


def trace(
    id: str, task: str = "t", value: float | None = 1.0, *, agent: str = "a", epoch: int = 0, **more: Any
) -> Trace:
    scores = more.pop("scores", () if value is None else (Score("s", value),))
    error = more.pop("error", Failure("Gone", "no answer") if value is None else None)
    benchmark = more.pop("benchmark", "b")
    place = more.pop("place", f"{benchmark}{task}{agent}{epoch}")
    took_s = more.pop("duration_s", 1.0)
    return Trace(
        id, benchmark, task, {"name": agent}, epoch, 0, "", took_s, scores=scores, error=error, place=place, **more
    )


def used(tokens: int, cost: float = 0.0) -> Call:
    return Call(":0", "generate", None, 0.0, 1.0, "r", Usage(tokens, 1, 2, cost))


# -- the run --


@pytest.mark.slow
def test_a_run_says_how_it_was_made(tmp_path: Path) -> None:
    with store.create(
        tmp_path, {"seed": 1, "path": Path("x")}, "My Run!", command=("a", "b"), figures={"f": "spec"}, protocols={"p": "q"},
        reducers={"b": "max"},
    ) as made:  # fmt: skip
        about = made.about
        told = ("config", "command", "figures", "protocols", "reducers", "firsthand", "machine")
        assert {key: about[key] for key in told} == {
            "config": {"seed": 1, "path": "x"}, "command": ["a", "b"], "figures": {"f": "spec"}, "protocols": {"p": "q"},
            "reducers": {"b": "max"}, "firsthand": firsthand.__version__,
            "machine": {
                "system": platform.platform(), "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "python": platform.python_version(), "sqlite": sqlite3.sqlite_version,
            },
        }  # fmt: skip
        assert about["config_seal"] and about["figures_seal"] and made.id[16:-5] == "my-run"
        assert made.path.parent == tmp_path / "runs"
        assert (made.protocols, made.status, made.config["seed"]) == ({"p": "q"}, "interrupted", 1)
        assert [made.reducer("b"), made.reducer("c"), made.reducer("b", "median")] == ["max", "mean", "median"]
        info = made.info
        assert (info.command, info.num_traces, info.num_planned, info.num_steps) == (("a", "b"), 0, None, 0)
        assert abs(info.updated_at - time.time()) < 60 and info.created_at == made.created_at
        with made.working():
            assert made.status == "running"
        assert made.status == "done"
    with store.create(tmp_path, {"reduce": "mode"}, "x", reducers={"b": "max"}) as other:
        assert [other.reducer("b"), other.about["figures"], other.about["figures_seal"], other.protocols] == [
            "mode",
            {},
            "",
            {},
        ]
    with store.create(tmp_path, {}, "x", at=tmp_path / "own") as own:
        assert (own.id, own.path) == ("own", tmp_path / "own")
    with pytest.raises(StoreError, match="own holds a run already: open it, or give another folder"):
        store.create(tmp_path, {}, "x", at=tmp_path / "own")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"no run can be made in .*file .*, and nothing of it is left"):
        store.create(tmp_path, {}, "x", at=tmp_path / "file")
    assert [each.id for each in store.list_runs(tmp_path)] == [other.id, made.id], "the newest first"
    (tmp_path / "runs" / "2020-01-01-0000-old-aaaa").mkdir()
    (tmp_path / "runs" / "2020-01-01-0000-old-aaaa" / "run.sqlite").write_text("no database at all, only words" * 9)
    listed = store.list_runs(tmp_path)
    assert listed[-1].id.endswith("old-aaaa") and listed[-1].status == "unreadable"
    assert "not a SQLite file" in str(listed[-1].problem)
    assert len(listed) == 3 and all(each.problem is None for each in listed[:-1])


def test_attempts_are_rows_summaries_and_sums(run: store.Run) -> None:
    tasks = [Task(name, "?", metadata={"cluster": "c"} if name != "r" else {}) for name in "pqr"]
    run.add_tasks("b", tasks)
    run.add_agent("z", {"name": "z"})
    run.add_agent("a", {"name": "a"})
    attempts = [
        trace("1", "p", 0.0, calls=(used(10, 0.5), used(5)), duration_s=2.0),
        trace("2", "p", 0.5, epoch=1),
        trace("3", "q", None, stop_reason="error", duration_s=3.0),
        trace(
            "4", "r", 1.0, scores=(Score("s", 1.0, {"why": "words", "tokens": 7}), Score("n", 0.25, node=0)), agent="z"
        ),
        trace("5", "p", 1.0, agent="z", benchmark="c"),
        trace("6", "p", 1.0, place="bpa0"),
    ]
    for each in attempts:
        run.append(each)
    assert [(row.id, row.place, row.score, row.tokens, row.num_calls) for row in run.rows()] == [
        ("2", "bpa1", 0.5, 0, 0), ("3", "bqa0", None, 0, 0), ("4", "brz0", 1.0, 0, 0), ("5", "cpz0", 1.0, 0, 0),
        ("6", "bpa0", 1.0, 0, 0),
    ]  # fmt: skip
    (row,) = run.rows(benchmark="b", agent="z")
    assert row == TraceRow("4", "brz0", "b", "r", "z", 0, 1.0, "done", None, 0, 0, 0.0, 1.0) and row.name == "b/r/z/0"
    summary = next(iter(run.summaries(benchmark="b", agent="z")))
    assert summary == AttemptSummary(
        "4", "brz0", "b", "r", "z", 0, "done", None, 0, Usage(), 1.0, 0.0, (Score("s", 1.0, {"tokens": 7}),)
    )
    assert summaries_of([attempts[3], summary]) == [summary, summary]
    failed = AttemptSummary.of(attempts[2])
    assert (failed.error, failed.value(), summary.value(), summary.value("s"), summary.value("x")) == (
        "Gone: no answer", None, 1.0, 1.0, None,
    )  # fmt: skip
    # b/a: p has the mean 0.75 of two attempts, 1 and 0.5, q failed; their cluster is c
    assert run.totals() == [
        Totals("b", "z", 1, 1, 1, 1.0, 0.0, 1.0, 1.0, 0, 0.0, 1.0, 0, 0, 0.0, 1.0, ()),
        Totals("b", "a", 2, 3, 2, 0.75, 0.28125, 0.0, 0.75, 1, 0.125, 1.5, 1, 0, 0.0, 5.0, ((0.75, 2),)),
        Totals("c", "z", 1, 1, 1, 1.0, 0.0, 1.0, 1.0, 0, 0.0, 1.0, 0, 0, 0.0, 1.0, ()),
    ]
    assert run.task_means() == [
        TaskMean("b", "z", "r", 1.0, 1, 1, True), TaskMean("b", "a", "p", 0.75, 2, 2, False),
        TaskMean("b", "a", "q", 0.0, 1, 0, True), TaskMean("c", "z", "p", 1.0, 1, 1, True),
    ]  # fmt: skip
    assert run.info.scores == (ScoreMean("b", "z", 1.0, 1), ScoreMean("b", "a", 0.375, 2), ScoreMean("c", "z", 1.0, 1))
    assert (run.info.num_traces, run.info.num_errors, run.info.tokens) == (5, 1, 0)
    run.append(trace("7", "p", None, benchmark="d"))
    assert [each.benchmark for each in run.info.scores] == ["b", "b", "c"], "of d nothing was scored"
    assert run.pairs() == [("b", "z"), ("b", "a"), ("c", "z"), ("d", "a")] and run.spent() == (
        Usage(19, cost_usd=0.5),
        2,
    )
    judge = {"completions": [{"usage": Usage(4, 1, 3, 0.25).to_json()}, {"usage": Usage(1, 0, 1).to_json()}]}
    for place, effect in (
        ("bpa0", "scorer j|0"),
        ("bpa0", "scorer j|0"),
        ("bqa0", "scorer j|0"),
        ("bqa0", "0"),
        ("none", "scorer j|0"),
    ):
        run.journal(place).record(effect, "r", judge)
    assert run.spent() == (Usage(19 + 2 * 9, cost_usd=1.0), 4), "judges of finished attempts, each reply once"
    assert run.done() == {"bpa0", "bpa1", "bqa0", "brz0", "cpz0", "dpa0"}
    assert run.done(errors=False) == run.done() - {"bqa0", "dpa0"}
    assert [each.id for each in run.tries("bpa0")] == ["1", "6"] and [n for _, n in run.tried(agent="a")] == [
        1,
        1,
        2,
        1,
    ]


def test_scores_given_later_follow_an_attempts_own(run: store.Run) -> None:
    one, two = trace("1", "p", 0.5), trace("2", "q", 0.0)
    for each in (one, two):
        run.append(each)
    run.add_score(one, 1, "judged", "rubric", Score("judged", 0.25, {"why": "x", "calls": 2}))
    run.add_score(two, 1, "judged", "rubric", Score("judged", 1.0, failure="E: gone"))
    run.add_score(one, 1, "judged", "rubric", Score("judged", 0.75, {"calls": 3}))
    run.add_score(one, 1, "first", "exact", Score("first", 1.0))
    assert run.score_names() == {"judged": "rubric", "first": "exact"}
    assert run.scored("judged") == {("bpa0", 1): True, ("bqa0", 1): False} and run.scored("none") == {}
    assert [(score.name, score.value, score.detail) for score in run.trace("1").scores] == [
        ("s", 0.5, {}), ("judged", 0.75, {"calls": 3}), ("first", 1.0, {}),
    ]  # fmt: skip
    assert [[(score.name, score.value) for score in each.scores] for each in run.summaries()] == [
        [("s", 0.5), ("judged", 0.75), ("first", 1.0)], [("s", 0.0), ("judged", 1.0)],
    ]  # fmt: skip
    assert [each.id for each in run.samples("b")] == ["1"] and run.samples("c") == []
    assert [(each.agent, each.sum_means, each.scored) for each in run.totals("judged")] == [("a", 0.75, 1)]
    with pytest.raises(
        StoreError, match=r"has scores named 'judged' already, given by rubric: give the new ones another name"
    ):
        run.add_score(one, 1, "judged", "exact", Score("judged", 1.0))
    hidden = Score("s", 0.5, {"why": "secret", "judge": "m"}, failure="E: secret")
    assert without_words(hidden, True) == Score("s", 0.5, {"judge": "m"}, failure="E")
    assert without_words(hidden).failure == "E: secret"
    assert without_words(Score("s", 1.0, failure="E: x")).failure == "E: x"
    kept = trace("9", value=None, events=(Event("protected", 0.0, {"why": "w"}),))
    assert (error_line(kept), error_line(trace("8")), error_line(trace("7", value=None))) == (
        "Gone",
        None,
        "Gone: no answer",
    )


def test_an_attempt_is_found_by_any_unique_part_of_its_names(run: store.Run) -> None:
    for id, task, agent, epoch, place in (
        ("ab1", "t1", "x", 0, "p100"), ("ab2", "t1", "x", 1, "p101"), ("cd3", "t1", "y", 0, "p200"),
        ("ef4", "t2", "x", 0, "p300"),
        ("ef5", "t2", "x", 0, "p300"),
    ):  # fmt: skip
        run.append(trace(id, task, agent=agent, epoch=epoch, place=place))
    found = {
        "ab1": "ab1", "p101": "ab2", "b/t1/y/0": "cd3", "cd": "cd3", "p2": "cd3", "b/t2": "ef5", "b/t2/": "ef5",
        "b/t1/y": "cd3",
        "ef4": "ef4", "p300": "ef5", "b/t2/x/0": "ef5",
    }  # fmt: skip
    assert {ref: run.trace(ref).id for ref in found} == found
    for ref, said in (
        ("ab", r"'ab' names 2 attempts, such as b/t1/x/0 \(ab1\), b/t1/x/1 \(ab2\): give more of it"),
        ("b", r"'b' names 4 attempts, such as "),
        ("", "no attempt ''"),
        ("cd33", "no attempt 'cd33'; did you mean 'cd3'"),
    ):
        with pytest.raises(UnknownName, match=said):
            run.trace(ref)
    for n in range(20):
        run.append(trace(f"many{n:02}", f"m{n}", place=f"m{n}"))
    with pytest.raises(UnknownName, match="'many' names 20 or more attempts"):
        run.trace("many")


def test_tasks_are_kept_with_their_groups_and_data(run: store.Run) -> None:
    first = Task("1", "?", metadata={"cluster": "c", "level": 2}, secret={"columns": {"level": 1, "topic": "x"}})
    tasks = [first, Task("2", "??", metadata={"stratum": "s"})]
    run.add_tasks("b", tasks)
    run.add_tasks("a", [Task("1", "other")])
    assert run.benchmarks() == ["b", "a"] and list(run.tasks()) == [("b", "1"), ("b", "2"), ("a", "1")]
    assert run.task("b", "1") == first and run.task("b", "3") is None
    assert list(run.metadata("b")) == [("1", {"cluster": "c", "level": 2, "topic": "x"}), ("2", {"stratum": "s"})]
    assert list(run.metadata("b", 1)) == list(run.metadata("b"))[:1] and list(run.metadata("b", 0)) == []
    assert run.clusters() == {"b": {"1": "c"}}
    run.add_tasks("b", [replace(first, metadata={"cluster": "other", "level": 2})])
    with pytest.raises(StoreError, match=r"task '2' of b is not the one that run .* already holds"):
        run.add_tasks("b", [Task("2", "new")])
    assert run.task("b", "2") == tasks[1]
    run.add_agent("x", {"name": "x"})
    with pytest.raises(StoreError, match=r"agent 'x' is not the one that run"):
        run.add_agent("x", {"name": "x", "more": 1})
    strata = task_strata(run, "level")
    assert strata == {"b": {"1": "2", "2": ""}} and task_strata(run, None) == {}
    with pytest.raises(
        ConfigError,
        match=r"strata is 'levle', .* did you mean 'level'\? there are cluster, level, topic",
    ):
        task_strata(run, "levle")
    groups = run.clusters("level")["b"]
    assert isinstance(groups, TaskGroups) and dict(groups) == {} and groups.strata == strata["b"]
    two = TaskGroups({"1": "c", "2": "d", "3": "e"}, {"1": "s", "2": "s", "3": "t", "4": "u", "5": "u"})
    assert dict(two) == {"1": "c", "2": "d"}, "a stratum that is one cluster has none"
    assert common_groups({"b": {"1": "x"}}, {"b": {"1": "y"}}) == {"b": {"1": "y"}}
    assert common_groups({"b": two}, {"b": {"1": "y"}})["b"] is two and common_groups({"b": {}}, {"b": two})["b"] is two
    assert same_problem(first, replace(first, metadata={"level": 2}))
    assert not same_problem(first, replace(first, prompt="!"))
    assert not same_problem(first, replace(first, metadata={"level": 3}))


def test_the_journal_gives_the_last_reply_to_each_request(run: store.Run) -> None:
    journal = run.journal("p")
    assert journal.find("e", "r") is None
    for effect, request, n in (("e", "r", 1), ("f", "r", 2), ("e", "r", 3), ("scorer x|e", "q", 4)):
        journal.record(effect, request, {"n": n})
    again = run.journal("p")
    assert [again.find("e", "r"), again.find("f", "r"), again.find("e", "q"), journal.find("e", "r")] == [
        {"n": 3}, {"n": 2}, None, {"n": 3},
    ]  # fmt: skip
    assert again.entries() == [("f", "r", {"n": 2}), ("e", "r", {"n": 3}), ("scorer x|e", "q", {"n": 4})]
    assert again.replies() == [{"n": 2}, {"n": 3}] and again.replies("scorer x") == [{"n": 4}]
    assert run.reply("r") == {"n": 3} and run.reply("none") is None and run.journal("other").find("e", "r") is None
    votes = [Preference("t", "1", "2", "a", "ann"), Preference("t", "2", "1", "tie", "bob")]
    for vote in votes:
        run.add_preference(vote)
    assert run.preferences() == votes


# -- the file --


def test_bodies_are_stored_as_they_can_be_read_again(run: store.Run) -> None:
    with run.database.write() as connection:
        odd = {1: (2, {"x"}), "deep": None, "big": 1 << 20_000}
        digest = put(connection, odd, exact=False)
        assert put(connection, odd, exact=False) == digest != put(connection, {"b": 1, "a": 2})
        with pytest.raises(StoreError, match="this cannot be stored as JSON"):
            put(connection, {"x": {1}})
    kept = run.database.get(digest)
    assert kept == {"1": [2, "{'x'}"], "deep": None, "big": hex(1 << 20_000)}
    nested: Any = 0
    for _ in range(100):
        nested = [nested]
    assert "nested more than 100 deep" in json.dumps(_readable([nested]))
    assert "nested" not in json.dumps(_readable(nested))
    assert _readable(1 << 13_999) == 1 << 13_999 and _readable(1 << 14_000) == hex(1 << 14_000)
    assert plain("a\ud800é") == "a\\ud800é" and checksum(1, "a") != checksum(1, "b") != checksum("1", "b")
    with pytest.raises(StoreError, match="is damaged: a body that is referred to is missing"):
        run.database.get(b"x" * 32)


def test_each_failure_of_sqlite_is_told_with_what_to_do(run: store.Run) -> None:
    database = run.database
    path = database.path

    def said(name: str) -> str:
        error = sqlite3.OperationalError("why")
        error.sqlite_errorname = name
        return str(database._explain(error))

    resume = "then resume the run"
    assert (
        said("SQLITE_FULL") == f"the disk of {path.parent} is full (why). What is recorded is kept: make room, {resume}"
    )
    unwritable = f"{path} cannot be written (why): make its folder writable, or copy the folder to a place that is"
    assert [said(name) for name in ("SQLITE_READONLY_X", "SQLITE_CANTOPEN", "SQLITE_PERM")] == [unwritable] * 3
    busy = f"{path} is in use by another process and stayed so for 10 s: wait for it or end it, {resume}"
    assert said("SQLITE_BUSY") == busy == said("SQLITE_LOCKED_X")
    assert said("SQLITE_NOTADB") == f"{path} is not a SQLite file, or its beginning is damaged: restore it from a copy"
    assert said("SQLITE_IOERR_READ") == f"{path} cannot be read or written (why): check the disk, {resume}"
    assert said("") == (
        f"{path} is damaged: why. Restore the run's folder from a copy, or rescue what can be read with "
        f"`sqlite3 {path} .recover`"
    )
    with pytest.raises(StoreError, match=r"no run at .*none: `firsthand runs` shows all"):
        Database(path.parent / "none")
    version = database.version
    assert database.version == version
    run.plan(3)
    assert database.version != version and run.info.num_planned == 3
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute("DELETE FROM run")
        raise ZeroDivisionError
    assert database.read("SELECT planned FROM run") == [(3,)], "what fails is rolled back"


def test_a_summary_of_a_protected_attempt_has_no_words_of_its_scorer_or_its_error() -> None:
    failed = Score("s", 0.0, {"judge": "m", "why": "words"}, failure="ValueError: the secret task", unjudged=True)
    hidden = trace("1", scores=(failed, Score("t", 0.5)), error=Failure("Gone", "a secret"),
                   events=(Event("protected", 0.0, {"why": "w"}),))  # fmt: skip
    open_one = replace(hidden, events=())
    kept = Score("s", 0.0, {"judge": "m"}, failure="ValueError", unjudged=True)
    assert AttemptSummary.of(hidden).scores == (kept, Score("t", 0.5)) and AttemptSummary.of(hidden).error == "Gone"
    assert AttemptSummary.of(open_one).scores[0] == replace(kept, failure="ValueError: the secret task")
    assert AttemptSummary.of(open_one).error == "Gone: a secret"
