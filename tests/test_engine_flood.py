"""Thousands of requests in the queue at once: each is answered without an error, or was aborted, and memory comes back."""

import random
from collections import defaultdict

import pytest

from engine_tiny import VOCAB, drain, tiny_engine, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling


def queue(engine: Engine, count: int) -> list[int]:
    """Many short requests of seven clients; the third tells its alternatives, the fifth has two answers."""
    return [
        engine.add(
            Request(
                (i % VOCAB, i // VOCAB % VOCAB),
                Sampling(max_tokens=1 + i % 2, top_logprobs=2 * (i % 3 == 0), temperature=float(i % 2), seed=i),
                n=1 + (i % 5 == 0),
                owner=f"{i % 7}",
            )
        )
        for i in range(count)
    ]


def check_answered(found: dict[tuple[int, int], list[Output]], request_id: int) -> None:
    """A request of `queue` has all its answers, none of them an error."""
    for index in range(1 + (request_id % 5 == 0)):
        outputs = found[request_id, index]
        assert all(output.error is None for output in outputs)
        assert [output.finish_reason for output in outputs] == [None] * (len(outputs) - 1) + ["length"]
        assert len(tokens(outputs)) == 1 + request_id % 2


def check_empty(engine: Engine) -> None:
    """Memory and queue are as they were before the first request."""
    stats = engine.stats()
    assert (stats.used_blocks, stats.waiting, stats.running, stats.oldest_wait_s) == (0, 0, 0, 0.0)
    assert not engine.live and engine.live.num_tokens == 0
    assert len(engine.scheduler.waiting._ranks._entries) <= 64
    engine.pool.check()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_queued_requests_are_all_answered_without_an_error(count: int) -> None:
    engine = tiny_engine(max_batch_tokens=2048, max_sequences=512)
    ids = queue(engine, count)
    assert engine.stats().waiting == count and ids == list(range(count))
    found = drain(engine)
    for request_id in ids:
        check_answered(found, request_id)
    check_empty(engine)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_of_thousands_of_queued_requests_most_may_be_aborted_and_the_others_are_answered(count: int) -> None:
    """The engine steps after every hundredth abort, so that requests of every kind are under way when they are dropped."""
    engine = tiny_engine(max_batch_tokens=256, max_sequences=64)
    ids = queue(engine, count)
    dropped, was_running = set[int](), 0
    found = defaultdict[tuple[int, int], list[Output]](list)
    for place, request_id in enumerate(random.Random(0).sample(ids, count * 9 // 10)):
        was_running += any(line.request_id == request_id for line in engine.scheduler.running)
        if engine.is_live(request_id):
            dropped.add(request_id)
        engine.abort(request_id)
        for output in engine.step() if place % 100 == 0 else ():
            assert output.request_id not in dropped
            found[output.request_id, output.index].append(output)
    for key, outputs in drain(engine).items():
        found[key] += outputs
    assert was_running >= 10 and count // 2 < len(dropped) < len(ids)
    for request_id in set(ids) - dropped:
        check_answered(found, request_id)
    check_empty(engine)
