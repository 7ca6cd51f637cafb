"""The summary of a trace, kept up to date span by span in whatever order spans come: the row of a list of traces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from firsthand.ingest.dialects.span_facts import SpanFacts, said
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan
from firsthand.message import Json
from firsthand.runs.database import plain

MAX_TEXT = 300
_FIRST, _LAST = MOST_NS, -1
_AGGREGATES = ("agent", "chain", "span")
"""Kinds of spans that state what the spans under them state too."""
_OWN = ("langfuse.observation.usage_details", "langfuse.observation.cost_details")
"""Attributes that state what an observation of any kind spent itself: Langfuse sums them up."""


class Counted(NamedTuple):
    """The tokens and cost that a span adds to its trace."""

    is_summed: bool
    error: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: float
    redactions: int


@dataclass(slots=True)
class TraceSummary:
    """One trace in a list. The ranks say how good the source of a text is (0: a root), the times break ties."""

    trace: str
    first_ns: int = _FIRST
    last_ns: int = _LAST
    num_spans: int = 0
    num_errors: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    redactions: int = 0
    name_rank: int = 9
    name_ns: int = _FIRST
    name: str = ""
    input_rank: int = 9
    input_ns: int = _FIRST
    input: str = ""
    output_rank: int = 9
    output_ns: int = _LAST
    output: str = ""
    service: str = ""
    model: str = ""
    """The one whose span came first; `models` has all."""
    session: str = ""
    user: str = ""
    tags: str = ""
    """Between bars, as in `|a|b|`."""
    changed: int = 0
    """The number of the change that the trace saw last."""
    arrived_s: float = 0.0
    """The time when its last span arrived, in seconds since 1970: senders' clocks may say anything."""
    models: str = ""
    """Those of its generations and embeddings, between bars; of a trace that came before 0.30.0 the first alone."""

    @property
    def duration_s(self) -> float:
        """Seconds from the first start to the last end."""
        return max(0, self.last_ns - self.first_ns) / 1e9

    @property
    def has_root(self) -> bool:
        """False while the span that the others lie under has not come."""
        return self.name_rank == 0

    def add(self, span: IncomingSpan, facts: SpanFacts, service: str, before: Counted | None = None) -> None:
        """Count a span that was not counted yet, or one that has ended in place of what was counted before its end."""
        if before is not None:
            self._take_back(before)
        again = before is not None
        start = min(span.start_ns, MOST_NS)
        end = max(start, min(span.end_ns, MOST_NS))
        self.num_spans += 1
        self.num_errors += span.error is not None or facts.error is not None
        self.redactions += span.redactions
        if start:
            self.first_ns, self.last_ns = min(self.first_ns, start), max(self.last_ns, end)
        if is_summed(facts.what, span.attributes):
            self.prompt_tokens = min(self.prompt_tokens + facts.prompt_tokens, MOST_NS)
            self.cached_tokens = min(self.cached_tokens + facts.cached_tokens, MOST_NS)
            self.completion_tokens = min(self.completion_tokens + facts.completion_tokens, MOST_NS)
            self.cost_usd += facts.cost_usd
        if facts.what in ("generate", "embed") and facts.model:
            self.model = self.model or plain(facts.model[:MAX_TEXT])
            self.models = _with_word(self.models, plain(facts.model.replace("|", " "))[:MAX_TEXT])
        rank = 0 if not span.parent_id else 1
        best = (self.name_rank, self.name_ns)
        if (rank, start) < best or (again and (rank, start) == best):
            self.name_rank, self.name_ns, self.name = rank, start, plain(span.name[:MAX_TEXT])
            self.service = service or self.service
        rank = 0 if not span.parent_id else 1 if facts.what == "generate" else 2
        best = (self.input_rank, self.input_ns)
        is_first = (rank, start) < best or (again and (rank, start) == best)
        if facts.input and is_first and (text := said(facts.input)):
            self.input_rank, self.input_ns, self.input = rank, start, plain(text[:MAX_TEXT])
        if facts.output and (rank, -end) < (self.output_rank, -self.output_ns) and (text := said(facts.output)):
            self.output_rank, self.output_ns, self.output = rank, end, plain(text[:MAX_TEXT])
        self.service = self.service or service
        self.session = self.session or plain(facts.session[:MAX_TEXT])
        self.user = self.user or plain(facts.user[:MAX_TEXT])
        for tag in facts.tags:
            self.tags = _with_word(self.tags, plain(tag.replace("|", " "))[:100])

    @property
    def model_names(self) -> list[str]:
        """Its models in the order in which they came."""
        return self.models.strip("|").split("|") if self.models else []

    def _take_back(self, before: Counted) -> None:
        self.num_spans -= 1
        self.num_errors -= before.error is not None
        self.redactions -= before.redactions
        if before.is_summed:
            self.prompt_tokens = max(0, self.prompt_tokens - before.prompt_tokens)
            self.cached_tokens = max(0, self.cached_tokens - before.cached_tokens)
            self.completion_tokens = max(0, self.completion_tokens - before.completion_tokens)
            self.cost_usd = max(0.0, self.cost_usd - before.cost_usd)

    def row(self) -> tuple[Any, ...]:
        """The values of its columns."""
        return tuple(getattr(self, name) for name in COLUMNS)


def _with_word(words: str, word: str) -> str:
    """Words between bars with another one, unless it is in them or they are many."""
    added = f"|{word}|"
    if added in words or len(words) >= 2000:
        return words
    return words[:-1] + added if words else added


def is_summed(what: str, attributes: Json) -> bool:
    """True if the tokens and the cost that a span states are its own, and so a part of its trace's."""
    return what not in _AGGREGATES or any(name in attributes for name in _OWN)


SEVERAL_MODELS = (
    """
    ALTER TABLE traces ADD COLUMN models TEXT NOT NULL DEFAULT '';
    UPDATE traces SET models = '|' || replace(model, '|', ' ') || '|' WHERE model <> ''
    """,
)
"""The migration to summaries with all models of a trace."""
COLUMNS = tuple(field.name for field in fields(TraceSummary))


def summaries_of(rows: Iterable[tuple[Any, ...]]) -> list[TraceSummary]:
    """The summaries that rows of all COLUMNS hold."""
    return [TraceSummary(*row) for row in rows]
