"""Stores the triples of a graph in SQLite, in memory or in a file, and answers what AgentBench's functions ask.

A user's graph is a file of N-Triples as in Freebase's dumps, plain or gzip, one triple in a line:

    <http://rdf.freebase.com/ns/m.0hc> <http://rdf.freebase.com/ns/film.film.genre> <http://rdf.freebase.com/ns/m.01f> .

Its index is built once, beside nothing of the user's: in the cache folder of firsthand, under the file's size and date.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from firsthand.errors import DataError, reason_of
from firsthand.system.home import data_home
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.packed_stream import open_gzip

NAMESPACE = "http://rdf.freebase.com/ns/"
NAME = "type.object.name"
EXPECTED_TYPE = "type.property.expected_type"
HIDDEN = ("type.", "common.", "kg.", "http")
"""Relations with these beginnings are of the database, not of the world, and are not shown."""
MAX_LINE = 1 << 20
BATCH = 400
_TRIPLE = re.compile(r"(\S++)\s++(\S++)\s++(.+)")
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"(?:@([\w-]+)|\^\^(\S+))?')
_NUMERIC = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_DATE = re.compile(r"[+-]?\d{4}(?:-\d\d(?:-\d\d(?:T.*)?)?)?")


class Triple(NamedTuple):
    """Subject, relation and object; `literal` is true if the object is a number, a date or a text."""

    subject: str
    relation: str
    object: str
    literal: bool = False


class TripleStore:
    """Triples, with an index by subject and relation. Reading is safe from any thread."""

    def __init__(self, path: str = ":memory:") -> None:
        """Open the database at `path`, and make its table if it has none."""
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("CREATE TABLE IF NOT EXISTS triple(s TEXT, p TEXT, o TEXT, literal INT)")

    def add(self, triples: Iterable[Triple]) -> None:
        """Add triples, and build the index."""
        with self._lock:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO triple VALUES (?, ?, ?, ?)", triples)
            self._db.execute("CREATE INDEX IF NOT EXISTS by_subject ON triple(s, p)")
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __len__(self) -> int:
        """The number of triples."""
        return int(self._ask("SELECT count(*) FROM triple", ())[0][0])

    def knows(self, entity: str) -> bool:
        """True if the entity is the subject of a triple."""
        return bool(self._ask("SELECT 1 FROM triple WHERE s = ? LIMIT 1", (entity,)))

    def relations(self, entities: Collection[str]) -> list[str]:
        """The relations from any of the entities to others, sorted; those of the database itself are left out."""
        found = {row[0] for row in self._each("SELECT DISTINCT p FROM triple WHERE literal = 0 AND s IN", entities)}
        return sorted(name for name in found if not name.startswith(HIDDEN))

    def neighbors(self, entities: Collection[str], relation: str) -> frozenset[str]:
        """The entities that a relation leads to."""
        query = "SELECT DISTINCT o FROM triple WHERE literal = 0 AND p = ? AND s IN"
        return frozenset(row[0] for row in self._each(query, entities, relation))

    def subjects(self, relation: str) -> frozenset[str]:
        """The entities that have a relation."""
        return frozenset(row[0] for row in self._ask("SELECT DISTINCT s FROM triple WHERE p = ?", (relation,)))

    def attributes(self, entities: Collection[str]) -> list[str]:
        """The relations from any of the entities to a number or a date, sorted."""
        rows = self._each("SELECT DISTINCT p, o FROM triple WHERE literal = 1 AND s IN", entities)
        return sorted({p for p, o in rows if not p.startswith(HIDDEN) and sort_key(o) is not None})

    def values(self, entities: Collection[str], attribute: str) -> dict[str, list[str]]:
        """Entity -> its values of an attribute."""
        found: dict[str, list[str]] = {}
        for s, o in self._each("SELECT s, o FROM triple WHERE literal = 1 AND p = ? AND s IN", entities, attribute):
            found.setdefault(s, []).append(o)
        return found

    def name(self, entity: str) -> str:
        """The entity's English name, or else the entity."""
        rows = self._ask("SELECT o FROM triple WHERE s = ? AND p = ? AND literal = 1 LIMIT 1", (entity, NAME))
        return rows[0][0] if rows else entity

    def range_of(self, relation: str) -> str:
        """The type of what a relation leads to, `type.property.expected_type`; empty if the graph does not say."""
        rows = self._ask("SELECT o FROM triple WHERE s = ? AND p = ? LIMIT 1", (relation, EXPECTED_TYPE))
        return rows[0][0] if rows else ""

    def _each(self, query: str, entities: Collection[str], *before: str) -> Iterator[tuple[str, ...]]:
        wanted = sorted(entities)
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            yield from self._ask(f"{query} ({','.join('?' * len(batch))})", (*before, *batch))

    def _ask(self, query: str, given: tuple[str, ...]) -> list[tuple[str, ...]]:
        with self._lock:
            return self._db.execute(query, given).fetchall()


