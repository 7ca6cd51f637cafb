"""Reads OpenInference, the conventions of Phoenix: span kinds, flattened messages, token counts and costs, sessions and
users.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from firsthand.ingest.dialects.span_facts import (
    MAX_MESSAGES,
    SpanContent,
    SpanFacts,
    cost_in,
    count_of_tokens,
    message,
    messages_in,
    parsed,
    preview,
    shown,
    text_of,
    words_of,
)
from firsthand.ingest.dialects.span_outputs import answers_in, unquoted
from firsthand.ingest.incoming_span import IncomingSpan, SpanKind
from firsthand.message import Json, Message, Part, Text, ToolCall, ToolResult

_WHAT: dict[str, SpanKind] = {
    "LLM": "generate", "EMBEDDING": "embed", "CHAIN": "chain", "RETRIEVER": "retrieve", "RERANKER": "rerank",
    "TOOL": "tool", "AGENT": "agent", "PROMPT": "chain", "GUARDRAIL": "guard", "EVALUATOR": "evaluate",
}  # fmt: skip


def speaks(span: IncomingSpan) -> bool:
    """True if the span has OpenInference's kind."""
    return "openinference.span.kind" in span.attributes


def facts(span: IncomingSpan) -> SpanFacts:
    """The columns of the span."""
    a = span.attributes
    what = _WHAT.get(str(a.get("openinference.span.kind", "")).upper(), "span")
    found = SpanFacts(
        what,
        text_of(a, "llm.model_name", "embedding.model_name", "reranker.model_name"),
        count_of_tokens(a, "llm.token_count.prompt"),
        count_of_tokens(a, "llm.token_count.prompt_details.cache_read"),
        count_of_tokens(a, "llm.token_count.completion"),
        cost_in(a, "llm.cost.total"),
        text_of(a, "session.id"),
        text_of(a, "user.id"),
        text_of(a, "tool.name", "agent.name"),
        tags=words_of(a.get("tag.tags")),
    )
    if not found.cost_usd:
        found.cost_usd = cost_in(a, "llm.cost.prompt") + cost_in(a, "llm.cost.completion")
    if not found.prompt_tokens:  # of an embedding some instrumentations count the total alone
        found.prompt_tokens = max(0, count_of_tokens(a, "llm.token_count.total") - found.completion_tokens)
    found.input = lambda: preview(_messages(a, "llm.input_messages")) or _value_preview(a, "input")
    found.output = lambda: (
        preview(_messages(a, "llm.output_messages"))
        or _value_preview(a, "output", partial(answers_in, of_model=_is_of_model(a)))
        or _documents(a)[:300]
    )
    return found


def content(span: IncomingSpan) -> SpanContent:
    """The messages and the tool call of the span."""
    a = span.attributes
    found = SpanContent(_messages(a, "llm.input_messages"), _messages(a, "llm.output_messages"))
    if str(a.get("openinference.span.kind", "")).upper() == "TOOL":
        found.tool = text_of(a, "tool.name") or span.name
        found.arguments, found.result = parsed(_value(a, "input")), parsed(_value(a, "output"))
        found.call_id = text_of(a, "tool_call.id", "tool.id")
        return found
    if not found.asked and a.get("llm.prompts"):
        found.asked = messages_in(a["llm.prompts"])
    if not found.asked and a.get("input.value"):
        found.asked = messages_in(_value(a, "input"))
    if not found.answered and a.get("output.value"):
        found.answered = answers_in(_value(a, "output"), of_model=_is_of_model(a))
    if not found.answered and (documents := _documents(a)):
        found.result = documents
    return found


def _documents(a: Json) -> str:
    """The texts of the documents that a retriever or a reranker found, the best first, parted by blank lines."""
    for prefix in ("reranker.output_documents", "retrieval.documents"):
        found = []
        for number in range(MAX_MESSAGES):
            base = f"{prefix}.{number}.document."
            if (said := a.get(f"{base}content")) is None:
                if not any(f"{base}{name}" in a for name in ("id", "score", "metadata")):
                    break
                said = text_of(a, f"{base}id")  # a document may be named alone
            found.append(shown(said))
        if found:
            return "\n\n".join(found)
    return ""


def _messages(a: Json, prefix: str) -> list[Message]:
    """Messages that are flattened as `PREFIX.N.message.FIELD`."""
    found: list[Message] = []
    for number in range(MAX_MESSAGES):
        base = f"{prefix}.{number}.message."
        role = a.get(f"{base}role")
        parts: list[Part] = []
        content = a.get(f"{base}content")
        if content not in (None, ""):
            parts.append(Text(shown(content)))
        parts += _contents(a, base)
        if str(role).lower() == "tool" and parts:
            said = "".join(part.text for part in parts if isinstance(part, Text))
            parts = [ToolResult(text_of(a, f"{base}tool_call_id"), text_of(a, f"{base}name"), said)]
        parts += _tool_calls(a, base)
        if role is None and not parts:
            break
        found.append(message(role, parts))
    return found


def _contents(a: Json, base: str) -> list[Part]:
    parts: list[Part] = []
    for number in range(MAX_MESSAGES):
        inner = f"{base}contents.{number}.message_content."
        said = a.get(f"{inner}text")
        if said is not None:
            parts.append(Text(shown(said)))
        elif (kind := a.get(f"{inner}type")) is not None:
            parts.append(Text(f"[{kind}: {text_of(a, f'{inner}image.image.url')[:200]}]"))
        else:
            break
    return parts


def _tool_calls(a: Json, base: str) -> list[Part]:
    parts: list[Part] = []
    for number in range(MAX_MESSAGES):
        inner = f"{base}tool_calls.{number}.tool_call."
        name = a.get(f"{inner}function.name")
        if name is None and a.get(f"{inner}id") is None:
            break
        given: Any = parsed(a.get(f"{inner}function.arguments"))
        id = text_of(a, f"{inner}id")
        if isinstance(given, dict):
            parts.append(ToolCall(id, str(name or ""), given))
        else:
            parts.append(ToolCall(id, str(name or ""), {}, shown(given) if given else None))
    return parts


def _is_of_model(a: Json) -> bool:
    return str(a.get("openinference.span.kind", "")).upper() == "LLM"


def _value(a: Json, name: str) -> Any:
    """The input or output of a span; a text without the quotation marks that it has where it is said to be JSON."""
    value = a.get(f"{name}.value")
    return unquoted(value) if a.get(f"{name}.mime_type") == "application/json" else value


def _value_preview(a: Json, name: str, read: Callable[[Any], list[Message]] = messages_in) -> str:
    value = _value(a, name)
    if not isinstance(value, str):
        return shown(value)[:300] if value is not None else ""
    if len(value) < 20_000 and value[:1] in ("{", "["):
        return preview(read(value)) or value[:300]
    return value[:300]
