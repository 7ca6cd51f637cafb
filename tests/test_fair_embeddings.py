"""Calls that share an embedder: turns by owner and call, what is refused uncomputed, and threads that stay free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.embed.embedding import PIECE_CHARS, WINDOW, TextEmbedder, pieces_of
from firsthand.embed.embedding_config import EmbeddingConfig
from firsthand.embed.fair_pool import MAX_SERVED, FairPool
from firsthand.errors import ConfigError, ModelError, PromptTooLong
from firsthand.providers.local_embedder import LocalEmbedder
from firsthand.system.request_owner import set_owner
from test_embedded_vectors import embedder

LONG = EmbeddingConfig("mean", 600)


def held(pool: FairPool) -> threading.Event:
    """An event before which the pool's one thread does nothing else."""
    goes, began = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        assert goes.wait(20)

    pool.submit(wait, owner="held")
    assert began.wait(20)
    return goes


def gated(made: TextEmbedder) -> tuple[threading.Event, threading.Event, list[int]]:
    """Events: the first pack has begun, and it may go on; and the first id of each pack."""
    began, goes, seen = threading.Event(), threading.Event(), []

    def forward(ids_N: Any, lengths: Sequence[int]) -> Any:
        seen.append(int(ids_N[0]))
        began.set()
        assert goes.wait(20)
        return np.stack([ids_N, np.ones_like(ids_N)], 1).astype(np.float32)

    made._forward = forward
    return began, goes, seen


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not fact():
            await asyncio.sleep(0.001)


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


def test_owners_take_turns_and_so_do_the_calls_of_one() -> None:
    pool, done = FairPool(1, name="test"), []
    goes = held(pool)
    work = ["ann 1 a", "ann 1 b", "ann 1 c", "ann 2 a", "ann 2 b", "bob 1 a", "bob 1 b", "cy 1 a"]
    futures = [pool.submit(lambda each=each: done.append(each), owner=each[:-4], call=each[-3]) for each in work]  # type: ignore[misc]
    goes.set()
    for future in futures:
        future.result(20)
    assert done == ["ann 1 a", "bob 1 a", "cy 1 a", "ann 2 a", "bob 1 b", "ann 1 b", "ann 2 b", "ann 1 c"]
    pool.shutdown()


def test_an_owner_that_had_its_turn_goes_behind_those_that_had_theirs_before() -> None:
    pool, done = FairPool(1, name="test"), []
    for owner in ("held", "ann", "bob"):
        pool.submit(int, owner=owner).result(20)
    goes = held(pool)
    futures = [pool.submit(lambda each=each: done.append(each), owner=each) for each in ("bob", "bob", "held", "ann")]  # type: ignore[misc]
    goes.set()
    for future in futures:
        future.result(20)
    assert done == ["ann", "bob", "held", "bob"]
    sizes = []
    for number in range(2 * MAX_SERVED):
        pool.submit(int, owner=str(number)).result(20)
        sizes.append(len(pool._served))
    assert max(sizes) == MAX_SERVED
    pool.shutdown()


def test_the_last_turns_of_those_with_work_are_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.embed.fair_pool.MAX_SERVED", 2)
    pool, done = FairPool(1, name="test"), []
    goes = held(pool)
    futures = [pool.submit(lambda each=each: done.append(each), owner=each) for each in ("ann", "ann", "bob", "cy")]  # type: ignore[misc]
    goes.set()
    for future in futures:
        future.result(20)
    assert done == ["ann", "bob", "cy", "ann"]
    pool.shutdown()


def test_what_was_cancelled_costs_its_owner_no_turn() -> None:
    pool, done = FairPool(1, name="test"), []
    goes = held(pool)
    for call in range(2):
        assert pool.submit(int, owner="ann", call=call).cancel()
    futures = [pool.submit(lambda each=each: done.append(each), owner=each) for each in ("ann", "bob")]  # type: ignore[misc]
    goes.set()
    for future in futures:
        future.result(20)
    assert done == ["ann", "bob"]
    pool.shutdown()


