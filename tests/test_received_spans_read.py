"""Odd spans read by each dialect: zeros given on purpose, several names at once, gaps in numbers, cut values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.ingest.dialects import (
    genai_dialect,
    langfuse_dialect,
    openinference_dialect,
    openllmetry_dialect,
    span_facts,
)
from firsthand.ingest.dialects.span_facts import SpanFacts, first_of, messages_in, one_message, preview, said
from firsthand.ingest.incoming_span import IncomingSpan, SpanKind, StoredSpan
from firsthand.ingest.translate import content_of, dialects_of, facts_of
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Usage

T, S = "a" * 32, "b" * 16


def span(attributes: dict[str, Any], events: Any = (), name: str = "call", **more: Any) -> IncomingSpan:
    return IncomingSpan(T, S, "", name, 10, 20, attributes, list(events), **more)


def stored(id: str, what: SpanKind, parent: str = "", start: int = 0, **more: Any) -> StoredSpan:
    usage = more.pop("usage", Usage())
    made = IncomingSpan(
        "t", id, parent, f"n{id}", start, more.pop("end", start + 5), more.pop("attributes", {}), **more
    )
    return StoredSpan(int(id, 16), made, what, usage=usage)


def chat(asked: Any, answered: Any = None) -> dict[str, Any]:
    told = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(asked)}
    return told if answered is None else told | {"gen_ai.output.messages": json.dumps(answered)}


# -- dialects --


def test_langfuse_believes_zeros_and_counts_what_it_is_given() -> None:
    def facts(**attributes: Any) -> SpanFacts:
        return langfuse_dialect.facts(span({f"langfuse.observation.{name}": held for name, held in attributes.items()}))

    free = facts(
        type="GENERATION", cost_details='{"total": 0, "input": 2.5}', usage_details={"input": 0, "prompt_tokens": 7}
    )
    assert (free.what, free.cost_usd, free.prompt_tokens) == ("generate", 0, 0)
    summed = facts(type="x", cost_details={"input": "0.25", "output": 1, "bad": -1, "none": None}, level="error")
    assert (summed.what, summed.cost_usd, summed.error) == ("span", 1.25, "")
    counted = facts(usage_details={"prompt_tokens": 3, "input_tokens": 4, "output_tokens": 6, "input_cache_read": 2})
    assert (counted.prompt_tokens, counted.cached_tokens, counted.completion_tokens) == (5, 2, 6)
    for given, shown in ((0, "0"), (False, "false"), ([], "[]"), ('"é"', "é"), ('"cut', '"cut'),
        ('"1" + "2"', '"1" + "2"'),
                         ('{"a": 1}', '{"a": 1}'), ("[]", "[]"), ("x" * 301, "x" * 300)):  # fmt: skip
        assert said(facts(type="span", input=given).input) == shown, given
    fallback = {"langfuse.trace.input": "trace's", "langfuse.observation.input": "", "langfuse.trace.tags": '["a", 1]'}
    assert said(langfuse_dialect.facts(span(fallback)).input) == "trace's"
    assert langfuse_dialect.facts(span(fallback)).tags == ("a", "1")
    assert langfuse_dialect.content(span(fallback)).asked == [], "an input that is there and empty is the input"
    tool = langfuse_dialect.content(
        span({"langfuse.observation.type": "Tool", "langfuse.observation.input": "[1"}, name="t")
    )
    assert (tool.tool, tool.arguments, tool.result, tool.asked) == ("t", "[1", None, [])
    assert langfuse_dialect.speaks(span({"x": 1, "langfuse.": 2})) and not langfuse_dialect.speaks(
        span({"langfuse": 1})
    )


def test_openinference_adds_costs_and_reads_calls_by_name_or_id() -> None:
    base = "llm.output_messages.0.message."
    given = {
        "openinference.span.kind": "llm", "llm.cost.prompt": "0.5", "llm.cost.completion": 0.25, "tag.tags": ["x", "y"],
        f"{base}role": "assistant", f"{base}content": 0, f"{base}tool_calls.0.tool_call.id": "i0",
        f"{base}tool_calls.1.tool_call.function.name": "f", f"{base}tool_calls.1.tool_call.function.arguments": "{bad",
        f"{base}tool_calls.3.tool_call.function.name": "lost", f"{base}contents.0.message_content.type": "image",
        f"{base}contents.0.message_content.image.image.url": "u" * 201, f"{base}contents.1.message_content.text": "",
        f"{base}contents.2.message_content.text": "t", "llm.output_messages.2.message.role": "user",
            "output.value": "[1]",
        "input.value": '{"question": "why?"}', "llm.prompts": "[]",
    }  # fmt: skip
    facts = openinference_dialect.facts(span(given))
    assert (facts.what, facts.cost_usd, facts.tags) == ("generate", 0.75, ("x", "y"))
    content = openinference_dialect.content(span(given))
    parts = [
        Text("0"),
        Text(f"[image: {'u' * 200}]"),
        Text(""),
        Text("t"),
        ToolCall("i0", "", {}),
        ToolCall("", "f", {}, "{bad"),
    ]
    assert content.answered == [Message("assistant", tuple(parts))] and content.asked == [user("why?")]
    assert openinference_dialect.facts(span(given | {"llm.cost.total": 0.125})).cost_usd == 0.125
    values = {
        "openinference.span.kind": "CHAIN",
        "output.value": '[{"role": "user", "content": "so"}]',
        "input.value": 0,
    }
    content = openinference_dialect.content(span(values))
    assert content.answered == [assistant("so")] and content.asked == []
    facts = openinference_dialect.facts(span(values))
    assert (said(facts.input), said(facts.output)) == ("0", "so")
    tool = {"openinference.span.kind": "tool", "input.value": "", "output.value": 0, "tool.id": 7, "llm.prompts": "p"}
    found = openinference_dialect.content(span(tool, name="named"))
    assert (found.tool, found.arguments, found.result, found.call_id, found.asked) == ("named", "", 0, "7", [])
    answer = {"llm.input_messages.0.message.role": "tool", "llm.input_messages.0.message.content": "4",
              "llm.input_messages.0.message.tool_call_id": "c", "llm.input_messages.0.message.name": "n"}  # fmt: skip
    assert openinference_dialect.content(span(answer)).asked == [Message("tool", (ToolResult("c", "n", "4"),))]


def test_openllmetry_s_calls_alone_are_a_message() -> None:
    given = {
        "gen_ai.prompt.0.tool_calls.0.name": "f", "gen_ai.prompt.0.tool_calls.0.arguments": '{"a": 1}',
        "gen_ai.prompt.0.tool_calls.0.id": "c1", "gen_ai.prompt.0.tool_calls.1.name": "g", "gen_ai.prompt.1.content": 0,
        "gen_ai.prompt.2.role": "tool", "gen_ai.prompt.2.content": '[{"type": "text", "text": "4"}, "5"]',
        "gen_ai.prompt.2.tool_call_id": "c1", "gen_ai.prompt.4.role": "user", "gen_ai.completion.0.content": "yes",
        "llm.usage.prompt_tokens": 9, "gen_ai.usage.input_tokens": 0, "llm.request.type": "Rerank",
        "traceloop.association.properties.thread_id": "th", "traceloop.association.properties.user.id": 5,
    }  # fmt: skip
    content = openllmetry_dialect.content(span(given))
    assert content.asked == [
        Message("user", (ToolCall("c1", "f", {"a": 1}), ToolCall("", "g", {}, None))), user("0"),
        Message("tool", (ToolResult("c1", "", "45"),)),
    ]  # fmt: skip
    assert content.answered == [assistant("yes")] and content.tool == "" and content.arguments is None
    facts = openllmetry_dialect.facts(span(given))
    assert (facts.what, facts.prompt_tokens, facts.session, facts.user) == ("rerank", 0, "th", "5")
    assert openllmetry_dialect.facts(span(given | {"traceloop.span.kind": "TASK"})).what == "chain"
    tool = {"traceloop.span.kind": "Tool", "traceloop.entity.input": "[]", "traceloop.entity.output": 0}
    found = openllmetry_dialect.content(span(tool, name="named"))
    assert (found.tool, found.arguments, found.result) == ("named", [], 0)
    assert said(openllmetry_dialect.facts(span(tool)).input) == "[]"
    plain = {"gen_ai.prompt.0.role": "user"}
    for key, value, what in (("traceloop.span.kind", "agent", "agent"), ("traceloop.span.kind", "tool", "tool"),
                             ("traceloop.span.kind", "Workflow", "chain"), ("traceloop.span.kind", "other", "generate"),
                             ("llm.request.type", "embedding", "embed"), ("llm.request.type", "Rerank", "rerank"),
                             ("llm.request.type", "other", "generate")):  # fmt: skip
        assert openllmetry_dialect.facts(span(plain | {key: value})).what == what, "prompts tell the kind of no other"
    both = {"traceloop.span.kind": "task", "llm.request.type": "chat"}
    assert openllmetry_dialect.facts(span(both)).what == "chain"
    assert openllmetry_dialect.facts(span({"gen_ai.completion.0.role": "assistant"})).what == "span"
    assert openllmetry_dialect.facts(span(plain)).what == "generate" and dialects_of(span(plain)) == ("OpenLLMetry",)


def test_genai_s_tools_are_those_that_execute_or_remember() -> None:
    def facts(name: str, **more: Any) -> SpanFacts:
        return genai_dialect.facts(
            span({"gen_ai.operation.name": name, **{key.replace("__", "."): v for key, v in more.items()}})
        )

    call = {
        "gen_ai__tool__call__arguments": "a" * 301,
        "gen_ai__tool__call__result": "r" * 301,
        "gen_ai__tool__name": "t",
    }
    for name, what in (
        ("update_memory", "tool"),
        ("memory", "tool"),
        ("execute_tool", "tool"),
        ("guard", "guard"),
        ("x", "span"),
    ):
        found = facts(name, **call)
        shown = ("a" * 300, "r" * 300) if what == "tool" else ("", "")
        assert (found.what, found.input, found.output, found.label) == (what, *shown, "t"), name
    usage = {"gen_ai__usage__input_tokens": 0, "gen_ai__usage__prompt_tokens": 5, "gen_ai__request__model": "m"}
    found = facts("x", gen_ai__response__model="", gen_ai__usage__cost=0.0, operation__cost=2, **usage)
    assert (found.what, found.prompt_tokens, found.model, found.cost_usd) == ("generate", 0, "m", 0.0)
    events = [
        {"name": "gen_ai.user.message", "attributes": {"content": "q", "role": "human"}},
        {"name": "gen_ai.tool.message", "attributes": {"content": "4", "id": "c"}}, {"name": "other",
            "attributes": {"content": "x"}},
        {"name": "gen_ai.assistant.message", "attributes": {"gen_ai.event.content": '{"content": "hm"}'}},
        {"name": "gen_ai.system.message", "attributes": {"gen_ai.event.content": "be"}},
        {"name": "gen_ai.choice", "attributes": {"message": '{"content": "so"}', "index": 0}},
        {"name": "gen_ai.choice",
            "attributes": {"gen_ai.event.content": '{"message": {"content": "2"}, "role": "user"}'}},
        {"name": "gen_ai.content.prompt", "attributes": {"gen_ai.prompt": "last"}},
        {"name": "gen_ai.content.completion",
            "attributes": {"gen_ai.completion": '[{"role": "user", "content": "end"}]'}},
        {"name": "gen_ai.system.message"},
    ]  # fmt: skip
    content = genai_dialect.content(span({"gen_ai.system_instructions": '[{"type": "text", "content": "be"}]'}, events))
    assert content.asked == [
        system("be"), user("q"), Message("tool", (ToolResult("c", "", "4"),)), assistant("hm"), system("be"),
            user("last"), Message("system",
            (Text(""),)),
    ]  # fmt: skip
    assert [(each.role, each.text) for each in content.answered] == [
        ("assistant", "so"),
        ("assistant", "2"),
        ("assistant", "end"),
    ]


def test_a_second_dialect_fills_what_the_first_leaves_open_alone() -> None:
    both = span({
        "langfuse.observation.type": "tool", "langfuse.observation.output": "[]", "gen_ai.operation.name": "chat",
        "gen_ai.tool.call.arguments": '{"a": 1}', "gen_ai.tool.call.result": '{"b": 2}', "gen_ai.tool.name": "other",
        "gen_ai.tool.call.id": "g", "openinference.span.kind": "TOOL", "tool_call.id": "o", "enduser.id": 7,
        "gen_ai.conversation.id": "c", "llm.token_count.prompt": 3, "gen_ai.usage.input_tokens": 4,
            "gen_ai.usage.output_tokens": 5,
    }, name="own")  # fmt: skip
    content = content_of(both)
    assert (content.tool, content.arguments, content.result, content.call_id) == ("own", {"a": 1}, [], "o")
    facts = facts_of(both)
    assert (facts.what, facts.prompt_tokens, facts.completion_tokens, facts.session, facts.user) == (
        "tool",
        3,
        5,
        "c",
        "7",
    )
    assert dialects_of(both) == ("Langfuse", "OpenInference", "GenAI") and dialects_of(span({})) == ()
    assert facts_of(span({"session.id": "", "gen_ai.conversation.id": "c", "user.id": True})).session == "c"
    told = facts_of(
        span({"openinference.span.kind": "LLM", "session.id": "s", "enduser.id": "e", "gen_ai.conversation.id": "c"})
    )
    assert (told.session, told.user) == ("s", "e")
    late = first_of(lambda: "", lambda: "b")
    assert (
        said(late) == "b"
        and first_of("", "b") == "b"
        and first_of("a", lambda: "b") == "a"
        and said(lambda: 1 / 0) == ""
    )  # type: ignore[arg-type,return-value]
    filled = SpanFacts("span", "", 0, 4, error="")
    filled.filled_from(SpanFacts("tool", "m", 3, 9, error="told", tags=("x",)))
    assert filled == SpanFacts("tool", "m", 3, 4, error="told", tags=("x",))


def test_messages_are_read_wherever_they_lie() -> None:
    assert messages_in({"messages": [], "input": [{"role": "ai", "content": "x"}]}) == [assistant("x")]
    assert messages_in([]) == messages_in("") == messages_in(None) == [] and messages_in(0) == [user("0")]
    assert messages_in([[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]) == [user("a")]
    assert messages_in({"args": ["q"], "kwargs": {}}) == [user("q")] and messages_in({"args": ["q", "r"]}) == [
        user('{"args": ["q", "r"]}')
    ]
    both = {"args": ["q"], "kwargs": {"k": 1}, "query": "that", "input": "this"}
    assert messages_in(both) == [user(json.dumps(both))]
    assert messages_in({"message": {"content": "m"}}) == [user("m")] and messages_in({"message": "m"}) == [user("m")]
    body = {"role": "function", "content": [{"type": "text", "text": "1"}, "2"], "name": "n", "tool_call_id": "c"}
    assert one_message(body) == Message("tool", (ToolResult("c", "n", "12"),))
    calls = {
        "role": "assistant",
        "content": None,
        "tool_calls": ["bad", {"id": "i", "function": {"name": "f", "arguments": "{}"}}],
    }
    assert one_message(calls) == Message("assistant", (ToolCall("i", "f", {}),))
    both = {"type": "tool_result", "response": 0, "result": 1, "tool_use_id": "u", "is_error": 1}
    assert one_message({"role": "user", "parts": [both]}) == Message("user", (ToolResult("u", "", "0", True),))
    thought = {
        "role": "model",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "x", "text": "y"}, {"text": "z"}],
    }
    assert one_message(thought) == Message(
        "assistant", (Reasoning("hm", {}), Text('{"type": "x", "text": "y"}'), Text("z"))
    )
    chunk = {"lc": 1, "id": ["a", "AIMessageChunk"], "kwargs": {"content": "c"}}
    assert one_message(chunk) == assistant("c") and one_message(
        {"lc": 1, "id": [], "kwargs": {"content": "c"}}
    ) == user("c")
    assert one_message({"type": "human", "data": {"content": "d"}}) == user("d")
    say = Message("assistant", (ToolCall("", "f", {"é": 1}), ToolCall("", "g", {})))
    assert (
        preview([user("a"), say, Message("user", (Text(" \n"),))]) == 'f({"é": 1})'
        and preview([user(" ab "), say], 3) == "f({"
    )
    assert preview([user(" abcd ")], 3) == "abc" and preview([]) == ""


def test_of_too_many_messages_the_last_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_facts, "MAX_MESSAGES", 2)
    assert messages_in([{"content": "a"}, {"content": "b"}, {"content": "c"}]) == [user("b"), user("c")]
