"""Chunk: a span of a document, the unit that is embedded, indexed and retrieved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from firsthand.retrieval.document import Document


@dataclass(frozen=True)
class Chunk:
    """A span of a document: `text` is exactly `document.text[start:end]`."""

    document: str
    """The id of the document."""
    start: int
    end: int
    text: str
    heading: str = ""
    """Headings above the span, outermost first, joined by " > "."""
    parent: str | None = None
    """The id of the larger chunk that holds this one, where the chunker makes parents."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The document's values and the chunk's own, for filters."""

    @property
    def id(self) -> str:
        """Document, span and text as a hash of 32 hex digits; equal chunks of a document that was read again keep it."""
        text = f"{self.document}\0{self.start}\0{self.end}\0{self.text}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def indexed_text(self) -> str:
        """The text that is embedded and whose words are indexed: the headings, a line break, and the span."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


Chunker = Callable[[Document], list[Chunk]]
"""Divides a document into chunks, in order of `start`."""