def test_work_gives_its_own_result_or_error_and_what_is_cancelled_is_not_done() -> None:
    pool, done = FairPool(1, name="test"), []
    goes = held(pool)

    def broken() -> None:
        raise ModelError("broken")

    def ended() -> None:
        raise SystemExit(3)

    exit_, error, cancelled, three = (pool.submit(each) for each in (ended, broken, lambda: done.append(1), lambda: 3))
    assert cancelled.cancel()
    goes.set()
    with pytest.raises(ModelError, match="broken"):
        error.result(20)
    with pytest.raises(SystemExit):
        exit_.result(20)
    assert three.result(20) == 3 and done == []
    pool.shutdown()


def test_the_threads_of_a_pool_have_its_name() -> None:
    pool = FairPool(1, name="test")
    assert pool.submit(lambda: threading.current_thread().name).result(20) == "test_0"
    pool.shutdown()


def test_a_pool_that_ends_waits_for_what_is_under_way_and_cancels_the_rest() -> None:
    pool, done = FairPool(1, name="test"), []
    goes = held(pool)
    waiting: list[Future[Any]] = [pool.submit(lambda: done.append(1), owner=owner) for owner in ("a", "b", "b")]
    ending = threading.Thread(target=pool.shutdown)
    ending.start()
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(20)
    assert ending.is_alive()
    goes.set()
    ending.join(20)
    assert not ending.is_alive() and done == []
    pool._work_once()  # as a thread that came to its turn too late
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_a_short_call_waits_for_one_pack_of_a_long_one() -> None:
    made = embedder(LONG)
    began, goes, seen = gated(made)

    async def work() -> list[int]:
        long = asyncio.create_task(made.embed_in_turn([f"w{number} " * 300 for number in range(1, 7)], owner="ann"))
        await until(began.is_set)
        other = asyncio.create_task(made.embed_in_turn(["w8 " * 300], owner="ann"))
        short = asyncio.create_task(made.embed_in_turn(["w9"], owner="bob"))
        await until(lambda: sum(map(len, made._pool._waiting.values())) == 3)
        goes.set()
        assert [(await each).num_tokens for each in (short, other)] == [(1,), (300,)]
        assert len((await long).vectors) == 6
        return seen

    assert run(work()) == [1, 9, 2, 8, 3, 4, 5, 6]
    made.close()


def test_texts_are_tokenised_in_turns_too_and_while_a_pack_is_computed() -> None:
    made, asked = embedder(EmbeddingConfig("mean", 2)), []
    goes, tokenise = held(made._tokenising), made.tokenise

    def kept(text: str) -> Any:
        asked.append(text[:2])
        return tokenise(text)

    made.tokenise = kept  # type: ignore[method-assign]
    computing, computes, _ = gated(made)

    async def work() -> None:
        long = asyncio.create_task(made.embed_in_turn(["w1 " * 5000, "w2 " * 5000, "w3 " * 5000], owner="ann"))
        await until(lambda: made._tokenising._waiting)
        other = asyncio.create_task(made.embed_in_turn(["w8"], owner="ann"))
        short = asyncio.create_task(made.embed_in_turn(["w9"], owner="bob"))
        await until(lambda: sum(map(len, made._tokenising._waiting.values())) == 3)
        goes.set()
        await until(computing.is_set)  # bob's pack is held, and ann's texts are tokenised meanwhile
        await until(lambda: len(asked) == 5)
        computes.set()
        assert (await short).truncated == (await other).truncated == (False,) and (await long).truncated == (True,) * 3

    run(work())
    assert asked == ["w1", "w9", "w8", "w2", "w3"]
    made.close()


def test_a_closed_embedder_has_ended_both_its_pools() -> None:
    made = embedder(LONG)
    made.close()
    for pool in (made._tokenising, made._pool):
        with pytest.raises(RuntimeError):
            pool.submit(int)


