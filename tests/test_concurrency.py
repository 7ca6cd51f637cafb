import asyncio
import random
import threading
import time

import pytest

from firsthand.errors import ModelError, TransientError
from firsthand.loop.concurrency import (
    Branch,
    Retry,
    current_branch,
    derive_seed,
    enter_branch,
    group,
    run_sync,
    with_retries,
)


async def name_effects(depth: int, jitter: random.Random) -> list[str]:
    """The names of the effects in a small tree of branches that sleeps at random."""
    await asyncio.sleep(jitter.random() / 200)
    here = [current_branch().next_effect()]
    if depth:
        for _ in range(2):
            for below in await group(name_effects(depth - 1, jitter) for _ in range(2)):
                here += below
    return [*here, current_branch().next_effect()]


async def tree(seed: int) -> list[str]:
    enter_branch(Branch())
    return await name_effects(2, random.Random(seed))


def test_names_of_effects_do_not_depend_on_timing():
    first = run_sync(tree(0))
    assert all(run_sync(tree(seed)) == first for seed in range(1, 5))
    assert len(set(first)) == len(first)
    assert first[:3] == [":0", "0.0:0", "0.0/0.0:0"]


def test_a_group_keeps_order_and_passes_the_first_error_as_it_is():
    async def work(index: int) -> int:
        await asyncio.sleep(0.01 * (3 - index))
        return index

    assert run_sync(group(work(i) for i in range(3))) == [0, 1, 2]
    cancelled = []

    async def fail() -> int:
        raise ValueError("broken")

    async def wait() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return 0

    with pytest.raises(ValueError, match="broken"):
        run_sync(group([wait(), fail(), wait()]))
    assert cancelled == [True, True]


def test_passing_faults_are_tried_again_and_others_are_not():
    tries = []

    async def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise TransientError("busy", retry_after_s=0)
        return "done"

    assert run_sync(with_retries(flaky, Retry())) == "done"
    tries.clear()

    async def broken() -> str:
        tries.append(1)
        raise ModelError("no such model")

    with pytest.raises(ModelError):
        run_sync(with_retries(broken, Retry()))
    assert len(tries) == 1


def test_retries_end_with_the_last_error():
    async def dead() -> str:
        raise TransientError("connection refused", retry_after_s=0)

    with pytest.raises(TransientError, match="refused"):
        run_sync(with_retries(dead, Retry(attempts=3)))


def test_waits_grow_and_are_bounded():
    rng = random.Random(0)
    retry = Retry(first_wait_s=1, max_wait_s=10)
    for attempt, ceiling in [(1, 1), (2, 2), (3, 4), (10, 10)]:
        assert ceiling / 2 <= retry.wait_s(attempt, None, rng) <= ceiling
    assert retry.wait_s(1, 99999, rng) == 10
    assert retry.wait_s(1, -5, rng) == 0


def test_seeds_depend_on_every_part():
    seeds = {derive_seed(0, "a", 1), derive_seed(0, "a", 2), derive_seed(1, "a", 1), derive_seed(0, "a1")}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1)


@pytest.mark.parametrize("in_a_loop", [False, True])
def test_an_interrupted_run_does_not_wait_for_threads(in_a_loop):
    go, late = threading.Event(), []

    async def pressed() -> None:
        asyncio.get_running_loop().run_in_executor(None, go.wait, 20)
        raise KeyboardInterrupt

    async def notebook_cell() -> None:
        with pytest.raises(KeyboardInterrupt):
            run_sync(pressed())

    timer = threading.Timer(2.0, lambda: (late.append(True), go.set()))
    timer.start()
    if in_a_loop:
        asyncio.run(notebook_cell())
    else:
        with pytest.raises(KeyboardInterrupt):
            run_sync(pressed())
    assert not late
    timer.cancel()
    go.set()

    async def awaited() -> str:
        asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.01), late.append("done")))
        return "result"

    assert run_sync(awaited()) == "result" and late == ["done"], "those of a whole run are"


def test_run_works_inside_a_running_loop():
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def notebook_cell() -> int:
        return run_sync(answer())

    began = time.perf_counter()
    assert asyncio.run(notebook_cell()) == 42
    assert time.perf_counter() - began < 30
