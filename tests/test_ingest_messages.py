"""Attributes of spans in each form, and messages in the layouts of each provider."""

from __future__ import annotations

from typing import Any

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


def test_messages_are_read_in_the_layout_of_each_provider() -> None:
    assert messages_in(None) == [] == messages_in("") == messages_in([]) and messages_in(0) == [u("0")]
    for name in ("messages", "input", "output", "choices", "generations"):
        assert messages_in({name: ["x"], "text": "no"}) == [u("x")]
        assert messages_in({name: [], "text": "t"}) == [u("t")]
    assert messages_in({"choices": [{"message": {"role": "assistant", "content": "c"}}]}) == [a("c")]
    assert messages_in({"args": ["q"], "kwargs": {}}) == [u("q")]
    assert messages_in({"args": ["q"], "kwargs": {"k": 1}})[0].text.startswith('{"args"')
    assert messages_in({"args": ["q", "r"]})[0].text == '{"args": ["q", "r"]}'
    order = ("message", "input", "question", "query", "prompt", "output", "answer", "response", "result", "text")
    for at, name in enumerate(order):
        assert messages_in(dict.fromkeys(order[at:], "no") | {name: "yes"}) == [u("yes")]
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
        ({"content": {"x": 1}}, u('{"x": 1}')),
        ("plain", u("plain")),
        (5, u("5")),
    ]  # fmt: skip
    for body, expected in layouts:
        assert one_message(body) == expected, body
