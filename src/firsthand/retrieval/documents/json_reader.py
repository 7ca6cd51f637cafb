"""Reads JSON and JSONL: a document for each line, or for each object of a list, by its id, title and text fields.

JSON without a text field, such as a settings file, is one document of the text as it stands.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.file_content import MAX_TITLE_CHARS, FileContent, NoTextField, ReadSettings
from firsthand.system.json_values import values_in_text
from firsthand.system.plurals import count_of

TEXT_FIELDS = ("text", "contents", "content", "body")
ID_FIELDS = ("id", "_id")
MAX_ID_CHARS = 500
MAX_VALUES = 5_000_000
"""JSON values of a file, or of a line of JSONL; as objects they take some 500 MB."""
MAX_NAMED = 100
"""Items without a document that a file names; the others are counted."""
MAX_DOCUMENTS = 500_000
DOCUMENT_BYTES = 100
"""A file has at most MAX_DOCUMENTS documents, or one for so many of its characters: each takes a kilobyte of memory."""
MAX_FIELDS = 200
"""Fields of a record; one with more is refused, since a filter must see all of them."""
_TOO_MANY_FIELDS = f"it has more than {MAX_FIELDS} fields: leave out those that no filter names"
MAX_META_CHARS = 1000
"""Characters of a value, of a list or an object as JSON; longer ones are left out, with a note."""
_MAX_TOLD = 20
"""Names of fields, or numbers of records, in a note."""
_LEFT_OUT = f"fields that filters do not see (of a name that is taken, beyond 64 bits or {MAX_META_CHARS:,} characters)"
_WHOLE = "fields of lists or objects, which filters compare whole"
_OTHER_TEXTS = "texts beside the one that is indexed, which --text-field names"
_Told = Counter[tuple[str, str]]
"""Number of records by (note, field name)."""


def read_jsonl(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """A document a line, whose id is `NAME:ID`; lines that are no documents are named, and the others read."""
    text, notes = decode(data)
    items = ((number, *_parsed(line)) for number, line in enumerate(_lines(text), 1) if line.strip())
    return _content(items, name, settings, notes, max(MAX_DOCUMENTS, len(text) // DOCUMENT_BYTES))


def read_json(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """Documents out of a list or an object with a text field; any other JSON is text."""
    text, notes = decode(data)
    body, problem = _parsed(text)
    if problem:
        raise DataError(f"it is {problem}")
    several = body if isinstance(body, list) else None
    if several and all(isinstance(each, dict) and _text_field(each, settings) is not None for each in several[:20]):
        most = max(MAX_DOCUMENTS, len(text) // DOCUMENT_BYTES)
        return _content(((number, each, "") for number, each in enumerate(several, 1)), name, settings, notes, most)
    told: _Told = Counter()
    if isinstance(body, dict) and (made := _document(body, 1, name, settings, told, alone=True)) is not None:
        if len(body) > MAX_FIELDS:
            raise DataError(_TOO_MANY_FIELDS)
        return FileContent((made,), (*notes, *_field_notes(told)))
    if settings.text_field is not None:
        raise DataError(f"it has no field {settings.text_field!r}: name another by --text-field")
    text, _, dropped = clean(text)
    return FileContent((Document(name, text, name, meta={"kind": "text"}),), tuple(notes + dropped))


def _content(
    items: Iterator[tuple[int, Any, str]], name: str, settings: ReadSettings, notes: list[str], most: int
) -> FileContent:
    documents: dict[str, Document] = {}
    failed: list[tuple[str, str]] = []
    more = 0
    told: _Told = Counter()
    blank: list[int] = []
    only_records = True
    for number, body, problem in items:
        made = None if problem or not isinstance(body, dict) else _document(body, number, name, settings, told)
        only_records = only_records and isinstance(body, dict) and made is None
        if is_blank := made is not None and not made.text.strip():
            blank.append(number)
        if made is not None and len(body) <= MAX_FIELDS and _is_free(made.id, documents):
            documents[made.id] = made
            if len(documents) > most:
                raise DataError(f"it has more than {most:,} documents: divide the file")
        elif is_blank:
            continue
        elif len(failed) < MAX_NAMED:
            failed.append((f"{name}:{number}", _fault(body, problem, made, settings)))
        else:
            more += 1
    if failed and only_records and settings.text_field is None:
        raise NoTextField(
            f"no line has a text in a field {' or '.join(TEXT_FIELDS[:2])!r}: name the field by --text-field"
        )
    if more:
        failed.append((name, f"it has {count_of(more, 'more item', ',')} of which no document was made"))
    if failed or any(each.text.strip() for each in documents.values()):  # else the whole file is told to be empty
        notes = [*notes, *_blank_notes(blank)]
    return FileContent(tuple(documents.values()), (*notes, *_field_notes(told)), tuple(failed))


def _is_free(id: str, documents: dict[str, Document]) -> bool:
    """True if no record with a text has the id."""
    return id not in documents or not documents[id].text.strip()


def _fault(body: Any, problem: str, made: Document | None, settings: ReadSettings) -> str:
    """Why an item is no document of its own."""
    if made is not None and len(body) > MAX_FIELDS:
        return _TOO_MANY_FIELDS
    if made is not None:
        return f"the id of {made.id!r} came before: give each its own"
    if problem or not isinstance(body, dict):
        return f"it is {problem or 'no JSON object'}"
    wanted = settings.text_field or " or ".join(TEXT_FIELDS[:2])
    return f"it has no text in a field {wanted!r}: name the field by --text-field"


def _lines(text: str) -> Iterator[str]:
    """The lines one by one: all of them at once can take thirty times the text."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _document(
    body: dict[str, Any], number: int, name: str, settings: ReadSettings, told: _Told, *, alone: bool = False
) -> Document | None:
    """The document of an object; None if it has no text. What is to be told of its fields is added to `told`."""
    text_field = _text_field(body, settings)
    if text_field is None:
        return None
    text = clean(body[text_field])[0]
    id_fields = (settings.id_field,) if settings.id_field else ID_FIELDS
    id_field = next((key for key in id_fields if isinstance(body.get(key), str | int)), None)
    found = number if id_field is None else body[id_field]
    title = body.get(settings.title_field or "title")
    is_title = isinstance(title, str | int)
    used = {text_field, id_field, "title" if is_title and settings.title_field in (None, "title") else None}
    meta: Json = {"kind": "record"}
    for key, value in body.items():
        if key in used or value is None:
            continue
        field = clean_line(str(key))[:100]
        if key in TEXT_FIELDS and isinstance(value, str):
            if not value.strip():
                continue
            told[_OTHER_TEXTS, field] += 1
        if field in meta or field == "title" or not _is_value(value):
            told[_LEFT_OUT, field] += 1
            continue
        if isinstance(value, list | dict):
            told[_WHOLE, field] += 1
            value = json.loads(clean(json.dumps(value, ensure_ascii=False))[0])
        meta[field] = clean(value)[0] if isinstance(value, str) else value
    return Document(
        name if alone else f"{name}:{clean_line(str(found))[:MAX_ID_CHARS] or number}",
        text,
        clean_line(str(title))[:MAX_TITLE_CHARS] if is_title else "",
        meta=meta,
        locations=() if alone else (Location(0, "line", str(number)),),
    )


