"""Search documents of your own: a folder of texts, or a JSONL file with a document a line, ranked by BM25.

The index is SQLite's FTS5 (BM25 of Robertson and Zaragoza, 2009, with k1 = 1.2 and b = 0.75), in memory, or in a file that
is made again when the documents have changed. `search` finds passages; `lookup` gives, one after the other, the sentences of
a document that hold some words. Together they are the actions of ReAct (Yao et al., 2022): Search[entity] puts the document
of that very title first, and Lookup[string] is `lookup`, which holds no state: how far it has come is an argument.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError, ToolError
from firsthand.system.sqlite_journal import forged_journal
from firsthand.system.terminal import printable
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.web.html import to_text

SUFFIXES = (".txt", ".md", ".rst", ".html", ".htm", ".jsonl")
MAX_FILE_BYTES = 50_000_000
MAX_K = 20
PASSAGE_CHARS = 800
"""The approximate length of a passage, which ends with a sentence."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|\n{2,}")
_SCHEMA = """
CREATE TABLE about (fingerprint TEXT);
CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT UNIQUE, title TEXT);
CREATE TABLE places (passage INTEGER PRIMARY KEY, document INTEGER);
CREATE INDEX places_document ON places (document);
CREATE INDEX documents_title ON documents (title COLLATE NOCASE);
CREATE VIRTUAL TABLE passages USING fts5(title, text, tokenize = 'porter unicode61 remove_diacritics 2');
"""


