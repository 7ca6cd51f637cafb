"""An index in a Weaviate class, over its REST and GraphQL interfaces.

Requests are made with httpx, as Weaviate's Python client pins protobuf below 7, which other extras need. Vectors are
compared by dot product in a flat index, which is exact. A class has fixed properties, so the fields of a record are tags
`name=value`; ranges of numbers and negations are resolved to ids here, which suits thousands of chunks.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import UUID

import httpx
import numpy as np

from firsthand.errors import ConfigError, DataError, FirsthandError, StoreError
from firsthand.message import Json
from firsthand.retrieval.chunk_index import IndexHeader, Vectors
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record, Some, record_pages
from firsthand.system.bounded_reply import ask
from firsthand.system.stored_json import decoded_object

MAX_REPLY_BYTES, MAX_REPLY_VALUES, MAX_REPLY_S = 256 * 2**20, 2_000_000, 600.0
"""Bounds of one reply: a hundred vectors of 20,000 numbers."""
MAX_HITS = 10_000
"""The most objects of one answer, by Weaviate's QUERY_MAXIMUM_RESULTS."""
_PAGE = 100
_NO_ID = "-"
_CLASS_NAME = re.compile(r"[A-Z][_0-9A-Za-z]{0,254}")
_PROPERTIES = {"rid": "text", "tags": "text[]", "fields": "text", "payload": "text"}
_FILTERED = ("rid", "tags")


def open_weaviate_index(client: httpx.Client | str, name: str, header: IndexHeader | None = None) -> RecordIndex:
    """Open the index in the class of that name; with a header, make it if it is not there.

    `client` is the server's address, or an `httpx.Client` with a `base_url` and what the server asks for, such as
    `headers={"Authorization": "Bearer KEY"}`. ConfigError if no class can have the name.
    """
    if _CLASS_NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name[:60]!r} is no name of a Weaviate class: give a capital letter, then letters, digits and _"
        )
    return RecordIndex(WeaviateRecords(client, name, header), f"Weaviate's class {name!r}", header)


