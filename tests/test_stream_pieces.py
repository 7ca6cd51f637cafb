"""Pieces of a model's streamed answer: joined to its text, as each provider lays them out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.ingest.recorded_values import MAX_VALUE_CHARS, GivenItems


def chunk(content: Any = None, ended: Any = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": {"content": content, "tool_calls": None, **delta}, "finish_reason": ended}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def langchain(content: Any, **others: Any) -> dict[str, Any]:
    return {"type": "AIMessageChunk", "content": content, "tool_calls": [], "response_metadata": {}, **others}


def words(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def given(*items: Any) -> tuple[str, bool, str]:
    taken = GivenItems()
    for item in items:
        taken.add(item)
    return (*taken.shown(), taken.ended)


OPENAI = [
    chunk(""),
    chunk("It is "),
    chunk("Paris"),
    chunk(None, "length"),
    {"object": "chat.completion.chunk", "choices": []},
]
ANTHROPIC = [
    {"type": "message_start", "message": {"content": [], "role": "assistant"}},
    {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
    words("It is "), {"type": "text", "text": "It is ", "snapshot": "It is "}, words("Paris"),
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {}},
    {"type": "message_stop"},
]  # fmt: skip
RESPONSES = [
    {"type": "response.created", "response": {"incomplete_details": None}},
    {"type": "response.output_item.added", "item": {"type": "message"}},
    {"type": "response.reasoning_summary_text.delta", "delta": "hm"},
    {"type": "response.output_text.delta", "delta": "It is "},
    {"type": "response.output_text.delta", "delta": "Paris"},
    {"type": "response.output_text.done", "text": "It is Paris"},
    {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}},
]
LANGCHAIN = [langchain("It is "), langchain("Paris"), langchain("", response_metadata={"finish_reason": "length"})]
COMPLETION = [
    {"object": "text_completion", "choices": [{"text": each, "finish_reason": None}]} for each in ("It is ", "Paris")
]


@pytest.mark.parametrize(
    ("items", "ended"),
    [(OPENAI, "length"),
     (ANTHROPIC, "max_tokens"), (RESPONSES, "max_output_tokens"), (LANGCHAIN, "length"), (COMPLETION, "")],
)  # fmt: skip
def test_the_pieces_of_an_answer_are_its_text(items: list[Any], ended: str) -> None:
    assert given(*items) == ("It is Paris", True, ended)
    text, is_told, why = given(*items, {"mine": 1})
    assert json.loads(text) == [*items, {"mine": 1}] and not is_told and not why


@pytest.mark.parametrize(
    "item",
    [
        chunk("b", index=1), chunk(tool_calls=[{"index": 0}]), chunk(function_call={"name": "f"}),
        {"object": "chat.completion.chunk", "choices": [{"delta": {}}, {"delta": {}}]},
        {"object": "chat.completion.chunk", "choices": [1]}, {"object": "chat.completion.chunk", "choices": "x"},
        {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}},
        {"type": "response.output_item.added", "item": {"type": "function_call"}},
        langchain("x", tool_call_chunks=[{"name": "f"}]), langchain([{"type": "text", "text": "x"}]),
    ],
)  # fmt: skip
def test_calls_and_several_answers_are_kept_as_they_are_and_marked(item: Any) -> None:
    text, is_told, _ = given(chunk("a"), item, chunk("c"))
    assert json.loads(text) == [chunk("a"), item, chunk("c")] and not is_told


def test_items_of_ones_own_are_a_list_as_before() -> None:
    for items in (
        [{"type": "token", "text": "a"}, {"type": "text", "text": "b", "role": "user"}],
        [{"choices": [{"delta": {"content": "a"}}]}], [{"type": "text", "content": "a"}], [1, "b", None], [["{"]],
        [{"type": 1}], ["a", {"b": 1}, "c"],
    ):  # fmt: skip
        assert given(*items) == (json.dumps(items), True, ""), items
    assert given("a", "{}") == ("a{}", True, "") and given() == ("", True, "")
    assert given("a", chunk("b"))[0] == json.dumps(["a", chunk("b")]) and given(chunk("b"), "a")[1] is False


def test_a_long_answer_is_whole_where_its_chunks_are_longer_than_is_kept() -> None:
    taken, pieces = GivenItems(), 3000
    for _ in range(pieces):
        taken.add(chunk("word "))
    assert taken.shown() == ("word " * pieces, True)
    for _ in range(3):
        taken.add(chunk("x" * MAX_VALUE_CHARS))
    assert MAX_VALUE_CHARS < len(taken.shown().text) <= 3 * MAX_VALUE_CHARS + 3
    assert len(taken._parts) < pieces, "the list of its chunks does not grow"
