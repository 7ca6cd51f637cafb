"""RecordIndex: a ChunkIndex in a collection of records, whatever the engine.

A record for each chunk, one for each document and one for the header. A document's record names the records of its chunks,
and a hit that it does not name is dropped, so that a document shows whole or not at all also where the engine has no
transactions. A read that asks several questions asks them in one snapshot where the engine has them, and else again if a
document changed meanwhile: a search finds each document in its old or its new version. An update overwrites no record that
is named: a chunk has two ids for its records, its own and its twin, and the one that is not named is written. What a
stopped update left is removed when the document is put or ingested again.
Filters are exact: equality by hashes of values, ranges of numbers by the engine (in float64), ranges of strings here. BM25
is computed here from all searchable chunks, so it suits collections of thousands of chunks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from firsthand.errors import ConfigError, FirsthandError, StoreError, UnknownName, nearest
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader, IngestReceipt, Vectors, of_length_one
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Filter, Hit
from firsthand.retrieval.store.analyzer import NEWEST_FORM, Analyzer
from firsthand.retrieval.store.document_rows import PreparedDocument, prepared, text_hash
from firsthand.retrieval.store.filter_conditions import NUMBER, TEXT, check_filter, ends, excluded, field_of
from firsthand.retrieval.store.header_row import header_in, refuse_other_header
from firsthand.retrieval.store.record_payloads import (
    StoredDocument,
    damaged,
    stored_chunk,
    stored_document,
    stored_number,
    stored_text,
    stored_vector,
    whole_document,
)
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record, RecordStore, Value
from firsthand.retrieval.store.term_postings import K1, B

ReadT = TypeVar("ReadT")
_CLOSE = 1e-4
"""An engine's sums may be off by so much; candidates so close to the k-th are scored again here."""
_PROBES = 100
"""Chunks whose own vectors `verify` searches for: an approximate engine may have lost some."""
_READS = 8
"""Times that a search is asked again while documents that it reads are being updated."""
_CHUNKS = Match("kind", ("chunk",))
_SEARCHED = Every((_CHUNKS, Match("searchable", ("1",))))


