"""Streams of OpenAI's protocol that put the answer elsewhere than in `delta.content` and `delta.tool_calls`."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.message import ToolCall
from firsthand.model import CallDelta, Completion, Usage
from firsthand.providers.finish_reasons import FailedAnswer, finish_reason
from firsthand.providers.openai_wire import StreamedAnswer, read_completions


def piece(delta: Any = None, reason: str | None = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason, **choice}]}


def read(*events: dict[str, Any]) -> tuple[list[str], Completion]:
    answer = StreamedAnswer()
    texts = [text for event in events if (text := answer.add(event))]
    whole = answer.completion()
    assert answer.finished and "".join(texts) == whole.message.text
    return texts, whole


def test_a_streamed_refusal_is_the_text_as_it_is_in_a_whole_reply() -> None:
    refused = [piece({"role": "assistant", "content": None, "refusal": "I can't "}), piece({"refusal": "help."})]
    texts, streamed = read(*refused, piece(reason="stop"))
    message = {"role": "assistant", "content": None, "refusal": "I can't help."}
    (whole,) = read_completions({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert texts == ["I can't ", "help."] and streamed == whole
    assert read(piece({"content": "a", "refusal": "b"}, "stop"))[0] == ["a"]


def test_a_message_in_a_stream_is_read_unless_deltas_said_the_answer() -> None:
    def message(content: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
        return {"choices": [{"message": {"content": content, **more}, "finish_reason": reason}]}

    assert read(message("whole", "stop"))[0] == ["whole"]
    assert read(piece({"role": "assistant"}), message("He"), message("llo", "stop"))[0] == ["He", "llo"]
    assert read(piece({"content": "He"}), piece({"content": "llo"}), message("Hello", "stop"))[0] == ["He", "llo"]
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    for other in (piece({"tool_calls": [call]}), message("", tool_calls=[call])):
        texts, whole = read(other, message("late", "tool_calls", tool_calls=[call]))
        assert (texts, whole.message.tool_calls) == ([], (ToolCall("c", "f", {}),))
    assert read({"choices": [{"text": "x"}]}, message("late", "stop"))[0] == ["x"]


def test_a_function_call_of_the_older_form_is_a_tool_call() -> None:
    answer = StreamedAnswer()
    for function in ({"name": "f", "arguments": ""}, {"arguments": '{"a": '}, {"arguments": "1}"}, {}):
        answer.add(piece({"function_call": function}))
    answer.add(piece({"function_call": None}, "function_call"))
    assert answer.take_calls() == [
        CallDelta(0, "call_0", "f"), CallDelta(0, arguments='{"a": '), CallDelta(0, arguments="1}"),
    ]  # fmt: skip
    choice = {"finish_reason": "function_call", "message": {"function_call": {"name": "f", "arguments": '{"a": 1}'}}}
    (whole,) = read_completions({"choices": [choice]})
    assert answer.completion() == whole and whole.message.tool_calls == (ToolCall("call_0", "f", {"a": 1}),)
    both = {"tool_calls": [{"id": "c", "function": {"name": "g"}}], "function_call": {"name": "f"}}
    assert read(piece(both, "stop"))[1].message.tool_calls == (ToolCall("c", "g", {}),)
    assert read(piece(both | {"tool_calls": []}, "stop"))[1].message.tool_calls == (ToolCall("call_0", "f", {}),)


def test_the_choice_of_index_0_is_read_wherever_it_stands() -> None:
    first, other = piece({"content": "a"})["choices"][0], {"index": 1, "delta": {"content": "b"}}
    for choices in ([other, first], [first, other], [other, {"delta": {"content": "a"}}]):
        assert read({"choices": choices}, piece(reason="stop"))[0] == ["a"]
    assert StreamedAnswer().add({"choices": [other]}) == ""


def test_an_end_for_tool_calls_without_any_is_a_failed_answer() -> None:
    for reason in ("tool_calls", "function_call"):
        with pytest.raises(FailedAnswer) as failed:
            read(piece(reason=reason))
        assert failed.value.reason == f"{reason}, but no call"
    assert read(piece({"content": "a"}, "tool_calls"))[1].finish_reason == "tool_calls", "a text is an answer"
    assert finish_reason("stop", has_answer=False) == "stop"


def test_each_count_of_a_stream_is_the_highest_that_was_stated() -> None:
    def counted(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}

    end = piece(reason="stop")
    assert read(counted(3, 1), counted(3, 2), end | counted(0, 0))[1].usage == Usage(3, 0, 2)
    assert read(end, {"usage": {"cost": 0.5}}, counted(4, 6), {"usage": None})[1].usage == Usage(4, 0, 6, 0.5)
    assert read(counted(2, 1), end, counted(4, 6, prompt_tokens_details={"cached_tokens": 3}))[1].usage == Usage(
        4, 3, 6
    )


def test_ids_that_change_with_each_piece_of_a_call_make_one_call() -> None:
    def calls(*pieces: tuple[str, str | None, str | None]) -> list[tuple[str, str, Any, str | None]]:
        wired = [{"index": 0, "id": id, "function": {"name": name, "arguments": text}} for id, name, text in pieces]
        found = read(*(piece({"tool_calls": [each]}) for each in wired), piece(reason="tool_calls"))[1]
        return [(call.id, call.name, call.arguments, call.invalid) for call in found.message.tool_calls]

    one = [("c1", "f", {"a": 1}, None)]
    assert calls(("c1", "f", ""), ("c2", None, '{"a":'), ("c3", None, "1}")) == one
    assert calls(("c1", "f", '{"a":'), ("c2", None, "1}"), ("c3", None, "")) == one, "an empty piece ends it"
    nested = [("c1", "f", {"a": {"b": 1}}, None)]
    assert calls(("c1", "f", None), ("c2", None, '{"a":{"b":1}'), ("c3", None, "}")) == nested
    assert calls(("c1", "f", '{"a":1}'), ("c2", None, '{"a":2}')) == [*one, ("c2", "", {"a": 2}, None)]
    assert calls(("c1", "f", '{"a":1}'), ("c2", None, ""), ("c2", "g", "{}")) == [*one, ("c2", "g", {}, None)]
    assert calls(("c1", "f", '{"a":1}'), ("c2", "f", "")) == [*one, ("c2", "f", {}, None)]
    assert calls(("c1", "f", '{"a":'), ("c2", "g", "{}")) == [("c1", "f", {}, '{"a":'), ("c2", "g", {}, None)]
