"""Reads why each answer of a generation ended, from all places where instrumentations write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from firsthand.ingest.dialects.span_facts import MAX_MESSAGES, parsed, values_of_one_span, words_of
from firsthand.ingest.incoming_span import IncomingSpan, is_cut
from firsthand.message import Json
from firsthand.model import FinishReason

_ATTRIBUTES = ("gen_ai.response.finish_reasons", "llm.finish_reason", "ai.response.finishReason")
_TEXTS = ("gen_ai.output.messages", "output.value", "langfuse.observation.output")
"""Attributes with messages, or with the reply of an endpoint, in JSON."""
_FIELDS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")
_WITHIN = ("message", "generation_info", "response_metadata", "kwargs", "data")
_HOLDERS = ("choices", "candidates", "generations", "messages", "output")
_ENDED: dict[str, FinishReason] = {
    "length": "length", "max_tokens": "length", "max_output_tokens": "length", "model_length": "length",
    "max_new_tokens": "length", "max_length": "length", "token_limit": "length", "model_context_window_exceeded": "length",
    "content_filter": "content_filter", "content_filtered": "content_filter", "guardrail_intervened": "content_filter",
    "refusal": "content_filter", "safety": "content_filter", "recitation": "content_filter", "blocklist": "content_filter",
    "prohibited_content": "content_filter", "spii": "content_filter",
    "tool_calls": "tool_calls", "tool_call": "tool_calls", "tool_use": "tool_calls",
}  # fmt: skip
"""Their words in small letters with underscores; any other is a stop."""
_WORST: tuple[FinishReason, ...] = ("length", "content_filter", "tool_calls", "stop")


def stop_reasons(span: IncomingSpan) -> list[FinishReason]:
    """Why each answer ended, or one reason for all; empty if the span does not say it. Of two reasons, a cut counts.

    A question or an answer that the recorder itself has cut counts as one of limited length.
    """
    if any(is_cut(span, name) for name in ("input.value", "output.value")):
        return ["length"]
    with values_of_one_span():
        told = [each for each in _told(span) if any(each)]
    found = []
    for place in range(max(map(len, told), default=0)):
        words = [each[0] if len(each) == 1 else each[place] for each in told if len(each) == 1 or place < len(each)]
        found.append(worst([_ENDED.get(_plain(word), "stop") for word in words if word]))
    return found


def worst(reasons: list[FinishReason]) -> FinishReason:
    """The reason that counts most of several for one answer: a cut before a call, and a call before a stop."""
    return min(reasons, key=_WORST.index, default="stop")


def _plain(word: str) -> str:
    return word.rpartition(".")[2].lower().replace("-", "_")  # Google's SDK writes `FinishReason.MAX_TOKENS`


def _told(span: IncomingSpan) -> Iterator[list[str]]:
    """For each place that says it: the words of all answers in turn, empty for one without, or one word for all."""
    a = span.attributes
    for name in _ATTRIBUTES:
        yield [*words_of(a.get(name))]
    yield _of_completions(a)
    for name in _TEXTS:
        yield _in_text(a.get(name))
    known = [event for event in span.events if isinstance(event, dict)]
    events = [(event.get("name"), held) for event in known if isinstance(held := event.get("attributes"), dict)]
    yield [word for _, held in events for word in _in_text(held.get("gen_ai.output.messages"))]
    choices = [held for name, held in events if name == "gen_ai.choice"]
    yield [_word(held) or (_in_text(held.get("gen_ai.event.content")) or [""])[0] for held in choices]


def _of_completions(a: Json) -> list[str]:
    """Of OpenLLMetry's completions: `gen_ai.completion.N.finish_reason`."""
    found: list[str] = []
    for number in range(MAX_MESSAGES):
        base = f"gen_ai.completion.{number}."
        fields = ("role", "content", "finish_reason", "tool_calls.0.name")
        if all(a.get(base + field) is None for field in fields):
            break
        word = a.get(f"{base}finish_reason")
        found.append(word if isinstance(word, str) else "")
    return found


def _in_text(value: Any) -> list[str]:
    """The words of the answers in a list of messages or in the reply of an endpoint."""
    if isinstance(value, str) and not any(name in value for name in (*_FIELDS, "incomplete_details")):
        return []  # most say nothing of it, and are not decoded for it
    found = parsed(value)
    if isinstance(found, dict):
        if word := _word(found):
            return [word]
        found = next((found[name] for name in _HOLDERS if isinstance(found.get(name), list)), None)
    if isinstance(found, list) and found and isinstance(found[0], list):  # LangChain: a list for each prompt
        found = found[0]
    return [_word(each) for each in found[-MAX_MESSAGES:]] if isinstance(found, list) else []


def _word(body: Any, depth: int = 4) -> str:
    if not isinstance(body, dict):
        return ""
    for name in _FIELDS:
        if isinstance(word := body.get(name), str) and word:
            return word
    details = body.get("incomplete_details")  # OpenAI's responses
    if isinstance(details, dict) and isinstance(details.get("reason"), str):
        return str(details["reason"])
    return next((word for name in _WITHIN if depth and (word := _word(body.get(name), depth - 1))), "")
