"""Attributes of spans in each form, and messages in the layouts of each provider."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.ingest.dialects import langfuse_dialect, openinference_dialect, openllmetry_dialect
from firsthand.ingest.dialects.span_facts import (
    MAX_MESSAGES,
    cost_in,
    count_of_tokens,
    message,
    messages_in,
    number_of,
    one_message,
    parsed,
    preview,
    shown,
    text_of,
    words_of,
)
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult


def u(text: str) -> Message:
    return Message("user", (Text(text),))


def a(text: str) -> Message:
    return Message("assistant", (Text(text),))


def s(text: str) -> Message:
    return Message("system", (Text(text),))


def test_attributes_are_read_in_each_form() -> None:
    held: Any = {
        "empty": "",
        "no": None,
        "yes": True,
        "n": 0,
        "f": 1.5,
        "t": "x",
        "list": ["y"],
        "neg": -1,
        "text": "7.9",
    }
    assert [text_of(held, *names) for names in (("no", "empty", "t"), ("yes", "f"), ("list", "n"), ("gone",), ())] == [
        "x", "1.5", "0", "", "",
    ]  # fmt: skip
    assert [count_of_tokens(held, *names) for names in (("no", "t", "text"), ("n", "f"), ("neg", "f"), ("yes",), ())] == [
        7, 0, 1, 0, 0,
    ]  # fmt: skip
    assert count_of_tokens({"big": 1 << 40}, "big") == 1 << 40 and count_of_tokens({"big": 10**16}, "big") == 10**15
    assert [cost_in(held, *names) for names in (("no", "neg", "text", "f"), ("n", "f"), ("t",))] == [7.9, 0.0, 0.0]
    assert cost_in({"c": 1e13}, "c") == 1e12
    numbers = [0, 3, "2.5", " 4 ", "x", "", -0.1, float("nan"), float("inf"), "inf", True, None, "1" * 40, "1" * 39]
    assert [number_of(each) for each in numbers] == [
        0.0, 3.0, 2.5, 4.0, None, None, None, None, None, None, None, None, None, float("1" * 39),
    ]  # fmt: skip
    assert [parsed(each) for each in ('{"a": 1}', "[1]", " [1]", "[1", "5", "", None, [2])] == [
        {"a": 1}, [1], " [1]", "[1", "5", "", None, [2],
    ]  # fmt: skip
    deep = "[" * 64 + "]" * 64
    assert isinstance(parsed(deep), list) and parsed(f"[{deep}]") == f"[{deep}]"
    assert isinstance(parsed(str([[]] * 100)), list), "many lists beside each other are not deep"
    wide = parsed("[" + "{}," * 70 + "[" * 63 + "]" * 63 + "]")
    assert isinstance(wide, list) and isinstance(parsed("[" + "{}," * 70 + "[" * 64 + "]" * 64 + "]"), str)
    assert [words_of(each) for each in ('["a", 1]', "a", "", None, {"a": 1}, ["x" * 201])] == [
        ("a", "1"), ("a",), (), (), (), ("x" * 200,),
    ]  # fmt: skip
    assert len(words_of(["x"] * 51)) == 50 and words_of("x" * 201) == ("x" * 200,)
    assert [shown(each) for each in (None, "", "é", {"é": 1}, 0)] == ["", "", "é", '{"é": 1}', "0"]
    roles = {
        "Developer": "system",
        "human": "user",
        "AI": "assistant",
        "model": "assistant",
        "function": "tool",
        "x": "user",
    }
    assert {role: message(role, ()).role for role in roles} == roles
    assert message(None, ()) == Message("assistant", (Text(""),)) == message("", ())
    assert preview([u("first"), u(" "), a("")]) == "first" and preview([]) == "" and preview([u("abc")], 2) == "ab"
    called = Message("assistant", (ToolCall("", "f", {"x": 1}), ToolCall("", "g", {})))
    assert preview([u("q"), called]) == 'f({"x": 1})' and preview([u("q"), called], 3) == "f({"


@pytest.mark.parametrize(
    "given",
    [
        {"text": "cat", "target": "fr"}, {"question": "Q?", "document": "D"}, {"question": "Q?", "answer": "A"},
        {"message": "and then?", "history": ["hi"]}, {"text": "cat", "times": 2},
        {"query": "Q?", "k": 3, "filters": {"year": 2020}}, {"text": "x", "strict": False}, {"text": "x", "shift": 0},
        {"question": "Q?", "order_id": "7"}, {"query": "Q?", "k": "three"}, {"question": "", "document": "D"},
        {"content": "cat", "target": "fr"}, {"role": "pirate", "question": "hi"}, {"data": [1], "question": "Q?"},
        {"type": "invoice", "content": "I"}, {"role": "user", "question": "hi"}, {"document": "D"},
        {"args": ["q"], "kwargs": {}, "question": "r"}, {"parts": ["a"], "language": "fr"},
        {"args": ["q"], "kwargs": {"lang": "fr"}}, {"input": "q", "instructions": "as a poem"},
        {"text": "q", "tools": ["t"]},
        {"input": "q", "model": "m", "document": "D"}, {"question": "q", "model": "Volvo"},
        {"text": "T", "type": "legal"},
        {"question": "q", "history": [{"year": 1900}]}, {"question": "q", "history": "of France"},
        {"content": "Dear", "name": "Ada"}, {"content": "c", "id": "7"}, {"content": "c", "role": "pirate", "ship": "s"},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_of_several_arguments_none_is_left_out_of_the_question(given: dict[str, Any]) -> None:
    assert messages_in(given) == [u(json.dumps(given))] == messages_in(json.dumps(given))


@pytest.mark.parametrize(
    "beside",
    [
        {}, {"chat_history": []}, {"document": ""}, {"filters": {}}, {"document": None}, {"session": "chat-7"},
        {"thread_id": "t", "k": 3}, {"temperature": 0.5, "stream": True, "seed": 0}, {"user_id": "u", "threadId": "t"},
        {"messageId": "m", "timestamp": "2026-01-01"}, {"config": {"tags": ["t"]}, "callbacks": [1]},
        {"intermediate_steps": [["a", "b"]], "agent_scratchpad": "s"}, {"topK": 3, "maxTokens": 9, "debug": False},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_text_beside_nothing_that_is_asked_is_the_question(beside: dict[str, Any]) -> None:
    for name in ("question", "text", "message", "input", "prompt"):
        assert messages_in({name: "Q?"} | beside) == messages_in(beside | {name: "Q?"}) == [u("Q?")]
    assert (
        messages_in({"args": ["Q?"], "kwargs": {}} | beside)
        == [u("Q?")]
        == messages_in({"args": ["Q?"], "kwargs": beside})
    )
    assert messages_in({"args": [], "kwargs": {"question": "Q?"} | beside}) == [u("Q?")]


def test_a_conversation_and_a_system_message_beside_a_text_are_messages_before_it() -> None:
    said = [{"type": "human", "content": "hi"}, {"role": "assistant", "content": "Yes?"}]
    for name in ("history", "chat_history"):
        assert messages_in({"input": "and then?", name: said}) == [u("hi"), a("Yes?"), u("and then?")]
        assert messages_in({"input": "and then?", name: said, "document": "D"})[0].text.startswith("{")
    told = Message("system", (Text("Be brief"),))
    assert messages_in({"prompt": "Q?", "system": "Be brief"}) == [told, u("Q?")]
    asked = {"input": "Q?", "model": "m", "tools": [{"name": "t"}], "temperature": 0.1}
    assert messages_in(asked | {"instructions": "Be brief"}) == [told, u("Q?")]
    assert messages_in(asked | {"instructions": ""}) == [u("Q?")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"type": "HumanMessage", "content": "c", "id": "7"}, u("c")), ({"type": "AIMessageChunk", "content": "c"}, a("c")),
        ({"content": "c", "additional_kwargs": {}, "id": "7"}, u("c")), ({"type": "text", "text": "c"}, u("c")),
        ({"content": "c", "source": "user", "models_usage": None, "type": "TextMessage"}, u("c")),
        ({"role": "ROLE_MODEL", "parts": [{"text": "c"}], "messageId": "7", "kind": "message"}, a("c")),
        ({"role": "ROLE_USER", "parts": [{"text": "c"}], "contextId": "7"}, u("c")),
        ({"role": "customer", "content": "c", "timestamp": 5}, u("c")),
    ],
    ids=str,
)  # fmt: skip
def test_one_message_of_a_framework_is_no_arguments(body: dict[str, Any], expected: Message) -> None:
    assert messages_in(body) == [expected] == messages_in(json.dumps(body))


def test_messages_are_read_in_the_layout_of_each_provider() -> None:
    assert messages_in(None) == [] == messages_in("") == messages_in([]) and messages_in(0) == [u("0")]
    for name in ("messages", "input", "output", "choices", "generations"):
        assert messages_in({name: ["x"], "text": "no"}) == [u("x")]
        assert messages_in({name: [], "text": "t"}) == [u("t")]
    assert messages_in({"choices": [{"message": {"role": "assistant", "content": "c"}}]}) == [a("c")]
    assert messages_in({"args": ["q"], "kwargs": {}}) == [u("q")]
    assert messages_in({"args": ["q"], "kwargs": {"lang": 1}})[0].text.startswith('{"args"')
    assert messages_in({"args": ["q", "r"]})[0].text == '{"args": ["q", "r"]}'
    order = ("message", "input", "question", "query", "prompt", "output", "answer", "response", "result", "text")
    for name in order:
        assert messages_in(dict.fromkeys(order, "") | {name: "yes"}) == [u("yes")]
    assert messages_in([["a", "b"], ["c"]]) == [u("a"), u("b")]
    assert [each.text for each in messages_in([str(n) for n in range(MAX_MESSAGES + 1)])][:1] == ["1"]
    layouts: Any = [
        ({"role": "user", "content": [{"type": "text", "text": "a"}, "b", {"text": "c"}, {"type": "image"}]},
         Message("user", (Text("a"), Text("b"), Text("c"), Text('{"type": "image"}')))),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{x"}}, 5]},
         Message("assistant", (ToolCall("c", "f", {}, "{x"),))),
        ({"role": "assistant", "content": None, "tool_calls": None}, Message("assistant", (Text(""),))),
        ({"role": "tool", "content": ["4", "2"], "tool_call_id": "c", "name": "f"},
         Message("tool", (ToolResult("c", "f", "42"),))),
        ({"role": "ai", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "reasoning", "summary": "s"},
                                    {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
                                    {"type": "function_call", "call_id": "d", "name": "g", "arguments": ""}]},
         Message("assistant", (Reasoning("hm", {}), Reasoning("s", {}), ToolCall("c", "f", {"x": 1}),
                               ToolCall("d", "g", {})))),
        ({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "no", "is_error": True},
                                      {"type": "function_call_output", "call_id": "d", "output": [1], "name": "g"},
                                      {"type": "tool_call_response", "id": "e", "response": {"y": 2}, "content": "x"}]},
         Message("user", (ToolResult("c", "", "no", True), ToolResult("d", "g", "[1]"), ToolResult("e", "", '{"y": 2}')))),
        ({"role": "tool", "tool_call_id": "z", "parts": [{"type": "tool_result", "result": "r"}]},
         Message("tool", (ToolResult("z", "", "r"),))),
        ({"lc": 1, "id": ["x", "AIMessageChunk"], "kwargs": {"content": "c"}}, a("c")),
        ({"lc": 1, "id": ["SystemMessage"], "kwargs": {"content": "c"}}, s("c")),
        ({"lc": 1, "id": [], "kwargs": {"content": "c", "role": "assistant"}}, a("c")),
        ({"type": "ai", "data": {"content": "c"}}, a("c")),
        ({"type": "human", "blocks": ["c"]}, u("c")),
        ({"parts": ["p"], "content": "no"}, u("p")),
        ({"role": "critic", "content": "c", "name": "n"}, u("c")),
        ({"content": {"x": 1}}, u('{"x": 1}')),
        ("plain", u("plain")),
        (5, u("5")),
    ]  # fmt: skip
    for body, expected in layouts:
        assert one_message(body) == expected, body


# -- gaps, depths and zeros --


def test_parts_of_every_kind_are_read_up_to_the_first_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(name: str, inner: str, *fields: dict[str, Any] | None) -> dict[str, Any]:
        return {
            f"m.0.message.{name}.{at}.{inner}.{key}": value
            for at, one in enumerate(fields) if one is not None for key, value in one.items()
        }  # fmt: skip

    def role(number: int, said: str) -> dict[str, Any]:
        return {f"m.{number}.message.role": said}

    parts = flat(
        "contents", "message_content", {"type": "audio"}, {"type": "text", "text": ""},
        {"type": "image", "image.image.url": "u" * 200 + "v"}, {"type": "", "image.image.url": 5},
        {"type": "video", "text": {"é": 1}}, {"text": 0}, None, {"type": "text", "text": "behind the gap"},
    )  # fmt: skip
    read = (
        Text("[audio: ]"), Text(""), Text(f"[image: {'u' * 200}]"), Text("[: 5]"), Text('{"é": 1}'), Text("0"),
    )  # fmt: skip
    calls = flat(
        "tool_calls", "tool_call", {"function.name": "f"}, {"id": 7, "function.arguments": "[1]"},
        {"function.name": "", "id": "c", "function.arguments": {"x": 1}}, {"function.name": 0, "function.arguments": ""},
        {"function.arguments": "{}"}, {"function.name": "behind the gap"},
    )  # fmt: skip
    called = (ToolCall("", "f", {}), ToolCall("7", "", {}, "[1]"), ToolCall("c", "", {"x": 1}), ToolCall("", "", {}))
    assert openinference_dialect._messages(parts, "m") == [Message("assistant", read)], "a message needs no role"
    assert openinference_dialect._messages(calls, "m") == [Message("assistant", called)]
    tool = role(0, "tool") | calls
    assert openinference_dialect._messages(tool, "m") == [Message("tool", called)], "without a text no result"
    tool |= {"m.0.message.content": 0}
    assert openinference_dialect._messages(tool, "m") == [Message("tool", (ToolResult("", "", "0"), *called))]
    gap = role(0, "user") | role(1, "") | role(3, "user")
    assert (
        openinference_dialect._messages(gap, "m") == [u(""), a("")] and openinference_dialect._messages({}, "m") == []
    )
    flat_calls = {
        f"m.0.tool_calls.{at}.{key}": value
        for at, one in enumerate((
            {"name": "", "arguments": '{"x": 1}'}, {"name": "g", "id": 7, "arguments": "odd"}, {"name": 0, "arguments": 0},
            {"id": "lost", "arguments": "{}"}, {"name": "behind the gap"},
        ))
        for key, value in one.items()
    }  # fmt: skip
    read_calls = (ToolCall("", "", {"x": 1}), ToolCall("7", "g", {}, "odd"), ToolCall("", "0", {}))
    assert openllmetry_dialect._messages(flat_calls, "m") == [Message("user", read_calls)]
    assert openllmetry_dialect._messages({"m.0.content": 0, "m.1.content": "", "m.3.content": "lost"}, "m") == [
        u("0"), u(""),
    ]  # fmt: skip
    monkeypatch.setattr(openinference_dialect, "MAX_MESSAGES", 2)
    monkeypatch.setattr(openllmetry_dialect, "MAX_MESSAGES", 2)
    assert openinference_dialect._messages(parts | calls, "m") == [Message("assistant", (*read[:2], *called[:2]))]
    assert openllmetry_dialect._messages(flat_calls, "m") == [Message("user", read_calls[:2])]
    three = {f"m.{at}.message.role": "user" for at in range(3)} | {f"m.{at}.role": "user" for at in range(3)}
    assert openinference_dialect._messages(three, "m") == [u(""), u("")] == openllmetry_dialect._messages(three, "m")


@pytest.mark.slow
def test_a_text_that_is_nested_without_end_is_a_text() -> None:
    for deep in ("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000):
        assert parsed(deep) == deep and words_of(deep) == (deep[:200],) and messages_in(deep) == [u(deep)]
        assert one_message({"role": "ai", "tool_calls": [{"name": "f", "arguments": deep}]}) == Message(
            "assistant", (ToolCall("", "f", {}, deep),)
        )


def test_the_first_number_counts_though_it_is_zero_and_however_it_is_written() -> None:
    for zero in (0, 0.0, "0", "0.0", " 0 ", "-0", "0.9"):
        assert count_of_tokens({"a": zero, "b": 7}, "a", "b") == 0, zero
        assert cost_in({"a": zero, "b": 7}, "a", "b") == (0.9 if zero == "0.9" else 0.0), zero
    for none in (None, "", "x", -1, "-1", True, False, [5], {"n": 5}, "nan", "inf", "1e999", 10**400, "1" * 40):
        assert count_of_tokens({"a": none, "b": 7, "c": 8}, "a", "b", "c") == 7, none
        assert cost_in({"a": none, "b": 7, "c": 8}, "a", "b", "c") == 7.0, none
    counts = {
        "a": 1 << 40,
        "b": (1 << 40) + 1,
        "c": 10**15 - 1,
        "d": 10**15,
        "e": 10**15 + 1,
        "f": 1.7e308,
        "g": "1e18",
    }
    assert {name: count_of_tokens(counts, name) for name in counts} == {
        "a": 1 << 40, "b": (1 << 40) + 1, "c": 10**15 - 1, "d": 10**15, "e": 10**15, "f": 10**15, "g": 10**15,
    }  # fmt: skip
    assert [cost_in({"c": cost}, "c") for cost in (10**12 - 1, 10**12, 10**12 + 1, "1e300")] == [
        1e12 - 1, 1e12, 1e12, 1e12,
    ]  # fmt: skip


def test_a_tools_message_is_a_result_only_where_it_says_something_in_texts_alone() -> None:
    nothing = (Text(""),)
    for role in ("tool", "function", "TOOL"):
        for body in ({}, {"content": None}, {"content": ""}, {"content": []}, {"parts": []}):
            empty = {"role": role, "tool_call_id": "c", "name": "f", **body}
            assert messages_in([empty]) == [message(role, ())] and one_message(empty).parts == nothing, empty
        said = {"role": role, "tool_call_id": "c", "name": "f"}
        assert one_message(said | {"content": "x"}).parts == (ToolResult("c", "f", "x"),)
        two = [{"type": "text", "text": "x"}, "y", {"text": "z"}]
        assert one_message(said | {"content": two}).parts == (ToolResult("c", "f", "xyz"),)
        assert one_message({"role": role, "content": [""]}).parts == (ToolResult("", "", ""),)
    result = {"type": "tool_result", "id": "i", "content": "r"}
    mixed = {"role": "tool", "tool_call_id": "c", "content": ["x", result]}
    assert one_message(mixed).parts == (Text("x"), ToolResult("i", "", "r"))
    assert one_message({"role": "tool", "content": [result]}).parts == (ToolResult("i", "", "r"),)
    assert one_message({"role": "user", "tool_call_id": "c", "content": "x"}) == u("x")


def test_langfuse_shows_a_text_in_quotes_as_it_was_said_and_the_traces_only_where_there_is_none() -> None:
    def shown_of(value: Any, trace: Any = "of the trace") -> str:
        held = {"langfuse.observation.input": value, "langfuse.trace.input": trace}
        facts = langfuse_dialect.facts(IncomingSpan("a" * 32, "b" * 16, "", "n", 1, 2, held, []))
        held = {"langfuse.observation.output": value, "langfuse.trace.output": trace}
        other = langfuse_dialect.facts(IncomingSpan("a" * 32, "b" * 16, "", "n", 1, 2, held, []))
        assert facts.output() == other.input() == "" and facts.input() == other.output()
        return facts.input()

    for value, wanted in {
        '""': "", '"a"': "a", '"a\\n\\"b\\""': 'a\n"b"', '"0"': "0", '"false"': "false", '" "': " ", '"': '"',
        '"a" b': '"a" b',
        '"a': '"a', "0": "0", "false": "false", "null": "null", "{}": "{}", "[]": "[]", "a": "a", '{"content": "c"}': "c",
        '{"content": ': '{"content":', f'"{"x" * 301}"': "x" * 300, "y" * 301: "y" * 300,
    }.items():  # fmt: skip
        assert shown_of(value) == wanted, value
    for value in (None, ""):
        assert shown_of(value) == "of the trace" and shown_of(value, '"q"') == "q" and shown_of(value, value) == ""
    assert shown_of(0) == "0" and shown_of(False) == "false" and shown_of({"a": "é"}) == '{"a": "é"}'
