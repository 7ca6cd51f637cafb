"""Formats by a file's name: the reader of each, and whether it runs in a bounded process.

Parsers of PDF, DOCX and EPUB always do, and that of HTML where a page is larger than people write them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

from firsthand.retrieval.documents.code_reader import LANGUAGES, read_code
from firsthand.retrieval.documents.file_content import FileContent, Reader, ReadSettings
from firsthand.retrieval.documents.html_reader import read_html
from firsthand.retrieval.documents.json_reader import read_json, read_jsonl
from firsthand.retrieval.documents.notebook_reader import read_notebook
from firsthand.retrieval.documents.table_reader import read_table
from firsthand.retrieval.documents.text_reader import read_markdown, read_text

LARGE_HTML_BYTES = 2_000_000


class FileFormat(NamedTuple):
    """A kind of file and its reader."""

    name: str
    read: Reader
    version: int
    """Raised when the same bytes are read as another text, so that unchanged files are read again."""
    isolated: Callable[[int], bool]
    """True if a file of so many bytes is parsed in a process of its own."""


def _never(size: int) -> bool:
    return False


def _always(size: int) -> bool:
    return True


def _if_large(size: int) -> bool:
    return size > LARGE_HTML_BYTES


def _lazily(name: str) -> Reader:
    """A reader whose module is imported when it is used."""

    def read(data: bytes, path: str, settings: ReadSettings) -> FileContent:
        module = importlib.import_module(f"{__package__}.{name}_reader")
        reader: Reader = getattr(module, f"read_{name}")
        return reader(data, path, settings)

    return read


FORMATS = {
    each.name: each
    for each in (
        FileFormat("text", read_text, 2, _never),
        FileFormat("markdown", read_markdown, 1, _never),
        FileFormat("html", read_html, 7, _if_large),
        FileFormat("pdf", _lazily("pdf"), 3, _always),
        FileFormat("docx", _lazily("docx"), 5, _always),
        FileFormat("epub", _lazily("epub"), 7, _always),
        FileFormat("code", read_code, 2, _never),
        FileFormat("table", read_table, 5, _never),
        FileFormat("jsonl", read_jsonl, 3, _never),
        FileFormat("json", read_json, 3, _never),
        FileFormat("notebook", read_notebook, 2, _never),
    )
}
SUFFIXES = {
    **dict.fromkeys(LANGUAGES, "code"),
    **dict.fromkeys((".txt", ".text", ".rst", ".org", ".adoc", ".tex", ".log", ".srt", ".vtt", ".xml"), "text"),
    **dict.fromkeys((".md", ".markdown", ".mdx"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".csv", ".tsv", ".tab"), "table"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".json": "json", ".ipynb": "notebook", ".pdf": "pdf", ".docx": "docx", ".epub": "epub",
}  # fmt: skip
_NAMES = {"readme": "text", "license": "text", "copying": "text", "notice": "text", "authors": "text", "changelog": "text",
          "makefile": "code", "dockerfile": "code"}  # fmt: skip


def format_of(name: str) -> FileFormat | None:
    """The format of a file by its name; None if it is none that is read."""
    path = PurePosixPath(name)
    known = SUFFIXES.get(path.suffix.lower()) or (_NAMES.get(path.name.lower()) if not path.suffix else None)
    return None if known is None else FORMATS[known]
