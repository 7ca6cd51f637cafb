"""Reads PDF by PDFium, page by page. Encrypted files and pages without text are said; there is no OCR.

PDFium parses bytes of strangers in C++: call this in a bounded process alone.
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

from firsthand.errors import DataError, MissingExtra
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.file_content import MAX_TITLE_CHARS, FileContent, ReadSettings

MAX_PAGES = 20_000
_HYPHEN = re.compile("[\x02\ufffe]\\r?\\n?")
"""PDFium's mark of a word that was divided at the end of a line."""


def read_pdf(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The text of all pages, each a place. DataError if there is a password, or no text at all."""
    try:
        import pypdfium2
    except ImportError:
        raise MissingExtra("pypdfium2", "rag", "reading PDF") from None
    pdfium: Any = pypdfium2  # it has no types
    try:
        opened = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise DataError("it is encrypted and needs a password: save it without one") from None
        raise DataError(f"it is no PDF that can be read: {clean_line(str(error))}") from None
    with closing(opened) as pdf:
        if len(pdf) > MAX_PAGES:
            raise DataError(f"it has {len(pdf)} pages, and at most {MAX_PAGES} are read: divide it")
        pages, problems = _pages(pdf, pdfium)
        title = clean_line(str(pdf.get_metadata_dict().get("Title") or ""))[:MAX_TITLE_CHARS]
    places, written, length = [], [], 0
    for number, page in enumerate(pages, 1):
        if page.strip():
            places.append(Location(length, "page", str(number)))
            written.append(page)
            length += len(page)
    if not written:
        raise DataError(f"none of its {len(pages)} pages has text: it may be scanned, and needs OCR first")
    empty = [number for number, page in enumerate(pages, 1) if not page.strip()]
    notes = [f"without text, perhaps scanned: {_numbers(empty)}"] if empty else []
    text, moved, dropped = clean("".join(written), places)
    return FileContent(
        (Document(name, text, title, meta={"kind": "pdf"}, locations=moved),), tuple(notes + problems + dropped)
    )


def _pages(pdf: Any, pdfium: Any) -> tuple[list[str], list[str]]:
    pages, broken = [], []
    for number in range(len(pdf)):
        try:
            with closing(pdf[number]) as page, closing(page.get_textpage()) as shown:
                pages.append(_HYPHEN.sub("", shown.get_text_bounded()).replace("\r\n", "\n").rstrip() + "\n\n")
        except pdfium.PdfiumError:
            pages.append("")
            broken.append(number + 1)
    return pages, [f"cannot be read: {_numbers(broken)}"] if broken else []


def _numbers(pages: list[int]) -> str:
    shown = ", ".join(map(str, pages[:10]))
    return f"page{'s' * (len(pages) > 1)} {shown}{f' and {len(pages) - 10} more' if len(pages) > 10 else ''}"
