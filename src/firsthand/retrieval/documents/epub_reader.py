"""Reads EPUB without copy protection: the chapters in the order of the spine, each as the HTML, SVG or XML it is."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

from firsthand.errors import DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.file_content import MAX_TITLE_CHARS, FileContent, ReadSettings, first_heading
from firsthand.retrieval.documents.html_reader import page_text, page_title
from firsthand.retrieval.documents.zip_parts import ZipParts, parse_xml
from firsthand.system.plurals import count_of

_READ = re.compile("html|xml|oeb1-document")
"""Media types of chapters that are read have one of these; SVG is `image/svg+xml`."""
_MAX_FALLBACKS = 5
_NAMED = 5
"""Chapters that a note names, or references; of further ones it gives the number."""
_TOLD = 3
"""Chapters of which a remark of the same kind is told in full."""


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
    remarks: dict[str, list[str]] = {}
    empty: list[str] = []
    length = 0
    for number, target in enumerate(package.chapters(), 1):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(roots[0]), unquote(target)))
        try:
            source, told = decode(parts.read(path))
        except DataError as error:
            notes.append(f"chapter {number} cannot be read: {error}")
            continue
        source, _, dropped = clean(source)
        text, _, hidden = page_text(source, is_xml=True)
        for note in told + dropped + hidden:
            remarks.setdefault(note.partition(":")[0], []).append(f"chapter {number}: {note}")
        if not text.strip():
            empty.append(str(number))
        else:
            places.append(Location(length, "heading", first_heading(text) or page_title(source) or f"chapter {number}"))
            written.append(f"{text}\n\n")
            length += len(text) + 2
    if not written:
        raise DataError("none of its chapters has text")
    notes += [note for kind, given in remarks.items() for note in _bounded(kind, given)]
    if empty:
        notes.append(f"{count_of(len(empty), 'chapter')} without text, such as a picture: {_named(empty)}")
    if unread := package.unread():
        notes.append(f"{count_of(len(unread), 'reference')} of its spine to no text that is read: {_named(unread)}")
    title = clean_line(package.title)[:MAX_TITLE_CHARS]
    document = Document(name, "".join(written), title, meta={"kind": "epub"}, locations=tuple(places))
    return FileContent((document,), tuple(notes))


def _bounded(kind: str, told: list[str]) -> list[str]:
    """The first remarks of a kind, and the number of further chapters that have one."""
    more = len(told) - _TOLD
    return told if more <= 0 else [*told[:_TOLD], f"{count_of(more, 'further chapter')}: {kind}"]


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


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
        self._others: dict[str, tuple[str, str]] = {}
        """Media type and fallback of each file of the manifest that is not read."""
        self._order: list[str] = []
        parse_xml(data, self._start, self._end, self._add)

    def chapters(self) -> list[str]:
        """The files of the spine, each once."""
        files = map(self._file, self._order)
        return list(dict.fromkeys(each for each in files if each is not None))

    def unread(self) -> list[str]:
        """The references of the spine, each once, that lead to no file that is read, with the reason."""
        return [
            f"{each[:100]!r} ({self._others[each][0][:100] if each in self._others else 'not in the manifest'})"
            for each in dict.fromkeys(self._order)
            if self._file(each) is None
        ]

    def _file(self, id: str) -> str | None:
        """The file of an item, or of the one that stands for it where it cannot be read; None if there is none."""
        for _ in range(_MAX_FALLBACKS):
            if id in self._files or id not in self._others:
                break
            id = self._others[id][1]
        return self._files.get(id)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "item":
            id, kind = attributes.get("id", ""), attributes.get("media-type", "")
            if _READ.search(kind):
                self._files[id] = attributes.get("href", "")
            else:
                self._others[id] = kind, attributes.get("fallback", "")
        elif name == "itemref":
            self._order.append(attributes.get("idref", ""))
        self._in_title = name == "title" and not self.title

    def _end(self, name: str) -> None:
        self._in_title = False

    def _add(self, words: str) -> None:
        if self._in_title and len(self.title) < 1000:
            self.title += words
