"""Reads OpenTelemetry's semantic conventions for generative AI, of the releases before and after their own repository.

Messages come as attributes (`gen_ai.input.messages`), as events of the span
(`gen_ai.client.inference.operation.details`), or, from older instrumentations, as one event each
(`gen_ai.user.message`, `gen_ai.choice`).
"""

from __future__ import annotations

from firsthand.ingest.dialects.span_facts import (
    SpanContent,
    SpanFacts,
    cost_in,
    count_of_tokens,
    messages_in,
    one_message,
    parsed,
    preview,
    text_of,
)
from firsthand.ingest.dialects.span_outputs import answers_in
from firsthand.ingest.incoming_span import IncomingSpan, SpanKind
from firsthand.message import Json, Message

_WHAT: dict[str, SpanKind] = {
    "chat": "generate", "generate_content": "generate", "text_completion": "generate", "completion": "generate",
    "embeddings": "embed", "retrieval": "retrieve", "execute_tool": "tool", "create_agent": "agent", "invoke_agent": "agent",
    "invoke_workflow": "chain", "plan": "chain", "guard": "guard",
}  # fmt: skip
_EVENTS = {
    "gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}  # fmt: skip
_DETAILS = "gen_ai.client.inference.operation.details"


def speaks(span: IncomingSpan) -> bool:
    """True if the span has attributes of these conventions."""
    a = span.attributes
    return "gen_ai.operation.name" in a or "gen_ai.system" in a or "gen_ai.provider.name" in a


def facts(span: IncomingSpan) -> SpanFacts:
    """The columns of the span."""
    a = span.attributes
    name = str(a.get("gen_ai.operation.name", ""))
    what = _WHAT.get(name, "span")
    if what == "span" and "gen_ai.usage.input_tokens" in a and "gen_ai.request.model" in a:
        what = "generate"
    if "memory" in name:
        what = "tool"
    found = SpanFacts(
        what,
        text_of(a, "gen_ai.response.model", "gen_ai.request.model"),
        count_of_tokens(a, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        count_of_tokens(a, "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
        count_of_tokens(a, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        cost_in(a, "firsthand.usage.cost_usd", "gen_ai.usage.cost", "gen_ai.usage.total_cost", "operation.cost"),
        text_of(a, "gen_ai.conversation.id", "session.id"),
        text_of(a, "user.id", "enduser.id"),
        text_of(a, "gen_ai.tool.name", "gen_ai.agent.name"),
    )
    if what == "tool":
        found.input = text_of(a, "gen_ai.tool.call.arguments")[:300]
        found.output = text_of(a, "gen_ai.tool.call.result")[:300]
    elif span.events or "gen_ai.input.messages" in a or "gen_ai.output.messages" in a:
        found.input = lambda: preview(content(span).asked)
        found.output = lambda: preview(content(span).answered)
    return found


def content(span: IncomingSpan) -> SpanContent:
    """The messages and the tool call of the span."""
    a = span.attributes
    found = SpanContent(
        tool=text_of(a, "gen_ai.tool.name"),
        arguments=parsed(a.get("gen_ai.tool.call.arguments")),
        result=parsed(a.get("gen_ai.tool.call.result")),
        call_id=text_of(a, "gen_ai.tool.call.id"),
    )
    _add(found, a)
    for event in span.events:
        held = event.get("attributes") or {}
        name = str(event.get("name", ""))
        if name == _DETAILS:
            _add(found, held)
        elif name == "gen_ai.choice":
            found.answered.append(_assistants(_of_event("assistant", held)))
        elif name in _EVENTS:
            found.asked.append(_of_event(_EVENTS[name], held))
        elif name == "gen_ai.content.prompt":
            found.asked += messages_in(held.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            found.answered += answers_in(held.get("gen_ai.completion"), of_model=True)
    return found


def _add(found: SpanContent, a: Json) -> None:
    instructions = parsed(a.get("gen_ai.system_instructions"))
    if instructions:
        found.asked.append(one_message({"role": "system", "parts": instructions}))
    if a.get("gen_ai.input.messages"):
        found.asked += messages_in(a["gen_ai.input.messages"])
    if a.get("gen_ai.output.messages"):
        found.answered += [_assistants(each) for each in messages_in(a["gen_ai.output.messages"])]


def _assistants(said: Message) -> Message:
    return Message("assistant", said.parts) if said.role == "user" else said


def _of_event(role: str, held: Json) -> Message:
    """The message of an event: its body, or the one within it, which need not say its role."""
    body: Json = {name: parsed(value) for name, value in held.items()}
    if "content" not in body and "gen_ai.event.content" in body:
        inner = body["gen_ai.event.content"]
        body = inner if isinstance(inner, dict) else body | {"content": inner}
    said = body.get("message")
    if isinstance(said, dict):
        body = said
    elif isinstance(said, str) and "content" not in body:
        body = body | {"content": said}
    if role == "tool" and not body.get("tool_call_id"):
        body = body | {"tool_call_id": body.get("id")}
    return one_message(body | {"role": body.get("role") or role})
