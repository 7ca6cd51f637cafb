"""Search documents of your own: a folder of texts, a JSONL file with a document a line, or an index that was made before.

A folder or file is indexed by its terms (BM25), in memory, or in an index file that follows the documents: what has changed
is read again. An index from `firsthand rag index` that has vectors is searched by both, fused by rank. `search` finds
passages; `lookup` gives, one after the other, the sentences of a document that hold some words. Together they are the
actions of ReAct (Yao et al., 2022): Search[entity] puts the document of that very title first, and Lookup[string] is
`lookup`, which holds no state: how far it has come is an argument.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import Any

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, StoreError, ToolError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import ChunkIndex, IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import Corpus, open_corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.formats import FORMATS
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.retrievers.searches import hybrid
from firsthand.retrieval.store.index_file import MEMORY
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.retrieval.store.word_marks import words_with_marks
from firsthand.system.json_values import values_in_text
from firsthand.system.ordinary_file import open_ordinary, read_head, read_ordinary_text
from firsthand.system.sentence_ends import SENTENCE_END, parts_of
from firsthand.system.sqlite_locks import SQLITE_MAGIC
from firsthand.system.terminal import one_line
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.web.html import to_placed_text

SUFFIXES = (".txt", ".md", ".rst", ".html", ".htm", ".jsonl")
_HTML_SUFFIXES = (".html", ".htm")
MAX_FILE_BYTES = 50_000_000
MAX_LINE_CHARS = 50_000_000
MAX_LINE_VALUES = 1_000_000
"""JSON values of a line of JSONL; as objects they take some 100 MB."""
MAX_K = 20
MAX_ID_CHARS = 500
MAX_TITLE_CHARS = 200
"""Characters of an id and a title that are shown."""
PASSAGE_CHARS = 800
"""The approximate length of a passage, which ends with a sentence."""
_SENTENCE = re.compile(rf"(?<=[.!?])\s+(?=\S)|\n{{2,}}|{SENTENCE_END}")
_NUMBER = "documents"
"""The key in the meta of a file's last document: how many documents the file has. Without it an index has a part of them."""
_HEADER = IndexHeader("", "", 0, f"passages:size={PASSAGE_CHARS}")


@dataclass(frozen=True)
class PassageHit:
    """A passage of a document."""

    id: str
    title: str
    text: str
    score: float
    """BM25, higher is better."""


def search(documents: str, *, index: str | None = None) -> tuple[Tool, ...]:
    """The tools search and lookup over a folder or a JSONL file, whose index is kept in the file `index`, if that is given.

    `documents` may be the file of an index, such as that of `firsthand rag index`, which is searched as it is.
    """
    made = SearchIndex(documents, index)
    origin = f"documents in {Path(documents).name}"
    reads = Declaration(readers="user")
    return tuple(
        tool_from_function(each, effect="read", origin=origin, declares=reads) for each in (made.search, made.lookup)
    )


