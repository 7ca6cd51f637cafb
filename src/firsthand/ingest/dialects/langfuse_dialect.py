"""Reads Langfuse's attributes of OpenTelemetry spans: `langfuse.observation.*` and `langfuse.trace.*`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from firsthand.ingest.dialects.span_facts import (
    MOST_TOKENS,
    SpanContent,
    SpanFacts,
    count_of_tokens,
    messages_in,
    number_of,
    parsed,
    preview,
    shown,
    text_of,
    words_of,
)
from firsthand.ingest.dialects.span_outputs import answers_in, unquoted
from firsthand.ingest.incoming_span import IncomingSpan, SpanKind
from firsthand.message import Json, Message

_WHAT: dict[str, SpanKind] = {
    "generation": "generate", "embedding": "embed", "tool": "tool", "retriever": "retrieve", "agent": "agent",
    "chain": "chain", "guardrail": "guard", "evaluator": "evaluate", "span": "span", "event": "span",
}  # fmt: skip
_PROMPT = ("input", "prompt_tokens", "input_tokens")
_COMPLETION = ("output", "completion_tokens", "output_tokens")
_CACHED = ("cache_read_input_tokens", "input_cached_tokens", "input_cache_read")
_INPUT, _OUTPUT = "langfuse.observation.input", "langfuse.observation.output"
_OF_TRACE = ("langfuse.trace.input", "langfuse.trace.output")
_SDK = "langfuse-sdk"
"""The scope of spans of Langfuse's own SDKs, which send a text as it is; others may send texts as JSON."""


def speaks(span: IncomingSpan) -> bool:
    """True if the span has attributes of Langfuse."""
    a = span.attributes
    return "langfuse.observation.type" in a or any(name.startswith("langfuse.") for name in a)


def facts(span: IncomingSpan) -> SpanFacts:
    """The columns of the span."""
    a = span.attributes
    what = _WHAT.get(str(a.get("langfuse.observation.type", "")).lower(), "span")
    usage, cost = _counts(a, "langfuse.observation.usage_details"), _counts(a, "langfuse.observation.cost_details")
    cached = count_of_tokens(usage, *_CACHED) or _nested_cached(a)
    prompt, completion = _whole_counts(usage, cached)
    found = SpanFacts(
        what,
        text_of(a, "langfuse.observation.model.name"),
        prompt,
        cached,
        completion,
        min(cost.get("total", sum(cost.values())), 1e12),
        text_of(a, "session.id", "langfuse.session.id"),
        text_of(a, "user.id", "langfuse.user.id"),
        tags=words_of(a.get("langfuse.trace.tags")),
    )
    if str(a.get("langfuse.observation.level", "")).upper() == "ERROR":
        found.error = text_of(a, "langfuse.observation.status_message")
    found.input = lambda: _shown(_given(span, _INPUT, _OF_TRACE[0]))
    read = partial(answers_in, of_model=what == "generate")
    found.output = lambda: _shown(_given(span, _OUTPUT, _OF_TRACE[1]), read=read)
    return found


def content(span: IncomingSpan) -> SpanContent:
    """The messages and the tool call of the span."""
    a = span.attributes
    kind = str(a.get("langfuse.observation.type", "")).lower()
    if kind == "tool":
        given, gave = (parsed(_given(span, name)) for name in (_INPUT, _OUTPUT))
        return SpanContent(tool=span.name, arguments=given, result=gave)
    asked = messages_in(_given(span, _INPUT if _INPUT in a else _OF_TRACE[0]))
    said = answers_in(_given(span, _OUTPUT if _OUTPUT in a else _OF_TRACE[1]), of_model=kind == "generation")
    return SpanContent(asked, said)


def _counts(a: Json, name: str) -> dict[str, float]:
    value = parsed(a.get(name))
    if not isinstance(value, dict):
        return {}
    return {str(key): number for key, each in value.items() if (number := number_of(each)) is not None}


def _whole_counts(usage: dict[str, float], cached: int) -> tuple[int, int]:
    """The tokens of the whole prompt and the whole answer: `input` and `output` count what no other key does, such as
    `cache_read_input_tokens` and `output_reasoning`.

    Of senders whose `input` or `output` has the others in it already, the total tells.
    """
    own, prompt = _own_and_whole(usage, _PROMPT, ("input_", "cache_"))
    said, completion = _own_and_whole(usage, _COMPLETION, ("output_",))
    total = count_of_tokens(usage, "total", "total_tokens")
    if not total:
        return prompt, completion
    for told in ((prompt, completion), (own, completion), (prompt, said), (own, said)):
        if sum(told) == total and told[0] >= cached:
            return told
    told_prompt = min(prompt, max(total - said, own))
    return told_prompt if told_prompt >= cached else prompt, min(completion, max(total - prompt, said))


def _own_and_whole(usage: dict[str, float], names: tuple[str, ...], parts: tuple[str, ...]) -> tuple[int, int]:
    """The count under one of these names, and the same with those of all keys that begin like a part."""
    own = count_of_tokens(usage, *names)
    others = sum(number for key, number in usage.items() if key.startswith(parts) and key not in names)
    return own, int(min(own + others, MOST_TOKENS))


def _nested_cached(a: Json) -> int:
    """The cached tokens of a usage as OpenAI lays it out, whose prompt has them in it."""
    usage = parsed(a.get("langfuse.observation.usage_details"))
    for name in ("prompt_tokens_details", "input_tokens_details") if isinstance(usage, dict) else ():
        if isinstance(details := usage.get(name), dict) and (found := count_of_tokens(details, "cached_tokens")):
            return found
    return 0


def _given(span: IncomingSpan, *names: str) -> Any:
    """The first of these attributes that is given; a text without the quotation marks that it has as JSON."""
    value = next((held for name in names if (held := span.attributes.get(name)) not in (None, "")), None)
    return value if span.scope.startswith(_SDK) else unquoted(value)


def _shown(value: Any, *, read: Callable[[Any], list[Message]] = messages_in) -> str:
    if value in (None, ""):
        return ""
    if isinstance(value, str) and len(value) < 20_000 and value[:1] in ("{", "["):
        return preview(read(value)) or value[:300]
    return shown(value)[:300]
