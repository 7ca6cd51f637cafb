import asyncio
import json
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError, ModelError, StoreError, TransientError
from firsthand.loop.concurrency import Retry, with_retries
from firsthand.message import ToolCall, assistant, user
from firsthand.model import Completion, Sampling, Usage
from firsthand.providers.cached import Cached, MemoryStore, Replay
from firsthand.providers.scripted import Replies, Scripted

PLAIN = Sampling()


def ask(model: Scripted, text: str, sampling: Sampling = PLAIN, n: int = 1) -> list[Completion]:
    return asyncio.run(model.complete([user(text)], sampling, n=n))


def test_replies_come_from_a_list_a_mapping_or_a_function() -> None:
    assert [c.message.text for c in ask(Scripted(["a", "b"]), "?", n=2)] == ["a", "b"]
    assert ask(Scripted({"sky": "blue", r"\d+ apples": "many", "": "what?"}), "7 apples")[0].message.text == "many"
    assert [c.message.text for c in ask(Scripted(lambda m, s, i: f"{m[-1].text}{i}"), "x", n=2)] == ["x0", "x1"]
    with pytest.raises(ModelError, match="has 1 reply and was asked for one more"):
        ask(Scripted(["a"]), "?", n=2)
    with pytest.raises(ModelError, match="no reply to"):
        ask(Scripted({"a": "b"}), "zzz")


def test_words_are_counted_cut_and_stopped() -> None:
    first, second = ask(Scripted(["one two three", "one STOP two"]), "hello big world", Sampling(stop=("STOP",)), n=2)
    assert (first.usage, second.usage) == (Usage(3, 0, 3), Usage(0, 0, 1))
    assert second.message.text == "one " and second.finish_reason == "stop"
    (cut,) = ask(Scripted(["one two three"]), "x", Sampling(max_tokens=2))
    assert (cut.message.text, cut.finish_reason, cut.usage.completion_tokens) == ("one two", "length", 2)


def test_a_tool_call_is_a_reply() -> None:
    (got,) = ask(Scripted([assistant("hm", ToolCall("1", "add", {"a": 1}))]), "x")
    assert got.finish_reason == "tool_calls" and got.message.tool_calls[0].arguments == {"a": 1}


def test_a_stream_joins_to_the_answer() -> None:
    async def collect() -> tuple[str, Completion | None]:
        deltas = [d async for d in Scripted([" a  b\nc "]).stream("q", PLAIN)]
        return "".join(d.text for d in deltas), deltas[-1].completion

    text, completion = asyncio.run(collect())
    assert text == " a  b\nc " and completion is not None and completion.message.text == text


def test_scores_are_probabilities_that_repeat() -> None:
    one = asyncio.run(Scripted().score("the sky is", [" blue", " green today", ""]))
    assert one == asyncio.run(Scripted().score("the sky is", [" blue", " green today", ""]))
    assert [each.num_tokens for each in one.likelihoods] == [1, 2, 0]
    assert all(each.logprob < 0 for each in one.likelihoods[:2]) and one.likelihoods[2].logprob == 0
    assert asyncio.run(Scripted(score=lambda p, c: -9.0).score("a", ["b"])).likelihoods[0].logprob == -9.0


def test_failures_pass_and_the_dead_stay_dead() -> None:
    model = Scripted(["fine"], failures=2)
    again = with_retries(lambda: model.complete("q", PLAIN), Retry(attempts=3, first_wait_s=0.001))
    assert asyncio.run(again)[0].message.text == "fine" and len(model.asked) == 3
    with pytest.raises(TransientError, match="down"):
        ask(Scripted(["x"], error=TransientError("down")), "q")

    async def impatient() -> None:
        async with asyncio.timeout(0.02):
            await Scripted(["x"], delay_s=5).complete("q", PLAIN)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())


def test_a_script_is_a_file_and_never_stands_in_silently(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    call = {"text": "", "tool_calls": [{"name": "add", "arguments": {}}]}
    file.write_text(json.dumps({"sum": call, "": "no"}))
    model = catalog.model(f"scripted:{file}")
    assert model.name.startswith("scripted")
    assert asyncio.run(model.complete([user("a sum")], PLAIN))[0].message.tool_calls[0].name == "add"
    assert asyncio.run(catalog.model("scripted:echo").complete([user("hi")], PLAIN))[0].message.text == "hi"
    with pytest.raises(ConfigError, match="must begin with"):
        Scripted(name="smollm2")
    for text in ("3", "{", '[{"tool_calls": [3]}]', "[[]]", "[" * 100_000):
        file.write_text(text)
        with pytest.raises(ConfigError):
            catalog.model(f"scripted:{file}")
    for name in ("", "nowhere.json", "eco"):
        with pytest.raises(ConfigError):
            catalog.model(f"scripted:{name}")


@pytest.mark.parametrize("replies", [["a"], {"": "b"}])
def test_equal_scripts_share_a_fingerprint(replies: Replies) -> None:
    assert Scripted(replies).fingerprint == Scripted(replies).fingerprint != Scripted(["other"]).fingerprint


def test_what_was_answered_is_not_asked_again_and_can_be_replayed() -> None:
    model, store = Scripted(["first", "second"]), MemoryStore()
    cached = Cached(model, store)
    asked = [user("q")]

    async def twice() -> list[Completion]:
        return [*await cached.complete(asked, PLAIN), *await cached.complete(asked, PLAIN)]

    assert [c.message.text for c in asyncio.run(twice())] == ["first", "first"] and len(model.asked) == 1
    scored = asyncio.run(cached.score("p", ["c"]))
    replay = Replay(store, name=model.name, fingerprint=model.fingerprint)
    assert asyncio.run(replay.complete(asked, PLAIN))[0].message.text == "first"
    assert asyncio.run(replay.score("p", ["c"])) == scored and len(model.asked) == 2
    with pytest.raises(ModelError, match="holds no reply to 'q' with max_tokens=9"):
        asyncio.run(replay.complete(asked, Sampling(max_tokens=9)))
    with pytest.raises(ModelError, match="holds no reply to 'p'"):
        asyncio.run(replay.score("p", ["other"]))
    for key in store.replies:
        store.replies[key] = {"completions": [3]}
    with pytest.raises(StoreError, match="damaged"):
        asyncio.run(replay.complete(asked, PLAIN))


@pytest.mark.parametrize(
    ("most", "text", "reason"), [(2, "one two", "length"), (3, "one two three", "stop"), (4, "one two three", "stop")]
)
def test_an_answer_of_exactly_the_most_tokens_is_whole(most, text, reason):
    (found,) = asyncio.run(Scripted(["one two three"]).complete("q", Sampling(max_tokens=most)))
    assert (found.message.text, found.finish_reason) == (text, reason)
