"""The engine's thread, one function at a time, over an engine whose steps are written down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.engine.core.engine_thread import MIN_COMMANDS_S, Command, EngineWorker, Lease
from firsthand.engine.core.output_delivery import OutputQueue, deliver
from firsthand.engine.core.outputs import Output, ScoreOutput
from firsthand.engine.core.sequence import Request
from firsthand.engine.memory.pinned_prefixes import PinnedPrefix
from firsthand.errors import ConfigError, ModelError
from firsthand.model import Sampling


def last(id: int, index: int, *ids: int) -> Output:
    return Output(
        id,
        index,
        ids,
        tuple(-float(each) for each in ids),
        index % 2 == 0,
        finish_reason="stop",
        prompt_tokens=index + 3,
    )


class Written:
    """An engine that records its calls; `steps` are the outputs of each step, or an error to raise."""

    def __init__(self, *steps: Any):
        self.calls: list[Any] = []
        self.steps = list(steps)
        self.live: set[int] = set()
        self.adapters = SimpleNamespace(get=lambda name: ("adapter", name), read=lambda source: ("packed", source))
        self.next_id = 7

    @property
    def has_work(self) -> bool:
        return bool(self.steps and self.live)

    def is_live(self, id: int) -> bool:
        return id in self.live

    def _record(self, *call: Any) -> None:
        self.calls.append(call)

    def add(self, request: Request) -> int:
        if not request.prompt:
            raise ConfigError("empty")
        return self._added("add", request)

    def add_score(self, *arguments: Any, **options: Any) -> int:
        return self._added("add_score", arguments, options)

    def _added(self, *call: Any) -> int:
        self._record(*call)
        self.live.add(self.next_id)
        self.next_id += 1
        return self.next_id - 1

    def step(self) -> list[Output]:
        found = self.steps.pop(0) if self.steps else []
        if callable(found):
            found = found()
        if isinstance(found, BaseException):
            raise found
        for output in found:
            if output.is_last and not any(
                each.request_id == output.request_id for step in self.steps if isinstance(step, list) for each in step
            ):
                self.live.discard(output.request_id)
        return found

    def abort(self, id: int) -> None:
        self._record("abort", id)
        self.live.discard(id)

    def pin_prefix(self, tokens: Any, *, adapter: Any, salt: Any) -> PinnedPrefix:
        self._record("pin", tokens, adapter, salt)
        if tokens == "broken":
            raise ConfigError("no pin")
        return PinnedPrefix(len(tokens))

    def unpin_prefix(self, prefix: PinnedPrefix) -> None:
        self._record("unpin", prefix.num_tokens)

    def load(self, *arguments: Any, **options: Any) -> None:
        self._record("load", arguments, options)

    def load_adapter(self, *arguments: Any, **options: Any) -> None:
        self._record("load_adapter", arguments, options)

    def unload_adapter(self, name: str) -> None:
        self._record("unload_adapter", name)

    def stats(self) -> str:
        return "counters"


class Idle(EngineWorker):
    """One whose thread does nothing: a test runs the commands."""

    def __init__(self, engine: Any):
        self.given_s: list[float] = []
        super().__init__(engine)
        self._thread.join()

    def _run(self) -> None:
        pass

    def _run_commands(self, commands_s: float) -> bool:
        self.given_s.append(commands_s)
        return super()._run_commands(commands_s)


def ask(engine: Any, *calls: Any) -> list[Any]:
    """Results, or errors, of calls of a worker over the engine, one after another."""

    async def main() -> list[Any]:
        found: list[Any] = []
        for call in calls:
            try:
                found.append(await call(worker))
            except Exception as error:
                found.append(error)
        return found

    with EngineWorker(engine) as worker:
        return asyncio.run(main())


def test_each_call_reaches_the_engine_as_it_was_made() -> None:
    engine: Any = Written()
    found = ask(
        engine,
        lambda worker: worker.load({"a": 1}, 4),
        lambda worker: worker.load({"a": 1}, 5, recompute=False),
        lambda worker: worker.load_adapter("red", "folder", version=2, replace=True),
        lambda worker: worker.load_adapter("red", "folder"),
        lambda worker: asyncio.wrap_future(worker.add_adapter("blue", "tiles", version=6)),
        lambda worker: worker.load_adapter("red", "folder", version=3),
        lambda worker: worker.load_adapter("red", "folder", replace=True),
        lambda worker: asyncio.wrap_future(worker.add_adapter("blue", "tiles", replace=True)),
        lambda worker: worker.unload_adapter("red"),
        lambda worker: worker.find_adapter("blue"),
        lambda worker: worker.stats(),
        lambda worker: worker.pin_prefix((1, 2), adapter="red", salt="s"),
        lambda worker: worker.pin_prefix("broken"),
        lambda worker: worker.unpin_prefix(PinnedPrefix(9)),
    )
    assert (
        found[:11] == [None] * 9 + [("adapter", "blue"), "counters"]
        and found[11].num_tokens == 2
        and str(found[12]) == "no pin"
        and found[13:] == [None]
    )
    assert engine.calls == [
        ("load", ({"a": 1}, 4), {"recompute": True}),
        ("load", ({"a": 1}, 5), {"recompute": False}),
        ("load_adapter", ("red", ("packed", "folder")), {"version": 2, "replace": True}),
        ("load_adapter", ("red", ("packed", "folder")), {"version": 0, "replace": False}),
        ("load_adapter", ("blue", "tiles"), {"version": 6, "replace": False}),
        ("load_adapter", ("red", ("packed", "folder")), {"version": 3, "replace": False}),
        ("load_adapter", ("red", ("packed", "folder")), {"version": 0, "replace": True}),
        ("load_adapter", ("blue", "tiles"), {"version": 0, "replace": True}),
        ("unload_adapter", "red"),
        ("pin", (1, 2), "red", "s"),
        ("pin", "broken", None, ""),
        ("unpin", 9),
    ]


def test_scores_come_in_the_order_of_the_continuations_with_all_that_was_asked() -> None:
    engine: Any = Written([last(7, 2, 5), last(7, 0, 3)], [last(7, 1, 4)])
    options = {
        "top": 2,
        "priority": -1,
        "owner": "o",
        "adapter": "red",
        "salt": "s",
        "distribution": True,
        "source": (8,),
        "taps": "taps",
    }
    (scores,) = ask(engine, lambda worker: worker.score((1,), [(3,), (4,), (5,)], **options))
    assert scores == [ScoreOutput((-3.0,), True), ScoreOutput((-4.0,), False), ScoreOutput((-5.0,), True)]
    assert [score.prompt_tokens for score in scores] == [3, 4, 5]
    assert engine.calls == [("add_score", ((1,), [(3,), (4,), (5,)]), options)]
    engine = Written([last(7, 0, 3)])
    ask(engine, lambda worker: worker.score((1,), [(3,)]))
    defaults = {
        "top": 0,
        "priority": 0,
        "owner": "",
        "adapter": None,
        "salt": "",
        "distribution": False,
        "source": (),
        "taps": None,
    }
    assert engine.calls == [("add_score", ((1,), [(3,)]), defaults)]
    failed = Output(7, 0, (), (), False, error=ModelError("not finite"))
    (error,) = ask(Written([failed]), lambda worker: worker.score((1,), [(3,)]))
    assert str(error) == "not finite"


def test_a_request_gives_its_outputs_until_its_last_answer_has_ended_and_is_aborted_only_before() -> None:
    async def all_of(worker: EngineWorker, request: Request) -> list[Output]:
        return [output async for output in worker.submit(request)]

    async def first_of(worker: EngineWorker, request: Request) -> list[Output]:
        outputs = worker.submit(request)
        found = [await anext(outputs)]
        await outputs.aclose()
        await worker.stats()
        return found

    steps = [[Output(7, 0, (4,), (-4.0,), True)], [last(7, 1, 5)], [last(7, 0, 6)]]
    request = Request((1, 2), Sampling(), n=2)
    engine: Any = Written(*steps)
    found = ask(
        engine,
        lambda worker: all_of(worker, request),
        lambda worker: all_of(worker, Request(())),
        lambda worker: worker.stats(),
    )
    assert found[0] == [output for step in steps for output in step] and str(found[1]) == "empty"
    assert engine.calls == [("add", request)]
    engine = Written(*steps)
    assert ask(engine, lambda worker: first_of(worker, request))[0] == [steps[0][0]]
    assert engine.calls == [("add", request), ("abort", 7)]
    engine = Written([last(7, 0, 6), last(7, 1, 5)])
    assert ask(engine, lambda worker: first_of(worker, request))[0] == [last(7, 0, 6)] and engine.calls[1:] == [
        ("abort", 7)
    ]


def test_what_a_cancelled_caller_pinned_is_unpinned_and_a_lease_pins_until_it_is_gone() -> None:
    worker = Idle(engine := Written())  # type: ignore[arg-type]

    async def main() -> None:
        task = asyncio.create_task(worker.pin_prefix((1, 2, 3)))
        await asyncio.sleep(0)
        command = worker._commands[0]
        task.cancel()
        await asyncio.sleep(0)
        assert task.cancelled()
        command.run()
        assert engine.calls == [], "it was cancelled before it ran"
        task = asyncio.create_task(worker.pin_prefix((1, 2, 3)))
        await asyncio.sleep(0)
        worker._commands[-1].run()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        worker._commands[-1].run()
        assert engine.calls == [("pin", (1, 2, 3), None, ""), ("unpin", 3)]

    asyncio.run(main())
    worker._commands.clear()
    done: Future[PinnedPrefix] = Future()
    done.set_result(PinnedPrefix(4))
    wrong: Future[PinnedPrefix] = Future()
    wrong.set_exception(ConfigError("x"))
    gone: Future[PinnedPrefix] = Future()
    gone.cancel()
    for future in (wrong, gone, done):
        worker._unpin_when_done(future)
    assert len(worker._commands) == 1
    worker._run_commands(1.0)
    lease = worker.lease((1, 2), adapter="red", salt="s")
    assert isinstance(lease, Lease)
    worker._run_commands(1.0)
    assert engine.calls[-2:] == [("unpin", 4), ("pin", (1, 2), "red", "s")] and not worker._commands
    del lease
    assert len(worker._commands) == 1
    worker._run_commands(1.0)
    assert engine.calls[-1] == ("unpin", 2)
    early = worker.lease((1, 2, 3))
    del early
    assert len(worker._commands) == 1
    worker._run_commands(1.0)
    assert engine.calls[-2:] == [("pin", (1, 2, 3), None, ""), ("unpin", 3)] and not worker._commands


def test_commands_run_in_order_for_as_long_as_they_may_and_not_after_the_end() -> None:
    worker = Idle(engine := Written())  # type: ignore[arg-type]
    ran: list[Any] = []
    for name in "abc":
        worker._post(Command(lambda name=name: ran.append(name), ran.append))  # type: ignore[misc]
    assert worker._run_commands(-1.0) and ran == ["a"] and worker.is_alive
    assert worker._run_commands(5.0) and ran == ["a", "b", "c"]
    engine.steps, engine.live = [[]], {1}
    assert worker._run_commands(5.0), "it does not wait while the engine has work"
    for command in (lambda: worker._end(ModelError("over")), lambda: ran.append("late")):
        worker._post(Command(command, ran.append))
    assert (
        not worker._run_commands(5.0) and ran == ["a", "b", "c"] and len(worker._commands) == 1 and not worker.is_alive
    )
    worker._end(ModelError("again"))
    worker._post(Command(lambda: ran.append("never"), lambda error: ran.append(str(error))))
    assert ran[3:] == ["over"] and len(worker._commands) == 1, "it fails at once"
    worker._fail_waiting_callers()
    assert [str(each) for each in ran[4:]] == ["over"] and not worker._commands


def test_a_function_gives_its_future_a_result_an_error_or_nothing_if_it_was_cancelled() -> None:
    worker = Idle(Written())
    calls: list[int] = []
    good, bad, dropped = worker._start(lambda: 5), worker._start(lambda: 1 // 0), worker._start(lambda: calls.append(1))
    assert dropped.cancel()
    worker._run_commands(1.0)
    assert good.result() == 5 and isinstance(bad.exception(), ZeroDivisionError) and calls == []
    late, gone = worker._start(lambda: 6), worker._start(lambda: 7)
    gone.cancel()
    worker.close()
    worker._fail_waiting_callers()
    assert str(late.exception()) == "the engine was closed" and gone.cancelled()
    assert str(worker._start(lambda: 8).exception()) == "the engine was closed"
    worker.close()


def in_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def test_outputs_go_to_the_queue_of_their_request_and_a_request_whose_loop_has_gone_is_aborted() -> None:
    worker = Idle(engine := Written())  # type: ignore[arg-type]

    async def made() -> OutputQueue:
        return OutputQueue()

    dead = in_loop(made())

    async def main() -> list[Output]:
        queue = OutputQueue()
        worker._add(lambda: 3, queue)
        worker._add(lambda: 4, dead)
        assert (queue.request_id, worker._queues) == (3, {3: queue, 4: dead})
        worker._deliver([last(9, 0, 1), last(3, 0, 1), last(4, 0, 2), last(3, 1, 2)])
        assert engine.calls == [("abort", 4)] and worker._queues == {3: queue}
        worker._drop(OutputQueue())
        assert engine.calls == [("abort", 4)], "one that was never added"
        found = await queue.get()
        worker._stop_error = ModelError("over")
        worker._fail_waiting_callers()
        assert worker._queues == {}
        with pytest.raises(ModelError, match="over"):
            await asyncio.wait_for(queue.get(), 5)
        worker._queues[3] = queue
        worker._drop(queue)
        assert worker._queues == {} and engine.calls[1:] == [("abort", 3)]
        return found

    assert in_loop(main()) == [last(3, 0, 1), last(3, 1, 2)]


def test_the_queues_of_every_loop_that_has_gone_are_told_once_and_the_others_get_their_items() -> None:
    async def made() -> list[OutputQueue]:
        return [OutputQueue(), OutputQueue()]

    first, second = in_loop(made()), in_loop(made())

    async def main() -> None:
        queue = OutputQueue()
        order = [first[0], second[0], queue, first[1], first[0], second[1], queue]
        items = [last(id, 0, id) for id in range(7)]
        assert deliver(list(zip(order, items, strict=True))) == [*first, *second]
        assert deliver([]) == [] and await queue.get() == [items[2], items[6]]

    in_loop(main())
    assert all(not each._items for each in (*first, *second))


def test_the_thread_steps_until_it_is_closed_and_gives_commands_as_long_as_the_step_took() -> None:
    def slow() -> list[Output]:
        time.sleep(0.1)
        return [Output(7, 0, (1,), (0.0,), True), last(8, 0, 1)]

    def closes() -> list[Output]:
        worker._end(ModelError("closed"))
        return []

    worker = Idle(engine := Written(slow, closes))  # type: ignore[arg-type]

    async def main() -> None:
        queues = [OutputQueue(), OutputQueue()]
        for queue in queues:
            worker._add(lambda: engine.add(Request((1,))), queue)
        failed: list[str] = []
        EngineWorker._run(worker)
        assert worker.given_s[0] == MIN_COMMANDS_S == 0.005 <= worker.given_s[2] and worker.given_s[1] >= 0.1
        assert worker.given_s[2] < worker.given_s[1], "the step before does not count"
        assert [each.token_ids for each in await queues[0].get()] == [(1,)] and len(await queues[1].get()) == 1
        with pytest.raises(ModelError, match="closed"):
            await asyncio.wait_for(queues[0].get(), 5)
        assert queues[1]._items.__len__() == 0 and worker._queues == {} and failed == [], (
            "an ended request hears no error"
        )

    in_loop(main())


def test_a_step_that_raises_ends_the_thread_and_every_caller_hears_why() -> None:
    worker = Idle(engine := Written(KeyError("weights")))  # type: ignore[arg-type]
    engine.live = {1}
    waiting = worker._start(lambda: engine.steps.__len__())
    worker._commands.append(Command(lambda: None, lambda error: None))
    with pytest.raises(KeyError):
        EngineWorker._run(worker)
    assert waiting.result() == 1 and not worker.is_alive
    assert str(worker._start(lambda: 1).exception()) == "the engine stopped: KeyError: 'weights'"
    assert isinstance(worker._stop_error, ModelError)