class SearchIndex:
    """Documents that are searched. Thread-safe."""

    def __init__(self, documents: str | Path, index: str | Path | None = None):
        try:
            if _is_index(Path(documents)):
                if index is not None:
                    raise ConfigError(f"{str(documents)!r} is an index: leave out index={str(index)!r}")
                self._corpus = open_corpus(documents)
                assert isinstance(self._corpus.index, SqliteIndex)
                self._index = self._corpus.index
            else:
                self._index = _opened(Path(documents), None if index is None else Path(index))
                self._corpus = Corpus(self._index)
        except StoreError as error:
            raise ConfigError(str(error)) from None
        self._retriever = hybrid(self._corpus)

    @property
    def index(self) -> ChunkIndex:
        """The index that is searched."""
        return self._index

    def search(self, query: str, k: int = 5) -> str:
        """The passages that fit a query best, each indented below the id and title of its document.

        Args:
            query: Words, or the title of a document.
            k: How many passages are wanted.
        """
        found = self.find(query, k)
        if not found:
            return f"(nothing was found for {query[:200]!r}: try other words)"
        return "\n\n".join(f"{_named(each.id, each.title)}\n{_indented(each.text)}" for each in found)

    def lookup(self, text: str, document: str = "", after: int = 0) -> str:
        """The next sentence that holds a text, in one document or in all, indented below the document's id and title.

        Args:
            text: The words to look for, upper and lower case alike.
            document: The id or the title of the document; empty for all.
            after: How many such sentences have been seen already.
        """
        wanted = " ".join(text.casefold().split())
        if not wanted or after < 0:
            raise ToolError(f"text is {text[:100]!r} and after is {after}: give words to look for, and 0 or more")
        sentences = [
            (name, sentence)
            for name, passage in self._passages(document, wanted)
            for sentence in parts_of(passage, _SENTENCE)
            if wanted in " ".join(sentence.casefold().split())
        ]
        if after >= len(sentences):
            return f"(no more results: {len(sentences)} sentences hold {text[:100]!r})"
        name, sentence = sentences[after]
        return f"(result {after + 1} of {len(sentences)}) {name}\n{_indented(sentence.strip())}"

    def find(self, query: str, k: int = 5) -> list[PassageHit]:
        """The best `k` passages; the document whose title is the query comes first."""
        if not 1 <= k <= MAX_K:
            raise ToolError(f"k is {k}: give 1 to {MAX_K}")
        words = words_with_marks(query)[:64]
        if not words:
            raise ToolError(f"the query {query[:100]!r} holds no words: give some")
        first = [self._index.chunks(id)[:1] for id in self._index.titled(" ".join(query.split()))[:1]]
        ranked = self._ranked(" ".join(words), k)
        found = [*(Hit(chunk, 0.0) for chunks in first for chunk in chunks), *ranked]
        unique = list({hit.chunk.id: hit for hit in found}.values())[:k]
        return [
            PassageHit(hit.chunk.document, self._title(hit.chunk), hit.chunk.text.strip(), hit.score) for hit in unique
        ]

    def _ranked(self, text: str, k: int) -> list[Hit]:
        """The best chunks by terms, and by vectors too where there are any."""
        if self._corpus.embedder is None:
            return self._index.search_terms(text, k, {})

        async def found() -> list[Hit]:
            return list(await self._retriever(Query(text), k))

        with ThreadPoolExecutor(1) as pool:  # an event loop of its own, as the caller may be within one
            return pool.submit(lambda: asyncio.run(found())).result()

    def _title(self, chunk: Chunk) -> str:
        return self._index.title(chunk.document) or chunk.document

    def _passages(self, document: str, wanted: str) -> list[tuple[str, str]]:
        """The name of the document and the text of each passage to look in."""
        if document:
            known = [document] if self._index.title(document) is not None else self._index.titled(document)
            if not known:
                raise ToolError(f"no document has the id or title {document[:100]!r}: search for it first")
            chunks = [chunk for id in known for chunk in self._index.chunks(id)]
        else:
            words = words_with_marks(wanted.replace("_", " "))[:64]
            chunks = self._index.chunks_with(words) if words else []
        ids = [id for id, _ in groupby(chunk.document for chunk in chunks)]
        names = {id: _named(id, self._index.title(id) or id) for id in ids}
        return [(names[chunk.document], chunk.text) for chunk in chunks]


def _named(id: str, title: str) -> str:
    """A document's id and title, on one line."""
    return f"[{one_line(id[:MAX_ID_CHARS])}] {one_line(title[:MAX_TITLE_CHARS])}"


