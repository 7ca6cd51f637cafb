"""When steps of a feed are written and dropped: the timer, feeds of other processes, odd names, closing and following."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import StoreError
from firsthand.loop.listener import Piece
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import feed as feed_module
from firsthand.runs import store
from firsthand.runs.feed import Ended, Feed, Started, follow
from firsthand.task import Task
from firsthand.trace import Event
from made_traces import trace


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {}, "feed", command=["run"]) as made:
        yield made


def note(number: int) -> Event:
    return Event("note", float(number), {"n": number})


def place(task: str) -> Place:
    return Place(Agent("a", Scripted([]), reply), Benchmark("b", lambda seed: [], ()), Task(task, "?"))


def written(feed: Feed, after: int = 0) -> list[tuple[str, Any]]:
    return [(each.place, each.step) for each in feed.after(after)]


def test_the_timer_writes_what_is_half_an_interval_old_and_looks_again_while_attempts_are_under_way(
    run: store.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FLUSH_S", 100.0)
    feed = run.feed

    async def looked(pending: dict[str, list[Any]]) -> float:
        """The seconds until which the next look is expected."""
        feed._pending, before = pending, time.time()
        feed._on_timer()
        if feed._flush_by == 0.0:
            return 0.0
        assert before + 101 <= feed._flush_by <= time.time() + 101
        return 101.0

    now = time.time()
    old, young = [(1, now - 60, note(1)), (3, now, note(3))], [(2, now - 40, note(2))]
    assert asyncio.run(looked({"old": old, "young": young})) == 101.0
    assert (written(feed), old, young) == ([("old", note(1)), ("old", note(3))], [], [(2, now - 40, note(2))])
    assert asyncio.run(looked({"quiet": []})) == 101.0, "it may have more to say"
    assert asyncio.run(looked({})) == 0.0


def test_steps_are_written_in_time_though_nobody_adds_another(run: store.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "FLUSH_S", 0.01)

    async def main() -> None:
        listener = run.feed.listener(place("t"))
        for number in (1, 2):
            last = run.feed.last()
            listener(note(number))
            async with asyncio.timeout(20):
                while run.feed.last() == last:
                    await asyncio.sleep(0.001)

    asyncio.run(main())
    assert [step for _, step in written(run.feed)] == [Started("b", "t", "a", 0), note(1), note(2)]


def test_a_feed_drops_what_an_earlier_process_left_of_an_attempt_and_of_no_other(run: store.Run) -> None:
    first, other, third = place("first"), place("other"), place("third")
    for each in (first, other, third):
        run.feed.started(each)
        run.feed.add(each.id, note(1))
    second = Feed(run.database)
    second.started(first)
    second.add(first.id, note(2))
    started = [Started("b", task, "a", 0) for task in ("other", "third", "first")]
    assert written(second) == [
        (other.id, started[0]), (other.id, note(1)), (third.id, started[1]), (third.id, note(1)),
        (first.id, started[2]), (first.id, note(2)),
    ]  # fmt: skip
    run.append(trace("1", "other", place=other.id))
    assert [each.place for each in second.under_way()] == [third.id] * 2 + [first.id] * 2
    assert written(second, second.last() - 1) == [(other.id, Ended("1", "b", "other", "a", 0, 1.0, "done", None))]


def test_half_a_character_in_a_place_is_written_out_and_its_steps_are_dropped_all_the_same(run: store.Run) -> None:
    odd, plain = "é\ud800", "é\\ud800"
    run.feed.add(odd, note(1))
    assert written(run.feed) == [(plain, note(1))]
    run.append(trace("i\ud800", "t", None, place=odd))
    assert written(run.feed) == [(plain, Ended("i\\ud800", "b", "t", "a", 0, None, "done", "Gone: no answer"))]


def test_what_is_told_after_a_feed_was_closed_or_its_attempt_has_ended_is_not_written(run: store.Run) -> None:
    async def main() -> None:
        ended, late = run.feed.listener(place("t"), pieces=True), run.feed.listener(place("u"))
        ended(Piece(":0", "x"))
        run.append(trace("1", "t", place=place("t").id))
        ended(note(1))
        late(note(2))
        late(Piece(":0", "not asked for"))
        run.feed.close()
        late(note(3))
        run.feed.flush()

    asyncio.run(main())
    steps = [step for _, step in written(run.feed)]
    assert steps[1:] == [Started("b", "u", "a", 0), note(2)]
    assert isinstance(steps[0], Ended)


def test_a_run_that_was_worked_on_is_left_as_soon_as_nobody_works_on_it(run: store.Run) -> None:
    async def main() -> list[Any]:
        async with asyncio.timeout(20):
            with run.claimed():
                found = follow(run.path, poll_s=0.001, start_s=1000.0)
                run.feed.add("p", note(1))
                run.feed.flush()
                first = await anext(found)
                rest = asyncio.ensure_future(anext(found, None))
                await asyncio.sleep(0.01)
                assert not rest.done()
                run.feed.add("p", note(2))
                run.feed.flush()
                second = await rest
            return [first, second, *[each async for each in found]]

    assert [(each.place, each.step) for each in asyncio.run(main())] == [("p", note(1)), ("p", note(2))]


def test_the_end_of_an_attempt_whose_trace_is_missing_is_damage_and_each_limit_is_kept(run: store.Run) -> None:
    for number in range(1, 4):
        run.append(trace(str(number), f"t{number}", number / 4, epoch=number, stop_reason="calls"))
    ends = [(f"bt{n}a{n}", Ended(str(n), "b", f"t{n}", "a", n, n / 4, "calls", None)) for n in (1, 2, 3)]
    assert written(run.feed) == ends
    assert [each.step for each in run.feed.after(1, 1)] == [ends[1][1]]
    assert (run.feed.under_way(), run.feed.last(), Feed(run.database).last()) == ([], 3, 3)
    run.feed.add("p", note(1))
    run.feed.add("q", note(2))
    assert [(each.sequence, each.place) for each in run.feed.under_way(1)] == [(5, "q")]
    with run.database.write() as connection:
        connection.execute("UPDATE steps SET body = 'gone' WHERE seq = 2")
    with pytest.raises(StoreError, match="is damaged: a step of its feed is not what was expected: JSONDecodeError"):
        run.feed.after()
    assert [each.sequence for each in run.feed.after(2)] == [3, 4, 5]


def test_an_attempt_that_is_made_again_leaves_the_end_of_its_try_before(run: store.Run) -> None:
    again = place("t")
    run.append(trace("1", "t", 0.5, place=again.id))
    for number in (1, 2):
        run.feed.started(again)
        run.feed.add(again.id, note(number))
    begun = [Ended("1", "b", "t", "a", 0, 0.5, "done", None), Started("b", "t", "a", 0), note(2)]
    assert [step for _, step in written(run.feed)] == begun
    assert [step for _, step in written(run.feed, run.feed.last() - 1)] == [note(2)]


def test_a_step_waits_for_a_timer_only_until_that_timer_should_have_come(run: store.Run) -> None:
    run.feed._flush_by = time.time() + 1000
    run.feed.add("p", note(1))
    assert written(run.feed) == []
    run.feed._flush_by = time.time() - 0.001  # it has died with its event loop
    run.feed.add("p", note(2))
    assert written(run.feed) == [("p", note(1)), ("p", note(2))]