class WeaviateRecords:
    """A RecordStore in a class. What was written is found by the next call, unless the server sets ASYNC_INDEXING."""

    transactional = False

    def __init__(self, client: httpx.Client | str, name: str, header: IndexHeader | None):
        self._own = isinstance(client, str)
        try:
            self._client = httpx.Client(base_url=client, timeout=30) if isinstance(client, str) else client
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise ConfigError(f"{str(client)[:100]!r} is no address of a Weaviate server: {error}") from None
        self._name = name
        try:
            self._open_class(header)
        except FirsthandError:
            self.close()
            raise

    def atomically(self) -> AbstractContextManager[None]:
        """No transaction: each object is one."""
        return nullcontext()

    def snapshot(self) -> AbstractContextManager[None]:
        """No snapshot: each read sees what is stored by then."""
        return nullcontext()

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records, in place of those with their ids, the last when all others are stored: a batch has no order."""
        for page in record_pages(records, _PAGE):
            found = self._asked("POST", "/v1/batch/objects", {"objects": [self._object(each) for each in page]})
            self._check_stored(found, len(page))

    def remove(self, ids: Sequence[str]) -> None:
        """Delete the records with these ids, as far as there are any."""
        for first in range(0, len(ids), _PAGE):
            where = {"path": ["rid"], "operator": "ContainsAny", "valueTextArray": list(ids[first : first + _PAGE])}
            found = self._asked("DELETE", "/v1/batch/objects", {"match": {"class": self._name, "where": where}})
            results = found.get("results") if isinstance(found, dict) else None
            if not isinstance(results, dict) or results.get("failed", 0) != 0:
                raise self._refused("delete", f"it answered {_shown(found)}")

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records that are there, by id."""
        found: dict[str, Record] = {}
        for first in range(0, len(ids), _PAGE):
            some = tuple(dict.fromkeys(ids[first : first + _PAGE]))
            for row in self._rows(f"where: {_where(Among(some))}, limit: {len(some)}", vectors):
                found[row["rid"]] = _record(row)
        return found

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        """All records for which the condition holds, in the order of their ids."""
        return [_record(row) for row in self._all(_where(self._resolved(condition)), vectors)]

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        """The ids and dot products of the k records of highest dot product for which the condition holds, best first."""
        numbers = json.dumps([float(each) for each in vector])
        asked = (
            f"nearVector: {{vector: {numbers}}}, where: {_where(self._resolved(condition))}, limit: {min(k, MAX_HITS)}"
        )
        found = []
        for row in self._rows(asked, False, "distance"):
            distance = row["_additional"].get("distance")
            if not isinstance(distance, int | float) or isinstance(distance, bool):
                raise self._refused("search", f"a hit has the distance {_shown(distance)}")
            found.append((row["rid"], -float(distance)))
        return found

    def close(self) -> None:
        """Close the connection, unless it is the caller's client."""
        if self._own:
            self._client.close()

    # -- the class --

    def _open_class(self, header: IndexHeader | None) -> None:
        found = self._asked(
            "GET", f"/v1/schema/{self._name}", missing=header is not None or "give a header to make one"
        )
        if found is None:
            properties: list[Json] = [
                {"name": name, "dataType": [kind], "indexFilterable": name in _FILTERED, "indexSearchable": False}
                | ({"tokenization": "field"} if name in _FILTERED else {})
                for name, kind in _PROPERTIES.items()
            ]
            body = {"class": self._name, "vectorizer": "none", "vectorIndexType": "flat", "properties": properties}
            found = self._asked("POST", "/v1/schema", {**body, "vectorIndexConfig": {"distance": "dot"}})
        kept = found if isinstance(found, dict) else {}
        rows = kept.get("properties")
        names = {each.get("name") for each in rows if isinstance(each, dict)} if isinstance(rows, list) else set()
        config = kept.get("vectorIndexConfig")
        distance = config.get("distance") if isinstance(config, dict) else None
        if not names >= set(_PROPERTIES) or distance != "dot":
            raise StoreError(
                f"Weaviate's class {self._name!r} was not made by firsthand: its distance is {_shown(distance)} and its "
                f"properties {_shown(sorted(map(str, names)))}; give another name"
            )

    def _object(self, record: Record) -> Json:
        tags = [name if isinstance(value, float) else f"{name}={value}" for name, value in record.fields.items()]
        fields = json.dumps(dict(record.fields))
        return {
            "class": self._name,
            "id": str(UUID(record.id)),
            "properties": {"rid": record.id, "tags": tags, "fields": fields, "payload": record.payload},
            "vector": [1.0] if record.vector is None else record.vector.tolist(),
        }

    def _check_stored(self, found: Any, count: int) -> None:
        """StoreError unless each object of a batch was stored: a batch of failures is answered with 200."""
        rows = found if isinstance(found, list) else []
        if len(rows) != count:
            raise self._refused("store", f"it answers for {len(rows)} of {count} objects")
        for each in rows:
            result = each.get("result") if isinstance(each, dict) else None
            if not isinstance(result, dict) or result.get("errors") or result.get("status", "SUCCESS") != "SUCCESS":
                raise self._refused("store", _shown(result))

    # -- conditions --

    def _resolved(self, condition: Condition) -> Condition:
        """A condition without ranges and negations, which are replaced by the ids for which they hold."""
        if isinstance(condition, Not):
            held = {row["rid"] for row in self._all(_where(self._resolved(condition.condition)), None)}
            every = [row["rid"] for row in self._all(_where(Every(())), None)]
            return Among(tuple(id for id in every if id not in held))
        if isinstance(condition, Range):
            low = -math.inf if condition.low is None else condition.low
            high = math.inf if condition.high is None else condition.high
            rows = [_record(row) for row in self._all(_contains("tags", [condition.field]), False)]
            return Among(tuple(each.id for each in rows if low <= float(each.fields[condition.field]) <= high))
        if isinstance(condition, Match | Among):
            return condition
        return type(condition)(tuple(self._resolved(each) for each in condition.conditions))

    # -- requests --

    def _all(self, where: str, vectors: bool | None) -> list[Json]:
        """The rows of all objects that a filter passes, page by page; without their contents if `vectors` is None."""
        found: list[Json] = []
        while True:
            after = found[-1]["rid"] if found else ""
            beyond = f'{{path: ["rid"], operator: GreaterThan, valueText: {json.dumps(after)}}}'
            asked = f"{{operator: And, operands: [{where}, {beyond}]}}" if after else where
            rows = self._rows(f'where: {asked}, sort: [{{path: ["rid"], order: asc}}], limit: {_PAGE}', vectors)
            if rows and [row["rid"] for row in rows] != sorted({row["rid"] for row in rows} - {after}):
                raise self._refused("list objects", "it does not list each once, in the order of their ids")
            found += rows
            if len(rows) < _PAGE:
                return found

    def _rows(self, arguments: str, vectors: bool | None, more: str = "id") -> list[Json]:
        """The objects of a Get query, checked to be ours."""
        contents = "" if vectors is None or more == "distance" else "fields payload "
        more = "vector" if vectors else more
        query = f"{{ Get {{ {self._name}({arguments}) {{ rid {contents}_additional {{ {more} }} }} }} }}"
        body = self._asked("POST", "/v1/graphql", {"query": query})
        errors = body.get("errors") if isinstance(body, dict) else None
        if errors or not isinstance(body, dict):
            raise self._refused("search", _shown(errors or body))
        try:
            rows = body["data"]["Get"][self._name] or []
            if not all(_is_ours(row, contents) for row in rows):
                raise TypeError
        except (KeyError, TypeError):
            raise self._refused("search", f"it answered {_shown(body)}") from None
        return list(rows)

    def _asked(self, method: str, path: str, body: Json | None = None, *, missing: bool | str = False) -> Any:
        """The reply's JSON; None for 404 if `missing` is True."""
        try:
            request = self._client.build_request(method, path, json=body)
            reply = ask(
                self._client,
                request,
                max_bytes=MAX_REPLY_BYTES,
                max_values=MAX_REPLY_VALUES,
                within_s=MAX_REPLY_S,
            )
        except DataError as error:
            raise self._refused("answer", str(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._refused("be reached", f"{type(error).__name__}: {error}") from error
        if reply.status == 404 and missing:
            if missing is True:
                return None
            raise StoreError(f"Weaviate has no class {self._name!r}: {missing}")
        if reply.status not in (200, 201, 204):
            raise self._refused("answer", f"status {reply.status}: {_shown(reply.text)}")
        try:
            return reply.json()
        except ValueError:
            raise self._refused("answer", f"it is not JSON: {_shown(reply.text)}") from None

    def _refused(self, what: str, why: str) -> StoreError:
        return StoreError(f"Weaviate cannot {what} in {self._name!r}: {why}")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return " ".join(text.split())[:300]


def _contains(path: str, values: Sequence[str]) -> str:
    if not values:
        return f'{{path: ["rid"], operator: Equal, valueText: "{_NO_ID}"}}'
    return f'{{path: ["{path}"], operator: ContainsAny, valueText: {json.dumps(list(values))}}}'


def _where(condition: Condition) -> str:
    """The GraphQL filter of a condition without ranges and negations. Values are JSON strings, which GraphQL reads alike."""
    if isinstance(condition, Match):
        return _contains("tags", [f"{condition.field}={value}" for value in condition.values])
    if isinstance(condition, Among):
        return _contains("rid", condition.ids)
    assert isinstance(condition, Every | Some), "ranges and negations are resolved before"
    parts = [_where(each) for each in condition.conditions]
    if not parts and isinstance(condition, Every):
        return f'{{path: ["rid"], operator: NotEqual, valueText: "{_NO_ID}"}}'
    if not parts:
        return _contains("rid", ())
    sign = "And" if isinstance(condition, Every) else "Or"
    return parts[0] if len(parts) == 1 else f"{{operator: {sign}, operands: [{', '.join(parts)}]}}"


def _is_ours(row: Any, contents: str) -> bool:
    """True if a row has the id and the texts that we wrote."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("rid"), str)
        and isinstance(row.get("_additional"), dict)
        and all(isinstance(row.get(name), str) for name in contents.split())
    )


def _record(row: Json) -> Record:
    try:
        fields, vector = (
            decoded_object(row["fields"], MAX_REPLY_BYTES, MAX_REPLY_VALUES),
            row["_additional"].get("vector"),
        )
        values = None if vector is None else np.array(vector, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise StoreError(f"Weaviate's object {row['rid'][:40]!r} was changed: index its document again") from None
    return Record(row["rid"], fields, row["payload"], values)
