"""Keeps spans of other programs in one SQLite file of the data home, and reads them back.

A span is kept once however often it is sent; one that comes under a known id with other contents is kept beside the
first. One sent before its end is replaced when it has ended, and left out where it comes after that. Every table row
that a list shows is kept up to date in the transaction that adds the spans, so that no page counts spans.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.errors import UnknownName
from firsthand.ingest.dialects.span_facts import SpanFacts
from firsthand.ingest.incoming_span import MAX_COLUMN, MOST_NS, IncomingSpan, StoredSpan
from firsthand.ingest.kept_resources import NAMED, KeptResources
from firsthand.ingest.redaction import MAX_BODY_BYTES, DecodedValues, Redactor
from firsthand.ingest.request_bounds import bounded_resource
from firsthand.ingest.sealed_spans import REMEMBERED, SealedSpans
from firsthand.ingest.sent_scores import EVENT, sent_scores
from firsthand.ingest.trace_summary import COLUMNS, SEVERAL_MODELS, Counted, TraceSummary, is_summed, summaries_of
from firsthand.ingest.translate import facts_of
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.runs.database import Database, Schema, plain
from firsthand.system.own_file import expect_own_folder

FOLDER, FILE, SEGMENTS = "traces", "traces.sqlite", "segments"
PACKED_BYTES = 16 << 10
"""Bodies above this are compressed."""
MAX_COPIES = 100
"""Spans that are kept under one id; further ones are left out."""
SCHEMA = Schema(
    "a store of traces",
    0x66737472,  # "fstr"
    (
        """
        CREATE TABLE resources (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, body BLOB NOT NULL);
        CREATE TABLE spans (seq INTEGER PRIMARY KEY AUTOINCREMENT, trace TEXT NOT NULL, span TEXT NOT NULL,
            copy INTEGER NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL, what TEXT NOT NULL, label TEXT NOT NULL,
            start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, error TEXT, model TEXT NOT NULL,
            prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
            cost_usd REAL NOT NULL, redactions INTEGER NOT NULL, resource INTEGER NOT NULL, digest BLOB NOT NULL,
            body BLOB NOT NULL);
        CREATE UNIQUE INDEX spans_by_id ON spans (trace, span, copy);
        CREATE TABLE traces (trace TEXT NOT NULL PRIMARY KEY, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
            num_spans INTEGER NOT NULL, num_errors INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost_usd REAL NOT NULL,
            redactions INTEGER NOT NULL, name_rank INTEGER NOT NULL, name_ns INTEGER NOT NULL, name TEXT NOT NULL,
            input_rank INTEGER NOT NULL, input_ns INTEGER NOT NULL, input TEXT NOT NULL, output_rank INTEGER NOT NULL,
            output_ns INTEGER NOT NULL, output TEXT NOT NULL, service TEXT NOT NULL, model TEXT NOT NULL,
            session TEXT NOT NULL, user TEXT NOT NULL, tags TEXT NOT NULL, changed INTEGER NOT NULL, arrived_s REAL NOT NULL)
            WITHOUT ROWID;
        CREATE INDEX traces_by_start ON traces (first_ns);
        CREATE INDEX traces_by_session ON traces (session, first_ns) WHERE session <> '';
        CREATE INDEX traces_by_user ON traces (user, first_ns) WHERE user <> '';
        CREATE INDEX traces_by_change ON traces (changed);
        CREATE INDEX traces_by_arrival ON traces (arrived_s);
        CREATE TABLE scores (seq INTEGER PRIMARY KEY, trace TEXT NOT NULL, name TEXT NOT NULL, scorer TEXT NOT NULL,
            value REAL, failure TEXT, detail TEXT NOT NULL, at_s REAL NOT NULL);
        CREATE INDEX scores_by_trace ON scores (trace, name);
        CREATE INDEX scores_by_name ON scores (name, at_s);
        CREATE TABLE alerts (seq INTEGER PRIMARY KEY, rule TEXT NOT NULL, value REAL, said TEXT NOT NULL, at_s REAL NOT NULL,
            delivered TEXT NOT NULL);
        CREATE TABLE segments (file TEXT NOT NULL PRIMARY KEY, num_spans INTEGER NOT NULL, bytes INTEGER NOT NULL,
            first_s REAL NOT NULL, last_s REAL NOT NULL);
        CREATE TABLE sealed (trace TEXT NOT NULL, file TEXT NOT NULL, PRIMARY KEY (trace, file)) WITHOUT ROWID
        """,
        *NAMED,
        *REMEMBERED,
        *SEVERAL_MODELS,
    ),
    place="a data home that `firsthand studio` has served",
    missing="`firsthand studio` makes one",
    resume="then start `firsthand studio` again",
    copied="it",
    page_bytes=16384,  # most spans take 1 to 2 kB, so that a page of 4 KiB stays a quarter empty
)
_SPAN = (
    "seq, trace, span, copy, parent, name, what, label, start_ns, end_ns, error, model, prompt_tokens, cached_tokens,"
    " completion_tokens, cost_usd, redactions, resource, body"
)
SPAN_COLUMNS = (*_SPAN.split(", ")[:-1], "digest", "body")
_RESOURCE = "SELECT body FROM resources WHERE id = ?"
_INSERT = f"INSERT INTO spans ({', '.join(SPAN_COLUMNS[1:])}) VALUES ({', '.join('?' * (len(SPAN_COLUMNS) - 1))})"
_REPLACE = f"INSERT OR REPLACE INTO traces ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


class KnownCopy(NamedTuple):
    """One of the spans that are kept under an id."""

    seq: int
    copy: int
    start_ns: int
    digest: bytes
    end_ns: int


@dataclass(slots=True)
class ReadySpan:
    """A span that is redacted and read, so that the transaction only writes it."""

    span: IncomingSpan
    facts: SpanFacts
    body: bytes
    resource: tuple[bytes, bytes, str]
    """Digest, JSON, and the name of the service."""


class SpanPreparer:
    """Redacts spans and reads their columns."""

    def __init__(self, redactor: Redactor):
        self._redactor = redactor

    def prepared(self, spans: Iterable[IncomingSpan]) -> list[ReadySpan]:
        """The spans of one request, ready to be kept. Nothing that a span says makes this fail."""
        known: dict[int, tuple[bytes, bytes, str]] = {}
        ready = []
        budget = DecodedValues()
        for span in spans:
            resource = known.get(id(span.resource))
            if resource is None:
                resource = known[id(span.resource)] = self._resource(span.resource, budget)
            body = self._redactor.redact(span, budget)
            try:
                facts = facts_of(span)
            except MemoryError:
                raise
            except Exception:  # an attribute of an unexpected type: the span is kept as it is
                facts = SpanFacts()
            if len(body) > PACKED_BYTES:
                body = zlib.compress(body, 1)
            ready.append(ReadySpan(span, facts, body, resource))
        return ready

    def _resource(self, resource: Json, budget: DecodedValues) -> tuple[bytes, bytes, str]:
        kept = bounded_resource(self._redactor.redact_resource(resource, budget))
        body = json.dumps(kept, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        return hashlib.sha256(body).digest(), body, plain(str(kept.get("service.name", ""))[:300])


class TraceStore:
    """The traces of a data home. One process writes, any may read."""

    def __init__(self, home: Path, *, create: bool = False):
        self.home = home
        self.folder = home / FOLDER
        for each in (self.folder, self.folder / SEGMENTS):
            expect_own_folder(each)
        if create:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.database = Database(self.folder / FILE, create=create, schema=SCHEMA)
        self.read_sealed: Callable[[TraceStore, str], list[tuple[Any, ...]]] | None = None
        """Reads the spans of a trace that lie in segments, as rows; see `cold_segments.py`."""

    @staticmethod
    def exists(home: Path) -> bool:
        """True if the data home has ever received spans."""
        return (home / FOLDER / FILE).is_file()

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    # -- writing --

    def add(self, spans: Sequence[ReadySpan]) -> int:
        """Keep spans in one transaction; returns how many were new. They are on disk when this returns."""
        if not spans:
            return 0
        with self.database.write() as connection:
            return self._add(connection, spans)

    def _add(self, connection: sqlite3.Connection, spans: Sequence[ReadySpan]) -> int:
        sealed = SealedSpans(connection)
        spans = [each for each in spans if not _is_sealed(sealed, each)]
        connection.execute("SAVEPOINT several")
        resources = KeptResources(connection)
        try:
            connection.executemany(_INSERT, [self._row(resources, each, 0) for each in spans])
            new: Sequence[tuple[ReadySpan, Counted | None]] = [(each, None) for each in spans]
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK TO several")
            resources = KeptResources(connection)
            known: dict[tuple[str, str], list[KnownCopy]] = {}
            new = [(each, before) for each in spans for before in self._add_one(connection, each, known, resources)]
        connection.execute("RELEASE several")
        self._summarise(connection, new)
        for ready, _ in new:
            _keep_sent_scores(connection, ready.span)
        return sum(1 for _, before in new if before is None)

    def _add_one(
        self,
        connection: sqlite3.Connection,
        ready: ReadySpan,
        known: dict[tuple[str, str], list[KnownCopy]],
        resources: KeptResources,
    ) -> list[Counted | None]:
        """Insert one span; returns [None] if it is new, what was counted of the one that it ended, [] if it is not kept.

        `known` holds what the file has under the ids that this transaction has met: each is asked for once.
        """
        span = ready.span
        id = (span.trace_id, span.span_id)
        copies = known.get(id)
        if copies is None:
            found = connection.execute(
                "SELECT seq, copy, start_ns, digest, end_ns FROM spans WHERE trace = ? AND span = ? ORDER BY copy LIMIT ?",
                (*id, MAX_COPIES),
            )
            copies = known[id] = [KnownCopy(*each) for each in found]
        digest = _digest(ready)
        if any(each.digest == digest for each in copies):
            return []
        start = min(span.start_ns, MOST_NS)
        if not span.end_ns and any(each.end_ns and each.start_ns == start for each in copies):
            return []  # it was sent before its end, and came after it
        counted: Counted | None = None
        replaced: tuple[int, ...] = ()
        unfinished = [each for each in copies if each.end_ns == 0] if span.end_ns else []
        if unfinished:
            begun = min(unfinished, key=lambda each: each.copy)
            columns = ", ".join(("what", "body", "resource", *Counted._fields[1:]))
            before = connection.execute(f"SELECT {columns} FROM spans WHERE seq = ?", (begun.seq,))
            what, body, resource, *numbers = before.fetchone()
            counted = Counted(is_summed(what, unpacked(body).get("attributes") or {}), *numbers)
            replaced = (resource,)
            connection.execute("DELETE FROM spans WHERE seq = ?", (begun.seq,))
            copies.remove(begun)
        elif len(copies) == MAX_COPIES:
            return []
        taken = {each.copy for each in copies}
        copy = next(number for number in range(len(taken) + 1) if number not in taken)
        seq = connection.execute(_INSERT, self._row(resources, ready, copy)).lastrowid
        copies.append(KnownCopy(seq or 0, copy, start, digest, span.end_ns))
        resources.remove_unnamed(replaced)
        return [counted]

    def _row(self, resources: KeptResources, ready: ReadySpan, copy: int) -> tuple[Any, ...]:
        span, facts = ready.span, ready.facts
        start, end, error = _times_and_error(ready)
        digest, body, _ = ready.resource
        return (
            span.trace_id, span.span_id, copy, span.parent_id, plain(span.name[:MAX_COLUMN]), facts.what,
            plain(facts.label[:300]), start, end, None if error is None else plain(error[:MAX_COLUMN]),
            plain(facts.model[:300]), facts.prompt_tokens, facts.cached_tokens, facts.completion_tokens, facts.cost_usd,
            span.redactions, resources.id_of(digest, body), _digest(ready), ready.body,
        )  # fmt: skip

    def _summarise(self, connection: sqlite3.Connection, new: Sequence[tuple[ReadySpan, Counted | None]]) -> None:
        """Bring the rows of the traces up to date, in the time of the new spans: the others are not read."""
        by_trace: dict[str, list[tuple[ReadySpan, Counted | None]]] = {}
        for each in new:
            by_trace.setdefault(each[0].span.trace_id, []).append(each)
        changed = connection.execute("SELECT coalesce(max(changed), 0) + 1 FROM traces").fetchone()[0]
        now = time.time()
        for trace, spans in by_trace.items():
            found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM traces WHERE trace = ?", (trace,)).fetchone()
            summary = TraceSummary(*found) if found else TraceSummary(trace)
            for ready, before in spans:
                summary.add(ready.span, ready.facts, ready.resource[2], before)
            summary.changed, summary.arrived_s = changed, now
            connection.execute(_REPLACE, summary.row())

    def add_score(
        self,
        trace: str,
        name: str,
        scorer: str,
        value: float | None,
        failure: str | None = None,
        detail: Json | None = None,
    ) -> None:
        """Keep a score of a trace; nothing is kept of one that was removed meanwhile."""
        said = json.dumps(detail or {}, ensure_ascii=True, default=str)
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO scores (trace, name, scorer, value, failure, detail, at_s)"
                " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM traces WHERE trace = ?1)",
                (
                    trace,
                    plain(name),
                    plain(scorer),
                    value,
                    None if failure is None else plain(failure),
                    said,
                    time.time(),
                ),
            )
            connection.execute(
                "UPDATE traces SET changed = (SELECT max(changed) + 1 FROM traces) WHERE trace = ?", (trace,)
            )

    # -- reading --

    def summary(self, trace: str) -> TraceSummary:
        """The summary of a trace; UnknownName if there is none of that id."""
        rows = self.database.read(f"SELECT {', '.join(COLUMNS)} FROM traces WHERE trace = ?", (plain(trace),))
        if not rows:
            raise UnknownName(f"no trace {trace[:80]!r}: it has not come, or was older than is kept")
        return summaries_of(rows)[0]

    def spans(self, trace: str) -> list[StoredSpan]:
        """All spans of a trace in the order of their arrival."""
        rows = self.database.read(f"SELECT {_SPAN} FROM spans WHERE trace = ? ORDER BY seq", (plain(trace),))
        if (
            self.read_sealed is not None
        ):  # after the others: what is sealed meanwhile is then found twice, and never not
            seen = {row[0] for row in rows}
            rows += [row for row in self.read_sealed(self, plain(trace)) if row[0] not in seen]
        resources = Resources(lambda id: self.database.read(_RESOURCE, (id,)))
        return [stored_span(row, resources) for row in sorted(rows, key=lambda row: row[0])]

    def scores(self, trace: str) -> list[tuple[str, float | None, str | None, str, float]]:
        """Name, value, failure, scorer and time of each score of a trace; of several of one name the latest."""
        sql = "SELECT name, value, failure, scorer, at_s FROM scores WHERE trace = ? ORDER BY seq"
        return list({row[0]: row for row in self.database.read(sql, (plain(trace),))}.values())

    def scores_of(self, traces: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """Trace -> name -> the latest score, None for one that failed, of those of these traces that have scores."""
        found: dict[str, dict[str, float | None]] = {}
        sql = f"SELECT trace, name, value FROM scores WHERE trace IN ({', '.join('?' * len(traces))}) ORDER BY seq"
        for trace, name, value in self.database.read(sql, tuple(map(plain, traces))) if traces else ():
            found.setdefault(str(trace), {})[str(name)] = value
        return found

    @property
    def version(self) -> str:
        """A text that changes with every change of the store."""
        return self.database.version


def _keep_sent_scores(connection: sqlite3.Connection, span: IncomingSpan) -> None:
    """Keep the scores that a new span brings, in place of those of the same names that came to its trace before."""
    for name, score in sent_scores(span).items():
        connection.execute(
            "DELETE FROM scores WHERE trace = ? AND name = ? AND scorer = ?", (span.trace_id, name, EVENT)
        )
        said = json.dumps(score.detail, ensure_ascii=True)
        connection.execute(
            "INSERT INTO scores (trace, name, scorer, value, failure, detail, at_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (span.trace_id, name, EVENT, score.value, score.failure, said, time.time()),
        )


def _is_sealed(sealed: SealedSpans, ready: ReadySpan) -> bool:
    """True if the span is in a segment already, as when it is sent again."""
    span = ready.span
    return sealed.has_of(span.trace_id) and sealed.has(span.trace_id, span.span_id, _digest(ready))


def _times_and_error(ready: ReadySpan) -> tuple[int, int, str | None]:
    span = ready.span
    error = span.error or (span.error if ready.facts.error is None else ready.facts.error)
    return min(span.start_ns, MOST_NS), min(span.end_ns, MOST_NS), error


def _digest(ready: ReadySpan) -> bytes:
    """Tells apart spans that come under one id."""
    start, end, error = _times_and_error(ready)
    head = f"{ready.span.parent_id} {ready.span.name} {start} {end} {error}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(head + ready.body, digest_size=12).digest()


class Resources:
    """The programs of some spans: each is read once, and shared by its spans."""

    def __init__(self, read: Callable[[int], list[tuple[Any, ...]]]):
        self._read = read
        self._known: dict[int, Json] = {}

    def __getitem__(self, id: int) -> Json:
        known = self._known.get(id)
        if known is None:
            found = self._read(id)
            known = self._known[id] = _loaded(found[0][0]) if found else {}
        return known


def stored_span(row: Sequence[Any], resources: Resources) -> StoredSpan:
    """The span of a row of the columns that `_SPAN` names."""
    (
        seq, trace, span, copy, parent, name, what, label, start_ns, end_ns, error, model, prompt, cached, completion, cost,
        redactions, resource, body,
    ) = row  # fmt: skip
    raw = _inflated(body)
    held = _loaded(raw)
    times = held.get("times") or (start_ns, end_ns)
    return StoredSpan(
        seq,
        IncomingSpan(
            trace, span, parent, plain(str(held.get("name", name))), times[0], times[1], held.get("attributes") or {},
            held.get("events") or [], held.get("links") or [], resources[resource], held.get("scope", ""),
            held.get("kind", 0), plain(str(held["error"])) if "error" in held else error, redactions,
        ),
        what, label, model, Usage(prompt, cached, completion, cost), copy, len(raw),
    )  # fmt: skip


def unpacked(body: bytes) -> Json:
    """The JSON of a body as it is kept."""
    return _loaded(_inflated(body))


def _inflated(body: bytes) -> bytes:
    return body if body[:1] == b"{" else zlib.decompressobj().decompress(body, MAX_BODY_BYTES)


def _loaded(body: bytes) -> Json:
    try:
        found: Json = json.loads(body.decode("utf-8", "surrogatepass"))
        return found if isinstance(found, dict) else {}
    except (ValueError, RecursionError):
        return {"attributes": {"unreadable": "the body of this span is damaged"}}