@dataclass(frozen=True)
class Document:
    """A text with its title and id."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class PassageHit:
    """A passage of a document."""

    id: str
    title: str
    text: str
    score: float
    """BM25, higher is better."""


def search(documents: str, *, index: str | None = None) -> tuple[Tool, ...]:
    """The tools search and lookup over a folder or a JSONL file; `index` is a file to keep the index in."""
    made = SearchIndex(documents, index)
    origin = f"documents in {Path(documents).name}"
    return tuple(tool_from_function(each, effect="read", origin=origin) for each in (made.search, made.lookup))


class SearchIndex:
    """An index of documents. Thread-safe."""

    def __init__(self, documents: str | Path, index: str | Path | None = None):
        self._lock = threading.Lock()
        self._base = _opened(Path(documents), None if index is None else Path(index))

    def search(self, query: str, k: int = 5) -> str:
        """The passages that fit a query best, each with the id and title of its document.

        Args:
            query: Words, or the title of a document.
            k: How many passages are wanted.
        """
        found = self.find(query, k)
        if not found:
            return f"(nothing was found for {query[:200]!r}: try other words)"
        return "\n\n".join(f"[{printable(each.id)}] {printable(each.title)}\n{each.text}" for each in found)

    def lookup(self, text: str, document: str = "", after: int = 0) -> str:
        """The next sentence that holds a text, in one document or in all.

        Args:
            text: The words to look for, upper and lower case alike.
            document: The id or the title of the document; empty for all.
            after: How many such sentences have been seen already.
        """
        wanted = " ".join(text.casefold().split())
        if not wanted or after < 0:
            raise ToolError(f"text is {text[:100]!r} and after is {after}: give words to look for, and 0 or more")
        sentences = [
            (title, sentence)
            for title, passage in self._passages(document, wanted)
            for sentence in _SENTENCE.split(passage)
            if wanted in " ".join(sentence.casefold().split())
        ]
        if after >= len(sentences):
            return f"(no more results: {len(sentences)} sentences hold {text[:100]!r})"
        title, sentence = sentences[after]
        return f"(result {after + 1} of {len(sentences)}, in {printable(title)}) {sentence.strip()}"

    def find(self, query: str, k: int = 5) -> list[PassageHit]:
        """The best `k` passages; the document whose title is the query comes first."""
        if not 1 <= k <= MAX_K:
            raise ToolError(f"k is {k}: give 1 to {MAX_K}")
        words = re.findall(r"\w+", query)[:64]
        if not words:
            raise ToolError(f"the query {query[:100]!r} holds no words: give some")
        titled = self._ask(
            "SELECT d.id, d.title, p.text, 0.0 FROM documents d JOIN places ON document = number "
            "JOIN passages p ON p.rowid = passage WHERE d.title = ? COLLATE NOCASE ORDER BY passage LIMIT 1",
            " ".join(query.split()),
        )
        ranked = self._ask(
            "SELECT d.id, d.title, p.text, -bm25(passages, 2.0, 1.0) AS score FROM passages p "
            "JOIN places ON passage = p.rowid JOIN documents d ON number = document "
            "WHERE passages MATCH ? ORDER BY score DESC, p.rowid LIMIT ?",
            " OR ".join(f'"{word}"' for word in words),
            k,
        )
        found = [PassageHit(*row) for row in (*titled, *ranked)]
        return list({(each.id, each.text): each for each in found}.values())[:k]

    def _passages(self, document: str, wanted: str) -> list[tuple[Any, ...]]:
        """Title and text of the passages to look in."""
        joined = "FROM documents d JOIN places ON document = number JOIN passages p ON p.rowid = passage"
        if document:
            rows = self._ask(
                f"SELECT d.title, p.text {joined} WHERE d.id = ?1 OR d.title = ?1 COLLATE NOCASE ORDER BY passage",
                document,
            )
            if not rows:
                raise ToolError(f"no document has the id or title {document[:100]!r}: search for it first")
            return rows
        words = re.findall(r"\w+", wanted)[:64]
        if not words:
            return []
        match = " AND ".join(f'"{word}"' for word in words[:-1]) + (" AND " if words[1:] else "") + f'"{words[-1]}"*'
        return self._ask(f"SELECT d.title, p.text {joined} WHERE passages MATCH ? ORDER BY passage LIMIT 1000", match)

    def _ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._base.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise ToolError(f"the documents cannot be searched for this: {error}") from None


def _opened(source: Path, kept: Path | None) -> sqlite3.Connection:
    """The index of the documents: the stored one if it is up to date, or a new one."""
    if not source.exists():
        raise ConfigError(f"no documents at {str(source)!r}: give a folder of texts, or a .jsonl file")
    files = sorted(_files(source))
    fingerprint = hashlib.sha256(repr([(str(file), *_stamp(file)) for file in files]).encode()).hexdigest()
    if kept is not None and (connection := _kept(kept, fingerprint)) is not None:
        return connection
    beside = None if kept is None else kept.with_name(f"{kept.name}.{os.getpid()}.new")
    try:
        connection = sqlite3.connect(":memory:" if beside is None else beside, check_same_thread=False)
        _fill(connection, source, files, fingerprint)
        if beside is None or kept is None:
            return connection
        connection.close()
        beside.replace(kept)
        return sqlite3.connect(kept, check_same_thread=False)
    except (sqlite3.Error, OSError) as error:
        if "fts5" in str(error):
            raise ConfigError(
                f"this Python's SQLite ({sqlite3.sqlite_version}) was built without FTS5: use another"
            ) from None
        raise ConfigError(f"the index of {str(source)!r} cannot be made: {error}") from None
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _kept(path: Path, fingerprint: str) -> sqlite3.Connection | None:
    """The index in that file, if it is of these documents as they are now."""
    if not path.exists():
        return None
    if (journal := forged_journal(path)) is not None:
        raise ConfigError(f"{str(journal)!r} names a file that SQLite would delete: remove it, or give another path")
    connection = sqlite3.connect(path, check_same_thread=False)
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA trusted_schema = OFF")
        if connection.execute("SELECT fingerprint FROM about").fetchone() == (fingerprint,):
            return connection
        connection.close()
        return None
    connection.close()
    raise ConfigError(f"{str(path)!r} is there and is no index: give another path, or remove it")


def _fill(connection: sqlite3.Connection, source: Path, files: list[Path], fingerprint: str) -> None:
    connection.executescript(_SCHEMA)
    passage = 0
    with connection:
        connection.execute("INSERT INTO about VALUES (?)", (fingerprint,))
        for number, document in enumerate(_documents(source, files)):
            try:
                connection.execute("INSERT INTO documents VALUES (?, ?, ?)", (number, document.id, document.title))
            except sqlite3.IntegrityError:
                raise ConfigError(f"two documents have the id {document.id!r}: give each its own") from None
            for text in split(document.text):
                passage += 1
                connection.execute(
                    "INSERT INTO passages (rowid, title, text) VALUES (?, ?, ?)", (passage, document.title, text)
                )
                connection.execute("INSERT INTO places VALUES (?, ?)", (passage, number))
    if not passage:
        raise ConfigError(f"{str(source)!r} holds no texts: {', '.join(SUFFIXES)} are read")


def split(text: str) -> list[str]:
    """The text in passages of about PASSAGE_CHARS, each ending with a sentence where there are any."""
    passages, held = [], ""
    for sentence in _SENTENCE.split(text):
        for start in range(0, len(sentence), 2 * PASSAGE_CHARS):
            piece = sentence[start : start + 2 * PASSAGE_CHARS].strip()
            if held and len(held) + len(piece) > PASSAGE_CHARS:
                passages.append(held)
                held = ""
            held = f"{held} {piece}" if held and piece else held or piece
    return [*passages, held] if held else passages


def _files(source: Path) -> Iterator[Path]:
    """The files to read: ordinary ones of known kinds, not through links."""
    if source.is_file():
        yield source
        return
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and not path.is_symlink() and path.is_file():
                yield path


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _documents(source: Path, files: list[Path]) -> Iterator[Document]:
    for path in files:
        if path.stat().st_size > MAX_FILE_BYTES and path.suffix.lower() != ".jsonl":
            raise ConfigError(f"{str(path)!r} has more than {MAX_FILE_BYTES} bytes: split it, or give it as .jsonl")
        name = path.name if path == source else str(path.relative_to(source))
        if path.suffix.lower() == ".jsonl":
            yield from _lines(path, "" if path == source else f"{name}:")
            continue
        text = path.read_text(encoding="utf-8", errors="replace").replace("\0", " ")
        text = to_text(text) if path.suffix.lower() in (".html", ".htm") else text
        heading = re.match(r"\s*#\s+(.+)", text)
        yield Document(_clean(name), _clean(heading.group(1).strip()[:200] if heading else path.stem), text)


def _lines(path: Path, prefix: str) -> Iterator[Document]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                body = json.loads(line)
            except (ValueError, RecursionError):
                body = None
            text = (
                next((body[key] for key in ("text", "contents", "body") if key in body), None)
                if isinstance(body, dict)
                else None
            )
            if not isinstance(body, dict) or not isinstance(text, str):
                raise ConfigError(
                    f'line {number} of {str(path)!r} is no JSON object with a "text": every line must be one'
                )
            id = str(body.get("id", number))
            yield Document(_clean(prefix + id), _clean(str(body.get("title", "")) or id), _clean(text))


def _clean(text: str) -> str:
    """The text without half surrogates, which a database cannot hold, and NULs, at which it would end."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
