"""Outputs of spans: which are messages, which are one answer, and the roles of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.ingest.as_trace import question_of, trace_of
from firsthand.ingest.dialects.span_facts import said
from firsthand.ingest.dialects.span_outputs import answers_in
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.span_sender import stored_of
from firsthand.ingest.translate import content_of, facts_of
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult


def span(attributes: dict[str, Any], *events: tuple[str, dict[str, Any]]) -> IncomingSpan:
    made = IncomingSpan("1" * 32, "2" * 16, "", "call", 10, 20, attributes)
    made.events = [{"name": name, "at_ns": 1, "attributes": held} for name, held in events]
    return made


def a(text: str) -> Message:
    return Message("assistant", (Text(text),))


RECORDS: list[Any] = [
    {"question": "Capital?", "answer": "Paris", "confidence": 0.9},
    {"question": "Capital?", "sources": ["a.md"]},
    {"context": "c", "answer": "A", "text": "T"},
    {"sources": ["a.md"], "verdict": "so"},
    {"label": "spam", "message": "see rules", "score": 0.9},
    {"text": "T", "output": "O"},
    {"query": "only what was asked"},
    {"output": ["Paris", "Lyon"], "query": "q"},
    {"messages": ["a", "b"]},
    {"content": "c", "score": 1},
    {"data": [1, 2], "answer": "x"},
    {"role": "admin", "content": "x"},
    {"role": "user", "name": "Ada"},
    ["Paris", "Lyon", "Nice"],
    [1, 2, 3],
    [["a", "b"], ["c"]],
    [{"content": "of a document"}, {"content": "of another"}],
    [{"role": "assistant", "content": "x"}, 5],
    [],
    {},
]


@pytest.mark.parametrize("output", RECORDS, ids=json.dumps)
def test_an_output_that_is_no_messages_is_its_json(output: Any) -> None:
    written = json.dumps(output)
    assert answers_in(output) == answers_in(written) == [a(written)] == answers_in(output, of_model=True)
    for held in (
        {"openinference.span.kind": "CHAIN", "input.value": "Capital?", "output.value": written},
        {"langfuse.observation.type": "chain", "langfuse.observation.input": "Capital?",
         "langfuse.observation.output": written},
    ):  # fmt: skip
        made = stored_of(0, span(held))
        assert (question_of([made]), trace_of("t", [made]).answer) == ("Capital?", written)
        assert said(facts_of(made.span).output) == written


@pytest.mark.parametrize(
    "output",
    [
        {"query": "Capital?", "result": "Paris"}, {"input": "Capital?", "chat_history": [], "output": "Paris"},
        {"question": "Capital?", "answer": "Paris", "sources": ["a.md"]}, {"answer": "Paris", "sources": "a.md"},
        {"input": "Capital?", "context": [{"page_content": "Paris is."}], "answer": "Paris"},
        {"query": "Capital?", "result": "Paris", "source_documents": [{"page_content": "Paris is."}]},
        {"input": "Capital?", "output": "Paris", "intermediate_steps": [["a", "b"]]},
        {"answer": "Paris"}, {"text": "Paris"}, {"content": "Paris", "prompt": "p"},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_of_a_chain_s_output_with_what_it_was_asked_the_answer_is_taken_and_of_a_model_s_nothing_is(
    output: dict[str, Any],
) -> None:
    assert answers_in(output) == answers_in(json.dumps(output)) == [a("Paris")]
    assert answers_in(output, of_model=True) == [a(json.dumps(output))]
    for kind, other, answer in (("CHAIN", "agent", "Paris"), ("LLM", "generation", json.dumps(output))):
        for held in (
            {"openinference.span.kind": kind, "output.value": json.dumps(output)},
            {"langfuse.observation.type": other, "langfuse.observation.output": json.dumps(output)},
        ):
            assert content_of(span(held)).answered == [a(answer)] and said(facts_of(span(held)).output) == answer


def test_messages_are_found_in_the_outputs_of_each_provider() -> None:
    own = {"role": "assistant", "content": "Paris"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": 1}'}
    lc = {"lc": 1, "type": "constructor", "id": ["x", "AIMessage"], "kwargs": {"content": "Paris", "type": "ai"}}
    layouts: list[Any] = [
        own, [own], {"messages": [own], "steps": 3}, {"output": own, "input": "q"},
        {"id": "x", "choices": [{"index": 0, "finish_reason": "stop", "message": own}], "usage": {"total": 3}},
        {"choices": [{"index": 0, "message": {"content": "Paris"}}]},
        {"choices": [{"text": "Paris", "finish_reason": "stop"}]},
        {"generations": [[{"text": "Paris", "generation_info": None}]]},
        {"generations": [[{"text": "Paris", "message": lc}]]},
        {"model": "m", "done": True, "message": own}, lc, [[own]], {"type": "ai", "content": "Paris", "id": "1"},
        {"type": "AIMessageChunk", "content": "Paris", "response_metadata": {}},
        {"type": "ai", "data": {"content": "Paris"}},
        {"role": "model", "parts": [{"text": "Paris"}]}, [{"type": "text", "text": "Paris"}],
        {"content": [{"type": "text", "text": "Paris"}]}, {"role": "user", "content": "Paris"}, "Paris",
    ]  # fmt: skip
    for layout in layouts:
        assert answers_in(layout) == [a("Paris")] == answers_in(layout if layout == "Paris" else json.dumps(layout)), (
            layout
        )
    assert (
        answers_in("Paris") == [a("Paris")] and answers_in(None) == answers_in("") == [] and answers_in(0) == [a("0")]
    )
    called = ToolCall("c", "f", {"x": 1})
    response = {
        "object": "response",
        "output": [{"type": "reasoning", "content": "hm"}, call, {"type": "message", **own}],
    }
    assert answers_in(response)[1:] == [Message("assistant", (called,)), a("Paris")]
    assert answers_in(response)[0].parts == (Reasoning("hm", {}),)
    assert answers_in({"output": [call]}) == [Message("assistant", (called,))]
    told = [{"id": "c", "function": {"name": "f", "arguments": '{"x": 1}'}}]
    assert answers_in({"role": "assistant", "tool_calls": told}) == [Message("assistant", (called,))]


def test_a_choice_that_names_no_role_is_the_assistant_s() -> None:
    for held in (
        {"message": '{"content": "Paris."}', "index": 0}, {"message": "Paris.", "index": 0}, {"content": "Paris."},
        {"gen_ai.event.content": '{"index": 0, "finish_reason": "stop", "message": {"content": "Paris."}}'},
        {"gen_ai.event.content": '{"message": {"content": "Paris.", "role": null}}'},
        {"gen_ai.event.content": '{"message": {"content": "Paris."}, "role": "user"}'},
        {"message": '{"content": "Paris.", "role": "user"}'},
    ):  # fmt: skip
        asked = ("gen_ai.user.message", {"gen_ai.event.content": '{"message": {"content": "Capital?"}}'})
        system = ("gen_ai.system.message", {"message": '{"content": "be"}'})
        found = content_of(span({"gen_ai.system": "az.ai.inference"}, system, asked, ("gen_ai.choice", held)))
        assert found.answered == [a("Paris.")], held
        assert [(each.role, each.text) for each in found.asked] == [("system", "be"), ("user", "Capital?")]


LANGCHAIN = {"tags": [], "metadata": {"a": 1}, "kwargs": {"name": "x"}}
CHAT = [{"lc": 1, "id": ["HumanMessage"], "kwargs": {"content": "Q?"}}]
REPLY = [*CHAT, {"lc": 1, "id": ["AIMessage"], "kwargs": {"content": "Paris"}}]


@pytest.mark.parametrize(
    ("given", "came", "question", "answer"),
    [
        ({"args": ["Q?"], "kwargs": {}}, "Paris", "Q?", "Paris"),
        ({"args": [], "kwargs": {"question": "Q?", "k": 3}}, {"answer": "Paris", "question": "Q?"}, "Q?", "Paris"),
        ({"args": [CHAT]}, REPLY, "Q?", "Paris"),
        ({"args": ["Q?"], "kwargs": {"n": 3}}, ["x", "y"], '{"args": ["Q?"], "kwargs": {"n": 3}}', '["x", "y"]'),
        ({"args": ["a", "b"]}, 5, '{"args": ["a", "b"]}', "5"),
        ({"args": "Q?"}, {"outputs": 5, "n": 1}, '{"args": "Q?"}', '{"outputs": 5, "n": 1}'),
        ({"args": [], "kwargs": {}}, None, "", None),
        ({"inputs": {"question": "Q?"}} | LANGCHAIN, {"outputs": {"text": "Paris"}, "kwargs": {}}, "Q?", "Paris"),
        ({"inputs": {"messages": CHAT}} | LANGCHAIN, {"outputs": {"messages": REPLY}}, "Q?", "Paris"),
        ({"inputs": "Q?"}, {"outputs": "Paris"}, "Q?", "Paris"),
    ],
)
def test_a_workflow_of_traceloop_has_the_question_and_the_answer_of_its_trace(
    given: Any, came: Any, question: str, answer: str | None
) -> None:
    for kind in ("workflow", "task", "agent"):
        held = {"traceloop.span.kind": kind, "traceloop.entity.input": json.dumps(given)}
        made = stored_of(0, span(held | {"traceloop.entity.output": json.dumps(came)}))
        assert (question_of([made]), trace_of("t", [made]).answer) == (question, answer)
        if question and answer:
            told = facts_of(made.span)
            assert (said(told.input), said(told.output)) == (question, answer)


def test_texts_of_traceloop_that_are_no_json_stay() -> None:
    held = {"traceloop.span.kind": "workflow", "traceloop.entity.input": '"a" or "b"', "traceloop.entity.output": '"'}
    found = content_of(span(held))
    assert ([each.text for each in found.asked], found.answered) == (['"a" or "b"'], [a('"')])


def test_a_tool_s_message_answers_the_call_of_its_id() -> None:
    for held in (
        {"id": "c1", "content": "rain"}, {"gen_ai.event.content": '{"id": "c1", "content": "rain", "role": "tool"}'},
        {"id": "m1", "tool_call_id": "c1", "content": "rain"},
    ):  # fmt: skip
        (found,) = content_of(span({"gen_ai.system": "openai"}, ("gen_ai.tool.message", held))).asked
        assert found == Message("tool", (ToolResult("c1", "", "rain"),))


@pytest.mark.parametrize(("kind", "call"), [("GUARDRAIL", "guard"), ("EVALUATOR", "score"), ("CHAIN", None)])
def test_what_guards_and_evaluators_spent_is_in_the_trace_that_scorers_read(kind: str, call: str | None) -> None:
    held = {"openinference.span.kind": kind, "llm.token_count.prompt": 5, "llm.token_count.completion": 2}
    trace = trace_of("t", [stored_of(0, span(held))])
    assert [(each.kind, each.usage.total_tokens) for each in trace.calls] == ([(call, 7)] if call else [])
    assert len(trace.events) == 1 and type(trace).from_json(trace.to_json()) == trace
    assert trace_of("t", [stored_of(0, span({"openinference.span.kind": kind}))]).calls == ()
