"""Turns the spans of a trace into a Trace: the record that scorers read, conversations are shown from, and data sets are
made of.

Generations become calls whose messages share the nodes of equal prefixes; tools and retrievals become tool calls;
other spans become events, and guards and evaluators that state their usage calls as well. Nothing of the spans is
changed: the store keeps them as they came.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle
from typing import NamedTuple

from firsthand.ingest.dialects.span_facts import MAX_HELD_OF_TRACE, SpanContent, TraceValues, shown, values_of_one_trace
from firsthand.ingest.dialects.stop_reasons import stop_reasons, worst
from firsthand.ingest.incoming_span import CUT, IncomingSpan, StoredSpan, is_cut
from firsthand.ingest.span_tree import arranged
from firsthand.ingest.translate import content_of
from firsthand.message import Json, Message, assistant, canonical, user
from firsthand.model import FinishReason, Usage
from firsthand.system.json_values import values_in_text
from firsthand.trace import Call, CallKind, Event, Failure, Node, Trace

BENCHMARK = "traces"
_REQUEST = "0" * 64
_FEW = 20
_NEAR = 8
"""A generation so many spans below another is a part of it."""
_JUDGES: dict[str, CallKind] = {"guard": "guard", "evaluate": "score"}
"""Spans that are events, and calls too where they state what they spent."""


class _Conversation:
    """Messages as a tree in which equal prefixes are one."""

    def __init__(self, values: TraceValues) -> None:
        self.nodes: list[Node] = []
        self._values = values
        self._known: dict[tuple[int | None, bytes], int] = {}

    def path(self, messages: Sequence[Message], parent: int | None = None) -> int | None:
        """The node of the last message, after the nodes of all before it."""
        for each in messages:
            parent = self.node(parent, each)
        return parent

    def node(self, parent: int | None, message: Message) -> int:
        text = canonical(message.to_json())
        key = (parent, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        if key not in self._known:
            self._values.hold(values_in_text(text, MAX_HELD_OF_TRACE, _FEW))
            self._known[key] = len(self.nodes)
            self.nodes.append(Node(parent, message))
        return self._known[key]


def trace_of(trace_id: str, spans: Sequence[StoredSpan]) -> Trace:
    """The Trace of these spans, in the order of their starts. It has no task of a benchmark and no seed.

    Texts of more JSON values than a trace may hold stay text.
    """
    with values_of_one_trace() as values:
        return _trace_of(trace_id, spans, values)


def _trace_of(trace_id: str, spans: Sequence[StoredSpan], values: TraceValues) -> Trace:
    ordered = sorted(spans, key=lambda each: (each.span.start_ns, each.seq))
    begun = [each.span.start_ns for each in ordered if each.span.start_ns]
    first = min(begun, default=0)
    last = max((max(each.span.start_ns, each.span.end_ns) for each in ordered), default=first)
    said = _Conversation(values)
    calls: list[Call] = []
    events: list[Event] = []
    at: int | None = None
    inner = _inner_generations(ordered)
    inner_of: dict[str, list[IncomingSpan]] = {}
    for each in ordered:
        if each.span.span_id in inner:
            inner_of.setdefault(inner[each.span.span_id], []).append(each.span)
    for each in ordered:
        span = each.span
        began = max(0, span.start_ns - first) / 1e9
        took = max(0, span.end_ns - span.start_ns) / 1e9
        before = values.left
        held = _content(each)
        id = f":{len(calls)}"
        if each.what == "generate" and span.span_id not in inner:
            at = said.path(held.asked)
            answered = [said.node(at, answer) for answer in held.answered]
            nodes = tuple(dict.fromkeys(answered))
            held_in: Json = {"name": span.name, "model": each.model, "span": span.span_id}
            told = (stop_reasons(other) for other in (span, *reversed(inner_of.get(span.span_id, []))))
            if reasons := next(filter(None, told), []):
                ended: dict[int, FinishReason] = {}
                for node, reason in zip(answered, cycle(reasons) if len(reasons) == 1 else reasons, strict=False):
                    ended[node] = worst([reason, ended.get(node, reason)])
                held_in["finish_reasons"] = [ended.get(node, "stop") for node in nodes]
            calls.append(Call(id, "generate", at, began, took, _REQUEST, each.usage, nodes, held_in, error=span.error))
            at = nodes[-1] if nodes else at
        elif each.what in ("tool", "retrieve", "rerank", "embed"):
            detail: Json = {
                "name": each.label or held.tool or span.name,
                "arguments": held.arguments if held.arguments is not None else _words(held.asked),
                "result": shown(held.result) if held.result is not None else _words(held.answered),
                "is_error": span.error is not None,
                "span": span.span_id,
            }
            values.hold(before - values.left)
            calls.append(Call(id, "tool", at, began, took, _REQUEST, each.usage, (), detail, error=span.error))
        else:
            data = {"name": span.name, "span": span.span_id, "took_s": took}
            events.append(Event(each.what if span.error is None else "error", began, data))
            if each.what in _JUDGES and each.usage != Usage():
                spent: Json = {"name": span.name, "model": each.model, "span": span.span_id}
                kind = _JUDGES[each.what]
                calls.append(Call(id, kind, at, began, took, _REQUEST, each.usage, (), spent, error=span.error))
    question, answer, error = _asked_and_answered(spans)[:3]
    if not said.nodes and (question or answer):
        said.path(([user(question)] if question else []) + ([assistant(answer)] if answer else []))
    service = next((str(name) for each in spans if (name := each.span.resource.get("service.name"))), "")
    model = next((each.model for each in ordered if each.model), "")
    return Trace(
        id=trace_id, benchmark=BENCHMARK, task_id=trace_id, agent={"name": service or "unknown", "model": model}, epoch=0,
        seed=0, started_at=_when(first), duration_s=max(0, last - first) / 1e9, nodes=tuple(said.nodes), calls=tuple(calls),
        events=tuple(events), answer=answer or None, stop_reason="done" if error is None else "error",
        error=None if error is None else Failure("span", error),
    )  # fmt: skip


def _inner_generations(spans: Sequence[StoredSpan]) -> dict[str, str]:
    """Generations that are another's -> the other: a framework and the SDK under it both record one call. One with tokens
    stays."""
    by_id = {each.span.span_id: each for each in spans}
    found: dict[str, str] = {}
    for each in spans:
        if each.what != "generate":
            continue
        above = by_id.get(each.span.parent_id)
        for _ in range(_NEAR):
            if above is None or above is each:
                break
            if above.what == "generate":
                only_inner = each.usage.total_tokens and not above.usage.total_tokens
                one, other = (above.span, each.span) if only_inner else (each.span, above.span)
                found[one.span_id] = other.span_id
                break
            above = by_id.get(above.span.parent_id)
    return found


def question_of(spans: Sequence[StoredSpan]) -> str:
    """The question of the trace: the input of its root, or the last user's message of its first generation."""
    return _asked_and_answered(spans).question


