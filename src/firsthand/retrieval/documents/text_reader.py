"""Reads plain text and Markdown. Citations name lines, so no places are stored."""

from __future__ import annotations

from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings, first_heading


def read_text(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The text as it stands; its title is the first line, if that is short."""
    text, notes = _decoded(data)
    line = text.lstrip()[:200].split("\n")[0].strip()
    return _content(name, text, notes, line if len(line) <= 100 else "", "text")


def read_markdown(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """Markdown as it stands; its title is the first heading."""
    text, notes = _decoded(data)
    return _content(name, text, notes, first_heading(text), "markdown")


def _decoded(data: bytes) -> tuple[str, list[str]]:
    text, notes = decode(data)
    text, _, dropped = clean(text)
    return text, notes + dropped


def _content(name: str, text: str, notes: list[str], title: str, kind: str) -> FileContent:
    return FileContent((Document(name, text, title, meta={"kind": kind}),), tuple(notes))
