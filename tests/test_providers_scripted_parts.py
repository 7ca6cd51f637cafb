"""Scripted and recorded models, to the last word: what they answer, what it costs, and what they refuse."""

import asyncio
import json
import math
import time
from hashlib import blake2b

import pytest

from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.grammar import Grammar
from firsthand.message import Message, Text, ToolCall, assistant, system, user
from firsthand.model import CallDelta, Completion, Delta, Likelihood, Sampling, Scored, ToolSpec, Usage
from firsthand.providers import cassette, scripted
from firsthand.providers.cassette import Cassette, CassetteMiss, nearest_recorded, prompt_text
from firsthand.providers.scripted import Scripted, ScriptedRequest

CALL = ToolCall("call_0", "add", {"a": 1})


def ask(model, prompt="q", sampling=None, **rest):
    return asyncio.run(model.complete(prompt, sampling or Sampling(), **rest))


def test_a_script_counts_words_and_charges_the_prompt_once():
    model = Scripted(["one two", "three"])
    tool = ToolSpec("add", "Adds.", {})
    conversation = [system("a b"), user("c d e")]
    assert ask(model, conversation, tools=[tool], n=2) == [
        Completion(assistant("one two"), "stop", Usage(5, 0, 2)),
        Completion(assistant("three"), "stop", Usage(0, 0, 1)),
    ]
    assert model.asked == [ScriptedRequest(conversation, Sampling(), (tool,), 2)]
    with pytest.raises(ModelError, match=r"^scripted has 2 replies and was asked for one more: 'c d e'$"):
        ask(model, conversation)
    with pytest.raises(ModelError, match=r"^scripted has 1 reply and was asked for one more: ''$"):
        ask(Scripted(["a"]), [], n=2)
    assert asyncio.run(model.count_tokens(conversation, [tool], ["f g", "h"])) == 8
    assert asyncio.run(model.count_tokens("a b")) == 2


@pytest.mark.parametrize(
    "reply, settings, expected",
    [
        ("a b c", {"max_tokens": 3}, ("a b c", "stop", 3, None)),
        ("a  b\nc d ", {"max_tokens": 2}, ("a  b", "length", 2, None)),
        ("  a b", {"max_tokens": 1}, ("  a", "length", 1, None)),
        ("one STOP two END", {"stop": ("END", "STOP")}, ("one ", "stop", 1, "STOP")),
        ("one ab", {"stop": ("b", "ab")}, ("one ", "stop", 1, "ab")),
        ("a b STOP", {"stop": ("STOP",), "max_tokens": 1}, ("a", "length", 1, None)),
        ("a b", {"stop": ("c",)}, ("a b", "stop", 2, None)),
        (assistant("a b", CALL), {}, ("a b", "tool_calls", 3, None)),
        (assistant("a STOP", CALL), {"stop": ("STOP",)}, ("a ", "tool_calls", 2, None)),
    ],
)
def test_an_answer_is_cut_at_the_first_stop_and_after_its_words(reply, settings, expected):
    (found,) = ask(Scripted([reply]), "", Sampling(**settings))
    assert (found.message.text, found.finish_reason, found.usage.completion_tokens, found.stop_string) == expected
    assert found.message.tool_calls == (() if isinstance(reply, str) else (CALL,))


def test_an_answer_that_is_cut_short_loses_its_calls():
    (found,) = ask(Scripted([assistant("a b", CALL)]), "", Sampling(max_tokens=1))
    assert found.message == Message("assistant", (Text("a"),)) and found.finish_reason == "length"


