"""The rows of a received trace for the tree and its waterfall, and the contents of one of its spans."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, NamedTuple

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


class ShownSpans(NamedTuple):
    """The beginning of the stored spans as JSON."""

    text: str
    ends_in: int
    """The number of the span, from 1, in which the text ends; 0 if it holds all."""


def shown_spans(spans: Sequence[StoredSpan], most: int) -> ShownSpans:
    """The first `most` characters of the spans as JSON, with very long texts cut; what comes after is not looked at."""
    text = ['{\n "spans": [']
    left = most - len(text[0])
    for number, row in enumerate(raw_spans(spans), 1):
        room = _Room(left)
        shown = json.dumps(_short(row, 0, MAX_RAW_VALUE_CHARS, room), ensure_ascii=False, indent=1, default=str)
        text.append(("," if number > 1 else "") + "\n  " + shown.replace("\n", "\n  "))
        left -= len(text[-1])
        if left < 0 or room.left < 0:
            return ShownSpans("".join(text)[:most], number)
    whole = "".join([*text, "\n ]\n}"])
    return ShownSpans(whole[:most], len(spans) if len(whole) > most else 0)


def downloaded_spans(spans: Sequence[StoredSpan], piece_chars: int = 1 << 20) -> Iterator[str]:
    """Pieces of the JSON that holds all of the spans, a few at a time: a resource may be written for each of them."""
    rows, size = ['{"spans": ['], 0
    for number, row in enumerate(raw_spans(spans)):
        rows.append((", " if number else "") + json.dumps(row, ensure_ascii=True, default=str))
        size += len(rows[-1])
        if size >= piece_chars:
            yield "".join(rows)
            rows, size = [], 0
    yield "".join([*rows, "]}"])


def raw_spans(spans: Sequence[StoredSpan]) -> Iterator[Json]:
    """Everything that is kept of each span, for JSON. A long resource stands at the first of its spans alone."""
    again: dict[int, Json] = {}
    for each in spans:
        held = each.span.resource
        yield {
            "trace_id": each.span.trace_id,
            "span_id": each.span.span_id,
            "parent_id": each.span.parent_id,
            "name": each.span.name,
            "start_ns": each.span.start_ns,
            "end_ns": each.span.end_ns,
            "error": each.span.error,
            **each.span.body(),
            "resource": again.get(id(held), held),
        }
        if id(held) not in again:
            is_long = len(json.dumps(held, default=str)) > MAX_REPEATED_CHARS
            again[id(held)] = {"as of span": each.span.span_id} if is_long else held


def _message(number: int, message: Message) -> SpanMessage:
    return SpanMessage(number, message.role, message_blocks(message))


def _json(data: Json) -> str:
    return json.dumps(_short(data, 0), ensure_ascii=False, indent=1, default=str)


@dataclass
class _Room:
    """The characters that a text has left, counted as the least that its values take as JSON."""

    left: float = math.inf


def _short(value: Any, depth: int, most: int = MAX_VALUE_CHARS, room: _Room | None = None) -> Any:
    """The data with long texts cut, and nothing after the room is full: a text of 100 MB is in the raw download."""
    room = room or _Room()
    room.left -= depth + 1  # a line of its own
    if isinstance(value, str):
        over = len(value) - most
        room.left -= min(len(value), most)
        return value if over <= 0 else f"{value[:most]}… ({over:,} more characters)"
    if depth > 100:
        return "…"
    if isinstance(value, dict):
        shown = {}
        for key, each in takewhile(lambda _: room.left >= 0, value.items()):
            name = str(key)[:500]
            room.left -= len(name)
            shown[name] = _short(each, depth + 1, most, room)
        return shown
    if isinstance(value, list):
        return [_short(each, depth + 1, most, room) for each in takewhile(lambda _: room.left >= 0, value)]
    return value


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
