"""Streams of OpenAI's protocol that put the answer elsewhere than in `delta.content` and `delta.tool_calls`."""

from __future__ import annotations

import time
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


def test_a_refusal_is_a_filtered_answer_and_no_other_end_is_changed() -> None:
    for refusal, given, reason in (
        ("I can't.", "stop", "content_filter"), ("I can't.", None, "content_filter"), ("I ca", "length", "length"),
        ("", "stop", "stop"), (" ", "stop", "stop"), (None, "stop", "stop"),
    ):  # fmt: skip
        said = {"content": None if refusal and refusal.strip() else "7", "refusal": refusal}
        (whole,) = read_completions({"choices": [{"message": said, "finish_reason": given}]})
        assert whole.finish_reason == reason
        assert read(piece(said), piece(reason=given or "stop"))[1] == whole
        assert read({"choices": [{"message": said, "finish_reason": given or "stop"}]})[1] == whole
    begun = read(piece({"content": '{"a": '}), piece({"refusal": "I can't."}), piece(reason="stop"))[1]
    assert (begun.finish_reason, begun.message.text) == ("content_filter", '{"a": I can\'t.')
    called = {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}], "refusal": "no"}
    (both,) = read_completions({"choices": [{"message": called, "finish_reason": "stop"}]})
    assert both.finish_reason == "tool_calls"


def message(content: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **more}, "finish_reason": reason}]}


def test_the_text_of_a_message_in_a_stream_counts_beyond_what_came_before() -> None:
    assert read(message("whole", "stop"))[0] == ["whole"]
    assert read(message("", refusal="no"), message("", "stop", refusal="no way"))[0] == ["no", " way"]
    for repeated in ("Hello", "Hel", "Other words", ""):
        deltas = piece({"role": "assistant"}), piece({"content": "He"}), piece({"content": "llo"})
        assert read(*deltas, message(repeated, "stop"))[0] == ["He", "llo"]
        assert read(*deltas, message(repeated), message(repeated, "stop"))[0] == ["He", "llo"]
    assert read(piece({"content": "He"}), message("Hello", "stop"))[0] == ["He", "llo"]
    both = {"delta": {"content": "llo"}, "message": {"content": "Hello!"}}
    assert read(piece({"content": "He"}), {"choices": [both]}, piece(reason="stop"))[0] == ["He", "llo!"]
    assert read({"choices": [{"text": "x"}]}, message("late", "stop"))[0] == ["x"]
    assert read({"choices": [{"text": "x"}]}, message("late"), message("xy", "stop"))[0] == ["x", "y"]


def test_messages_that_grow_or_come_again_are_one_answer_and_pieces_are_joined() -> None:
    assert read(message("Hello"), message("Hello", "stop"))[0] == ["Hello"]
    assert read(message(""), message("Hel"), message("Hello "), message("Hello", "stop"))[0] == ["Hel", "lo "]
    pieces = [piece({"role": "assistant"}), message("He"), message("llo, "), message("He"), message("", "stop")]
    assert read(*pieces)[0] == ["He", "llo, ", "He"]
    assert read(message("Hel"), message(""), message("Hello", "stop"))[0] == ["Hel", "lo"]
    assert read(message("a"), message(""), message("b"), message("abc", "stop"))[0] == ["a", "b", "abc"]


def test_short_messages_after_a_long_text_are_not_compared_with_all_of_it() -> None:
    answer, half = StreamedAnswer(), "a" * 10_000_000
    answer.add(piece({"content": half}))
    answer.add(piece({"content": half}))
    started = time.perf_counter()
    assert not any(answer.add(message("a")) for _ in range(500))
    assert time.perf_counter() - started < 0.5


def test_calls_in_a_message_of_a_stream_count_if_no_delta_brought_one() -> None:
    def call(arguments: str, **more: Any) -> dict[str, Any]:
        return {"function": {"name": "f", "arguments": arguments}, **more}

    one = call("{}", id="c")
    for first in (piece({"content": "Hi"}), piece({"tool_calls": [one]}), message("", tool_calls=[one])):
        texts, whole = read(first, message("Hi", "tool_calls", tool_calls=[one]))
        assert (texts, whole.message.tool_calls) == (["Hi"], (ToolCall("c", "f", {}),))
    other = call('{"a": 1}', id="d")
    assert read(piece({"tool_calls": [one]}), message("", "stop", tool_calls=[one, other]))[1].message.tool_calls == (
        ToolCall("c", "f", {}),
    )
    several = (ToolCall("call_0", "f", {"a": 1}), ToolCall("c", "f", {}), ToolCall("d", "f", {"a": 1}))
    for events in (
        [message("", tool_calls=[call('{"a":'), one]), message("", tool_calls=[call('{"a": 1}'), one, other])],
        [
            message("", tool_calls=[call('{"a": 1}', id="")]),
            message("", tool_calls=[one]),
            message("", tool_calls=[other]),
        ],
        [message("", tool_calls=[call('{"a": 1}', id=[1]), one, other]), message("")],
    ):
        answer = StreamedAnswer()
        for event in events:
            answer.add(event)
        assert answer.take_calls() == [], "they may grow until the end"
        answer.add(piece(reason="tool_calls"))
        assert [piece.index for piece in answer.take_calls()] == [0, 1, 2]
        assert answer.completion().message.tool_calls == several
    unnamed = [call("{}", id=""), call("{}", id="")]
    assert len(read(message("", "tool_calls", tool_calls=unnamed))[1].message.tool_calls) == 2
    older = message("", function_call=call("{}")["function"])
    assert read(older, message("", "function_call"))[1].message.tool_calls == (ToolCall("call_0", "f", {}),)


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
    for empty in ("", None):
        assert calls(("c1", "f", '{"a":{"b":1}'), ("c2", None, empty), ("c3", None, "}")) == nested
    assert calls(("c1", "f", None), ("c2", None, '{"a":{"b":1}'), ("c3", None, "}")) == nested
    assert calls(("c1", "f", '{"a":1}'), ("c2", None, '{"a":2}')) == [*one, ("c2", "", {"a": 2}, None)]
    assert calls(("c1", "f", '{"a":1}'), ("c2", None, ""), ("c2", "g", "{}")) == [*one, ("c2", "g", {}, None)]
    assert calls(("c1", "f", '{"a":1}'), ("c2", "f", "")) == [*one, ("c2", "f", {}, None)]
    assert calls(("c1", "f", '{"a":'), ("c2", "g", "{}")) == [("c1", "f", {}, '{"a":'), ("c2", "g", {}, None)]