def _is_value(value: Any) -> bool:
    """True if a filter can compare it, and it is short enough."""
    if isinstance(value, str):
        return len(value) <= MAX_META_CHARS
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 1 << 63
    try:
        return len(json.dumps(value, ensure_ascii=False, allow_nan=False)) <= MAX_META_CHARS
    except (ValueError, RecursionError):
        return False


def _blank_notes(numbers: list[int]) -> list[str]:
    """A note of the lines or items whose text is blank; none if there are none."""
    if not numbers:
        return []
    more = f" and {len(numbers) - _MAX_TOLD:,} more" if len(numbers) > _MAX_TOLD else ""
    named = ", ".join(map(str, numbers[:_MAX_TOLD]))
    return [f"{count_of(len(numbers), 'record', ',')} without text, not indexed: number {named}{more}"]


def _field_notes(told: _Told) -> list[str]:
    """A note for each of the things that are told of fields, with their names and how many records have them."""
    notes = []
    for what in dict.fromkeys(what for what, _ in told):
        names = [f"{name} ({count:,})" for (each, name), count in told.items() if each == what]
        more = f" and {len(names) - _MAX_TOLD} more" if len(names) > _MAX_TOLD else ""
        notes.append(f"{what}: {', '.join(names[:_MAX_TOLD])}{more}")
    return notes


def _text_field(body: dict[str, Any], settings: ReadSettings) -> str | None:
    """The first field with a text that is not blank, or else with a blank one; None if there is none."""
    names = (settings.text_field,) if settings.text_field else TEXT_FIELDS
    texts = [key for key in names if isinstance(body.get(key), str)]
    return next((key for key in texts if body[key].strip()), texts[0] if texts else None)


def _parsed(text: str) -> tuple[Any, str]:
    """The value, or what is wrong with it."""
    if problem := too_many_values(text):
        return None, problem
    try:
        return json.loads(text, parse_constant=_refuse), ""
    except RecursionError:
        return None, "JSON nested too deeply"
    except ValueError as error:
        return None, f"no JSON: {json_fault(error)}"


def too_many_values(text: str) -> str:
    """A problem where a text holds more JSON values than are decoded, or nothing."""
    if values_in_text(text, MAX_VALUES) <= MAX_VALUES:
        return ""
    return f"JSON of more than {MAX_VALUES:,} values: divide it, or write it as JSONL, a document a line"


def json_fault(error: ValueError) -> str:
    """The fault of a text that is no JSON; Python's own bound on digits is named as such."""
    return "a number has more than 4,300 digits" if "integer string conversion" in str(error) else str(error)[:100]


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
