"""Translates a span's attributes, whatever dialect they are in: the columns of the store, and later its messages.

Spans often mix dialects (Langfuse's SDK over the GenAI conventions, say): the first dialect that says something is
believed, and the others fill in what it leaves open.
"""

from __future__ import annotations

from types import ModuleType

from firsthand.ingest.dialects import genai_dialect, langfuse_dialect, openinference_dialect, openllmetry_dialect
from firsthand.ingest.dialects.span_facts import (
    MOST_TOKENS,
    SpanContent,
    SpanFacts,
    first_of,
    text_of,
    values_of_one_span,
)
from firsthand.ingest.incoming_span import IncomingSpan

DIALECTS: dict[str, ModuleType] = {
    "Langfuse": langfuse_dialect,
    "OpenInference": openinference_dialect,
    "OpenLLMetry": openllmetry_dialect,
    "GenAI": genai_dialect,
}
"""Name -> dialect, the more particular ones first."""
_spoken: dict[tuple[str, ...], tuple[ModuleType, ...]] = {}
"""Names of attributes -> the dialects of a span that has them: instrumentations give many spans the same names."""
_MOST_SPOKEN, _MOST_NAMES, _MOST_CHARS = 2000, 200, 8000


def facts_of(span: IncomingSpan) -> SpanFacts:
    """The columns of a span, put together from all dialects that it speaks."""
    found: SpanFacts | None = None
    names = tuple(span.attributes)
    spoken = _spoken.get(names)
    if spoken is None:
        spoken = tuple(dialect for dialect in DIALECTS.values() if dialect.speaks(span))
        if len(_spoken) < _MOST_SPOKEN and len(names) <= _MOST_NAMES and sum(map(len, names)) <= _MOST_CHARS:
            _spoken[names] = spoken
    for dialect in spoken:
        with values_of_one_span():
            said: SpanFacts = dialect.facts(span)
        if found is None:
            found = said
        else:
            found.input, found.output = first_of(found.input, said.input), first_of(found.output, said.output)
            found.filled_from(said)
    if found is None:
        found = SpanFacts()
    if found.cached_tokens > found.prompt_tokens:  # a part is no larger than the whole: it was counted beside it
        found.prompt_tokens = min(found.prompt_tokens + found.cached_tokens, MOST_TOKENS)
    a = span.attributes
    if not found.session:
        found.session = text_of(a, "session.id", "gen_ai.conversation.id")
    if not found.user:
        found.user = text_of(a, "user.id", "enduser.id")
    if span.error == "" or (span.error is None and found.error == ""):
        found.error = found.error or _reason(span)
    return found


def _reason(span: IncomingSpan) -> str:
    """Why a span failed whose status has no message: its last exception, or the type of its error."""
    for event in reversed(span.events):
        if event.get("name") == "exception":
            told = event.get("attributes") or {}
            if reason := text_of(told, "exception.message") or text_of(told, "exception.type"):
                return reason
    return text_of(span.attributes, "error.type")


def content_of(span: IncomingSpan) -> SpanContent:
    """The messages and the tool call of a span: each part from the first dialect that has it."""
    found = SpanContent()
    for dialect in DIALECTS.values():
        if not dialect.speaks(span):
            continue
        with values_of_one_span():
            held: SpanContent = dialect.content(span)
        found.asked = found.asked or held.asked
        found.answered = found.answered or held.answered
        if held.tool and not found.tool:
            found.tool = held.tool
        if found.arguments is None:
            found.arguments = held.arguments
        if found.result is None:
            found.result = held.result
        found.call_id = found.call_id or held.call_id
    return found


def dialects_of(span: IncomingSpan) -> tuple[str, ...]:
    """The names of the dialects that a span speaks."""
    return tuple(name for name, dialect in DIALECTS.items() if dialect.speaks(span))
