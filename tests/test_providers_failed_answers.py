"""Generations that failed on the endpoint's side in a reply of success, of three vendors, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from firsthand.errors import ModelError, PromptTooLong, TransientError
from firsthand.message import Json
from firsthand.model import Completion
from firsthand.providers import anthropic_wire, google_wire, openai_wire
from firsthand.providers.finish_reasons import FailedAnswer, finish_reason
from firsthand.providers.openai_errors import Endpoint

ENDPOINT = Endpoint("model m", "m", ("s3cret-key-of-mine",), 1.0)
FAILED = (
    "error", "abort", "cancelled", "insufficient_system_resource", "network_error", "pause_turn", "OTHER", "NO_IMAGE",
    "MALFORMED_FUNCTION_CALL", "TOO_MANY_TOOL_CALLS", "FINISH_REASON_UNSPECIFIED", "function_call_filter: X", "new",
    3, True, ["stop"], {"type": "stop"},
)  # fmt: skip


def openai_choice(text: str, reason: Any, **fields: Any) -> Completion:
    choice = {"message": {"content": text}, "finish_reason": reason, **fields}
    return openai_wire.read_completions({"choices": [{"text": "good"}, choice]})[1]


def openai_stream(text: str, reason: Any, **fields: Any) -> Completion:
    answer = openai_wire.StreamedAnswer()
    answer.add({"choices": [{"delta": {"content": text}}]})
    answer.add({"choices": [{"delta": {}, "finish_reason": reason, **fields}]})
    assert answer.finished == (reason is not None or bool(fields.get("error"))), "it is quoted, not said to break off"
    return answer.completion()


def anthropic_reply(text: str, reason: Any, **fields: Any) -> Completion:
    blocks = [{"type": "text", "text": text}] if text else []
    return anthropic_wire.read_completion({"content": blocks, "stop_reason": reason, **fields})


def anthropic_stream(text: str, reason: Any) -> Completion:
    answer = anthropic_wire.MessageStream()
    answer.add({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}})
    answer.add({"type": "message_delta", "delta": {"stop_reason": reason}})
    answer.add({"type": "message_stop"})
    return answer.completion()


def google_candidate(text: str, reason: Any, **fields: Any) -> Json:
    parts = [{"text": text}] if text else []
    return {"candidates": [{"content": {"parts": parts}, "finishReason": reason, **fields}]}


def google_reply(text: str, reason: Any, **fields: Any) -> Completion:
    return google_wire.read_completion(google_candidate(text, reason, **fields))


def google_stream(text: str, reason: Any) -> Completion:
    answer = google_wire.CandidateStream()
    answer.add(google_candidate(text, None))
    answer.add(google_candidate("", reason))
    return answer.completion()


WIRES: Mapping[str, Callable[..., Completion]] = {
    made.__name__: made
    for made in (openai_choice, openai_stream, anthropic_reply, anthropic_stream, google_reply, google_stream)
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("text", ["", "half of an answer"])
def test_a_reason_that_ends_no_answer_is_a_failure_that_is_quoted_and_tried_again(wire: str, text: str) -> None:
    for reason in FAILED:
        with pytest.raises(FailedAnswer) as failed:
            WIRES[wire](text, reason)
        told = ENDPOINT.garbled(failed.value)
        assert type(told) is TransientError
        assert str(told) == f"model m ended an answer with {reason}: it may pass, try again"


@pytest.mark.parametrize("wire", WIRES)
def test_no_reason_is_believed_beside_text_and_nothing_at_all_is_no_answer(wire: str) -> None:
    for reason in (None, "", "none", "NULL", "unknown"):
        assert WIRES[wire]("4", reason).finish_reason == "stop"
        if wire == "google_stream" and not reason:  # a stream without a reason broke off
            continue
        with pytest.raises(FailedAnswer) as failed:
            WIRES[wire]("", reason)
        said = f"model m ended an answer with {reason or 'neither text nor a reason'}: it may pass, try again"
        assert str(ENDPOINT.garbled(failed.value)) == said
    empty = WIRES[wire]("", "stop")
    assert (empty.message.text, empty.finish_reason) == ("", "stop"), "a model may answer with nothing"


@pytest.mark.parametrize("wire", WIRES)
def test_reasons_of_any_vendor_end_an_answer(wire: str) -> None:
    for reason, expected in (
        ("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("eos_token", "stop"), ("end_turn", "stop"),
        ("stop_sequence", "stop"), ("COMPLETE", "stop"), ("length", "length"), ("MAX_TOKENS", "length"),
        ("model_length", "length"), ("tool_use", "tool_calls"), ("refusal", "content_filter"),
        ("content_filter: RECITATION", "content_filter"), ("sensitive", "content_filter"),
        ("finish", "stop"), ("stopped", "stop"), ("endoftext", "stop"), ("end_of_text", "stop"), ("stop_str", "stop"),
        ("End of turn", "stop"), ("max_new_tokens", "length"), ("tool-calls", "tool_calls"),
        ("content-filter", "content_filter"), ("FINISH_REASON_STOP", "stop"), ("FinishReason.MAX_TOKENS", "length"),
    ):  # fmt: skip
        assert WIRES[wire]("x", reason).finish_reason == expected, reason


def test_a_call_without_a_reason_is_an_answer_and_only_an_end_becomes_tool_calls() -> None:
    assert (
        finish_reason(None, has_answer=True, calls=True)
        == "tool_calls"
        == finish_reason("stop", has_answer=True, calls=True)
    )
    assert finish_reason("length", has_answer=True, calls=True) == "length"
    called = {"message": {"tool_calls": [{"id": "c", "function": {"name": "f"}}]}}
    assert openai_wire.read_completions({"choices": [called]})[0].finish_reason == "tool_calls"
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    assert anthropic_wire.read_completion({"content": [use]}).finish_reason == "tool_calls"
    parts = [{"functionCall": {"name": "f", "args": {}}}]
    assert google_wire.read_completion({"candidates": [{"content": {"parts": parts}}]}).finish_reason == "tool_calls"
    thought = {"type": "thinking", "thinking": "hm"}
    with pytest.raises(FailedAnswer):
        anthropic_wire.read_completion({"content": [thought]})
    with pytest.raises(FailedAnswer):
        google_wire.read_completion({"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}]}}]})


@pytest.mark.parametrize("wire", ["openai_choice", "openai_stream", "anthropic_reply", "google_reply"])
@pytest.mark.parametrize("reason", ["error", "stop", None])
def test_an_error_beside_an_answer_is_the_error(wire: str, reason: str | None) -> None:
    def told(error: Any) -> ModelError:
        with pytest.raises(FailedAnswer) as failed:
            WIRES[wire]("4", reason, error=error)
        return ENDPOINT.garbled(failed.value)

    overloaded = told({"code": 502, "message": "upstream failed for s3cret-key-of-mine"})
    assert type(overloaded) is TransientError
    assert str(overloaded).startswith("model m answered 502 (upstream failed for ") and "s3cret" not in str(overloaded)
    assert type(told({"code": 400, "message": "no such setting"})) is ModelError
    assert type(told({"code": 400, "message": "maximum context length is 9"})) is PromptTooLong
    for code in ("server_error", 399, 600, None):
        said = f"model m ended an answer with {reason or 'an error'} (it fell over): it may pass, try again"
        passing = told({"code": code, "message": "it fell over"})
        assert (type(passing), str(passing)) == (TransientError, said)
    assert str(told("upstream")).endswith(" (upstream): it may pass, try again")
    assert type(told({"code": 599})) is TransientError
    for none in (None, {}, ""):
        if reason == "stop":
            assert WIRES[wire]("4", reason, error=none).message.text == "4"


def test_a_choice_with_an_error_alone_needs_no_message() -> None:
    with pytest.raises(FailedAnswer):
        openai_wire.read_completions({"choices": [{"error": {"message": "down"}}]})


def test_secrets_in_a_reason_are_hidden() -> None:
    with pytest.raises(FailedAnswer) as failed:
        openai_choice("", "key s3cret-key-of-mine")
    assert "s3cret" not in str(ENDPOINT.garbled(failed.value))
