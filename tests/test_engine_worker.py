import asyncio
import gc
import threading
import time

import pytest

from engine_tiny import VOCAB, logprobs, tiny_engine, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_thread import Command, EngineWorker
from firsthand.engine.core.output_delivery import OutputQueue
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, ModelError, PromptTooLong
from firsthand.model import Sampling

LONG = Request((1, 2, 3), Sampling(max_tokens=200))


async def collect(worker: EngineWorker, request: Request) -> list[Output]:
    return [output async for output in worker.submit(request)]


def test_many_callers_get_their_own_outputs_whenever_they_come() -> None:
    engine = tiny_engine()
    requests = [Request((i, 5, i), Sampling(max_tokens=9, temperature=1.0, seed=i), n=1 + i % 3) for i in range(24)]
    expected = []
    for request in requests:
        request_id, found = engine.add(request), []
        while engine.is_live(request_id):
            found += engine.step()
        expected.append({i: logprobs(o for o in found if o.index == i) for i in range(request.n)})

    async def late(worker: EngineWorker, place: int) -> dict[int, tuple[float, ...]]:
        await asyncio.sleep(0.002 * (place * 7 % 24))
        found = await collect(worker, requests[place])
        return {i: logprobs(o for o in found if o.index == i) for i in range(requests[place].n)}

    async def everyone(worker: EngineWorker) -> list[dict[int, tuple[float, ...]]]:
        return await asyncio.gather(*(late(worker, place) for place in range(24)))

    with EngineWorker(tiny_engine()) as worker:
        found = asyncio.run(everyone(worker))
        asyncio.run(worker.stats())
        assert not worker._queues
    if engine.weights == "float16":
        assert found == expected