def sort_key(value: str) -> tuple[int, float | str] | None:
    """A key that orders numbers by value and dates by time; None for other texts."""
    if _DATE.fullmatch(value) and ("-" in value[1:] or len(value) == 4):
        return (0, float(value)) if len(value) == 4 else (1, value)
    return (0, float(value)) if _NUMERIC.fullmatch(value) and math.isfinite(float(value)) else None


def extreme(values: Mapping[str, list[str]], *, largest: bool) -> frozenset[str]:
    """The entities with the largest (or smallest) value. Years and full dates are compared as dates."""
    keyed: dict[str, list[tuple[int, float | str]]] = {}
    for entity, texts in values.items():
        if keys := [key for text in texts if (key := sort_key(text)) is not None]:
            keyed[entity] = keys
    if any(key[0] == 1 for keys in keyed.values() for key in keys):  # a year alone stands for its first day
        keyed = {
            e: [k if k[0] == 1 else (1, f"{int(float(k[1])):04d}-00-00") for k in keys] for e, keys in keyed.items()
        }
    if not keyed:
        return frozenset()
    best = max if largest else min
    own = {entity: best(keys) for entity, keys in keyed.items()}
    end = best(own.values())
    return frozenset(entity for entity, key in own.items() if key == end)


def read_triples(path: Path) -> Iterator[Triple]:
    """The triples of a file in Freebase's layout; DataError that names the first line that is none."""
    try:
        with open_ordinary(path) as raw, open_gzip(raw, path) if path.suffix == ".gz" else raw as opened:
            lines = io.TextIOWrapper(opened, encoding="utf-8")
            number = 0
            while line := lines.readline(MAX_LINE):
                number += 1
                if not line.strip() or line.startswith("#"):
                    continue
                triple = _triple(line.strip())
                if triple is None:
                    raise DataError(f"{path}, line {number} is no triple `subject relation object .`: {line[:80]!r}")
                if triple.relation != NAME or not triple.literal or '"' not in line or '"@en' in line[-12:]:
                    yield triple
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as N-Triples in Freebase's layout: {reason_of(error)[:200]}") from None


def _triple(line: str) -> Triple | None:
    found = _TRIPLE.fullmatch(line)
    if not found:
        return None
    subject, relation, rest = found.groups()
    target = rest.removesuffix(".").rstrip() or rest
    if literal := _LITERAL.fullmatch(target):
        return Triple(_short(subject), _short(relation), literal[1].replace('\\"', '"').replace("\\\\", "\\"), True)
    if re.search(r"\s", target) or target.startswith('"'):
        return None
    return Triple(_short(subject), _short(relation), _short(target))


def _short(name: str) -> str:
    return name.removeprefix("<").removesuffix(">").removeprefix(NAMESPACE)


def open_graph(path: Path) -> TripleStore:
    """The store of a user's file; its index is built at the first use and kept in the cache."""
    if not path.is_file():
        raise DataError(f"there is no graph at {path}: give graph=FILE, N-Triples in Freebase's layout (.nt or .nt.gz)")
    found = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {found.st_size} {found.st_mtime_ns}".encode()).hexdigest()[:16]
    kept = data_home() / "cache" / "graphs" / f"{key}.sqlite"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        building = kept.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        building.unlink(missing_ok=True)
        store = TripleStore(str(building))
        try:
            store.add(read_triples(path))
        except BaseException:
            store.close()
            building.unlink(missing_ok=True)
            raise
        store.close()
        building.replace(kept)
    return TripleStore(str(kept))