def _indented(text: str) -> str:
    """The text with each line indented, so that none can pass for the name of another document."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def _is_index(path: Path) -> bool:
    """True if the file is a SQLite database."""
    try:
        return read_head(path, len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except OSError:
        return False


def _opened(source: Path, kept: Path | None) -> SqliteIndex:
    """The index of the documents as they are now: in memory, or the kept one, brought up to date."""
    if not source.exists():
        raise ConfigError(f"no documents at {str(source)!r}: give a folder of texts, or a .jsonl file")
    files = sorted(_files(source))
    stamps = {_name(source, file): _stamp(file) for file in files}
    index = open_index(MEMORY if kept is None else kept, _HEADER)
    try:
        known = {each.id: each.meta for each in index.outlines()}
        if not _is_whole(known.values(), stamps):
            seen: set[str] = set()
            failed = index.put(_indexed(source, files, stamps, seen)).failed
            if failed:
                raise ConfigError(f"{failed[0][0]!r} cannot be indexed: {failed[0][1]}")
            index.delete(known.keys() - seen)
        if not len(index):
            raise ConfigError(f"{str(source)!r} holds no texts: {', '.join(SUFFIXES)} are read")
    except BaseException:
        index.close()
        raise
    return index


def _is_whole(metas: Iterable[Mapping[str, Any]], stamps: Mapping[str, str]) -> bool:
    """True if an index with documents of these metas has all those of the files, as they are now."""
    found: Counter[tuple[Any, Any]] = Counter()
    expected: dict[tuple[Any, Any], Any] = {}
    for meta in metas:
        read = meta.get("file"), meta.get("stamp")
        found[read] += 1
        if _NUMBER in meta:
            expected[read] = meta[_NUMBER]
    return found == expected and {*found} == {*stamps.items()}


def _indexed(source: Path, files: list[Path], stamps: dict[str, str], seen: set[str]) -> Iterator[IndexedDocument]:
    """The documents with their passages; their ids are added to `seen`."""
    for file in files:
        name = _name(source, file)
        meta: dict[str, Any] = {"file": name, "stamp": stamps[name]}
        texts = _texts(source, file)
        following = next(texts, None)
        for number in count(1):
            if following is None:
                break
            (id, title, text), following = following, next(texts, None)
            if id in seen:
                raise ConfigError(f"two documents have the id {id!r}: give each its own")
            seen.add(id)
            if following is None:
                meta = {**meta, _NUMBER: number}
            document = Document(id, text, title, str(file), meta)
            chunks = [Chunk(document.id, start, end, text[start:end], title, meta=meta) for start, end in spans(text)]
            yield IndexedDocument(document, chunks, None)


def split(text: str) -> list[str]:
    """The text in passages of about PASSAGE_CHARS, each ending with a sentence where there are any."""
    return [text[start:end] for start, end in spans(text)]


def spans(text: str) -> list[tuple[int, int]]:
    """The spans of passages of about PASSAGE_CHARS, each ending with a sentence where there are any; none is blank."""
    found: list[tuple[int, int]] = []
    first = 0
    for last in [*(match.end() for match in _SENTENCE.finditer(text)), len(text)]:
        for start in range(first, last, 2 * PASSAGE_CHARS):
            piece = text[start : min(last, start + 2 * PASSAGE_CHARS)]
            begin = start + len(piece) - len(piece.lstrip())
            end = start + len(piece.rstrip())
            if begin >= end:
                continue
            if found and end - found[-1][0] <= PASSAGE_CHARS:
                found[-1] = (found[-1][0], end)
            else:
                found.append((begin, end))
        first = last
    return found


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


def _stamp(file: Path) -> str:
    """A stamp of an unchanged file; for HTML it has the version of the reader, so that a newer one reads it again."""
    status = file.stat()
    reading = f", reading {FORMATS['html'].version}" if file.suffix.lower() in _HTML_SUFFIXES else ""
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns{reading}"


def _name(source: Path, file: Path) -> str:
    return _clean(file.name if file == source else str(file.relative_to(source)))


def _texts(source: Path, path: Path) -> Iterator[tuple[str, str, str]]:
    """Id, title and text of each document of a file."""
    if path.stat().st_size > MAX_FILE_BYTES and path.suffix.lower() != ".jsonl":
        raise ConfigError(f"{str(path)!r} has more than {MAX_FILE_BYTES} bytes: split it, or give it as .jsonl")
    name = _name(source, path)
    if path.suffix.lower() == ".jsonl":
        yield from _lines(path, "" if path == source else f"{name}:")
        return
    text = read_ordinary_text(path, MAX_FILE_BYTES, errors="replace").replace("\0", " ")
    text = to_placed_text(text)[0] if path.suffix.lower() in _HTML_SUFFIXES else text
    heading = re.match(r"\s*#\s+(.+)", text)
    yield name, _clean(heading.group(1).strip()[:200] if heading else path.stem), _clean(text)


def _lines(path: Path, prefix: str) -> Iterator[tuple[str, str, str]]:
    with io.TextIOWrapper(open_ordinary(path), encoding="utf-8", errors="replace") as file:
        lines = iter(lambda: file.readline(MAX_LINE_CHARS + 1), "")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if len(line) > MAX_LINE_CHARS or values_in_text(line, MAX_LINE_VALUES) > MAX_LINE_VALUES:
                raise ConfigError(
                    f"line {number} of {str(path)!r} has more than {MAX_LINE_CHARS:,} characters or {MAX_LINE_VALUES:,} "
                    "JSON values: divide the document, or leave out fields other than id, title and text"
                )
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
            given = body.get("id")
            id = str(number if given is None or given == "" else given)
            yield _clean(prefix + id), _clean(str(body.get("title", "")) or id), _clean(text)


def _clean(text: str) -> str:
    """The text without half surrogates, which a database cannot hold, and NULs, at which it would end."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