def test_callers_may_live_in_several_event_loops() -> None:
    results: dict[int, tuple[int, ...]] = {}
    with EngineWorker(tiny_engine()) as worker:

        def caller(place: int) -> None:
            results[place] = tokens(asyncio.run(collect(worker, Request((7, 8), Sampling(max_tokens=30)))))

        threads = [threading.Thread(target=caller, args=(place,)) for place in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(results) == 4 and len(set(results.values())) == 1


def test_scores_come_back_in_the_order_of_the_continuations() -> None:
    continuations = [[1, 2], [3], [], [4, 5, 6]]
    engine = tiny_engine()

    async def main(worker: EngineWorker) -> None:
        assert await worker.score((9, 8), continuations) == engine.score((9, 8), continuations)
        assert await worker.score((9, 8), []) == []
        with pytest.raises(ModelError, match="empty"):
            await worker.score((), [[1]])

    with EngineWorker(tiny_engine()) as worker:
        asyncio.run(main(worker))


def test_a_caller_who_leaves_frees_the_memory() -> None:
    async def main(worker: EngineWorker) -> None:
        task = asyncio.create_task(collect(worker, LONG))
        stream = worker.submit(LONG)
        await anext(stream)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()
        stats = await worker.stats()
        assert (stats.running, stats.waiting) == (0, 0)
        assert stats.free_blocks == worker.engine.pool.num_blocks
        assert not worker._queues

    with EngineWorker(tiny_engine()) as worker:
        asyncio.run(main(worker))


@pytest.mark.slow
def test_a_caller_whose_loop_died_does_not_disturb_the_others() -> None:
    with EngineWorker(tiny_engine()) as worker:
        loop = asyncio.new_event_loop()
        stream = worker.submit(LONG)
        loop.run_until_complete(anext(stream))
        loop.close()
        assert len(tokens(asyncio.run(collect(worker, LONG)))) == 200
        assert asyncio.run(worker.stats()).running == 0
        del stream
        gc.collect()


def test_a_bad_request_brings_its_error_to_its_own_caller() -> None:
    async def main(worker: EngineWorker) -> None:
        good = asyncio.create_task(collect(worker, Request((1,), Sampling(max_tokens=5))))
        with pytest.raises(ModelError, match=str(VOCAB)):
            await collect(worker, Request((VOCAB,)))
        assert len(await good) == 5

    with EngineWorker(tiny_engine()) as worker:
        asyncio.run(main(worker))


def test_where_no_answer_is_to_come_the_request_is_checked_all_the_same_and_nothing_stays() -> None:
    async def main(worker: EngineWorker) -> None:
        with pytest.raises(PromptTooLong, match="5000 tokens"):
            await worker.score((1,) * 5000, [])
        with pytest.raises(ModelError, match="empty"):
            await worker.score((), [])
        for n in (0, -3, 10**9, "2", None, 1.5):
            with pytest.raises(ConfigError, match=f"n is {n!r}"):
                await collect(worker, Request((1,), n=n))  # type: ignore[arg-type]
        assert await asyncio.gather(*(worker.score((1, 2, 3), []) for _ in range(50))) == [[]] * 50
        stats = await worker.stats()
        assert (stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0)
        assert not worker._queues
        assert len(tokens(await collect(worker, Request((1,), Sampling(max_tokens=5))))) == 5

    with EngineWorker(tiny_engine()) as worker:
        asyncio.run(main(worker))


def test_callers_who_leave_at_any_moment_leave_nothing_behind() -> None:
    async def leave(worker: EngineWorker, place: int) -> None:
        task = asyncio.create_task(collect(worker, LONG) if place % 2 else worker.score((1, 2), [[3]] * 9))
        for _ in range(place // 2 % 12):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001 * (place % 5))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def main(worker: EngineWorker) -> None:
        await asyncio.gather(*(leave(worker, place) for place in range(60)))
        stats = await worker.stats()
        assert (stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0)
        assert not worker._queues

    with EngineWorker(tiny_engine()) as worker:
        asyncio.run(main(worker))


def test_closing_tells_those_who_wait_and_those_who_come_later() -> None:
    class Slow(Engine):
        begun = threading.Event()

        def step(self) -> list[Output]:
            self.begun.set()
            time.sleep(0.02)  # so that the answer is not done when the worker is closed
            return super().step()

    async def main(worker: EngineWorker) -> None:
        waiting = asyncio.create_task(collect(worker, LONG))
        await asyncio.to_thread(worker.engine.begun.wait, 60)
        worker.close()
        worker.close()
        with pytest.raises(ModelError, match="closed"):
            await asyncio.wait_for(waiting, 10)
        for late in (collect(worker, LONG), worker.score((1,), [[2]]), worker.stats()):
            with pytest.raises(ModelError, match="closed"):
                await asyncio.wait_for(late, 10)

    worker = EngineWorker(Slow(tiny_model()))
    asyncio.run(main(worker))
    assert not worker._thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_thread_dies_nobody_waits_for_ever() -> None:
    class Dying(Engine):
        def step(self) -> list[Output]:
            raise RuntimeError("out of luck")

    async def main(worker: EngineWorker) -> None:
        tries = [collect(worker, LONG), collect(worker, LONG), worker.score((1,), [[2]])]
        for error in await asyncio.wait_for(asyncio.gather(*tries, return_exceptions=True), 10):
            assert isinstance(error, ModelError) and "out of luck" in str(error)

    worker = EngineWorker(Dying(tiny_model()))
    asyncio.run(main(worker))
    worker.close()


def test_weights_are_replaced_between_steps() -> None:
    async def main(worker: EngineWorker) -> None:
        request = Request((1, 2), Sampling(max_tokens=6))
        before = await collect(worker, request)
        await worker.load(tiny_model(seed=1).state_dict(), version=3)
        after = await collect(worker, request)
        assert tokens(before) != tokens(after)
        assert {output.version for output in after} == {3}

    with EngineWorker(tiny_engine()) as worker:
        asyncio.run(main(worker))


def test_a_lease_holds_a_text_until_nobody_has_it() -> None:
    text = tuple(range(1, 40))

    async def come_and_go(worker: EngineWorker) -> None:
        [output] = [output async for output in worker.submit(Request(text, Sampling(max_tokens=1)))]
        assert output.finish_reason == "length"
        lease, other = worker.lease(text), worker.lease(text)
        assert ((await worker.stats()).pinned_prefixes, (await worker.stats()).pinned_blocks) == (2, 3)
        del other
        gc.collect()
        assert (await worker.stats()).pinned_prefixes == 1
        worker.lease(text)  # collected before the engine has seen it
        worker.lease((VOCAB + 1,))  # no token: nothing to hold, and nobody is bothered
        del lease
        gc.collect()
        stats = await worker.stats()
        assert (stats.pinned_prefixes, stats.used_blocks) == (0, 0)

    with EngineWorker(tiny_engine()) as worker:
        asyncio.run(come_and_go(worker))
        outlives = worker.lease(text)
    del outlives
    gc.collect()
    after = worker.lease(text)  # the worker is closed
    del after


@pytest.mark.parametrize("breaks", [False, True], ids=["closed", "broken"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_waits_when_the_engine_ends_is_not_carried_out_and_gets_the_error(breaks: bool) -> None:
    worker, held, done = EngineWorker(tiny_engine()), threading.Event(), list[str]()
    begun = threading.Event()

    def hold() -> str:
        begun.set()
        assert held.wait(60)
        if breaks:
            raise SystemExit("out of luck")  # not an Exception: it ends the thread
        return "done"

    running = worker._start(hold)
    assert begun.wait(60)
    waiting = [worker._start(lambda: done.append("run")) for _ in range(3)]
    gone = worker._start(lambda: done.append("run"))
    gone.cancel()
    if not breaks:
        closing = threading.Thread(target=worker.close)
        closing.start()
        deadline = time.monotonic() + 60
        while worker.is_alive and time.monotonic() < deadline:
            time.sleep(0.001)
        held.set()
        closing.join(60)
        assert running.result(60) == "done", "what had begun is finished"
    held.set()
    worker._thread.join(60)
    says = "the engine stopped: SystemExit: out of luck" if breaks else "the engine was closed"
    for future in (*waiting, worker._start(lambda: done.append("late"))):
        assert str(future.exception(60)) == says and isinstance(future.exception(), ModelError)
    assert done == [] and gone.cancelled() and not worker.is_alive and not worker._commands and not worker._queues
    assert worker.engine.stats().pinned_prefixes == 0
    worker.close()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_request_that_waits_gets_the_error_that_ended_the_thread(count: int) -> None:
    worker = EngineWorker(Engine(tiny_model()))
    worker.close()
    worker._thread.join()
    commands: list[Exception] = []

    async def main() -> list[object]:
        queues = [OutputQueue() for _ in range(count)]
        worker._queues.update(enumerate(queues))
        worker._commands += [Command(lambda: None, commands.append) for _ in range(count)]
        worker._fail_waiting_callers()
        assert worker._queues == {} and not worker._commands
        asked = [asyncio.wait_for(queue.get(), 2) for queue in queues]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    found = asyncio.run(main())
    assert found == commands == [worker._stop_error] * count and str(worker._stop_error) == "the engine was closed"


def test_a_program_that_leaves_its_engine_open_ends_all_the_same() -> None:
    with EngineWorker(tiny_engine()) as worker:
        assert worker._thread.daemon
