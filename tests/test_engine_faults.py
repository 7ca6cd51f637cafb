"""Absurd requests, floods, and callers that vanish: an answer or a clear error for each, and memory back at its level."""

import asyncio
import gc
import random
import time
import tracemalloc
from collections.abc import Sequence

import pytest

from engine_tiny import VOCAB, drain, tiny_engine, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.engine_thread import EngineWorker
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.engine.memory.pinned_prefixes import PinnedPrefix
from firsthand.errors import ConfigError, FirsthandError, ModelError, PromptTooLong, QueueFull, TransientError
from firsthand.model import Sampling

PROMPT = (1, 2, 3)


class Endless(Sequence[int]):
    """A prompt that says it is long, and ends the test if anybody reads it."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: object) -> int:  # type: ignore[override]
        raise AssertionError("a prompt is read before its length is checked")


ABSURD = {
    "a million answers": (Request(PROMPT, n=10**6), ConfigError, "n is 1000000: give 1 to 1024"),
    "no answer": (Request(PROMPT, n=0), ConfigError, "n is 0"),
    "n is no number": (Request(PROMPT, n="2"), ConfigError, "n is '2'"),  # type: ignore[arg-type]
    "n has a million digits": (Request(PROMPT, n=1 << 4_000_000), ConfigError, "n is a number of 4000001 bits"),
    "a prompt of a million tokens": (Request(tuple([1] * 10**6)), PromptTooLong, "1000000 tokens.*context is 256"),
    "a prompt of a trillion tokens": (Request(Endless(10**12)), PromptTooLong, "1000000000000 tokens"),  # type: ignore[arg-type]
    "a prompt that fills the context": (Request(tuple([1] * 256)), PromptTooLong, "at least 1 must follow"),
    "no prompt": (Request(()), ModelError, "empty"),
    "a token below 0": (Request((5, -1)), ModelError, "token 1 of the prompt is -1"),
    "a token beyond the vocabulary": (Request((VOCAB,)), ModelError, f"from 0 to {VOCAB - 1}"),
    "a huge token": (Request((10**5000,)), ModelError, "a number of 16610 bits"),
    "a token that is NaN": (Request((float("nan"),)), ModelError, "nan"),  # type: ignore[arg-type]
    "a token that is text": (Request((1, "x" * 10**6)), ModelError, r"'x{99}\.\.\."),  # type: ignore[arg-type]
    "a stop id beyond the vocabulary": (Request(PROMPT, stop_ids=frozenset({VOCAB})), ModelError, "stop_ids"),
    "a stop id that is no number": (Request(PROMPT, stop_ids=frozenset({1, "a"})), ModelError, "'a'"),  # type: ignore[arg-type]
    "a million stop ids": (Request(PROMPT, stop_ids=frozenset(range(10**6))), ConfigError, "1000000 stop_ids"),
    "a huge seed": (Request(PROMPT, Sampling(seed=10**5000)), ConfigError, "seed is a number of 16610 bits"),
    "a seed that is NaN": (Request(PROMPT, Sampling(seed=float("nan"))), ConfigError, "seed is nan"),  # type: ignore[arg-type]
    "max_tokens is infinite": (Request(PROMPT, Sampling(max_tokens=float("inf"))), ConfigError, "max_tokens is inf"),  # type: ignore[arg-type]
    "an infinite penalty": (Request(PROMPT, Sampling(repetition_penalty=float("inf"))), ConfigError, "finite"),
    "a priority beyond all": (Request(PROMPT, priority=-(10**9)), ConfigError, "priority is -1000000000"),
    "a priority that is no number": (Request(PROMPT, priority=None), ConfigError, "priority is None"),  # type: ignore[arg-type]
    "an owner with a long name": (Request(PROMPT, owner="r" * 10**6), ConfigError, r"owner is 'r{99}\.\.\."),
}


@pytest.mark.parametrize("name", list(ABSURD))
def test_an_absurd_request_is_refused_at_once_and_harms_nobody(name: str) -> None:
    request, error, words = ABSURD[name]
    engine = tiny_engine()
    good = engine.add(Request(PROMPT, Sampling(max_tokens=3)))
    tracemalloc.start()
    with pytest.raises(error, match=words) as caught:
        engine.add(request)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(caught.value)) < 400
    assert peak < 1 << 20, f"{peak} bytes were allocated to say no"
    assert len(tokens(drain(engine)[good, 0])) == 3
    assert engine.stats().used_blocks == 0 and engine.live.num_tokens == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": float("nan")}, "top_p"),
        ({"min_p": float("nan")}, "min_p"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty"),
        ({"presence_penalty": float("inf")}, "presence_penalty"),
        ({"top_logprobs": 10**5}, "top_logprobs is 100000"),
        ({"top_k": -5}, "top_k"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": ("",) * 3}, "stop"),
    ],
)
def test_numbers_that_cannot_be_meant_do_not_even_make_a_sampling(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Sampling(**fields)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=10**9),
        Sampling(max_tokens=10**9, temperature=99.0, seed=-(2**63)),
        Sampling(max_tokens=10**9, temperature=1e-300, seed=2**64 - 1),
        Sampling(max_tokens=10**9, temperature=1.0, top_k=10**30, seed=0),
        Sampling(max_tokens=10**9, temperature=1.0, top_p=1e-300, min_p=1.0),
        Sampling(max_tokens=10**9, repetition_penalty=1e-300, temperature=1.0),
        Sampling(max_tokens=10**9, presence_penalty=100, frequency_penalty=-100, top_logprobs=100),
    ],
)
def test_extreme_but_possible_requests_end_where_the_context_ends(sampling: Sampling) -> None:
    engine = tiny_engine()
    engine.add(Request(PROMPT, sampling))
    (outputs,) = drain(engine).values()
    assert len(tokens(outputs)) == 253 and outputs[-1].finish_reason == "length"
    assert all(0 <= token < VOCAB for token in tokens(outputs))


@pytest.mark.parametrize(
    ("prefix", "continuations", "error", "words"),
    [
        ((), [[1]], ModelError, "prefix is empty"),
        (PROMPT, [[1], [VOCAB]], ModelError, "continuation 1"),
        (PROMPT, [[1] * 254], PromptTooLong, "context is 256"),
        (Endless(10**12), [[1]], PromptTooLong, "context"),
        (PROMPT, [Endless(10**12)], PromptTooLong, "context"),
        (PROMPT, [[1]] * (2**16 + 1), ConfigError, "65537 continuations"),
    ],
)
def test_an_absurd_score_is_refused(
    prefix: Sequence[int], continuations: list[Sequence[int]], error: type, words: str
) -> None:
    engine = tiny_engine()
    with pytest.raises(error, match=words):
        engine.score(prefix, continuations)
    with pytest.raises(FirsthandError):
        engine.add_score(prefix, continuations, priority=10**6)
    assert not engine.has_work


@pytest.mark.parametrize("text", [(), (VOCAB,), ("a",), (None,)])
def test_a_text_that_has_no_tokens_cannot_be_held(text: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="prefix to pin"):
        tiny_engine().pin_prefix(text)


def test_a_full_queue_refuses_more_and_takes_them_again_later() -> None:
    engine = tiny_engine(max_waiting=5)
    ids = [engine.add(Request(PROMPT, Sampling(max_tokens=2))) for _ in range(5)]
    with pytest.raises(QueueFull, match="5 requests wait") as caught:
        engine.add(Request(PROMPT))
    assert isinstance(caught.value, TransientError), "it is tried again"
    with pytest.raises(QueueFull):
        engine.add_score(PROMPT, [[1]])
    engine.abort(ids[0])
    engine.add(Request(PROMPT, Sampling(max_tokens=2)))
    assert len(drain(engine)) == 5
    assert engine.stats().refused == 2 and engine.stats().requests == 6
    engine.add(Request(PROMPT, Sampling(max_tokens=2)))


def test_the_queue_is_bounded_by_tokens_too() -> None:
    engine = tiny_engine(max_live_tokens=1000)
    with pytest.raises(ConfigError, match="2000 prompt tokens together"):
        engine.add(Request(tuple([1] * 200), n=10))
    with pytest.raises(ConfigError, match="max_live_tokens"):
        engine.score(tuple([1] * 200), [[1], [2], [3], [4]])
    engine.add(Request(tuple([1] * 200), Sampling(max_tokens=2), n=4))
    with pytest.raises(QueueFull, match="800 prompt tokens are live"):
        engine.add(Request(tuple([1] * 201), Sampling(max_tokens=2)))
    drain(engine)
    assert engine.live.num_tokens == 0
    engine.score(tuple([1] * 201), [[1], [2], [3]])
    assert engine.live.num_tokens == 0


def test_stats_tell_who_waits() -> None:
    engine = tiny_engine(max_sequences=1)
    for priority in (0, 0, 3, -2):
        engine.add(Request(PROMPT, Sampling(max_tokens=50), priority=priority))
    engine.step()
    time.sleep(0.01)
    stats = engine.stats()
    assert (stats.running, stats.waiting, dict(stats.waiting_by_priority)) == (1, 3, {0: 2, 3: 1})
    assert 0.01 <= stats.oldest_wait_s < 5
    assert stats.num_blocks == stats.used_blocks + stats.free_blocks


async def collect(worker: EngineWorker, request: Request) -> list[Output]:
    return [output async for output in worker.submit(request)]


@pytest.mark.slow
def test_hundreds_of_callers_who_leave_at_random_moments_leave_nothing_behind() -> None:
    rng = random.Random(4)
    shared = tuple(rng.randrange(VOCAB) for _ in range(40))

    async def caller(worker: EngineWorker, place: int) -> str:
        prompt = (*shared[: rng.randrange(40)], place % VOCAB)
        sampling = Sampling(max_tokens=rng.randrange(1, 60), temperature=1.0, seed=place)
        await asyncio.sleep(rng.random() * 0.3)
        kind = place % 4
        if kind == 0:
            await worker.score(prompt, [[1, 2, 3], [4] * rng.randrange(1, 9)])
        elif kind == 1:
            hold = await worker.pin_prefix(prompt)
            await asyncio.sleep(0.01)
            await worker.unpin_prefix(hold)
        else:
            await collect(worker, Request(prompt, sampling, n=1 + place % 3, owner=f"{place % 5}", priority=place % 2))
        return "ended"

    async def main(worker: EngineWorker) -> list[object]:
        tasks = [asyncio.create_task(caller(worker, place)) for place in range(400)]
        for _ in range(300):
            await asyncio.sleep(rng.random() * 0.004)
            rng.choice(tasks).cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 240)
        stats = await worker.stats()
        while stats.running or stats.waiting:  # the last cancellations are on their way
            await asyncio.sleep(0.01)
            stats = await worker.stats()
        worker.engine.pool.check()
        assert not worker._queues
        for hold in list(worker.engine.scheduler.pinned_prefixes._tables):
            await worker.unpin_prefix(hold)  # of those who left between their hold and their release
        assert (await worker.stats()).used_blocks == 0
        assert not worker.engine.live and worker.engine.live.num_tokens == 0
        return results

    with EngineWorker(tiny_engine(kv_memory_bytes=16 * 512 * 40, max_sequences=16)) as worker:
        results = asyncio.run(main(worker))
    ended, left = results.count("ended"), sum(isinstance(result, asyncio.CancelledError) for result in results)
    assert ended + left == 400 and ended > 50 and left > 50


def test_a_caller_who_leaves_while_a_hold_is_taken_holds_nothing() -> None:
    async def main(worker: EngineWorker) -> None:
        await collect(worker, Request(PROMPT, Sampling(max_tokens=40)))
        for wait_s in [0.0, 0.0001, 0.001] * 20:
            task = asyncio.create_task(worker.pin_prefix(PROMPT))
            await asyncio.sleep(wait_s)
            if task.done():
                await worker.unpin_prefix(task.result())
            task.cancel()
            with_result = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(with_result, PinnedPrefix):
                await worker.unpin_prefix(with_result)
        assert (await worker.stats()).pinned_prefixes == 0

    with EngineWorker(tiny_engine()) as worker:
        asyncio.run(main(worker))


@pytest.mark.slow
def test_loops_that_close_in_the_middle_do_not_disturb_the_others() -> None:
    with EngineWorker(tiny_engine()) as worker:
        for place in range(20):
            loop = asyncio.new_event_loop()
            streams = [worker.submit(Request((place, i), Sampling(max_tokens=200))) for i in range(3)]
            for stream in streams:
                loop.run_until_complete(anext(stream))
            loop.close()
            del streams
        assert len(tokens(asyncio.run(collect(worker, Request(PROMPT, Sampling(max_tokens=30)))))) == 30
        gc.collect()
        stats = asyncio.run(worker.stats())
        assert (stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0)


@pytest.mark.slow
def test_a_flood_of_requests_does_not_stop_the_answers_under_way() -> None:
    async def main(worker: EngineWorker) -> tuple[float, int]:
        stream = worker.submit(Request(PROMPT, Sampling(max_tokens=250), owner="first"))
        await anext(stream)
        flood = [asyncio.create_task(collect(worker, Request((i % VOCAB,) * 9, owner="flood"))) for i in range(3000)]
        await asyncio.sleep(0)
        longest, seen, before = 0.0, 0, time.process_time()
        async for _ in stream:
            now = time.process_time()
            longest, before = max(longest, now - before), now
            seen += 1
            if seen == 60:
                break
        await stream.aclose()
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        return longest, seen

    with EngineWorker(tiny_engine(max_sequences=8)) as worker:
        longest, seen = asyncio.run(main(worker))
    assert seen == 60 and longest < 3.0, f"{longest:.2f} s of processor time without a token"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("after", [0, 3, 30])
def test_a_thread_that_dies_under_load_tells_everybody(after: int) -> None:
    class Mortal(Engine):
        left = after

        def step(self) -> list[Output]:
            self.left -= 1
            if self.left < 0:
                raise MemoryError("nothing left")
            return super().step()

    async def main(worker: EngineWorker) -> None:
        tries = [collect(worker, Request((i,), Sampling(max_tokens=100), n=2)) for i in range(50)]
        tries += [worker.score((i,), [[2]]) for i in range(20)]
        tries += [worker.pin_prefix((i,)) for i in range(20)]
        found = await asyncio.wait_for(asyncio.gather(*tries, return_exceptions=True), 120)
        failed = [error for error in found if isinstance(error, BaseException)]
        assert all(isinstance(error, ModelError) and "MemoryError" in str(error) for error in failed)
        assert len(failed) >= 50
        with pytest.raises(ModelError, match="MemoryError"):
            await worker.pin_prefix((1,))

    worker = EngineWorker(Mortal(tiny_model(), EngineConfig(kv_memory_bytes=1 << 20)))
    asyncio.run(main(worker))
    worker.close()
    assert not worker._thread.is_alive()


def test_a_stopper_that_cannot_be_made_refuses_its_own_request() -> None:
    def broken() -> None:
        raise ZeroDivisionError("no")

    engine = tiny_engine()
    with pytest.raises(ZeroDivisionError):
        engine.add(Request(PROMPT, stopper=broken))  # type: ignore[arg-type]
    assert not engine.has_work and engine.live.num_tokens == 0


def test_memory_for_keys_and_values_that_is_too_small_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="needs two or more"):
        tiny_engine(kv_memory_bytes=16 * 512)
    for field in ("max_waiting", "max_live_tokens"):
        with pytest.raises(ConfigError, match=field):
            EngineConfig(**{field: 0})
