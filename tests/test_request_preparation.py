"""What follows from sampling settings is derived once for all that share them, off the event loop and in turns."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.engine.core.request_checks import check_request
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.errors import ConfigError, ModelError
from firsthand.model import Sampling
from firsthand.providers import request_preparation
from firsthand.providers.local_completions import Loaded, new_request
from firsthand.providers.request_preparation import EACH, PIECE, SMALL, Preparation, derive, size
from firsthand.tokens.incremental_decoding import StopString


class Letters:
    """A tokenizer of one token for each letter, which counts its encodings and says in which threads they were."""

    eos_ids = frozenset({2})
    strips_leading_space = False

    def __init__(self) -> None:
        self.num_encodings, self.threads = 0, set[str]()

    def encode_runs(self, runs: Any, *, continuing: bool = False) -> list[int]:
        self.num_encodings += 1
        self.threads.add(threading.current_thread().name.partition("_")[0])
        ((text, _),) = runs
        return [ord(letter) % 100 for letter in text if letter != "#"]


def a_model(vocab_size: int = 100) -> Any:
    architecture = SimpleNamespace(vocab_size=vocab_size, max_position=64)
    worker = SimpleNamespace(engine=SimpleNamespace(architecture=architecture))
    return Loaded(worker, Letters(), None, None)  # type: ignore[arg-type]


LARGE = Sampling(bad_words=("ab" * 100,) * 11)


def test_prompts_of_one_request_share_what_their_settings_give() -> None:
    loaded = a_model()

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(loaded.preparation.derived(loaded, LARGE, owner="a") for _ in range(50)))

    found = asyncio.run(all_of_them())
    assert len({id(each) for each in found}) == 1 and loaded.tokenizer.num_encodings == 4 * 11
    assert loaded.tokenizer.threads == {"firsthand-prepare"}
    requests = [new_request(loaded, [5], LARGE, (), 1, None, derived=each)[0] for each in found]
    assert len({id(request.token_filter) for request in requests}) == 1 and requests[0].token_filter is not None
    assert loaded.tokenizer.num_encodings == 4 * 11


def test_answers_share_the_tables_of_stop_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, made = a_model(), []
    plain = StopString.of
    monkeypatch.setattr(StopString, "of", lambda string: made.append(string) or plain(string))
    stops = Sampling(stop=("ab", "c"))
    for _ in range(3):
        derived = asyncio.run(loaded.preparation.derived(loaded, stops, owner=""))
        request, new_answer = new_request(loaded, [5], stops, (), 16, None, derived=derived)
        assert request.stopper is not None
        for _ in range(16):
            request.stopper(), new_answer()
    assert made == ["ab", "c"]


def test_settings_are_large_by_their_characters_and_ids_and_small_ones_need_no_thread() -> None:
    assert size(Sampling(stop=("ab",), bad_words=("cde",), allowed_token_ids=(1, 2, 3, 4))) == 9 + 2 * EACH
    for settings, threads in (
        (Sampling(bad_words=("a" * (256 - EACH),) * 8), {"MainThread"}),
        (Sampling(bad_words=("a" * (256 - EACH),) * 7 + ("a" * (257 - EACH),)), {"firsthand-prepare"}),
        (Sampling(bad_words=("a",) * 60), {"firsthand-prepare"}),
    ):
        assert (size(settings) > SMALL) is (threads != {"MainThread"})
        loaded = a_model()
        asyncio.run(loaded.preparation.derived(loaded, settings, owner=""))
        assert loaded.tokenizer.threads == threads


def test_work_is_cut_where_a_piece_is_full() -> None:
    loaded, text = a_model(), "a" * (256 - EACH)
    for num_texts, sizes in ((31, [31]), (32, [32]), (33, [32, 1]), (65, [32, 32, 1])):
        assert [len(piece) for piece in request_preparation._pieces([text] * num_texts)] == sizes
    both = Sampling(stop=(text,) * 33, bad_words=(text,) * 33, allowed_token_ids=(1,))
    assert len(list(request_preparation._derive(loaded, both))) == 5
    least = derive(loaded, Sampling(min_tokens=1)).token_filter
    assert least is not None and least.min_tokens == 1


@pytest.mark.parametrize("other", ["a", "b"])
def test_other_clients_and_requests_have_their_turn_between_two_pieces(
    monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setattr(request_preparation, "THREADS", 1)
    loaded, go, seen = a_model(), threading.Event(), list[int]()
    loaded = Loaded(loaded.worker, loaded.tokenizer, None, None, preparation=Preparation())  # type: ignore[arg-type]
    words = tuple(f"{at:0{256 - EACH}}" for at in range(4 * PIECE // 256))

    async def both() -> None:
        held = asyncio.ensure_future(loaded.preparation.run(lambda: go.wait(30), owner="z"))
        long = asyncio.ensure_future(loaded.preparation.derived(loaded, Sampling(bad_words=words), owner="a"))
        await asyncio.sleep(0)
        short = asyncio.ensure_future(loaded.preparation.run(lambda: seen.append(encoded()), owner=other))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(held, long, short)

    def encoded() -> int:
        return int(loaded.tokenizer.num_encodings)

    asyncio.run(both())
    assert seen == [4 * PIECE // 256], "one piece of four"


def test_a_caller_that_is_cancelled_takes_nothing_from_the_others() -> None:
    loaded = a_model()

    async def one_leaves() -> Any:
        first, second = (asyncio.ensure_future(loaded.preparation.derived(loaded, LARGE, owner="")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(one_leaves()).token_filter is not None


def test_nothing_is_kept_of_settings_that_are_gone() -> None:
    loaded = a_model()
    settings = Sampling(stop=("a",))
    asyncio.run(loaded.preparation.derived(loaded, settings, owner=""))
    assert len(loaded.preparation._derived) == 1
    del settings
    gc.collect()
    assert not loaded.preparation._derived


@pytest.mark.parametrize("times", [1, 3000])
def test_nothing_is_kept_of_settings_that_were_refused(times: int) -> None:
    loaded = a_model()
    settings = Sampling(bad_words=("#",), stop=("a" * times,))
    seen = weakref.ref(settings)
    with pytest.raises(ConfigError) as refused:
        asyncio.run(loaded.preparation.derived(loaded, settings, owner=""))
    assert not loaded.preparation._derived
    del settings, refused
    until(lambda: gc.collect() >= 0 and seen() is None and not loaded.preparation._alike)


def until(holds: Callable[[], bool]) -> None:
    """Waits for what threads do at their end."""
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_large_settings_that_are_the_same_are_derived_once() -> None:
    loaded = a_model()

    async def of(*given: Sampling) -> list[Any]:
        return await asyncio.gather(*(loaded.preparation.derived(loaded, each, owner="a") for each in given))

    alike = [LARGE.with_seed(seed) for seed in range(5)]
    assert len({id(each) for each in asyncio.run(of(*alike))}) == 1 and loaded.tokenizer.num_encodings == 4 * 11
    assert asyncio.run(of(LARGE.with_seed(9)))[0].token_filter is not None and loaded.tokenizer.num_encodings == 4 * 11
    changes: list[dict[str, Any]] = [
        {"stop": ("a",)}, {"bad_words": LARGE.bad_words[1:]}, {"allowed_token_ids": (1,)}, {"stop_ids": (1,)},
        {"ignore_eos": True}, {"min_tokens": 1},
    ]  # fmt: skip
    others = [replace(LARGE, **change) for change in changes]
    assert len({id(each) for each in asyncio.run(of(LARGE, *others))}) == 1 + len(others)
    del alike, others
    until(lambda: gc.collect() >= 0 and len(loaded.preparation._alike) == 1)  # those of LARGE alone
    listed = replace(LARGE, bad_words=list(LARGE.bad_words), stop_ids=[1], allowed_token_ids=[1])  # type: ignore[arg-type]
    assert asyncio.run(of(listed))[0].stop_ids == {1, 2}


def test_calls_of_one_client_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_preparation, "THREADS", 1)
    preparation, go, seen = Preparation(), threading.Event(), list[str]()

    async def all_of_them() -> None:
        held = asyncio.ensure_future(preparation.run(lambda: go.wait(30), owner="z"))
        runs = [preparation.run(partial(seen.append, name), owner="a", call=name) for name in ("x", "x", "x", "y")]
        waiting = [asyncio.ensure_future(run) for run in runs]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(held, *waiting)

    asyncio.run(all_of_them())
    assert seen == ["x", "y", "x", "x"]


def test_the_threads_end_with_the_model() -> None:
    loaded = a_model()
    before = set(threading.enumerate())
    asyncio.run(loaded.preparation.run(lambda: None, owner=""))
    (thread,) = set(threading.enumerate()) - before
    del loaded
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("times", [1, 3000])
def test_settings_that_cannot_be_are_refused_to_each_that_has_them(times: int) -> None:
    loaded = a_model()
    for settings, error, told in (
        (Sampling(bad_words=("#",), stop=("a" * times,)), ConfigError, "the word '#' of bad_words has no tokens"),
        (Sampling(allowed_token_ids=(99, 100) * times), ModelError, "token 1 of allowed_token_ids is 100"),
    ):
        for _ in range(2):
            with pytest.raises(error, match=told):
                asyncio.run(loaded.preparation.derived(loaded, settings, owner=""))
        with pytest.raises(error, match=told):
            derive(loaded, settings)


def test_the_engine_takes_a_given_filter_for_its_vocabulary_alone_and_checks_no_id_again() -> None:
    architecture = a_model().worker.engine.architecture
    allowed = Sampling(allowed_token_ids=(10**9,))  # would be refused
    check_request(Request((1,), allowed, token_filter=TokenFilter(100, allowed=(3,))), architecture)
    with pytest.raises(ConfigError, match="the token_filter was made for 99 tokens and the model has 100"):
        check_request(Request((1,), token_filter=TokenFilter(99)), architecture)
    with pytest.raises(ConfigError, match="token_filter is 3: give None or a TokenFilter"):
        check_request(Request((1,), token_filter=3), architecture)  # type: ignore[arg-type]


def test_a_derived_filter_is_the_one_that_the_engine_would_make() -> None:
    loaded = a_model()
    sampling = Sampling(allowed_token_ids=(2, 3, 4, 97), bad_words=("a",), min_tokens=2, stop_ids=(4,))
    found = derive(loaded, sampling)
    assert found.stop_ids == {2, 4} and found.token_filter is not None
    plain = TokenFilter.of(sampling, 100, bad=found.bad_sequences, ends=found.stop_ids)
    assert plain is not None
    for answer in ((), (3,), (3, 3), (3, 32)):
        assert (plain.after(answer, 0, None) == found.token_filter.after(answer, 0, None)).all()
    assert derive(loaded, Sampling(ignore_eos=True)).stop_ids == frozenset()
    assert derive(loaded, Sampling(stop=("a",))).token_filter is None
