"""The live feed in small: the rows it writes and drops, when it writes them, what is read back, and how it is followed."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import StoreError
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import Message, Sampled, Text, assistant
from firsthand.model import Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import feed as feeding
from firsthand.runs.attempts import insert_trace
from firsthand.runs.database import Database
from firsthand.runs.feed import FLUSH_S, Both, Ended, Feed, FeedStep, Started, _from_json, _rows, step_to_json
from firsthand.runs.run_names import DATABASE, LOCK
from firsthand.system.lock import held
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node
from made_traces import trace
from run_process import followed

BEGAN = Started("b", "t", "a", 2)
SAMPLED = Message("assistant", (Text("x"),), Sampled((1,), (-0.5,)))
CALL = Call(
    "0:1", "generate", 3, 0.5, 1.5, "hash", Usage(7, 2, 3, 0.25), (4, 5),
    {"finish_reasons": ["stop"], "top_logprobs": [1], "tools": ["t"], "schemas": {}, "prompt": "p"}, True, "late",
)  # fmt: skip
CALL_JSON = {
    "id": "0:1", "kind": "generate", "at": 3, "started_s": 0.5, "duration_s": 1.5, "request": "hash", "replayed": True,
    "error": "late", "usage": Usage(7, 2, 3, 0.25).to_json(), "nodes": [4, 5], "detail": {"finish_reasons": ["stop"]},
}  # fmt: skip
KEPT_CALL = Call(
    "0:1", "generate", 3, 0.5, 1.5, "hash", Usage(7, 2, 3, 0.25), (4, 5), {"finish_reasons": ["stop"]}, True, "late"
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / DATABASE, create=True)
    yield made
    made.close()


def rows(database: Database) -> list[tuple[Any, ...]]:
    return database.read("SELECT seq, attempt, kind, body FROM steps ORDER BY seq")


def test_each_kind_of_step_has_a_body_from_which_it_comes_back() -> None:
    message = {"role": "assistant", "parts": [{"type": "text", "text": "x"}]}
    for step, kind, body, back in (
        (Added(6, Node(4, SAMPLED)), "added", {"index": 6, "parent": 4, "message": message},
         Added(6, Node(4, assistant("x")))),
        (CALL, "call", CALL_JSON, KEPT_CALL),
        (BEGAN, "started", {"benchmark": "b", "task_id": "t", "agent": "a", "epoch": 2}, BEGAN),
        (Began("0:2", "tool", 1, {"name": "f"}), "began",
         {"id": "0:2", "kind": "tool", "at": 1, "detail": {"name": "f"}}, Began("0:2", "tool", 1, {"name": "f"})),
        (Piece("0:1", "so"), "piece", {"id": "0:1", "text": "so"}, Piece("0:1", "so")),
        (Event("note", 0.5, {"n": 1}), "event", {"kind": "note", "at_s": 0.5, "data": {"n": 1}},
         Event("note", 0.5, {"n": 1})),
    ):  # fmt: skip
        assert step_to_json(step) == (kind, body)  # type: ignore[arg-type]
        assert _from_json(kind, json.loads(json.dumps(body))) == back
    assert CALL.detail["prompt"] == "p", "the call itself stays as it was"
    for kind, wrong in (("ended", {}), ("", {}), ("piece", ["0:1"]), ("piece", None)):
        with pytest.raises(StoreError) as odd:
            _from_json(kind, wrong)
        assert (
            str(odd.value) == f"a step is of the kind {kind!r}: started, added, began, piece, call, event were expected"
        )


def test_pieces_of_one_call_that_follow_each_other_are_one_row() -> None:
    steps: list[Any] = [
        Piece("1", "a"), Piece("1", "b"), Piece("2", "c"), Piece("1", "d"), Began("3", "tool", None, {"x": {1}}),
        Piece("1", "é"), Piece("1", "f"),
    ]  # fmt: skip
    made = _rows([(10 + n, n / 2, step) for n, step in enumerate(steps)])
    assert made == [
        (10, 0.0, "piece", '{"id":"1","text":"ab"}'),
        (12, 1.0, "piece", '{"id":"2","text":"c"}'),
        (13, 1.5, "piece", '{"id":"1","text":"d"}'),
        (14, 2.0, "began", '{"id":"3","kind":"tool","at":null,"detail":{"x":"{1}"}}'),
        (15, 2.5, "piece", '{"id":"1","text":"\\u00e9f"}'),
    ]
    assert _rows([]) == []


def test_steps_are_written_in_the_order_they_were_given_and_an_end_takes_their_place(database: Database) -> None:
    feed = Feed(database)
    assert feed.last() == 0
    before = time.time()
    feed.add("p", BEGAN)  # no loop runs, so each is written at once
    feed.add("q", BEGAN)
    feed.add("p", Piece("1", "a"))
    feed.add_json("q\ud800", "piece", {"id": "2", "text": "z"})
    assert [(seq, place, kind) for seq, place, kind, _ in rows(database)] == [
        (1, "p", "started"), (2, "q", "started"), (3, "p", "piece"), (4, "q\\ud800", "piece"),
    ]  # fmt: skip
    assert all(before <= each.at <= time.time() for each in feed.after())
    feed._pending = {
        "p": [(7, 30.0, Piece("1", "b")), (9, 31.0, Piece("1", "c"))],
        "q": [(8, 5.0, Event("e", 0.0)), (10, 40.0, BEGAN)],
        "none": [],
    }
    feed.flush(older_than=4.0)
    assert len(rows(database)) == 4
    feed.flush(older_than=5.0)
    assert [row[1:3] for row in rows(database)[1:]] == [("p", "piece"), ("q\\ud800", "piece"), ("q", "started")]
    assert feed._pending == {"p": [(7, 30.0, Piece("1", "b")), (9, 31.0, Piece("1", "c"))], "q": [], "none": []}
    feed.flush()
    assert [(row[0], row[3]) for row in rows(database) if row[1] == "p"][1:] == [
        (3, '{"id":"1","text":"a"}'), (7, '{"id":"1","text":"bc"}'),
    ]  # fmt: skip
    feed._pending["p"].append((99, 0.0, Piece("1", "lost")))
    made = trace("id1", "t", 0.5, place="p", benchmark="b", agent="a", epoch=2, stop_reason="tokens")
    with database.write() as connection:
        insert_trace(connection, made)
        feed.end(connection, made)
    assert "p" not in feed._pending
    last = feed.after()[-1]
    assert (last.sequence, last.place, last.step) == (8, "p", Ended("id1", "b", "t", "a", 2, 0.5, "tokens", None))
    assert [each.place for each in feed.after()[:-1]] == ["q\\ud800", "q"]
    assert (feed._stored, feed.last()) == ({"q", "q\\ud800"}, 8)
    feed.add("p", BEGAN)
    assert [row[1:3] for row in rows(database)[-2:]] == [("p", "ended"), ("p", "started")], "an end stays"
    feed.close()
    assert feed._pending == {}


def test_what_an_earlier_process_left_is_known_to_the_next(database: Database) -> None:
    first = Feed(database)
    first.add("p", BEGAN)
    first.add("p", Piece("1", "a"))
    first.add("q", BEGAN)
    with database.write() as connection:
        first.end(connection, trace("gone", place="q"))
    second = Feed(database)
    with database.write() as connection:
        assert second._stored_places(connection) == {"p"}
    second.add("p", BEGAN)
    assert [row[1:3] for row in rows(database)] == [("q", "ended"), ("p", "started")]
    assert second._stored == {"p"}


def test_steps_are_read_after_a_number_and_of_attempts_under_way(database: Database) -> None:
    feed = Feed(database)
    for number in range(1, 5):
        feed.add("p" if number % 2 else "q", Piece(str(number), "x"))
    failed = trace("e1", "t7", None, place="q", error=Failure("Gone", "no answer"), stop_reason="error")
    scored = trace("e2", "t8", 0.25, place="r")
    for made in (failed, scored):
        with database.write() as connection:
            insert_trace(connection, made)
            feed.end(connection, made)
    assert [(each.sequence, each.place) for each in feed.after()] == [(1, "p"), (3, "p"), (5, "q"), (6, "r")]
    found = {number: [each.sequence for each in feed.after(number)] for number in range(-1, 8)}
    every, rest = [1, 3, 5, 6], [3, 5, 6]
    assert found == {-1: every, 0: every, 1: rest, 2: rest, 3: [5, 6], 4: [5, 6], 5: [6], 6: [], 7: []}
    assert [each.sequence for each in feed.after(1, 1)] == [3] and feed.after(0, 0) == []
    assert [each.sequence for each in feed.after(0, 2)] == [1, 3]
    assert [each.step for each in feed.after(4)] == [
        Ended("e1", "b", "t7", "a", 0, None, "error", "Gone: no answer"), Ended("e2", "b", "t8", "a", 0, 0.25, "done", None),
    ]  # fmt: skip
    assert [(each.sequence, each.step) for each in feed.under_way()] == [(1, Piece("1", "x")), (3, Piece("3", "x"))]
    assert [each.sequence for each in feed.under_way(1)] == [3]
    assert feed.last() == 6
    again = trace("e2", "t8", 0.75, place="r")
    with database.write() as connection:
        insert_trace(connection, again)
        feed.end(connection, again)
    assert [each.step.score for each in feed.after(5) if isinstance(each.step, Ended)] == [0.75, 0.75], "the latest try"
    with database.write() as connection:
        connection.execute("INSERT INTO steps (attempt, kind, at, body) VALUES ('p', 'ended', 0, '{}')")
    with pytest.raises(StoreError, match="a step of its feed is not what was expected"):
        feed.after(7)
    for kind, body in (("piece", "{"), ("piece", '{"id": "1"}'), ("call", "[]"), ("added", '{"index": 0}'),
                       ("piece", "[" * 200_000), ("ended", '{"a":' * 200_000)):  # fmt: skip
        with pytest.raises(StoreError, match="a step of its feed is not what was expected"):
            feed._step(1, "p", kind, 0.0, body)
    assert feed._step(3, "p", "piece", 2, '{"id": "1", "text": "t"}') == FeedStep(3, "p", 2.0, Piece("1", "t"))


def test_a_listener_of_a_place_hears_pieces_only_if_they_are_asked_for(database: Database) -> None:
    feed = Feed(database)
    place = Place(Agent("ada", Scripted([]), direct), Benchmark("sums", lambda seed: [], ()), Task("t9", "?"), 3)
    heard = feed.listener(place)
    assert [each.step for each in feed.under_way()] == [Started("sums", "t9", "ada", 3)]
    assert (heard.streams, feed.listener(place, pieces=True).streams) == (False, True)
    assert len(rows(database)) == 1, "the attempt begins again"
    heard(Piece("1", "a"))
    heard(Began("1", "generate", None))
    ((number, at, step),) = feed._pending[place.id]
    assert (number, step, abs(at - time.time()) < 60) == (3, Began("1", "generate", None), True)
    loud = feed.listener(place, pieces=True)
    loud(Piece("1", "a"))
    assert feed._pending[place.id][-1][2] == Piece("1", "a")
    told: list[tuple[str, Any]] = []

    class Quiet:
        streams = False

        def __call__(self, step: Any) -> None:
            told.append(("quiet", step))

    both = Both(lambda step: told.append(("first", step)), Quiet())
    both(Piece("1", "a"))
    both(BEGAN)  # type: ignore[arg-type]
    assert told == [("first", Piece("1", "a")), ("first", BEGAN), ("quiet", BEGAN)]
    assert (both.streams, Both(Quiet(), Quiet()).streams) == (True, False)


def test_within_a_loop_steps_wait_for_a_quarter_second_and_those_of_short_attempts_longer(database: Database) -> None:
    feed = Feed(database)

    async def main() -> None:
        before = time.time()
        feed.add("p", BEGAN)
        assert (rows(database), len(feed._pending["p"])) == ([], 1)
        by = feed._flush_by
        assert before + FLUSH_S + 1.0 <= by <= time.time() + FLUSH_S + 1.0
        feed.add("q", BEGAN)
        assert feed._flush_by == by, "one timer is enough"
        now = time.time()
        feed._pending = {
            "old": [(1, now - 0.75 * FLUSH_S, BEGAN)], "new": [(2, now + 100, BEGAN)], "next": [(3, now + 60, BEGAN)],
        }  # fmt: skip
        feed._on_timer()
        assert [row[1] for row in rows(database)] == ["old"]
        assert feed._flush_by > now, "others are under way"
        feed._pending.clear()
        feed._on_timer()
        assert feed._flush_by == 0.0

    asyncio.run(main())
    feed.add("r", BEGAN)
    assert rows(database)[-1][1] == "r"
    feed._flush_by = math.inf
    feed.add("s", BEGAN)
    assert rows(database)[-1][1] == "r", "a timer will write it"


def test_what_cannot_be_written_is_dropped(database: Database) -> None:
    feed = Feed(database)
    with database.write() as connection:
        connection.execute("ALTER TABLE steps RENAME TO hidden")
    feed.add("p", BEGAN)
    assert feed._pending.keys() == {"p"}
    with database.write() as connection:
        connection.execute("ALTER TABLE hidden RENAME TO steps")
    feed.add("p", Piece("1", "a"))
    assert [row[2] for row in rows(database)][-1] == "piece"


def test_a_run_is_followed_from_a_number_until_nobody_works_on_it(tmp_path: Path, database: Database) -> None:
    feed, lock = Feed(database), tmp_path / LOCK
    for number in range(3):
        feed.add("p", Piece(str(number), "x"))

    async def seen(**more: Any) -> list[int]:
        return [each.sequence async for each in followed(tmp_path, poll_s=0.001, **more)]

    assert asyncio.run(seen(start_s=0.0)) == [1, 2, 3]
    assert asyncio.run(seen(after=2, start_s=0.0)) == [3]
    assert asyncio.run(seen(after=3, start_s=0.0)) == []
    began = time.monotonic()
    assert asyncio.run(seen(after=3, start_s=0.05)) == []
    assert time.monotonic() - began >= 0.05
    told: list[int] = []

    async def worked_on() -> None:
        with held(lock):
            following = followed(tmp_path, 1, poll_s=0.001, start_s=60.0)
            told.append((await anext(following)).sequence)
            told.append((await anext(following)).sequence)
            await asyncio.to_thread(feed.add, "p", Piece("late", "x"))
            told.append((await anext(following)).sequence)
        told.extend([each.sequence async for each in following])

    asyncio.run(worked_on())
    assert told == [2, 3, 4]


def test_a_step_waits_for_half_of_the_time_between_two_writings(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "time", SimpleNamespace(time=lambda: 1000.0))
    feed, half = Feed(database), FLUSH_S / 2

    async def main() -> None:
        feed._pending = {
            "late": [(1, 1000.0 - half + 0.001, BEGAN)], "just": [(2, 1000.0 - half, BEGAN), (3, 999.99, Piece("1", "a"))],
        }  # fmt: skip
        feed._on_timer()
        assert [row[1:3] for row in rows(database)] == [("just", "started"), ("just", "piece")]
        assert [len(steps) for steps in feed._pending.values()] == [1, 0]
        assert feed._flush_by == 1000.0 + FLUSH_S + 1.0
        feed._pending["late"][0] = (1, 1000.0 - half - 1, BEGAN)
        feed._on_timer()
        assert rows(database)[-1][1] == "late"

    asyncio.run(main())
