"""Reads OpenLLMetry, the conventions of Traceloop: `traceloop.*` for workflows, `gen_ai.prompt.N.*` for messages."""

from __future__ import annotations

import json
from typing import Any

from firsthand.ingest.dialects.span_facts import (
    MAX_MESSAGES,
    SpanContent,
    SpanFacts,
    count_of_tokens,
    message,
    messages_in,
    one_message,
    parsed,
    preview,
    shown,
    text_of,
)
from firsthand.ingest.dialects.span_outputs import answers_in
from firsthand.ingest.incoming_span import IncomingSpan, SpanKind
from firsthand.message import Json, Message, Part, Text, ToolCall, ToolResult

_WHAT: dict[str, SpanKind] = {"workflow": "chain", "task": "chain", "agent": "agent", "tool": "tool"}
_REQUESTS: dict[str, SpanKind] = {
    "chat": "generate", "completion": "generate", "embedding": "embed", "embeddings": "embed", "rerank": "rerank",
}  # fmt: skip
_PROPERTIES = "traceloop.association.properties."
_INPUT, _OUTPUT = "traceloop.entity.input", "traceloop.entity.output"
_BESIDE = {"tags", "metadata", "kwargs"}
"""Keys beside `inputs` or `outputs`, as the instrumentation of LangChain writes them."""


def speaks(span: IncomingSpan) -> bool:
    """True if the span has attributes of Traceloop, or messages as it flattens them."""
    a = span.attributes
    return (
        "traceloop.span.kind" in a
        or "llm.request.type" in a
        or "gen_ai.prompt.0.role" in a
        or "gen_ai.completion.0.role" in a
        or any(name.startswith("traceloop.") for name in a)
    )


def facts(span: IncomingSpan) -> SpanFacts:
    """The columns of the span."""
    a = span.attributes
    what = _WHAT.get(str(a.get("traceloop.span.kind", "")).lower(), "span")
    if what == "span":
        what = _REQUESTS.get(str(a.get("llm.request.type", "")).lower(), "span")
    if what == "span" and "gen_ai.prompt.0.role" in a:
        what = "generate"
    found = SpanFacts(
        what,
        text_of(a, "gen_ai.response.model", "gen_ai.request.model", "llm.request.model"),
        count_of_tokens(a, "gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens", "llm.usage.prompt_tokens"),
        count_of_tokens(a, "gen_ai.usage.cache_read_input_tokens", "gen_ai.usage.cache_read.input_tokens"),
        count_of_tokens(a, "gen_ai.usage.completion_tokens", "gen_ai.usage.output_tokens", "llm.usage.completion_tokens"),
        session=text_of(
            a, f"{_PROPERTIES}session_id", f"{_PROPERTIES}session.id", f"{_PROPERTIES}thread_id",
            f"{_PROPERTIES}conversation_id", f"{_PROPERTIES}chat_id",
        ),
        user=text_of(a, f"{_PROPERTIES}user_id", f"{_PROPERTIES}user.id"),
        label=text_of(a, "traceloop.entity.name", "traceloop.workflow.name"),
    )  # fmt: skip
    found.input = lambda: preview(content(span).asked) or text_of(a, _INPUT)[:300]
    found.output = lambda: preview(content(span).answered) or text_of(a, _OUTPUT)[:300]
    return found


def content(span: IncomingSpan) -> SpanContent:
    """The messages and the tool call of the span."""
    a = span.attributes
    found = SpanContent(_messages(a, "gen_ai.prompt"), _messages(a, "gen_ai.completion"))
    if str(a.get("traceloop.span.kind", "")).lower() == "tool":
        found.tool = text_of(a, "traceloop.entity.name") or span.name
        found.arguments, found.result = parsed(a.get(_INPUT)), parsed(a.get(_OUTPUT))
        return found
    if not found.asked:
        found.asked = messages_in(_given(a.get(_INPUT)))
    if not found.answered:
        found.answered = answers_in(_within(a.get(_OUTPUT), "outputs"))
    return found


def _given(value: Any) -> Any:
    """The input of a workflow: its `inputs`, or the arguments of a decorated function; a single one without its list."""
    value = _within(value, "inputs")
    if isinstance(value, dict) and value.keys() <= {"args", "kwargs"}:
        args, named = value.get("args") or [], value.get("kwargs") or {}
        if not args:
            return named or None
        if isinstance(args, list) and len(args) == 1 and not named:
            return args[0]
    return value


def _within(value: Any, name: str) -> Any:
    """The value of an entity: JSON, also of a text alone, and what LangChain's instrumentation puts under one name."""
    value = parsed(value)
    if isinstance(value, str) and (value == "null" or value[:1] == value[-1:] == '"'):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return value[name] if isinstance(value, dict) and name in value and value.keys() <= _BESIDE | {name} else value


def _messages(a: Json, prefix: str) -> list[Message]:
    """Messages that are flattened as `PREFIX.N.role` and `PREFIX.N.content`."""
    found: list[Message] = []
    for number in range(MAX_MESSAGES):
        base = f"{prefix}.{number}."
        role, content = a.get(f"{base}role"), a.get(f"{base}content")
        parts: list[Part] = []
        calls = _tool_calls(a, base)
        if role is None and content is None and not calls:
            break
        role = role or ("assistant" if prefix.endswith("completion") else "user")
        inner = parsed(content)
        if isinstance(inner, list):
            place = {"tool_call_id": text_of(a, f"{base}tool_call_id"), "name": text_of(a, f"{base}name")}
            parts += one_message({"role": role, "content": inner, **place}).parts
        elif content not in (None, ""):
            parts.append(Text(shown(content)))
        if str(role).lower() == "tool" and not any(isinstance(part, ToolResult) for part in parts):
            said = "".join(part.text for part in parts if isinstance(part, Text))
            parts = [ToolResult(text_of(a, f"{base}tool_call_id"), text_of(a, f"{base}name"), said)]
        found.append(message(role, parts + calls))
    return found


def _tool_calls(a: Json, base: str) -> list[Part]:
    parts: list[Part] = []
    for number in range(MAX_MESSAGES):
        inner = f"{base}tool_calls.{number}."
        name = a.get(f"{inner}name")
        if name is None:
            break
        given: Any = parsed(a.get(f"{inner}arguments"))
        id = text_of(a, f"{inner}id")
        if isinstance(given, dict):
            parts.append(ToolCall(id, str(name), given))
        else:
            parts.append(ToolCall(id, str(name), {}, shown(given) if given else None))
    return parts
