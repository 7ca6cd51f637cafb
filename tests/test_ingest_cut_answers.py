"""Answers that are not whole: where spans say why an answer ended, what the recorder cut, and the sessions of tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import otlp_requests as otlp
from firsthand.commands import data
from firsthand.errors import ConfigError
from firsthand.ingest.as_trace import is_whole, trace_of
from firsthand.ingest.dialects.stop_reasons import stop_reasons
from firsthand.ingest.incoming_span import CUT, IncomingSpan, StoredSpan
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_sender import stored_of
from firsthand.ingest.task_rows import task_row
from firsthand.ingest.trace_store import SpanPreparer, TraceStore

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}


def stored(
    attributes: dict[str, Any], *events: tuple[str, dict[str, Any]], number: int = 1, parent: int = 0
) -> StoredSpan:
    parent_id = f"{parent:016x}" if parent else ""
    made = IncomingSpan("1" * 32, f"{number:016x}", parent_id, "call", 10 + number, 20, attributes)
    made.events = [{"name": name, "at_ns": 1, "attributes": held} for name, held in events]
    return stored_of(number, made)


def said(*reasons: str | None) -> str:
    """Answers in JSON, with these reasons."""
    fields = ({} if reason is None else {"finish_reason": reason} for reason in reasons)
    told = [
        {"role": "assistant", "parts": [{"type": "text", "content": f"a{n}"}], **each} for n, each in enumerate(fields)
    ]
    return json.dumps(told)


def choice(reason: str | None, n: int = 0) -> dict[str, Any]:
    return {"index": n, "finish_reason": reason, "message": {"role": "assistant", "content": f"a{n}"}}


DETAILS = "gen_ai.client.inference.operation.details"
LC = {"lc": 1, "id": ["AIMessage"], "kwargs": {"content": "a", "response_metadata": {"finish_reason": "length"}}}


@pytest.mark.parametrize(
    ("attributes", "events", "reasons"),
    [
        ({"gen_ai.output.messages": said("length")}, (), ["length"]),
        ({"gen_ai.output.messages": said("stop", "length", None)}, (), ["stop", "length", "stop"]),
        ({"gen_ai.output.messages": said(None)}, (), []),
        ({"gen_ai.output.messages": said("stop", "length"), "gen_ai.response.finish_reasons": ["stop"]}, (),
         ["stop", "length"]),
        ({"gen_ai.output.messages": said("stop"), "gen_ai.response.finish_reasons": ["length"]}, (), ["length"]),
        ({"gen_ai.output.messages": said("tool_call"), "llm.finish_reason": "stop"}, (), ["tool_calls"]),
        ({}, ((DETAILS, {"gen_ai.output.messages": said("stop", "content_filter")}),), ["stop", "content_filter"]),
        ({}, (("gen_ai.choice", {"finish_reason": "length", "message": '{"content": "x"}'}),), ["length"]),
        ({}, (("gen_ai.choice", {"gen_ai.event.content": json.dumps(choice("stop"))}),
              ("gen_ai.choice", {"gen_ai.event.content": json.dumps(choice("length", 1))})), ["stop", "length"]),
        ({}, (("gen_ai.choice", {"message": "x"}), ("exception", {"finish_reason": "length"}), ("gen_ai.choice", 5)), []),
        ({"gen_ai.completion.0.content": "a", "gen_ai.completion.0.finish_reason": "stop",
          "gen_ai.completion.1.content": "b", "gen_ai.completion.1.finish_reason": "length"}, (), ["stop", "length"]),
        ({"gen_ai.completion.0.content": "a", "gen_ai.completion.1.content": "b",
          "gen_ai.completion.1.finish_reason": "length"}, (), ["stop", "length"]),
        ({"gen_ai.completion.0.finish_reason": "max_tokens"}, (), ["length"]),
        ({"output.value": json.dumps({"choices": [choice("length")]})}, (), ["length"]),
        ({"output.value": json.dumps({"choices": [choice(None), choice("length", 1)]})}, (), ["stop", "length"]),
        ({"output.value": json.dumps({"role": "assistant", "stop_reason": "max_tokens", "content": []})}, (), ["length"]),
        ({"output.value": json.dumps({"candidates": [{"finishReason": "SAFETY"}]})}, (), ["content_filter"]),
        ({"output.value": json.dumps({"incomplete_details": {"reason": "max_output_tokens"}, "output": []})}, (),
         ["length"]),
        ({"output.value": json.dumps({"generations": [[{"text": "a", "generation_info": {"finish_reason": "length"}}]]})},
         (), ["length"]),
        ({"output.value": json.dumps({"generations": [[{"text": "a", "message": LC}]]})}, (), ["length"]),
        ({"langfuse.observation.output": json.dumps(LC)}, (), ["length"]),
        ({"output.value": "it says finish_reason"}, (), []),
        ({"llm.finish_reason": "FinishReason.MAX_TOKENS"}, (), ["length"]),
        ({"output.value": "x", CUT: "output.value"}, (), ["length"]),
        ({"output.value": "x", CUT: "note"}, (), []),
    ],
)  # fmt: skip
def test_why_an_answer_ended_is_read_wherever_it_is_said(attributes: Any, events: Any, reasons: list[str]) -> None:
    made = stored(CHAT | attributes, *events).span
    assert stop_reasons(made) == reasons
    made.events.append(5)  # type: ignore[arg-type]
    assert stop_reasons(made) == reasons, "what cannot be read says nothing"


def test_a_reason_that_only_the_inner_record_of_a_call_has_is_the_call_s() -> None:
    above = stored({"openinference.span.kind": "LLM", "output.value": "a", "llm.token_count.prompt": 3})
    cut = {"gen_ai.completion.0.content": "a", "gen_ai.completion.0.finish_reason": "length"}
    below = stored(CHAT | cut, number=2, parent=1)
    (call,) = trace_of("t", [above, below]).calls
    assert call.detail["finish_reasons"] == ["length"] and call.detail["span"] == above.span.span_id
    above.span.attributes["llm.finish_reason"] = "stop"
    (call,) = trace_of("t", [above, below]).calls
    assert call.detail["finish_reasons"] == ["stop"]
    twice = json.loads(said("length", "stop"))
    twice[1]["parts"] = twice[0]["parts"]
    (call,) = trace_of("t", [stored(CHAT | {"gen_ai.output.messages": json.dumps(twice)})]).calls
    assert (len(call.nodes), call.detail["finish_reasons"]) == (1, ["length"]), "of equal answers one was cut"


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "chat", "gen_ai.conversation.id": "s"},
        {"langfuse.observation.type": "generation", "langfuse.session.id": "s"},
        {"langfuse.observation.type": "span", "session.id": "s"},
        {"llm.request.type": "chat", "traceloop.association.properties.session_id": "s"},
        {"openinference.span.kind": "CHAIN", "session.id": "s"},
        {"session.id": "s"},
    ],
)
def test_a_task_is_of_the_session_of_its_trace_in_each_dialect(attributes: dict[str, Any]) -> None:
    root = stored({"openinference.span.kind": "CHAIN"})
    assert task_row("t", [root, stored(attributes, number=2, parent=1)])["cluster"] == "s"
    assert task_row("t", [root])["cluster"] == "t"


def test_what_the_recorder_cut_is_neither_a_task_nor_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    kept = TraceStore(data.data_home(), create=True)
    held = {"openinference.span.kind": "LLM", "input.value": "why?", "output.value": "so"}
    for number, cut in enumerate(({}, {CUT: "output.value"}, {CUT: "note input.value"}, {CUT: "note"}), 1):
        decoded, _ = decode_json(otlp.as_json(otlp.span(number, 1, 0, "ask", start_s=float(number), **held, **cut)))
        kept.add(SpanPreparer(Redactor()).prepared(decoded))
    kept.close()
    assert data.main(data.Config(("traces",), as_="tasks", out="set.jsonl")) == 0
    rows = [json.loads(line) for line in Path("set.jsonl").read_text().splitlines()]
    assert [row["id"][-1] for row in rows] == ["4", "1"] and not any("is_cut" in row for row in rows)
    told = "; left out: 2 traces whose question or answer was cut when it was recorded\n"
    assert capsys.readouterr().err.endswith(told)
    assert data.main(data.Config(("traces",), as_="sft", out="sft.jsonl")) == 0
    assert len(Path("sft.jsonl").read_text().splitlines()) == 2
    with pytest.raises(ConfigError, match="none of 1 trace has"):
        data.main(data.Config(("traces",), as_="tasks", out="no.jsonl", filter=f"id:{2:032x}"))


def test_a_trace_is_whole_where_the_words_that_it_shows_are() -> None:
    root = {"openinference.span.kind": "CHAIN", "input.value": "why?", "output.value": "so"}
    inner = {"openinference.span.kind": "LLM", "input.value": "x", "output.value": "y", CUT: "input.value output.value"}
    below = stored(inner, number=2, parent=1)
    assert is_whole([stored(root), below]) and "is_cut" not in task_row("t", [stored(root), below])
    for name in ("input.value", "output.value"):
        assert not is_whole([stored(root | {name: ""}), below]) and not is_whole([stored(root | {CUT: name})])
    assert task_row("t", [stored(root | {CUT: "output.value"})])["is_cut"] is True and is_whole([])
