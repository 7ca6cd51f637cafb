"""Attempts, scores, tasks and effects in a run's file: each row as it is written, and each query on a few of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import StoreError, UnknownName
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import attempts, later_scores, score_totals, stored_tasks
from firsthand.runs.attempt_summary import AttemptSummary, error_line, pack_numbers, unpack_numbers, without_words
from firsthand.runs.attempts import TraceRow, insert_trace, is_tree, latest_rows, read_trace, summaries, trace_body
from firsthand.runs.database import Database, checksum, put
from firsthand.runs.run_names import DATABASE
from firsthand.runs.score_totals import ScoreMean, TaskMean, Totals
from firsthand.runs.stored_journal import StoredJournal, now
from firsthand.runs.unreported_usage import Unreported
from firsthand.task import Task
from firsthand.trace import TRACE_VERSION, Call, Event, Failure, Node, Score, Trace
from made_traces import trace

ORDER = "SELECT {} FROM {} ORDER BY seq"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / DATABASE, create=True)
    yield made
    made.close()


def call(id: str, tokens: int, usd: float, seconds: float = 1.5) -> Call:
    return Call(id, "generate", 0, 0.0, seconds, "r", Usage(tokens, 1, 2, usd))


def keep(database: Database, *made: Trace) -> None:
    with database.write() as connection:
        for each in made:
            insert_trace(connection, each)


def test_a_row_has_the_numbers_of_its_attempt_and_a_checksum(database: Database) -> None:
    made = trace(
        "id\ud800", "t\ud800", 0.25, agent="a", epoch=3, benchmark="b", place="p", stop_reason="tokens",
        calls=(call(":1", 7, 0.5), call(":2", 5, 0.25, 2.0)),
        scores=(Score("step", 9.0, node=0), Score("s", 0.25, {"judge": "j", "why": "long"}), Score("u", 1.0)),
    )  # fmt: skip
    keep(database, made, trace("second", "t", None, place="p", error=Failure("Gone", "\ud800")), trace("x", place="q"))
    ((*row, body, numbers, digest), (_, number, id, error, score, _), other) = [
        database.read(
            "SELECT seq, attempt, try, benchmark, task, agent, epoch, score, stop_reason, error, calls, tokens, cost_usd,"
            " duration_s, version, id, body, numbers, digest FROM traces WHERE seq = 1"
        )[0],
        database.read("SELECT seq, try, id, error, score, task FROM traces WHERE seq = 2")[0],
        database.read("SELECT attempt, try FROM traces WHERE seq = 3")[0],
    ]
    assert row == [
        1, "p", 1, "b", "t\\ud800", "a", 3, 0.25, "tokens", None, 2, 16, 0.75, 1.0, TRACE_VERSION, "id\\ud800",
    ]  # fmt: skip
    assert (number, id, error, score, other) == (2, "second", "Gone: \\ud800", None, ("q", 1))
    kept = [{"name": "s", "value": 0.25, "detail": {"judge": "j"}}, {"name": "u", "value": 1.0}]
    assert json.loads(numbers) == [[12, 2, 4], 3.5, kept]
    assert digest == checksum(*row[:15], body, row[15], numbers)
    assert (read_trace(database, body), trace_body(database, "p", 1)) == (made, json.loads(json.dumps(made.to_json())))
    assert read_trace(database, body).nodes == ()


def test_the_latest_try_of_each_attempt_is_listed_in_the_order_they_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trace("1", "t1", 0.5, calls=(call(":1", 3, 0.5),)), trace("2", "t2", None, agent="z")
    again = trace("3", "t1", 0.75, stop_reason="calls", calls=(call(":1", 8, 0.25), call(":2", 8, 0.25)))
    keep(database, first, second, again, trace("4", "t1", 0.0, benchmark="c"))
    rows = list(latest_rows(database, None, None))
    assert [(row.id, number) for row, number, _ in rows] == [("2", 1), ("3", 2), ("4", 1)]
    assert rows[1][0] == TraceRow("3", "bt1a0", "b", "t1", "a", 0, 0.75, "calls", None, 2, 20, 0.5, 1.0)
    assert (rows[1][0].name, read_trace(database, rows[1][2])) == ("b/t1/a/0", again)
    assert (rows[0][0].score, rows[0][0].error) == (None, "Gone: no answer")
    assert [row.id for row, _, _ in latest_rows(database, "b", None)] == ["2", "3"]
    assert [row.id for row, _, _ in latest_rows(database, None, "a")] == ["3", "4"]
    assert [row.id for row, _, _ in latest_rows(database, "c", "z")] == []
    keep(database, trace("5", benchmark="b\ud800", agent="a\ud800"))
    assert [row.id for row, _, _ in latest_rows(database, "b\ud800", "a\ud800")] == ["5"]
    monkeypatch.setattr(attempts, "_PAGE", 2)
    assert [row.id for row, _, _ in latest_rows(database, None, None)] == ["2", "3", "4", "5"]
    assert attempts.samples(database, "b", ()) == ["bt1a0"]


def test_summaries_have_the_scores_given_later_and_are_decoded_where_there_are_none(database: Database) -> None:
    one = trace("1", "t1", 0.5, calls=(call(":1", 7, 0.5), call(":2", 5, 0.25, 2.0)))
    two = trace("2", "t2", None, agent="z", epoch=4, calls=(Call(":1", "generate", 0, 0.0, 1.5, "r"),))
    keep(database, one, one, two)
    given = Score("later", 0.25, {"why": "words", "judge": "j"})
    with database.write() as connection:
        for number, name, score in (
            (1, "later", Score("later", 1.0)), (2, "more", Score("m", 8.0)), (2, "later", Score("later", 0.5)),
            (2, "later", given),
        ):  # fmt: skip
            later_scores.insert_score(connection, "r", one, number, name, "rubric", score)
        later_scores.insert_score(connection, "r", two, 1, "later", "rubric", Score("later", 0.0, failure="E: no"))
    whole = AttemptSummary(
        "1", "bt1a0", "b", "t1", "a", 0, "done", None, 2, Usage(12, 2, 4, 0.75), 1.0, 3.5,
        (Score("s", 0.5), Score("m", 8.0), replace(given, detail={"judge": "j"})),
    )  # fmt: skip
    other = AttemptSummary.of(two).scored((Score("later", 0.0, failure="E: no"),))
    assert list(summaries(database, None, None)) == [whole, other]
    assert list(summaries(database, None, "z")) == [other] and other.unreported == (1, 0, 0)
    with database.write() as connection:
        connection.execute("UPDATE traces SET numbers = NULL")
        connection.execute("UPDATE scores SET numbers = NULL")
    decoded = list(summaries(database, None, None))
    assert decoded[0] == replace(whole, scores=(*whole.scores[:2], given))
    assert list(later_scores.score_names(database).items()) == [("later", "rubric"), ("more", "rubric")]
    assert later_scores.scored(database, "later") == {("bt1a0", 1): True, ("bt1a0", 2): True, ("bt2z4", 1): False}
    assert later_scores.with_scores(database, one, 2).scores == (Score("s", 0.5), Score("m", 8.0), given)
    assert later_scores.with_scores(database, one, 3) is one
    assert attempts.samples(database, "b", ["none", "later", "more"]) == ["bt1a0"]
    assert attempts.samples(database, "c", ["later"]) == []
    with pytest.raises(StoreError) as refused, database.write() as connection:
        later_scores.insert_score(connection, "r7", two, 1, "later", "other", given)
    assert str(refused.value) == (
        "run r7 has scores named 'later' already, given by rubric: give the new ones another name, as in --as NAME"
    )
    with database.write() as connection:
        connection.execute("UPDATE traces SET numbers = '[]' WHERE seq = 2")
    with pytest.raises(StoreError, match="a record is not what was expected: ValueError"):
        list(summaries(database, None, None))


def test_a_later_score_has_its_value_its_body_and_its_numbers(database: Database) -> None:
    hidden = trace("1", place="p\ud800", events=(Event("protected", 0.0, {"why": "asked"}),))
    score = Score("s", 0.5, {"judge": "j", "why": "w"}, failure="E: secret", unjudged=True)
    before = now()
    with database.write() as connection:
        later_scores.insert_score(connection, "r", hidden, 3, "n\ud800", "by\ud800", score)
        later_scores.insert_score(connection, "r", hidden, 3, "m", "by", Score("s", 0.75))
    one, two = database.read(
        ORDER.format("seq, attempt, try, name, scorer, value, body, at, numbers, digest", "scores")
    )
    assert one[:6] == (1, "p\\ud800", 3, "n\\ud800", "by\\ud800", None)
    assert before <= one[7] <= now()
    assert json.loads(one[8]) == {"name": "s", "value": 0.5, "detail": {"judge": "j"}, "failure": "E", "unjudged": True}
    assert attempts.read_score(database, one[6]) == score
    assert (one[9], two[5]) == (checksum(*one[:9]), 0.75)


def test_a_summary_tells_an_error_in_one_line_and_no_words_of_a_protected_task() -> None:
    failed = trace("1", "t", None, error=Failure("Gone", "no \nanswer"))
    hidden = replace(failed, events=(Event("protected", 0.0, {"why": "x"}),))
    unexplained = [replace(failed, events=(Event("protected", 0.0, data),)) for data in ({}, {"why": ""})]
    assert [error_line(each) for each in (failed, hidden, *unexplained, trace("2"))] == [
        "Gone: no \nanswer",
        "Gone",
        "Gone",
        "Gone",
        None,
    ]
    score = Score("s", 0.5, {"why": "words", "tokens": 3}, 2, failure="E: words")
    assert without_words(score) == replace(score, detail={"tokens": 3})
    assert without_words(score, True) == replace(score, detail={"tokens": 3}, failure="E")
    plain = Score("s", 0.5, failure="E: words")
    assert without_words(plain) is plain
    assert without_words(plain, True).failure == "E"
    made = AttemptSummary.of(trace("1", scores=(Score("a", 1, {}, 0), Score("b", 2), Score("c", float("inf")))))
    assert [each.name for each in made.attempt_scores] == ["b", "c"]
    assert AttemptSummary.of(replace(hidden, scores=(score, plain, Score("t", 1.0, {"why": "w", "by": 2})))).scores == (
        replace(plain, failure="E"), Score("t", 1.0, {"by": 2}),
    )  # fmt: skip
    assert AttemptSummary.of(trace("1", scores=(plain,))).scores == (plain,)
    assert made.scored((Score("d", float("nan")),)).value() is None
    assert (made.value(), made.value("b"), made.value("c"), made.value("a")) == (2.0, 2.0, None, None)
    assert replace(made, error="E").value() is None
    assert made.scored((plain,)).value() is None
    assert made.score("c") == Score("c", float("inf"))
    assert unpack_numbers(pack_numbers(made)) == ((0, 0, 0), 0.0, made.scores, (0, 0, 0))
    told = replace(made, unreported=Unreported(1, 2, 3))
    assert unpack_numbers(pack_numbers(told)) == ((0, 0, 0), 0.0, made.scores, (1, 2, 3))
    for wrong in (
        "[]",
        "[[1, 2], 0, []]",
        '[[1, 2, 3], 0, [{"value": 1}]]',
        "5",
        "[[1, 2, 3], 0, [], [1, 2, 3], 4]",
        "[[1, 2, 3], 0, [], [1, 2, 3, 4]]",
        "[[1, 2, 3], 0, [], 4]",
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            unpack_numbers(wrong)


def test_an_attempt_is_found_by_id_place_name_or_the_beginning_of_one(database: Database) -> None:
    keep(
        database, trace("idone", "t1", place="aa11"), trace("idtwo", "t1", place="aa11"),
        trace("idmore", "t2", place="aa22", epoch=1), trace("other", "t3", place="bb33", benchmark="c"),
    )  # fmt: skip

    def found(ref: str) -> tuple[str, int]:
        return attempts.find(database, ref, "r1")

    assert [found(ref) for ref in ("idone", "idtwo", "aa11", "b/t1/a/0", "bb", "oth", "c", "c/", "b/t2")] == [
        ("aa11", 1), ("aa11", 2), ("aa11", 2), ("aa11", 2), ("bb33", 1), ("bb33", 1), ("bb33", 1), ("bb33", 1), ("aa22", 1),
    ]  # fmt: skip
    assert found("aa1") == ("aa11", 2)
    assert found("b") == ("bb33", 1), "a place that begins so goes before a benchmark of that name"
    with pytest.raises(UnknownName) as few:
        found("aa")
    assert str(few.value) == ("'aa' names 2 attempts, such as b/t1/a/0 (idtwo), b/t2/a/1 (idmore): give more of it")
    for ref in ("", "zz", "t1", "b/t"):
        with pytest.raises(UnknownName, match=r"^no attempt .*`firsthand runs r1` shows all$"):
            found(ref)
    with pytest.raises(UnknownName, match="did you mean 'idmore'"):
        found("idmor3")
    with pytest.raises(UnknownName, match="did you mean 'bb33'"):
        found("bb34")
    with pytest.raises(UnknownName, match="did you mean 'b/t2/a/1'"):
        found("b/t2/a/7")
    keep(database, *(trace(f"n{n:02}", f"u{n}", place=f"q{n:02}") for n in range(20)))
    with pytest.raises(UnknownName, match=r"^'q' names 20 or more attempts, such as ") as many:
        found("q")
    assert str(many.value).count(" (n") == 4


def test_a_trace_is_a_tree_or_is_not_read(database: Database) -> None:
    nodes = (Node(None, user("q")), Node(0, assistant("a")), Node(1, assistant("b")))
    assert is_tree(trace("1", nodes=nodes))
    assert is_tree(trace("1"))
    for parents in ((0,), (None, 1), (None, 2, 0), (None, -1)):
        assert not is_tree(trace("1", nodes=tuple(Node(parent, user("q")) for parent in parents)))
    with database.write() as connection:
        text, other = put(connection, ["no", "object"]), put(connection, {"version": 3})
    with pytest.raises(StoreError, match="a body is not a JSON object"):
        attempts.body_of(database, text)
    with pytest.raises(StoreError, match="a record is not what was expected: KeyError"):
        read_trace(database, other)
    for kind in (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError):

        def parse(stored: Any, kind: type[Exception] = kind) -> None:
            raise kind(stored)

        with pytest.raises(StoreError) as told:
            attempts.parsed(database, parse, "it")
        assert f"a record is not what was expected: {kind('it')!r}. Restore" in str(told.value)
    assert attempts.parsed(database, str.upper, "it") == "IT"


def test_the_sums_of_a_benchmark_are_those_of_the_latest_tries_by_task(database: Database) -> None:
    cost = (call(":1", 8, 0.5),)
    scores = (
        ("t1", 0, 1.0),
        ("t1", 1, 0.0),
        ("t2", 0, 0.25),
        ("t2", 1, None),
        ("t3", 0, 0.5),
        ("t3", 0, 1.0),
        ("t4", 0, None),
    )
    keep(
        database,
        *(trace(f"{n}", task, value, epoch=epoch, calls=cost) for n, (task, epoch, value) in enumerate(scores)),
        trace("z", "t1", 0.5, agent="z"),
        trace("y", "t1", 1.0, agent="a", benchmark="a"),
    )
    groups = {"t1": {"cluster": "c"}, "t2": {"cluster": "c"}, "t3": {}, "t4": {"cluster": "d"}}
    stored_tasks.add_tasks(database, "r", "b", [Task(id, "?", metadata=each) for id, each in groups.items()])
    with database.write() as connection:
        for name in ("z", "a"):
            connection.execute("INSERT INTO agents VALUES (?, ?)", (name, put(connection, {})))
    assert score_totals.pairs(database) == [("a", "a"), ("b", "z"), ("b", "a")]
    other, single, whole = score_totals.totals(database)
    assert whole == Totals(
        "b", "a", tasks=4, attempts=6, scored=4, sum_means=1.625, squares_between=1.265625 - 1.625**2 / 4,
        lowest=0.0, highest=1.0,
        fractions=2, squares_within=0.53125, inverse_epochs=3.0, others=1, tokens=60, cost_usd=3.0, seconds=6.0,
        clusters=((1.0, 1), (0.625, 2), (0.0, 1)),
    )  # fmt: skip
    assert (single.agent, single.sum_means, single.clusters, other.benchmark, other.clusters) == ("z", 0.5, (), "a", ())
    assert score_totals.score_means(score_totals.totals(database)) == (
        ScoreMean("a", "a", 1.0, 1), ScoreMean("b", "z", 0.5, 1), ScoreMean("b", "a", 1.625 / 4, 4),
    )  # fmt: skip
    assert score_totals.task_means(database)[2:] == [
        TaskMean("b", "a", "t1", 0.5, 2, 2, True), TaskMean("b", "a", "t2", 0.125, 2, 1, False),
        TaskMean("b", "a", "t3", 1.0, 1, 1, True), TaskMean("b", "a", "t4", 0.0, 1, 0, True),
    ]  # fmt: skip
    assert score_totals._clusters([(1.0, 1), (0.5, 1)]) == ()


def test_scores_given_later_are_summed_by_name_or_stand_in_where_there_are_no_own(database: Database) -> None:
    bare, own = trace("1", "t1", scores=()), trace("2", "t1", 0.5, benchmark="c")
    keep(database, bare, trace("3", "t2", scores=()), own)
    with database.write() as connection:
        for name, value, made in (
            ("first", 0.25, bare),
            ("second", 4.0, bare),
            ("second", 3.0, bare),
            ("second", 2.0, own),
        ):
            later_scores.insert_score(connection, "r", made, 1, name, "by", Score(name, value))
    plain, other = score_totals.totals(database)
    assert (plain.benchmark, plain.scored, plain.sum_means, plain.attempts) == ("b", 1, 0.25, 2)
    assert (other.benchmark, other.scored, other.sum_means) == ("c", 1, 0.5)
    named = score_totals.totals(database, "second")
    assert [(each.scored, each.sum_means, each.others, each.highest) for each in named] == [
        (1, 3.0, 1, 3.0),
        (1, 2.0, 1, 2.0),
    ]
    assert [each.scored for each in score_totals.totals(database, "none")] == [0, 0]
    empty = Trace("9", "d", "t", {"name": "a"}, 0, 0, "", 1.0)
    keep(database, empty)
    assert [each.benchmark for each in score_totals.score_means(score_totals.totals(database))] == ["b", "c"]


def test_what_a_run_spent_is_that_of_every_try_and_its_judges(database: Database) -> None:
    made = trace("1", "t1", place="p", calls=(call(":1", 7, 0.5), call(":2", 5, 0.25)))
    assert score_totals.spent(database) == (Usage(), 0)
    keep(database, made, made)
    verdict = {"completions": [{"usage": Usage(10, 0, 3, 0.125).to_json()}, {"usage": Usage(1).to_json()}]}
    judged = StoredJournal(database, "p")
    judged.record("scorer 0|:1", "r", verdict)
    judged.record("scorer 0|:1", "r", verdict)
    judged.record("scorer 1|:1", "r", {"usage": Usage(0, 0, 4, 1.0).to_json()})
    judged.record(":1", "r", verdict)
    judged.record("scorer 0", "r", verdict)
    StoredJournal(database, "other").record("scorer 0|:1", "r", verdict)
    assert score_totals.spent(database) == (Usage(32 + 14 + 4, cost_usd=1.5 + 1.125), 4 + 2)


def test_a_journal_finds_the_last_reply_of_its_attempt_and_tells_parts_apart(database: Database) -> None:
    mine, other = StoredJournal(database, "p\ud800"), StoredJournal(database, "q")
    assert mine.attempt_id == "p\\ud800"
    assert mine.find(":1", "r") is None and mine._recorded == set(), "of a new attempt no reply is read again"
    before = now()
    for effect, request, reply in (
        (":1", "r", {"n": 1}),
        (":2", "r", {"n": 2}),
        (":1", "r", {"n": 3}),
        ("s|:1", "r", {"n": 4}),
    ):
        mine.record(effect, request, reply)
    other.record(":1", "r", {"n": 5})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", before)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(before)).total_seconds()) < 600
    ((*row, at), *_) = database.read("SELECT seq, attempt, effect, request, at FROM effects ORDER BY seq")
    assert (row, before <= at <= now()) == ([1, "p\\ud800", ":1", "r"], True)
    assert [mine.find(*asked) for asked in ((":1", "r"), (":2", "r"), (":2", "x"), (":3", "r"))] == [
        {"n": 3}, {"n": 2}, None, None,
    ]  # fmt: skip
    assert mine.entries() == [(":2", "r", {"n": 2}), (":1", "r", {"n": 3}), ("s|:1", "r", {"n": 4})]
    assert (mine.replies(), mine.replies("s"), other.replies()) == ([{"n": 2}, {"n": 3}], [{"n": 4}], [{"n": 5}])
    again = StoredJournal(database, "p\ud800")
    assert (again.find(":1", "r"), again._recorded) == ({"n": 3}, None)
    with database.write() as connection:
        text = put(connection, ["text"])
        connection.execute("UPDATE effects SET reply = ? WHERE seq = 2", (text,))
    with pytest.raises(StoreError, match="a reply is not a JSON object"):
        again.find(":2", "r")


def test_tasks_are_kept_once_with_their_groups_and_their_data(database: Database) -> None:
    one = Task(
        "t1", "one?", metadata={"cluster": 0, "level": 2}, secret={"answer": "x", "columns": {"level": 9, "own": 1}}
    )
    two = Task("t2\ud800", "two?", secret={"columns": "none"})
    stored_tasks.add_tasks(database, "r", "m", [one, two, one])
    stored_tasks.add_tasks(database, "r", "a", [replace(one, prompt="another?")])
    assert stored_tasks.tasks(database) == {
        ("m", "t1"): one, ("m", "t2\ud800"): two, ("a", "t1"): replace(one, prompt="another?"),
    }  # fmt: skip
    assert list(stored_tasks.tasks(database)) == [("m", "t1"), ("m", "t2\ud800"), ("a", "t1")]
    found = [stored_tasks.task(database, *key) for key in (("m", "t1"), ("m", "t2\ud800"), ("m", "t3"), ("b", "t1"))]
    assert found == [one, two, None, None]
    assert stored_tasks.benchmarks(database) == ["m", "a"]
    assert stored_tasks.clusters(database) == {"m": {"t1": "0"}, "a": {"t1": "0"}}, "0 is a group"
    assert replace(one, metadata={"stratum": 0}).stratum == "0" and one.stratum is None
    whole = [("t1", {"own": 1, "cluster": 0, "level": 2}), ("t2\\ud800", {})]
    assert list(stored_tasks.metadata(database, "m")) == whole
    assert list(stored_tasks.metadata(database, "m", 1)) == whole[:1]
    assert list(stored_tasks.metadata(database, "m", 0)) == []
    regrouped = replace(one, metadata={"cluster": 8, "level": 2})
    stored_tasks.add_tasks(database, "r", "m", [regrouped])
    assert stored_tasks.clusters(database)["m"] == {"t1": "0"}, "the first counts"
    with pytest.raises(StoreError) as changed:
        stored_tasks.add_tasks(database, "r9", "m", [Task("t5", "five?"), replace(one, prompt="one!")])
    assert str(changed.value) == (
        "task 't1' of m is not the one that run r9 already holds, so their results cannot be mixed: start a new run, or "
        "give it a name of its own"
    )
    assert ("m", "t5") not in stored_tasks.tasks(database), "none of them was kept"
    rows: list[tuple[Any, ...]] = database.read("SELECT benchmark, task, body, cluster, digest FROM tasks")
    assert all(row[4] == checksum(*row[:4]) for row in rows)