def test_pieces_hold_up_to_their_characters_and_never_split_a_text() -> None:
    half = "a" * (PIECE_CHARS // 2)
    assert pieces_of([]) == [] and pieces_of(["", ""]) == [["", ""]]
    assert pieces_of([half, half, "a", half + half + "a", "b"]) == [[half, half], ["a"], [half + half + "a"], ["b"]]
    assert [len(piece) for piece in pieces_of([""] * (PIECE_CHARS + 1))] == [PIECE_CHARS, 1]


def test_a_text_that_is_too_long_is_refused_before_anything_is_computed() -> None:
    made = embedder(EmbeddingConfig("mean", 2))
    with pytest.raises(PromptTooLong, match=r"^input 1 has more tokens than the model takes \(2\): split it$"):
        run(made.embed_in_turn(["w1 w2", "w1 w2 w3", "w1 w2 w3"], whole=True))
    assert made.packs == []  # type: ignore[attr-defined]
    assert run(made.embed_in_turn(["w1 w2", "w3"], whole=True)).truncated == (False, False)
    assert run(made.embed_in_turn(["w1 w2", "w1 w2 w3"])).truncated == (False, True)
    made.close()


def test_vectors_in_turn_are_those_of_embed_however_many_the_texts_are() -> None:
    made = embedder(LONG)
    texts = [f"w{i % 7 + 1} w{i % 5 + 1}" + " w2" * (i % 3) for i in range(WINDOW + 3)]
    found, wanted = run(made.embed_in_turn(texts)), made.embed(texts)
    assert found.vectors.tobytes() == wanted.vectors.tobytes() and found.num_tokens == wanted.num_tokens
    none = run(made.embed_in_turn([]))
    assert none.vectors.shape == (0, 8) and none.num_tokens == none.truncated == ()
    for texts_given, said in (("w1", "embed takes a list of texts"), (["w1", 3], "a text to embed is int '3'")):
        with pytest.raises(ConfigError, match=said):
            run(made.embed_in_turn(texts_given))  # type: ignore[arg-type]
    made.close()


def test_a_call_that_waits_holds_no_thread_of_the_loop_and_one_that_is_cancelled_stops_after_its_pack() -> None:
    made = embedder(LONG)
    began, goes, seen = gated(made)
    model = LocalEmbedder("nowhere")
    model._loaded = made

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        calls = [asyncio.create_task(model.embed_counted(["w1 " * 300, "w2 " * 300, "w3 " * 300])) for _ in range(4)]
        await until(began.is_set)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 5), 10) == 5
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        goes.set()
        assert (await model.embed_counted(["w9"])).num_tokens == (1,)

    run(work())
    assert seen == [1, 9]
    made.close()


def test_after_an_error_what_has_not_begun_is_not_computed() -> None:
    made = embedder(LONG)
    _, goes, seen = gated(made)
    forward = made._forward

    def broken(ids_N: Any, lengths: Sequence[int]) -> Any:
        if ids_N[0] == 1:
            raise ModelError("broken")
        return forward(ids_N, lengths)

    made._forward = broken

    async def work() -> None:
        with pytest.raises(ModelError, match="broken"):
            await made.embed_in_turn([f"w{number} " * 300 for number in range(1, 5)])
        goes.set()
        await made.embed_in_turn(["w9"])

    run(work())
    assert len(seen) <= 2 and seen[-1] == 9, "one of the others may have begun beside what broke"
    made.close()


def test_the_owner_of_a_request_is_its_client_whatever_users_it_names() -> None:
    asked: list[Any] = []

    async def embed_in_turn(texts: Any, **given: Any) -> Any:
        asked.append((list(texts), given))
        return SimpleNamespace(vectors=np.ones((1, 2)))

    model: Any = LocalEmbedder("nowhere")
    model._loaded = SimpleNamespace(embed_in_turn=embed_in_turn)
    with set_owner("ann/user"):
        assert run(model.embed(["a"])) == [[1.0, 1.0]]
    run(model.embed_counted(["b"], whole=True))
    assert asked == [(["a"], {"owner": "ann", "whole": False}), (["b"], {"owner": "", "whole": True})]
