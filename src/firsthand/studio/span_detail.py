"""The contents of one span: prompt and answers of a generation, arguments and result of a tool, data of an event."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from firsthand.errors import UnknownName
from firsthand.message import Json
from firsthand.studio.branch_conversation import Block, message_blocks
from firsthand.trace import Call, Event, Trace

MAX_JSON_CHARS = 20_000
MAX_PROMPT_MESSAGES = 40


@dataclass(frozen=True)
class SpanMessage:
    """A message that a call was asked with, or made."""

    node: int
    role: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class SpanDetail:
    """The contents of a span."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """Facts about it, as names and values."""
    new: tuple[SpanMessage, ...] = ()
    """The messages of the prompt that were not in the prompt of the call before it."""
    num_before: int = 0
    """The messages of the prompt that were."""
    answers: tuple[SpanMessage, ...] = ()
    data: str = ""
    """The rest, as JSON."""
    left_out: int = 0
    """Characters of the data that are not sent."""


def span_detail(trace: Trace, ref: str) -> SpanDetail:
    """The contents of `call:N` or `event:N`; UnknownName if the trace has no such span."""
    kind, _, number = ref.partition(":")
    held: tuple[Any, ...] = {"call": trace.calls, "event": trace.events}.get(kind, ())
    if not number.isdecimal() or len(number) > 9 or int(number) >= len(held):
        raise UnknownName(f"the attempt has no span {ref[:40]!r}")
    return _of_call(trace, trace.calls[int(number)]) if kind == "call" else _of_event(trace.events[int(number)])


def _of_event(event: Event) -> SpanDetail:
    data, left_out = _json(event.data)
    return SpanDetail(event.kind, (("at", f"{event.at_s:.3f} s"),), data=data, left_out=left_out)


def _of_call(trace: Trace, call: Call) -> SpanDetail:
    usage = call.usage
    facts = [
        ("kind", call.kind),
        ("effect", call.id),
        ("began", f"{call.started_s:.3f} s"),
        ("took", f"{call.duration_s:.3f} s"),
    ]
    if usage.total_tokens:
        facts.append(("prompt tokens", f"{usage.prompt_tokens:,}"))
        facts += [("cached tokens", f"{usage.cached_tokens:,}")] if usage.cached_tokens else []
        facts.append(("answer tokens", f"{usage.completion_tokens:,}"))
    if usage.cost_usd:
        facts.append(("cost", f"${usage.cost_usd:.6f}"))
    facts += [("replayed", "from the journal of an earlier try")] if call.replayed else []
    facts += [("error", call.error[:2000])] if call.error else []
    path = trace.path(call.at) if call.kind in ("generate", "score") and call.at is not None else ()
    before = _asked_before(trace, call, set(path))
    new = [index for index in path if index not in before][-MAX_PROMPT_MESSAGES:]
    data, left_out = _json({key: value for key, value in call.detail.items() if key != "top_logprobs"})
    return SpanDetail(
        str(call.detail.get("name") or call.kind)[:200],
        tuple(facts),
        tuple(_message(trace, index) for index in new),
        len(path) - len(new),
        tuple(_message(trace, index) for index in call.nodes if 0 <= index < len(trace.nodes)),
        data,
        left_out,
    )


def _asked_before(trace: Trace, call: Call, path: set[int]) -> set[int]:
    """The messages of a prompt that an earlier generation on the same branch was asked with, or made."""
    known: set[int] = set()
    for earlier in trace.calls:
        if earlier is call:
            break
        if earlier.kind == "generate" and earlier.at in path:
            known |= set(trace.path(earlier.at)) | (set(earlier.nodes) & path)
    return known


def _message(trace: Trace, index: int) -> SpanMessage:
    message = trace.nodes[index].message
    return SpanMessage(index, message.role, message_blocks(message))


def _json(data: Json) -> tuple[str, int]:
    text = json.dumps(data, ensure_ascii=False, indent=1, default=str) if data else ""
    return text[:MAX_JSON_CHARS], max(0, len(text) - MAX_JSON_CHARS)
