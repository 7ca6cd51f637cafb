"""Document: a text that was read, with its identity and the places that citations name.

Offsets count characters of `text`, which is fixed when the document is read; chunks and citations refer to it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from firsthand.errors import ConfigError

LocationKind = Literal["line", "page", "row", "heading", "paragraph"]


@dataclass(frozen=True, slots=True)
class Location:
    """A place of the source, such as a page, that begins at a character of the document's text."""

    start: int
    """The first character of the place in the document's text."""
    kind: LocationKind
    label: str
    """The name that a reader knows it by: a page or line number, a heading."""


@dataclass(frozen=True)
class Document:
    """A text with its identity, its source and its places."""

    id: str
    """Unique in an index: the path below the indexed folder, a URL, or an id of the caller's own."""
    text: str
    title: str = ""
    source: str = ""
    """The path or URL that the text was read from."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Values that filters can name."""
    locations: tuple[Location, ...] = ()
    """Places in order of `start`. Documents without any are located by line."""

    def __post_init__(self) -> None:
        if not self.id:
            raise ConfigError("a document has no id: give a path, a URL or a name that no other document has")

    @cached_property
    def sha256(self) -> str:
        """The hash of the text, 64 hex digits."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def location(self, start: int) -> Location:
        """The place that holds a character: the last one that begins at or before it; else its line."""
        found = bisect_right(self.locations, start, key=lambda place: place.start)
        if found:
            return self.locations[found - 1]
        line_start = self.text.rfind("\n", 0, start) + 1
        return Location(line_start, "line", str(self.text.count("\n", 0, start) + 1))