class RecordIndex:
    """A ChunkIndex over a RecordStore. One writer at a time; the engine decides about more."""

    def __init__(self, store: RecordStore, name: str, header: IndexHeader | None):
        self._store, self._name = store, name
        self._analyzer = Analyzer()
        found = store.get([_HEADER_ID]).get(_HEADER_ID)
        if found is None and header is not None:
            made = Record(_HEADER_ID, {"kind": "header"}, json.dumps(asdict(header)), _some_vector(header, _HEADER_ID))
            with store.atomically():
                if _HEADER_ID not in store.get([_HEADER_ID]):  # again, now that nobody else makes one in a transaction
                    store.upsert([made])
            found = store.get([_HEADER_ID]).get(_HEADER_ID, made)  # another program's, if it was the later one
        if found is None:
            raise StoreError(f"no index at {name}: give a header to make one")
        self._header = header_in(found.payload, name)
        if header is not None:
            refuse_other_header(name, self._header, header)
        self._made_with = _made_with(self._header)

    @property
    def header(self) -> IndexHeader:
        """The header it was created with."""
        return self._header

    # -- writing --

    def put(self, documents: Iterable[IndexedDocument]) -> IngestReceipt:
        """Adds or replaces documents; those that are stored just so are left as they are, those that do not fit reported."""
        added: list[str] = []
        updated: list[str] = []
        unchanged: list[str] = []
        into = {"added": added, "updated": updated, "unchanged": unchanged}
        failed: list[tuple[str, str]] = []
        for each in documents:
            try:
                into[self._put_one(prepared(each, self.header))].append(each.document.id)
            except StoreError:
                raise
            except FirsthandError as error:
                failed.append((each.document.id, str(error)))
        return IngestReceipt(tuple(added), tuple(updated), tuple(unchanged), failed=tuple(failed))

    def _put_one(self, ready: PreparedDocument) -> str:
        document, chunks = ready.indexed.document, ready.indexed.chunks
        id, digest = _document_id(document.id), ready.columns[4].hex()
        with self._store.atomically():
            there = {each.id: each for each in self._store.select(Every((_CHUNKS, Match("of", (id,)))))}
            heads = self._store.get([id, _HEADER_ID])
            self._refuse_new_header(heads.get(_HEADER_ID))
            found = heads.get(id)
            held = None if found is None else self._held(found)
            named = frozenset() if held is None else frozenset(held.chunks)
            is_stored = held is not None and held.digest == digest and self._is_ours(heads[id])
            if is_stored and all(name in there and there[name].fields.get("version") == digest for name in named):
                if left := [each for each in there if each not in named]:
                    self._store.remove(left)
                return "unchanged"
            counts = self._analyzer.counts([chunk.indexed_text for chunk in chunks])
            records = []
            for place, chunk in enumerate(chunks):
                vector = np.frombuffer(ready.blobs[place], dtype="<f2").astype(np.float32) if ready.blobs else None
                fields = _chunk_fields(document, chunk, counts[place])
                fields |= {
                    "kind": "chunk",
                    "of": id,
                    "searchable": str(int(ready.searchable[place])),
                    "version": digest,
                    "header": self._made_with,
                    "form": str(NEWEST_FORM),
                }
                name = _twin(chunk.id) if chunk.id in named else chunk.id
                vector = _some_vector(self.header, name) if vector is not None and not vector.any() else vector
                records.append(Record(name, fields, json.dumps(asdict(chunk) | {"meta": dict(chunk.meta)}), vector))
            body = {"digest": digest, "sha256": document.sha256, "chunks": [record.id for record in records]}
            body |= {"document": asdict(document) | {"meta": dict(document.meta)}}
            fields = {"kind": "document", "header": self._made_with}
            records.append(Record(id, fields, json.dumps(body), _some_vector(self.header, id)))
            self._store.upsert(records)  # the document last: until then none of its new chunks is found
            self._store.remove([each for each in there if each not in {record.id for record in records}])
        return "added" if found is None else "updated"

    def remove_leftovers(self, documents: Iterable[str] | None = None) -> int:
        """Removes the chunks that stopped updates of these documents, or of all, have left, and returns their number.

        No search shows them. For documents that no other program writes now: what it has not finished would be removed.
        Reads all chunks, as a search by terms does, unless the engine has transactions, which leave nothing.
        """
        if self._store.transactional:
            return 0
        wanted = None if documents is None else {_document_id(each) for each in documents}
        held = {each.id: self._held(each) for each in self._store.select(Match("kind", ("document",)))}
        left = []
        for each in self._store.select(_CHUNKS):
            of = str(each.fields.get("of"))
            owner = held.get(of)
            is_left = of not in held or (owner is not None and each.id not in owner.chunks)
            if is_left and (wanted is None or of in wanted):
                left.append(each.id)
        if left:
            self._store.remove(left)
        return len(left)

    def delete(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Removes documents with all that belongs to them, and returns the ids that were there."""
        removed = []
        for name in ids:
            id = _document_id(name)
            with self._store.atomically():
                found = self._store.get([id])
                self._store.remove([id])  # first: without it no chunk of it is found
                self._store.remove([each.id for each in self._store.select(Every((_CHUNKS, Match("of", (id,)))))])
            removed += [name] if found else []
        return tuple(removed)

    # -- reading --

    def hashes(self) -> dict[str, str]:
        """The text's SHA-256 of each document, by id."""
        found = (stored_document(each, self._name) for each in self._store.select(Match("kind", ("document",))))
        return dict(sorted((each.id, each.sha256) for each in found))

    def document(self, id: str) -> Document:
        """The document. UnknownName if it is not there."""
        found = self._store.get([_document_id(id)])
        if not found:
            close = nearest(id, self.hashes())
            raise UnknownName(
                f"no document {id[:200]!r} in {self._name}" + (f"; did you mean {close!r}?" if close else "")
            )
        return whole_document(found[_document_id(id)], self._name)

    def chunks(self, document: str) -> list[Chunk]:
        """The chunks of a document in order of start."""
        condition = Every((_CHUNKS, Match("of", (_document_id(document),))))
        found = self._read(lambda stale: self._current(self._store.select(condition), stale))
        return sorted((stored_chunk(each, self._name) for each in found), key=lambda chunk: (chunk.start, -chunk.end))

    def chunk(self, id: str) -> Chunk:
        """The chunk. UnknownName if it is not there."""
        either = [id, _twin(id)] if _is_id(id) else []
        found = self._read(lambda stale: self._current([*self._store.get(either).values()], stale)) if either else []
        if not found:
            raise UnknownName(f"no chunk {id[:64]!r} in {self._name}: its document may have changed; search again")
        return stored_chunk(found[0], self._name)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The stored vectors of chunks, a row each in the order of `ids`. UnknownName if one is not there."""
        either = [name for id in dict.fromkeys(ids) if _is_id(id) for name in (id, _twin(id))]
        current = self._read(lambda stale: self._current([*self._store.get(either, vectors=True).values()], stale))
        found = {name: each for each in current for name in (each.id, _twin(each.id))}
        rows = []
        for id in ids:
            if id not in found or found[id].vector is None:
                raise UnknownName(f"no vector of the chunk {id[:64]!r} in {self._name}")
            rows.append(self._vector(found[id]))
        return np.array(rows, dtype=np.float32).reshape(-1, self.header.dimension)

    def known_vectors(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of those texts that are the `indexed_text` of a stored chunk, so that none is computed twice."""
        hashed = {text_hash(text).hex(): text for text in texts}
        if not self.header.dimension or not hashed:
            return {}
        found = self._store.select(Every((_SEARCHED, Match("text", tuple(hashed)))), vectors=True)
        return {hashed[str(each.fields.get("text"))]: self._vector(each) for each in found if self._is_ours(each)}

    def __len__(self) -> int:
        """The number of searchable chunks."""
        return len(self._store.select(_SEARCHED))

    # -- searching --

    def search_vectors(self, vector: Vectors, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest cosine with a vector of shape (dimension,), best first, ties by chunk id."""
        query = self._query(vector)
        check_filter(where)
        if k < 1:
            return []
        return self._read(lambda stale: self._search_vectors(query, k, where, stale))

    def _search_vectors(self, query: Vectors, k: int, where: Filter, stale: set[str]) -> list[Hit]:
        condition = self._condition(where)
        wanted = k + 50
        while True:
            found = self._store.nearest(query, wanted, condition)
            there = self._store.get([id for id, _ in found], vectors=True)
            stale |= {id for id, _ in found} - set(there)
            held = self._current([*there.values()], stale)
            scored = [
                (float((self._vector(each).astype(np.float64) * query.astype(np.float64)).sum()), each) for each in held
            ]
            scored.sort(key=lambda pair: (-pair[0], pair[1].id))
            if len(found) < wanted or (len(scored) >= k and found[-1][1] < scored[k - 1][0] - _CLOSE):
                return [Hit(stored_chunk(each, self._name), score) for score, each in scored[:k]]
            wanted *= 4

    def search_terms(self, text: str, k: int, where: Filter) -> list[Hit]:
        """The k chunks of highest BM25, best first, ties by chunk id; none if no word of the text is indexed."""
        counts = self._analyzer.counts_of_any_form(text)
        check_filter(where)
        if k < 1 or not counts:
            return []
        return self._read(lambda stale: self._search_terms(text, counts, k, where, stale))

    def _search_terms(self, text: str, counts: Mapping[str, int], k: int, where: Filter, stale: set[str]) -> list[Hit]:
        condition = self._condition(where)
        searched = self._store.select(_SEARCHED)
        if all(each.fields.get("form") == str(NEWEST_FORM) for each in searched):  # else an older version wrote some
            [counts] = self._analyzer.counts([text])
        mean = max(sum(self._number(each, "length") for each in searched) / max(len(searched), 1), 1e-9)
        by_id = {each.id: each for each in searched}
        passing = {each.id: each for each in self._store.select(condition)} if where else by_id
        stale |= {_version(each) for id, each in passing.items() if id not in by_id}
        scores: dict[str, float] = {}
        for word, times in sorted(counts.items()):
            name = _word_field(word)
            holding = [each for each in searched if name in each.fields]
            idf = math.log(1 + (len(searched) - len(holding) + 0.5) / (len(holding) + 0.5))
            for each in holding:
                n, length = self._number(each, name), self._number(each, "length")
                score = times * idf * n / (n + K1 * (1 - B + B * length / mean))
                scores[each.id] = scores.get(each.id, 0.0) + score
        ranked = sorted((id for id in scores if id in passing), key=lambda id: (-scores[id], id))
        best: list[Record] = []
        for first in range(0, len(ranked), 2 * k + 50):
            best += self._current([by_id[id] for id in ranked[first : first + 2 * k + 50]], stale)
            if len(best) >= k:
                break
        return [Hit(stored_chunk(each, self._name), scores[each.id]) for each in best[:k]]

    def _query(self, vector: Vectors) -> Vectors:
        if not self.header.dimension:
            raise ConfigError(f"{self._name} has terms alone: search by terms, or index with an embedder")
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (self.header.dimension,):
            raise ConfigError(
                f"the vector has the shape {query.shape}, and {self._name} has ({self.header.dimension},)"
            )
        if not np.isfinite(query).all():
            raise ConfigError("the vector has values that are not finite: check the embedder")
        return of_length_one(query)

    def _read(self, read: Callable[[set[str]], ReadT]) -> ReadT:
        """Returns the result of `read` on one state of the index. `read` adds stale and missing records to its set.

        Those that are stale twice are what a stopped update left; else an update came between two of its questions.
        """
        with self._store.snapshot():
            before: set[str] = set()
            for _ in range(_READS):
                stale: set[str] = set()
                found = read(stale)
                if self._store.transactional or stale <= before:
                    break
                before = stale
        return found

    def _current(self, records: Sequence[Record], stale: set[str]) -> list[Record]:
        """Those chunks that their document's record names, as it was when they were written; `stale` gets its others."""
        owners = self._store.get(sorted({str(each.fields.get("of", "")) for each in records} - {""}))
        held = {id: stored_document(each, self._name) for id, each in owners.items() if self._is_ours(each)}
        named = {id: set(each.chunks) for id, each in held.items()}
        found = [each for each in records if each.id in named.get(str(each.fields.get("of")), ())]
        found = [each for each in found if _is_of(each, held[str(each.fields["of"])].digest)]
        current = {each.id for each in found}
        stale |= {_version(each) for each in records if each.id not in current and each.fields.get("of") in held}
        return found

    def _is_ours(self, record: Record) -> bool:
        """True if a document or chunk was stored with our header; those of versions before 0.23.0 do not say."""
        return record.fields.get("header", self._made_with) == self._made_with

    def _refuse_new_header(self, record: Record | None) -> None:
        """StoreError if another program has made the index anew since it was opened, with other vectors or chunks."""
        if record is None or _made_with(header_in(record.payload, self._name)) != self._made_with:
            raise StoreError(f"{self._name} was made again by another program with other settings: open it again")

    def _condition(self, where: Filter) -> Condition:
        return Every((_SEARCHED, *(self._one(name, condition) for name, condition in where.items())))

    def _one(self, name: str, condition: Any) -> Condition:
        inner = excluded(condition)
        if inner is not None:
            made = self._one(name, inner[0])
            return made.condition if isinstance(made, Not) else Not(made)  # LanceDB does not end at "not" within "not"
        key = _key(name)
        if isinstance(condition, list | tuple):
            return Match(f"v_{key}", tuple(_value(item) for item in condition))
        if not isinstance(condition, Mapping):
            return Match(f"v_{key}", (_value(condition),))
        low, high = ends(condition)
        if (low or high or (TEXT, ""))[0] == NUMBER:
            return Range(f"n_{key}", *(None if end is None else float(end[1]) for end in (low, high)))
        held = [each for each in self._store.select(_SEARCHED) if f"t_{key}" in each.fields]
        texts = ((each.id, stored_text(each, f"t_{key}", self._name)) for each in held)
        least, most = (None if end is None else end[1] for end in (low, high))
        return Among(tuple(id for id, t in texts if (least is None or t >= least) and (most is None or t <= most)))

    def _held(self, record: Record) -> StoredDocument | None:
        """A stored document; None for a record that another program has written, which is replaced."""
        try:
            return stored_document(record, self._name)
        except StoreError:
            return None

    def _number(self, record: Record, field: str) -> float:
        return stored_number(record, field, self._name)

    def _vector(self, record: Record) -> Vectors:
        """The vector of a chunk: zeros, which engines do not take, for one that is not searched."""
        vector = stored_vector(record, self.header.dimension, self._name)
        if not np.isfinite(vector).all():
            raise damaged(self._name, record.id)
        return vector if record.fields.get("searchable") == "1" else np.zeros_like(vector)

    # -- care --

    def verify(self) -> list[str]:
        """Faults found by recounting everything, a sentence each; empty if there are none."""
        with self._store.snapshot():
            return self._faults()

    def _faults(self) -> list[str]:
        found: list[str] = []
        owners: dict[str, StoredDocument] = {}
        for each in self._store.select(Match("kind", ("document",))):
            try:
                whole_document(each, self._name)
                owners[each.id] = stored_document(each, self._name)
                if not self._is_ours(each):
                    found.append(f"The document {owners[each.id].id!r} was stored with other settings: index it again.")
            except StoreError as error:
                found.append(f"{error}.")
        counts = dict.fromkeys(owners, 0)
        vectors: dict[str, Vectors] = {}
        for each in self._store.select(_CHUNKS, vectors=bool(self.header.dimension)):
            owner = owners.get(str(each.fields.get("of")))
            if owner is None or each.id not in owner.chunks or not _is_of(each, owner.digest):
                found.append(f"The chunk {each.id} belongs to no document as it is now.")
                continue
            counts[str(each.fields["of"])] += 1
            try:
                chunk = stored_chunk(each, self._name)
                vector = stored_vector(each, self.header.dimension, self._name) if self.header.dimension else None
            except StoreError as error:
                found.append(f"{error}.")
                continue
            if owner.text[chunk.start : chunk.end] != chunk.text or chunk.id not in (each.id, _twin(each.id)):
                found.append(f"The chunk {each.id} is not its document's text.")
            if vector is not None and not abs(float(np.linalg.norm(vector)) - 1) <= 0.01:
                found.append(f"The vector of the chunk {each.id} does not have the length 1.")
            elif vector is not None and each.fields.get("searchable") == "1":
                vectors[each.id] = vector
        found += self._lost(vectors)
        found += [f"The document {owner.id!r} has {counts[id]} of {len(owner.chunks)} chunks."
                  for id, owner in owners.items() if counts[id] != len(owner.chunks)]  # fmt: skip
        return found

    def _lost(self, vectors: Mapping[str, Vectors]) -> list[str]:
        """A fault if searches for some of the vectors, taken by the order of their ids, find nothing so near."""
        probes = sorted(vectors)[:_PROBES]
        best = {id: max((score for _, score in self._store.nearest(vectors[id], 10, _SEARCHED)), default=-1.0)
                for id in probes}  # fmt: skip
        lost = [id for id in probes if best[id] < float(vectors[id] @ vectors[id]) - 0.01]
        if not lost:
            return []
        return [
            f"Searches by vector miss {len(lost)} of {len(probes)} chunks tried, {lost[0]} among them: the engine's graph "
            "is worn by updates, so index the documents into a new collection."
        ]

    def close(self) -> None:
        """Releases the connection."""
        self._store.close()


def _key(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _value(value: Any) -> str:
    kind, body = field_of(value)
    return f"{kind}:{hashlib.sha256(repr(body).encode()).hexdigest()[:32]}"


def _word_field(word: str) -> str:
    return f"w_{_key(word)}"


def _chunk_fields(document: Document, chunk: Chunk, counts: Mapping[str, int]) -> dict[str, Value]:
    fields: dict[str, Value] = {"text": text_hash(chunk.indexed_text).hex(), "length": float(sum(counts.values()))}
    reserved = {"document": document.id, "source": document.source, "title": document.title}
    for name, value in ({**chunk.meta} | reserved).items():
        kind, body = field_of(value)
        fields[f"v_{_key(name)}"] = _value(value)
        if kind == NUMBER:
            fields[f"n_{_key(name)}"] = float(body)
        if kind == TEXT:
            fields[f"t_{_key(name)}"] = body.hex()
    return fields | {_word_field(word): float(count) for word, count in counts.items()}


def _document_id(name: str) -> str:
    return hashlib.sha256(b"document\0" + name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_HEADER_ID = hashlib.sha256(b"header").hexdigest()[:32]


def _is_id(id: str) -> bool:
    return len(id) == 32 and set(id) <= set("0123456789abcdef")


def _twin(id: str) -> str:
    """The other id of a chunk's records, next to the chunk's own in their order. Its own twin is the id."""
    return f"{int(id, 16) ^ 1:032x}"


def _is_of(chunk: Record, digest: str) -> bool:
    """True if a chunk's record is of that version of its document; those of versions before 0.23.0 do not say."""
    return chunk.fields.get("version", digest) == digest


def _version(chunk: Record) -> str:
    """The id and version of a chunk's record: two updates on, an id stands for another version again."""
    return f"{chunk.id} {chunk.fields.get('version', '')}"


def _made_with(header: IndexHeader) -> str:
    """A hash of what determines vectors and chunks; an embedder's name may differ, its fingerprint counts."""
    text = json.dumps(asdict(header) | {"embedder": ""}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _some_vector(header: IndexHeader, id: str) -> Vectors | None:
    """A vector for a record that is not searched, as engines want one in each.

    Each has another, in any direction: if many shared one, a graph such as HNSW would link them to each other alone, and
    after some updates the chunks around them could no longer be reached.
    """
    if not header.dimension:
        return None
    return of_length_one(np.random.default_rng(int(id, 16)).normal(size=header.dimension).astype(np.float32))
