"""Reads records that a server gives back: those that we wrote, or a StoreError that names the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from firsthand.errors import ConfigError, StoreError
from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import Vectors
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.store.records import Record
from firsthand.system.stored_json import decoded_column, decoded_object

_UNREADABLE = (TypeError, ValueError, KeyError, RecursionError, OverflowError, ConfigError)
"""Errors raised while a malformed payload is read."""
_MAX_VALUES, _MAX_CHUNK_VALUES = 2_000_000, 100_000
"""The values in a document's record, such as its chunks and places, and in a chunk's, whose metadata are few."""
_MAX_DIMENSION = 100_000
"""Numbers of a vector that comes as text."""


@dataclass(frozen=True)
class StoredDocument:
    """The payload of a document's record, without the document itself, which is read when it is asked for."""

    id: str
    text: str
    sha256: str
    digest: str
    chunks: tuple[str, ...]
    body: Json
    """The document's values by name."""


def stored_record(index: str, id: Any, fields: Any, payload: Any, vector: Any = None) -> Record:
    """The record of a row, with fields and vector as they are or as JSON. StoreError if it has another form."""
    try:
        fields = _object(fields, _MAX_VALUES) if isinstance(fields, str) else fields
        vector = decoded_column(vector, len(vector), _MAX_DIMENSION) if isinstance(vector, str) else vector
        numbers = None if vector is None else np.asarray(vector, dtype=np.float32)
        if not isinstance(id, str) or not isinstance(payload, str) or not isinstance(fields, Mapping):
            raise TypeError
        if not all(isinstance(each, str | int | float) for each in fields.values()):
            raise TypeError
        if numbers is not None and numbers.ndim != 1:
            raise ValueError
    except _UNREADABLE:
        raise damaged(index, str(id)) from None
    return Record(id, fields, payload, numbers)


def stored_chunk(record: Record, index: str) -> Chunk:
    """The chunk of a record. StoreError if another program has changed it."""
    try:
        body = _object(record.payload, _MAX_CHUNK_VALUES)
        chunk = Chunk(**body)
        texts = (chunk.document, chunk.text, chunk.heading, "" if chunk.parent is None else chunk.parent)
        has_place = type(chunk.start) is type(chunk.end) is int
        if has_place and isinstance(chunk.meta, dict) and all(isinstance(each, str) for each in texts):
            return chunk
    except _UNREADABLE:
        pass
    raise damaged(index, record.id)


def stored_document(record: Record, index: str) -> StoredDocument:
    """The document of a record. StoreError if another program has changed it."""
    try:
        body = _object(record.payload, _MAX_VALUES)
        held, chunks = body["document"], body["chunks"]
        found = StoredDocument(held["id"], held["text"], body["sha256"], body["digest"], tuple(chunks), held)
        texts = (found.id, found.text, found.sha256, found.digest, *found.chunks)
        if isinstance(chunks, list) and all(isinstance(each, str) for each in texts):
            return found
    except _UNREADABLE:
        pass
    raise damaged(index, record.id)


def whole_document(record: Record, index: str) -> Document:
    """The document of a record, with its places. StoreError if another program has changed it."""
    body = dict(stored_document(record, index).body)
    try:
        places = tuple(Location(**place) for place in body.pop("locations"))
        document = Document(**body, locations=places)
        texts = (document.title, document.source, *(text for place in places for text in (place.kind, place.label)))
        has_places = all(type(place.start) is int for place in places)
        if has_places and isinstance(document.meta, dict) and all(isinstance(each, str) for each in texts):
            return document
    except _UNREADABLE:
        pass
    raise damaged(index, record.id)


def stored_number(record: Record, field: str, index: str) -> float:
    """A count among the fields of a record. StoreError if another program has changed it."""
    value = record.fields.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e15:
        raise damaged(index, record.id)
    return float(value)


def stored_text(record: Record, field: str, index: str) -> bytes:
    """A text in hex among the fields of a record. StoreError if another program has changed it."""
    try:
        return bytes.fromhex(str(record.fields[field]))
    except _UNREADABLE:
        raise damaged(index, record.id) from None


def stored_vector(record: Record, dimension: int, index: str) -> Vectors:
    """The vector of a record. StoreError if another program has changed it."""
    vector = record.vector
    if vector is None or vector.shape != (dimension,):
        raise damaged(index, record.id)
    return vector


def damaged(index: str, id: str) -> StoreError:
    """The error for a record that we cannot have written."""
    return StoreError(
        f"{index} has a record {id[:64]!r} that is none of an index: another program has written it; delete it and index "
        "its document again"
    )


def _object(text: str, most: int) -> Json:
    return decoded_object(text, len(text), most)
