"""Maps requests, answers and messages to OpenTelemetry's semantic conventions for generative AI.

Attribute names are those of open-telemetry/semantic-conventions 1.41.0, the last release that holds them; their new
repository, open-telemetry/semantic-conventions-genai, has kept the ones used here (read in November 2026). All are still in
development, so no other file uses them. Attributes without a standard name begin with `firsthand.`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from firsthand.message import Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from firsthand.model import Usage

Value = str | int | float | bool | list[str]
Attributes = dict[str, Value]

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
MAX_CONTENT_CHARS = 1 << 16
"""Max characters of messages in one attribute: the queue of spans is bounded by number, not by size."""
MAX_NAME_CHARS = 1024
MAX_LIST_VALUES = 128
PROVIDER = "firsthand"
_SETTINGS: tuple[tuple[str, type[int] | type[float], float | None], ...] = (
    ("max_tokens", int, None),
    ("temperature", float, None),
    ("top_p", float, None),
    ("top_k", int, 0),
    ("frequency_penalty", float, 0.0),
    ("presence_penalty", float, 0.0),
    ("seed", int, None),
)
"""A setting, its type in the conventions, and the value that means unset."""
_REASONS = {"tool_calls": "tool_call"}
"""Finish reasons under another name in the conventions."""


def captures_content(environment: Mapping[str, str]) -> bool:
    """True if messages are to be recorded. `event_only` records none, since these spans have no events for messages."""
    return environment.get(CAPTURE, "").strip().lower() in ("true", "1", "span_only", "span_and_event")


def operation(name: str, model: str | None = None) -> Attributes:
    """The attributes of every span."""
    found: Attributes = {"gen_ai.operation.name": name, "gen_ai.provider.name": PROVIDER}
    return found if model is None else found | {"gen_ai.request.model": clean(model)}


def request(settings: Mapping[str, Any], *, n: int = 1, stream: bool = False) -> Attributes:
    """The request's settings, from a Sampling's JSON, without those that have no effect."""
    found: Attributes = {}
    for name, kind, least in _SETTINGS:
        value = settings.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value != least and abs(value) < 2**63:
            found[f"gen_ai.request.{name}"] = kind(value)
    if stop := settings.get("stop"):
        found["gen_ai.request.stop_sequences"] = [clean(str(each)) for each in stop]
    if n != 1:
        found["gen_ai.request.choice.count"] = n
    if stream:
        found["gen_ai.request.stream"] = True
    if (settings.get("grammar") or {}).get("kind") == "json_schema":
        found["gen_ai.output.type"] = "json"
    return found


def usage(spent: Usage) -> Attributes:
    """Tokens and cost of an answer."""
    found: Attributes = {
        "gen_ai.usage.input_tokens": spent.prompt_tokens,
        "gen_ai.usage.output_tokens": spent.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": spent.cached_tokens,
    }
    if spent.cache_write_tokens:
        found["gen_ai.usage.cache_creation.input_tokens"] = spent.cache_write_tokens
    return found | {"firsthand.usage.cost_usd": spent.cost_usd} if spent.cost_usd else found


def prompt(asked: str | Sequence[Message]) -> Attributes:
    """The prompt as messages; plain text becomes a user message."""
    messages = [Message("user", (Text(asked),))] if isinstance(asked, str) else asked
    return {"gen_ai.input.messages": _json([_message(each) for each in messages])}


def answers(told: Sequence[tuple[Message, str]]) -> Attributes:
    """The answers as messages with their finish reasons."""
    messages = [_message(message) | {"finish_reason": _REASONS.get(reason, reason)} for message, reason in told]
    return {"gen_ai.output.messages": _json(messages)}


def tool(name: str, *, id: str | None = None) -> Attributes:
    """Name and call id of a tool."""
    found: Attributes = {"gen_ai.tool.name": clean(name)[:256], "gen_ai.tool.type": "function"}
    return found if id is None else found | {"gen_ai.tool.call.id": clean(id)[:256]}


def tool_content(arguments: object, result: object) -> Attributes:
    """Arguments and result of a tool call."""
    shown = {"gen_ai.tool.call.arguments": arguments, "gen_ai.tool.call.result": result}
    return {name: _json(value) for name, value in shown.items() if value is not None}


def clean(text: str) -> str:
    """The text without lone surrogates, which would make a whole batch of spans fail to encode."""
    return text.encode("utf-8", "replace").decode()


def exportable(attributes: Attributes) -> Attributes:
    """The attributes as OTLP can hold them: one that cannot be encoded would lose its whole batch of spans."""
    return {label(name): _exportable(value) for name, value in attributes.items()}


def label(name: str) -> str:
    """A name of a span, an event or an attribute, within the limit."""
    return clean(name[:MAX_NAME_CHARS])


def _exportable(value: Value) -> Value:
    if isinstance(value, str):
        return clean(value[:MAX_CONTENT_CHARS])
    if isinstance(value, list):
        return [label(each) for each in value[:MAX_LIST_VALUES]]
    is_too_large = isinstance(value, int) and not -(2**63) <= value < 2**63
    return (str(value) if abs(value) < 2**256 else "too large") if is_too_large else value


def _message(message: Message) -> Json:
    return {"role": message.role, "parts": [_part(part) for part in message.parts]}


def _part(part: Part) -> Json:
    match part:
        case Text(text):
            return {"type": "text", "content": text}
        case ToolCall(id, name, arguments, invalid):
            given = arguments if invalid is None else invalid
            return {"type": "tool_call", "id": id, "name": name, "arguments": given}
        case ToolResult(call_id=id, content=content):
            return {"type": "tool_call_response", "id": id, "response": content}
        case Reasoning(text):
            return {"type": "reasoning", "content": text}


def _json(value: object) -> str:
    """JSON within the limit: the newest messages are kept, and of a message that is too long its beginning."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > MAX_CONTENT_CHARS and isinstance(value, list):
        value = _newest(value)
        text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > MAX_CONTENT_CHARS:
        text = json.dumps(text[: MAX_CONTENT_CHARS // 2] + "…", ensure_ascii=False)
    return clean(text)


def _newest(messages: list[Json]) -> list[Json]:
    """The last messages that fit together; a last one that does not fit alone has its texts cut."""
    kept: list[Json] = []
    left = MAX_CONTENT_CHARS - 64
    for message in reversed(messages):
        size = len(json.dumps(message, ensure_ascii=False, default=str)) + 2
        if size > left:
            break
        left -= size
        kept.insert(0, message)
    if kept:
        return kept
    parts = messages[-1]["parts"]
    share = MAX_CONTENT_CHARS // (4 * max(len(parts), 1))  # quotes and line ends take two characters each
    short = [
        {key: value[:share] + "…" if isinstance(value, str) and len(value) > share else value for key, value in part.items()}
        for part in parts
    ]  # fmt: skip
    return [{**messages[-1], "parts": short}]
