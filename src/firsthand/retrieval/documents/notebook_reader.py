"""Reads Jupyter notebooks: the sources of their cells, code in fences; outputs are left out."""

from __future__ import annotations

import json
from typing import Any

from firsthand.errors import DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings, first_heading


def read_notebook(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The cells one after the other, each a place."""
    text, notes = decode(data)
    try:
        body = json.loads(text)
        cells = body["cells"] if "cells" in body else body["worksheets"][0]["cells"]  # versions 4 and 3
        sources = [(str(cell.get("cell_type")), _joined(cell.get("source", cell.get("input", "")))) for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(f"it is no notebook: {type(error).__name__}: {str(error)[:100]}") from None
    written, places, length = [], [], 0
    for number, (kind, source) in enumerate(sources, 1):
        if not source.strip():
            continue
        paragraph = f"```\n{source}\n```\n\n" if kind == "code" else f"{source}\n\n"
        places.append(Location(length, "heading", f"cell {number}"))
        written.append(paragraph)
        length += len(paragraph)
    made, moved, dropped = clean("".join(written), places)
    document = Document(name, made, first_heading(made), meta={"kind": "notebook"}, locations=moved)
    return FileContent((document,), tuple(notes + dropped))


def _joined(source: Any) -> str:
    return "".join(map(str, source)) if isinstance(source, list) else str(source)
