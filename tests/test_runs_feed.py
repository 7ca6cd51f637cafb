"""A run's live feed: steps in order, for other processes too; dropped when a trace is stored; never ahead of the journal."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import StoreError
from firsthand.loop.listener import Added, Began, Piece, Step
from firsthand.message import Message, Sampled, Text
from firsthand.model import Completion, Usage
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import feed as feed_module
from firsthand.runs.database import Database
from firsthand.runs.execute import execute
from firsthand.runs.feed import PAGE, Ended, Feed, FeedStep, Started, step_to_json
from firsthand.runs.run_names import DATABASE
from firsthand.runs.store import Run, create, open_run
from firsthand.task import Task
from firsthand.trace import Call, Event, Node, Trace
from run_process import followed


class Slow(Scripted):
    """A model that takes its time."""

    def __init__(self, seconds: float, replies: Any = lambda messages, sampling, index: "four words of reply"):
        super().__init__(replies)
        self.seconds = seconds

    async def complete(self, *rest: Any, **more: Any) -> list[Completion]:
        await asyncio.sleep(self.seconds)
        return await super().complete(*rest, **more)


async def two_steps(task: Task, ctx: Any) -> str:
    """Two answers, one after the other."""
    ctx = await ctx.say(task.prompt).generate()
    ctx.note("between", step=1)
    ctx = await ctx.say("And then?").generate()
    return str(ctx.text)


def places(seconds: float, count: int = 3) -> list[Place]:
    tasks = [Task(f"t{n}", f"Question {n}?") for n in range(count)]
    benchmark = Benchmark("slow", lambda seed: tasks, ())
    return [Place(Agent("ada", Slow(seconds), two_steps), benchmark, task) for task in tasks]


def kinds(steps: list[FeedStep], place: str) -> list[str]:
    return [type(each.step).__name__ for each in steps if each.place == place]


@pytest.mark.slow
def test_steps_are_told_in_order_while_an_attempt_runs_and_one_row_is_left_of_it(tmp_path: Path) -> None:
    every = places(0.7)

    async def watched(run: Run) -> list[FeedStep]:
        work = asyncio.create_task(execute(run, every))
        await running(run)
        found = [step async for step in followed(run.path, poll_s=0.05)]
        await work
        return found

    with create(tmp_path, {}, "feed") as run:
        found = asyncio.run(watched(run))
        whole = ["Started", "Added", "Began", "Added", "Call", "Event", "Added", "Began", "Added", "Call", "Ended"]
        for place in every:
            assert kinds(found, place.id) == [*whole[: len(kinds(found, place.id)) - 1], "Ended"]
            assert (
                len(kinds(found, place.id)) >= 8
            )  # a step in the last quarter of a second may be dropped with its attempt
        numbers = [step.sequence for step in found]
        assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)
        first = next(step.step for step in found if isinstance(step.step, Added))
        assert first == Added(0, Node(None, Message("user", (Text("Question 0?"),))))
        left = run.feed.after()
        assert [type(step.step) for step in left] == [Ended] * 3
        ended = left[0].step
        assert isinstance(ended, Ended) and run.trace(ended.id).place == left[0].place and ended.stop_reason == "done"
        assert run.feed.after(left[1].sequence) == left[2:] and run.feed.after(limit=1) == left[:1]


def test_an_instant_attempt_writes_no_steps(tmp_path: Path) -> None:
    with create(tmp_path, {}, "feed") as run:
        asyncio.run(execute(run, places(0.0, 20)))
        assert len(run.feed.after()) == 20 and run.feed.last() < 20 * 5  # of 11 steps each, few on a busy machine


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [False, True])
def test_streamed_pieces_are_kept_only_when_asked_for(tmp_path: Path, pieces: bool) -> None:
    task, heard = Task("t", "Q?"), Quiet()
    model = Scripted(lambda messages, sampling, index: "one two three")
    read = asyncio.Event()

    async def waits(task: Task, ctx: Any) -> str:
        """An answer, and time in which it can be read."""
        ctx = await ctx.say(task.prompt).generate()
        await asyncio.wait_for(read.wait(), 60)
        return str(ctx.text)

    place = Place(Agent("ada", model, waits), Benchmark("b", lambda seed: [], ()), task)

    async def watched(run: Run) -> list[FeedStep]:
        work = asyncio.create_task(execute(run, [place], pieces=pieces, listener=lambda place: heard))
        await running(run)
        found = []
        async for step in followed(run.path, poll_s=0.01):
            found.append(step)
            if isinstance(step.step, Call):  # pieces come before the call that they are of
                read.set()
        await work
        return found

    with create(tmp_path, {}, "feed") as run:
        found = asyncio.run(watched(run))
    text = "".join(each.step.text for each in found if isinstance(each.step, Piece))
    assert text == ("one two three" if pieces else "") and heard.steps
    assert not any(isinstance(step, Piece) for step in heard.steps)


async def running(run: Run) -> None:
    """Wait until somebody works on the run."""
    async with asyncio.timeout(60):
        while run.status != "running":
            await asyncio.sleep(0.001)


class Quiet:
    """A listener that wants no pieces."""

    streams = False

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def __call__(self, step: Any) -> None:
        self.steps.append(step)


def test_every_kind_of_step_survives_the_file_without_token_ids(tmp_path: Path) -> None:
    message = Message("assistant", (Text("\ud800 \x1b[31m"),), Sampled((1, 2), (-0.5, -1.0)))
    call = Call(
        ":0", "generate", 0, 0.5, 1.5, "r", Usage(1, 2, 3, 0.5), (1,), {"n": 1, "top_logprobs": [[["a", -1.0]]]}
    )
    steps: list[Step] = [
        Added(0, Node(None, message)), Began(":0", "generate", 0, {"n": 2}), Piece(":0", "a"), Piece(":0", "b"),
        Piece(":1", "c"), call, Event("note", 1.0, {"x": [1, "y"]}),
    ]  # fmt: skip
    with create(tmp_path, {}, "feed") as run:
        for step in steps:
            run.feed.add("ab", step)  # outside an event loop each is written at once
        run.feed.add_json("ab", *step_to_json(steps[1]))
        found = [each.step for each in run.feed.after()]
    assert found[0] == Added(0, Node(None, Message("assistant", message.parts)))
    assert found[1:5] == steps[1:5] and found[6:] == [*steps[6:], steps[1]]
    assert found[5] == Call(**{**vars(call), "detail": {"n": 1}})


def test_pieces_of_one_call_are_joined_in_a_group(tmp_path: Path) -> None:
    async def tell(run: Run) -> None:
        for text in "abc":
            run.feed.add("p", Piece(":0", text))
        run.feed.add("p", Piece(":1", "d"))
        run.feed.flush()

    with create(tmp_path, {}, "feed") as run:
        asyncio.run(tell(run))
        assert [each.step for each in run.feed.after()] == [Piece(":0", "abc"), Piece(":1", "d")]


def test_an_attempt_that_begins_again_drops_what_was_left_of_it_and_numbers_are_never_used_twice(
    tmp_path: Path,
) -> None:
    place, other = places(0.0)[:2]
    with create(tmp_path, {}, "feed") as run:
        run.feed.started(place)
        run.feed.add(place.id, Event("lost", 0.0))
        run.feed.started(other)
        last = run.feed.last()
        run.feed.started(place)
        assert [(step.place, type(step.step)) for step in run.feed.after()] == [
            (other.id, Started),
            (place.id, Started),
        ]
        run.append(Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, place=place.id))
        run.append(Trace("2", "b", "t", {"name": "a"}, 0, 0, "", 0.0, place=other.id))
        run.feed.started(place)
        assert [step.sequence for step in run.feed.after()] == [last + 2, last + 3, last + 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "kind = 'other'",
        "body = '[]'",
        "body = '{'",
        "body = '{\"kind\": 1}'",
        "kind = 'added', body = '{\"index\": 0}'",
    ],
)
def test_a_damaged_step_is_one_sentence(tmp_path: Path, change: str) -> None:
    with create(tmp_path, {}, "feed") as run:
        run.feed.add("p", Event("note", 1.0))
        with run.database.write() as connection:
            connection.execute(f"UPDATE steps SET {change}")
        with pytest.raises(StoreError, match="a step of its feed is not what was expected"):
            run.feed.after()


@pytest.mark.slow
def test_a_feed_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with create(tmp_path, {}, "feed") as run:
        blocker = sqlite3.connect(run.path / DATABASE, isolation_level=None)
        blocker.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON steps WHEN new.kind <> 'ended' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        asyncio.run(execute(run, places(0.4, 1)))
        assert len(run.done()) == 1 and run.status == "done"


def work(path: Path, seconds: float) -> None:
    with Run(path, Database(path / DATABASE)) as run:
        asyncio.run(execute(run, places(seconds, 4), concurrency=2))


@pytest.mark.slow
def test_another_process_is_followed_live_to_its_end(tmp_path: Path) -> None:
    path = create(tmp_path, {}, "feed").path
    child = multiprocessing.get_context("spawn").Process(target=work, args=(path, 0.3))
    child.start()
    seen: list[tuple[float, FeedStep]] = []

    async def watch() -> None:
        async for step in followed(path, poll_s=0.05, start_s=60):
            seen.append((time.time(), step))

    asyncio.run(asyncio.wait_for(watch(), 120))
    child.join(30)
    assert child.exitcode == 0
    assert sum(isinstance(step.step, Ended) for _, step in seen) == 4
    assert any(isinstance(step.step, Began) for _, step in seen)
    assert any(isinstance(step.step, Event) and step.step.kind == "between" for _, step in seen)
    numbers = [step.sequence for _, step in seen]
    assert numbers == sorted(set(numbers))
    with open_run(path, tmp_path) as run:
        assert run.status == "done"


def work_until_killed(path: Path) -> None:
    with Run(path, Database(path / DATABASE)) as run:
        asyncio.run(execute(run, places(0.4, 400), concurrency=8))


@pytest.mark.slow
def test_after_kill_9_each_ended_call_of_the_feed_is_in_the_journal(tmp_path: Path) -> None:
    checked = 0
    for _ in range(3):
        path = create(tmp_path, {}, "feed").path
        child = multiprocessing.get_context("spawn").Process(target=work_until_killed, args=(path,))
        child.start()
        while Feed(Database(path / DATABASE)).last() < 30:
            time.sleep(0.01)
        child.kill()
        child.join()
        with open_run(path, tmp_path) as run:
            assert run.database.read("PRAGMA integrity_check") == [("ok",)]
            for told in run.feed.after(limit=10_000):
                match told.step:
                    case Call(id=effect, request=request):
                        assert run.journal(told.place).find(effect, request) is not None
                        checked += 1
                    case Ended(id=id):
                        assert run.trace(id).place == told.place
    assert checked


def test_a_run_that_nobody_works_on_is_read_to_its_end(tmp_path: Path) -> None:
    async def read(path: Path) -> list[FeedStep]:
        return [step async for step in followed(path, start_s=0.0)]

    with create(tmp_path, {}, "feed") as run:
        asyncio.run(execute(run, places(0.0, 2)))
        assert len(asyncio.run(read(run.path))) == 2


@pytest.mark.slow
def test_show_follow_prints_the_steps_of_another_process(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "feed")
    child = multiprocessing.get_context("spawn").Process(target=work, args=(run.path, 2.0))
    child.start()
    command = [sys.executable, "-m", "firsthand", "show", "last", "--follow"]
    environment = {**os.environ, "FIRSTHAND_HOME": str(tmp_path)}
    while run.status != "running":
        time.sleep(0.02)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    child.join()
    place = places(0.3, 4)[3].id[:8]
    assert done.returncode == 0, done.stderr
    assert f"{place}  slow / t3 / ada / epoch 0\n" in done.stdout
    assert f"{place}  #0 user Question 3?\n" in done.stdout
    assert f"{place}  = (done) slow / t3 / ada / epoch 0\n" in done.stdout
    assert f"{run.id} is done; `firsthand show" in done.stdout


def test_following_a_protected_attempt_shows_none_of_its_words() -> None:
    from firsthand.show.feed_lines import FeedLines

    lines = FeedLines()
    steps: list[Any] = [
        Started("gpqa", "q1", "ada", 0), Event("protected", 0.0, {"why": "its authors ask"}),
        Added(0, Node(None, Message("user", (Text("The secret question"),)))),
        Ended("1", "gpqa", "q1", "ada", 0, 1.0, "done", None),
    ]  # fmt: skip
    told = [line for n, step in enumerate(steps) for line in lines.of(FeedStep(n, "abcdef0123", 0.0, step))]
    assert told == [
        "abcdef01  gpqa / q1 / ada / epoch 0", "abcdef01  protected: its steps are not shown",
        "abcdef01  = 1 (done) gpqa / q1 / ada / epoch 0",
    ]  # fmt: skip


def test_steps_of_attempts_at_once_stand_in_the_order_in_which_they_happened(tmp_path: Path) -> None:
    async def tell(run: Run) -> None:
        for place, number in (("q", 1), ("p", 2), ("q", 3), ("p", 4), ("q", 5)):
            run.feed.add(place, Event("note", float(number)))
        run.feed.flush()

    with create(tmp_path, {}, "feed") as run:
        asyncio.run(tell(run))
        assert [(each.sequence, each.place, each.step) for each in run.feed.after()] == [
            (n, place, Event("note", float(n))) for n, place in enumerate("qpqpq", 1)
        ]


def test_a_finished_run_is_followed_to_its_end_over_pages_and_waited_for_as_long_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "START_S", 1000.0)

    async def read(path: Path, after: int, start_s: float) -> list[int]:
        async with asyncio.timeout(20):
            return [step.sequence async for step in followed(path, after, poll_s=0.001, start_s=start_s)]

    with create(tmp_path, {}, "feed") as run:
        with run.database.write() as connection:
            connection.executemany(
                "INSERT INTO steps (attempt, kind, at, body) VALUES ('p', 'piece', 0.5, ?)",
                [(f'{{"id": ":0", "text": "{n}"}}',) for n in range(2 * PAGE + 1)],
            )
        assert asyncio.run(read(run.path, 0, 0.0)) == list(range(1, 2 * PAGE + 2))
        began = time.monotonic()
        assert asyncio.run(read(run.path, 2 * PAGE, 0.02)) == [2 * PAGE + 1]
        assert time.monotonic() - began >= 0.02
        assert (len(run.feed.after()), run.feed.after(limit=1)[0].step) == (PAGE, Piece(":0", "0"))


def test_an_attempt_is_written_whole_once_its_oldest_step_is_old_enough(tmp_path: Path) -> None:
    with create(tmp_path, {}, "feed") as run:
        run.feed._pending = {
            "p": [(1, 10.0, Event("note", 1.0)), (4, 12.0, Event("note", 4.0))], "q": [(2, 11.0, Event("note", 2.0))],
            "none": [],
        }  # fmt: skip
        for older_than, written in ((9.9, []), (10.0, [("p", 10.0), ("p", 12.0)]), (10.9, []), (11.0, [("q", 11.0)])):
            last = run.feed.last()
            run.feed.flush(older_than)
            assert [(each.place, each.at) for each in run.feed.after(last)] == written
        assert run.feed._pending == {"p": [], "q": [], "none": []}, "the attempts go on"
    defaults = {name: each.default for name, each in inspect.signature(feed_module.follow).parameters.items()}
    assert (defaults["after"], defaults["poll_s"], defaults["start_s"]) == (0, 0.2, 2.0)
