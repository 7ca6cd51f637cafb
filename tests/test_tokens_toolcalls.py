"""Tool calls are found in what models of each family write, and no text makes the parser slow or fail."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand.message import ToolCall
from firsthand.tokens.calls.call_parser import parse

CALL = '{"name": "add", "arguments": {"a": 1, "b": [2, "x}"]}}'
ADD = ToolCall("call_0", "add", {"a": 1, "b": [2, "x}"]})


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"<tool_call>{CALL}",
        f"[TOOL_CALLS][{CALL}]",
        f"[TOOL_CALLS] [{CALL}]</s>"[:-4],
        '{"name": "add", "parameters": {"a": 1, "b": [2, "x}"]}}',
        f"<|python_tag|>{CALL}",
        f"```json\n{CALL}\n```",
        f"```tool_code\n{CALL}\n```",
        '[TOOL_CALLS]add[ARGS]{"a": 1, "b": [2, "x}"]}',
        f"  {CALL}\n",
        f"<tool_call>{json.dumps({'name': 'add', 'arguments': json.dumps(ADD.arguments)})}</tool_call>",
        '<tool_call>{"type": "function", "function": ' + CALL + "}</tool_call>",
    ],
)
def test_a_call_is_read_in_every_dialect(text: str) -> None:
    assert parse(text) == ("", (ADD,))


def test_words_around_calls_are_kept_and_calls_are_numbered() -> None:
    text, calls = parse(f"I will add.\n<tool_call>{CALL}</tool_call>\n<tool_call>\n{CALL}\n</tool_call> Done.")
    assert text == "I will add.\n\n Done."
    assert [call.id for call in calls] == ["call_0", "call_1"]
    assert all(call.arguments == ADD.arguments for call in calls)
    assert parse(f"[TOOL_CALLS][{CALL}, {CALL}]")[1] == (ADD, ToolCall("call_1", "add", ADD.arguments))
    assert len(parse(f"{CALL}; {CALL}")[1]) == 2


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"name": "add", "arguments": {"a": }}', "add"),
        ("nonsense", ""),
        ("", ""),
        ('{"arguments": {}}', ""),
        ('{"name": 3}', ""),
        ('{"name": "add", "arguments": [1]}', "add"),
        ('{"name": "add", "arguments": NaN}', "add"),
        ("[" * 100_000, ""),
        ('{"name": "add", "arguments": "not json"}', "add"),
        ('{"name": "add", "arguments": {"a": ' + "[" * 5000, "add"),
    ],
)
def test_a_marked_call_with_broken_json_is_a_call_that_says_so(body: str, name: str) -> None:
    text, (call,) = parse(f"Hm. <tool_call>{body}</tool_call>")
    assert text == "Hm."
    assert (call.name, call.arguments) == (name, {})
    assert call.invalid is not None and (call.invalid == body or json.loads(body))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain words",
        '{"answer": 42}',
        '```json\n{"answer": 42}\n```',
        '```json\n{"name": "Ada", "age": 36}\n```',
        "{broken}",
        '{"name": "Ada", "born": 1815}',
        "```python\nprint(1)\n```",
        "a </tool_call> b",
        "```json\n{broken\n```",
        "``` {} ```",
    ],
)
def test_text_that_is_no_call_comes_back_unchanged(text: str) -> None:
    assert parse(text) == (text, ())


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 8_000,
        "[TOOL_CALLS]" * 8_000,
        "```json" * 12_000,
        "<tool_call>{" * 8_000,
        "{" * 400_000 + "}",
        '{"name":' * 8_000 + "}",
        "<tool_call>" + '"name"' + " " * 400_000,
        "```json\n```" * 8_000,
        '"\\' * 200_000,
        "<tool_call></tool_call>" * 4_000,
        "[TOOL_CALLS]" + "a" * 400_000,
        "<tool_call>" + '"name":' * 12_000,
        "<|python_tag|>" + "[" * 400_000,
        "<tool_call>" + "9" * 400_000,
        "<tool_call>```json" * 4_000,
        '{"name":"a","arguments":"' + "[" * 100_000 + '"}',
        "[TOOL_CALLS]a[CALL_ID]" * 4_000,
        "[TOOL_CALLS]" + " " * 400_000,
    ],
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    with at_most_cpu_s(4):
        parse(text)


PIECES = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "```json",
        "```",
        CALL,
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        "name",
        ":",
        ",",
        "[ARGS]",
        " ",
        "\n",
        "é",
        '{"name": "x", "parameters": {}}',
    ]
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join))
def test_anything_parses_to_words_and_calls_that_survive_json(text: str) -> None:
    words, calls = parse(text)
    assert [call.id for call in calls] == [f"call_{index}" for index in range(len(calls))]
    for call in calls:
        assert json.loads(json.dumps(call.arguments)) == call.arguments
        assert call.invalid is None or call.arguments == {}
    assert calls or words == text
    assert parse(text) == (words, calls)
