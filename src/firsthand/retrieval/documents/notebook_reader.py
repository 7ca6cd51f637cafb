"""Reads Jupyter notebooks: the sources of their cells, code in fences; outputs are left out."""

from __future__ import annotations

import json
from typing import Any

from firsthand.errors import DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings, first_heading
from firsthand.retrieval.documents.json_reader import json_fault, too_many_values


def read_notebook(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The cells one after the other, each a place."""
    text, notes = decode(data)
    written, places, length = [], [], 0
    for number, cell in enumerate(_cells(text), 1):
        if not isinstance(cell, dict):
            raise DataError(f"it is no notebook: its cell {number} is no JSON object; save it again in Jupyter")
        kind, source = str(cell.get("cell_type")), _joined(cell.get("source", cell.get("input", "")))
        if not source.strip():
            continue
        paragraph = f"```\n{source}\n```\n\n" if kind == "code" else f"{source}\n\n"
        places.append(Location(length, "heading", f"cell {number}"))
        written.append(paragraph)
        length += len(paragraph)
    made, moved, dropped = clean("".join(written), places)
    document = Document(name, made, first_heading(made), meta={"kind": "notebook"}, locations=moved)
    return FileContent((document,), tuple(notes + dropped))


def _cells(text: str) -> list[Any]:
    """The cells of a notebook of version 3 or 4."""
    if problem := too_many_values(text):
        raise DataError(f"it is {problem}")
    try:
        body = json.loads(text)
        cells = body["cells"] if "cells" in body else _of_sheets(body["worksheets"])
    except (KeyError, TypeError, IndexError):
        cells = None
    except RecursionError:
        raise DataError("it is no notebook: it is JSON nested too deeply") from None
    except ValueError as error:
        raise DataError(f"it is no notebook: it is no JSON: {json_fault(error)}") from None
    if not isinstance(cells, list):
        raise DataError("it is no notebook: it has no list of cells; save it again in Jupyter")
    return cells


def _of_sheets(sheets: Any) -> Any:
    """The cells of all sheets of a notebook of version 3; None if a sheet has no list of cells, or there is no sheet."""
    cells = [sheet["cells"] for sheet in sheets]
    return (
        [each for held in cells for each in held] if cells and all(isinstance(held, list) for held in cells) else None
    )


def _joined(source: Any) -> str:
    """The text of a cell's source; a cell without one has none."""
    if source is None:
        return ""
    return "".join(map(str, source)) if isinstance(source, list) else str(source)
