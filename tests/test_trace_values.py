"""Bounds on the JSON values that one trace decodes and holds, over all of its spans."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.ingest.as_trace import question_of, trace_of
from firsthand.ingest.dialects import span_facts
from firsthand.ingest.incoming_span import IncomingSpan, StoredSpan

ARGUMENTS = json.dumps({"rows": [0] * 97})  # 99 marks


def tool(number: int, arguments: str = ARGUMENTS) -> StoredSpan:
    held: dict[str, Any] = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": arguments}
    return StoredSpan(number, IncomingSpan("1" * 32, str(number), "", "t", number, number, held), "tool")


def chat(number: int, messages: list[Any]) -> StoredSpan:
    held = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(messages)}
    return StoredSpan(number, IncomingSpan("1" * 32, str(number), "", "c", number, number, held), "generate")


def test_the_arguments_of_all_tools_of_a_trace_hold_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [tool(number) for number in range(1, 21)]
    every = [call.detail["arguments"] for call in trace_of("t", spans).calls]
    assert every == [json.loads(ARGUMENTS)] * 20, "an ordinary trace is decoded whole"
    monkeypatch.setattr(span_facts, "MAX_HELD_OF_TRACE", 5 * 98)
    for _ in range(2):  # what one trace took is not taken from the next
        some = [call.detail["arguments"] for call in trace_of("t", spans).calls]
        assert some == [json.loads(ARGUMENTS)] * 6 + [ARGUMENTS] * 14
    monkeypatch.setattr(span_facts, "MAX_HELD_OF_TRACE", 1_000_000)
    monkeypatch.setattr(span_facts, "MAX_VALUES_OF_TRACE", 3 * 98)
    assert [isinstance(call.detail["arguments"], dict) for call in trace_of("t", spans).calls] == [True] * 3 + [
        False
    ] * 17


def test_a_long_conversation_that_is_sent_again_with_each_turn_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_facts, "MAX_HELD_OF_TRACE", 400)
    said = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}, and more"} for n in range(60)]
    spans = [chat(n, said[: n + 1]) for n in range(60)]
    made = trace_of("t", spans)
    assert [node.message.text for node in made.nodes] == [each["content"] for each in said]
    assert question_of(spans) == "turn 0, and more"


def test_messages_whose_calls_hold_ever_new_values_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_facts, "MAX_HELD_OF_TRACE", 500)

    def messages(n: int) -> list[Any]:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"n": [n, *[0] * 150]}}}
        return [{"role": "assistant", "tool_calls": [call]}]

    made = trace_of("t", [chat(n, messages(n)) for n in range(20)])
    assert sum(len(node.message.tool_calls) for node in made.nodes) == 4


def test_after_a_trace_nothing_counts_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with span_facts.values_of_one_trace() as values:
        values.left = 0
        assert span_facts.parsed("[1]") == "[1]"
    assert span_facts.parsed("[1]") == [1]
