"""A span as it was received: ids, times, and all attributes under the names that the sender gave them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from firsthand.message import Json
from firsthand.model import Usage

SpanKind = Literal["generate", "embed", "tool", "retrieve", "rerank", "agent", "chain", "guard", "evaluate", "span"]
"""The kind of a span's work; `span` where no dialect says."""
MOST_NS = (1 << 63) - 1
"""The largest time that the store can hold: a later one is cut to it, and stands in the body as it came."""

MAX_COLUMN = 1000
"""Characters of a name or an error in a column of the store; a longer one is whole in the body, which is read last."""

CUT = "firsthand.cut"
"""The attribute with the names of those attributes, with blanks between, that the recorder cut to its bound."""


@dataclass(slots=True)
class IncomingSpan:
    """A stretch of work of some program. Ids are lower-case hex; times are nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    name: str
    start_ns: int
    end_ns: int
    """0 if the span has not ended."""
    attributes: Json = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    """Each with `name`, `at_ns` and `attributes`."""
    links: list[Json] = field(default_factory=list)
    """Each with `trace_id`, `span_id` and `attributes`."""
    resource: Json = field(default_factory=dict)
    """Attributes of the program, such as `service.name`."""
    scope: str = ""
    """The instrumentation that made it, such as `openinference.instrumentation.openai`."""
    kind: int = 0
    """OTLP's kind: 1 internal, 2 server, 3 client, 4 producer, 5 consumer."""
    error: str | None = None
    """The status message of a failed span, which may be empty; None without an error."""
    redactions: int = 0
    """The number of values that were replaced before the span was kept."""

    def body(self) -> Json:
        """All of the span that is neither a column of the store nor its resource, which many spans share."""
        body: Json = {"attributes": self.attributes}
        if self.events:
            body["events"] = self.events
        if self.links:
            body["links"] = self.links
        if self.scope:
            body["scope"] = self.scope
        if self.kind:
            body["kind"] = self.kind
        if len(self.name) > MAX_COLUMN:
            body["name"] = self.name
        if self.error is not None and len(self.error) > MAX_COLUMN:
            body["error"] = self.error
        if self.start_ns > MOST_NS or self.end_ns > MOST_NS:
            body["times"] = [self.start_ns, self.end_ns]
        return body


def is_cut(span: IncomingSpan, name: str) -> bool:
    """True if the recorder cut that attribute to its bound."""
    return name in str(span.attributes.get(CUT, "")).split()


class StoredSpan(NamedTuple):
    """A span of the store with what its dialect says of it."""

    seq: int
    """Its place in the order of arrival."""
    span: IncomingSpan
    what: SpanKind
    label: str = ""
    """The name of the tool or the agent."""
    model: str = ""
    usage: Usage = Usage()
    copy: int = 0
    """Above 0 for a span whose id was sent before with other contents."""
    size_bytes: int = 0
    """Of its body as JSON."""
