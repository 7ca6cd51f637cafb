"""The rows of a received trace for the tree and its waterfall, and the contents of one of its spans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from firsthand.errors import UnknownName
from firsthand.ingest.incoming_span import StoredSpan
from firsthand.ingest.span_tree import arranged
from firsthand.ingest.translate import content_of, dialects_of
from firsthand.message import Json, Message
from firsthand.show.html_page import visible
from firsthand.studio.attempt_spans import COLUMNS, LABEL_CHARS
from firsthand.studio.branch_conversation import message_blocks
from firsthand.studio.span_detail import MAX_JSON_CHARS, MAX_PROMPT_MESSAGES, SpanDetail, SpanMessage

MAX_VALUE_CHARS = 4000
MAX_RAW_VALUE_CHARS = 200_000
MAX_REPEATED_CHARS = 4000
"""Of a resource that each of its spans repeats in a download."""


def incoming_spans_json(title: str, spans: Sequence[StoredSpan]) -> Json:
    """The rows of the tree as columns, like those of an attempt: the trace first, then each span before those under it."""
    placed = arranged(spans)
    begun = [each.stored.span.start_ns for each in placed if each.stored.span.start_ns]
    first = min(begun, default=0)
    last = max((max(each.stored.span.start_ns, each.stored.span.end_ns) for each in placed), default=first)
    rows: list[list[Any]] = [["trace", _label(title), 0.0, _ms(last - first), 0, -1, 0, 0, 0, 0, ""]]
    for each in placed:
        stored, span = each.stored, each.stored.span
        usage = stored.usage
        name = span.name if not stored.label or stored.label in span.name else f"{span.name} {stored.label}"
        remarks = f" ({'; '.join(each.remarks)})" if each.remarks else ""
        rows.append(
            [
                stored.what, _label(name) + remarks, _ms(span.start_ns - first), _ms(span.end_ns - span.start_ns),
                each.depth + 1, each.parent + 1, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens,
                int(span.error is not None), f"span:{each.number}",
            ]
        )  # fmt: skip
    for row in reversed(rows[1:]):  # a failure shows at everything above it
        if row[9]:
            rows[row[5]][9] = 1
    return {
        "columns": {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)},
        "duration": _ms(last - first),
    }


def incoming_detail(spans: Sequence[StoredSpan], ref: str) -> SpanDetail:
    """The contents of `span:N`; UnknownName if the trace has no such span."""
    kind, _, number = ref.partition(":")
    if kind != "span" or not number.isdecimal() or len(number) > 9 or int(number) >= len(spans):
        raise UnknownName(f"the trace has no span {ref[:40]!r}")
    stored = spans[int(number)]
    span, usage = stored.span, stored.usage
    facts = [
        ("kind", stored.what),
        ("span", span.span_id),
        ("began", _when(span.start_ns)),
        ("took", f"{_ms(span.end_ns - span.start_ns) / 1000:.3f} s"),
    ]
    facts += [("model", stored.model)] if stored.model else []
    facts += [(stored.what, stored.label)] if stored.label else []
    if usage.total_tokens:
        facts.append(("prompt tokens", f"{usage.prompt_tokens:,}"))
        facts += [("cached tokens", f"{usage.cached_tokens:,}")] if usage.cached_tokens else []
        facts.append(("answer tokens", f"{usage.completion_tokens:,}"))
    facts += [("cost", f"${usage.cost_usd:.6f}")] if usage.cost_usd else []
    facts += [("error", (span.error or "unknown")[:2000])] if span.error is not None else []
    facts += [("redacted", f"{span.redactions} values")] if span.redactions else []
    facts.append(("written by", ", ".join([span.scope, *dialects_of(span)]).strip(", ") or "unknown"))
    try:
        held = content_of(span)
        asked, answered = held.asked, held.answered
    except Exception:  # an attribute of an unexpected type: it is in the data below
        asked, answered = [], []
    data = _json({key: value for key, value in span.body().items() if key != "scope"} | {"resource": span.resource})
    return SpanDetail(
        span.name[:200],
        tuple(facts),
        tuple(_message(number, each) for number, each in enumerate(asked))[-MAX_PROMPT_MESSAGES:],
        max(0, len(asked) - MAX_PROMPT_MESSAGES),
        tuple(_message(len(asked) + number, each) for number, each in enumerate(answered)),
        data[:MAX_JSON_CHARS],
        max(0, len(data) - MAX_JSON_CHARS),
    )


def shown_spans(spans: Sequence[StoredSpan]) -> str:
    """The stored spans as JSON to read, with very long texts cut."""
    return json.dumps(_short(raw_spans(spans), 0, MAX_RAW_VALUE_CHARS), ensure_ascii=False, indent=1, default=str)


def raw_spans(spans: Sequence[StoredSpan]) -> Json:
    """Everything that is kept of the spans, for JSON. A long resource stands at the first of its spans alone."""
    first: dict[int, str] = {}

    def resource(stored: StoredSpan) -> Json:
        held = stored.span.resource
        known = first.setdefault(id(held), stored.span.span_id)
        is_again = known != stored.span.span_id and len(json.dumps(held, default=str)) > MAX_REPEATED_CHARS
        return {"as of span": known} if is_again else held

    return {
        "spans": [
            {
                "trace_id": each.span.trace_id,
                "span_id": each.span.span_id,
                "parent_id": each.span.parent_id,
                "name": each.span.name,
                "start_ns": each.span.start_ns,
                "end_ns": each.span.end_ns,
                "error": each.span.error,
                **each.span.body(),
                "resource": resource(each),
            }
            for each in spans
        ]
    }


def _message(number: int, message: Message) -> SpanMessage:
    return SpanMessage(number, message.role, message_blocks(message))


def _json(data: Json) -> str:
    return json.dumps(_short(data, 0), ensure_ascii=False, indent=1, default=str)


def _short(value: Any, depth: int, most: int = MAX_VALUE_CHARS) -> Any:
    """The data with long texts cut: a text of 100 MB is in the raw download."""
    if isinstance(value, str):
        over = len(value) - most
        return value if over <= 0 else f"{value[:most]}… ({over:,} more characters)"
    if depth > 100:
        return "…"
    if isinstance(value, dict):
        return {str(key)[:500]: _short(each, depth + 1, most) for key, each in value.items()}
    return [_short(each, depth + 1, most) for each in value] if isinstance(value, list) else value


def _ms(ns: int) -> float:
    return round(max(0, ns) / 1e6, 3)


def _when(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{ns} ns after 1970"


def _label(text: str) -> str:
    line = visible(" ".join(text[: 4 * LABEL_CHARS].split()))
    return line if len(line) <= LABEL_CHARS else line[: LABEL_CHARS - 1] + "…"