def test_a_stream_gives_the_words_then_the_calls_then_the_answer():
    model = Scripted([assistant(" one  two\nthree", ToolCall("c", "add", {"a": "é"}))])

    async def collect():
        return [delta async for delta in model.stream("q", Sampling())]

    *pieces, last = asyncio.run(collect())
    assert pieces == [
        Delta(" one  "),
        Delta("two\n"),
        Delta("three"),
        Delta("", call=CallDelta(0, "c", "add")),
        Delta("", call=CallDelta(0, arguments='{"a": "é"}')),
    ]
    assert last.completion is not None and last.completion.message.text == " one  two\nthree"
    assert model.asked == [ScriptedRequest("q", Sampling(), (), 1)] == [ScriptedRequest("q", Sampling())]
    noted, tool = Scripted(["a"]), ToolSpec("add", "Adds.", {})

    async def with_tool():
        return [delta async for delta in noted.stream("q", Sampling(), tools=[tool])]

    assert asyncio.run(with_tool()) and noted.asked[0].tools == (tool,)
    assert scripted._pieces("  ") == ["  "] and scripted._pieces("") == []


def test_a_mapping_answers_by_the_first_key_that_fits():
    model = Scripted({"a.c": "literal or pattern", "^x": "pattern", "(": "odd", "": "all"})
    for asked, answer in (("a.c", "literal or pattern"), ("abc", "literal or pattern"), ("xy", "pattern"), ("b(", "odd"),
                          ("y", "all")):  # fmt: skip
        assert ask(model, asked)[0].message.text == answer
    with pytest.raises(ModelError, match=r"^scripted has no reply to 'y': its patterns are a, \($"):
        ask(Scripted({"a": "1", "(": "2"}), "y")
    told = Scripted(lambda messages, sampling, index: f"{messages[-1].text} {sampling.seed} {index}")
    assert [each.message.text for each in ask(told, "q", Sampling(seed=3), n=2)] == ["q 3 0", "q 3 1"]


def test_failures_come_first_and_an_error_always():
    model = Scripted(["a"], failures=2)
    for left in (1, 0):
        with pytest.raises(TransientError, match=rf"^scripted was told to fail; {left} more failures follow$"):
            ask(model)
    assert ask(model)[0].message.text == "a" and len(model.asked) == 3
    begun = time.monotonic()
    ask(Scripted(["a"], delay_s=0.02))
    assert time.monotonic() - begun >= 0.02
    broken = Scripted(["a"], error=ModelError("broken"))
    with pytest.raises(ModelError, match="broken"):
        asyncio.run(broken.score("a", ["b"]))
    with pytest.raises(ModelError, match="which does not fit the regex grammar it was given"):
        ask(Scripted(["b"]), "q", Sampling(grammar=Grammar("regex", "a")))


