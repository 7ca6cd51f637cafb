"""Reads HTML as a reader sees it, headings as `#` lines; citations name the lines of the source."""

from __future__ import annotations

from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.file_content import (
    MAX_TITLE_CHARS,
    FileContent,
    ReadSettings,
    first_heading,
    hidden_text_note,
)
from firsthand.tools.web.html import to_placed_text, to_text
from firsthand.tools.web.xml_pages import is_xhtml_file


def read_html(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The readable text; its title is the page's, or the first heading."""
    source, notes = decode(data)
    source, _, dropped = clean(source)
    text, places, hidden = page_text(source, is_xml=is_xhtml_file(name))
    document = Document(name, text, page_title(source) or first_heading(text), meta={"kind": "html"}, locations=places)
    return FileContent((document,), tuple(notes + dropped + hidden))


def page_text(source: str, *, is_xml: bool = False) -> tuple[str, tuple[Location, ...], list[str]]:
    """The readable text, its places by lines of the source, and remarks if its entities or elements hid text."""
    text, origins, hidden = to_placed_text(source, is_xml=is_xml)
    places: list[Location] = []
    line, seen = 1, 0
    for offset, origin in origins:
        if origin > seen:
            line += source.count("\n", seen, origin)
            seen = origin
        if not places or places[-1].label != str(line):
            places.append(Location(offset, "line", str(line)))
    text, moved, dropped = clean(text, places)
    return text, moved, dropped + hidden_text_note(hidden)


def page_title(source: str) -> str:
    """The content of the title element."""
    lower = source[:100_000].lower()
    start = lower.find("<title")
    opened = lower.find(">", start) if start >= 0 else -1
    closed = lower.find("</title", opened) if opened >= 0 else -1
    return clean_line(to_text(source[opened + 1 : closed]))[:MAX_TITLE_CHARS] if 0 <= opened < closed else ""
