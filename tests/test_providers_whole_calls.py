"""Tool calls of gateways that send them whole: in the event that opens a block, or all under one index without ids."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.message import Json
from firsthand.providers.anthropic_wire import MessageStream
from firsthand.providers.openai_errors import retry_after_s
from firsthand.providers.openai_wire import StreamedAnswer, read_completions


def opened(given: Any, *pieces: str) -> tuple[Any, str]:
    """The arguments of a call that its block gives and pieces follow: in the answer, and as they are shown."""
    stream = MessageStream()
    block = {"type": "tool_use", "id": "t", "name": "delete", "input": given}
    stream.add({"type": "content_block_start", "index": 0, "content_block": block})
    for piece in pieces:
        delta = {"type": "input_json_delta", "partial_json": piece}
        stream.add({"type": "content_block_delta", "index": 0, "delta": delta})
    stream.add({"type": "content_block_stop", "index": 0})
    shown = stream.take_calls()
    (call,) = stream.completion().message.tool_calls
    assert [each.index for each in shown] == [0] * len(shown) and shown[0].name == "delete" and call.invalid is None
    return call.arguments, "".join(each.arguments for each in shown)


def test_arguments_in_the_event_that_opens_a_call_are_its_arguments() -> None:
    assert opened({"path": "/tmp/a"}) == ({"path": "/tmp/a"}, '{"path": "/tmp/a"}')
    assert opened({"path": "/tmp/a"}, "") == ({"path": "/tmp/a"}, '{"path": "/tmp/a"}')
    assert opened('{"x": 1}') == ({"x": 1}, '{"x": 1}')


def test_pieces_replace_the_arguments_that_opened_a_call() -> None:
    for given in ({}, {"old": 1}, "{}", "", None):
        assert opened(given, "", '{"x":', " 1}") == ({"x": 1}, '{"x": 1}')
    assert opened({}) == opened(None) == opened("") == ({}, "")


def calls(*functions: Json, **fields: Any) -> list[tuple[str, Any]]:
    """Name and arguments of each call of a stream, of which each piece has these further fields."""
    answer = StreamedAnswer()
    for function in functions:
        answer.add({"choices": [{"index": 0, "delta": {"tool_calls": [{"function": function, **fields}]}}]})
    return [(each.name, each.invalid or each.arguments) for each in answer.completion().message.tool_calls]


@pytest.mark.parametrize("fields", [{"index": 0}, {"index": 0, "id": ""}, {"index": 0, "id": None}, {}])
def test_whole_calls_under_one_index_without_ids_are_calls_of_their_own(fields: Json) -> None:
    add, mul = {"name": "add", "arguments": '{"x":1}'}, {"name": "mul", "arguments": '{"x":2}'}
    both = [("add", {"x": 1}), ("mul", {"x": 2})]
    assert calls(add, mul, **fields) == both
    assert calls(add, add, **fields) == [both[0], both[0]]
    assert calls(add | {"arguments": {"x": 1}}, mul | {"arguments": {"x": 2}}, **fields) == both
    assert calls(add | {"arguments": ""}, mul | {"arguments": ""}, **fields) == [("add", {}), ("mul", {})]
    pieces: list[Json] = [{"name": "add", "arguments": ""}, {"arguments": '{"x"'}, {"name": "add", "arguments": ":1}"}]
    assert calls(*pieces, **fields) == [both[0]]


def test_a_call_that_has_an_id_goes_on_under_its_index_whatever_name_comes() -> None:
    first = {"index": 0, "id": "c", "function": {"name": "add", "arguments": '{"x":'}}
    answer = StreamedAnswer()
    for call in (first, {"index": 0, "function": {"name": "mul", "arguments": "1}"}}):
        answer.add({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    assert [(each.id, each.name, each.arguments) for each in answer.completion().message.tool_calls] == [
        ("c", "add", {"x": 1})
    ]


def test_calls_of_one_answer_have_ids_of_their_own() -> None:
    def ids(*given: str) -> list[str]:
        called = [{"id": id, "function": {"name": "f", "arguments": "{}"}} for id in given]
        (answer,) = read_completions({"choices": [{"message": {"tool_calls": called}, "finish_reason": "tool_calls"}]})
        return [call.id for call in answer.message.tool_calls]

    assert ids("a", "b") == ["a", "b"]
    for given in (("c", "c", "c"), ("", "call_0"), ("call_1", "", "call_1"), ("c", "c_2_1", "c"), ("c", "c_3_1", "c")):
        assert len(set(ids(*given))) == len(given) and ids(*given)[0] == (given[0] or "call_0")


def test_the_wait_in_milliseconds_is_taken_before_that_in_seconds() -> None:
    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after_s({"retry-after-ms": "-1"}) == 0.0
    for unread in ("", "soon", "nan", "inf"):
        assert retry_after_s({"retry-after-ms": unread, "retry-after": "9"}) == 9.0
        assert retry_after_s({"retry-after-ms": unread}) is None
