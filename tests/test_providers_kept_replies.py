"""Replies in a store: the ids of conversations put together, the last ones remembered, and what is asked and missing."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from firsthand.errors import ModelError, StoreError
from firsthand.loop.prompt_size import size_key
from firsthand.loop.reply_body import _checksum
from firsthand.loop.request_key import request_key
from firsthand.message import Json, Message, Sampled, Text, system, user
from firsthand.model import Completion, Delta, Likelihood, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.providers import cached
from firsthand.providers.cached import Cached, MemoryStore, Replay, Replies

LOOK = ToolSpec("look", "Look.", {"type": "object", "properties": {}})


def said(text: str, ids: tuple[int, ...], prompt: tuple[int, ...] | None) -> Completion:
    message = Message("assistant", (Text(text),), Sampled(ids, tuple(-float(each) for each in ids)))
    return Completion(message, "stop", Usage(len(prompt or ()), 0, len(ids)), prompt_ids=prompt)


ONE = [said("a", (3,), (1, 2)), said("b", (8, 9), (1, 2))]
TWO = said("c", (5, 6), (1, 2, 8, 9, 4))
THREE = said("d", (10,), (1, 2, 8, 9, 4, 5, 6, 7))
TALK = [user("u1"), ONE[1].message, user("u2"), TWO.message, user("u3")]


def three_turns() -> Replies:
    """A conversation that goes on from the second of two answers."""
    replies = Replies(MemoryStore())
    replies.keep("k1", TALK[:1], ONE)
    replies.keep("k2", TALK[:3], [TWO])
    replies.keep("k3", TALK, [THREE])
    return replies


def known(replies: Replies) -> dict[tuple[str, int], list[int]]:
    return {key: ids.tolist() for key, ids in replies._ids.items()}


ALL = {
    ("k1", 0): [1, 2, 3],
    ("k1", 1): [1, 2, 8, 9],
    ("k2", 0): [1, 2, 8, 9, 4, 5, 6],
    ("k3", 0): [1, 2, 8, 9, 4, 5, 6, 7, 10],
}


def test_a_conversation_is_kept_as_what_each_turn_adds_and_put_together_again() -> None:
    replies = three_turns()
    store: Any = replies.store
    assert {key: body["prompt"] for key, body in store.replies.items()} == {
        "k1": {"ids": [1, 2], "check": _checksum((1, 2))},
        "k2": {"ids": [4], "check": _checksum((1, 2, 8, 9, 4)), "after": "k1", "sample": 1, "kept": 4},
        "k3": {"ids": [7], "check": _checksum((1, 2, 8, 9, 4, 5, 6, 7)), "after": "k2", "sample": 0, "kept": 7},
    }
    assert known(replies) == ALL and replies.find("k3", 1) == [THREE]
    fresh = Replies(store)
    own = {at: ids for at, ids in ALL.items() if at[0] != "k1"}  # links are put together on the way, and not kept
    assert fresh.find("k3", 1) == [THREE] and known(fresh) == own and fresh.find("none", 1) is None
    middle = Replies(store)
    assert middle.find("k2", 1) == [TWO] and ("k3", 0) not in known(middle)
    assert middle.find("k3", 1) == [THREE] and middle.find("k1", 2) == ONE
    low = Replies(store)
    assert low.find("k1", 2) == ONE and low.find("k3", 1) == [THREE] and known(low) == ALL, (
        "a chain may end at a known one"
    )
    other = Replies(store)
    assert other.find("k1", 2) == ONE and other._ids.pop(("k1", 1)) and other.find("k3", 1) == [THREE]
    assert known(other) == {at: ids for at, ids in ALL.items() if at != ("k1", 1)}, "a link is not kept"
    high = Replies(store)
    assert [high.find(f"k{number}", 1) for number in (2, 3, 3, 2)] == [[TWO], [THREE], [THREE], [TWO]]


def test_ids_are_left_out_where_an_earlier_reply_is_gone_or_another_one() -> None:
    store: Any = three_turns().store
    bare = said("d", (10,), None)
    without = MemoryStore()
    without.replies = {key: body for key, body in store.replies.items() if key != "k1"}
    assert [each.message for each in Replies(without).find("k3", 1) or ()] == [THREE.message]
    assert (Replies(without).find("k3", 1) or [bare])[0].prompt_ids is None
    other = MemoryStore()
    other.replies = {
        **store.replies,
        "k1": store.replies["k1"] | {"prompt": {"ids": [1, 7], "check": _checksum((1, 7))}},
    }
    assert (Replies(other).find("k2", 1) or [TWO])[0].prompt_ids is None
    ring = MemoryStore()
    ring.replies = {
        **store.replies,
        "k1": store.replies["k1"] | {"prompt": store.replies["k3"]["prompt"] | {"after": "k2"}},
    }
    assert (Replies(ring).find("k3", 1) or [THREE])[0].prompt_ids is None, "a ring of replies ends"


def test_the_replies_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "MAX_KNOWN", 2)
    replies = Replies(MemoryStore())
    for number in range(2):
        replies.keep(f"k{number}", [user(str(number))], [said("x", (number,), (9,))])
    assert list(known(replies)) == [("k0", 0), ("k1", 0)] and len(replies._continued) == 2
    assert replies.find("k0", 1) == [said("x", (0,), (9,))]
    replies.keep("k2", "a plain text", [said("x", (2,), (9,))])
    assert known(replies) == {("k0", 0): [9, 0], ("k2", 0): [9, 2]} and len(replies._continued) == 2
    replies.keep("k3", [user("3")], [said("x", (3,), (9,))])
    assert [each[0] for each in replies._continued.values()] == ["k1", "k3"]


def test_a_prompt_goes_on_from_its_last_sampled_answer() -> None:
    replies = Replies(MemoryStore())
    replies.keep("k1", TALK[:1], ONE)
    later = replies._continued_by([*TALK[:2], user("x"), Message("assistant", (Text("not sampled"),)), user("y")])
    assert later is not None and (later.request, later.sample, later.ids) == ("k1", 1, [1, 2, 8, 9])
    for prompt in ("u1", [], TALK[:1], [user("other"), *TALK[1:3]], [system("s"), *TALK[:3]], TALK):
        assert replies._continued_by(prompt) is None
    replies._ids.clear()
    assert replies._continued_by(TALK[:3]) is None
    replies.keep("k4", TALK[:1], [said("e", (1,), None)])
    assert known(replies) == {}, "an answer without the ids of its prompt has none to go on from"

    class Frozen:
        def reply(self, request: str) -> Json | None:
            return None

    frozen = Replies(Frozen())
    frozen.keep("k1", TALK[:1], ONE)
    assert frozen._ids == {} == frozen._continued


def test_a_reply_that_is_no_reply_is_told_by_its_kind() -> None:
    def told(body: Any, n: int = 1) -> str:
        store = MemoryStore()
        store.replies = {"k": body}
        replies = Replies(store)
        with pytest.raises(StoreError) as raised:
            replies.find("k", n)
        assert known(replies) == {}
        return str(raised.value)

    wrong = "a stored reply is not what was expected ({}): the store is damaged"
    assert told({}) == wrong.format("KeyError: 'completions'")
    assert told([]) == wrong.format("AttributeError: 'list' object has no attribute 'get'")
    assert told({"completions": 3}) == wrong.format("TypeError: 'int' object is not iterable")
    whole = {"completions": [each.to_json() for each in ONE]}
    assert told(whole) == "a stored reply holds 2 answers where 1 were asked for: the store is damaged"
    assert told({"likelihoods": []}, 0).startswith("a stored reply is not what was expected (KeyError")


class Noting:
    """A model that notes what it is asked."""

    name, fingerprint = "noting", "fp-1"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        self.asked.append((prompt, sampling, tools, n))
        return [said(str(place), (place,), (1,)) for place in range(n)]

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        self.asked.append((prompt, sampling, tools))
        for piece in ("he", "llo"):
            yield Delta(piece)
        yield Delta("", said("hello", (4,), (1,)))

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        self.asked.append((prompt, continuations))
        return Scored(tuple(Likelihood(each, -1.5, 2, False) for each in continuations), Usage(7, 1))

    async def count_tokens(self, *given: Any) -> int:
        self.asked.append(given)
        return 17


def test_a_model_before_a_store_is_asked_in_full_for_what_is_not_there() -> None:
    model, store = Noting(), MemoryStore()
    front, hot = Cached(model, store), Sampling(temperature=0.5, seed=3)
    assert (front.name, front.fingerprint) == ("noting", "fp-1")

    async def streamed(which: Any, prompt: Prompt, sampling: Sampling, **more: Any) -> list[Delta]:
        return [each async for each in which.stream(prompt, sampling, **more)]

    async def main() -> None:
        two = await front.complete("p", hot, tools=[LOOK], n=2)
        assert two == await front.complete("p", hot, tools=[LOOK], n=2) and model.asked == [("p", hot, [LOOK], 2)]
        assert list(store.replies) == [request_key("fp-1", "p", hot, [LOOK], 2)]
        first = await streamed(front, TALK[:1], hot, tools=[LOOK])
        assert [each.text for each in first] == ["he", "llo", ""] and model.asked[1:] == [(TALK[:1], hot, [LOOK])]
        key = request_key("fp-1", TALK[:1], hot, [LOOK], 1)
        assert list(store.replies)[1:] == [key] and known(front._replies)[key, 0] == [1, 4]
        whole = [Delta("hello", first[-1].completion)]
        assert await streamed(front, TALK[:1], hot, tools=[LOOK]) == whole
        assert await front.complete(TALK[:1], hot, tools=[LOOK]) == [first[-1].completion] and len(model.asked) == 2
        replay = Replay(store, name="again", fingerprint="fp-1")
        assert await streamed(replay, TALK[:1], hot, tools=[LOOK]) == whole
        assert await replay.complete("p", hot, tools=[LOOK], n=2) == two
        scored = await front.score("p", ["x", "y"])
        assert scored == await front.score("p", ["x", "y"]) == await replay.score("p", ["x", "y"])
        assert model.asked[2:] == [("p", ["x", "y"])] and [each.text for each in scored.likelihoods] == ["x", "y"]
        assert store.replies[request_key("fp-1", "p", continuations=["x", "y"])] == scored.to_json()
        assert await front.count_tokens("p", [LOOK], ["c"]) == 17 and model.asked[-1] == ("p", [LOOK], ["c"])
        store.keep(size_key("fp-1", "p", [LOOK], ["c"]), {"size": 23})
        assert await replay.count_tokens("p", [LOOK], ["c"]) == 23
        bare, tooled = await replay.count_tokens("p" * 9), await replay.count_tokens("p" * 9, [LOOK])
        assert bare == 3 < 10 < tooled

    asyncio.run(main())


def test_an_answer_is_kept_before_its_reader_sees_that_it_is_whole() -> None:
    model, store = Noting(), MemoryStore()
    front, key = Cached(model, store), request_key("fp-1", "p", Sampling(), (), 1)

    async def read(until: str) -> list[str]:
        pieces = []
        stream: Any = front.stream("p", Sampling())
        async for delta in stream:
            pieces.append(delta.text)
            if until == delta.text:
                break
        await stream.aclose()
        return pieces

    assert asyncio.run(read("he")) == ["he"] and store.replies == {}, "half an answer is none"
    assert asyncio.run(read("")) == ["he", "llo", ""] and list(store.replies) == [key]
    assert asyncio.run(read("")) == ["hello"] and len(model.asked) == 2


def test_what_a_replay_misses_is_quoted_with_the_settings_one_looks_for() -> None:
    replay = Replay(MemoryStore(), name="again", fingerprint="fp")

    def missing(work: Any) -> str:
        with pytest.raises(ModelError) as raised:
            asyncio.run(work)
        begin, end = (
            "the replay of again holds no reply to ",
            ": it answers only what was recorded, so keep the tasks, ",
        )
        said_ = str(raised.value)
        assert said_.startswith(begin) and said_.endswith(
            "the pattern, the sampling and the seed as they were, or run without replay"
        )
        return said_.removeprefix(begin).partition(end)[0]

    plain, long = Sampling(), "q" * 81
    assert missing(replay.complete(long, plain)) == f"{long[:80]!r} with max_tokens={plain.max_tokens}, tools [], n=1"
    asked = Sampling(max_tokens=5, stop=("x",), seed=0)
    tools = [LOOK, ToolSpec("go", "Go.", {})]
    found = missing(replay.complete([user("first"), user("last")], asked, tools=tools, n=3))
    order = [key for key in asked.to_json() if key in ("stop", "seed")]
    shown = ", ".join(f"{key}={asked.to_json()[key]}" for key in order)
    assert found == f"'last' with max_tokens=5, {shown}, tools ['look', 'go'], n=3"
    assert missing(replay.complete([], plain)).startswith("'' with max_tokens=")
    many = [f"{number}" + "c" * 50 for number in range(9)]
    assert missing(replay.score("p", many)) == f"'p' with the continuations {[each[:40] for each in many[:8]]}"


def test_the_ids_of_a_reply_are_held_as_whole_numbers_of_eight_bytes() -> None:
    replies = three_turns()
    assert all(isinstance(each, array) and each.typecode == "q" for each in replies._ids.values())
    assert replies._earlier("k1", 1) == [1, 2, 8, 9] and replies._earlier("k1", 2) is None


def test_likelihoods_are_kept_for_their_continuations_in_the_order_that_was_asked() -> None:
    model, store = Noting(), MemoryStore()
    front, replay = Cached(model, store), Replay(store, name="again", fingerprint="fp-1")
    requests: list[tuple[Prompt, list[str]]] = [
        ("p", ["a", "b"]), ("p", ["b", "a"]), ("p", ["a"]), ("p", ["a", "a"]), ("p", ["ab"]), ("p", []), ("q", ["a", "b"]),
        ([user("p")], ["a", "b"]),
    ]  # fmt: skip

    async def texts(which: Any, prompt: Prompt, continuations: Sequence[str]) -> list[str]:
        return [each.text for each in (await which.score(prompt, continuations)).likelihoods]

    async def main() -> None:
        for which in (front, front, replay):
            for prompt, continuations in requests:
                assert await texts(which, prompt, continuations) == continuations, (which, prompt)
        assert await texts(front, "p", ("b", "a")) == ["b", "a"], "a tuple asks for the same"
        assert model.asked == requests, "each is asked once"
        assert list(store.replies) == [request_key("fp-1", prompt, continuations=each) for prompt, each in requests]
        with pytest.raises(ModelError, match=r"with the continuations \['b'\]"):
            await replay.score("p", ["b"])

    asyncio.run(main())
