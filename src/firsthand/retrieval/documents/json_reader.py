"""Reads JSON and JSONL: a document for each line, or for each object of a list, by its id, title and text fields.

JSON without a text field, such as a settings file, is one document of the text as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.file_content import MAX_TITLE_CHARS, FileContent, ReadSettings

TEXT_FIELDS = ("text", "contents", "content", "body")
ID_FIELDS = ("id", "_id")
MAX_ID_CHARS = 500
_MAX_META = 40
_MAX_META_CHARS = 1000


def read_jsonl(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """A document a line, whose id is `NAME:ID`; lines that are no documents are named, and the others read."""
    text, notes = decode(data)
    items = ((number, *_parsed(line)) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return _content(items, name, settings, notes)


def read_json(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """Documents out of a list or an object with a text field; any other JSON is text."""
    text, notes = decode(data)
    body, problem = _parsed(text)
    if problem:
        raise DataError(f"it is {problem}")
    several = body if isinstance(body, list) else None
    if several and all(isinstance(each, dict) and _text_of(each, settings) is not None for each in several[:20]):
        return _content(((number, each, "") for number, each in enumerate(several, 1)), name, settings, notes)
    if isinstance(body, dict) and _text_of(body, settings) is not None:
        return FileContent((_document(body, 1, name, settings, alone=True),), tuple(notes))
    if settings.text_field is not None:
        raise DataError(f"it has no field {settings.text_field!r}: name another by --text-field")
    text, _, dropped = clean(text)
    return FileContent((Document(name, text, name, meta={"kind": "text"}),), tuple(notes + dropped))


def _content(items: Iterator[tuple[int, Any, str]], name: str, settings: ReadSettings, notes: list[str]) -> FileContent:
    documents: dict[str, Document] = {}
    failed: list[tuple[str, str]] = []
    for number, body, problem in items:
        place = f"{name}:{number}"
        wanted = settings.text_field or " or ".join(TEXT_FIELDS[:2])
        if problem or not isinstance(body, dict):
            failed.append((place, f"it is {problem or 'no JSON object'}"))
        elif _text_of(body, settings) is None:
            failed.append((place, f"it has no text in a field {wanted!r}: name the field by --text-field"))
        else:
            made = _document(body, number, name, settings)
            if made.id in documents:
                failed.append((place, f"the id of {made.id!r} came before: give each its own"))
            else:
                documents[made.id] = made
    return FileContent(tuple(documents.values()), tuple(notes), tuple(failed))


def _document(body: dict[str, Any], number: int, name: str, settings: ReadSettings, *, alone: bool = False) -> Document:
    text = clean(_text_of(body, settings) or "")[0]
    id_fields = (settings.id_field,) if settings.id_field else ID_FIELDS
    found = next((body[key] for key in id_fields if isinstance(body.get(key), str | int)), number)
    title = body.get(settings.title_field or "title")
    used = {*TEXT_FIELDS, *ID_FIELDS, settings.text_field, settings.id_field, "title"}
    meta: Json = {"kind": "record"}
    for key, value in list(body.items())[:_MAX_META]:
        is_short = isinstance(value, float | bool) or (isinstance(value, str) and len(value) <= _MAX_META_CHARS)
        if key not in used and (is_short or (isinstance(value, int) and abs(value) < 1 << 63)):
            meta.setdefault(clean_line(str(key))[:100], clean(value)[0] if isinstance(value, str) else value)
    return Document(
        name if alone else f"{name}:{clean_line(str(found))[:MAX_ID_CHARS] or number}",
        text,
        clean_line(str(title))[:MAX_TITLE_CHARS] if isinstance(title, str | int) else "",
        meta=meta,
        locations=() if alone else (Location(0, "line", str(number)),),
    )


def _text_of(body: dict[str, Any], settings: ReadSettings) -> str | None:
    names = (settings.text_field,) if settings.text_field else TEXT_FIELDS
    return next((body[key] for key in names if isinstance(body.get(key), str)), None)


def _parsed(text: str) -> tuple[Any, str]:
    """The value, or what is wrong with it."""
    try:
        return json.loads(text, parse_constant=_refuse), ""
    except RecursionError:
        return None, "JSON nested too deeply"
    except ValueError as error:
        return None, f"no JSON: {json_fault(error)}"


def json_fault(error: ValueError) -> str:
    """The fault of a text that is no JSON; Python's own bound on digits is named as such."""
    return "a number has more than 4,300 digits" if "integer string conversion" in str(error) else str(error)[:100]


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
