"""Reads EPUB without copy protection: the chapters in the order of the spine, each as the HTML it is."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from firsthand.errors import DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.file_content import MAX_TITLE_CHARS, FileContent, ReadSettings, first_heading
from firsthand.retrieval.documents.html_reader import page_text, page_title
from firsthand.retrieval.documents.zip_parts import ZipParts, parse_xml


def read_epub(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The text of all chapters; a place is a chapter."""
    parts = ZipParts(data, "EPUB")
    if "META-INF/encryption.xml" in parts.names and "META-INF/rights.xml" in parts.names:
        raise DataError("it is encrypted by copy protection: it cannot be read")
    roots = _values(parts.read("META-INF/container.xml"), "rootfile", "full-path")
    if not roots:
        raise DataError("it is no EPUB: its container names no package")
    package = _Package(parts.read(roots[0]))
    written: list[str] = []
    places: list[Location] = []
    notes: list[str] = []
    length = 0
    for number, target in enumerate(package.chapters(), 1):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(roots[0]), unquote(target)))
        try:
            source = clean(decode(parts.read(path))[0])[0]
        except DataError as error:
            notes.append(f"chapter {number} cannot be read: {error}")
            continue
        text, _, hidden = page_text(source, is_xml=True)
        notes += [f"chapter {number}: {note}" for note in hidden]
        if text.strip():
            places.append(Location(length, "heading", first_heading(text) or page_title(source) or f"chapter {number}"))
            written.append(f"{text}\n\n")
            length += len(text) + 2
    if not written:
        raise DataError("none of its chapters has text")
    title = clean_line(package.title)[:MAX_TITLE_CHARS]
    document = Document(name, "".join(written), title, meta={"kind": "epub"}, locations=tuple(places))
    return FileContent((document,), tuple(notes))


def _values(data: bytes, element: str, attribute: str) -> list[str]:
    found: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == element and attribute in attributes:
            found.append(attributes[attribute])

    parse_xml(data, start, lambda name: None, lambda words: None)
    return found


class _Package:
    """The manifest, the spine, and the title of a book."""

    def __init__(self, data: bytes):
        self.title = ""
        self._in_title = False
        self._files: dict[str, str] = {}
        self._order: list[str] = []
        parse_xml(data, self._start, self._end, self._add)

    def chapters(self) -> list[str]:
        """The files of the spine, each once."""
        return list(dict.fromkeys(self._files[each] for each in self._order if each in self._files))

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "item" and "html" in attributes.get("media-type", ""):
            self._files[attributes.get("id", "")] = attributes.get("href", "")
        elif name == "itemref":
            self._order.append(attributes.get("idref", ""))
        self._in_title = name == "title" and not self.title

    def _end(self, name: str) -> None:
        self._in_title = False

    def _add(self, words: str) -> None:
        if self._in_title and len(self.title) < 1000:
            self.title += words
