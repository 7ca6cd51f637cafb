"""Reads the scores that came with a span: events `gen_ai.evaluation.result` of the GenAI conventions.

A verdict that has a label and no number is in the span alone.
"""

from __future__ import annotations

from typing import NamedTuple

from firsthand.ingest.dialects.span_facts import text_of
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.message import Json
from firsthand.runs.database import plain
from firsthand.trace import MAX_NUMBER

EVENT = "gen_ai.evaluation.result"
"""The name of these events, which the store has for the scorer of such scores."""
MOST_SCORES = 100
"""Names of scores that are kept of one span."""
_MOST_NAME, _MOST_TEXT = 100, 2000


class SentScore(NamedTuple):
    """A score that the sender gave."""

    value: float | None
    """None if its scorer failed."""
    failure: str | None
    detail: Json


def sent_scores(span: IncomingSpan) -> dict[str, SentScore]:
    """Name -> score, of several of one name the last, of at most MOST_SCORES names."""
    found: dict[str, SentScore] = {}
    for event in span.events:
        told = event.get("attributes") if event.get("name") == EVENT else None
        name = plain(text_of(told, "gen_ai.evaluation.name"))[:_MOST_NAME] if isinstance(told, dict) else ""
        if not name or (len(found) >= MOST_SCORES and name not in found):
            continue
        assert isinstance(told, dict)
        value = _number(told.get("gen_ai.evaluation.score.value"))
        failure = plain(text_of(told, "error.type"))[:_MOST_TEXT] or None
        if value is None and failure is None:
            continue
        detail: Json = {"span": span.span_id}
        for key in ("gen_ai.evaluation.score.label", "gen_ai.evaluation.explanation"):
            if text := text_of(told, key):
                detail[key.rsplit(".", 1)[1]] = text[:_MOST_TEXT]
        found[name] = SentScore(value if failure is None else None, failure, detail)
    return found


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:  # which no NaN is
        return None
    return float(value)