def asked_of(spans: Sequence[StoredSpan]) -> str:
    """The text by which traces are of one task: the question, or of a conversation the JSON of all that its user said."""
    users = _asked_and_answered(spans).users
    return users[0] if len(users) == 1 else json.dumps(users, ensure_ascii=False) if users else question_of(spans)


def is_whole(spans: Sequence[StoredSpan]) -> bool:
    """False if the recorder cut the question or the answer of the trace to its bound."""
    return not (any(CUT in each.span.attributes for each in spans) and _asked_and_answered(spans).is_cut)


class _Words(NamedTuple):
    question: str
    answer: str
    error: str | None
    """Of the root, if it failed."""
    is_cut: bool
    users: tuple[str, ...] = ()
    """All messages of users that the question ends."""


def _asked_and_answered(spans: Sequence[StoredSpan]) -> _Words:
    """The words of the trace, with values of their own to be decoded."""
    with values_of_one_trace():
        return _first_and_last_words(spans)


def _first_and_last_words(spans: Sequence[StoredSpan]) -> _Words:
    placed = arranged(spans)
    if not placed:
        return _Words("", "", None, False)
    root = asking = answering = placed[0].stored
    held = _content(root)
    generations = sorted((each for each in spans if each.what == "generate"), key=lambda each: each.span.start_ns)
    asked = held.asked
    question = _last_user(asked) or shown(held.arguments)
    answer = _words(held.answered) or shown(held.result)
    if not question and generations:
        asking = generations[0]
        asked = _content(asking).asked
        question = _last_user(asked)
    if not answer:
        for each in reversed(generations):
            if answer := _words(_content(each).answered):
                answering = each
                break
    cut = is_cut(asking.span, "input.value") or is_cut(answering.span, "output.value")
    return _Words(question, answer, root.span.error, cut, _users(asked))


def _content(stored: StoredSpan) -> SpanContent:
    try:
        return content_of(stored.span)
    except Exception:  # an attribute of an unexpected type: the raw view shows it
        return SpanContent()


def _last_user(messages: Sequence[Message]) -> str:
    users = _users(messages)
    return users[-1] if users else _words(messages)


def _users(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(each.text for each in messages if each.role == "user" and each.text.strip())


def _words(messages: Sequence[Message]) -> str:
    said = [each.text for each in messages if each.text.strip()]
    return said[-1] if said else ""


def _when(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns / 1e9, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC).isoformat()
