"""Providers at their edges: what scripts, caches, simulated models and endpoints' errors do where two cases part."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelError, PromptTooLong, TransientError, Unreachable
from firsthand.grammar import Grammar
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import Completion, Sampling, ToolSpec, Usage
from firsthand.providers.cached import MAX_KNOWN, Cached, MemoryStore, Replies
from firsthand.providers.embedder import EmbeddingModel
from firsthand.providers.openai_errors import Endpoint, checked_key, retry_after_s, shown_address, split_address
from firsthand.providers.scripted import Scripted, ScriptedRequest, open_model
from firsthand.providers.session_player import SeenFact, answer_to, facts_seen, session_player
from firsthand.providers.supported_settings import check_supported

PLAIN = Sampling(max_tokens=50)
SPEC = ToolSpec("look", "Look.", {"type": "object", "properties": {}})


def ask(model: Any, prompt: Any, sampling: Sampling = PLAIN, **rest: Any) -> list[Completion]:
    return asyncio.run(model.complete(prompt, sampling, **rest))


def test_a_scripted_model_records_each_request_whole() -> None:
    model = Scripted(["one", "two", "three"])
    ask(model, "a b", PLAIN, tools=[SPEC], n=2)

    async def rest() -> tuple[list[Any], Any]:
        deltas = [delta async for delta in model.stream("c", PLAIN, tools=[SPEC])]
        return deltas, await model.score("a b", [" c d", " e"])

    deltas, scored = asyncio.run(rest())
    assert model.asked == [
        ScriptedRequest("a b", PLAIN, (SPEC,), 2),
        ScriptedRequest("c", PLAIN, (SPEC,), 1),
        ScriptedRequest("a b", None, (), 1, (" c d", " e")),
    ]
    assert [delta.text for delta in deltas] == ["three", ""] and deltas[-1].completion is not None
    assert scored.usage.prompt_tokens == 2 + 2 + 1
    assert asyncio.run(model.count_tokens([user("a b"), user("c")], [SPEC], ["d e", "f"])) == 6


def test_only_the_first_answer_carries_the_prompts_tokens() -> None:
    first, second = ask(Scripted(["one two", "three"]), [user("a b"), user("c d e")], n=2)
    assert (first.usage, second.usage) == (Usage(5, 0, 2), Usage(0, 0, 1))


def test_an_answer_ends_at_the_earliest_stop_string_and_after_the_most_words() -> None:
    def cut(text: str, **settings: Any) -> tuple[str, str, int, str | None]:
        (found,) = ask(Scripted([text]), "q", Sampling(**{"max_tokens": 50, **settings}))
        return found.message.text, found.finish_reason, found.usage.completion_tokens, found.stop_string

    assert cut("a b; c. d", stop=(".", ";")) == ("a b", "stop", 2, ";")
    assert cut("a b", stop=(".",)) == ("a b", "stop", 2, None)
    assert cut("a b c.", max_tokens=2, stop=(".",)) == ("a b", "length", 2, None)
    assert cut("a b c", max_tokens=3) == ("a b c", "stop", 3, None)
    assert cut("  a  b c", max_tokens=2) == ("  a  b", "length", 2, None)


def test_a_cut_answer_has_no_calls_and_a_whole_one_is_paid_for_its_arguments() -> None:
    reply = assistant("one two", ToolCall("1", "look", {"at": "x y"}))
    (whole,) = ask(Scripted([reply]), "q")
    assert (whole.finish_reason, whole.message, whole.usage.completion_tokens) == ("tool_calls", reply, 2 + 2)
    (cut,) = ask(Scripted([reply]), "q", Sampling(max_tokens=1))
    assert (cut.finish_reason, cut.message.tool_calls, cut.message.text) == ("length", (), "one")
    (stopped,) = ask(Scripted([reply]), "q", Sampling(max_tokens=50, stop=(" two",)))
    assert (stopped.finish_reason, stopped.message.text, stopped.stop_string) == ("tool_calls", "one", None)
    assert stopped.message.tool_calls == reply.tool_calls


def test_calls_are_streamed_by_index_with_letters_as_they_are() -> None:
    reply = assistant("go", ToolCall("1", "look", {"at": "é"}), ToolCall("2", "take", {}))

    async def collect() -> list[Any]:
        return [delta async for delta in Scripted([reply]).stream("q", PLAIN)]

    deltas = asyncio.run(collect())
    calls = [(each.call.index, each.call.id, each.call.name, each.call.arguments) for each in deltas if each.call]
    assert calls == [(0, "1", "look", ""), (0, "", None, '{"at": "é"}'), (1, "2", "take", ""), (1, "", None, "{}")]


def test_a_mapping_answers_by_text_then_by_pattern_in_its_order() -> None:
    model = Scripted({"a+b": "plain", "^x": "pattern", "(": "bracket", "": "rest"})
    assert [ask(model, text)[0].message.text for text in ("1 a+b", "xa", "y (", "y")] == [
        "plain", "pattern", "bracket", "rest",
    ]  # fmt: skip
    with pytest.raises(ModelError, match=r"no reply to 'other': its patterns are aab, \^x"):
        ask(Scripted({"aab": "1", "^x": "2"}), "other")
    with pytest.raises(ModelError, match="has 1 reply and was asked for one more: 'q'"):
        ask(Scripted(["one"]), "q", n=2)
    with pytest.raises(ConfigError, match="replies is one string"):
        Scripted("one")


def test_chances_of_words_are_hashes_of_all_before_and_greedy_above_one_half() -> None:
    scored = asyncio.run(Scripted().score("p", ["a b", "a c", "a"]))
    one, two, first = (each.logprob for each in scored.likelihoods)
    assert one < first < 0 and two < first and one != two
    rest = asyncio.run(Scripted().score("pa ", ["b"])).likelihoods[0]
    start = asyncio.run(Scripted().score("p", ["a "])).likelihoods[0]
    assert one == pytest.approx(start.logprob + rest.logprob) and [each.num_tokens for each in scored.likelihoods] == [
        2,
        2,
        1,
    ]
    both = start.is_greedy and rest.is_greedy
    assert scored.likelihoods[0].is_greedy is both
    chances = [asyncio.run(Scripted().score("p", [f"w{n}"])).likelihoods[0] for n in range(40)]
    assert all(each.is_greedy is (each.logprob > math.log(0.5)) for each in chances)
    given = Scripted(score=lambda prompt, text: math.log(0.5) if text == "even" else math.log(0.51))
    assert [each.is_greedy for each in asyncio.run(given.score("p", ["even", "more"])).likelihoods] == [False, True]


def test_scripts_that_differ_in_replies_or_scores_differ_in_fingerprint() -> None:
    def first(prompt: str, text: str) -> float:
        return -1.0

    def second(prompt: str, text: str) -> float:
        return -2.0

    prints = [
        Scripted(*args, **more).fingerprint
        for args, more in (
            ((["a"],), {}),
            ((["a", "b"],), {}),
            (({"a": "b"},), {}),
            ((["a"],), {"score": first}),
            ((["a"],), {"score": second}),
            (([assistant("a", ToolCall("1", "x", {}))],), {}),
        )
    ]
    assert len(set(prints)) == len(prints) and all(len(each) == len("scripted-") + 16 for each in prints)
    assert Scripted(["a"], fingerprint="mine").fingerprint == "mine"


@pytest.mark.slow
def test_replies_of_a_script_file_may_be_calls_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"tool_calls": [{"name": "look", "arguments": {"a": 1}}]}, {"text": "done"}]))
    model = open_model(str(path))
    first, second = (ask(model, "q")[0].message for _ in range(2))
    assert first.tool_calls == (ToolCall("call_0", "look", {"a": 1}),) and first.text == ""
    assert (second.text, second.tool_calls) == ("done", ())
    path.write_bytes(b'["' + b"x" * (1 << 24) + b'"]')
    with pytest.raises(ConfigError, match=f"at most {1 << 24} bytes"):
        open_model(str(path))
    exact = b'["' + b"x" * ((1 << 24) - 4) + b'"]'
    path.write_bytes(exact)
    assert len(ask(open_model(str(path)), "q")[0].message.text) == (1 << 24) - 4


def conversation(store: MemoryStore, turns: int) -> tuple[list[Message], list[str]]:
    """A kept conversation in which each prompt holds the one before; its messages, and the request keys."""
    replies, prompt, ids, keys = Replies(store), [user("go")], [1, 2], []
    for turn in range(turns):
        answer = Message("assistant", (Text(f"t{turn}"),), Sampled((100 + turn,), (-0.5,)))
        done = Completion(answer, "stop", Usage(len(ids), 0, 1), prompt_ids=tuple(ids))
        keys.append(f"key{turn}")
        replies.keep(keys[-1], prompt, [done])
        prompt, ids = [*prompt, answer, user("on")], [*ids, 100 + turn, 7]
    return prompt, keys


def test_a_conversation_is_kept_by_what_each_turn_adds_and_read_whole_from_any_turn() -> None:
    store = MemoryStore()
    _, keys = conversation(store, 4)
    assert [store.replies[key]["prompt"]["ids"] for key in keys] == [[1, 2], [7], [7], [7]]
    assert [store.replies[key]["prompt"].get("after") for key in keys] == [None, *keys[:3]]
    for at, key in reversed(list(enumerate(keys))):  # the last first, in a process that has read none
        (found,) = Replies(store).find(key, 1) or []
        assert found.prompt_ids == (1, 2, *(each for turn in range(at) for each in (100 + turn, 7)))
    replies = Replies(store)
    assert [len((replies.find(key, 1) or [])[0].prompt_ids or ()) for key in keys] == [2, 4, 6, 8]
    del store.replies[keys[0]]
    (lost,) = Replies(store).find(keys[3], 1) or []
    assert lost.prompt_ids is None and lost.message.text == "t3"


def test_as_many_replies_are_remembered_as_are_allowed_and_the_oldest_goes() -> None:
    store = MemoryStore()
    replies = Replies(store)
    for number in range(MAX_KNOWN + 1):
        answer = Message("assistant", (Text("a"),), Sampled((5,), (-0.5,)))
        replies.keep(
            f"k{number}", [user(f"{number}")], [Completion(answer, "stop", Usage(1, 0, 1), prompt_ids=(number,))]
        )
        if number == MAX_KNOWN - 1:
            assert replies._earlier("k0", 0) == [0, 5] and len(replies._ids) == MAX_KNOWN
    assert replies._earlier("k0", 0) is None and replies._earlier("k1", 0) == [1, 5]
    assert len(replies._ids) == len(replies._continued) == MAX_KNOWN


def test_a_cached_model_passes_tools_on_and_keys_by_them() -> None:
    model = Scripted(lambda messages, sampling, index: "x")
    cached = Cached(model, MemoryStore())
    ask(cached, "q", tools=[SPEC])
    ask(cached, "q", tools=[SPEC])
    ask(cached, "q")
    assert [each.tools for each in model.asked] == [(SPEC,), ()]
    assert asyncio.run(cached.count_tokens("a b", (), ["c"])) == 3


SEEN = (
    "2024-01-02\nThe home of Ann Lee is Rome. The home of Ann Lee is now\n"
    "On 2024-03-04 The home of Ann Lee is no longer Rome."
)


def test_facts_are_read_with_the_date_before_them() -> None:
    assert facts_seen(SEEN) == [
        SeenFact("2024-01-02", "home", "Ann Lee", "Rome", False),
        SeenFact("2024-03-04", "home", "Ann Lee", "Rome", True),
    ]
    after = "The car of Bob Roy is Fiat. 2024-05-06"
    assert facts_seen(f"2024-01-01\n{after}\nThe car of Bob Roy is Audi now.") == [
        SeenFact("2024-01-01", "car", "Bob Roy", "Fiat", False),
        SeenFact("2024-01-01", "car", "Bob Roy", "Audi", False),
    ]
    assert (
        facts_seen("2024-01-01\nWhat is the car of Bob Roy on 2024-02-02?\nThe car of Bob Roy is Audi.")[0].date
        == "2024-01-01"
    )


def test_a_question_is_answered_by_the_last_fact_of_its_day() -> None:
    facts = [
        SeenFact("2024-01-02", "home", "Ann Lee", "Rome", False),
        SeenFact("2024-02-02", "home", "Ann Lee", "Oslo", False),
        SeenFact("2024-02-02", "home", "Ann Lee", "Bern", False),
        SeenFact("2024-03-02", "home", "Ann Lee", "Bern", True),
        SeenFact("2024-02-09", "home", "Bob Roy", "Lima", False),
        SeenFact("2024-02-09", "car", "Ann Lee", "Fiat", False),
    ]
    asked = {
        "What was the home of Ann Lee on 2024-01-02?": "Rome",
        "What was the home of Ann Lee on 2024-01-01?": "unknown",
        "What was the home of Ann Lee on 2024-02-28?": "Bern",
        "What is the home of Ann Lee?": "unknown",
        "What is the car of Ann Lee?": "Fiat",
        "Where does Ann Lee live?": None,
    }
    assert {question: answer_to(question, facts) for question in asked} == asked


def test_the_player_searches_once_saves_dated_facts_and_keeps_the_last_in_a_summary() -> None:
    player = session_player()
    blocks = Message("system", (Text("Core memory: the blocks\nnone"),))
    question = user("What is the home of Ann Lee?")
    (asked,) = ask(player, [blocks, question])
    assert asked.message.tool_calls == (
        ToolCall("search", "archival_memory_search", {"query": "home Ann Lee", "request_heartbeat": True}),
    )
    found = Message(
        "tool", (ToolResult("search", "archival_memory_search", "2024-01-02: The home of Ann Lee is Rome."),)
    )
    assert ask(player, [blocks, question, asked.message, found])[0].message.text == "Rome"
    assert ask(player, [user(SEEN), question])[0].message.text == "unknown"
    assert ask(player, [user("2024-01-02\nThe home of Ann Lee is Rome."), question])[0].message.text == "Rome"
    earlier = Message("tool", (ToolResult("1", "x", "nothing"),))
    assert ask(player, [blocks, earlier, question])[0].message.tool_calls, "a result before the question is no search"

    session = user("[session of 2024-05-05]\nThe car of Bob Roy is Fiat.\nThe home of Bob Roy is Lima now.")
    (saved,) = ask(player, [blocks, user("[older] The car of Bob Roy is Opel."), session])
    assert [(call.id, call.arguments["content"]) for call in saved.message.tool_calls] == [
        ("save0", "2024-05-05: The car of Bob Roy is Fiat."),
        ("save1", "2024-05-05: The home of Bob Roy is Lima."),
    ]
    assert ask(player, [session, saved.message, earlier])[0].message.text == "Noted."
    assert ask(player, [user("[session] nothing")])[0].message.text == "Noted."

    owned = ("2024-01-01", "Fiat"), ("2024-01-02", "Opel"), ("2024-01-03", "Audi")
    text = "\n".join(f"{day} The car of Bob Roy is {car}." for day, car in owned)
    two = "2024-01-02: The car of Bob Roy is Opel.\n2024-01-03: The car of Bob Roy is Audi."
    lines = f"{text}\n{text.splitlines()[2]}\nSummary:"
    assert ask(player, [user(lines)], Sampling(max_tokens=16))[0].message.text == two
    assert ask(player, [user(lines)], Sampling(max_tokens=15))[0].message.text == two.splitlines()[1]
    assert ask(player, [user("Summary:")])[0].message.text == "Nothing was stated."
    (listed,) = ask(player, [user(f"{SEEN}\nFacts:")])
    assert json.loads(listed.message.text)[1] == {
        "subject": "Ann Lee", "attribute": "home", "value": "Rome", "withdrawn": True,
    }  # fmt: skip


ENDPOINT = Endpoint("the endpoint", "gpt-x", ("s3cret/key", ""), 2.5)


def chained(*errors: BaseException) -> BaseException:
    """The first error, raised from the second, and so on."""
    for one, other in pairwise(errors):
        one.__cause__ = other
    return errors[0]


def test_a_lost_connection_is_told_by_its_innermost_reason() -> None:
    told = ENDPOINT.unreachable(chained(OSError("outer"), ValueError("inner s3cret%2Fkey"), ValueError("deepest")))
    assert isinstance(told, Unreachable) and "(inner ***)" in str(told)
    assert "(outer)" in str(ENDPOINT.unreachable(chained(OSError("outer"), ValueError(""))))
    assert "(OSError)" in str(ENDPOINT.unreachable(OSError()))
    loop = ValueError("round")
    loop.__cause__ = loop
    assert "could not be asked (ValueError: round)" in str(ENDPOINT.unreachable(loop))
    assert isinstance(ENDPOINT.unreachable(TimeoutError()), TransientError)
    assert "within 2.5 s" in str(ENDPOINT.unreachable(chained(ValueError("x"), TimeoutError())))
    ours = ENDPOINT.unreachable(chained(OSError("x"), ModelError("bad body")))
    assert str(ours) == "the endpoint could not be understood: bad body" and not isinstance(ours, Unreachable)


def test_a_status_is_an_error_of_its_own_kind() -> None:
    def of(status: int, body: Any = "no", known: tuple[str, ...] = ()) -> tuple[type, str]:
        error = ENDPOINT.status(status, body, {}, known)
        return type(error), str(error)

    for status in (408, 409, 425, 429, 500, 503):
        assert of(status)[0] is TransientError, status
    for status in (400, 401, 403, 404, 410, 422, 499):
        assert of(status)[0] is ModelError, status
    assert of(400, "")[1].startswith("the endpoint answered 400: ")
    assert of(400, "because")[1].startswith("the endpoint answered 400 (because): change what it refuses")
    assert "set OPENAI_API_KEY to a key" in of(401)[1] and "ask for access to 'gpt-x'" in of(403)[1]
    assert "check the model's name and the address (most end in /v1)" in of(404)[1] == of(405)[1].replace("405", "404")
    assert "check the model's name" in of(302)[1] and "change what it refuses" in of(400)[1]
    names = tuple(f"m{number}" for number in range(10))
    assert of(404, "no", names)[1].endswith(f"it has {', '.join(names)}")
    assert of(404, "no", (*names, "gpt-y"))[1].endswith(f"did you mean 'gpt-y'? it has {', '.join(names)} and 1 more")
    long = {"code": "context_length_exceeded", "message": "too long"}
    assert [of(status, long)[0] for status in (400, 413, 422, 500, 404)] == [PromptTooLong] * 4 + [ModelError]
    reported = ENDPOINT.reported({"error": {"code": 429, "message": "slow"}})
    assert isinstance(reported, TransientError) and "answered 429 (slow)" in str(reported)
    for code in (399, 600, True):
        assert "answered with an error (x): change" in str(ENDPOINT.reported({"error": {"code": code, "message": "x"}}))
    assert type(ENDPOINT.reported({"error": {"code": 599}})) is TransientError
    assert "an HTML page" in of(500, "  <!DOCTYPE html><p>x")[1] and "(first)" in of(422, [{"msg": "first"}])[1]
    assert "(inner)" in of(400, {"error": {"message": "inner"}})[1] and "(detail)" in of(400, {"detail": "detail"})[1]


def test_the_wait_that_a_server_asks_for_is_read_as_seconds_or_a_date() -> None:
    now = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
    said = {
        "7": 7.0, " 2.5 ": 2.5, "-3": 0.0, "inf": None, "nan": None, "": None, "soon": None,
        "Sun, 29 Nov 2026 12:00:09 GMT": 9.0, "Sun, 29 Nov 2026 12:00:09 -0000": 9.0,
        "Sun, 29 Nov 2026 11:00:00 GMT": 0.0, "Sun, 29 Nov 2026 13:00:09 +0100": 9.0,
    }  # fmt: skip
    assert {text: retry_after_s({"retry-after": text}, now) for text in said} == said
    assert retry_after_s({}, now) is None


def test_addresses_and_keys_are_checked_before_they_are_used() -> None:
    assert shown_address("http://u:p@host:8000/v1") == "http://host:8000/v1"
    assert (
        shown_address("https://[::1]/v1") == "https://[::1]/v1" and shown_address("http://host:0/") == "http://host:0/"
    )
    for wrong in ("ftp://host", "http://", "http://h?x=1", "http://h#x", "http://h:99999", "http://a b", "http://h\n"):
        with pytest.raises(ConfigError, match="is not a base URL"):
            shown_address(wrong)
    assert split_address("openai", "a@b@http://h/v1", "x") == ("a@b", "http://h/v1")
    assert split_address("openai", "a@https://h@http://i", "x") == ("a@https://h", "http://i")
    assert split_address("openai", "a@http://h@https://i", "x") == ("a@http://h", "https://i")
    assert split_address("openai", "plain", "x") == ("plain", None)
    with pytest.raises(ConfigError, match="write openai:NAME@x, with http"):
        split_address("openai", "@host", "x")
    assert checked_key("", required=False) == "" and checked_key("k", required=True) == "k"
    for key, needed, said in (
        ("", True, "MY_KEY is not set"),
        ("é", False, "invalid characters"),
        ("a\n", True, "invalid"),
    ):
        with pytest.raises(ConfigError, match=said):
            checked_key(key, required=needed, variable="MY_KEY")


def test_settings_that_an_endpoint_lacks_are_refused_by_name() -> None:
    check_supported("it", Sampling(temperature=0.3), ["temperature"])
    with pytest.raises(ConfigError, match=r"it has no top_k \(5\): leave it out"):
        check_supported("it", Sampling(temperature=0.3, top_k=5), ["temperature"])
    with pytest.raises(ConfigError, match=r"it has no top_k \(5\), log-probs \(2\): leave them out"):
        check_supported("it", Sampling(top_k=5, top_logprobs=2), [])
    check_supported("it", Sampling(grammar=Grammar("json_schema", "{}")), [])
    with pytest.raises(ConfigError, match="but got a regex grammar"):
        check_supported("it", Sampling(grammar=Grammar("regex", "a")), [])


def test_an_embedder_as_a_model_embeds_and_refuses_the_rest() -> None:
    class Two:
        name = "two"

        async def embed(self, texts: Any) -> list[list[float]]:
            return [[float(len(text)), 0.0] for text in texts]

    model = EmbeddingModel(Two(), "print of two")  # type: ignore[arg-type]
    assert (model.name, model.fingerprint) == ("embedder:two", "print of two")
    assert asyncio.run(model.embed(["a", "bcd"])) == [[1.0, 0.0], [3.0, 0.0]]
    for asked in (
        lambda: ask(model, "q"),
        lambda: asyncio.run(model.score("q", ["a"])),
        lambda: model.stream("q", PLAIN),
    ):
        with pytest.raises(ModelError, match="embedder:two embeds texts and does not write"):
            asked()