def test_likelihoods_are_a_function_or_a_hash_of_the_text_so_far():
    def chance(text):
        return (int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") + 0.5) / 2**48

    scored = asyncio.run(Scripted().score([user("p q"), user("r")], [" one two", ""]))
    each = [chance("p q\nr one "), chance("p q\nr one two")]
    assert scored == Scored(
        (
            Likelihood(" one two", math.log(each[0]) + math.log(each[1]), 2, all(one > 0.5 for one in each)),
            Likelihood("", 0, 0, True),
        ),
        Usage(5),
    )
    likely = [each for each in map(str, range(20)) if chance("p " + each) > 0.5]
    found = asyncio.run(Scripted().score("p ", list(map(str, range(20))))).likelihoods
    assert likely and [each.text for each in found if each.is_greedy] == likely
    given = Scripted(score=lambda prompt, text: {"a": math.log(0.5), "b": -0.1}[text])
    found = asyncio.run(given.score("p", ["a", "b"]))
    assert [(one.logprob, one.is_greedy) for one in found.likelihoods] == [(math.log(0.5), False), (-0.1, True)]
    assert given.asked == [ScriptedRequest("p", None, continuations=("a", "b"))]


def test_a_fingerprint_is_the_script_and_its_scores():
    def other(prompt, text):
        return 0.0

    prints = [
        Scripted(["a"]).fingerprint,
        Scripted(["b"]).fingerprint,
        Scripted(["a", "b"]).fingerprint,
        Scripted({"0": "a"}).fingerprint,
        Scripted({"0": "b"}).fingerprint,
        Scripted(["a"], score=other).fingerprint,
        Scripted([assistant("a", CALL)]).fingerprint,
        Scripted(lambda *_: "a").fingerprint,
    ]
    assert len(set(prints)) == len(prints) and prints[0] == Scripted(["a"], name="scripted:x").fingerprint
    assert all(each.startswith("scripted-") and len(each) == 25 for each in prints)
    assert Scripted(fingerprint="mine").fingerprint == "mine"
    for name in ("x", "gpt-scripted", "Scripted", " scripted", "script", ""):
        with pytest.raises(ConfigError) as refused:
            Scripted(name=name)
        assert str(refused.value) == f"a scripted model is named {name!r}: its name must begin with 'scripted'"
    assert Scripted(name="scripted").name == "scripted" and Scripted(name="scripted2").name == "scripted2"
    with pytest.raises(ConfigError, match="replies is one string: give a list of replies, a mapping or a function"):
        Scripted("abc")


def test_a_script_is_read_from_a_file(tmp_path):
    file = tmp_path / "s.json"
    calls = [{"name": "add", "arguments": {"a": 1}}, {"name": "sub", "arguments": {}}]
    file.write_text(json.dumps(["a", {"text": "b"}, {"tool_calls": calls}, {"text": "c", "tool_calls": calls[:1]}]))
    model = scripted.open_model(str(file))
    assert model.name == f"scripted:{file}"
    assert [each.message for each in ask(model, n=4)] == [
        assistant("a"),
        assistant("b"),
        assistant("", CALL, ToolCall("call_1", "sub", {})),
        assistant("c", CALL),
    ]
    file.write_text('{"q": "yes", "": {"text": "no"}}')
    both = scripted.open_model(str(file))
    assert [ask(both, text)[0].message.text for text in ("qq", "x")] == ["yes", "no"]
    echo = scripted.open_model("echo")
    assert (echo.name, ask(echo, [user("a"), user("x"), user("b")])[0].message.text, ask(echo, [])[0].message.text) == (
        "scripted:echo", "b", "",
    )  # fmt: skip
    for body, said in (
        ("3", "should hold a list or an object of at most 16777216 bytes"),
        ("{", "is not valid JSON"),
        ("[3]", "is 3: a string or an object with text and tool_calls was expected"),
        ('[{"text": 3}]', "a string or an object with text and tool_calls was expected"),
        ('[{"tool_calls": [], "text": 3}]', "a string or an object with text and tool_calls was expected"),
        ('[{"tool_calls": [{"name": "f"}]}]', "an object with name and arguments was expected"),
    ):
        file.write_text(body)
        with pytest.raises(ConfigError, match=said):
            scripted.open_model(str(file))
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)"):
        scripted.open_model("missing.json")
    with pytest.raises(ConfigError, match=r"^scripted:x names no script: give scripted:echo"):
        scripted.open_model("x")


def test_a_script_may_have_the_bytes_of_the_limit(tmp_path, monkeypatch):
    file = tmp_path / "s.json"
    file.write_text('["abc"]')
    monkeypatch.setattr(scripted, "_MAX_SCRIPT_BYTES", 7)
    assert ask(scripted.open_model(str(file)))[0].message.text == "abc"
    monkeypatch.setattr(scripted, "_MAX_SCRIPT_BYTES", 6)
    with pytest.raises(ConfigError, match="at most 6 bytes"):
        scripted.open_model(str(file))


