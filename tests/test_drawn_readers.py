"""Readers of requests, streams and settings that drawn changes showed to be unpinned: exact values, case by case."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.embed.embedding_config import max_tokens_of
from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import MAX_LAYERS, Fields
from firsthand.ingest.dialects.span_facts import cost_in, number_of
from firsthand.patterns.cot import cot
from firsthand.patterns.self_consistency import MAX_ANSWERS, check_votes
from firsthand.providers.openai_wire import StreamedAnswer
from firsthand.safety.undo.roll_back import calls_without_undo
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.request_schema import ChatRequest, read


def test_an_error_of_a_field_says_that_it_is_missing_or_what_it_is() -> None:
    fields = Fields({"p.a": "x" * 100}, "here", prefix="p.")
    assert str(fields.error("b", None, "one")) == "here has no p.b: expected one"
    assert str(fields.error("a", "x" * 100, "one")) == f"here: p.a is {'x' * 80!r}: expected one"
    assert fields.has("a") and not fields.has("b")
    for value, is_right in ((0, False), (1, True), (MAX_LAYERS, True), (MAX_LAYERS + 1, False)):
        counted = Fields({"n": value}, "here")
        if is_right:
            assert counted.num_layers("n") == value
        else:
            with pytest.raises(ModelFileError):
                counted.num_layers("n")


def test_an_unknown_field_is_named_with_the_nearest_or_its_place() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"temperatur": 1}, "the field 'temperatur' is not known: did you mean temperature?"),
        ({"qqqqqq": 1}, "the field 'qqqqqq' is not known here"),
        ({"stream_options": {"include_usag": True}}, "the field 'stream_options.include_usag' is not known here"),
        ({"messages": []}, "messages is an empty list: give one or more"),
    ]
    for more, told in cases:
        with pytest.raises(Refusal) as raised:
            read(ChatRequest, body | more)
        assert str(raised.value) == told
    with pytest.raises(Refusal, match="the field 'messages' is missing"):
        read(ChatRequest, {"model": "m"})


def test_calls_without_a_kept_state_begin_at_the_step_and_leave_out_what_was_refused() -> None:
    def call(
        id: str, at: int | None, name: str = "send", kind: str = "tool", error: str | None = None
    ) -> SimpleNamespace:  # fmt: skip
        return SimpleNamespace(id=id, at=at, kind=kind, error=error, detail={"name": name, "arguments": {"n": id}})

    calls = [
        call("0", None),
        call("1", 1, error="refused"),
        call("2", 2),
        call("3", 2, "look"),
        call("4", 3, kind="generate"),
        call("5", 3),
    ]
    refused = SimpleNamespace(kind="guard", data={"border": "call", "action": "block", "effect": "5"})
    passed = SimpleNamespace(kind="guard", data={"border": "result", "action": "block", "effect": "2"})
    asked = SimpleNamespace(kind="approval", data={"allowed": False, "tool": "send", "arguments": {"n": "1"}})
    tools: Any = {"look": SimpleNamespace(effect="read"), "send": SimpleNamespace(effect="external")}

    def found(step: int | None, *events: SimpleNamespace, given: Any = tools) -> list[str]:
        trace: Any = SimpleNamespace(calls=calls, events=events)
        return [each.id for each in calls_without_undo(trace, given, step)]

    assert found(None) == ["0", "1", "2", "5"] and found(None, given={}) == ["0", "1", "2", "3", "5"]
    assert found(2) == ["2", "5"] and found(0) == ["1", "2", "5"] and found(-1) == ["0", "1", "2", "5"]
    assert found(None, refused, passed, asked) == ["0", "2"]
    made = SimpleNamespace(kind="approval", data={**asked.data, "arguments": {"n": "2"}})  # as of an equal call
    assert found(None, made) == ["0", "1", "2", "5"], "a call that returned was not refused"
    named = SimpleNamespace(kind="approval", data={**made.data, "call": "0"})
    assert found(None, named) == ["1", "2", "5"], "an approval that names its call is of that one"


def test_the_most_tokens_of_a_text_are_stated_or_those_of_the_model(tmp_path: Path) -> None:
    def most(stated: object, settings: dict[str, Any] | None = None) -> int:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": stated}))
        return max_tokens_of(tmp_path, Fields(settings or {}, "here"), 512)

    assert [most(stated) for stated in (1, 128, 600, 0, -1, 1e30, True, None, "9")] == [1, 128, *[512] * 7]
    assert most(128, {"max_seq_length": 64}) == 64 and most(128, {"max_seq_length": 1000}) == 512


def test_the_ids_of_a_prompt_are_those_that_came_first() -> None:
    def ids(*events: dict[str, Any]) -> object:
        streamed = StreamedAnswer()
        for event in events:
            streamed.add(event)
        return streamed._prompt_ids

    assert ids({"prompt_token_ids": [1]}, {"choices": [{"prompt_token_ids": [2]}]}) == [1]
    assert ids({}, {"choices": [{"prompt_token_ids": [2]}]}, {"prompt_token_ids": [1]}) == [2]
    streamed = StreamedAnswer()
    said = [streamed.add({"choices": [{"index": index, "delta": {"content": "a"}}]}) for index in (0, 1, None)]
    assert said == ["a", "", "a"] and not streamed.finished


def test_votes_take_examples_from_their_pattern_alone() -> None:
    check_votes(samples=1, temperature=0.5, shots=2)
    check_votes(samples=2, temperature=0.5, pattern=cot)
    for options in ({"samples": 0}, {"samples": MAX_ANSWERS + 1}, {"shots": 1, "pattern": cot}, {"shots": -1}):
        with pytest.raises(ConfigError):
            check_votes(**{"samples": 2, "temperature": 0.5, **options})  # type: ignore[arg-type]
    check_votes(samples=MAX_ANSWERS, temperature=0.5)


def test_amounts_of_spans_are_numbers_of_nought_or_more() -> None:
    values = [0, 1.5, "2.5", " 3 ", "x", -1, True, None, "9" * 40, "inf", float("nan"), [1]]
    assert [number_of(value) for value in values] == [0, 1.5, 2.5, 3, *[None] * 8]
    assert cost_in({"a": "x", "b": -1, "c": 2}, "a", "b", "c") == 2 and cost_in({"a": 1e13}, "a") == 1e12
    assert cost_in({}, "a") == 0
