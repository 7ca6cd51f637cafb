"""Answers from a store: what is held is never asked again, what is not is asked once or refused, and damage is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.errors import ModelError, StoreError
from firsthand.loop.prompt_size import size_key
from firsthand.loop.request_key import request_key
from firsthand.message import Json, user
from firsthand.model import Completion, Delta, Model, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.providers.cached import Cached, MemoryStore, Replay
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs.execute import execute
from firsthand.runs.store import create
from firsthand.task import Task

SETTINGS = Sampling(temperature=0.5, seed=3)
SPEC = ToolSpec("look", "Look.", {"type": "object", "properties": {}})


def counting(messages: Any, sampling: Sampling, index: int) -> str:
    return f"{messages[-1].text} {sampling.seed} {index}"


def complete(model: Model, prompt: Prompt = "q", sampling: Sampling = SETTINGS, **rest: Any) -> list[Completion]:
    return asyncio.run(model.complete(prompt, sampling, **rest))


def stream(model: Model, prompt: Prompt = "q") -> list[Delta]:
    async def collect() -> list[Delta]:
        return [delta async for delta in model.stream(prompt, SETTINGS)]

    return asyncio.run(collect())


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_each_different_request_is_asked_once() -> None:
    model = Scripted(counting)
    cached = Cached(model, MemoryStore())
    requests: list[dict[str, Any]] = [
        {},
        {"prompt": "other"},
        {"prompt": [user("q")]},
        {"sampling": Sampling(temperature=0.5, seed=4)},
        {"n": 3},
        {"tools": (SPEC,)},
    ]
    first = [complete(cached, **request) for request in requests]
    again = [complete(cached, **request) for request in requests]
    assert first == again and len(model.asked) == len(requests)
    assert [len(each) for each in first] == [1, 1, 1, 1, 3, 1]
    assert (cached.name, cached.fingerprint) == (model.name, model.fingerprint)


def test_models_of_different_fingerprints_share_nothing() -> None:
    store = MemoryStore()
    assert complete(Cached(Scripted(["one"]), store))[0].message.text == "one"
    assert complete(Cached(Scripted(["two"]), store))[0].message.text == "two"
    assert len(store.replies) == 2


def test_a_model_that_changes_is_asked_anew_and_a_reply_that_it_changed_under_is_not_kept() -> None:
    class Trained(Scripted):
        def __init__(self) -> None:
            super().__init__(lambda *_: f"of {self.fingerprint}")
            self.fingerprint, self.next = "a", "a"

        async def complete(self, *given: Any, **more: Any) -> list[Completion]:
            made = await super().complete(*given, **more)
            self.fingerprint = self.next
            return made

        async def stream(self, *given: Any, **more: Any) -> AsyncIterator[Delta]:
            async for delta in super().stream(*given, **more):
                self.fingerprint = self.next
                yield delta

        async def score(self, *given: Any, **more: Any) -> Scored:
            self.fingerprint = self.next
            return Scored((), Usage())

    model, store = Trained(), MemoryStore()
    cached = Cached(model, store)
    for weights in ("a", "b", "a", "b"):
        model.fingerprint = model.next = weights
        assert cached.fingerprint == weights
        assert complete(cached)[0].message.text == text(stream(cached, "s")) == f"of {weights}"
        assert len(store.replies) == (2 if weights == "a" and model.asked[2:] == [] else 4)
    model.next = "c"
    asyncio.run(cached.score("q", ["x"]))
    model.fingerprint = "b"
    complete(cached, "new")
    model.fingerprint = "b"
    stream(cached, "new too")
    assert len(store.replies) == 4 and cached.fingerprint == "c"


def test_a_stream_fills_the_store_and_is_answered_from_it() -> None:
    model = Scripted(lambda *_: "a few words")
    cached = Cached(model, MemoryStore())
    first = stream(cached)
    assert len(first) > 2 and text(first) == "a few words"
    second = stream(cached)
    assert text(second) == "a few words" and len(second) == 1 and second[0].completion == first[-1].completion
    assert complete(cached)[0] == first[-1].completion and len(model.asked) == 1


def test_a_stream_that_is_left_early_is_not_kept() -> None:
    store = MemoryStore()
    cached = Cached(Scripted(lambda *_: "a few words"), store)

    async def leave() -> None:
        pieces = cached.stream("q", SETTINGS)
        async for _ in pieces:
            break
        await pieces.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    assert store.replies == {}


def test_a_failure_is_not_kept() -> None:
    store = MemoryStore()
    with pytest.raises(ModelError, match="down"):
        complete(Cached(Scripted(counting, error=ModelError("down"), fingerprint="scripted-x"), store))
    assert store.replies == {}
    assert complete(Cached(Scripted(counting, fingerprint="scripted-x"), store))[0].message.text == "q 3 0"


def test_a_store_that_cannot_keep_is_read_only() -> None:
    class Frozen:
        def reply(self, request: str) -> Json | None:
            return None

    model = Scripted(counting)
    cached = Cached(model, Frozen())
    assert complete(cached) == complete(cached) and len(model.asked) == 2
    assert asyncio.run(cached.score("p", ["c"])).likelihoods[0].text == "c"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"prompt": "other"}, "no reply to 'other'"),
        ({"prompt": [user("q")]}, "no reply to 'q'"),
        ({"sampling": Sampling()}, "with max_tokens=512, tools"),
        ({"sampling": Sampling(temperature=0.5, seed=4)}, "temperature=0.5, seed=4"),
        ({"n": 2}, "n=2"),
        ({"tools": (SPEC,)}, "tools ['look']"),
        ({"prompt": []}, "no reply to ''"),
    ],
)
def test_a_replay_says_what_it_does_not_hold(request_: dict[str, Any], expected: str) -> None:
    store = MemoryStore()
    model = Scripted(counting)
    complete(Cached(model, store))
    replay = Replay(store, name=model.name, fingerprint=model.fingerprint)
    assert complete(replay)[0].message.text == "q 3 0"
    with pytest.raises(ModelError) as error:
        complete(replay, **request_)
    assert expected in str(error.value) and "run without replay" in str(error.value)


def test_a_replay_of_another_model_holds_nothing() -> None:
    store = MemoryStore()
    complete(Cached(Scripted(counting), store))
    with pytest.raises(ModelError, match="holds no reply"):
        complete(Replay(store, name="x", fingerprint="another"))


def test_a_replay_streams_and_scores() -> None:
    store = MemoryStore()
    model = Scripted(counting)
    cached = Cached(model, store)
    complete(cached)
    scored = asyncio.run(cached.score("p", ["a", "b"]))
    replay = Replay(store, name=model.name, fingerprint=model.fingerprint)
    assert text(stream(replay)) == "q 3 0"
    assert asyncio.run(replay.score("p", ["a", "b"])) == scored
    with pytest.raises(ModelError, match=r"with the continuations \['b'\]"):
        asyncio.run(replay.score("p", ["b"]))
    with pytest.raises(ModelError, match="no reply to 'other'"):
        stream(replay, "other")


@pytest.mark.parametrize(("held", "asked"), [(1, 2), (2, 1), (3, 2)])
def test_a_reply_of_more_or_fewer_answers_than_asked_is_damaged(held: int, asked: int) -> None:
    kept = MemoryStore()
    complete(Cached(Scripted(counting), kept), n=held)
    (body,) = kept.replies.values()

    class Other:
        def reply(self, request: str) -> Json | None:
            return body

    with pytest.raises(StoreError, match=f"holds {held} answers where {asked} were asked for"):
        complete(Cached(Scripted(counting), Other()), n=asked)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"completions": None},
        {"completions": []},
        {"completions": [{}, {}]},
        {"completions": [3]},
        {"completions": [{"message": {"role": "assistant", "parts": [{"type": "video"}]}, "finish_reason": "stop",
                          "usage": {}}]},
        {"likelihoods": [{}], "usage": {}},
        {"likelihoods": 3, "usage": {"tokens": 1}},
    ],
)  # fmt: skip
def test_a_damaged_reply_is_told_as_such(body: Json) -> None:
    class Damaged:
        def reply(self, request: str) -> Json | None:
            return body

    for model in (Cached(Scripted(counting), Damaged()), Replay(Damaged(), name="x", fingerprint="y")):
        with pytest.raises(StoreError, match="the store is damaged"):
            complete(model)
        with pytest.raises(StoreError, match="the store is damaged"):
            asyncio.run(model.score("p", ["c"]))


@pytest.mark.parametrize("odd", [float("inf"), -1, 0.5, float("nan"), True, "x", None])
def test_a_stored_number_that_is_none_is_damage(odd: Any) -> None:
    kept = MemoryStore()
    complete(Cached(Scripted(["a"]), kept))
    (one,) = kept.replies.values()
    linked = {"ids": [1], "check": 0, "after": "before", "sample": 0}
    for prompt, usage in (
        (linked | {"kept": odd}, {}),
        (None, {"prompt_tokens": odd}),
        (None, {"completion_tokens": odd}),
    ):
        body = one | {"completions": [one["completions"][0] | {"usage": one["completions"][0]["usage"] | usage}]}
        kept.replies["before"] = body | ({} if prompt is None else {"prompt": prompt})
        key = request_key("f", "q", SETTINGS, (), 1)
        kept.replies[key] = body | ({} if prompt is None else {"prompt": linked})
        with pytest.raises(StoreError, match="the store is damaged"):
            complete(Replay(kept, name="m", fingerprint="f"))
    kept.replies[size_key("f", "q", (), ())] = {"size": odd}
    with pytest.raises(StoreError, match="the store is damaged"):
        asyncio.run(Replay(kept, name="m", fingerprint="f").count_tokens("q"))


async def deliberate(task: Task, ctx: Context) -> str:
    chains = await ctx.say(task.prompt).sample(2, temperature=1.0)
    (likelihood, _) = await ctx.score([chain.text for chain in chains], prompt="which?")
    return f"{chains[1].text} {likelihood.logprob:.6f}"


def test_a_runs_journal_is_a_store_that_a_replay_answers_from(tmp_path: Path) -> None:
    model = Scripted(counting)
    task = Task("1", "Why?")
    benchmark = Benchmark("b", lambda seed: [task], ())
    with create(tmp_path, {}, "cassette") as run:
        asyncio.run(execute(run, [Place(Agent("a", model, deliberate), benchmark, task)], seed=5))
        (recorded,) = run.traces()
        replay = Replay(run, name=model.name, fingerprint=model.fingerprint)
        asked = len(model.asked)
        again = asyncio.run(rollout(Agent("a", replay, deliberate), task, benchmark=benchmark, seed=5))
        assert again.answer == recorded.answer and again.error is None
        assert [call.request for call in again.calls] == [call.request for call in recorded.calls]
        assert again.usage == recorded.usage and len(model.asked) == asked
        missed = asyncio.run(rollout(Agent("a", replay, deliberate), task, benchmark=benchmark, seed=6))
        assert missed.error is not None and "holds no reply to 'Why?'" in missed.error.message


def test_a_streamed_answer_is_kept_for_its_own_request_alone() -> None:
    inner = Scripted(counting)
    model = Cached(inner, MemoryStore())

    async def streamed(sampling: Sampling = SETTINGS, **rest: Any) -> None:
        async for _ in model.stream("q", sampling, **rest):
            pass

    async def main() -> None:
        for _ in range(2):
            await streamed()
            await streamed(tools=[SPEC])
            await streamed(Sampling(temperature=0.6, seed=3))

    asyncio.run(main())
    assert len(inner.asked) == 3