def test_a_cassette_is_lines_of_a_prompt_and_its_replies(tmp_path, monkeypatch):
    file = tmp_path / "c.jsonl"
    file.write_text('{"prompt": "a b", "replies": ["1", 2]}\n{"prompt": "a b", "replies": ["3 4"]}')
    model = cassette.open_model(str(file))
    assert model.name == f"cassette:{file}" and model.unplayed == 3
    assert model.fingerprint == Cassette({"a b": ["1", "2", "3 4"]}).fingerprint != Cassette({"a b": ["1"]}).fingerprint
    assert ask(model, "a b", n=2) == [
        Completion(assistant("1"), "stop", Usage(2, 0, 1)),
        Completion(assistant("2"), "stop", Usage(0, 0, 1)),
    ]
    assert model.unplayed == 1

    async def streamed():
        return [delta async for delta in model.stream("a b", Sampling())]

    assert asyncio.run(streamed()) == [Delta("3 4", Completion(assistant("3 4"), "stop", Usage(2, 0, 2)))]
    with pytest.raises(CassetteMiss) as missed:
        ask(model, "a b", n=2)
    assert str(missed.value) == f"cassette:{file} holds 3 replies to this, 3 are played and 2 asked:\na b"
    for body, said in (
        ('{"prompt": "a"}', 'has a line without prompt and replies: \'{"prompt": "a"}\''),
        ("[1]", r"has a line without prompt and replies: '\[1\]'"),
        ("x", "is not lines of prompt and replies: JSONDecodeError"),
        ('{"prompt": "a", "replies": 3}', "has replies that are no list of texts"),
    ):
        file.write_text(body)
        with pytest.raises(ConfigError, match=said):
            cassette.open_model(str(file))
    monkeypatch.setattr(cassette, "_MAX_BYTES", 1)
    with pytest.raises(ConfigError, match="is larger than 0 MiB: record fewer attempts in one file"):
        cassette.open_model(str(file))
    with pytest.raises(ConfigError, match="the cassette 'none' cannot be read: No such file"):
        cassette.open_model("none")
    with pytest.raises(ConfigError, match="a cassette is named 'x': its name must begin with 'cassette'"):
        Cassette({}, name="x")


def test_a_miss_shows_what_differs_from_the_nearest_recording():
    with pytest.raises(CassetteMiss) as empty:
        ask(Cassette({}), "a" * 301)
    assert str(empty.value) == "cassette is empty, and was asked:\n" + "a" * 300
    with pytest.raises(CassetteMiss) as missed:
        ask(Cassette({"far": ["x"], "one\ntwo\nthree": ["y"]}), "one\n2\nthree")
    assert str(missed.value) == (
        "cassette does not hold this request; the nearest differs so:\n"
        "--- nearest recorded\n+++ asked\n one\n-two\n+2\n three"
    )


def test_the_nearest_recording_shares_lines_or_else_its_end(monkeypatch):
    assert nearest_recorded("a\nb\nc", ["a\nb\nz\nq", "a\nb", "b"]) == "a\nb"
    assert nearest_recorded("say 12", ["zzzz", "say 13", "do"]) == "say 13"
    assert nearest_recorded("x", []) is None
    monkeypatch.setattr(cassette, "_NEAREST_OF", 1)
    assert nearest_recorded("b", ["a", "b"]) == "a"


def test_a_prompt_is_keyed_by_its_text():
    assert prompt_text("a") == prompt_text([user("a")]) == "a"
    assert prompt_text([system("a")]) == "[system]\na"
    assert prompt_text([user("a"), assistant("b")]) == "[user]\na\n[assistant]\nb"


def test_recordings_are_the_replies_of_an_attempts_generations_by_their_prompt():
    from firsthand.message import system
    from firsthand.trace import Call, Node, Trace

    nodes = (
        Node(None, system("S")), Node(0, user("q")), Node(1, assistant("one")), Node(1, assistant("two")),
        Node(2, user("more")), Node(4, assistant("three")),
    )  # fmt: skip
    calls = (
        Call(":0", "generate", 1, 0.0, 0.0, "", nodes=(2, 3)), Call(":1", "tool", 2, 0.0, 0.0, "", nodes=(4,)),
        Call(":2", "generate", 4, 0.0, 0.0, "", nodes=(5,)), Call(":3", "generate", 4, 0.0, 0.0, ""),
    )  # fmt: skip
    trace = Trace("i", "b", "t", {}, 0, 0, "", 0.0, nodes=nodes, calls=calls)
    first = "[system]\nS\n[user]\nq"
    found = {first: ["one", "two"], f"{first}\n[assistant]\none\n[user]\nmore": ["three"]}
    assert cassette.recorded([trace]) == found
    assert cassette.recorded([trace, trace])[first] == ["one", "two", "one", "two"] and cassette.recorded([]) == {}
